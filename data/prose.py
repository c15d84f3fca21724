"""English prose that comes with Python: the language reference that `help()` shows."""

from __future__ import annotations

import importlib

from gen.base.errors import UserError


def python_documentation() -> str:
    """The text of Python's help topics, about half a million characters.

    Raises:
        UserError: this Python was installed without its help topics.
    """
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError as error:
        raise UserError("this Python has no pydoc_data.topics; install its full standard library") from error
    return "\n\n".join(text.strip() for _, text in sorted(topics.items())) + "\n"
