"""Is this the opposite problem: does the aggregate of all posteriors miss the prior?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from collapsekit.rendering import wording
from collapsekit.rendering.blocks import (
    Block,
    Column,
    Drawing,
    Figure,
    Fold,
    Paragraph,
    Section,
    Table,
)
from collapsekit.rendering.facts import Facts, Floats
from collapsekit.rendering.ticks import rank_ticks, round_ticks, thinned
from collapsekit.rendering.wording import (
    counted,
    figure,
    percent,
    quantity,
    sentences,
    showing,
    tie,
)

if TYPE_CHECKING:
    from collapsekit.rendering.canvas import Canvas

DOTS_UP_TO = 256


def build(facts: Facts) -> Section | None:
    """The section, where mean and variance of the aggregate are known."""
    mean, variance = (facts.per_dimension(f"aggregate_{part}") for part in ("mean", "variance"))
    if mean is None or variance is None:
        return None
    known = np.isfinite(mean) & np.isfinite(variance) & (variance >= 0)
    if not known.any():
        return None
    blocks: list[Block] = [Paragraph(_text(facts, mean[known], variance[known]))]
    blocks.append(_figure(facts, mean, np.sqrt(np.where(known, variance, np.nan))))
    blocks.append(Fold("Data: aggregate by dimension", (_table(facts, mean, variance),)))
    return Section(
        id="prior",
        nav="Prior match",
        question="Is it the opposite problem: do the codes miss the prior?",
        headline=tie(_headline(facts)),
        blocks=tuple(blocks),
    )


def _headline(facts: Facts) -> str:
    mismatch, rate = facts.number("dimensionwise_kl"), facts.number("rate")
    if mismatch is None:
        per_dimension = facts.per_dimension("aggregate_kl")
        if per_dimension is None:
            return "Mean and spread of all codes, against the prior."
        known, total = int(np.isfinite(per_dimension).sum()), float(np.nansum(per_dimension))
        told = "match the prior" if total < 1e-6 else f"miss the prior by {figure(total)} nats"
        size = len(per_dimension)
        where = "The" if known == size else f"In {known:,} of {size:,} dimensions the"
        return f"{where} codes {told}."
    if mismatch.value < 0.05 * facts.d and mismatch.value < 1:
        return f"All codes together match the prior to within {quantity(mismatch)}."
    if rate is not None and rate.value > 0:
        part = mismatch.value / rate.value
        share = percent(part) if part < 0.995 else "all"
        return f"All codes together miss the prior by {quantity(mismatch)}, {share} of the rate."
    return f"All codes together miss the prior by {quantity(mismatch)}."


def _text(facts: Facts, mean: Floats, variance: Floats) -> str:
    parts = [
        "Draws from the prior decode to what the model has learned only where the codes of the "
        "data lie. Summed over dimensions, the mismatch is what sampling pays."
    ]
    total = float(np.sqrt(np.mean(variance) + np.var(mean)))
    if math.isfinite(total) and total > 0:
        parts.append(
            f"Over all dimensions the codes have mean {_centre(float(np.mean(mean)))} and standard "
            f"deviation {figure(total)}; a model on top of them would scale by {figure(1 / total)}."
        )
    return sentences(*parts)


def _centre(value: float) -> str:
    return "0" if abs(value) < 0.005 else figure(value, 2)


def _figure(facts: Facts, mean: Floats, spread: Floats) -> Figure:
    order = np.array(
        [k for k in facts.order if np.isfinite(mean[k]) and np.isfinite(spread[k])], dtype=np.int64
    )
    size = len(order)
    centre, width = mean[order], spread[order]
    reach = float(np.max(np.abs(centre) + width))
    shrunk = int((width < 0.5).sum())
    wide = int((width > 2).sum())
    shifted = int((np.abs(centre) > 0.5).sum())
    few = np.array(thinned(size))
    rank, centre, width = few + 1.0, centre[few], width[few]
    top = max(1.4, 1.15 * reach)
    standard = _standard_prior(facts)

    def paint(canvas: Canvas) -> None:
        canvas.heading("Codes of a dimension: mean ± std. dev.", ", against the prior", top=13)
        axes = canvas.axes(40, 26, 14, 46)
        pad = 0.8 if size < 40 else size * 0.02
        axes.set_xlim(1 - pad, size + pad)
        axes.set_ylim(-top, top)
        if standard:
            axes.axhspan(-1, 1, color=canvas.colour.c5, alpha=0.18, linewidth=0)
        dense = size > 64 or (canvas.narrow and size > 40)
        if size <= DOTS_UP_TO:
            canvas.strokes(
                axes,
                rank,
                centre - width,
                centre + width,
                colour="c1",
                width=1.4 if dense else 3,
            )
            canvas.dots(axes, rank, centre, colour="c1", size=3.6 if dense else 6)
        else:
            axes.fill_between(
                rank, centre - width, centre + width, color=canvas.colour.c1, alpha=0.3, linewidth=0
            )
            axes.plot(rank, centre, color=canvas.colour.c1, linewidth=1)
        canvas.ticks(axes, "y", round_ticks(top, 5, -top))
        canvas.ticks(axes, "x", rank_ticks(size, 4 if canvas.narrow else 5))
        canvas.label_x(axes, "dimension, by falling KL")

    told = [
        f"{counted(n, 'dimension')} {what}"
        for n, what in (
            (shrunk, "with less than half of the prior’s spread"),
            (wide, "with more than twice its spread"),
            (shifted, "off centre by more than half a unit"),
        )
        if n
    ]
    result = ""
    if standard:
        listed = wording.listing(told)
        result = (
            f"{listed[0].upper()}{listed[1:]}."
            if told
            else "Every dimension has the prior’s centre and spread."
        )
    caption = "Band: the prior, N(0, 1), one standard deviation to each side." if standard else ""
    caption = f"{caption} {showing(len(few), size, 'dimension')}".strip()
    return Figure(
        Drawing(
            "prior-match", f"Mean and spread of the codes by dimension. {result}", paint, 240, 240
        ),
        result=result,
        caption=caption,
    )


def _standard_prior(facts: Facts) -> bool:
    prior = str(facts.audit.provenance.get("prior") or "N(0, I)").replace(" ", "").lower()
    return prior.startswith(("n(0,i", "n(0,1", "standard", "normal(0,1"))


def _table(facts: Facts, mean: Floats, variance: Floats) -> Table:
    mismatch = facts.per_dimension("aggregate_kl")
    key = mismatch if mismatch is not None else np.abs(mean)
    order = np.argsort(-np.nan_to_num(key, nan=-np.inf), kind="stable")[:32]
    rows = [
        (
            str(facts.index[k]),
            figure(mean[k]),
            figure(math.sqrt(variance[k])) if variance[k] >= 0 else wording.UNKNOWN,
            *([figure(mismatch[k])] if mismatch is not None else []),
        )
        for k in order
    ]
    return Table(
        "Aggregate by dimension, largest mismatch first",
        (
            Column("Dimension", numeric=False),
            Column("Mean"),
            Column("Std. dev."),
            *([Column("KL to the prior, nats")] if mismatch is not None else []),
        ),
        rows,
        note=wording.showing(len(rows), len(mean), "dimension"),
        tight=True,
    )
