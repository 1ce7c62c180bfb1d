"""Does the decoder read what the encoder writes: both sides of every dimension at once."""

from __future__ import annotations

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
from collapsekit.rendering.ticks import thinned
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
    from collapsekit.rendering.canvas import Canvas

ROLES = ("healthy", "entangled", "ignored", "phantom", "dead")
_MARKS = {
    "healthy": ("c1", "o", False),
    "entangled": ("c2", "D", False),
    "ignored": ("c2", "v", False),
    "phantom": ("c5", "^", False),
    "dead": ("c3", "x", False),
}
_SWATCH = {
    "healthy": "dot-c1",
    "entangled": "diamond-c2",
    "ignored": "down-c2",
    "phantom": "up-c5",
    "dead": "cross-c3",
}
_READING = {
    "healthy": "written, read, and recovered by the round trip",
    "entangled": "written and read, but the round trip does not recover it",
    "ignored": "written by the encoder, read by nobody",
    "phantom": "read by the decoder, never written: generation noise",
    "dead": "neither written nor read: prunable",
}
TABLE_ROWS, FOLDED_ROWS = 32, 96


def build(facts: Facts) -> Section | None:
    """The section, where the decoder's use of dimensions is known."""
    usage = facts.per_dimension("decoder_usage")
    if usage is None:
        return None
    writes = facts.per_dimension("mean_variance")
    roles = facts.words("role")
    blocks: list[Block] = [Paragraph(_text(facts, usage))]
    if writes is not None:
        blocks.append(_figure(facts, writes, usage, roles))
    blocks += _tables(facts, writes, usage, roles)
    return Section(
        id="writes-reads",
        nav="Writes and reads",
        question="Does the decoder read what the encoder writes?",
        headline=tie(_headline(facts, usage, roles)),
        blocks=tuple(blocks),
    )


def _headline(facts: Facts, usage: Floats, roles: list[str] | None) -> str:
    known = np.isfinite(usage)
    total = int(known.sum())
    if float(np.nanmax(usage)) <= 0:
        nats = facts.per_dimension("decoder_nats")
        if nats is not None and np.nanmax(nats, initial=0.0) >= 0.02:
            return "The decoder reads the code in the spread of its output: its mean does not move."
        return "The decoder ignores the code: its output does not move."
    if roles is None:
        bar = facts.reads_share * float(np.nanmax(usage))
        n = int((usage[known] >= bar).sum())
        text = wording.some_of(n, total, "dimension")
        return f"{text} {'is' if n == 1 or total == 1 else 'are'} read by the decoder."
    counts = {role: roles.count(role) for role in ROLES}
    read = counts["healthy"] + counts["entangled"] + counts["phantom"]
    if total == 1:
        role = next((role for role in ROLES if counts[role]), "dead")
        return f"The one dimension is {role}: {_READING[role]}."
    if read == 0:
        return f"The decoder reads none of the {total:,} dimensions."
    first = f"The decoder reads {'all ' if read == total else ''}{counted(read, 'dimension')}"
    if counts["ignored"]:
        n = counts["ignored"]
        return f"{first}; {spelled(n)} more {verb(n, 'is', 'are')} written but ignored."
    if counts["phantom"] == read:
        which = (
            "which the encoder never writes" if read == 1 else "none of which the encoder writes"
        )
        return f"{first}, {which}."
    if counts["phantom"]:
        n = counts["phantom"]
        return f"{first}; {spelled(n)} of them {verb(n, 'is', 'are')} never written."
    if counts["entangled"]:
        n = counts["entangled"]
        return f"{first}; {spelled(n)} of them {verb(n, 'does', 'do')} not survive the round trip."
    if counts["dead"]:
        n = counts["dead"]
        return f"{first} and every one that is written; {spelled(n)} {verb(n, 'is', 'are')} dead."
    return f"{first}, and recovers every one."


