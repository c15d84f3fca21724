"""Pages of the manual that are made from what stands elsewhere: a hook of MkDocs, see ``../mkdocs.yml``."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

_PAGES = {
    "README.md": "index.md",
    "gen/README.md": "about/architecture.md",
    "data/README.md": "reference/formats.md",
    ".github/CONTRIBUTING.md": "about/contributing.md",
    "CHANGELOG.md": "about/changelog.md",
}
"""File of the repository → page of the manual that says the same."""

_SECTIONS = {
    "reference/python.md": ("From Python", "From Python"),
    "howto/extend.md": ("Add your own", "Add an encoder, a strategy or a task"),
    "about/results.md": ("Results", "Results, and the commands that gave them"),
}
"""Page → section of the main README that it holds, and its title."""


def pages() -> dict[str, str]:
    """Address → Markdown of the pages that are made."""
    made = {
        page: _linked(ROOT / file, (ROOT / file).read_text("utf-8"), page)
        for file, page in _PAGES.items()
        if page != "index.md"
    }
    readme = (ROOT / "README.md").read_text("utf-8")
    for page, (title, heading) in _SECTIONS.items():
        body = re.split(r"^## ", readme.partition(f"\n## {title}\n")[2], flags=re.MULTILINE)[0]
        made[page] = f"# {heading}\n{_linked(ROOT / 'README.md', body, page)}"
    return made | {"reference/commands.md": commands_page()}


def _linked(file: Path, text: str, page: str) -> str:
    """A text of ``file`` with its links to other files leading to their pages; to those without one, only the
    name is left."""
    up = "../" * page.count("/")

    def link(match: re.Match[str]) -> str:
        if "://" in match[2] or match[2].startswith("#"):
            return match[0]
        target = (file.parent / match[2]).resolve().relative_to(ROOT).as_posix()
        return f"[{match[1]}]({up}{_PAGES[target]})" if target in _PAGES else match[1]

    return re.sub(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", link, text)


def commands_page() -> str:
    """What `gen help COMMAND` prints, for every command."""
    from gen.base.errors import UserError
    from tasks.cli import COMMANDS, run_command

    parts = ["# Commands\n\nWhat `gen help COMMAND` prints.\n"]
    for name, command in COMMANDS.items():
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit, UserError):
            run_command(name, command, ["--help"])
        parts.append(f"## gen {name}\n\n```text\n{printed.getvalue().rstrip()}\n```\n")
    return "\n".join(parts)


def on_files(files: Any, *, config: Any) -> Any:
    """Adds the pages; MkDocs calls it."""
    from mkdocs.structure.files import File

    for page, text in pages().items():
        files.append(File.generated(config, page, content=text))
    return files
