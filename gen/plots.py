"""Pictures of a training."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def plot_losses(records: Sequence[dict[str, Any]], to: Path | io.BytesIO, baseline: float | None = None) -> None:
    """Draws training and validation loss over time.

    Args:
        records: lines of ``metrics.jsonl``.
        to: a file (its ending chooses the format), or a buffer for SVG.
        baseline: a loss to draw as a line: the Markov chain's.
    """
    from matplotlib.figure import Figure  # not pyplot: no window, no state

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    steps = [r for r in records if "validation" not in r]
    validations = [r for r in records if "validation" in r]
    axes.plot([r["seconds"] for r in steps], [r["loss"] for r in steps], color="#9db4c8", label="training")
    axes.plot(
        [r["seconds"] for r in validations],
        [r["validation"]["loss"] for r in validations],
        color="#b5442e",
        marker="o",
        markersize=4,
        label="validation",
    )
    if baseline is not None:
        axes.axhline(baseline, color="#666666", linestyle="--", linewidth=1, label="Markov chain")
    axes.set_xlabel("seconds")
    axes.set_ylabel("nats per token")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    if isinstance(to, io.BytesIO):
        figure.savefig(to, format="svg")
    else:
        figure.savefig(to, dpi=130)
