"""`python -m gen` and `torchrun … -m gen`: the command line. The one place where gen knows of tasks, by name."""

import sys
from importlib import import_module

if __name__ == "__main__":
    sys.exit(import_module("tasks.cli").main())
