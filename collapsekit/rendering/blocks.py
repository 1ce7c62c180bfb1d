"""What a section is made of. Plain data: the page and the Markdown decide how it looks.

Text is text, never markup: templates escape it. The only exception is `Formula`, whose MathML is
written in this package and holds no string of an audit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from markupsafe import Markup

    from collapsekit.findings import Severity
    from collapsekit.rendering.canvas import Canvas


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True)
class Note:
    """A small, muted line: how to read what stands above."""

    kind: ClassVar[str] = "note"
    text: str


@dataclass(frozen=True)
class Subheading:
    """A heading inside a section, with an optional muted line below."""

    kind: ClassVar[str] = "subheading"
    text: str
    note: str = ""


@dataclass(frozen=True)
class Drawing:
    """A figure that can be drawn at any width.

    Parameters
    ----------
    name : str
        Unique on the page; also the name under which it is exported.
    title : str
        What it shows, for those who do not see it.
    paint : callable
        Draws on a `Canvas`.
    height, narrow_height : int
        CSS pixels at 800 and at 342 wide.
    """

    name: str
    title: str
    paint: Callable[[Canvas], None]
    height: int
    narrow_height: int


@dataclass(frozen=True)
class Figure:
    """A drawing with its caption: the result in words first, how to read it after."""

    kind: ClassVar[str] = "figure"
    drawing: Drawing
    result: str = ""
    caption: str = ""
    key: tuple[KeyItem, ...] = ()


@dataclass(frozen=True)
class KeyItem:
    """One entry of a key in HTML: a swatch class of the style sheet and its text."""

    swatch: str
    text: str


@dataclass(frozen=True)
class Column:
    """A table column; `bar` draws a bar beside its number (cells are then ``(text, share)``)."""

    name: str
    numeric: bool = True
    bar: bool = False


@dataclass(frozen=True)
class Table:
    """A table of strings."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: tuple[Column, ...]
    rows: Sequence[Sequence[object]]
    note: str = ""
    tight: bool = False
    hide_caption: bool = True


@dataclass(frozen=True)
class Fold:
    """Depth for those who ask: a ``<details>``."""

    kind: ClassVar[str] = "fold"
    summary: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Card:
    """A picture with lines below; `pixelated` keeps small pictures crisp."""

    image: str
    alt: str
    lines: tuple[str, ...]
    width: int
    height: int
    pixelated: bool = True


@dataclass(frozen=True)
class Cards:
    """A grid of pictures."""

    kind: ClassVar[str] = "cards"
    title: str
    cards: tuple[Card, ...]
    note: str = ""
    caption: str = ""
    columns: int = 4


@dataclass(frozen=True)
class Code:
    """Text to copy."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Steps:
    """A numbered list."""

    kind: ClassVar[str] = "steps"
    items: tuple[str, ...]


@dataclass(frozen=True)
class Formula:
    """MathML of our own."""

    mathml: Markup


@dataclass(frozen=True)
class Definition:
    """A term, an optional formula, and its explanation."""

    term: str
    text: str
    formula: Formula | None = None


@dataclass(frozen=True)
class Definitions:
    """A definition list."""

    kind: ClassVar[str] = "definitions"
    items: tuple[Definition, ...]


@dataclass(frozen=True)
class Download:
    """A file inside the page; its address stands in single quotes and is made to."""

    kind: ClassVar[str] = "download"
    name: str
    href: Markup
    note: str


@dataclass(frozen=True)
class Strip:
    """The little track of a tile; all positions are shares of its width, None where unknown."""

    low: float
    high: float
    threshold: float | None = None
    good: tuple[float, float] | None = None


@dataclass(frozen=True)
class Tile:
    """One of the six numbers below the verdict."""

    label: str
    value: str
    unit: str
    lines: tuple[str, ...]
    href: str
    severity: Severity | None = None
    strip: Strip | None = None
    reason: str = ""


@dataclass(frozen=True)
class Tiles:
    """The grid of tiles."""

    kind: ClassVar[str] = "tiles"
    tiles: tuple[Tile, ...]
    note: str = ""


@dataclass(frozen=True)
class FindingRow:
    """A finding as a row."""

    severity: Severity
    code: str
    title: str
    message: str
    measured: str
    threshold: str
    where: str
    advice: str


@dataclass(frozen=True)
class FindingRows:
    """The findings table."""

    kind: ClassVar[str] = "findings"
    rows: tuple[FindingRow, ...]


@dataclass(frozen=True)
class Run:
    """One audit of a comparison: its name and line, its verdict, a line of numbers."""

    name: str
    swatch: str
    state: str
    line: str
    severity: Severity


@dataclass(frozen=True)
class Runs:
    """The audits of a comparison, side by side."""

    kind: ClassVar[str] = "runs"
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Delta:
    """One audit's value of a headline, and what changed against the first."""

    value: str
    interval: str
    word: str = ""
    sign: str = ""
    size: str = ""
    tone: str = ""  # class of the style sheet: better, worse, differs, same, unknown


@dataclass(frozen=True)
class Deltas:
    """Headlines by audits."""

    kind: ClassVar[str] = "deltas"
    names: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[Delta, ...]], ...]  # headline, unit, one cell per audit

    @property
    def separate(self) -> bool:
        """Whether changes have a column of their own: with two audits there is room."""
        return len(self.names) == 2


Block = (
    Paragraph
    | Runs
    | Deltas
    | Note
    | Subheading
    | Figure
    | Table
    | Fold
    | Cards
    | Code
    | Steps
    | Definitions
    | Download
    | Tiles
    | FindingRows
)


@dataclass(frozen=True)
class Section:
    """One part of the page: the question it answers, the answer in words, and what backs it.

    Parameters
    ----------
    id : str
        Anchor, and the name in the contents' links.
    nav : str
        Name in the contents.
    question, headline : str
        The question; the answer, generated from the numbers.
    blocks : tuple of Block
    """

    id: str
    nav: str
    question: str
    headline: str
    blocks: tuple[Block, ...] = field(default=())
