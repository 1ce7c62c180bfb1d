"""Codes without axes of their own: which directions carry KL, and which the decoder reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from collapsekit.rendering import wording
from collapsekit.rendering.blocks import (
    Block,
    Column,
    Drawing,
    Figure,
    Fold,
    KeyItem,
    Note,
    Paragraph,
    Section,
    Table,
)
from collapsekit.rendering.facts import Facts, Floats
from collapsekit.rendering.sections.verdict import carriers
from collapsekit.rendering.ticks import rank_ticks, thinned
from collapsekit.rendering.wording import (
    UNKNOWN,
    clean,
    counted,
    figure,
    listing,
    percent,
    some_of,
    spelled,
    tick,
    tie,
    verb,
)

if TYPE_CHECKING:
    from collapsekit.rendering.canvas import Canvas

ROWS = 64
DOTS_UP_TO = 256  # beyond, a line by rank
#: Colour, marker, whether hollow, swatch of the key.
_MARKS = {
    "active": ("c1", "o", False, "dot-c1"),
    "mixed": ("c2", "D", False, "diamond-c2"),
    "passive": ("c3", "o", True, "ring-c3"),
    "read": ("c1", "o", False, "dot-c1"),
    "not read": ("c3", "o", True, "ring-c3"),
}
_STATES = ("active", "mixed", "passive")


def build(facts: Facts) -> Section | None:
    """The section, where the code's directions or those of its decoder were measured."""
    writes = facts.table("directions", "direction", "state", "kl", "kl_low", "kl_high")
    reads = facts.table("read_directions", "direction", "usage", "usage_low", "usage_high")
    if writes is None and reads is None:
        return None
    blocks: list[Block] = [Paragraph(_text(facts, writes))]
    if writes is not None:
        blocks += [_written(facts, writes), _fold("Data: KL by direction", _kl_table(writes))]
    if reads is not None:
        blocks += [_read(facts, reads), _fold("Data: what is read", _usage_table(facts, reads))]
    if writes is not None and reads is not None:
        blocks.append(
            Note(
                "Two bases of one space: a direction of the encoder and one of the decoder that "
                "have the same rank are not the same direction."
            )
        )
    return Section(
        id="directions",
        nav="Directions",
        question="Which directions of the code are written, and which are read?",
        headline=tie(headline(facts, writes, reads)),
        blocks=tuple(blocks),
    )


def headline(facts: Facts, writes: pd.DataFrame | None, reads: pd.DataFrame | None) -> str:
    """Who equals the prior, and who is read."""
    parts = []
    if writes is not None:
        idle, d = int((writes["state"] == "passive").sum()), len(writes)
        equal = "equals" if idle < 2 else "equal"
        who = some_of(idle, d, "direction")
        parts.append(
            "The one direction is in use" if d == 1 and not idle else f"{who} {equal} the prior"
        )
    if reads is not None:
        read, m = int(_is_read(facts, reads).sum()), len(reads)
        of = "" if m == facts.d else f" of the {m:,} measured"
        which = f"all {read:,}" if read == m and not of else f"{read:,}" if read else "none"
        parts.append(f"the decoder reads {('it' if read else 'nothing') if m == 1 else which + of}")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _text(facts: Facts, writes: pd.DataFrame | None) -> str:
    parts = [
        "The posteriors have full covariance, so the code has no axes of its own: rotate it, and "
        "the decoder’s input with it, and the model is the same, while every count of dimensions "
        "may change. Directions turn with the code, and so do their counts."
    ]
    if writes is None:
        return parts[0]
    epsilon, delta = _bars(facts)
    meaning = {
        "active": f"active for nearly every {facts.noun}",
        "mixed": "mixed",
        "passive": f"passive (below {tick(epsilon)} nats for all but {percent(delta)} of the "
        f"{facts.nouns(2)})",
    }
    count = {name: int((writes["state"] == name).sum()) for name in meaning}
    told = [
        f"{spelled(n)} {verb(n, 'is', 'are')} {meaning[name]}" for name, n in count.items() if n
    ]
    parts.append(f"Of {counted(len(writes), 'direction')}, {listing(told)}.")
    number = facts.number("passive_directions")
    if number is not None and (ends := wording.interval(number)) and number.low < number.high:
        parts.append(f"Passive ones: {ends} at {percent(0.95)}.")
    if count["mixed"] and "local" in writes:
        n = int(writes["local"].sum())
        wide = f"wide for some {facts.nouns(2)} and narrow for others"
        parts.append(
            f"Of the mixed, {spelled(n)} {verb(n, 'is', 'are')} local: {wide}."
            if n
            else f"None of the mixed is local ({wide}): they are weak everywhere."
        )
    information = facts.number("mutual_information")
    if information is not None and (ends := wording.interval(information)):
        parts.append(
            f"All directions together carry {ends} nats about the input; that does not split over "
            "them, their KL does."
        )
    return " ".join(parts)


