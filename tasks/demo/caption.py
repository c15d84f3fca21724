"""The demo's caption model: drawn pictures and a pretrained CNN."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gen.datasets.captions import Captioned, read_captions
from gen.metrics.captions import caption_metrics
from gen.models.model import Model
from gen.search import Hypothesis
from gen.training.display import clock
from tasks import report
from tasks.caption.pictures import looks_of
from tasks.data.shapes import write_shapes
from tasks.demo.training import train_part
from tasks.display import console, say

TRAINING, HELD_OUT = 4000, 200


def caption_part(out: Path, budget: str) -> list[report.Section]:
    """Trains the caption model. Returns its sections of the report."""
    console.print("[bold]Captions[/bold]: drawn pictures, encoded by a CNN pretrained on photographs\n")
    pictures = out / "pictures"
    write_shapes(pictures, TRAINING, HELD_OUT)
    model, session, _ = train_part(
        "caption",
        out,
        budget,
        images=str(pictures),
        batch_tokens=500,
        augment=0,
        image_size=224,
        memory_size=128,
        embedding_size=64,
        hidden_size=128,
        dropout=0.1,
        embedding_dropout=0.0,
        attention="dot",
        learning_rate=7e-3,
        label_smoothing=0.0,
        ema=0.99,
        validations=5,
    )
    held_out = read_captions(str(pictures)).split("valid")
    found = [h[0] for h in model.generate([c.picture for c in held_out])]
    return [
        _figures(held_out, found, list(session.folder.records())),
        _captions(held_out, found, out / "report.html"),
        _attention(model, held_out, found),
    ]


def right(caption: str, picture: Captioned) -> bool:
    """Whether a caption equals one of the picture's captions."""
    return caption in picture.captions


def _figures(
    pictures: Sequence[Captioned], found: Sequence[Hypothesis], records: Sequence[dict[str, Any]]
) -> report.Section:
    captions = [h.text for h in found]
    scores = caption_metrics(captions, [c.captions for c in pictures])
    exact = sum(map(right, captions, pictures)) / len(pictures)
    row = ("held-out pictures", f"{exact:.1%}", f"{scores['cider']:.0f}", f"{scores['bleu4']:.1f}")
    say(f"Captions: {exact:.1%} word for word right, CIDEr-D {scores['cider']:.0f}, BLEU-4 {scores['bleu4']:.1f}")
    said = (
        f"{TRAINING:,} drawn pictures with three captions each; {clock(records[-1]['seconds'])} of training on "
        f"features of EfficientNet-Lite0, pretrained on photographs. Evaluated on {HELD_OUT:,} pictures "
        "of pairs of things that never occur together in training."
    )
    return report.section(
        "Describing pictures",
        said,
        report.numbers(("", "word for word right", "CIDEr-D", "BLEU-4"), [row]),
        report.loss_curve(records, metric="cider", label="CIDEr-D"),
    )


def _captions(pictures: Sequence[Captioned], found: Sequence[Hypothesis], page: Path) -> report.Section:
    wrong = [i for i, (h, c) in enumerate(zip(found, pictures, strict=True)) if not right(h.text, c)]
    shown = [i for i in range(len(pictures)) if i not in wrong][:6] + wrong[:2]
    cards = [
        report.card(
            pictures[i].picture,
            page,
            [found[i].text],
            remark=f"drawn as: {pictures[i].captions[0]}" if i in wrong else "",
        )
        for i in shown
    ]
    for i in shown[:3]:
        say(f"  {pictures[i].picture.name}: {found[i].text}")
    remark = "The last two are mistakes." if wrong else "There is no mistake to show."
    return report.section("Held-out pictures", remark, report.gallery(cards))


def _attention(model: Model, pictures: Sequence[Captioned], found: Sequence[Hypothesis]) -> report.Section:
    chosen = [i for i, (h, c) in enumerate(zip(found, pictures, strict=True)) if right(h.text, c)][:2] or [0]
    parts = [report.looks(*looks_of(model, pictures[i].picture, found[i])) for i in chosen]
    said = "The picture, and the attention on it for each word."
    return report.section("Attention on pictures", said, *parts)
