"""The errors a user can mend. Everything else is a bug and keeps its traceback."""

from __future__ import annotations

import sys
from collections.abc import Sequence


class UserError(Exception):
    """Bad input. Its message is one line that says what is wrong, where, and what to do.

    The command line prints it without a traceback and exits with status 2.
    """


class ConfigError(UserError):
    """Every contradiction of a configuration at once, a line each, naming the options."""

    def __init__(self, errors: Sequence[str]) -> None:
        self.errors = list(errors)
        super().__init__("\n".join(self.errors))


class Terminated(KeyboardInterrupt):
    """SIGTERM, answered as Ctrl-C is."""


def notify(message: str) -> None:
    """Tells the user, in a line on standard error, what went wrong and what is done about it."""
    print(f"gen: {message}", file=sys.stderr, flush=True)
