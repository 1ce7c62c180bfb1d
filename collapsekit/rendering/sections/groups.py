"""Which group of latents is collapsed: the groups of a hierarchical model, one a row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from collapsekit.findings import VERDICTS, Finding, Severity
from collapsekit.number import Number
from collapsekit.rendering import wording
from collapsekit.rendering.blocks import (
    Column,
    Drawing,
    Figure,
    KeyItem,
    Note,
    Paragraph,
    Section,
    Table,
)
from collapsekit.rendering.facts import Facts, Floats
from collapsekit.rendering.ticks import round_ticks
from collapsekit.rendering.wording import UNKNOWN, counted, listing, quantity, tie, verb

if TYPE_CHECKING:
    from collapsekit.rendering.canvas import Canvas

MOST = 40  # groups shown
COLUMNS = (
    "Group",
    "Verdict",
    "Dimensions",
    "Active",
    "Read",
    "KL, nats",
    "Information, nats",
    "Worst finding",
)
_ROW = 34
_SOUND = ("healthy", "inconclusive")


@dataclass(frozen=True)
class Group:
    """One group as it is told: its name, its verdict's word, and its numbers."""

    name: str
    facts: Facts

    @property
    def verdict(self) -> str:
        """The verdict's word."""
        return self.facts.audit.verdict.name

    @property
    def rate(self) -> Number | None:
        """KL against the prior given the groups above, mean over samples."""
        return self.facts.number("rate")

    @property
    def information(self) -> Number | None:
        """The bracket of what its codes tell."""
        return self.facts.number("mutual_information")

    @property
    def worst(self) -> Finding | None:
        """The most severe finding, where one is worse than OK."""
        first = next(iter(self.facts.findings()), None)
        return None if first is None or first.severity is Severity.OK else first

    def cells(self) -> tuple[str, ...]:
        """The group's row under `COLUMNS`."""
        worst = self.worst
        told = (
            "none"
            if worst is None
            else f"{wording.SEVERITY[worst.severity]}: {wording.clean(worst.code, 12)} "
            f"{wording.clean(worst.title, 36)}"
        )
        return (
            self.name,
            wording.STATE.get(self.verdict, wording.clean(self.verdict, 40)),
            f"{self.facts.d:,}",
            _count(self.facts.number("active_units")),
            _count(self.facts.number("used_dimensions")),
            _with_ends(self.rate),
            "" if self.information is None else _bracket(self.information),
            told,
        )


def load(facts: Facts) -> list[Group]:
    """The groups from the top down; none where the model has one code."""
    return [
        Group(wording.clean(name, 40) or "(empty)", Facts(audit))
        for name, audit in facts.audit.groups.items()
    ]


def deciding(facts: Facts) -> Group | None:
    """The first group whose verdict is the whole model's, where that is not healthy."""
    word = facts.audit.verdict.name
    if word == "healthy":
        return None
    return next((group for group in load(facts) if group.verdict == word), None)


def shown(facts: Facts) -> tuple[list[Group], str]:
    """The groups that a table has room for, from the top down, and which those are."""
    groups = load(facts)
    if len(groups) <= MOST:
        return groups, ""
    worst = sorted(range(len(groups)), key=lambda at: _badness(groups[at]))[:MOST]
    told = f"{wording.showing(MOST, len(groups), 'group')} Those with the worst verdicts."
    return [groups[at] for at in sorted(worst)], told


def build(facts: Facts) -> Section | None:
    """The section, where the model has groups."""
    groups, note = shown(facts)
    if not groups:
        return None
    blocks: list[Paragraph | Figure | Table | Note] = [Paragraph(_text(facts))]
    picture = _figure(groups, note)
    if picture is not None:
        blocks.append(picture)
    blocks.append(
        Table(
            "Groups of latents, from the top down",
            tuple(Column(name, numeric=2 <= at <= 6) for at, name in enumerate(COLUMNS)),
            [group.cells() for group in groups],
            note=note,
            tight=True,
        )
    )
    blocks.append(
        Note(
            "Each group has a whole report of its own: audit.groups[name].to_html(). In the "
            "sections below, dimensions are numbered through from the top group down."
        )
    )
    return Section(
        id="groups",
        nav="Groups",
        question="Which group of latents is collapsed?",
        headline=tie(headline(facts)),
        blocks=tuple(blocks),
    )


def headline(facts: Facts) -> str:
    """Who is healthy and who is not, by name."""
    groups = load(facts)
    bad = [group for group in groups if group.verdict not in _SOUND]
    open_ = [group for group in groups if group.verdict == "inconclusive"]
    undecided = (
        f" {_names(open_)} {verb(len(open_), 'is', 'are')} not decided." if open_ and bad else ""
    )
    if not bad and not open_:
        return f"{wording.some_of(len(groups), len(groups), 'group')} {_be(len(groups))} healthy."
    if not bad:
        return f"No group is known to be collapsed; {_names(open_)} {_be(len(open_))} not decided."
    if len({group.verdict for group in bad}) == 1:
        state = wording.STATE.get(bad[0].verdict, bad[0].verdict)
        state = state[:1].lower() + state[1:]
        some = wording.some_of(len(bad), len(groups), "group")
        return f"{some}: {state}, {_names(bad)}.{undecided}"
    each = [f"{group.name} {group.verdict}" for group in bad[:4]]
    more = [] if len(bad) <= 4 else [f"{len(bad) - 4:,} more"]
    some = wording.some_of(len(bad), len(groups), "group")
    have = verb(len(bad), "has", "have")
    return f"{some} {have} a problem: {listing([*each, *more])}.{undecided}"


