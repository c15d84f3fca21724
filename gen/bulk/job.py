"""A large job: its chunks, each written as a file that is whole or absent, by workers of Ray."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from gen.base.errors import UserError
from gen.base.files import fingerprint
from gen.base.folders import sweep, write_text
from gen.base.json_files import json_line
from gen.bulk.inputs import Chunk, Failed, read_chunk
from gen.bulk.writer import Work, careful

RECORD = "job.json"
"""The file in the output folder that says which job its shards are of."""


RETRIES = 3
"""How often a chunk is begun again whose worker died."""


@dataclass(frozen=True)
class Job:
    """Work over chunks.

    Attributes:
        load: makes the work, in each worker: it must be picklable, as a partial of a function of a module is.
        chunks: the input.
        out: the folder for the shards, ``00000.jsonl`` and so on: a JSON object per row, with its number.
        columns: of tables.
        batch_size: items at once.
        record: what else decides what is written.
    """

    load: Callable[[], Work]
    chunks: list[Chunk]
    out: Path
    columns: tuple[str, ...] = ("text",)
    batch_size: int = 64
    record: Mapping[str, Any] | None = None

    def open(self) -> list[Chunk]:
        """Makes the folder, or goes on with it. Returns the chunks that are left to do.

        Raises:
            UserError: the folder holds another job, or other files.
        """
        record = {
            **(self.record or {}),
            "columns": self.columns,
            "batch_size": self.batch_size,
            "input": self._input(),
        }
        record = json.loads(json.dumps(record))
        file = self.out / RECORD
        if file.exists():
            try:
                before = json.loads(file.read_text(encoding="utf-8"))
                if not isinstance(before, dict):
                    raise ValueError("it is no record of a job")
            except (OSError, ValueError) as error:
                raise UserError(f"{file}: cannot be read ({error}); choose another --output") from error
            if changed := [name for name in record if record[name] != before.get(name)]:
                raise UserError(
                    f"--output {self.out}: holds another job (other {', '.join(changed)}); choose another --output"
                )
        elif self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise UserError(f"--output {self.out}: is not an empty folder; choose another --output")
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            sweep(self.out)
            if not file.exists():
                write_text(file, json.dumps(record, ensure_ascii=False))
        except OSError as error:
            raise UserError(f"--output {self.out}: cannot be written ({error.strerror})") from error
        return [chunk for chunk in self.chunks if not shard(self.out, chunk).exists()]

    def _input(self) -> str:
        """A hash of the chunks and the fingerprints of their files. No picture is read for it: there are many."""
        known = cache(fingerprint)
        chunks = [
            (c.row, c.count, c.begin, known(c.file) if c.file else [fingerprint(p, most=-1) for p in c.pictures])
            for c in self.chunks
        ]
        return hashlib.blake2b(json.dumps(chunks).encode(), digest_size=20).hexdigest()

    def write(self, chunk: Chunk, work: Work) -> None:
        """Writes a chunk's shard."""
        items = list(read_chunk(chunk, self.columns))
        good = [item for item in items if not isinstance(item, Failed)]
        done = careful(work, good, self.batch_size)
        rows = [{"error": str(item)} if isinstance(item, Failed) else next(done) for item in items]
        lines = (json_line({"row": n, **row}) for n, row in enumerate(rows, chunk.row))
        write_text(shard(self.out, chunk), "".join(lines))


def shard(out: Path, chunk: Chunk) -> Path:
    """The file of a chunk."""
    return out / f"{chunk.number:05}.jsonl"


class ShardWriter:
    """Writes shards: an actor of Ray."""

    def __init__(self, job: Job) -> None:
        self.job, self.work = job, job.load()

    def write(self, chunk: Chunk | None) -> int:
        """Writes a chunk's shard, if one is given. Returns the number of rows."""
        if chunk is None:
            return 0
        self.job.write(chunk, self.work)
        return chunk.count


def run_job(
    job: Job,
    *,
    workers: int = 2,
    address: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Does what is left of a job with actors of Ray. One that dies is started again, and does its chunk again.

    Args:
        job: the job.
        workers: processes.
        address: of a cluster whose machines all see the input, the model and the output folder under the same
            paths; "" starts one on this machine for the time of the job.
        progress: called with the rows that are done, and all.

    Returns:
        The number of rows that failed.

    Raises:
        UserError: Ray is missing or fails, or the output folder is another job's.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError("--ray needs the library ray: pip install 'gen-toolkit[ray]'") from error
    left = job.open()
    total = sum(chunk.count for chunk in job.chunks)
    done = total - sum(chunk.count for chunk in left)
    progress(done, total)
    if left:
        _run(ray, job, left, workers, address, lambda more: progress(done + more, total))
    files = [shard(job.out, chunk) for chunk in job.chunks]
    if missing := [file for file in files if not file.exists()]:
        raise UserError(f"{missing[0]}: was not written; the same command goes on")
    return sum(_failed(file) for file in files)


def _failed(file: Path) -> int:
    with file.open(encoding="utf-8") as lines:
        return sum('"error": ' in line and "error" in json.loads(line) for line in lines)


def _run(
    ray: Any, job: Job, left: list[Chunk], workers: int, address: str, progress: Callable[[int], None]
) -> None:
    """Does the chunks that are left. ``progress`` is called with the number of rows done."""
    done, total, waiting = 0, sum(chunk.count for chunk in left), iter(left)
    own = {} if address else {"num_cpus": workers, "include_dashboard": False}
    try:
        ray.init(address or "local", log_to_driver=False, logging_level="ERROR", **own)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = str(error).strip().partition("\n")[0]
        where = f"--ray-address {address}" if address else "--ray"
        raise UserError(f"{where}: cannot connect ({reason})") from error
    try:
        actor = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=RETRIES)(ShardWriter)
        writers = [actor.remote(replace(job, chunks=[])) for _ in range(min(workers, len(left)))]
        busy = {writer.write.remote(None): writer for writer in writers}  # one may have to wait for a place
        while done < total:
            (ready,), _ = ray.wait(list(busy), num_returns=1)
            done += ray.get(ready)
            progress(done)
            writer = busy.pop(ready)
            if chunk := next(waiting, None):
                busy[writer.write.remote(chunk)] = writer
    except ray.exceptions.RayError as error:
        raise UserError(f"--ray: {str(error).strip().splitlines()[-1]}; the same command goes on") from error
    finally:
        ray.shutdown()
