"""The sections of a comparison, in their order; each is one file with a ``build(compared)``."""

from __future__ import annotations

from collections.abc import Callable

from collapsekit.rendering.blocks import Section
from collapsekit.rendering.compared import (
    budget,
    head,
    method,
    numbers,
    rescued,
    round_trip,
    settings,
    spread,
)
from collapsekit.rendering.compared.runs import Compared

Builder = Callable[[Compared], Section | None]

#: One line per section: a new one is its file and a line here.
SECTIONS: tuple[Builder, ...] = (
    head.build,
    settings.build,
    numbers.build,
    spread.build,
    budget.build,
    round_trip.build,
    rescued.build,
    method.build,
)


def build_all(compared: Compared) -> list[Section]:
    """Every section that these audits can fill."""
    built = [build(compared) for build in SECTIONS]
    return [section for section in built if section is not None]
