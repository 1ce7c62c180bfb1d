"""How is the information spread: dimensions by rank, and active units by threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from collapsekit.rendering.blocks import Block, Drawing, Figure, Section
from collapsekit.rendering.compared.runs import Compared, Named
from collapsekit.rendering.facts import Floats
from collapsekit.rendering.sections.active_units import Curve, load
from collapsekit.rendering.sections.verdict import carriers
from collapsekit.rendering.ticks import rank_ticks, thinned, whole_ticks
from collapsekit.rendering.wording import figure, listing, percent, tick, tie

if TYPE_CHECKING:
    from collapsekit.rendering.canvas import Canvas


def build(compared: Compared) -> Section | None:
    """The section, where at least two runs know their KL per dimension."""
    kl = {run.key: run.facts.per_dimension("kl") for run in compared.runs}
    runs = [run for run in compared.runs if kl[run.key] is not None]
    if len(runs) < 2:
        return None
    ranked = {run.key: _ranked(kl[run.key]) for run in runs}
    blocks: list[Block] = [_kl_figure(compared, runs, ranked)]
    curves = [(run, curve) for run in compared.runs if (curve := load(run.facts)) is not None]
    if len(curves) > 1:
        blocks.append(_curve_figure(compared, curves))
    return Section(
        id="spread",
        nav="Spread",
        question="How is the information spread?",
        headline=tie(_headline([run for run in runs if run in compared.told], ranked)),
        blocks=tuple(blocks),
    )


def _ranked(column: Floats | None) -> Floats:
    assert column is not None
    return np.sort(column[np.isfinite(column)].clip(0))[::-1]


def _headline(runs: list[Named], ranked: dict[str, Floats]) -> str:
    told: list[str] = []
    for run in runs:
        count, share = carriers(ranked[run.key])
        size = "" if told else f" of {len(ranked[run.key]):,} dimensions"
        told.append(f"{count:,}{size} for {run.name}" if share else f"no dimension for {run.name}")
    return f"{percent(0.8)} of the rate sits in {listing(told)}."


def _kl_figure(compared: Compared, runs: list[Named], ranked: dict[str, Floats]) -> Figure:
    epsilon = compared.first.facts.epsilon
    everything = np.concatenate(list(ranked.values()))
    positive = everything[everything > 0]
    high = max(float(positive.max()) if positive.size else 1.0, epsilon) * 2
    low = max(min(float(positive.min()) if positive.size else epsilon, epsilon) / 2, high / 1e7)
    size = max(len(values) for values in ranked.values())

    def paint(canvas: Canvas) -> None:
        canvas.heading("Mean KL of a dimension, nats", top=13)
        axes = canvas.axes(56, 26, 12, 46)
        canvas.log_axis(axes, "y", low, high, most=5)
        pad = 0.8 if size < 40 else size * 0.02
        axes.set_xlim(1 - pad, size + pad)
        canvas.threshold(axes, y=epsilon)
        canvas.words(
            axes, size + pad, epsilon, f"ε = {tick(epsilon)}", ha="right", dy=4, colour="muted"
        )
        for run in runs:
            values = ranked[run.key].clip(low, high)
            few = np.array(thinned(len(values)))
            axes.plot(few + 1, values[few], **run.line.style(canvas))
            if len(values) == 1:
                canvas.dots(axes, [1], values, colour=run.line.colour)
        canvas.ticks(axes, "x", rank_ticks(size, 4 if canvas.narrow else 5))
        canvas.label_x(axes, "rank within the run")

    return Figure(
        Drawing(
            "compared-kl",
            f"Mean KL by rank for {listing([run.name for run in runs])}",
            paint,
            280,
            280,
        ),
        result=_halfway(runs, ranked),
        caption=(
            "Dimensions are permuted between trainings, so the curves are matched by rank, never "
            "by index."
        ),
        key=compared.key,
    )


def _halfway(runs: list[Named], ranked: dict[str, Floats]) -> str:
    told = [
        f"{figure(float(np.median(ranked[run.key])), significant=2)} nats for {run.name}"
        for run in runs
    ]
    return f"The median dimension carries {listing(told)}."


def _curve_figure(compared: Compared, curves: list[tuple[Named, Curve]]) -> Figure:
    bar = compared.first.facts.active_bar
    top = max(run.facts.d for run, _ in curves)
    high = max(2.0, bar * 10)
    for run, _ in curves:
        variance = run.facts.per_dimension("mean_variance")
        if variance is not None:
            high = max(high, float(np.nanmax(variance)) * 1.3)
    low = min(1e-4, bar / 10)

    def paint(canvas: Canvas) -> None:
        canvas.heading("Active units", ", by threshold", top=13)
        axes = canvas.axes(20 + 8 * len(f"{top:,}"), 26, 14, 46)
        canvas.log_axis(axes, "x", low, high, most=6)
        axes.set_ylim(0, top * 1.12)
        canvas.threshold(axes, x=bar)
        for run, curve in curves:
            inside = (curve.threshold >= low) & (curve.threshold <= high)
            axes.plot(
                curve.threshold[inside],
                curve.count[inside],
                drawstyle="steps-post",
                **run.line.style(canvas),
            )
        ticks = [top * k / 4 for k in range(5)] if top % 4 == 0 else whole_ticks(top, 4)
        canvas.ticks(axes, "y", ticks)
        canvas.words(
            axes, bar, top * 1.12, f"{tick(bar)}, the convention", dx=6, va="top", colour="muted"
        )
        canvas.label_x(axes, "threshold on the variance of the posterior mean")

    told = [
        f"{run.name} {figure(curve.at(bar))} ({figure(curve.at(10 * bar))} at {tick(10 * bar)})"
        for run, curve in curves
    ]
    return Figure(
        Drawing(
            "compared-active-units",
            f"Active units by threshold for {listing([run.name for run, _ in curves])}",
            paint,
            260,
            260,
        ),
        result=f"Active at {tick(bar)}: {listing(told)}.",
    )
