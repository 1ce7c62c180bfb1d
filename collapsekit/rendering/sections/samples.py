"""Which inputs does the model ignore: the distribution over samples, and by label."""

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
from collapsekit.rendering.ticks import round_ticks, whole_ticks
from collapsekit.rendering.wording import (
    figure,
    percent,
    plural,
    sentences,
    spelled,
    tick,
    tie,
    verb,
)

if TYPE_CHECKING:
    from collapsekit.rendering.canvas import Canvas

MOST_LABELS = 16
CURVE_ROWS = 13  # of the threshold curve: what fits on a screen
LABEL_ROWS = 48  # of the table by label; more say little and weigh much


def build(facts: Facts) -> Section | None:
    """The section, where at least one sample has a KL."""
    kl = facts.per_sample("kl_total")
    if kl is None:
        return None
    kl = kl[np.isfinite(kl)]
    blocks: list[Block] = [Paragraph(_text(facts, kl))]
    if len(kl) > 1:
        blocks.append(_histograms(facts, kl))
    groups = by_label(facts)
    if len(groups) > 1:
        blocks.append(_label_figure(facts, groups))
        blocks.append(_label_table(facts, groups))
    curve = _curve(facts)
    if curve is not None:
        blocks.append(curve)
    return Section(
        id="samples",
        nav="Samples",
        question="Which inputs does the model ignore?",
        headline=tie(headline(facts, kl)),
        blocks=tuple(blocks),
    )


def ignored(facts: Facts, kl: Floats) -> tuple[int, int]:
    """How many samples are locally collapsed, of how many evaluated."""
    flags = facts.per_sample("locally_collapsed")
    if flags is not None:
        known = flags[np.isfinite(flags)]
        return int(known.sum()), len(known)
    return int((kl < facts.local_bar).sum()), len(kl)


def headline(facts: Facts, kl: Floats) -> str:
    """Who is ignored, in words."""
    count, total = ignored(facts, kl)
    noun, bar = facts.noun, wording.in_unit(facts.local_bar, "nats")
    if total == 1:
        told = "ignored" if count else "not ignored"
        return f"The only {noun} is {told}: its code carries {figure(float(kl[0]))} nats."
    if count == 0:
        weakest = figure(float(kl.min()), significant=2)
        return f"No {noun} is ignored; the weakest code carries {weakest} nats."
    if count == total:
        return f"Every {noun} is ignored: all {total:,} carry less than {bar}."
    if count <= 12:
        subject = f"{spelled(count, capital=True)} of {total:,} {facts.nouns(2)}"
        return f"{subject} {verb(count, 'is', 'are')} ignored, with less than {bar}."
    share = percent(count / total)
    who = f"{share} of the {facts.nouns(2)} are ignored"
    return f"{who}: {count:,} of {total:,} carry less than {bar}."


def _text(facts: Facts, kl: Floats) -> str:
    bar = wording.in_unit(facts.local_bar, "nats")
    parts = [
        f"{wording.article(facts.noun).capitalize()} is locally collapsed when its whole code "
        f"departs from the prior by less than {bar}: the encoder says nothing about it."
    ]
    if len(kl) > 1:
        told = f"The median {facts.noun} carries {figure(float(np.median(kl)), significant=2)} nats"
        used = facts.per_sample("active_dims")
        if used is not None and facts.d > 1:
            middle = float(np.nanmedian(used))
            told += (
                f" in {tick(round(middle, 1))} of {facts.d:,} dimensions "
                f"(at least {tick(facts.epsilon)} nats in each)"
            )
        parts.append(f"{told}.")
    swap = facts.per_sample("swap_gap")
    if swap is not None:
        known = swap[np.isfinite(swap)]
        below = float((known <= 0).mean())
        number = facts.number("swap_gap")
        unit = f" {wording.unit(number.unit)}" if number is not None and number.unit != "1" else ""
        parts.append(
            f"Decoding another {facts.noun}’s code costs a median of "
            f"{figure(float(np.median(known)), significant=2)}{unit}"
            + (f"; for {percent(below)} it costs nothing." if below > 0 else ".")
        )
    if len(kl) < facts.n:
        parts.append(f"KL is known for {len(kl):,} of {facts.n:,} {facts.nouns(2)}.")
    return sentences(*parts)


