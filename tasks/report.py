"""Parts of a self-contained HTML page in the style of the page of `gen serve`, without fonts or other files."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from gen.base.errors import printable
from gen.base.folders import write_text
from gen.inputs.pictures import open_picture
from gen.metrics.plots import COLOURS, lit, plot_attention, plot_histogram, plot_losses
from gen.search import Hypothesis
from gen.search.confidence import located
from tasks.commands.confidence import DOUBTFUL

METRICS = {
    "nats per character": "the mean of −ln p of each character; lower is better.",
    "bits per character": "the same in bits: as much room as the text needs, compressed with the model.",
    "perplexity": "e to the nats: as if it chose among so many equally likely characters each time.",
    "exactly right": "translations that equal the reference word for word.",
    "BLEU": "how many runs of one to four words are those of the reference, in percent; 100: all of them.",
    "chrF": "the same with runs of up to six characters, so that a wrong ending costs less.",
    "word for word right": "captions that equal one of the picture's references.",
    "CIDEr-D": "runs of words shared with the references, rare ones counting more; on photographs 100 is good, "
    "and there is no upper end.",
    "BLEU-4": "how many runs of one to four words are in a reference, in percent.",
}
"""What each metric means, in a line; a table of numbers has no other columns."""


class Section(NamedTuple):
    """A part of a page with a heading."""

    title: str
    body: str


def section(title: str, text: str, *parts: str) -> Section:
    """A heading, a paragraph of plain text (if any), and parts made by the other functions."""
    return Section(title, "".join([f"<p>{escape(text)}</p>" if text else "", *parts]))


def numbers(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table of metrics, and what each means. The first column has names."""
    meanings = "".join(f"<div><dt>{escape(m)}</dt> <dd>{escape(METRICS[m])}</dd></div>" for m in header[1:])
    return f'{counts(header, rows)}<dl class="metrics">{meanings}</dl>'


def counts(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table of numbers. The first column has names."""
    return _table("numbers", header, rows)


def texts(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table of texts, whose cells stand below one another on a narrow screen."""
    return _table("texts", header, rows)


def _table(kind: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f'<th scope="col">{escape(each)}</th>' if each else "<td></td>" for each in header)
    body = ""
    for first, *rest in rows:
        name = f'<th scope="row">{escape(str(first))}</th>'
        body += f"<tr>{name}{''.join(f'<td>{escape(str(value))}</td>' for value in rest)}</tr>"
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="{kind}">{_scroll(table, ", ".join(filter(None, header)))}</div>'


def _scroll(content: str, name: str) -> str:
    """Content that scrolls within itself where it is wider than the page, by keyboard, too."""
    return f'<div class="scroll" role="region" aria-label="{escape(name)}" tabindex="0">{content}</div>'


def samples(written: Sequence[tuple[str, str, str]]) -> str:
    """Texts side by side: (title, remark, text) each."""
    cells = "".join(
        f"<figure><figcaption>{escape(title)} <span>{escape(remark)}</span></figcaption>"
        f"<pre>{escape(text)}</pre></figure>"
        for title, remark, text in written
    )
    return f'<div class="samples">{cells}</div>'


# -- plots -------------------------------------------------------------------------------------------------


def loss_curve(
    records: Sequence[Mapping[str, Any]], baseline: float | None = None, metric: str = "", label: str = ""
) -> str:
    """The loss over time, and optionally another metric by its name for people; see `plot_losses`."""

    def draw(buffer: io.BytesIO) -> None:
        plot_losses([dict(r) for r in records], buffer, baseline, metric, label=label, size=(4.2, 2.9))

    also = f", and {label} on held-out data (right axis)" if metric else ""
    said = f"The loss while it trained: −ln p of each token, lower is better{also}."
    return f'<figure class="plot">{_drawn(draw, said)}<figcaption>{escape(said)}</figcaption></figure>'


def histogram(values: Mapping[str, Any], label: str) -> str:
    """How often values occur, in percent, for each of several series; see `plot_histogram`."""
    said = f"Share of the {' and the '.join(values)} examples by {label}."
    drawn = _drawn(lambda buffer: plot_histogram(values, label, buffer), said)
    return f'<figure class="plot">{drawn}<figcaption>{escape(said)}</figcaption></figure>'


def heat_map(weights: Any, targets: Sequence[str], sources: Sequence[str]) -> str:
    """The attention of target tokens on source tokens; see `plot_attention`."""
    said = f"Attention of “{''.join(targets).strip()}” on “{''.join(sources).strip()}”"
    drawn = _drawn(lambda buffer: plot_attention(weights, targets, sources, buffer), said)
    return f'<figure class="plot">{_scroll(drawn, said)}</figure>'


def _drawn(draw: Callable[[io.BytesIO], None], name: str) -> str:
    """What a function draws, as inline SVG in the page's colours."""
    buffer = io.BytesIO()
    draw(buffer)
    svg = buffer.getvalue().decode()
    svg = re.sub(r'<g id="[^"]*"', "<g", svg[svg.index("<svg") :])  # several plots would have the same
    svg = re.sub(r"<defs>\s*<style.*?</defs>", "", svg, flags=re.DOTALL)  # it would hold for the page
    svg = svg.replace("#000000", "currentColor")
    for role, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{role})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(name)}"', 1)


