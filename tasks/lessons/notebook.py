"""From a script in the percent format to a notebook."""

from __future__ import annotations

import json
import re
from typing import Any


def notebook(script: str) -> dict[str, Any]:
    """The notebook of a script, without outputs: a dictionary of nbformat 4.5.

    Args:
        script: in the percent format: a line ``# %%`` begins a cell of code, ``# %% [markdown]`` one of text,
            whose lines are comments.

    Example:
        >>> made = notebook("# %% [markdown]\\n# # Title\\n#\\n# Text.\\n\\n# %%\\nprint(1)\\n")
        >>> [(cell["cell_type"], "".join(cell["source"])) for cell in made["cells"]]
        [('markdown', '# Title\\n\\nText.'), ('code', 'print(1)')]
    """
    cells = []
    parts = re.split(r"^# %%(.*)\n", script, flags=re.MULTILINE)[1:]  # kind, body, kind, body, …
    for number, (kind, body) in enumerate(zip(parts[::2], parts[1::2], strict=True)):
        text, is_code = body.strip("\n"), "[markdown]" not in kind
        if not is_code:
            text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
        cell: dict[str, Any] = {
            "cell_type": "code" if is_code else "markdown",
            "id": f"cell-{number}",
            "metadata": {},
            "source": text.splitlines(keepends=True),
        }
        cells.append(cell | ({"execution_count": None, "outputs": []} if is_code else {}))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def as_text(script: str) -> str:
    """The file of the notebook of a script."""
    return json.dumps(notebook(script), indent=1, ensure_ascii=False) + "\n"
