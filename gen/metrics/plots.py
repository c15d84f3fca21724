"""Plots: losses and metrics of runs, and attention weights."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from gen.base.errors import notify, printable
from gen.base.folders import write_bytes

COLOURS = {"accent": "#3457d5", "other": "#2c7a4b", "field": "#8a8d96", "line": "#e2e2dd"}
"""The colours of plots, by their names in the style of pages (``theme.css``), where a dark page has others."""

SIZE = (7.0, 3.6)
"""Width and height of a plot in inches."""


_MOST_CELLS = 100
"""Tokens along a side of a plot of attention: pictures have a size that programs can open."""


def plot_losses(
    records: Sequence[dict[str, Any]],
    to: Path | io.BytesIO,
    baseline: float | None = None,
    metric: str = "",
    *,
    label: str = "",
    size: tuple[float, float] = SIZE,
) -> None:
    """Plots training and validation loss over time.

    Args:
        records: the lines of ``metrics.jsonl``.
        to: a file (its extension gives the format), or a buffer for SVG.
        baseline: the Markov chain's loss, drawn as a horizontal line.
        metric: a validation metric to plot on a second axis; "" for none.
        label: the metric's name for people; "" for ``metric``.
        size: width and height in inches.
    """
    from matplotlib.figure import Figure  # not pyplot, which keeps global state

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    steps = [r for r in records if "validation" not in r]
    validations = [r for r in records if "validation" in r]
    axes.plot([r["seconds"] for r in steps], [r["loss"] for r in steps], color=COLOURS["field"], label="training")
    axes.plot(
        [r["seconds"] for r in validations],
        [r["validation"]["loss"] for r in validations],
        color=COLOURS["accent"],
        marker="o",
        markersize=4,
        label="validation",
    )
    if baseline is not None:
        axes.axhline(baseline, color=COLOURS["other"], linestyle="--", linewidth=1, label="Markov chain")
    axes.set_xlabel("seconds")
    axes.set_ylabel("nats per token")
    axes.spines[["top", "right"]].set_visible(False)
    if metric:
        other = axes.twinx()
        seconds = [r["seconds"] for r in validations]
        values = [r["validation"][metric] for r in validations]
        other.plot(seconds, values, color=COLOURS["other"], marker="s", markersize=4)
        other.set_ylabel(label or metric, color=COLOURS["other"])
        other.set_ylim(0, 1.05 * max(filter(isfinite, values), default=0) or 1)
        other.spines[["top", "left"]].set_visible(False)
    axes.legend(frameon=False, loc="center right" if metric else "best")
    _save(figure, to)


def plot_runs(runs: Mapping[str, Sequence[dict[str, Any]]], to: Path | io.BytesIO, metric: str = "loss") -> None:
    """Plots a validation metric of several runs over time.

    Args:
        runs: name → the lines of its ``metrics.jsonl``.
        to: a file (its extension gives the format), or a buffer for SVG.
        metric: the metric's name.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    for records in runs.values():
        validations = [r for r in records if metric in r.get("validation", {})]
        seconds = [r["seconds"] for r in validations]
        axes.plot(seconds, [r["validation"][metric] for r in validations], marker="o", markersize=4)
    axes.set_xlabel("seconds")
    axes.set_ylabel("nats per token" if metric == "loss" else metric)
    axes.spines[["top", "right"]].set_visible(False)
    # Not as labels of the lines: those that begin with _ are hidden.
    axes.legend(axes.lines, list(map(printable, runs)), frameon=False)
    _save(figure, to)


