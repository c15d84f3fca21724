"""The demo's translation model: English to French and German, from a phrase book."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gen.base.folders import write_text
from gen.datasets.pair_files import PairFiles
from gen.metrics.scores import translation_metrics
from gen.models.model import Model
from gen.search import Hypothesis
from gen.training.display import clock
from tasks import report
from tasks.data.phrasebook import phrase_book
from tasks.demo.training import train_part
from tasks.display import console, say

LANGUAGES = ("French", "German")
TRAINING, HELD_OUT = 30_000, 500  # English sentences, each with both translations


def translation_part(out: Path, budget: str) -> list[report.Section]:
    """Trains the translation model. Returns its sections of the report."""
    console.print("[bold]Translation[/bold]: English into French and German, from a phrase book\n")
    table, held_out = (str(path) for path in write_phrase_book(out))
    model, session, _ = train_part(
        "translate",
        out,
        budget,
        data=table,
        valid=held_out,
        level="word",
        min_frequency=1,
        batch_tokens=500,
        embedding_size=128,
        encoder_size=128,
        encoder_layers=1,
        hidden_size=256,
        num_layers=1,
        dropout=0.1,
        embedding_dropout=0.0,
        learning_rate=8e-3,
        label_smoothing=0.0,
        ema=0.995,
        validations=5,
    )
    pairs = list(PairFiles([held_out]))
    found = [h[0] for h in model.generate_many([source for source, _ in pairs])]
    return [
        _translation_figures(pairs, found, list(session.folder.records())),
        _translations(pairs, found),
        _attention(model, pairs, found),
    ]


def write_phrase_book(out: Path) -> tuple[Path, Path]:
    """Writes training and held-out pairs as tables. A source is a language, a colon and the English sentence."""
    out.mkdir(parents=True, exist_ok=True)
    paths = out / "phrase-book.tsv", out / "phrase-book-held-out.tsv"
    for path, held_out, size in zip(paths, (False, True), (TRAINING, HELD_OUT), strict=True):
        lines = [
            f"{language}: {english}\t{said}\n"
            for english, *both in phrase_book(size, held_out=held_out)
            for language, said in zip(LANGUAGES, both, strict=True)
        ]
        write_text(path, "".join(lines))
    return paths


def _translation_figures(
    pairs: Sequence[tuple[str, str]], found: Sequence[Hypothesis], records: Sequence[dict[str, Any]]
) -> report.Section:
    rows = []
    for i, language in enumerate(LANGUAGES):
        hypotheses, references = [h.text for h in found[i::2]], [b for _, b in pairs[i::2]]
        scores = translation_metrics(hypotheses, references)
        rows.append(
            (f"English → {language}", f"{scores['exact']:.1%}", f"{scores['bleu']:.1f}", f"{scores['chrf']:.1f}")
        )
        say(f"English → {language}: {scores['exact']:.1%} exactly right, BLEU {scores['bleu']:.1f}")
    trained = clock(records[-1]["seconds"])
    said = (
        f"{TRAINING:,} sentences of a small grammar, in both languages; {trained} of training. "
        f"Evaluated on {HELD_OUT:,} sentences with combinations of words that no training sentence has: "
        "an adjective with a noun, a verb with an object."
    )
    return report.section(
        "Translating",
        said,
        report.numbers(("", "exactly right", "BLEU", "chrF"), rows),
        report.loss_curve(records, metric="bleu", label="BLEU"),
    )


def _translations(pairs: Sequence[tuple[str, str]], found: Sequence[Hypothesis]) -> report.Section:
    wrong = [i for i, (h, (_, b)) in enumerate(zip(found, pairs, strict=True)) if h.text != b]
    shown = [*range(8), *wrong[:2]]
    rows = [(pairs[i][0], found[i].text, "" if i not in wrong else f"should be: {pairs[i][1]}") for i in shown]
    for source, said, remark in rows[:4]:
        say(f"  {source}\n    {said}{'   (' + remark + ')' if remark else ''}")
    remark = "The last two rows are mistakes." if wrong else "There is no mistake to show."
    return report.section(
        "Held-out sentences",
        remark,
        report.texts(("asked", "answered", ""), rows),
    )


def _attention(model: Model, pairs: Sequence[tuple[str, str]], found: Sequence[Hypothesis]) -> report.Section:
    lengths = [len(h.token_ids) for h in found]
    parts = []
    for i in range(len(LANGUAGES)):  # the longest sentence in each language has the most to show
        longest = max(range(i, len(pairs), len(LANGUAGES)), key=lambda row: lengths[row])
        parts.append(_heat_map(model, pairs[longest][0], found[longest]))
    said = (
        "The attention of each generated word (rows) to each word of the source (columns): the more colour, the "
        "more attention."
    )
    return report.section("Attention on sentences", said, *parts)


def _heat_map(model: Model, source: str, hypothesis: Hypothesis) -> str:
    return report.heat_map(hypothesis.attention, hypothesis.tokens, model.encoder.labels(source))
