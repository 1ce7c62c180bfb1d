"""What is the rate spent on: information about the input, overlap, mismatch with the prior."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from collapsekit.number import Number
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
from collapsekit.rendering.facts import Facts
from collapsekit.rendering.ticks import round_ticks
from collapsekit.rendering.wording import figure, percent, quantity, sentences, tie

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from collapsekit.rendering.canvas import Canvas

_PARTS = {
    "information": "information about the input",
    "mutual_information": "information about the input",
    "total_correlation": "overlap between dimensions",
    "dimensionwise_kl": "mismatch with the prior",
    "KL(aggregate || prior)": "mismatch of whole codes with the prior",
    "rate": "rate",
}


@dataclass(frozen=True)
class Budget:
    """The rate and its parts, nats; `low` and `high` bracket the information."""

    rate: float
    information: float
    low: float
    high: float
    mismatch: float | None
    resolved: bool
    ceiling: float

    @property
    def overlap(self) -> float:
        """What is left for total correlation at the information's point value."""
        return max(self.rate - (self.mismatch or 0.0) - self.information, 0.0)


def build(facts: Facts) -> Section | None:
    """The section, where the information was estimated."""
    number = facts.number("mutual_information")
    if number is None:
        return None
    budget = read(facts, number)
    blocks: list[Block] = [Paragraph(_text(facts, number, budget))]
    if budget is not None and budget.rate > 0:
        blocks.append(figure_of(facts, budget))
    blocks.append(Fold("Data: the estimates and their intervals", (_table(facts),)))
    return Section(
        id="information",
        nav="Information",
        question="What is the rate spent on?",
        headline=tie(_headline(number, budget)),
        blocks=tuple(blocks),
    )


def read(facts: Facts, number: Number) -> Budget | None:
    """The budget, where the rate is known beside the information."""
    rate = facts.number("rate")
    if rate is None or not math.isfinite(rate.value):
        return None
    total = max(rate.value, 0.0)
    low = number.low if math.isfinite(number.low) else number.value
    high = number.high if math.isfinite(number.high) else total  # open above
    low, high = max(low, 0.0), min(max(high, 0.0), max(total, number.value))
    mismatch = facts.number("dimensionwise_kl")
    samples = number.n if number.n > 1 else facts.n
    ceiling = math.log(samples) if samples > 1 else 0.0
    saturated = low > 0.9 * ceiling > 0 or "saturat" in number.note
    wide = high - low > 0.2 * total and high - low > 0.1
    return Budget(
        rate=total,
        information=min(max(number.value, 0.0), total),
        low=min(low, total),
        high=min(high, total),
        mismatch=None if mismatch is None else min(max(mismatch.value, 0.0), total),
        resolved=not (saturated or wide),
        ceiling=ceiling,
    )


def _headline(number: Number, budget: Budget | None) -> str:
    if number.low < 0.1 and not math.isfinite(number.high):
        return f"{number.n:,} samples do not show how much information the code holds."
    top = number.high if math.isfinite(number.high) else number.value
    if top < 0.1:
        text = "The code holds no information about the input"
        at_most = f": at most {figure(top, significant=2)} nats."
        if budget is not None and budget.rate >= 0.1:
            return f"None of the {figure(budget.rate)} nats is information about the input."
        return text + at_most
    if budget is None or budget.rate <= 0:
        return f"The code holds {_between(number)} about the input."
    if not budget.resolved:
        if budget.high >= 0.97 * budget.rate:
            least = figure(budget.low, significant=2)
            return (
                f"At least {least} of {figure(budget.rate)} nats are information; N is too small "
                "to tell more."
            )
        ends = f"{figure(budget.low, significant=2)} and {figure(budget.high, significant=2)}"
        whole = f"{figure(budget.rate)} nats"
        return f"Between {ends} of {whole} are information; N is too small to tell more."
    share = budget.information / budget.rate
    if share > 0.995:
        return f"Of {figure(budget.rate)} nats, practically all is information about the input."
    return f"Of {figure(budget.rate)} nats, {percent(share)} is information about the input."


def _between(number: Number) -> str:
    ends = wording.interval(number)
    return f"{ends} nats" if ends else quantity(number)


def _text(facts: Facts, number: Number, budget: Budget | None) -> str:
    parts = [
        "The rate splits into information about the input, overlap between dimensions that say the "
        "same thing (total correlation), and mismatch of each dimension with the prior."
    ]
    if math.isfinite(number.low) and math.isfinite(number.high):
        parts.append("The bracket holds the information between a lower and an upper bound.")
    if budget is not None and not budget.resolved:
        samples = number.n if number.n > 1 else facts.n
        parts.append(
            f"With {samples:,} {facts.nouns(samples)} no estimate can certify more than ln N = "
            f"{figure(budget.ceiling)} nats; the hatched part may be information or overlap, and "
            "the report does not choose."
        )
    model = facts.number("model_information")
    if model is not None:
        parts.append(
            "Seen from the decoder alone, the true posterior of a sample is "
            f"{figure(model.value, significant=2)} nats or more away from the prior."
        )
    again = facts.number("reidentification")
    if again is not None:
        parts.append(
            f"A code leads back to its own {facts.noun} with probability {_probability(again)}."
        )
    return sentences(*parts)


def _probability(number: Number) -> str:
    return quantity(number) if number.unit == "share" else figure(number.value)