def _bars(facts: Facts) -> tuple[float, float]:
    return (
        facts.setting("directions.epsilon", default=facts.epsilon),
        facts.setting("directions.delta", default=facts.delta),
    )


def _rows(facts: Facts, headline: str, noun: str) -> str:
    """How many samples or draws a table was measured on."""
    number = facts.number(headline)
    return "" if number is None else f"n = {number.n:,} {wording.plural(number.n, noun)}"


# -- what is written ---------------------------------------------------------------------------


def _written(facts: Facts, table: pd.DataFrame) -> Figure:
    kl, low, high = (_cells(table, name) for name in ("kl", "kl_low", "kl_high"))
    epsilon, _ = _bars(facts)
    total, (count, share) = float(np.nansum(kl)), carriers(kl)
    n = _rows(facts, "passive_directions", facts.noun)
    result = f"Together {figure(total)} nats"
    if count:
        who = counted(count, "direction", capital=True)
        result = f"{who} {verb(count, 'carries', 'carry')} {percent(share)} of {figure(total)} nats"
    ends = _span(float(low[0]), float(high[0]), figure)
    result += f"; the first {figure(float(kl[0]))} ({ends}; {n})." if n else "."
    states = table["state"].to_numpy()
    return _ranked(
        Plot("kl-by-direction", "Mean KL along a direction, nats", "by falling KL"),
        (kl, low, high),
        {name: states == name for name in _STATES},
        (epsilon, f"ε = {tick(epsilon)}"),
        tie(result),
        f"{facts.nouns(2)}. Directions are those along which posteriors "
        "differ most from the prior; the KL adds up over them.",
    )


def _kl_table(table: pd.DataFrame) -> Table:
    more: dict[str, Callable[[float], str]] = {
        "share_below_epsilon": percent,
        "mean_variance": figure,
        "width": figure,
    }
    kl, low, high = (_cells(table, name) for name in ("kl", "kl_low", "kl_high"))
    told = [(_cells(table, name), write) for name, write in more.items() if name in table]
    rows = [
        (
            clean(table["direction"].iloc[k], 12),
            clean(table["state"].iloc[k], 12),
            figure(kl[k]),
            _span(low[k], high[k], figure),
            *(write(cells[k]) for cells, write in told),
        )
        for k in _shown(len(table))
    ]
    labels = {
        "share_below_epsilon": "At the prior",
        "mean_variance": "Variance of means",
        "width": "of posterior",
    }
    return Table(
        "KL by direction, nats",
        (
            Column("Direction", numeric=False),
            Column("State", numeric=False),
            Column("Mean KL"),
            Column("95 % interval"),
            *(Column(label) for name, label in labels.items() if name in table),
        ),
        rows,
        note=_note(rows, table),
        tight=True,
    )


# -- what is read ------------------------------------------------------------------------------


