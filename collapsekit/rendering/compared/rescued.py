"""Which inputs were rescued: the same samples under the first run and the last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from collapsekit.comparison import INCOMPARABLE
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
from collapsekit.rendering.compared.runs import Compared
from collapsekit.rendering.facts import Floats, natural
from collapsekit.rendering.rasters import alpha_layer
from collapsekit.rendering.ticks import round_ticks, whole_ticks
from collapsekit.rendering.wording import (
    clean,
    figure,
    percent,
    showing,
    spelled,
    tie,
    verb,
)

if TYPE_CHECKING:
    from collapsekit.rendering.canvas import Canvas

BINS = 150
FEW = 1_000  # up to here every sample is a point; beyond, a density
BLUE = (0, 114, 178)


@dataclass(frozen=True)
class _Score:
    """A per-sample number under both runs."""

    name: str
    unit: str
    first: Floats
    other: Floats
    lower_is_better: bool


def build(compared: Compared) -> Section | None:
    """The section, where both runs scored the same samples."""
    score = _choose(compared)
    if score is None:
        return None
    flags = compared.comparison.pairs(compared.last.key, "locally_collapsed")
    blocks: list[Block] = [Paragraph(_text(compared, score))]
    if len(score.first) > 1:
        blocks.append(_figure(compared, score))
    table = _by_label(compared)
    if table is not None:
        blocks.append(Fold("Data: ignored before and after, by label", (table,)))
    return Section(
        id="samples",
        nav="Samples",
        question="Which inputs were rescued?",
        headline=tie(_headline(compared, score, flags)),
        blocks=tuple(blocks),
    )


def _choose(compared: Compared) -> _Score | None:
    """KL where anyone was ignored, else the reconstruction error where its unit is the same."""
    comparison, key = compared.comparison, compared.last.key
    kl = comparison.pairs(key, "kl_total")
    flags = comparison.pairs(key, "locally_collapsed")
    anyone = flags is not None and bool(flags.to_numpy().any())
    error = comparison.pairs(key, "reconstruction_error")
    change = comparison.changes.get(("reconstruction_error", key))
    same_unit = change is not None and change.word != INCOMPARABLE
    if error is not None and same_unit and not anyone:
        number = comparison.number(key, "reconstruction_error")
        unit = number.unit if number is not None else ""
        return _Score("reconstruction error", unit, *_arrays(error), lower_is_better=True)
    if kl is not None:
        return _Score("KL", "nats", *_arrays(kl), lower_is_better=False)
    return None


def _arrays(pairs: pd.DataFrame) -> tuple[Floats, Floats]:
    return pairs["first"].to_numpy(), pairs["other"].to_numpy()


def _headline(compared: Compared, score: _Score, flags: pd.DataFrame | None) -> str:
    many = compared.first.facts.nouns(2)
    if flags is not None:
        before, after = (flags[side].to_numpy() > 0.5 for side in ("first", "other"))
        ignored, rescued = int(before.sum()), int((before & ~after).sum())
        lost = int((~before & after).sum())
        if ignored or lost:
            count = spelled(lost) if lost else "none"
            new = f"{count} {verb(max(lost, 1), 'is', 'are')} newly ignored"
            if not ignored:
                return f"No {compared.noun} was ignored before; {new}."
            if rescued == ignored:
                who = f"All {ignored:,} ignored {many} are" if ignored > 1 else "The one ignored is"
            else:
                who = f"{rescued:,} of {ignored:,} ignored {many} are"
            return f"{who} rescued; {new}."
    better = score.other < score.first if score.lower_is_better else score.other > score.first
    share = float(better.mean())
    told = "reconstructed better" if score.lower_is_better else "given more nats"
    if share == 1:
        return f"Every {compared.noun} is {told}."
    if share == 0:
        return f"No {compared.noun} is {told}."
    return f"{percent(share)} of the {many} are {told}."


def _text(compared: Compared, score: _Score) -> str:
    n = len(score.first)
    median = float(np.median(score.other - score.first))
    direction = "falls" if median < 0 else "rises"
    unit = "" if score.unit in ("", "1") else f" {clean(score.unit, 30)}"
    return (
        f"The same {n:,} {compared.first.facts.nouns(n)} under {compared.first.name} and "
        f"{compared.last.name}: the median {score.name} {direction} by "
        f"{figure(abs(median), significant=2)}{unit}."
    )


def _figure(compared: Compared, score: _Score) -> Figure:
    difference = score.other - score.first
    both = np.concatenate([score.first, score.other])
    low, high = (float(q) for q in np.quantile(both, [0.002, 0.998]))
    if not high > low:
        low, high = low - 0.5, high + 0.5
    if score.name == "KL":
        low = min(0.0, low)
    inside = (
        (score.first >= low) & (score.first <= high) & (score.other >= low) & (score.other <= high)
    )
    pixels = _density(score.first[inside], score.other[inside], low, high)
    least, most = (float(q) for q in np.quantile(difference, [0.002, 0.998]))
    ends = [min(least, 0.0), max(most, 0.0)]
    if ends[0] == ends[1]:
        ends = [-1.0, 1.0]
    # Zero lies on an edge of the bars, so that no bar holds gains and losses at once.
    step = (ends[1] - ends[0]) / 40
    edges = np.arange(np.floor(ends[0] / step), np.ceil(ends[1] / step) + 1) * step
    heights = np.histogram(difference, edges)[0].astype(np.float64)
    better = difference < 0 if score.lower_is_better else difference > 0
    share = float(better.mean())
    a, b = clean(compared.first.name, 22), clean(compared.last.name, 22)
    outside = int((~inside).sum())

    def paint(canvas: Canvas) -> None:
        if canvas.narrow:
            _scatter(canvas, 0, 0, 342, 342)
            _change(canvas, 0, 366, 342, 236)
        else:
            _scatter(canvas, 0, 0, 376, 340)
            _change(canvas, 424, 0, 376, 340)

    def _scatter(canvas: Canvas, left: float, top: float, width: float, height: float) -> None:
        canvas.heading(f"{b}: {score.name}", top=top + 13, left=left)
        axes = canvas.axes(
            left + 44,
            top + 26,
            canvas.width - left - width + 6,
            canvas.height - top - height + 46,
        )
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        if len(score.first) > FEW:
            canvas.raster(axes, pixels)
        else:
            canvas.dots(axes, score.first[inside], score.other[inside], colour="c1", size=3.2)
        axes.plot([low, high], [low, high], color=canvas.colour.muted, linewidth=1, dashes=(3, 2.4))
        ticks = round_ticks(high, 4, low)
        canvas.ticks(axes, "x", ticks)
        canvas.ticks(axes, "y", ticks)
        canvas.label_x(axes, f"{a}: {score.name}")

    def _change(canvas: Canvas, left: float, top: float, width: float, height: float) -> None:
        many = compared.first.facts.nouns(2).capitalize()
        canvas.heading(f"{many}, by change", top=top + 13, left=left)
        axes = canvas.axes(
            left + 44,
            top + 26,
            canvas.width - left - width + 6,
            canvas.height - top - height + 46,
        )
        peak = float(heights.max()) or 1.0
        axes.set_xlim(edges[0] - step, edges[-1] + step)
        axes.set_ylim(0, 1.3 * peak)
        middle = (edges[:-1] + edges[1:]) / 2
        good = middle < 0 if score.lower_is_better else middle > 0
        canvas.bars(axes, edges, np.where(good, heights, 0), colour="c1")
        canvas.bars(axes, edges, np.where(good, 0, heights), colour="c3")
        canvas.threshold(axes, x=0.0)
        left_share = share if score.lower_is_better else float((difference < 0).mean())
        right_share = float((difference > 0).mean()) if score.lower_is_better else share
        words = ("better", "worse") if score.lower_is_better else ("less", "more")
        told = f"{percent(left_share)} {words[0]}", f"{percent(right_share)} {words[1]}"
        room = (0 - edges[0]) / (edges[-1] - edges[0])
        if room < 0.3:  # no room left of zero: both stand on its right
            canvas.words(axes, 0, 1.28 * peak, ", ".join(told), dx=6, va="top")
        elif room > 0.7:
            canvas.words(axes, 0, 1.28 * peak, ", ".join(told), dx=-6, ha="right", va="top")
        else:
            canvas.words(axes, 0, 1.28 * peak, told[0], dx=-6, ha="right", va="top")
            canvas.words(axes, 0, 1.28 * peak, told[1], dx=6, va="top")
        canvas.ticks(axes, "y", whole_ticks(peak, 3))
        canvas.ticks(axes, "x", round_ticks(edges[-1], 5, edges[0]))
        canvas.label_x(axes, f"change in {score.name}")

    caption = (
        f"Above the line: higher under {b}. {len(difference):,} samples, matched by their number; "
    )
    caption += "denser is darker." if len(difference) > FEW else "one point each."
    if outside:
        caption += f" {outside:,} lie outside the axes."
    return Figure(
        Drawing(
            "compared-samples",
            f"{score.name} of every sample under {compared.first.name} and {compared.last.name}",
            paint,
            340,
            602,
        ),
        result=_result(difference, compared.first.facts.nouns(2), score.name),
        caption=caption,
    )


def _result(difference: Floats, many: str, score: str) -> str:
    low, high = (figure(float(q), significant=2) for q in np.quantile(difference, [0.05, 0.95]))
    return f"For nine in ten {many} the {score} changes by {low} to {high}."


def _density(x: Floats, y: Floats, low: float, high: float) -> npt.NDArray[np.uint8]:
    """A scatter of any size as one small image."""
    edges = np.linspace(low, high, BINS + 1)
    count = np.histogram2d(y, x, (edges, edges))[0][::-1]
    top = float(count.max())
    strength = np.where(count > 0, 0.3 + 0.7 * np.log1p(count) / np.log1p(max(top, 1.0)), 0.0)
    return alpha_layer(strength, BLUE, levels=10)


def _by_label(compared: Compared) -> Table | None:
    flags = compared.comparison.pairs(compared.last.key, "locally_collapsed")
    labels = compared.first.facts.labels
    if flags is None or labels is None or not flags.to_numpy().any():
        return None
    index = compared.first.facts.audit.some_samples.index
    flags = flags.assign(label=pd.Series(labels, index=index).reindex(flags.index))
    grouped = flags[flags["label"] != ""].groupby("label")
    rows = []
    names = sorted(grouped.groups, key=lambda label: natural(str(label)))
    for name in names[:64]:
        part = grouped.get_group(name)
        rows.append(
            (
                str(name),
                f"{len(part):,}",
                percent(float(part["first"].mean())),
                percent(float(part["other"].mean())),
            )
        )
    return Table(
        "Ignored before and after, by label",
        (
            Column("Label", numeric=False),
            Column(compared.first.facts.nouns(2).capitalize()),
            Column(compared.first.name),
            Column(compared.last.name),
        ),
        rows,
        note=showing(len(rows), len(names), "label"),
        tight=True,
    )