# -- histograms --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Histogram:
    edges: Floats
    heights: Floats
    whole: bool


def _histogram(values: Floats, *, whole: bool, top: float) -> _Histogram:
    if whole and top <= 64:
        edges = np.arange(0, int(top) + 2, dtype=np.float64) - 0.5
    else:
        edges = np.linspace(0.0, top if top > 0 else 1.0, 37)
    heights = np.histogram(values, edges)[0].astype(np.float64)
    return _Histogram(edges, heights, whole)


def _histograms(facts: Facts, kl: Floats) -> Figure:
    top = float(kl.max())
    # A long tail would squeeze everything else into the first bar: it is counted, not drawn.
    cut = float(np.quantile(kl, 0.999)) * 1.15
    beyond = int((kl > cut).sum()) if top > 2 * cut else 0
    shown_top = cut if beyond else top
    shown_top = max(shown_top, 1.2 * facts.local_bar)
    by_kl = _histogram(kl, whole=False, top=shown_top)
    used = facts.per_sample("active_dims")
    by_dims = None
    if used is not None and facts.d > 1:
        used = used[np.isfinite(used)]
        by_dims = _histogram(used, whole=True, top=float(facts.d))
    count, total = ignored(facts, kl)
    median = float(np.median(kl))
    many = facts.nouns(2)

    def paint(canvas: Canvas) -> None:
        if by_dims is None:
            _paint_kl(canvas, 0, 0, canvas.width, canvas.height)
        elif canvas.narrow:
            _paint_kl(canvas, 0, 0, canvas.width, 236)
            _paint_dims(canvas, 0, 256, canvas.width, 236)
        else:
            _paint_kl(canvas, 0, 0, 384, canvas.height)
            _paint_dims(canvas, 416, 0, 384, canvas.height)

    def frame(
        canvas: Canvas, left: float, top: float, width: float, height: float
    ) -> tuple[float, float, float, float]:
        return (
            left + 44,
            top + 26,
            canvas.width - left - width + 14,
            canvas.height - top - height + 44,
        )

    def _paint_kl(canvas: Canvas, left: float, top: float, width: float, height: float) -> None:
        canvas.heading(f"{many.capitalize()}, by KL", top=top + 13, left=left)
        axes = canvas.axes(*frame(canvas, left, top, width, height))
        peak = float(by_kl.heights.max())
        axes.set_xlim(0, shown_top * 1.01)
        axes.set_ylim(0, 1.42 * peak)
        axes.axvspan(
            0, min(facts.local_bar, shown_top), color=canvas.colour.c2, alpha=0.2, linewidth=0
        )
        canvas.bars(axes, by_kl.edges, by_kl.heights)
        row = 1.36 * peak
        inside = facts.local_bar > 0.4 * shown_top
        at = 0.0 if inside else facts.local_bar
        canvas.words(axes, at, row, f"ignored: {count:,}", dx=6, va="top", colour="fail")
        axes.plot(
            [median, median],
            [0, 1.14 * peak],
            color=canvas.colour.ink,
            linewidth=1.0,
        )
        right = median < 0.62 * shown_top
        canvas.words(
            axes,
            median,
            1.13 * peak,
            f"median {figure(median, significant=2)}",
            dx=5 if right else -5,
            va="top",
            ha="left" if right else "right",
        )
        canvas.ticks(axes, "y", whole_ticks(peak, 3))
        canvas.ticks(axes, "x", round_ticks(shown_top, 5))
        canvas.label_x(axes, f"KL of one {facts.noun}, nats")

    def _paint_dims(canvas: Canvas, left: float, top: float, width: float, height: float) -> None:
        assert by_dims is not None
        canvas.heading(f"{many.capitalize()}, by dimensions in use", top=top + 13, left=left)
        axes = canvas.axes(*frame(canvas, left, top, width, height))
        peak = float(by_dims.heights.max())
        axes.set_xlim(by_dims.edges[0], by_dims.edges[-1])
        axes.set_ylim(0, 1.42 * peak)
        canvas.bars(axes, by_dims.edges, by_dims.heights)
        if by_dims.whole and by_dims.heights[0]:
            none = f"none in use: {int(by_dims.heights[0]):,}"
            canvas.words(axes, by_dims.edges[0], 1.36 * peak, none, dx=4, va="top", colour="fail")
        canvas.ticks(axes, "y", whole_ticks(peak, 3))
        canvas.ticks(axes, "x", _dimension_ticks(facts.d))
        canvas.label_x(axes, f"dimensions in use, of {facts.d:,}")

    caption = (
        f"Shaded: below {wording.in_unit(facts.local_bar, 'nats')}, locally collapsed. "
        f"{total:,} {facts.nouns(total)}."
    )
    if beyond:
        caption += (
            f" {spelled(beyond, capital=True)} {plural(beyond, facts.noun)} beyond the axis, "
            f"up to {figure(top)} nats."
        )
    return Figure(
        Drawing(
            "samples",
            f"Histograms of {many} by KL and by dimensions in use; {count:,} of {total:,} ignored",
            paint,
            240,
            236 if by_dims is None else 492,
        ),
        result=_spread(facts, kl),
        caption=caption,
    )