def surprise(pieces: Sequence[tuple[str, float]]) -> str:
    """A text with improbable tokens on darker background; (token, log-probability) each."""
    spans = []
    for text, log_prob in pieces:
        strength = min(-log_prob / math.log(2) / 10, 1.0)  # 10 bits or more are darkest
        spans.append(f'<span class="token" style="--heat: {strength:.2f}">{escape(text)}</span>')
    scale = '<p class="legend">expected <span class="scale"></span> surprising</p>'
    return f'{scale}<pre class="surprise">{"".join(spans)}</pre>'


def commands(lines: Sequence[str]) -> str:
    """Commands to copy."""
    return f"<pre>{escape(chr(10).join(lines))}</pre>"


# -- pictures ----------------------------------------------------------------------------------------------


def small_picture(picture: Any, side: int = 224) -> bytes:
    """A copy of a picture of at most ``side`` pixels, as JPEG."""
    small = open_picture(picture, wanted=side)
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def looks(picture: Any, weights: Any, words: Sequence[str]) -> str:
    """A picture and the attention on it for each word (at most 24); see `lit`."""
    from PIL import Image

    shown = [("", picture), *((word, lit(picture, row)) for word, row in zip(words[:24], weights, strict=False))]
    found = "".join(
        f'<figure><img alt="" src="{data_url(small_picture(Image.fromarray(pixels)))}">'
        f"<figcaption>{escape(word.strip())}</figcaption></figure>"
        for word, pixels in shown
    )
    return f'<div class="looks">{found}</div>'


def card(
    picture: Path,
    page: Path,
    lines: Sequence[str | Hypothesis],
    *,
    name: str = "",
    remark: str = "",
    lang: str = "",
) -> str:
    """A small copy of a picture, which links to its file, with lines of text.

    Args:
        picture: its file.
        page: the file of the page.
        lines: captions; of a hypothesis, words that are probably wrong are shaded.
        name: of the picture; "" for that of its file.
        remark: a line below.
        lang: the language of the captions; "" if nobody knows.
    """
    shown = _readable(name or picture.name)
    language = f' lang="{escape(lang)}"' if lang else ""
    said = "".join(
        f"<p{language}>{_doubts(line) if isinstance(line, Hypothesis) else escape(line)}</p>" for line in lines
    )
    small = "".join(f"<small>{escape(each)}</small>" for each in (shown, remark) if each)
    return (
        f'<figure><a href="{_link(picture, page)}">'
        f'<img alt="{escape(shown)}" src="{data_url(small_picture(picture, 320))}"></a>'
        f"<figcaption>{said}{small}</figcaption></figure>"
    )


def _doubts(hypothesis: Hypothesis) -> str:
    """A text with its doubtful words on darker background."""
    found = ""
    for piece, sure in located(hypothesis):
        shown = escape(piece)
        if sure is not None and sure < DOUBTFUL:
            shown = f'<span class="token" style="--heat: {1 - sure:.2f}" title="{sure:.0%} sure">{shown}</span>'
        found += shown
    return found


def gallery(cards: Sequence[str]) -> str:
    """Cards side by side."""
    return f'<div class="gallery">{"".join(cards)}</div>'


SEARCH_FIELD = (
    '<div class="find" role="search" hidden><label for="find">Search captions</label>'
    '<input id="find" type="search" autocomplete="off"><span role="status"></span></div>'
)
"""Finds cards by their words; for a page with the script ``gallery.js``."""


def _link(file: Path, page: Path) -> str:
    """The address of a file on a page: relative, so that both can be moved."""
    try:
        relative = os.path.relpath(file, page.absolute().parent)
    except ValueError:  # on another drive
        return escape(file.absolute().as_uri())
    return quote(os.fsencode(relative.replace(os.sep, "/")))


def _readable(name: str) -> str:
    """A file name in printable form; names from old archives need not be UTF-8."""
    return printable(os.fsencode(name).decode(errors="replace"))


def data_url(content: bytes) -> str:
    """A JPEG as an address that holds it."""
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"


# -- the page ----------------------------------------------------------------------------------------------


def write_page(
    path: Path, title: str, subtitle: str, sections: Sequence[Section], *, body: str = "", script: str = ""
) -> None:
    """Writes a page. It runs no script but ``script`` and fetches nothing, whatever foreign text is on it.

    Args:
        path: its file.
        title, subtitle: plain text.
        sections: parts with headings, which a list of contents names.
        body: further HTML, above them.
        script: JavaScript.
    """
    style = "".join(files(package).joinpath(name).read_text("utf-8") for package, name in _STYLES)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    policy += f"; script-src 'sha256-{digest}'" if script else ""
    contents = "".join(f'<li><a href="#part-{i}">{escape(s.title)}</a></li>' for i, s in enumerate(sections, 1))
    nav = f'<nav class="panel" aria-labelledby="contents"><h2 id="contents">Contents</h2><ol>{contents}</ol></nav>'
    parts = "".join(
        f'<section class="panel" aria-labelledby="part-{i}"><h2 id="part-{i}">{escape(s.title)}</h2>'
        f"{s.body}</section>"
        for i, s in enumerate(sections, 1)
    )
    write_text(
        path,
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>"
        f"<header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></header>"
        f"<main>{nav if sections else ''}{body}{parts}</main>"
        f"{f'<script>{script}</script>' if script else ''}</body></html>\n",
    )


_STYLES = (("gen.serve", "page/theme.css"), ("tasks", "report.css"))