def _text(facts: Facts, usage: Floats) -> str:
    active = facts.active_bar
    text = (
        f"A dimension can fail on either side. Writes: the variance of the posterior mean over the "
        f"data (active above {tick(active)}). Reads: the share of the output’s movement that "
        f"a redraw of this dimension alone causes (a Sobol total-effect index; read from "
        f"{percent(facts.reads_share)} of the largest)."
    )
    if facts.per_dimension("decoder_nats") is not None:
        text = text[:-2] + (
            f", or from {tick(facts.reads_nats)} nats between the two output distributions)."
        )
    informative = facts.per_dimension("informative")
    if informative is not None:
        n = int(np.nansum(informative))
        text += (
            f" {counted(n, 'dimension', capital=True)} {verb(max(n, 1), 'is', 'are')} informative: "
            "what it says about the input is missed when it is shuffled."
            if n == 1
            else f" {counted(n, 'dimension', capital=True)} "
            f"{verb(max(n, 1), 'is', 'are')} informative: what they say about the input is missed "
            "when they are shuffled."
        )
    if facts.table("directions") is not None:
        text += " The dimensions are axes here, one basis of many: directions tell what is lost."
    known = int(np.isfinite(usage).sum())
    if known < facts.d:
        text += f" Measured on {known:,} of {facts.d:,} dimensions."
    return text


def _figure(facts: Facts, writes: Floats, usage: Floats, roles: list[str] | None) -> Figure:
    # Nats do not depend on the loudest dimension; the share of the movement is always there.
    nats = facts.per_dimension("decoder_nats")
    reads, y_bar = usage, max(facts.reads_share * float(np.nanmax(usage)), 1e-9)
    unit = ": share of the output’s movement"
    if nats is not None and bool((np.isfinite(nats) >= np.isfinite(usage)).all()):
        reads, y_bar, unit = nats, facts.reads_nats, ": nats between outputs"
    known = np.isfinite(writes) & np.isfinite(reads) & np.isfinite(usage)
    found = [k for k in facts.order if known[k]]
    rows = np.array(found)[thinned(len(found))] if found else np.zeros(0, dtype=np.int64)
    x, y = writes[rows], reads[rows]
    names = [roles[k] for k in rows] if roles is not None else ["healthy"] * len(x)
    x_bar = facts.active_bar

    def limits(values: Floats, bar: float) -> tuple[float, float]:
        positive = values[values > 0]
        low = min(float(positive.min()) if positive.size else bar, bar)
        high = max(float(positive.max()) if positive.size else bar, bar)
        low = max(low, high / 1e7)
        room = (high / low) ** 0.06
        return low / max(room, 1.6), high * max(room, 1.6)

    x_low, x_high = limits(x, x_bar)
    y_low, y_high = limits(y, y_bar)
    # Bands above and below the data hold the quadrants' names, where no mark can cover them.
    band = (y_high / y_low) ** 0.1
    everyone = [roles[k] for k in found] if roles is not None else names
    counts = {role: everyone.count(role) for role in ROLES}
    size = 5.2 if len(x) > 80 else 6.5

    def paint(canvas: Canvas) -> None:
        canvas.heading("What the decoder reads", unit, top=13)
        axes = canvas.axes(60, 24, 8, 46)
        canvas.log_axis(axes, "x", x_low, x_high, most=5 if canvas.narrow else 7)
        canvas.log_axis(axes, "y", y_low / band, y_high * band, most=5)
        canvas.threshold(axes, x=x_bar)
        canvas.threshold(axes, y=y_bar)
        for role in ROLES:
            here = np.array([name == role for name in names])
            if not here.any():
                continue
            colour, marker, hollow = _MARKS[role]
            canvas.dots(
                axes,
                np.clip(x[here], x_low, x_high),
                np.clip(y[here], y_low, y_high),
                colour=colour,
                marker=marker,
                hollow=hollow,
                size=size if marker != "D" else size * 0.9,
            )
        top, bottom = y_high * band, y_low / band
        if roles is not None:
            canvas.words(axes, x_low, top, "phantom", bold=True, dx=4, dy=-4, va="top")
            canvas.words(
                axes,
                x_high,
                top,
                "healthy, entangled",
                bold=True,
                dx=-2,
                dy=-4,
                va="top",
                ha="right",
            )
            canvas.words(axes, x_low, bottom, "dead", bold=True, dx=4, dy=6)
            canvas.words(axes, x_high, bottom, "ignored", bold=True, dx=-2, dy=6, ha="right")
        canvas.label_x(axes, "what the encoder writes: variance of the mean")

    key: tuple[KeyItem, ...] = ()
    if roles is not None:
        key = tuple(
            KeyItem(_SWATCH[role], f"{counts[role]:,} {role}") for role in ROLES if counts[role]
        )
    present = [role for role in ROLES if counts[role]] if roles is not None else []
    caption = " ".join(f"{role.capitalize()}: {_READING[role]}." for role in present)
    caption = f"{caption} {wording.showing(len(rows), len(found), 'dimension')}".strip()
    return Figure(
        Drawing(
            "writes-reads",
            "Scatter of what the encoder writes against what the decoder reads, by dimension: "
            + listing([f"{counts[role]} {role}" for role in present]),
            paint,
            360,
            360,
        ),
        result=_result(writes, usage, x_bar),
        caption=caption,
        key=key,
    )


def _result(writes: Floats, usage: Floats, active: float) -> str:
    known = np.isfinite(usage)
    if not known.any() or float(np.nanmax(usage)) <= 0:
        return "Nothing that is written moves the output."
    first = int(np.nanargmax(usage))
    written = int((writes[known] > active).sum())
    return (
        f"{wording.some_of(written, int(known.sum()), 'dimension')} "
        f"{verb(written, 'is', 'are')} written above {tick(active)}; dimension {first:,} moves "
        f"the output most, by {percent(float(usage[first]))} of its movement."
    )


def _tables(
    facts: Facts, writes: Floats | None, usage: Floats, roles: list[str] | None
) -> list[Block]:
    trips = [
        (label, column)
        for name, label in (
            ("round_trip_r2", "Survives round trip"),
            ("robust_round_trip_r2", "and noise"),
        )
        if (column := facts.per_dimension(name)) is not None
    ]
    top = float(np.nanmax(usage))
    known = np.flatnonzero(np.isfinite(usage))
    order = known[np.argsort(-usage[known], kind="stable")]
    dead = [k for k in order if roles is not None and roles[k] == "dead"]
    alive = [k for k in order if k not in set(dead)]

    def table(rows: list[int], caption: str, *, tight: bool, note: str = "") -> Table:
        columns = [Column("Dimension", numeric=False)]
        columns += [Column("Role", numeric=False)] if roles is not None else []
        columns += [Column("Writes")] if writes is not None else []
        columns += [Column("Reads", bar=not tight)]
        columns += [Column(label) for label, _ in trips]
        cells: list[tuple[object, ...]] = []
        for k in rows:
            row: list[object] = [str(facts.index[k])]
            row += [roles[k] or wording.UNKNOWN] if roles is not None else []
            row += [figure(writes[k])] if writes is not None else []
            told = percent(float(usage[k]))
            row += [told if tight else (told, float(usage[k]) / top if top > 0 else 0.0)]
            row += [
                f"{column[k]:.2f}".replace("-", wording.MINUS)
                if np.isfinite(column[k])
                else wording.UNKNOWN
                for _, column in trips
            ]
            cells.append(tuple(row))
        return Table(caption, tuple(columns), cells, note=note, tight=tight)

    blocks: list[Block] = []
    if alive:
        shown = alive[:TABLE_ROWS]
        note = wording.showing(len(shown), len(alive), "dimension")
        if len(alive) > 12:
            blocks.append(table(shown[:12], "Writes and reads by dimension", tight=False))
            rest = shown[12:] if len(shown) <= TABLE_ROWS else shown
            rest = alive[12 : 12 + FOLDED_ROWS]
            note = wording.showing(12 + len(rest), len(alive), "dimension")
            name = f"The next {counted(len(rest), 'dimension')} by what is read"
            blocks.append(Fold(name, (table(rest, name, tight=True, note=note),)))
        else:
            blocks.append(table(shown, "Writes and reads by dimension", tight=False, note=note))
    if dead:
        rest = dead[:FOLDED_ROWS]
        name = f"The {'other ' if alive else ''}{counted(len(dead), 'dimension')}, dead: prunable"
        note = wording.showing(len(rest), len(dead), "dead dimension")
        blocks.append(Fold(name, (table(rest, name, tight=True, note=note),)))
    return blocks
