"""Parts of a self-contained HTML report, without scripts, fonts or other files."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from gen.base.folders import write_text
from gen.inputs.pictures import open_picture
from gen.metrics.plots import plot_attention, plot_looks, plot_losses

_STYLE = """
:root { color-scheme: light; --ink: #1d2430; --soft: #667085; --line: #e3e6ea; --paper: #fff; --accent: #b5442e; }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: #f5f6f8; margin: 0; }
main { max-width: 60rem; margin: 2rem auto; padding: 2rem 2.5rem; background: var(--paper); border-radius: 8px; }
h1 { margin: 0 0 .25rem; font-size: 1.8rem; } h2 { margin: 2.5rem 0 .5rem; font-size: 1.25rem; }
p { max-width: 46rem; } .soft { color: var(--soft); }
table { border-collapse: collapse; margin: .75rem 0; }
th, td { text-align: left; padding: .35rem 1.25rem .35rem 0; border-bottom: 1px solid var(--line); }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.samples { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; }
.samples figure, .wide { margin: 0; border: 1px solid var(--line); border-radius: 6px; padding: .75rem 1rem; }
figcaption { font-weight: 600; margin-bottom: .35rem; } figcaption span { font-weight: 400; color: var(--soft); }
pre, code { font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
svg, img { max-width: 100%; height: auto; }
.patterns { display: grid; grid-template-columns: repeat(auto-fit, minmax(12rem, 1fr)); gap: 1rem; }
.patterns figure { margin: 0; border: 1px solid var(--line); border-radius: 6px; padding: .75rem 1rem; }
.patterns img { width: 7rem; border-radius: 6px; display: block; } .patterns p { margin: .35rem 0 0; }
.patterns svg { display: block; width: 100%; max-width: 13rem; margin: .5rem 0; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1rem; }
.gallery figure { margin: 0; } .gallery img { border-radius: 6px; display: block; }
.gallery p { margin: .35rem 0 0; line-height: 1.35; }
@media (max-width: 700px) { .samples { grid-template-columns: 1fr; } main { padding: 1rem; } }
"""


def section(title: str, text: str, *parts: str) -> str:
    """A heading, a paragraph of plain text (if any), and parts made by the other functions."""
    paragraph = f"<p>{escape(text)}</p>" if text else ""
    return f"<section><h2>{escape(title)}</h2>{paragraph}{''.join(parts)}</section>"


def figures(header: Sequence[str], rows: Sequence[Sequence[Any]], *, numbers: bool = True) -> str:
    """A table; columns after the first are right-aligned unless ``numbers`` is False."""

    def cells(tag: str, values: Sequence[Any]) -> str:
        kinds = ["", *["n" if numbers else ""] * (len(values) - 1)]
        return "".join(f'<{tag} class="{k}">{escape(str(v))}</{tag}>' for k, v in zip(kinds, values, strict=True))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><tr>{cells('th', header)}</tr>{body}</table>"


def samples(texts: Sequence[tuple[str, str, str]]) -> str:
    """Texts side by side: (title, remark, text) each."""
    cells = "".join(
        f"<figure><figcaption>{escape(title)} <span>{escape(remark)}</span></figcaption>"
        f"<pre>{escape(text)}</pre></figure>"
        for title, remark, text in texts
    )
    return f'<div class="samples">{cells}</div>'


_BOX = '<rect x="{x}" y="{y}" width="26" height="26" rx="5" fill="{fill}"/>'  # an input, a state or an output
_ARROW = '<path d="M{x1} {y1}L{x2} {y2}" stroke="#667085" stroke-width="1.5" marker-end="url(#tip)"/>'
_TIP = (
    '<defs><marker id="tip" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="5" markerHeight="5" orient="auto">'
    '<path d="M0 0L6 3L0 6z" fill="#667085"/></marker></defs>'
)


Pattern = tuple[str, str, tuple[int, int], str | bytes, str]
"""Title, remark, the numbers of inputs and outputs, what goes in (a text or a small JPEG), what came out."""


def patterns(examples: Sequence[Pattern]) -> str:
    """Patterns of a recurrent network side by side."""
    found = []
    for title, remark, (inputs, outputs), given, answer in examples:
        shown = (
            f'<img alt="" src="{_data(given, "jpeg")}">' if isinstance(given, bytes) else f"<p>{escape(given)}</p>"
        )
        found.append(
            f"<figure><figcaption>{escape(title)} <span>{escape(remark)}</span></figcaption>"
            f"{_unrolled(inputs, outputs, f'{title}: {remark}')}{shown}<p><b>→ {escape(answer)}</b></p></figure>"
        )
    return f'<div class="patterns">{"".join(found)}</div>'


def _unrolled(inputs: int, outputs: int, name: str) -> str:
    """A network unrolled: inputs below, states between, outputs above."""
    states = inputs + outputs - 1 if inputs > 1 else outputs
    xs = [6 + 34 * i for i in range(states)]
    parts = [_TIP]
    for i, x in enumerate(xs):
        parts.append(_BOX.format(x=x, y=44, fill="#8fa8bd"))
        if i < inputs:
            parts += [_BOX.format(x=x, y=86, fill="#d9a79a"), _ARROW.format(x1=x + 13, y1=86, x2=x + 13, y2=72)]
        if i >= states - outputs:
            parts += [_BOX.format(x=x, y=2, fill="#a5c2a8"), _ARROW.format(x1=x + 13, y1=44, x2=x + 13, y2=30)]
        if i:
            parts.append(_ARROW.format(x1=x - 8, y1=57, x2=x - 1, y2=57))
    size = f'viewBox="0 0 {6 + 34 * 7} 114"'
    return f'<svg role="img" aria-label="{escape(name)}" {size}>{"".join(parts)}</svg>'


def small_picture(picture: Any, side: int = 224) -> bytes:
    """A copy of a picture of at most ``side`` pixels, as JPEG."""
    small = open_picture(picture, wanted=side)
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def loss_curve(records: Sequence[Mapping[str, Any]], baseline: float | None = None, metric: str = "") -> str:
    """The loss over time, and optionally another metric, as inline SVG."""
    return _inside(lambda buffer: plot_losses([dict(r) for r in records], buffer, baseline, metric))


def heat_map(weights: Any, targets: Sequence[str], sources: Sequence[str]) -> str:
    """The attention of target tokens on source tokens as inline SVG; see `plot_attention`."""
    return _inside(lambda buffer: plot_attention(weights, targets, sources, buffer))


def looks(picture: Any, weights: Any, words: Sequence[str]) -> str:
    """A picture and the attention on it per word, as an inline picture; see `plot_looks`."""
    buffer = io.BytesIO()
    plot_looks(picture, weights, words, buffer, format="png")
    return f'<img alt="" src="{_data(buffer.getvalue(), "png")}">'


def card(picture: Any, lines: Sequence[str], remark: str = "", side: int = 320) -> str:
    """A small copy of a picture with lines of text."""
    said = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return (
        f'<figure><img alt="" src="{_data(small_picture(picture, side), "jpeg")}">{said}'
        f"<figcaption><span>{escape(remark)}</span></figcaption></figure>"
    )


def gallery(cards: Sequence[str]) -> str:
    """Cards side by side."""
    return f'<div class="gallery">{"".join(cards)}</div>'


def _data(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _inside(draw: Callable[[io.BytesIO], None]) -> str:
    """What a function draws, as inline SVG."""
    buffer = io.BytesIO()
    draw(buffer)
    svg = buffer.getvalue().decode()
    return svg[svg.index("<svg") :]


def surprise(pieces: Sequence[tuple[str, float]]) -> str:
    """A text with improbable tokens on darker background; (token, log-probability) each."""
    spans = []
    for text, log_prob in pieces:
        strength = min(-log_prob / math.log(2) / 10, 1.0)  # 10 bits or more are darkest
        spans.append(f'<span style="background: rgba(181, 68, 46, {strength:.2f})">{escape(text)}</span>')
    return f'<div class="wide"><pre>{"".join(spans)}</pre></div>'


def commands(lines: Sequence[str]) -> str:
    """Commands to copy."""
    return f'<div class="wide"><pre>{escape(chr(10).join(lines))}</pre></div>'


def write_page(path: Path, title: str, subtitle: str, sections: Sequence[str]) -> None:
    """Writes the page."""
    write_text(
        path,
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p class="soft">{escape(subtitle)}</p>{"".join(sections)}'
        "</main></body></html>\n",
    )
