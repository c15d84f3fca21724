"""A segment as text to translate, and where the tags in it stand."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tasks.translate.documents.segments import Parts, Tag


@dataclass(eq=False)
class Node:
    """An element, or a tag that stands alone (``close`` is "" and ``begin`` is ``end``).

    Attributes:
        open, close: as they stand in the file.
        begin, end: where it stands in the layout's text.
        parent: the element around it.
        alone: it has no text in it.
        spaces: whether white space stood before it, and after it, or would stand there before a word.
    """

    open: str
    begin: int
    parent: Node | None
    end: int = -1
    close: str = ""
    alone: bool = False
    spaces: tuple[bool, bool] = (False, False)


@dataclass
class Layout:
    """A segment as its text and where tags stand in it.

    Attributes:
        text: without tags, white space collapsed; its chunks, which are translated on their own, in lines.
        breaks: what stands between the chunks in the file.
        nodes: in the order of the file; an element comes before what is in it.
        unpaired: opening tags without a closing one, and the other way round. They stand alone.
    """

    text: str = ""
    breaks: list[str] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    unpaired: list[Tag] = field(default_factory=list)

    @property
    def chunks(self) -> list[str]:
        """The texts to translate."""
        return self.text.split("\n")


CLOSES = re.compile(r"[,.;:!?)\]»”]")
"""A mark that has no space before it."""


def lay_out(parts: Parts) -> Layout:
    """Parts → text and nodes."""
    layout = Layout()
    pairs = _pairs(parts, layout)
    around: Node | None = None
    text, space, dropped = "", False, False  # a space comes with the word after it
    for i, part in enumerate(parts):
        if isinstance(part, str):
            words = part.split()
            if words:
                space = (space or part[0].isspace()) and text[-1:] not in ("", "\n")
                space = space and not (dropped and CLOSES.match(words[0]))  # "use `this`, then" without the tag
                text += " " * space + " ".join(words)
            space, dropped = part[-1:].isspace() or (space and not words), dropped and not words
        elif part.breaks:
            text, space = text + "\n", False
            layout.breaks.append(part.raw)
        elif part.kind == "close" and i in pairs and around:
            node, around = around, around.parent
            node.end, node.close, node.spaces = len(text), part.raw, (_ends(parts, pairs[i]), _begins(parts, i))
            if node.begin == node.end:
                _join(layout.nodes, node, parts, pairs[i], i)
        else:
            node = Node(part.raw, len(text), around)
            layout.nodes.append(node)
            if i in pairs:
                around = node
            else:
                node.end, node.alone, node.spaces = node.begin, True, (_ends(parts, i), _begins(parts, i))
                dropped = True
    layout.text = text
    return layout


def _pairs(parts: Parts, layout: Layout) -> dict[int, int]:
    """Which opening and closing tags belong together, both ways, so that elements are well nested."""
    waiting: list[tuple[int, Tag]] = []
    pairs: dict[int, int] = {}
    counts: Counter[str] = Counter()
    for i, tag in enumerate(parts):
        if isinstance(tag, str) or tag.kind == "alone":
            continue
        if tag.kind == "open":
            waiting.append((i, tag))
            counts[tag.name] += 1
        elif not counts[tag.name]:
            layout.unpaired.append(tag)
        else:
            while (other := waiting.pop())[1].name != tag.name:
                layout.unpaired.append(other[1])
                counts[other[1].name] -= 1
            counts[tag.name] -= 1
            pairs |= {i: other[0], other[0]: i}
    layout.unpaired += [tag for _, tag in waiting]
    return pairs


def _join(nodes: list[Node], node: Node, parts: Parts, begin: int, end: int) -> None:
    """Makes one tag of an element without text and all in it."""
    raw = (part if isinstance(part, str) else part.raw for part in parts[begin : end + 1])
    node.open, node.close, node.alone, node.end = "".join(raw), "", True, node.begin
    while nodes[-1] is not node:
        nodes.pop()


def _ends(parts: Parts, i: int) -> bool:
    before = parts[i - 1] if i else ""
    return isinstance(before, str) and before[-1:].isspace()


def _begins(parts: Parts, i: int) -> bool:
    after = parts[i + 1] if i + 1 < len(parts) else ""
    return isinstance(after, str) and bool(after[:1].isspace() or CLOSES.match(after))


def left_over(tags: Iterable[Tag]) -> list[Tag]:
    """Tags without another one to go with, less those whose partner is in another segment."""
    waiting: dict[str, list[Tag]] = {}
    found: list[Tag] = []
    for tag in tags:
        if tag.kind == "open":
            waiting.setdefault(tag.name, []).append(tag)
        elif waiting.get(tag.name):
            waiting[tag.name].pop()
        else:
            found.append(tag)
    return found + [tag for several in waiting.values() for tag in several]