def _dimension_ticks(d: int) -> list[float]:
    if d <= 8:
        return [float(k) for k in range(d + 1)]
    if d % 4 == 0:
        return [d * k / 4 for k in range(5)]
    return [t for t in whole_ticks(d, 4) if t < d * 0.93] + [float(d)]


def _spread(facts: Facts, kl: Floats) -> str:
    low, high = (figure(float(q), significant=2) for q in np.quantile(kl, [0.05, 0.95]))
    if len(kl) < 20:
        low, high = (figure(float(q), significant=2) for q in (kl.min(), kl.max()))
        return f"{facts.nouns(2).capitalize()} carry {low} to {high} nats." if low != high else ""
    if low == high:
        return f"All {facts.nouns(2)} carry about {low} nats."
    return f"Nine in ten {facts.nouns(2)} carry {low} to {high} nats."


# -- by label ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """Samples of one label: count, share ignored, quantiles 5, 25, 50, 75, 95 % of their KL."""

    label: str
    count: int
    ignored: float
    quantiles: tuple[float, float, float, float, float]


def by_label(facts: Facts) -> list[Group]:
    """Groups by label, weakest median first; empty without labels."""
    labels, kl = facts.labels, facts.per_sample("kl_total")
    if labels is None or kl is None:
        return []
    flags = facts.per_sample("locally_collapsed")
    collapsed = flags if flags is not None else (kl < facts.local_bar).astype(np.float64)
    groups = []
    for label in sorted(set(labels)):
        rows = (labels == label) & np.isfinite(kl)
        if not label or not rows.any():
            continue
        quantiles = np.quantile(kl[rows], [0.05, 0.25, 0.5, 0.75, 0.95])
        share = float(np.nanmean(collapsed[rows])) if np.isfinite(collapsed[rows]).any() else 0.0
        q5, q25, q50, q75, q95 = (float(q) for q in quantiles)
        groups.append(Group(label, int(rows.sum()), share, (q5, q25, q50, q75, q95)))
    return sorted(groups, key=lambda g: (g.quantiles[2], g.label))


def _shown(groups: list[Group]) -> list[Group]:
    if len(groups) <= MOST_LABELS:
        return groups
    half = MOST_LABELS // 2
    return groups[:half] + groups[-half:]


