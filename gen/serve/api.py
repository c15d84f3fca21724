"""Our own interface: what a page needs that shows how a model chooses."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Annotated, Any

import numpy as np
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from gen.inputs.items import item_labels, memory_inputs
from gen.inputs.processors import InputProcessor, SentenceProcessor
from gen.search.confidence import confidence_record
from gen.search.labels import label_log_probs
from gen.search.output import Hypothesis
from gen.search.pieces import Pieces
from gen.search.prepared import cut, end_space, token_texts
from gen.search.spelling import Spelling, after
from gen.serve.errors import Refusal
from gen.serve.items import read_item
from gen.serve.job import Job, Token
from gen.serve.models import Models
from gen.serve.wire import Search, Top, answer, events, read
from gen.serve.work import Work

Ids = Annotated[list[int], Meta(max_length=4096)]


class Asked(Struct, kw_only=True):
    """What a model is to read. ``input``: a text, a picture as a ``data:`` URL, or one of them per input name."""

    model: str | None = None
    input: str | dict[str, str | None] = ""


class Next(Asked, kw_only=True, forbid_unknown_fields=True):
    """`POST /api/next`. ``from_ids``: the output so far."""

    from_ids: Ids = []
    top: Annotated[int, Meta(ge=1, le=1000)] = 10


class Generate(Search, kw_only=True, forbid_unknown_fields=True):
    """`POST /api/generate`. ``from_ids``: the beginning of the output, as token ids; the answer continues it."""

    model: str | None = None
    input: str | dict[str, str | None] = ""
    from_ids: Ids = []
    top: Top = 0
    attention: bool = False
    tree: bool = False
    stream: bool = False


class Classify(Asked, kw_only=True, forbid_unknown_fields=True):
    """`POST /api/classify`."""

    top: Annotated[int, Meta(ge=1, le=1000)] = 10


async def models(request: Request) -> Response:
    """The models, what they read, and how they search."""
    found: Models = request.app.state.models
    return answer({"models": [served.describe() for served in found.served.values()]})


async def next_tokens(request: Request) -> Response:
    """The likeliest next tokens."""
    asked = await read(request, Next)
    models: Models = request.app.state.models
    served = models.find(asked.model)
    options = {"temperature": 0.0, "max_new_tokens": 1, "min_new_tokens": 0}
    item = await read_item(models, served, asked.input)
    async with Work(request, served) as work:
        job = await work.begin(item, options, top=asked.top, from_ids=asked.from_ids)
        await work.results()
    spelling = _spelling(work, job)
    tokens = _tops(work, job.tops[0][0], spelling)
    return answer({"model": served.name, "tokens": tokens, "prompt_tokens": work.prompt_tokens})


async def generate(request: Request) -> Response:
    """Writes texts, with what the model thought of each token and looked at."""
    asked = await read(request, Generate)
    models: Models = request.app.state.models
    served = models.find(asked.model)
    item = await read_item(models, served, asked.input)
    work = Work(request, served)
    job = await work.begin(
        item,
        asked.options(),
        top=asked.top,
        streams=asked.stream,
        tree=asked.tree,
        attention=asked.attention,
        from_ids=asked.from_ids,
    )
    item = job.search.items[0]
    if asked.stream:
        return events(request, _events(work, job, item, asked))
    async with work:
        (found,) = await work.results()
    return await work.built(lambda: answer(_whole(work, job, item, asked, found)))


async def classify(request: Request) -> Response:
    """The likeliest labels, and what the model looked at."""
    asked = await read(request, Classify)
    models: Models = request.app.state.models
    served = models.find(asked.model)
    if not served.labels:
        raise Refusal(f"{served.name} does not choose among labels: it is for /api/generate", param="model")
    item = await read_item(models, served, asked.input)
    async with Work(request, served) as work:

        def judge() -> tuple[np.ndarray, list[np.ndarray]]:
            work.read(len(item_labels(work.model.processors, item)))
            return label_log_probs(work.model, [item])

        log_probs, looks = await work.apart(judge)
    order = np.argsort(-log_probs[0], kind="stable")[: asked.top].tolist()
    labels = [{"label": served.labels[k], "probability": _probability(log_probs[0, k])} for k in order]
    return answer(
        {
            "model": served.name,
            "labels": labels,
            **_input(served.inputs, item),
            "attention": [round(float(w), 5) for w in looks[0]],
        }
    )


def _input(processors: Mapping[str, InputProcessor], item: Mapping[str, Any]) -> dict[str, Any]:
    """Per input what stands at each of its memory positions: of a text, the parts that joined are the text."""
    parts, placed = {}, memory_inputs(processors)
    for name, processor in processors.items():
        absent = name not in placed or (item[name] is None and processor.optional)
        parts[name] = [] if absent else processor.labels(item[name])
        if isinstance(processor, SentenceProcessor):
            spelling = Spelling(processor.tokenizer, [])
            parts[name] = [spelling.add(i) for i in processor.encode(item[name])]
    return {"input_labels": item_labels(processors, item), "input_parts": parts}


def _probability(log_prob: float) -> float:
    return float(f"{math.exp(log_prob):.6g}")


def _spelling(work: Work, job: Job) -> Spelling:
    """How the next tokens are written, after the prompt and the tokens that were asked for."""
    tokenizer = work.model.tokenizer
    space = "" if job.from_ids else end_space(job.search.texts[0], tokenizer)
    return Spelling(tokenizer, job.search.prompts[0], space)


def _tops(work: Work, top: list[tuple[int, float]], spelling: Spelling) -> list[dict[str, Any]]:
    """``text`` is a token's own text, ``piece`` what it adds to the text so far."""
    texts = token_texts(work.model.tokenizer)
    return [
        {"id": i, "text": texts[i], "piece": spelling.piece(i), "probability": _probability(p)} for i, p in top
    ]


