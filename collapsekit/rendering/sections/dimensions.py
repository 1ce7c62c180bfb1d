"""Which dimensions carry information: KL per dimension, by rank, with the running share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from collapsekit.rendering import wording
from collapsekit.rendering.blocks import (
    Block,
    Column,
    Drawing,
    Figure,
    Fold,
    KeyItem,
    Paragraph,
    Section,
    Table,
)
from collapsekit.rendering.facts import Facts, Floats
from collapsekit.rendering.sections import spatial
from collapsekit.rendering.sections.verdict import carriers
from collapsekit.rendering.ticks import rank_ticks, thinned
from collapsekit.rendering.wording import (
    counted,
    figure,
    listing,
    percent,
    spelled,
    tick,
    tie,
    verb,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from collapsekit.rendering.canvas import Canvas

DOTS_UP_TO = 256  # beyond, a line by rank
ROWS_SHOWN = 64
BLUE = (0, 114, 178)
_STATES = (("active", "c1", "o", False), ("mixed", "c2", "D", False), ("passive", "c3", "o", True))


def build(facts: Facts) -> Section | None:
    """The section, where KL per dimension is known."""
    kl = facts.per_dimension("kl")
    if kl is None:
        return None
    blocks: list[Block] = [Paragraph(_text(facts, kl))]
    blocks.append(_figure(facts, kl))
    blocks.append(Fold("Data: KL per dimension", (_table(facts),)))
    shape = spatial.shape_of(facts)
    if shape is not None:
        blocks += spatial.blocks(facts, kl, shape)
    return Section(
        id="dimensions",
        nav="Dimensions",
        question="Which dimensions carry information?",
        headline=tie(headline(facts, kl)),
        blocks=tuple(blocks),
    )


def counts(facts: Facts) -> dict[str, int]:
    """How many dimensions are in each state; empty where the states are not known."""
    states = facts.words("state")
    if states is None:
        return {}
    return {name: states.count(name) for name, *_ in _STATES}


def headline(facts: Facts, kl: Floats) -> str:
    """Who carries the rate, and who equals the prior."""
    known = int(np.isfinite(kl).sum())
    total = float(np.nansum(kl))
    passive = counts(facts).get("passive", 0)
    if known == 1:
        state = "It equals the prior" if passive else "It is in use"
        return f"One dimension, {figure(total)} nats. {state}."
    if total < 0.1:
        together = f"all {known:,} together carry {figure(total, significant=2)} nats"
        return f"No dimension departs from the prior by much: {together}."
    count, share = carriers(kl)
    if count + passive > known:
        rest = known - passive
        others = (
            f"the other {'one carries' if rest == 1 else f'{rest:,} carry'} {figure(total)} nats"
        )
        return f"{wording.some_of(passive, known, 'dimension')} equal the prior; {others}."
    if count > known / 2:
        first = (
            f"The rate is spread: it takes {count:,} of {known:,} dimensions to carry "
            f"{percent(share)}"
        )
        first = (
            first.replace(f"{count:,} of {known:,}", f"all {known:,}") if count == known else first
        )
    else:
        who = counted(count, "dimension", capital=True)
        first = f"{who} {verb(count, 'carries', 'carry')} {percent(share)} of the rate"
    if not counts(facts):
        return f"{first}."
    if passive == 0:
        return f"{first}; none equals the prior."
    return f"{first}; {spelled(passive)} {verb(passive, 'equals', 'equal')} the prior."


def _text(facts: Facts, kl: Floats) -> str:
    told = counts(facts)
    parts = []
    if told and facts.d > 1:
        delta = percent(facts.delta)
        meaning = {
            "active": f"active for nearly every {facts.noun}",
            "mixed": "mixed",
            "passive": f"passive (below {tick(facts.epsilon)} nats for all but {delta} of the "
            f"{facts.nouns(2)})",
        }
        present = [name for name in meaning if told[name]]
        if len(present) == 1:
            parts.append(f"All {facts.d:,} dimensions are {meaning[present[0]]}.")
        else:
            each = [
                f"{spelled(told[name])} {verb(told[name], 'is', 'are')} {meaning[name]}"
                for name in present
            ]
            parts.append(f"Of {facts.d:,} dimensions, {listing(each)}.")
    local = facts.per_dimension("local")
    if local is not None and told.get("mixed"):
        n = int(np.nansum(local))
        wide = f"wide for some {facts.nouns(2)} and narrow for others"
        parts.append(
            f"Of the mixed, {spelled(n)} {verb(n, 'is', 'are')} local: {wide}."
            if n
            else f"None of the mixed is local ({wide}): they are weak everywhere."
        )
    parts.append(
        f"KL is the mean over {facts.nouns(2)}, in nats, one dimension at a time; the "
        f"{'dimensions' if facts.d != 1 else 'dimension'} together "
        f"{'add' if facts.d != 1 else 'adds'} up to {figure(float(np.nansum(kl)))} nats."
    )
    return " ".join(parts)


def _figure(facts: Facts, kl: Floats) -> Figure:
    order = facts.order
    ranked = kl[order]
    size = len(ranked)
    low, high = (facts.per_dimension(name) for name in ("kl_q05", "kl_q95"))
    states = facts.words("state")
    by_state = [states[k] for k in order] if states is not None else None
    positive = ranked[np.isfinite(ranked) & (ranked > 0)]
    top = max(float(positive.max()) if positive.size else 1.0, facts.epsilon) * 2.2
    floor = max(min(float(positive.min()) if positive.size else 1e-3, facts.epsilon) / 3, top / 1e7)
    if high is not None:
        top = max(top, float(np.nanmax(high)) * 1.3)
    running = np.cumsum(np.nan_to_num(ranked).clip(0))
    running = running / running[-1] if running[-1] > 0 else running
    count, share = carriers(kl)
    rank = np.arange(1, size + 1, dtype=np.float64)
    few = np.array(thinned(size))
    below = int((np.nan_to_num(ranked, nan=1.0) < floor).sum())

    stroke = ", with the spread over samples" if low is not None and high is not None else ""

    def clip(values: Floats) -> Floats:
        return np.clip(values, floor, top)

    def paint(canvas: Canvas) -> None:
        left, right = 56, 12
        lower = 0 if size < 3 else 132
        bottom = 44 + lower
        canvas.heading("Mean KL of a dimension, nats", stroke, top=13)
        axes = canvas.axes(left, 26, right, bottom)
        canvas.log_axis(axes, "y", floor, top, most=5)
        pad = 0.8 if size < 40 else size * 0.02
        axes.set_xlim(1 - pad, size + pad)
        if size <= DOTS_UP_TO:
            _dots(canvas, axes)
        else:
            if low is not None and high is not None:
                axes.fill_between(
                    rank[few],
                    clip(low[order][few]),
                    clip(high[order][few]),
                    color=canvas.colour.c1,
                    alpha=0.22,
                    linewidth=0,
                )
            axes.plot(rank[few], clip(ranked[few]), color=canvas.colour.c1)
        if floor < facts.epsilon < top:
            canvas.threshold(axes, y=facts.epsilon)
            canvas.words(
                axes,
                size + pad,
                facts.epsilon,
                f"ε = {tick(facts.epsilon)}",
                ha="right",
                dy=4,
                colour="muted",
            )
        ticks = rank_ticks(size, 4 if canvas.narrow else 5)
        canvas.ticks(axes, "x", ticks, [""] * len(ticks) if lower else None)
        if not lower:
            canvas.label_x(axes, "dimension, by falling KL")
            return
        canvas.heading("Running share of the rate", top=canvas.height - lower - 2)
        share_axes = canvas.axes(left, canvas.height - lower + 10, right, 44)
        share_axes.set_xlim(1 - pad, size + pad)
        share_axes.set_ylim(0, 1.04)
        share_axes.plot(
            np.concatenate([[1 - pad / 2], rank[few]]),
            np.concatenate([[0.0], running[few]]),
            color=canvas.colour.c1,
            drawstyle="steps-post",
        )
        if 0 < count < size:
            canvas.dots(share_axes, [count], [share], colour="c1", size=7)
            crowded = count > size * 0.6
            canvas.words(
                share_axes,
                count,
                share,
                f"first {count:,}: {percent(share)}" if count > 1 else f"first: {percent(share)}",
                dx=-10 if crowded else 8,
                dy=4 if crowded else -16,
                ha="right" if crowded else "left",
            )
        canvas.ticks(share_axes, "y", [0, 0.5, 1], ["0", "50", "100 %"])
        canvas.ticks(share_axes, "x", ticks)
        canvas.label_x(share_axes, "dimension, by falling KL")

    def _dots(canvas: Canvas, axes: Axes) -> None:
        dense = size > 64 or (canvas.narrow and size > 40)
        marker_size = 3.4 if dense else 6.0
        for name, colour, marker, hollow in _STATES:
            rows = np.array(
                [s == name for s in by_state] if by_state is not None else [name == "active"] * size
            )
            if not rows.any():
                continue
            if low is not None and high is not None:
                canvas.strokes(
                    axes,
                    rank[rows],
                    clip(low[order][rows]),
                    clip(high[order][rows]),
                    colour=colour,
                    width=1.4 if dense else 2.5,
                )
            canvas.dots(
                axes,
                rank[rows],
                clip(ranked[rows]),
                colour=colour,
                marker=marker,
                hollow=hollow,
                size=marker_size * (0.86 if marker == "D" else 1),
            )

    told = counts(facts)
    key: tuple[KeyItem, ...] = ()
    if told and size <= DOTS_UP_TO:
        swatch = {"active": "dot-c1", "mixed": "diamond-c2", "passive": "ring-c3"}
        key = tuple(
            KeyItem(swatch[name], f"{told[name]:,} {name}") for name, *_ in _STATES if told[name]
        )
    caption = "Stroke: 5 to 95 % of the samples. " if stroke else ""
    if told.get("mixed"):
        caption += (
            "Mixed: above ε for some samples, equal to the prior for others; weak everywhere, "
            "or locally collapsed. "
        )
    if told.get("passive"):
        caption += "Passive: equal to the prior within ε for nearly all samples."
    if below:
        caption += (
            f" {counted(below, 'dimension', capital=True)} below {tick(floor)} drawn at the edge."
        )
    return Figure(
        Drawing(
            "kl-per-dimension",
            f"Mean KL of {size:,} dimensions by rank; {headline(facts, kl)}",
            paint,
            380 if size >= 3 else 240,
            400 if size >= 3 else 240,
        ),
        result=_result(facts, kl),
        caption=caption.strip(),
        key=key,
    )


def _result(facts: Facts, kl: Floats) -> str:
    known = np.flatnonzero(np.isfinite(kl))
    if len(known) < 2:
        return ""
    strongest = int(known[kl[known].argmax()])
    ends = [figure(float(v), significant=2) for v in (kl[strongest], np.median(kl[known]))]
    weakest = figure(float(kl[known].min()), significant=2)
    return (
        f"Dimension {strongest:,} carries most, {ends[0]} nats; the median dimension carries "
        f"{ends[1]}, the weakest {weakest}."
    )


def _table(facts: Facts) -> Table:
    names: Sequence[tuple[str, str]] = (
        ("kl", "Mean KL"),
        ("kl_se", "Std. error"),
        ("kl_q05", "5 %"),
        ("kl_median", "Median"),
        ("kl_q95", "95 %"),
        ("information", "Information"),
    )
    known = [
        (label, column)
        for name, label in names
        if (column := facts.per_dimension(name)) is not None
    ]
    states = facts.words("state")
    order = facts.order
    chosen = list(order) if len(order) <= ROWS_SHOWN else [*order[:32], *order[-32:]]
    rows = [
        (
            str(facts.index[k]),
            *([states[k]] if states is not None else []),
            *(figure(column[k]) for _, column in known),
        )
        for k in chosen
    ]
    note = ""
    if len(chosen) < len(order):
        note = (
            f"Showing {len(chosen)} of {len(order):,} dimensions: the 32 highest and the 32 lowest."
        )
    return Table(
        "KL per dimension, nats",
        (
            Column("Dimension", numeric=False),
            *([Column("State", numeric=False)] if states is not None else []),
            *(Column(label) for label, _ in known),
        ),
        rows,
        note=note,
        tight=True,
    )
