"""How long `gen --help` takes."""

from __future__ import annotations

import subprocess
import sys
import time


def run():
    times = {}
    for name, code in (("help", "from tasks.cli import main; main(['--help'])"), ("bare", "pass")):
        times[name] = []
        for _ in range(7):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
            times[name].append(time.perf_counter() - began)
    ours, bare = (sorted(times[n])[3] for n in ("help", "bare"))
    yield {
        "what": "gen --help",
        "ours": f"{ours:.3f} s",
        "baseline": f"{bare:.3f} s (python itself)",
        "ratio": f"{ours / bare:.2f}",
        "bar": "< 0.5 s",
    }
