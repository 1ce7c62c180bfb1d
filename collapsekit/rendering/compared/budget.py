"""What does the rate buy: every run's rate as information, overlap and mismatch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collapsekit.rendering.blocks import Drawing, Figure, KeyItem, Paragraph, Section
from collapsekit.rendering.compared.runs import Compared, Named
from collapsekit.rendering.sections.information import Budget, read
from collapsekit.rendering.ticks import round_ticks
from collapsekit.rendering.wording import figure, listing, percent, tie

if TYPE_CHECKING:
    from collapsekit.rendering.canvas import Canvas

ROW = 62


def build(compared: Compared) -> Section | None:
    """The section, where at least two runs know rate and information."""
    budgets: list[tuple[Named, Budget]] = []
    for run in compared.runs:
        number = run.facts.number("mutual_information")
        budget = read(run.facts, number) if number is not None else None
        if budget is not None and budget.rate > 0:
            budgets.append((run, budget))
    if len(budgets) < 2:
        return None
    unsure = [run.name for run, budget in budgets if not budget.resolved]
    text = ""
    if unsure:
        text = (
            f"For {listing(unsure)} the hatched part may be information or overlap: N is too small "
            "to tell, and the report does not choose."
        )
    return Section(
        id="budget",
        nav="Information",
        question="What does the rate buy?",
        headline=tie(_headline([pair for pair in budgets if pair[0] in compared.told])),
        blocks=(*((Paragraph(text),) if text else ()), _figure(budgets)),
    )


def _headline(budgets: list[tuple[Named, Budget]]) -> str:
    told = []
    for run, budget in budgets:
        share = (budget.information if budget.resolved else budget.low) / budget.rate
        least = "" if budget.resolved else "at least "
        told.append(f"{least}{percent(share)} of {figure(budget.rate)} nats for {run.name}")
    return f"Spent on information: {listing(told)}."


def _figure(budgets: list[tuple[Named, Budget]]) -> Figure:
    top = max(budget.rate for _, budget in budgets)

    def paint(canvas: Canvas) -> None:
        height = ROW * len(budgets)
        axes = canvas.axes(4, 4, 22, canvas.height - height - 4, grid="none")
        axes.set_xlim(0, top * 1.02)
        axes.set_ylim(height, 0)
        for at, (run, budget) in enumerate(budgets):
            _bar(canvas, axes, at * ROW, run, budget)
        canvas.ticks(axes, "y", [])
        canvas.ticks(axes, "x", round_ticks(top, 5 if canvas.narrow else 8))
        canvas.label_x(axes, "nats")

    def _bar(canvas: Canvas, axes: object, y: float, run: Named, budget: Budget) -> None:
        from matplotlib.axes import Axes
        from matplotlib.patches import Rectangle

        assert isinstance(axes, Axes)
        mismatch = budget.mismatch or 0.0
        rest = max(budget.rate - mismatch, 0.0)
        low = min(budget.information if budget.resolved else budget.low, rest)
        high = low if budget.resolved else min(budget.high, rest)
        parts = (
            (0.0, low, canvas.colour.c1),
            (low, high, canvas.colour.stripes),
            (high, rest, canvas.colour.c4),
            (rest, budget.rate, canvas.colour.c5),
        )
        canvas.words(axes, 0, y + 14, f"{run.name}, rate {figure(budget.rate)}", bold=True)
        for left, right, colour in parts:
            if right > left:
                axes.add_patch(
                    Rectangle((left, y + 20), right - left, 20, facecolor=colour, linewidth=0)
                )
        axes.plot(
            [budget.low, budget.high],
            [y + 46, y + 46],
            color=canvas.colour.ink,
            linewidth=1.3,
            clip_on=False,
        )
        for end in (budget.low, budget.high):
            axes.plot([end, end], [y + 43, y + 49], color=canvas.colour.ink, linewidth=1.3)

    key = [
        KeyItem("box-c1", "information about the input"),
        KeyItem("box-c4", "overlap between dimensions"),
    ]
    if any(budget.mismatch is not None for _, budget in budgets):
        key.append(KeyItem("box-c5", "mismatch with the prior"))
    if any(not budget.resolved for _, budget in budgets):
        key.append(KeyItem("box-stripes", "one or the other"))
    height = ROW * len(budgets) + 4 + 46
    return Figure(
        Drawing(
            "compared-budget",
            "The rate of every run as a stacked bar",
            paint,
            height,
            height,
        ),
        result=f"Information in nats: {listing([_between(run, b) for run, b in budgets])}.",
        caption="Brackets: the information lies between their ends.",
        key=tuple(key),
    )


def _between(run: Named, budget: Budget) -> str:
    low, high = (figure(end, significant=2) for end in (budget.low, budget.high))
    return f"{run.name} {low}" if low == high else f"{run.name} {low} to {high}"
