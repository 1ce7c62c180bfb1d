"""What the doctor is shown, and what it notes down."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from collapsekit.door import Door
from collapsekit.samples import Inputs


@dataclass(frozen=True)
class Line:
    """One line of the table: a piece, what was found, and how to say otherwise."""

    piece: str
    found: str
    otherwise: str = ""


@dataclass
class Case:
    """A model behind its door with a few samples, and the notes taken so far.

    Parameters
    ----------
    door : Door
    x : Inputs
    group : str
        Of a hierarchical model; empty for a model with one code.
    """

    door: Door
    x: Inputs
    group: str = ""
    capabilities: list[Line] = field(default_factory=list)
    assumptions: list[Line] = field(default_factory=list)
    readings: list[Line] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def can(self, piece: str, found: str, lost: str = "") -> None:
        """Note what a piece of the model can do; `lost` is what is skipped without it."""
        self.capabilities.append(Line(self._named(piece), found, lost))

    def assume(self, piece: str, found: str, otherwise: str = "") -> None:
        """Note what an audit would assume, and how to say otherwise."""
        self.assumptions.append(Line(self._named(piece), found, otherwise))

    def fault(self, text: str) -> None:
        """Note a contradiction."""
        told = " ".join(text.split())
        self.faults.append(f"group {self.group}: {told}" if self.group else told)

    def _named(self, piece: str) -> str:
        return f"{self.group}: {piece}" if self.group else piece


def noted(notes: Iterable[str], piece: str) -> list[Line]:
    """Somebody else's notes as lines."""
    return [Line(piece, note) for note in notes]