def _token(work: Work, token: Token, spelling: Spelling) -> dict[str, Any]:
    """A token as it is written; the next one comes after it."""
    found: dict[str, Any] = _tops(work, [(token.token_id, token.log_prob)], spelling)[0]
    found["log_prob"] = token.log_prob
    if token.top:
        found["top"] = _tops(work, token.top, spelling)
    spelling.add(token.token_id)
    return found


def _weights(attention: np.ndarray | None) -> list[Any] | None:
    return None if attention is None else np.round(attention.astype(float), 5).tolist()


async def _events(work: Work, job: Job, item: Any, asked: Generate) -> AsyncIterator[list[dict[str, Any]]]:
    """A ``token`` for each token, then ``done`` with the whole answer."""
    search = job.search
    tokenizer = work.model.tokenizer
    writers = [Pieces(tokenizer, search.texts[0], search.stops, job.from_ids) for _ in range(job.width)]
    spellings = [_spelling(work, job) for _ in range(job.width)]

    def event(token: Token) -> dict[str, Any]:
        text = writers[token.text].add(token.token_id)
        content = _token(work, token, spellings[token.text])
        seen = {"attention": _weights(token.attention)} if asked.attention else {}
        return {"type": "token", "index": token.text, "piece": text, "token": content, **seen}

    async with work:
        async for news in work.stream():
            for _, said, found in news:
                yield list(map(event, said))
                if found is not None:
                    whole = await work.built(partial(_whole, work, job, item, asked, found))
                    yield [{"type": "done", **whole}]


def _whole(work: Work, job: Job, item: Any, asked: Generate, found: list[Hypothesis]) -> dict[str, Any]:
    content: dict[str, Any] = {
        "model": work.served.name,
        **_input(work.model.processors, item),
        "outputs": [_output(work, job, place, h, asked) for place, h in enumerate(found)],
        "usage": {"prompt_tokens": work.prompt_tokens, "tokens": work.tokens},
    }
    if job.records is not None:
        tree = content["tree"] = _tree(work, job)
        at = {(node["parent"], node["id"]): n for n, node in reversed([*enumerate(tree)])}  # the first of equals
        for output, hypothesis in zip(content["outputs"], found, strict=True):
            output["path"] = _path(at, hypothesis.token_ids)
    return content


def _output(work: Work, job: Job, place: int, hypothesis: Hypothesis, asked: Generate) -> dict[str, Any]:
    spelling = _spelling(work, job)
    text = hypothesis.text
    if job.from_ids:
        decode = work.model.tokenizer.decode
        text = cut(after(decode(job.from_ids + hypothesis.token_ids), decode(job.from_ids)), job.search.stops)
    output: dict[str, Any] = {
        "text": text,
        "score": hypothesis.score,
        "finished": hypothesis.finished,
        **hypothesis.drawn(),
        "tokens": [_token(work, token, spelling) for token in job.tokens_of(place, hypothesis)],
    }
    if not job.from_ids:  # else what was kept of the text is not here
        output |= confidence_record(hypothesis)
    if asked.attention:
        output["attention"] = _weights(hypothesis.attention)
    return output


def _tree(work: Work, job: Job) -> list[dict[str, Any]]:
    """The steps of a beam search: every token that was kept, with the one before it (-1: the beginning)."""
    ops, texts, records = job.search.start.ops, token_texts(work.model.tokenizer), job.records or []
    nodes: list[dict[str, Any]] = []
    at = [-1] * job.width
    for step, record in enumerate(records):
        parents = range(job.width) if record.parents is None else ops.numpy(record.parents).tolist()
        before, at = at, []
        columns = (ops.numpy(a).tolist() for a in (record.token_ids, record.log_probs, record.live))
        for parent, token_id, log_prob, live in zip(parents, *columns, strict=True):
            if not live:
                at.append(before[parent])
                continue
            score = log_prob + (nodes[before[parent]]["score"] if before[parent] >= 0 else 0.0)
            nodes.append(
                {
                    "parent": before[parent],
                    "step": step,
                    "id": token_id,
                    "text": texts[token_id],
                    "probability": _probability(log_prob),
                    "score": score,
                    "ends": token_id == work.model.tokenizer.eos_id,
                }
            )
            at.append(len(nodes) - 1)
    return nodes


def _path(at: Mapping[tuple[int, int], int], token_ids: list[int]) -> list[int]:
    """The nodes of a text, from its first token on; ``at``: (the node before, token id) → node."""
    path: list[int] = []
    for token_id in token_ids:
        if (node := at.get((path[-1] if path else -1, token_id))) is None:
            break
        path.append(node)
    return path