def _is_read(facts: Facts, table: pd.DataFrame) -> np.ndarray:
    """As the probe counts: a share of the largest usage, or nats between outputs."""
    usage = _cells(table, "usage")
    top = float(np.nanmax(usage, initial=0.0))
    read = (usage >= facts.setting("read_directions.share", default=0.01) * top) & (top > 0)
    if "nats" in table:
        told = facts.setting("read_directions.told", default=0.02)
        read = read | (_cells(table, "nats") >= told)
    found: np.ndarray = read
    return found


def _how_many_read(read: np.ndarray) -> str:
    n, of = int(read.sum()), len(read)
    if of == 1:
        return f"The one direction is {'read' if n else 'not read'}"
    return f"{some_of(n, of, 'direction')} {'is' if n < 2 else 'are'} read"


def _read(facts: Facts, table: pd.DataFrame) -> Figure:
    usage, low, high = (_cells(table, name) for name in ("usage", "usage_low", "usage_high"))
    top = float(np.nanmax(usage, initial=0.0))
    share = facts.setting("read_directions.share", default=0.01)
    read = _is_read(facts, table)
    n = _rows(facts, "unread_directions", "draw")
    k = int(np.nanargmax(usage)) if np.isfinite(usage).any() else 0
    result = "The decoder’s mean output does not move along any direction."
    if top > 0:
        ends = _span(low[k], high[k], percent)
        result = (
            f"{_how_many_read(read)}; the strongest makes {percent(float(usage[k]))} of the "
            f"output’s movement ({ends}{f'; {n}' if n else ''})."
        )
    caption = (
        "draws of the prior. A share is of the movement of the output that a redraw of the whole "
        "code causes, by a redraw along this direction alone. Dashed: "
        f"{percent(share)} of the largest, from which a direction counts as read"
    )
    if "nats" in table:
        told = facts.setting("read_directions.told", default=0.02)
        caption += f", as it does from {tick(told)} nats between the two outputs"
    caption += ". Directions are those of the mean squared slope of the decoder, steepest first."
    if len(table) < facts.d:
        caption += f" {len(table):,} of {facts.d:,} directions: the steepest and the flattest."
    return _ranked(
        Plot("usage-by-direction", "Share of the output’s movement", "by falling slope"),
        (usage, low, high),
        {"read": read, "not read": ~read},
        (share * top, f"{percent(share)} of the largest"),
        tie(result),
        caption,
    )


def _usage_table(facts: Facts, table: pd.DataFrame) -> Table:
    nats = "nats" in table and "nats_low" in table and "nats_high" in table
    read = _is_read(facts, table)
    columns: list[tuple[list[Floats], Callable[[float], str]]] = [
        ([_cells(table, f"{name}{end}") for end in ("", "_low", "_high")], write)
        for name, write in (("usage", percent), ("nats", figure))[: 1 + nats]
    ]
    rows = []
    for k in _shown(len(table)):
        cells = [clean(table["direction"].iloc[k], 12), "yes" if read[k] else "no"]
        for (value, low, high), write in columns:
            cells += [write(value[k]), _span(low[k], high[k], write)]
        rows.append(tuple(cells))
    return Table(
        "What the decoder reads by direction",
        (
            Column("Direction", numeric=False),
            Column("Read", numeric=False),
            Column("Share of movement"),
            Column("95 % interval"),
            *((Column("Nats"), Column("95 % interval")) if nats else ()),
        ),
        rows,
        note=_note(rows, table),
        tight=True,
    )


# -- both --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plot:
    """What a figure of ranked directions shows."""

    name: str
    title: str
    order: str


