"""One request's searches: begun, waited for, and given up where nobody waits any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, TypeVar

from starlette.requests import Request

from gen.base.errors import ConfigError, UserError
from gen.inputs.pictures import PictureError
from gen.search.constrained import WIDEST
from gen.search.neighbours import Neighbours
from gen.search.options import SearchOptions
from gen.search.output import Hypothesis
from gen.serve.engine import Busy
from gen.serve.errors import ClientGone, Refusal
from gen.serve.job import Job, Token
from gen.serve.limits import Limits
from gen.serve.models import Models, Served

T = TypeVar("T")

ANSWER = 1 << 23
"""The most numbers in an answer, where a token or an alternative is eight and a weight of attention one: more take
seconds and a hundred megabytes to write."""

LARGE = 1 << 15
"""A larger answer is made outside the event loop's thread: it takes tens of milliseconds."""

MOST_STOPS = 16
LONGEST_NGRAM = 64

News = tuple[int, list[Token], list[Hypothesis] | None]
"""(number of a job, tokens since the last time, its hypotheses once it is done)."""


class Work:
    """The jobs of a request.

    Leaving it (``async with``) frees what is not done. A client that goes away frees it at once.
    """

    def __init__(self, request: Request, served: Served) -> None:
        self.request, self.served = request, served
        self.models: Models = request.app.state.models
        self.engine = served.engine
        self.model = self.engine.model  # not `served.model`, which may be another one by now
        self.jobs: list[Job] = []
        self.prompt_tokens = self.size = 0
        self.news = asyncio.Event()
        self._over: ClientGone | Refusal | None = None
        self._timer = asyncio.get_running_loop().call_later(self.limits.seconds, self._end, _late(self.limits))
        self._watch = asyncio.create_task(self._until_gone())
        request.scope["gen"].work = self

    @property
    def limits(self) -> Limits:
        return self.models.limits

    @property
    def tokens(self) -> int:
        """Tokens written, of what is done."""
        return sum(len(h.log_probs) for job in self.jobs for h in job.hypotheses)

    async def __aenter__(self) -> Work:
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Frees what is not done."""
        self._watch.cancel()
        self._timer.cancel()
        for job in self.jobs:
            if not job.done:
                self.engine.cancel(job)

    async def _until_gone(self) -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass
        self._end(ClientGone())

    def _end(self, reason: ClientGone | Refusal) -> None:
        """Lets `wait` raise why there will be no answer."""
        self._over = reason
        self.close()
        self.news.set()

    async def begin(
        self,
        item: Any,
        options: Mapping[str, Any],
        *,
        attention: bool = False,
        from_ids: Sequence[int] = (),
        **wanted: Any,
    ) -> Job:
        """Reads an item and lets it join the others.

        Args:
            item: what the model reads; see `gen.serve.items.item_of`.
            options: search options.
            attention: keep the attention.
            from_ids: the beginning of the output, as token ids.
            wanted: what else to keep and to tell; see `Job`.

        Raises:
            Refusal: the item or the options are wrong, or too many requests wait.
        """

        def prepare() -> Job:
            """Reads the item and checks its length. Runs outside the event loop's thread."""
            self._raise_over()  # while others were read
            with self.model.evaluating():
                search = self.model.prepare([item], **options, attention=attention)
            if not all(0 <= i < len(self.model.tokenizer) for i in from_ids):
                raise Refusal(f"from_ids: token ids are below {len(self.model.tokenizer)}", param="from_ids")
            if search.copying is not None:
                wanted["streams"] = False  # only the end shows what the text is
            search.prompts[0] = [*search.prompts[0], *from_ids]
            if from_ids:  # what has been begun is continued, not translated as in the memory once more
                for each in search.processors:
                    if isinstance(each, Neighbours):
                        each.targets = [None]
            positions = search.mask.shape[1]
            self.read(max(len(search.prompts[0]) - 1, positions))
            if (width := width_of(chosen)) * positions > self.limits.positions:  # each row has a copy of them
                raise Refusal(f"{width:,} texts or beams of an input of {positions:,} tokens are too much at once")
            job = Job(search, self.news, from_ids=from_ids, **wanted)
            self._count(job, positions if attention else 0)
            return job

        try:
            if self.engine.waiting >= self.limits.queue:
                raise Busy
            chosen = check(self.served, options, self.limits)
            job = await self.apart(prepare)
            self.engine.submit(job)
        except Busy as error:
            self.close()
            raise _busy() from error
        except BaseException:
            self.close()
            raise
        self.jobs.append(job)
        return job

    def read(self, count: int) -> None:
        """Counts tokens of an input. Raises `Refusal` where they are more than may be read."""
        if count > self.limits.input_tokens:
            raise Refusal(f"the input has {count:,} tokens, and at most {self.limits.input_tokens:,} are read")
        self.prompt_tokens += count

    def _count(self, job: Job, positions: int) -> None:
        """Counts what an answer may have. Raises `Refusal` where that is too much to write."""
        given = job.search.num_distinct or job.search.strategy.num_return  # of a beam, fewer than its rows
        self.size += given * job.limit * (8 * (1 + job.top) + positions)
        if self.size > ANSWER and (job.top or positions):
            names = "max_new_tokens, texts or beams, or alternatives (top, logprobs), or do without attention"
            raise Refusal(f"{self.size:,} numbers are too much for an answer: ask for fewer {names}")

    async def built(self, do: Callable[[], T]) -> T:
        """An answer: a large one is made in a thread of its own, so that others are answered meanwhile."""
        if self.size <= LARGE:
            return do()
        return await asyncio.get_running_loop().run_in_executor(self.models.pool, do)

    async def apart(self, do: Callable[[], T]) -> T:
        """See `apart`. Raises what `wait` raises, too."""
        self._raise_over()
        found = await apart(self.models, do)
        self._raise_over()
        return found

    async def wait(self) -> None:
        """Until a job has news. Raises `ClientGone`; `Refusal` where time is over."""
        await self.news.wait()
        self._raise_over()
        self.news.clear()

    def _raise_over(self) -> None:
        if self._over:
            raise self._over

    def outcome(self, job: Job) -> list[Hypothesis]:
        """What a job that is done has found."""
        if job.error:
            raise Refusal(job.error, job.status, code="model_error" if job.status == 500 else "")
        if job.hypotheses and (missing := job.hypotheses[0].missing):
            why = "has no room within max_new_tokens, or goes against other options"
            raise Refusal(f"{missing[0]!r} must come, and {why}", param="must")
        return job.hypotheses

    async def results(self, jobs: list[Job] | None = None) -> list[list[Hypothesis]]:
        """The hypotheses of all jobs."""
        jobs = self.jobs if jobs is None else jobs
        while not all(job.done for job in jobs):
            await self.wait()
        return [self.outcome(job) for job in jobs]

    async def stream(self) -> AsyncIterator[list[News]]:
        """What is new, whenever something is."""
        left = dict(enumerate(self.jobs))
        while left:
            news: list[News] = []
            for number, job in list(left.items()):
                done = job.done
                said = [job.said.popleft() for _ in range(len(job.said))]
                if said and self.request.scope["gen"].first is None:
                    self.request.scope["gen"].first = time.perf_counter()
                if done:
                    del left[number]
                if said or done:
                    news.append((number, said, self.outcome(job) if done else None))
            yield news
            if left:
                await self.wait()


