"""The audits of a comparison as its sections read them, each with a line style of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from collapsekit.comparison import Comparison
from collapsekit.rendering.blocks import KeyItem
from collapsekit.rendering.facts import Facts
from collapsekit.rendering.wording import clean


@dataclass(frozen=True)
class Line:
    """How a run is drawn: colour and dash, so that neither alone has to tell it."""

    colour: str
    dashes: tuple[float, ...] | None
    width: float
    swatch: str

    def style(self, canvas: Any) -> dict[str, Any]:
        """Keywords for `Axes.plot`."""
        style: dict[str, Any] = {
            "color": getattr(canvas.colour, self.colour),
            "linewidth": self.width,
        }
        if self.dashes is not None:
            style["dashes"] = self.dashes
        return style


_GREY = Line("muted", None, 1.5, "line-muted")
_DASHED = Line("c2", (4.5, 2.2), 1.6, "line-c2 dash")
_BLUE = Line("c1", None, 1.8, "line-c1")
_DOTTED = Line("c5", (1.2, 1.8), 1.8, "line-c5 dots")
_LINES = {
    2: (_DASHED, _BLUE),
    3: (_GREY, _DASHED, _BLUE),
    4: (_GREY, _DASHED, _DOTTED, _BLUE),
}
_MORE = (
    _GREY,
    _DASHED,
    _DOTTED,
    _BLUE,
    Line("c4", (6, 2, 1.2, 2), 1.6, "line-c4 dash"),
    Line("c2", (1.2, 1.8), 1.6, "line-c2 dots"),
    Line("c5", (4.5, 2.2), 1.6, "line-c5 dash"),
    Line("muted", (1.2, 1.8), 1.6, "line-muted dots"),
)


@dataclass(frozen=True)
class Named:
    """One run: its name as shown, its facts, its line."""

    key: str
    name: str
    facts: Facts
    line: Line


class Compared:
    """A comparison, read safely."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        lines = _LINES.get(len(comparison.audits), _MORE)
        self.runs = tuple(
            Named(key, clean(key, 40) or f"run {at + 1}", Facts(audit), lines[at % len(lines)])
            for at, (key, audit) in enumerate(comparison.audits.items())
        )

    @property
    def first(self) -> Named:
        """The run that the others are held against."""
        return self.runs[0]

    @property
    def last(self) -> Named:
        """The run that the headlines speak of."""
        return self.runs[-1]

    @property
    def told(self) -> tuple[Named, ...]:
        """Runs that a headline has room for: all of up to three, else the first and the last."""
        return self.runs if len(self.runs) <= 3 else (self.first, self.last)

    @cached_property
    def noun(self) -> str:
        """What a sample is called."""
        return self.first.facts.noun

    @property
    def key(self) -> tuple[KeyItem, ...]:
        """The lines' key."""
        return tuple(KeyItem(run.line.swatch, run.name) for run in self.runs)