def _ranked(
    plot: Plot,
    values: tuple[Floats, Floats, Floats],
    groups: dict[str, np.ndarray],
    bar: tuple[float, str],
    result: str,
    caption: str,
) -> Figure:
    """Values with their limits by rank on a logarithmic axis, and a threshold.

    The caption begins with what the intervals are over.
    """
    value, low, high = (np.where(np.isfinite(v), v, values[0]) for v in values)
    size, (at, words) = len(value), bar
    rank = np.arange(1, size + 1, dtype=np.float64)
    positive = value[np.isfinite(value) & (value > 0)]
    top = max([float(np.nanmax(high, initial=0.0)), at, *positive, 1e-9]) * 1.6
    at_least = at if at > 0 else top / 100
    floor = max(min([*positive, at_least]) / 3, at_least / 30)
    value, low, high = (np.nan_to_num(v, nan=floor).clip(floor, top) for v in (value, low, high))
    edge = int((np.nan_to_num(values[0], nan=1.0) < floor).sum())
    few = np.array(thinned(size))
    present = {name: rows for name, rows in groups.items() if rows.any()}

    def paint(canvas: Canvas) -> None:
        canvas.heading(plot.title, ", with its 95 % interval", top=13)
        axes = canvas.axes(56, 26, 14, 46)
        pad = 0.8 if size < 40 else size * 0.02
        axes.set_xlim(1 - pad, size + pad)
        canvas.log_axis(axes, "y", floor, top, most=5)
        if floor < at < top:
            canvas.threshold(axes, y=at)
            # Values fall to the right: on the left there is room above the bar.
            canvas.words(axes, 1 - pad, at, words, dx=4, dy=4, colour="muted")
        if size > DOTS_UP_TO:
            axes.fill_between(
                rank[few],
                low[few],
                high[few],
                color=canvas.colour.c1,
                alpha=0.22,
                linewidth=0,
            )
            axes.plot(rank[few], value[few], color=canvas.colour.c1)
        dense = size > 64 or (canvas.narrow and size > 40)
        for name, rows in present.items() if size <= DOTS_UP_TO else ():
            colour, marker, hollow, _ = _MARKS[name]
            width = 1.4 if dense else 2.5
            canvas.strokes(axes, rank[rows], low[rows], high[rows], colour=colour, width=width)
            canvas.dots(
                axes,
                rank[rows],
                value[rows],
                colour=colour,
                marker=marker,
                hollow=hollow,
                size=3.4 if dense else 6.0,
            )
        canvas.ticks(axes, "x", rank_ticks(size, 4 if canvas.narrow else 5))
        canvas.label_x(axes, f"direction, {plot.order}")

    caption = f"{'Band' if size > DOTS_UP_TO else 'Stroke'}: 95 % interval over {caption}"
    if edge:
        caption += (
            f" {counted(edge, 'direction', capital=True)} below {figure(floor, significant=1)} "
            "drawn at the edge."
        )
    key = (
        tuple(KeyItem(_MARKS[name][3], f"{rows.sum():,} {name}") for name, rows in present.items())
        if size <= DOTS_UP_TO
        else ()
    )
    title = f"{plot.title}: {size:,} directions, {plot.order}. {result}"
    return Figure(Drawing(plot.name, title, paint, 260, 260), result, caption, key)


def _fold(summary: str, table: Table) -> Fold:
    return Fold(summary, (table,))


def _cells(table: pd.DataFrame, name: str) -> Floats:
    """A column without the dust that rounding leaves where a number is 0, or 1."""
    cells: Floats = table[name].to_numpy(dtype=np.float64, na_value=np.nan).round(12)
    return cells


def _shown(size: int) -> list[int]:
    return (
        list(range(size)) if size <= ROWS else [*range(ROWS // 2), *range(size - ROWS // 2, size)]
    )


def _note(rows: list[tuple[str, ...]], table: pd.DataFrame) -> str:
    if len(rows) == len(table):
        return ""
    return f"Showing {len(rows)} of {len(table):,} directions: the first {ROWS // 2} and the last."


def _span(low: float, high: float, write: Callable[[float], str]) -> str:
    """An interval, or a dash where it is not known."""
    if not (np.isfinite(low) and np.isfinite(high)):
        return UNKNOWN
    return f"{write(low)} to {write(high)}"
