"""The demo's text model: characters of Python's documentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gen.base.folders import write_text
from gen.models.model import Model
from gen.search.generation import GenerationMixin
from gen.training.display import clock
from tasks import report
from tasks.data.prose import python_documentation
from tasks.demo.training import train_part
from tasks.display import console, say
from tasks.text.markov import fit_markov

PROMPT = "The "
LENGTH = 420


def text_part(out: Path, budget: str) -> list[report.Section]:
    """Trains the text model. Returns its sections of the report."""
    console.print("[bold]Text[/bold]: a character model of Python's own documentation\n")
    text = python_documentation()
    out.mkdir(parents=True, exist_ok=True)
    source = out / "python-documentation.txt"
    if not source.exists() or source.read_text(encoding="utf-8") != text:
        write_text(source, text)
    model, session, figures = train_part("text", out, budget, data=str(source))
    corpus, order = session.task.split.corpus, figures["markov"]["order"]
    markov = fit_markov(corpus, order)
    records = list(session.folder.records())
    written = write_samples(model, markov, order)
    for title, remark, sample in written:
        console.print(f"[bold]{title}[/bold] {remark}")
        say(sample + "\n")
    return [
        _learning(figures, records),
        _writing(written),
        _surprise(model, text),
        _suggestions(model),
    ]


def write_samples(model: Model, markov: GenerationMixin, order: int) -> list[tuple[str, str, str]]:
    """One prompt, continued in five ways: (title, remark, text) each."""
    ways: list[tuple[str, str, GenerationMixin, float]] = [
        ("Greedy", "always the likeliest: it loops", model, 0.0),
        ("Temperature 0.3", "careful", model, 0.3),
        ("Temperature 0.8", "lively", model, 0.8),
        ("Temperature 1.3", "careless", model, 1.3),
        ("Counting alone", f"Markov chain, order {order}, temperature 0.8", markov, 0.8),
    ]
    return [
        (title, remark, PROMPT + who.generate(PROMPT, temperature=t, seed=3, max_new_tokens=LENGTH)[0].text)
        for title, remark, who, t in ways
    ]


def _learning(network: dict[str, Any], records: Sequence[dict[str, Any]]) -> report.Section:
    markov, order = network["markov"], network["markov"]["order"]
    last = records[-1]
    rows = [
        (name, f"{m['loss']:.3f}", f"{m['bits_per_char']:.3f}", f"{m['perplexity']:.2f}")
        for name, m in (("network", network), (f"Markov chain, order {order}", markov))
    ]
    speed = max((r["tokens_per_second"] for r in records), default=0)
    said = (
        f"{clock(last['seconds'])} of training, {last['step']:,} steps, up to {speed:,} characters per second. "
        "The table shows how well each predicts held-out text."
    )
    return report.section(
        "Learning",
        said,
        report.numbers(("", "nats per character", "bits per character", "perplexity"), rows),
        report.loss_curve(records, markov["loss"]),
    )


def _writing(written: Sequence[tuple[str, str, str]]) -> report.Section:
    return report.section(
        "Writing",
        "The same beginning, continued character by character. Dividing the log-probabilities by the "
        "temperature before drawing sharpens (below 1) or flattens (above 1) the choice.",
        report.samples(written),
    )


def _surprise(model: Model, text: str) -> report.Section:
    tail = text[-3000:]
    passage = tail[tail.index("\n\n") + 2 :][:600]
    scored = model.score([passage])[0]
    return report.section(
        "What surprises it",
        "Held-out text; the darker a character, the less the network expected it.",
        report.surprise(list(zip(passage, scored.log_probs, strict=True))),
    )


def _suggestions(model: Model) -> report.Section:
    rows = []
    for typed in ("The sta", "If the na", "an exc"):
        words = ", ".join(f"{word} {p:.0%}" for word, p in model.suggest(typed, n_best=4))
        rows.append((typed + "…", words))
    return report.section("Completing words", "", report.texts(("typed", "completions"), rows))
