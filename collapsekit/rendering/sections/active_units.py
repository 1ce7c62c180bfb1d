"""How many units are active, and does the threshold decide it: the whole curve."""

from __future__ import annotations

import math
from dataclasses import dataclass
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
from collapsekit.rendering.ticks import whole_ticks
from collapsekit.rendering.wording import figure, listing, plural, sentences, tick, tie

if TYPE_CHECKING:
    from collapsekit.rendering.canvas import Canvas


@dataclass(frozen=True)
class Curve:
    """Units active above each threshold, with an interval where the audit has one."""

    threshold: Floats
    count: Floats
    low: Floats | None
    high: Floats | None

    def at(self, threshold: float) -> float:
        """Count at a threshold: of the largest tabulated one that is not above it."""
        return float(self.count[self._place(threshold)])

    def between(self, threshold: float) -> tuple[float, float] | None:
        """The count's interval there, where the audit has one."""
        if self.low is None or self.high is None:
            return None
        place = self._place(threshold)
        ends = float(self.low[place]), float(self.high[place])
        return ends if all(map(math.isfinite, ends)) else None

    def _place(self, threshold: float) -> int:
        place = int(np.searchsorted(self.threshold, threshold * (1 + 1e-9), side="right")) - 1
        return max(place, 0)


def build(facts: Facts) -> Section | None:
    """The section, where the curve or the variances behind it are known."""
    curve = load(facts)
    if curve is None:
        return None
    blocks: list[Block] = [Paragraph(_text(facts, curve)), _figure(facts, curve)]
    if facts.table("active_units_curve", "threshold", "count") is not None:
        blocks.append(Fold("Data: active units by threshold", (_table(curve),)))
    return Section(
        id="active-units",
        nav="Active units",
        question="How many units are active, and does the threshold decide it?",
        headline=tie(headline(facts, curve)),
        blocks=tuple(blocks),
    )


def load(facts: Facts) -> Curve | None:
    """The tabulated curve; without one, the curve that the variances themselves give."""
    frame = facts.table("active_units_curve", "threshold", "count")
    if frame is not None:
        frame = frame.sort_values("threshold")
        threshold = frame["threshold"].to_numpy(dtype=np.float64)
        keep = np.isfinite(threshold) & (threshold > 0)
        if keep.sum() >= 2:
            ends = [
                frame[name].to_numpy(dtype=np.float64, na_value=np.nan)[keep]
                if name in frame.columns
                else None
                for name in ("low", "high")
            ]
            count = frame["count"].to_numpy(dtype=np.float64)[keep]
            return Curve(threshold[keep], count, *ends)
    variance = _spread(facts)
    if variance is None:
        return None
    known = variance[np.isfinite(variance)]
    grid = np.geomspace(1e-4, max(2.0, float(known.max()) * 1.2), 121)
    count = (known[None, :] > grid[:, None]).sum(axis=1).astype(np.float64)
    return Curve(grid, count, None, None)


def _spread(facts: Facts) -> Floats | None:
    """What is counted: variances of the means, along directions where the code has no axes."""
    table = facts.table("active_directions", "variance")
    if table is None:
        return facts.per_dimension("mean_variance")
    found: Floats = table["variance"].to_numpy(dtype=np.float64, na_value=np.nan)
    return found


def headline(facts: Facts, curve: Curve) -> str:
    """The count at the convention and a factor of ten to both sides."""
    bar = facts.active_bar
    number = facts.number("active_units")
    here = number.value if number is not None else curve.at(bar)
    more, fewer = curve.at(bar / 10), curve.at(bar * 10)
    d = facts.d
    subject = wording.some_of(here, d, "unit")
    be = "is" if here <= 1 or d == 1 else "are"
    if more == here == fewer:
        span = f"{tick(bar / 10)} to {tick(bar * 10)}"
        return f"{subject} {be} active, whatever the threshold from {span}."
    if here == 0:
        return f"No unit is active at the usual threshold; {figure(more)} at a tenth of it."
    if here == fewer:
        return (
            f"{subject} {be} active at the usual threshold and at ten times it; "
            f"{figure(more)} at a tenth."
        )
    if here == more:
        return f"{subject} {be} active at the usual threshold; {figure(fewer)} at ten times it."
    return (
        f"{figure(here)} {plural(here, 'unit')} at the usual threshold; "
        f"{figure(fewer)} to {figure(more)} over a factor of ten on either side."
    )


def plateau(facts: Facts) -> tuple[int, float, float] | None:
    """The longest stretch of thresholds over which the count stays: (count, from, to)."""
    variance = _spread(facts)
    if variance is None:
        return None
    known = np.sort(variance[np.isfinite(variance)])[::-1]
    known = known[known > 1e-6]
    if len(known) < 2:
        return None
    ratio = np.log(known[:-1] / known[1:])
    at = int(ratio.argmax())
    if ratio[at] < math.log(2):
        return None
    return at + 1, float(known[at + 1]), float(known[at])


