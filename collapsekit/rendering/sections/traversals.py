"""What does one dimension do: the decoder's output as it moves across the prior."""

from __future__ import annotations

import math

import numpy as np

from collapsekit.rendering import wording
from collapsekit.rendering.blocks import (
    Block,
    Card,
    Cards,
    Column,
    Note,
    Paragraph,
    Section,
    Table,
)
from collapsekit.rendering.facts import Facts, Floats
from collapsekit.rendering.rasters import as_pictures, strip_uri, value_range
from collapsekit.rendering.wording import figure, listing, tie, verb

#: Share of the largest movement from which a dimension is said to move the output.
MOVES = 0.05


def build(facts: Facts) -> Section | None:
    """The section, where the audit kept traversals."""
    table = facts.table("traversals", "position", "dimension")
    array = facts.array("traversals")
    if table is None or array is None or array.ndim < 3:
        return None
    chosen = [
        (int(position), int(dimension))
        for position, dimension in zip(table["position"], table["dimension"], strict=True)
        if 0 <= int(position) < len(array)
    ][:16]
    if not chosen:
        return None
    rows = array[[position for position, _ in chosen]].astype(np.float64)
    moved = _movement(rows)
    dimensions = [dimension for _, dimension in chosen]
    steps = rows.shape[1]
    pictures = as_pictures(rows.reshape(-1, *rows.shape[2:]))
    blocks: list[Block] = [Paragraph(_text(facts, dimensions))]
    if pictures is not None:
        # Black and white as in the data: an output a hair outside would turn all blacks grey.
        inputs = facts.array("gallery_inputs")
        known = as_pictures(inputs) if inputs is not None else None
        limits = value_range(known if known is not None else pictures)
        cards = []
        for at, dimension in enumerate(dimensions):
            strip = pictures[at * steps : (at + 1) * steps]
            uri, width, height = strip_uri(strip, limits, largest=32)
            alt = f"Output as dimension {dimension} moves, in {steps} steps"
            cards.append(Card(uri, alt, (_line(facts, dimension),), width, height))
        blocks.append(Cards("", tuple(cards), columns=2))
    else:
        blocks.append(_table(facts, dimensions, rows))
    note = wording.showing(len(dimensions), facts.d, "dimension")
    if note:
        blocks.append(Note(f"{note[:-1]}: those of highest and of lowest KL."))
    return Section(
        id="traversals",
        nav="Traversals",
        question="What does one dimension do?",
        headline=tie(_headline(moved)),
        blocks=tuple(blocks),
    )


def _movement(rows: Floats) -> Floats:
    """Root mean square distance of each row's outputs from their own mean."""
    flat = np.nan_to_num(rows.reshape(*rows.shape[:2], -1))
    return np.asarray(np.sqrt(((flat - flat.mean(axis=1, keepdims=True)) ** 2).mean(axis=(1, 2))))


def _headline(moved: Floats) -> str:
    top = float(moved.max())
    if top <= 0:
        return "No dimension moves the output."
    n, total = int((moved >= MOVES * top).sum()), len(moved)
    if total == 1:
        return "The one dimension moves the output."
    if n == total:
        return f"All {wording.spelled(total)} dimensions shown move the output."
    rest = total - n
    return (
        f"{wording.spelled(n, capital=True)} of the {wording.spelled(total)} dimensions shown "
        f"{verb(n, 'moves', 'move')} the output; {wording.spelled(rest)} hardly "
        f"{verb(rest, 'does', 'do')}."
    )


def _text(facts: Facts, dimensions: list[int]) -> str:
    frame = facts.table("traversal_steps", "shift")
    ends = ""
    if frame is not None:
        shifts = frame["shift"].to_numpy(dtype=np.float64)
        low, high = float(shifts.min()), float(shifts.max())
        if math.isfinite(low) and math.isfinite(high):
            span = f"{figure(low, significant=2)} to {figure(high, significant=2)}"
            ends = f" from {span} standard deviations"
    which = "its one dimension" if len(dimensions) == 1 else "one dimension at a time"
    return f"The decoder’s output at the prior’s mean, with {which} moved{ends} of the prior."


def _line(facts: Facts, dimension: int) -> str:
    parts = [f"dimension {dimension}"]
    rows = np.flatnonzero(facts.index == dimension)
    if len(rows):
        for name, label in (("kl", "KL"), ("mean_variance", "writes")):
            column = facts.per_dimension(name)
            if column is not None and math.isfinite(column[rows[0]]):
                parts.append(f"{label} {figure(float(column[rows[0]]), significant=2)}")
        usage = facts.per_dimension("decoder_usage")
        if usage is not None and math.isfinite(usage[rows[0]]):
            parts.append(f"reads {wording.percent(float(usage[rows[0]]))}")
    return " · ".join(parts)


def _table(facts: Facts, dimensions: list[int], rows: Floats) -> Table:
    """For outputs that are no pictures: the entries that move most, at both ends and between."""
    flat = np.nan_to_num(rows.reshape(*rows.shape[:2], -1))
    largest = float(np.abs(flat).max()) or 1.0
    decimals = min(max(2 - math.floor(math.log10(largest)), 0), 6)
    cells: list[tuple[str, ...]] = []
    for at, dimension in enumerate(dimensions):
        reach = np.ptp(flat[at], axis=0)
        order = np.argsort(-reach, kind="stable")[:2]
        for rank, entry in enumerate(order):
            ends = (flat[at, k, entry] for k in (0, flat.shape[1] // 2, -1))
            cells.append(
                (
                    str(dimension) if rank == 0 else "",
                    f"{int(entry):,}",
                    *(f"{value:,.{decimals}f}".replace("-", wording.MINUS) for value in ends),
                )
            )
    names = listing(["lowest", "middle", "highest"]).replace(" and ", ", ").split(", ")
    return Table(
        "Entries that a dimension moves most",
        (
            Column("Dimension", numeric=False),
            Column("Entry"),
            *(Column(f"Output at the {name} step") for name in names),
        ),
        cells,
        tight=True,
    )
