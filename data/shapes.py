"""Synthetic pictures with captions: two coloured shapes and their relation, on various backgrounds.

Every picture has three captions with the same meaning. The held-out pictures combine two shapes that no training
picture combines, such as a red circle and a blue star.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COLOURS = {
    "red": (208, 32, 32),
    "green": (38, 150, 60),
    "blue": (36, 72, 200),
    "yellow": (240, 206, 30),
    "purple": (128, 42, 150),
    "orange": (240, 128, 20),
    "black": (24, 24, 26),
    "white": (250, 250, 250),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
SIZES = {"small": 0.11, "large": 0.21}
"""Name → half the side of the shape, as a share of the picture's side."""
OPPOSITES = {"above": "below", "below": "above", "left of": "right of", "right of": "left of"}
GROUNDS = ("plain", "striped", "dotted", "checkered", "shaded")


@dataclass(frozen=True)
class Thing:
    """One shape in a picture."""

    size: str
    colour: str
    shape: str

    def __str__(self) -> str:
        return f"{self.size} {self.colour} {self.shape}"

    @property
    def kind(self) -> int:
        """The index of the combination of colour and shape."""
        return list(COLOURS).index(self.colour) * len(SHAPES) + SHAPES.index(self.shape)


@dataclass(frozen=True)
class Scene:
    """Two shapes and the relation of the first to the second."""

    first: Thing
    relation: str
    second: Thing

    @property
    def held_out(self) -> bool:
        """Whether training never combines these two: one pair in seven."""
        return (self.first.kind + self.second.kind) % 7 == 0

    def captions(self) -> list[str]:
        """Three captions with the same meaning."""
        a, b = f"a {self.first}", f"a {self.second}"
        return [
            f"{a} {self.relation} {b}",
            f"{b} {OPPOSITES[self.relation]} {a}",
            f"there is {a} {self.relation} {b}",
        ]


def scenes(count: int, *, held_out: bool = False, seed: int = 1) -> Iterator[Scene]:
    """Yields random scenes.

    Args:
        count: the number of scenes.
        held_out: only held-out combinations, instead of only those for training.
        seed: of the random generator.

    Example:
        >>> next(scenes(1)).captions()[0]
        'a large yellow cross left of a large red circle'
    """
    rng = random.Random(f"{seed} {held_out}")

    def thing() -> Thing:
        return Thing(rng.choice(list(SIZES)), rng.choice(list(COLOURS)), rng.choice(SHAPES))

    while count:
        scene = Scene(thing(), rng.choice(list(OPPOSITES)), thing())
        if scene.held_out == held_out and scene.first.colour != scene.second.colour:
            count -= 1
            yield scene


def draw(scene: Scene, seed: int, side: int = 224) -> Any:
    """Draws a scene as a `PIL.Image.Image`. The seed determines the background and the exact positions."""
    from PIL import ImageDraw

    rng = random.Random(seed)
    big = 2 * side  # drawn at twice the size and reduced, for smooth edges
    image = _ground(big, rng)
    canvas = ImageDraw.Draw(image)
    upright = scene.relation in ("above", "below")
    before = scene.relation in ("above", "left of")  # the first shape comes first on the axis
    a, b = (SIZES[t.size] for t in (scene.first, scene.second))
    room = 1 - 2 * (a + b)
    gaps = sorted(rng.uniform(0.1, 0.9) * room for _ in range(2))
    near, far = (a, b) if before else (b, a)
    along = {before: gaps[0] + near, not before: gaps[1] + 2 * near + far}
    # Across that axis the distance is smaller, or "above" could also be "left of".
    distance = abs(along[True] - along[False])
    level = rng.uniform(a + 0.02, 0.98 - a)
    other = min(max(level + rng.uniform(-0.4, 0.4) * distance, b + 0.02), 0.98 - b)
    for thing, half, position, across in (
        (scene.first, a, along[True], level),
        (scene.second, b, along[False], other),
    ):
        x, y = (across, position) if upright else (position, across)
        _shape(canvas, thing, x * big, y * big, half * big * rng.uniform(0.9, 1.0))
    return image.reduce(2)


def _ground(side: int, rng: random.Random) -> Any:
    """A background in pale colours, of a random pattern."""
    from PIL import Image, ImageDraw

    one = tuple(rng.randint(150, 225) for _ in range(3))
    two = tuple(max(0, min(255, c + rng.choice((-22, 22)))) for c in one)
    kind, step = rng.choice(GROUNDS), side // rng.randint(5, 9)
    image = Image.new("RGB", (side, side), one)
    canvas = ImageDraw.Draw(image)
    if kind == "shaded":
        image.paste(two, (0, 0), Image.linear_gradient("L").resize((side, side)))
    elif kind == "striped":
        for at in range(0, side, 2 * step):
            canvas.rectangle((at, 0, at + step, side), fill=two)
    elif kind in ("dotted", "checkered"):
        form: Callable[..., None] = canvas.ellipse if kind == "dotted" else canvas.rectangle
        size = step // 3 if kind == "dotted" else step
        for row in range(side // step + 1):
            for column in range(side // step + 1):
                if kind == "dotted" or (row + column) % 2:
                    x, y = column * step, row * step
                    form((x, y, x + size, y + size), fill=two)
    return image


def _shape(canvas: Any, thing: Thing, x: float, y: float, r: float) -> None:
    """Draws a shape centred at (x, y) with radius r."""
    colour = COLOURS[thing.colour]
    box = (x - r, y - r, x + r, y + r)
    if thing.shape == "circle":
        canvas.ellipse(box, fill=colour)
    elif thing.shape == "square":
        s = 0.88 * r
        canvas.rectangle((x - s, y - s, x + s, y + s), fill=colour)
    elif thing.shape == "ring":
        canvas.ellipse(box, outline=colour, width=int(0.34 * r))
    elif thing.shape == "cross":
        arm = 0.32 * r
        canvas.rectangle((x - r, y - arm, x + r, y + arm), fill=colour)
        canvas.rectangle((x - arm, y - r, x + arm, y + r), fill=colour)
    else:
        points = 3 if thing.shape == "triangle" else 10
        radii = [r] * 3 if points == 3 else [r, 0.42 * r] * 5
        angles = [2 * math.pi * i / points - math.pi / 2 for i in range(points)]
        canvas.polygon(
            [(x + q * math.cos(t), y + q * math.sin(t)) for q, t in zip(radii, angles, strict=True)], fill=colour
        )


def write_shapes(folder: Path, training: int = 2000, held_out: int = 300) -> Path:
    """Draws pictures into a folder and writes ``captions.jsonl``, unless that exists.

    Args:
        folder: the folder to write.
        training: the number of training pictures.
        held_out: the number of held-out pictures.

    Returns:
        The path of ``captions.jsonl``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    captions = folder / "captions.jsonl"
    if captions.exists():
        return captions
    lines = []
    for split, size in (("train", training), ("val", held_out)):
        for i, scene in enumerate(scenes(size, held_out=split == "val")):
            name = f"{split}-{i:05}.png"
            draw(scene, seed=i + (1 << 20) * (split == "val")).save(folder / name, compress_level=1)
            lines.append(json.dumps({"image": name, "captions": scene.captions(), "split": split}))
    captions.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return captions