def _text(facts: Facts, curve: Curve) -> str:
    bar = facts.active_bar
    parts = [
        f"The threshold of {tick(bar)} is a convention (Burda 2016) and moves when latents are "
        "rescaled, so the whole curve is shown. A flat stretch is a count that the threshold does "
        "not decide."
    ]
    axes = facts.per_dimension("active")
    if axes is not None and facts.table("active_directions", "variance") is not None:
        parts.append(
            "The code has no axes of its own: units are directions of its means. Along the axes, "
            f"one basis of many, {figure(float(np.nansum(axes)))} would be active."
        )
    stretch = plateau(facts)
    if stretch is not None:
        count, low, high = stretch
        parts.append(
            f"The longest holds {count:,} {plural(count, 'unit')}, from "
            f"{figure(low, significant=2)} to {figure(high, significant=2)}."
        )
    rank = facts.number("effective_rank")
    if rank is not None:
        parts.append(f"Effective rank of the codes: {wording.value(rank)[0]}.")
    return sentences(*parts)


def _figure(facts: Facts, curve: Curve) -> Figure:
    bar = facts.active_bar
    d = facts.d
    variance = _spread(facts)
    positive = curve.threshold
    low = min(1e-4, bar / 10) if variance is not None or positive[0] <= 1e-4 else float(positive[0])
    low = max(low, float(positive[0])) if variance is None else low
    high = max(2.0, bar * 10)
    if variance is not None:
        high = max(high, float(np.nanmax(variance)) * 1.3)
    stretch = plateau(facts)
    exact: tuple[Floats, Floats] | None = None
    if variance is not None:
        known = np.sort(variance[np.isfinite(variance)])
        steps = np.concatenate([[low], np.clip(known, low, high), [high]])
        counts = np.concatenate([[len(known)], len(known) - 1.0 - np.arange(len(known)), [0.0]])
        exact = steps, counts

    def paint(canvas: Canvas) -> None:
        canvas.heading(f"Active units, of {d:,}", top=13)
        left = 20 + 8 * len(f"{d:,}")
        axes = canvas.axes(left, 24, 14, 46)
        canvas.log_axis(axes, "x", low, high, most=6)
        axes.set_ylim(0, d * 1.22)
        canvas.threshold(axes, x=bar)
        if curve.low is not None and curve.high is not None:
            inside = (curve.threshold >= low) & (curve.threshold <= high)
            axes.fill_between(
                curve.threshold[inside],
                curve.low[inside],
                curve.high[inside],
                step="post",
                color=canvas.colour.c1,
                alpha=0.22,
                linewidth=0,
            )
        x, y = exact if exact is not None else (curve.threshold, curve.count)
        axes.plot(
            x, y, color=canvas.colour.c1, drawstyle="steps-post", linewidth=1.8, clip_on=False
        )
        if stretch is not None and stretch[2] > low:
            axes.plot(
                [max(stretch[1], low), min(stretch[2], high)],
                [stretch[0]] * 2,
                color=canvas.colour.c1,
                linewidth=4,
                solid_capstyle="butt",
            )
        for threshold in (bar / 10, bar, bar * 10):
            if not low <= threshold <= high:
                continue
            count = curve.at(threshold)
            if variance is not None:
                count = float((variance > threshold).sum())
            canvas.dots(axes, [threshold], [count], colour="c1", size=7)
            canvas.words(axes, threshold, count, figure(count), bold=True, dx=7, dy=6)
        canvas.words(
            axes, bar, d * 1.22, f"{tick(bar)}, the convention", dx=6, va="top", colour="muted"
        )
        canvas.ticks(axes, "y", _unit_ticks(d))
        canvas.label_x(axes, "threshold on the variance of the posterior mean")

    caption = ""
    if curve.low is not None:
        caption = f"Band: 95 % interval over {facts.nouns(2)}."
    if stretch is not None:
        caption = sentences(caption, "Thick: the longest stretch without a change.")
    return Figure(
        Drawing(
            "active-units", f"Active units by threshold. {headline(facts, curve)}", paint, 300, 300
        ),
        result=_result(facts, curve),
        caption=caption,
    )


def _result(facts: Facts, curve: Curve) -> str:
    bar = facts.active_bar
    told: list[str] = []
    for threshold in (bar / 10, bar, bar * 10):
        count = figure(curve.at(threshold))
        ends = curve.between(threshold)
        told.append(
            f"{count}{' are active' if not told else ''} above {tick(threshold)}"
            + (f" ({figure(ends[0])} to {figure(ends[1])})" if ends else "")
        )
    return f"Of {facts.d:,} {plural(facts.d, 'unit')}, {listing(told)}."


def _unit_ticks(d: int) -> list[float]:
    if d <= 4:
        return [float(k) for k in range(d + 1)]
    if d % 4 == 0:
        return [d * k / 4 for k in range(5)]
    return whole_ticks(d, 4)


def _table(curve: Curve) -> Table:
    keep = np.unique(np.linspace(0, len(curve.threshold) - 1, 17).round().astype(int))
    rows = []
    for k in keep:
        ends = ""
        if curve.low is not None and curve.high is not None and np.isfinite(curve.low[k]):
            ends = f"{figure(float(curve.low[k]))} to {figure(float(curve.high[k]))}"
        rows.append((figure(float(curve.threshold[k])), figure(float(curve.count[k])), ends))
    return Table(
        "Active units by threshold",
        (Column("Threshold"), Column("Active units"), Column("95 % interval")),
        rows,
        note=wording.showing(len(keep), len(curve.threshold), "threshold"),
        tight=True,
    )