def plot_rates(rates: Sequence[float], losses: Sequence[float], best: float, to: Path | io.BytesIO) -> None:
    """Plots the loss against the learning rate of a range test.

    Args:
        rates: the learning rate per step.
        losses: the smoothed loss per step; may be shorter than ``rates``.
        best: the learning rate to mark.
        to: a file (its extension gives the format), or a buffer for SVG.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.plot(rates[: len(losses)], losses, color=COLOURS["accent"])
    axes.axvline(best, color=COLOURS["field"], linestyle="--", linewidth=1, label=f"falls fastest: {best:.2g}")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("nats per token, smoothed")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    _save(figure, to)


def plot_histogram(values: Mapping[str, Any], label: str, to: Path | io.BytesIO) -> None:
    """Plots how often values occur, in percent, as steps; the longest hundredth is the last step.

    Args:
        values: name of a series → (N,) numbers.
        label: what they count.
        to: a file (its extension gives the format), or a buffer for SVG.
    """
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 2.4), layout="constrained")
    axes = figure.subplots()
    series = {name: np.asarray(each) for name, each in values.items() if len(each)}
    top = max((float(np.quantile(each, 0.99)) for each in series.values()), default=1.0)
    edges = np.linspace(0, max(top, 1.0), min(int(max(top, 1.0)), 40) + 1)
    colours = [COLOURS[name] for name in ("accent", "other", "field")]
    for number, (name, each) in enumerate(series.items()):
        counts, _ = np.histogram(np.minimum(each, edges[-1]), edges)
        axes.stairs(
            100 * counts / len(each), edges, color=colours[number % 3], label=name, fill=not number, alpha=0.8
        )
    axes.set_xlabel(label)
    axes.set_ylabel("%")
    axes.spines[["top", "right"]].set_visible(False)
    if len(series) > 1:
        axes.legend(frameon=False)
    _save(figure, to)


def plot_attention(
    weights: Any, targets: Sequence[str], sources: Sequence[str], to: Path | io.BytesIO, title: str = ""
) -> None:
    """Plots attention weights of target tokens over source tokens.

    Args:
        weights: (T, S) float array, rows summing to 1.
        targets: T labels, from top to bottom.
        sources: S labels, from left to right. Of either at most `_MOST_CELLS` are drawn.
        to: a file (its extension gives the format), or a buffer for SVG.
        title: the title; "" for none.
    """
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    more = [max(0, len(each) - _MOST_CELLS) for each in (targets, sources)]
    weights = weights[:_MOST_CELLS, :_MOST_CELLS]
    targets, sources = targets[:_MOST_CELLS], sources[:_MOST_CELLS]
    T, S = len(targets), len(sources)
    ink = COLOURS["accent"]
    shades = LinearSegmentedColormap.from_list("", [f"{ink}00", f"{ink}ff"])  # nothing where there is no weight
    figure = Figure(figsize=(2 + 0.38 * S, 1.4 + 0.3 * T), layout="constrained")
    axes = figure.subplots()
    axes.pcolormesh(weights, cmap=shades, vmin=0, vmax=1, edgecolors=COLOURS["line"], linewidth=0.6)
    axes.invert_yaxis()
    words = [s.strip() or "␣" for s in sources]
    axes.set_xticks([i + 0.5 for i in range(S)], words, rotation=60, ha="left", rotation_mode="anchor")
    axes.set_yticks([i + 0.5 for i in range(T)], [t.strip() or "␣" for t in targets])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if any(more):
        axes.set_xlabel(f"{more[0]:,} more tokens down, {more[1]:,} more to the right")
    if title:
        figure.suptitle(title, fontsize=10)
    _save(figure, to)


def plot_confusion(counts: Any, labels: Sequence[str], to: Path | io.BytesIO) -> None:
    """Plots a confusion matrix: how often each label was taken for each other one.

    Args:
        counts: (L, L) int, rows are the right labels, columns the chosen ones.
        labels: L labels.
        to: a file (its extension gives the format), or a buffer for SVG.
    """
    import numpy as np
    from matplotlib.figure import Figure

    counts = np.asarray(counts)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = 2.0 + 0.5 * len(labels)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("chosen")
    axes.set_ylabel("right")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for (right, chosen), count in np.ndenumerate(counts):
        color = "white" if shares[right, chosen] > 0.5 else "#333333"
        axes.text(chosen, right, f"{count:,}", ha="center", va="center", fontsize=8, color=color)
    _save(figure, to)


def plot_looks(
    picture: Any,
    weights: Any,
    words: Sequence[str],
    to: Path | io.BytesIO,
    *,
    columns: int = 5,
    width: float = 2.0,
) -> None:
    """Plots a picture, then a copy per caption word (at most 24) whose brightness is the attention weight.

    Args:
        picture: (H, W, 3) uint8, the encoder's input.
        weights: (T, S) float array, rows summing to 1; the S grid cells form a square, row by row.
        words: T labels.
        to: a file (its extension gives the format), or a buffer.
        columns: pictures per row.
        width: the width of a picture in inches.
    """
    from matplotlib.figure import Figure

    words = words[:24]  # an untrained model may not stop
    rows = -(-(len(words) + 1) // columns)
    figure = Figure(figsize=(width * columns, (width + 0.25) * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for each in axes:
        each.axis("off")
    axes[0].imshow(picture)
    for each, word, row in zip(axes[1:], words, weights, strict=False):
        each.imshow(lit(picture, row))
        each.set_title(word.strip(), fontsize=10)
    _save(figure, to)


def lit(picture: Any, weights: Any) -> Any:
    """A picture, (H, W, 3) uint8, as bright as the attention on it, (S,) over the cells of a square grid."""
    import numpy as np
    from PIL import Image

    side = round(len(weights) ** 0.5)
    map_ = np.asarray(weights, np.float32).reshape(side, side)
    size = picture.shape[1::-1]
    light = Image.fromarray(map_ / max(float(map_.max()), 1e-9)).resize(size, Image.Resampling.BICUBIC)
    strength = 0.2 + 0.8 * np.clip(np.asarray(light), 0, 1)[..., None]
    return (picture * strength).astype(np.uint8)


def _save(figure: Any, to: Path | io.BytesIO) -> None:
    from matplotlib import rc_context
    from matplotlib.text import Text

    for text in figure.findobj(Text):  # labels are data: a dollar sign begins no mathematics
        text.set_parse_math(False)
    if isinstance(to, io.BytesIO):  # for a page, whose text and colours it takes
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        with rc_context({"svg.fonttype": "none"}):
            figure.savefig(to, format="svg", transparent=True, metadata=nothing)
    else:
        made = io.BytesIO()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            figure.savefig(made, dpi=130, format=to.suffix[1:])
        if any(str(each.message).startswith("Glyph ") for each in told):
            notify(f"{to}: some characters are drawn as boxes: no font of this machine has them")
        write_bytes(to.resolve(), made.getvalue())
