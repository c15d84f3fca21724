"""Docstrings as the manual shows them: an extension of Griffe, which reads them; see ``../mkdocs.yml``."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension

_CHANGES = {r"^( *)Example:$": r"\1Examples:", r"^( *)(Example|Use)::$": r"\1**\2**"}
"""What Griffe does not know as the beginning of code → what it does."""


class Examples(Extension):
    """Shows ``Example:`` with a session and ``Example::`` with code as code."""

    def on_object(self, *, obj: Any, **kwargs: Any) -> None:
        """Changes a docstring."""
        if obj.docstring:
            for pattern, instead in _CHANGES.items():
                obj.docstring.value = re.sub(pattern, instead, obj.docstring.value, flags=re.MULTILINE)
