"""The report's figures for papers: ``Plots(audit).kl_per_dimension()`` is a matplotlib figure."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from collapsekit.errors import InputError
from collapsekit.rendering.blocks import Block, Drawing, Figure, Fold
from collapsekit.rendering.facts import Facts
from collapsekit.rendering.sections import build_all
from collapsekit.rendering.theme import DARK, LIGHT, WIDE
from collapsekit.results import Audit

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure


class Plots:
    """Every figure that the report of this audit has, by name.

    Parameters
    ----------
    audit : Audit

    Examples
    --------
    ``Plots(audit).kl_per_dimension(width=420).savefig("kl.pdf")``; ``dir(Plots(audit))`` lists the
    names. The axes are ``figure.axes``.
    """

    def __init__(self, audit: Audit) -> None:
        self._facts = Facts(audit)

    @property
    def names(self) -> list[str]:
        """Figures that this audit can fill."""
        return sorted(self._drawings)

    @cached_property
    def _drawings(self) -> dict[str, Drawing]:
        found = {}
        for section in build_all(self._facts):
            for drawing in drawings(section.blocks):
                found[drawing.name.replace("-", "_")] = drawing
        return found

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.names]

    def __getattr__(self, name: str) -> Callable[..., MatplotlibFigure]:
        if name.startswith("_") or name not in self._drawings:
            raise AttributeError(name)

        def draw(*, width: int = WIDE, dark: bool = False) -> MatplotlibFigure:
            return self.draw(name, width=width, dark=dark)

        return draw

    def draw(self, name: str, *, width: int = WIDE, dark: bool = False) -> MatplotlibFigure:
        """One figure in true colours, `width` pixels (points) wide, transparent background.

        Raises
        ------
        InputError
            The report of this audit has no figure of that name.
        """
        # Imported here: asking for the names draws nothing and needs no matplotlib.
        from collapsekit.rendering.figures import paper

        if name not in self._drawings:
            raise InputError(
                f"no figure called {name!r}",
                got=name,
                expected=", ".join(self.names) or "a figure; this audit fills none",
                remedy="audit.skipped says what was not measured",
            )
        return paper(self._drawings[name], width=width, palette=DARK if dark else LIGHT)


def drawings(blocks: tuple[Block, ...]) -> list[Drawing]:
    """All drawings among these blocks, those inside folds included."""
    found: list[Drawing] = []
    for block in blocks:
        if isinstance(block, Figure):
            found.append(block.drawing)
        elif isinstance(block, Fold):
            found += drawings(block.blocks)
    return found
