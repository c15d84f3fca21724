"""`--ray`: a command over more rows than one process should do."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from gen.base.config import range_errors
from gen.base.errors import UserError, flag, notify
from gen.base.files import fingerprint
from gen.base.lines import expand_braces

FILES = ("run", "terms", "lexicon", "memory")
"""Entries of a record that name models or files."""


@dataclass(frozen=True)
class LargeJob:
    """Workers of Ray."""

    TITLE: ClassVar = "Large jobs"

    ray: bool = False
    """Do the work in processes of Ray, and write shards of JSON Lines into the folder --output: an object per row,
    with its number, or its error. The same command goes on with a job that was stopped. Input: text files, .jsonl,
    .parquet, or pictures and folders of them."""
    ray_address: str = ""
    """Address of a cluster, such as ray://head:10001, whose machines have all files under the same paths. Unset:
    one is started on this machine for the time of the job."""
    workers: int = 2
    """With --ray: the number of processes."""
    shard_rows: int = 10_000
    """With --ray: rows per shard."""
    column: tuple[str, ...] = ()
    """With --ray: the field of .jsonl and .parquet to read. Unset: text; for pairs: source target."""

    def errors(self, output: str, inputs: Sequence[str], others: Mapping[str, Any]) -> list[str]:
        """The errors in the options, one line each.

        Args:
            output: the folder.
            inputs: names of the input.
            others: options of the command that do not go with --ray: name → value.
        """
        found = range_errors(self, ("workers", "shard_rows"))
        if not self.ray:
            defaults = LargeJob()
            names = ("ray_address", "workers", "shard_rows", "column")
            return found + [
                f"{flag(n)} goes with --ray" for n in names if getattr(self, n) != getattr(defaults, n)
            ]
        if output == "-":
            found.append("--ray writes shards: name a folder for them with --output")
        if not inputs or "-" in inputs:
            found.append("--ray reads files, not standard input: name some")
        wrong = [flag(name) for name, value in others.items() if value]
        return found + ([f"--ray does not go with {', '.join(wrong)}"] if wrong else [])

    def run(
        self,
        load: Callable[[], Callable[[list[Any]], Any]],
        inputs: Sequence[str],
        output: str,
        *,
        pictures: bool,
        batch_size: int,
        record: Mapping[str, Any],
        columns: tuple[str, ...] = ("text",),
    ) -> int:
        """Does the job. Returns 1 if some rows failed, 2 if all did.

        Args:
            load: makes the work of a worker; also called here once, for its errors.
            inputs, output: files, and the folder for the shards.
            pictures: whether rows are pictures.
            batch_size: rows at once.
            record: what decides what is written: a folder of other shards is an error. Of the entries in
                `FILES`, fingerprints count, not names.
            columns: the fields to read, unless others are asked for.
        """
        try:
            from gen.bulk import Job, run_job
            from gen.bulk.inputs import find_chunks
        except ImportError as error:  # gen-runtime is without it
            raise UserError("--ray needs more than gen-runtime: pip install 'gen-toolkit[ray]'") from error
        columns = self.column or columns
        chunks = find_chunks(inputs, self.shard_rows, pictures=pictures)
        load()
        known = {name: _fingerprints(name, files) for name in FILES if (files := record.get(name))}
        job = Job(load, chunks, Path(output), columns, batch_size, {**record, **known})
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its processes write to our console
        shown = [-1]

        def progress(done: int, total: int) -> None:
            if done * 10 // total > shown[0]:  # at every tenth
                shown[0] = done * 10 // total
                notify(f"{done:,} of {total:,} rows are done")

        failed = run_job(job, workers=self.workers, address=self.ray_address, progress=progress)
        total = sum(chunk.count for chunk in chunks)
        if failed:
            notify(f'{failed:,} of {total:,} rows failed: see "error" in {output}')
        return 0 if not failed else 2 if failed == total else 1


def _fingerprints(name: str, files: str | Sequence[str]) -> list[Any]:
    """Those of the files, or the folders of models, that an option names."""
    from gen.models.checkpoint import find_model
    from gen.runtime import is_exported, located

    names = [files] if isinstance(files, str) else files
    if name == "run":
        return [fingerprint(located(each) if is_exported(each) else find_model(each)) for each in names]
    return [fingerprint(each) for given in names for each in expand_braces(given)]