async def apart(models: Models, do: Callable[[], T]) -> T:
    """What is no search, computed in a thread of its own. Raises `Refusal` where too much waits for that."""
    if models.reading >= models.limits.queue:
        raise _busy()
    models.reading += 1
    try:
        return await asyncio.get_running_loop().run_in_executor(models.pool, refused, do)
    finally:
        models.reading -= 1


def _busy() -> Refusal:
    message = "too many requests are waiting: try again later"
    return Refusal(message, 429, code="rate_limit_exceeded", headers={"Retry-After": "1"})


def _late(limits: Limits) -> Refusal:
    message = f"not done within {limits.seconds:g} seconds: ask for fewer tokens, or try again later"
    once = {"x-should-retry": "false"}  # else OpenAI's package asks twice more for what takes too long
    return Refusal(message, 408, code="timeout", headers=once)


def refused(do: Any, *arguments: Any) -> Any:
    """Calls it; bad input becomes a `Refusal`."""
    try:
        return do(*arguments)
    except ConfigError as error:
        raise Refusal("; ".join(str(error).splitlines())) from error
    except PictureError as error:
        raise Refusal(str(error), code="invalid_image") from error
    except UserError as error:
        raise Refusal(str(error)) from error


def check(served: Served, options: Mapping[str, Any], limits: Limits) -> SearchOptions:
    """The options that a request would have. Raises `Refusal` where they are wrong or too much."""
    chosen: SearchOptions = refused(SearchOptions.make, served.model.search_defaults, dict(options))
    for name in ("must", "ban"):  # each costs time at every step, of all requests
        given = options.get(name) or ()
        texts = [each for text in ([given] if isinstance(given, str) else given) for each in text.split("|")]
        if len(texts) > limits.constraints or sum(map(len, texts)) > 64 * limits.constraints:
            raise Refusal(f"{name}: at most {limits.constraints} texts (A|B are two) of 64 characters are taken")
    if len(chosen.stop) > MOST_STOPS or sum(map(len, chosen.stop)) > 64 * MOST_STOPS:
        raise Refusal(f"stop: at most {MOST_STOPS} strings of 64 characters are taken", param="stop")
    if (chosen.no_repeat_ngram or 0) > LONGEST_NGRAM:
        raise Refusal(f"no_repeat_ngram: at most {LONGEST_NGRAM}", param="no_repeat_ngram")
    if len(chosen.prefix) > limits.characters:
        raise Refusal(
            f"prefix: {len(chosen.prefix):,} characters, and at most {limits.input_tokens:,} tokens are read",
            param="prefix",
        )
    if chosen.length_limit > limits.tokens:
        raise Refusal(f"max_new_tokens {chosen.length_limit:,}: at most {limits.tokens:,} tokens are written")
    if (width := width_of(chosen)) > limits.rows:
        raise Refusal(f"{width:,} texts or beams at once: at most {limits.rows:,} are searched")
    return chosen


def width_of(chosen: SearchOptions) -> int:
    """The rows that a search has at most."""
    return (chosen.beam or chosen.num_outputs) * (WIDEST if chosen.must else 1)


def several(served: Served, options: dict[str, Any], n: int) -> dict[str, Any]:
    """Options for ``n`` outputs: as many samples, or the best of a beam."""
    if n == 1:
        return options
    chosen: SearchOptions = refused(SearchOptions.make, served.model.search_defaults, options)
    if chosen.beam is not None:
        return {**options, "beam": max(chosen.beam, n), "n_best": n}
    return {**options, "num_samples": n}
