"""Can a code be read back: round-trip recovery by rank, clean and after noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from collapsekit.rendering.blocks import Drawing, Figure, Section
from collapsekit.rendering.compared.runs import Compared, Named
from collapsekit.rendering.facts import Floats
from collapsekit.rendering.sections.injectivity import survivors
from collapsekit.rendering.ticks import rank_ticks, thinned
from collapsekit.rendering.wording import listing, percent, tick, tie

if TYPE_CHECKING:
    from collapsekit.rendering.canvas import Canvas


def build(compared: Compared) -> Section | None:
    """The section, where at least two runs measured the round trip."""
    found: list[tuple[Named, Floats]] = []
    name = "robust_round_trip_r2"
    if sum(run.facts.per_dimension(name) is not None for run in compared.runs) < 2:
        name = "round_trip_r2"
    for run in compared.runs:
        column = run.facts.per_dimension(name)
        if column is not None:
            found.append((run, np.sort(column[np.isfinite(column)].clip(0, 1))[::-1]))
    if len(found) < 2:
        return None
    return Section(
        id="round-trip",
        nav="Round trip",
        question="Can a code be read back?",
        headline=tie(_headline([pair for pair in found if pair[0] in compared.told])),
        blocks=(_figure(compared, found, noisy=name.startswith("robust")),),
    )


def _headline(found: list[tuple[Named, Floats]]) -> str:
    told = []
    for run, _ in found:
        kept = survivors(run.facts)
        if kept is not None:
            count, total = kept
            share = f"all {total:,}" if count == total else f"{count:,} of {total:,}"
            told.append(f"{share} for {run.name}")
    return f"Dimensions that can be read back: {listing(told)}."


def _figure(compared: Compared, found: list[tuple[Named, Floats]], *, noisy: bool) -> Figure:
    bar = compared.first.facts.trip_bar
    size = max(len(values) for _, values in found)

    def paint(canvas: Canvas) -> None:
        canvas.heading("Share of a code that survives, R²", ", by rank", top=13)
        axes = canvas.axes(40, 28, 14, 46)
        pad = 0.8 if size < 40 else size * 0.02
        axes.set_xlim(1 - pad, size + pad)
        axes.set_ylim(-0.03, 1.04)
        canvas.threshold(axes, y=bar)
        for run, values in found:
            few = np.array(thinned(len(values)))
            axes.plot(few + 1, values[few], **run.line.style(canvas))
        canvas.ticks(axes, "y", sorted({0.0, bar, 1.0}))
        canvas.ticks(axes, "x", rank_ticks(size, 4 if canvas.narrow else 5))
        canvas.label_x(axes, "rank within the run")

    after = "after rounding and noise, the worse of the two" if noisy else "clean"
    return Figure(
        Drawing(
            "compared-round-trip",
            f"Round-trip recovery by rank for {listing([run.name for run, _ in found])}",
            paint,
            260,
            260,
        ),
        result="Of a median dimension’s code, "
        + listing(
            [
                f"{percent(max(float(np.median(values)), 0.0))} survives for {run.name}"
                for run, values in found
            ]
        )
        + ".",
        caption=(
            f"R² per dimension, {after}; sorted within a run. Dashed: {tick(bar)}, from which a "
            "dimension counts as read back. Negative values drawn at 0."
        ),
        key=compared.key,
    )