def _label_figure(facts: Facts, groups: list[Group]) -> Figure:
    shown = _shown(groups)
    anyone = any(group.ignored > 0 for group in groups)
    high = max(group.quantiles[4] for group in shown)
    row = 22

    def paint(canvas: Canvas) -> None:
        limit = 11 if canvas.narrow else 16
        names = [wording.middle(group.label, limit) for group in shown]
        left = min(26 + 7.4 * max(map(len, names)), 132)
        right = 72 if anyone else 10
        canvas.heading("KL by label: median, middle half, 5 to 95 %", top=13)
        axes = canvas.axes(left, 24, right, 44, grid="x")
        y = np.arange(len(shown), dtype=np.float64)
        spread = np.array([group.quantiles for group in shown])
        axes.set_xlim(0, high * 1.04 if high > 0 else 1.0)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        canvas.strokes(
            axes, y, spread[:, 0], spread[:, 4], colour="c3", width=1.0, alpha=1, horizontal=True
        )
        canvas.strokes(axes, y, spread[:, 1], spread[:, 3], colour="c1", width=6, horizontal=True)
        canvas.dots(axes, spread[:, 2], y, colour="c1", size=7)
        canvas.ticks(axes, "y", y, names)
        canvas.ticks(axes, "x", round_ticks(high, 4 if canvas.narrow else 6))
        canvas.label_x(axes, f"KL of one {facts.noun}, nats")
        if anyone:
            edge = axes.get_xlim()[1]
            canvas.words(axes, edge, -0.6, "ignored", dx=66, dy=6, ha="right", colour="muted")
            for at, group in enumerate(shown):
                told = percent(group.ignored)
                colour = "fail" if group.ignored > 0 else "muted"
                canvas.words(axes, edge, at, told, dx=66, ha="right", va="center", colour=colour)

    height = 24 + 44 + row * len(shown)
    weakest, strongest = groups[0], groups[-1]
    result = (
        f"{_capital(facts.named(strongest.label))} gets the most nats (median "
        f"{figure(strongest.quantiles[2], significant=2)}), "
        f"{facts.named(weakest.label)} the fewest ({figure(weakest.quantiles[2], significant=2)})."
    )
    worst = max(groups, key=lambda group: group.ignored)
    if anyone:
        result += f" Most often ignored: {facts.named(worst.label)}, {percent(worst.ignored)}."
    caption = ""
    if len(shown) < len(groups):
        caption = (
            f"Showing {len(shown)} of {len(groups):,} labels: the weakest and the strongest "
            f"{len(shown) // 2}."
        )
    return Figure(
        Drawing("labels", f"KL by label. {result}", paint, height, height),
        result=result,
        caption=caption,
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _label_table(facts: Facts, groups: list[Group]) -> Fold:
    # Sorted by their median: where there are many, those at both ends.
    half = LABEL_ROWS // 2
    shown = groups if len(groups) <= LABEL_ROWS else [*groups[:half], *groups[-half:]]
    rows = [
        (
            group.label,
            f"{group.count:,}",
            percent(group.ignored),
            *(figure(q) for q in group.quantiles),
        )
        for group in shown
    ]
    ends = f" The {half} weakest and the {half} strongest." if len(shown) < len(groups) else ""
    columns = (
        "Label",
        facts.nouns(2).capitalize(),
        "Ignored",
        "5 %",
        "25 %",
        "Median",
        "75 %",
        "95 %",
    )
    table = Table(
        "KL by label, nats",
        tuple(Column(name, numeric=at > 0) for at, name in enumerate(columns)),
        rows,
        note=f"{wording.showing(len(shown), len(groups), 'label')}{ends}",
        tight=True,
    )
    return Fold("Data: KL by label", (table,))


# -- the threshold's own sensitivity -----------------------------------------------------------


def _curve(facts: Facts) -> Fold | None:
    frame = facts.table("local_collapse_curve", "threshold", "share")
    if frame is None:
        return None
    bounded = {"low", "high"} <= set(frame.columns)
    rows = []
    keep = np.unique(np.linspace(0, len(frame) - 1, CURVE_ROWS).round().astype(int))
    for row in frame.iloc[keep].to_dict("records"):
        threshold, share = float(row["threshold"]), float(row["share"])
        if not (math.isfinite(threshold) and math.isfinite(share)):
            continue
        ends = ""
        if bounded and math.isfinite(float(row["low"])) and math.isfinite(float(row["high"])):
            ends = f"{percent(float(row['low']))} to {percent(float(row['high']))}"
        rows.append((figure(threshold), percent(share), ends))
    if not rows:
        return None
    table = Table(
        "Share of samples below a threshold",
        (Column("Below, nats"), Column(f"Share of {facts.nouns(2)}"), Column("95 % interval")),
        rows,
        note=wording.showing(len(keep), len(frame), "threshold"),
        tight=True,
    )
    return Fold("Data: does the threshold decide? Share ignored at every threshold", (table,))
