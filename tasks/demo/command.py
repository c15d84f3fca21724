"""`gen demo`: trains a text, a translation and a caption model and two classifiers, and writes an HTML report."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from gen.base.config import Words, parse_command
from gen.base.errors import UserError
from gen.metrics import classification
from tasks import report
from tasks.commands.export import ExportCommand, export_page
from tasks.demo.caption import caption_part
from tasks.demo.patterns import patterns_part
from tasks.demo.text import text_part
from tasks.demo.translation import LANGUAGES, translation_part
from tasks.display import console, say


@dataclass(frozen=True)
class DemoConfig:
    """Train on Python's documentation, a phrase book and drawn pictures, and write a report."""

    out: str = "runs/demo"
    """Output folder. Models that are already there are not trained again."""
    budget: Words = "50s"
    """Training time of each of the three models that write."""
    label_budget: Words = "8s"
    """Training time of each of the two classifiers."""


def demo_command(argv: list[str], command: str) -> None:
    """`gen demo`."""
    config = parse_command(DemoConfig, argv, command)
    classification.library()  # said before minutes of training: the classifiers come last
    out = Path(config.out)
    parts = (text_part, translation_part, caption_part)
    sections = [section for part in parts for section in part(out, config.budget)]
    sections = patterns_part(out, config.label_budget) + sections
    sections.append(report.section("Next", "", report.commands(next_commands(out))))
    path = out / "report.html"
    subtitle = "One recurrent decoder, trained five times on this machine a moment ago. Made by gen demo."
    report.write_page(path, "What the networks learned", subtitle, sections)
    console.print(f"\n[bold]Report: {path}[/bold]   (open it in a browser)\n")
    _write_page(out)
    console.print("\nNext:\n")
    for line in next_commands(out):
        say(f"  {line}")


def _write_page(out: Path) -> None:
    """The three models that write, as a page; a line says why where there is none."""
    names = ("text", "translate", "caption")
    page = out / "page.html"
    runs = tuple(f"{name}={out / name}" for name in names)
    try:
        export_page(ExportCommand(runs, str(page), web=True, single_file=True))
    except UserError as error:
        say(f"No page that runs them: {error}")
        return
    console.print(f"[bold]Page: {page}[/bold]   (runs the models in the browser; a file that can be passed on)")


def next_commands(out: Path) -> list[str]:
    """Example commands for the trained models."""
    text, translate, caption = (shlex.quote(str(out / name)) for name in ("text", "translate", "caption"))
    return [
        f'gen generate {text} --prompt "The function" --temperature 0.5 --stream',
        f'gen suggest {text} --prompt "The sta"',
        f'gen translate {translate} --text "{LANGUAGES[1]}: The old cat does not see the mouse."',
        f'gen plot attention {translate} --text "{LANGUAGES[0]}: She knows the king." -o attention.png',
        f"gen caption {caption} {shlex.quote(str(out / 'pictures' / 'val-00000.png'))}",
        f"gen classify {shlex.quote(str(out / 'language'))} 'Die Katze schläft.' --top 3",
        "gen train text --data your-book.txt --out runs/book --budget 10m",
        "gen train translate --train pairs.en pairs.de --out runs/en-de --budget 30m",
        "gen train caption --images photos --captions captions.jsonl --out runs/captions --budget 20m",
    ]