def figure_of(facts: Facts, budget: Budget) -> Figure:
    """The budget as one stacked bar with the information's bracket below it."""
    mismatch = budget.mismatch or 0.0
    rest = max(budget.rate - mismatch, 0.0)
    if budget.resolved:
        information = min(budget.information, rest)
        spans = [(0.0, information, "c1"), (information, rest, "c4"), (rest, budget.rate, "c5")]
        unsure: tuple[float, float] | None = None
    else:
        low, high = min(budget.low, rest), min(budget.high, rest)
        spans = [(0.0, low, "c1"), (high, rest, "c4"), (rest, budget.rate, "c5")]
        unsure = (low, high)

    def paint(canvas: Canvas) -> None:
        axes = canvas.axes(4, 4, 22, 84, grid="none", drop=32)
        axes.set_xlim(0, budget.rate * 1.02)
        axes.set_ylim(0, 1)
        for left, right, colour in spans:
            if right > left:
                axes.axvspan(left, right, color=getattr(canvas.colour, colour), linewidth=0)
        if unsure is not None and unsure[1] > unsure[0]:
            axes.axvspan(*unsure, color=canvas.colour.stripes, linewidth=0)
        for at in {left for left, right, _ in spans if right > left and left > 0}:
            axes.plot([at, at], [0, 1], color=canvas.colour.bg, linewidth=1.5)
        _bracket(canvas, axes, budget)
        canvas.ticks(axes, "y", [])
        canvas.ticks(axes, "x", round_ticks(budget.rate, 5 if canvas.narrow else 8))
        canvas.label_x(axes, "nats")

    key: list[KeyItem] = []
    if unsure is None:
        key.append(KeyItem("box-c1", f"information about the input {_short(spans[0][1])}"))
        overlap = spans[1][1] - spans[1][0]
        name = (
            "overlap between dimensions" if budget.mismatch is not None else "overlap and mismatch"
        )
        key.append(KeyItem("box-c4", f"{name} {_short(overlap)}"))
    else:
        key.append(KeyItem("box-c1", f"information, at least {_short(spans[0][1])}"))
        key.append(KeyItem("box-stripes", f"one or the other {_short(unsure[1] - unsure[0])}"))
        key.append(KeyItem("box-c4", f"overlap, at least {_short(spans[1][1] - spans[1][0])}"))
    if budget.mismatch is not None:
        key.append(KeyItem("box-c5", f"mismatch with the prior {_short(mismatch)}"))
    return Figure(
        Drawing(
            "information",
            "The rate as a stacked bar: " + "; ".join(item.text for item in key),
            paint,
            128,
            128,
        ),
        result=_result(budget),
        key=tuple(key),
    )


def _result(budget: Budget) -> str:
    low, high = (figure(end, significant=3) for end in (budget.low, min(budget.high, budget.rate)))
    least = "" if budget.resolved else "; its true value may lie anywhere between"
    if low == high:
        return f"{low} of {figure(budget.rate)} nats are information about the input."
    return f"Between {low} and {high} of {figure(budget.rate)} nats are information{least}."


def _short(nats: float) -> str:
    return figure(nats, 1 if nats >= 9.95 else 2)


def _bracket(canvas: Canvas, axes: Axes, budget: Budget) -> None:
    if not budget.high > budget.low:
        return
    y = -0.34
    ink = canvas.colour.ink
    axes.plot([budget.low, budget.high], [y, y], color=ink, linewidth=1.3, clip_on=False)
    for end in (budget.low, budget.high):
        axes.plot([end, end], [y - 0.1, y + 0.1], color=ink, linewidth=1.3, clip_on=False)
    text = f"I between {figure(budget.low)} and {figure(budget.high)}"
    to_left = budget.low > 0.55 * budget.rate
    at = budget.low if to_left else budget.high
    room = (budget.rate - budget.high) / budget.rate * (canvas.width - 14)
    if not to_left and room < 190:  # a bracket over the whole bar: its name goes inside, above
        return
    canvas.words(
        axes, at, y, text, dx=-8 if to_left else 8, va="center", ha="right" if to_left else "left"
    )


def _table(facts: Facts) -> Table:
    rows: list[tuple[str, ...]] = []
    seen: set[str] = set()
    for name in (
        "rate",
        "mutual_information",
        "total_correlation",
        "dimensionwise_kl",
        "aggregate_mismatch",
    ):
        number = facts.number(name)
        if number is None:
            continue
        seen.add(name)
        rows.append(
            (
                facts.title(name),
                wording.value(number)[0],
                wording.interval(number),
                wording.clean(number.note, 120),
            )
        )
    frame = facts.table("information_budget", "part", "value")
    if frame is not None:
        for record in frame.head(12).to_dict("records"):
            part = str(record["part"])
            if part in seen or (part == "information" and "mutual_information" in seen):
                continue
            value = _cell(record.get("value"))
            low, high = _cell(record.get("low")), _cell(record.get("high"))
            ends = f"{figure(low)} to {figure(high)}" if math.isfinite(low + high) else ""
            rows.append((_PARTS.get(part, wording.clean(part, 60)), figure(value), ends, ""))
    return Table(
        "Estimates, nats",
        (
            Column("Part", numeric=False),
            Column("Nats"),
            Column("Interval or bracket"),
            Column("What the interval is", numeric=False),
        ),
        rows,
        tight=True,
    )


def _cell(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan
