"""`make clients`: clients in other languages than Python against `gen serve`.

Needs Node and npm; what those install is kept in the user's cache, outside of the repository.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.serving import captioner, picture, running, translator, writer

PACKAGE = "openai@^7"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gen-clients"


def main() -> int:
    if not (shutil.which("node") and shutil.which("npm")):
        print("make clients needs node and npm", file=sys.stderr)
        return 2
    CACHE.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", CACHE, PACKAGE]
    subprocess.run(command, check=True)
    script = shutil.copy(
        Path(__file__).with_name("openai.mjs"), CACHE
    )  # node looks for packages beside the script
    with running({"writer": writer(), "en-de": translator(), "captions": captioner()}) as (url, _):
        return subprocess.run(["node", script, url, picture("blue")]).returncode


if __name__ == "__main__":
    sys.exit(main())
