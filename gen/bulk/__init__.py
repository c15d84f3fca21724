"""Large jobs: a model over more lines or pictures than one process should do, in pieces that are whole or absent.

`Writer` is for data of your own in Ray Data; `run_job` is what the commands do with ``--ray``.
"""

from __future__ import annotations

from gen.bulk.job import Job as Job
from gen.bulk.job import run_job as run_job
from gen.bulk.writer import Writer as Writer