def _badness(group: Group) -> int:
    word = group.verdict
    return VERDICTS.index(word) if word in VERDICTS else len(VERDICTS)


def _names(groups: list[Group]) -> str:
    return listing([group.name for group in groups], limit=4)


def _be(n: int) -> str:
    return verb(n, "is", "are")


def _text(facts: Facts) -> str:
    groups = load(facts)
    total = facts.number("rate")
    spent = f" Together they spend {quantity(total)} per {facts.noun}." if total else ""
    return (
        f"The model has {counted(len(groups), 'group')} of latents; each was audited by itself, "
        "with the codes of the groups above it and the noise of those below held at the "
        f"{facts.noun}’s own draws.{spent} KL is against the prior given the groups above. "
        "Information is what a group’s codes tell about the input and the groups above together: "
        "below the top group it may exceed the KL."
    )


def _count(number: Number | None) -> str:
    return UNKNOWN if number is None else wording.value(number)[0]


def _with_ends(number: Number | None) -> str:
    if number is None:
        return UNKNOWN
    text, ends = wording.value(number)[0], wording.interval(number)
    return f"{text} ({ends})" if ends and not text.startswith("<") else text


def _bracket(number: Number) -> str:
    if abs(number.high) < 1e-6:  # of a sum of thousands of exponentials, rounding is left
        return wording.figure(0.0)
    return wording.interval(number) or wording.value(number)[0]


def _figure(groups: list[Group], note: str) -> Figure | None:
    rates, ends = _columns([group.rate for group in groups])
    told, bracket = _columns([group.information for group in groups])
    if not np.isfinite(rates).any():
        return None
    known = np.concatenate([rates, ends.ravel(), told, bracket.ravel()])
    high = float(np.nanmax(known[np.isfinite(known)], initial=0.0))
    informed = bool(np.isfinite(told).any())
    strongest = int(np.nanargmax(np.where(np.isfinite(rates), rates, -math.inf)))
    weakest = int(np.nanargmin(np.where(np.isfinite(rates), rates, math.inf)))
    result = (
        f"{groups[strongest].name} spends most, {_quantity(groups[strongest].rate)}; "
        f"{groups[weakest].name} least, {_quantity(groups[weakest].rate)}."
        if strongest != weakest
        else f"{groups[strongest].name} spends {_quantity(groups[strongest].rate)}."
    )

    def paint(canvas: Canvas) -> None:
        limit = 11 if canvas.narrow else 18
        names = [wording.middle(group.name, limit) for group in groups]
        canvas.heading("KL of a group, and what its codes tell", ", from the top down", top=13)
        axes = canvas.axes(min(26 + 7.4 * max(map(len, names)), 150), 24, 14, 44, grid="x")
        y = np.arange(len(groups), dtype=np.float64)
        axes.set_xlim(0, high * 1.04 if high > 0 else 1.0)
        axes.set_ylim(len(groups) - 0.4, -0.6)
        lift = 0.17 if informed else 0.0
        if informed:
            low, top = np.maximum(bracket[:, 0], 0.0), bracket[:, 1]
            canvas.strokes(axes, y + lift, low, top, colour="c2", width=6, horizontal=True)
        canvas.strokes(axes, y - lift, ends[:, 0], ends[:, 1], colour="c1", horizontal=True)
        seen = np.isfinite(rates)
        canvas.dots(axes, rates[seen], y[seen] - lift, colour="c1", size=7)
        canvas.ticks(axes, "y", y, names)
        canvas.ticks(axes, "x", round_ticks(high, 4 if canvas.narrow else 6))
        canvas.label_x(axes, "nats")

    height = 24 + 44 + _ROW * len(groups)
    key = [KeyItem("dot-c1", "KL, with its interval")]
    if informed:
        key.append(KeyItem("box-c2", "information, between its bounds"))
    return Figure(
        Drawing("groups", f"KL and information by group. {result}", paint, height, height),
        result=result,
        caption=note,
        key=tuple(key),
    )


def _columns(numbers: list[Number | None]) -> tuple[Floats, Floats]:
    """Values, and both ends of their intervals; NaN where nothing is known."""
    rows = [(n.value, n.low, n.high) if n is not None else (math.nan,) * 3 for n in numbers]
    table = np.array(rows, dtype=np.float64)
    table[~np.isfinite(table)] = math.nan
    return table[:, 0], table[:, 1:]


def _quantity(number: Number | None) -> str:
    return UNKNOWN if number is None else quantity(number)
