"""Who is ignored, by example: the weakest, typical and strongest codes with what they decode to."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from collapsekit.rendering import wording
from collapsekit.rendering.blocks import Block, Card, Cards, Column, Note, Paragraph, Section, Table
from collapsekit.rendering.facts import Facts
from collapsekit.rendering.rasters import Pictures, as_pictures, strip_uri, value_range
from collapsekit.rendering.wording import figure, listing, tie

GROUPS = ("weakest", "typical", "strongest")
PER_GROUP = 8


def build(facts: Facts) -> Section | None:
    """The section, where the audit kept examples."""
    table = facts.table("gallery", "position", "sample", "group")
    inputs = facts.array("gallery_inputs")
    if table is None or inputs is None:
        return None
    chosen = {group: _positions(table, group, len(inputs)) for group in GROUPS}
    if not any(chosen.values()):
        return None
    decoded = facts.array("gallery_reconstructions")
    empty = facts.array("gallery_empty")
    pictures = as_pictures(inputs)
    blocks: list[Block]
    if pictures is not None:
        blocks = _cards(facts, chosen, pictures, _like(decoded, pictures), _single(empty, pictures))
    else:
        blocks = _tables(facts, chosen, inputs, decoded, empty)
    return Section(
        id="gallery",
        nav="Gallery",
        question="What do weak and strong codes look like?",
        headline=tie(_headline(facts, chosen)),
        blocks=tuple(blocks),
    )


def _positions(table: pd.DataFrame, group: str, most: int) -> list[tuple[int, int]]:
    """Pairs (row of the arrays, sample number) of one group."""
    rows = table[table["group"].astype(str) == group]
    pairs = [
        (int(position), int(sample))
        for position, sample in zip(rows["position"], rows["sample"], strict=True)
    ]
    return [pair for pair in pairs if 0 <= pair[0] < most][:PER_GROUP]


def _headline(facts: Facts, chosen: dict[str, list[tuple[int, int]]]) -> str:
    values = {
        group: [facts.sample_value(sample, "kl_total") for _, sample in pairs]
        for group, pairs in chosen.items()
    }
    weak = [v for v in values["weakest"] if math.isfinite(v)]
    strong = [v for v in values["strongest"] if math.isfinite(v)]
    if weak and strong and max(strong) > min(weak):
        low, high = (figure(v, significant=2) for v in (min(weak), max(strong)))
        if low == high:
            return f"Weak or strong, all codes carry {low} nats."
        return f"The weakest codes carry {low} nats, the strongest {high}."
    return f"A few {facts.nouns(2)} and what becomes of them."


def _like(array: np.ndarray | None, pictures: Pictures) -> Pictures | None:
    other = as_pictures(array) if array is not None else None
    return other if other is not None and other.shape == pictures.shape else None


def _single(array: np.ndarray | None, pictures: Pictures) -> Pictures | None:
    if array is None:
        return None
    for candidate in (array[None], array):
        found = as_pictures(candidate)
        if found is not None and found.shape[1:] == pictures.shape[1:]:
            single: Pictures = found[0]
            return single
    return None


def _cards(
    facts: Facts,
    chosen: dict[str, list[tuple[int, int]]],
    inputs: Pictures,
    decoded: Pictures | None,
    empty: Pictures | None,
) -> list[Block]:
    limits = value_range(inputs)
    parts = ["the input"]
    if decoded is not None:
        parts.append("its reconstruction")
    if empty is not None:
        parts.append("what the decoder draws without a code (the prior’s mean)")
    blocks: list[Block] = [Paragraph(f"Each card, left to right: {listing(parts)}.")]
    for group in GROUPS:
        cards = []
        for position, sample in chosen[group]:
            strip = [inputs[position]]
            strip += [decoded[position]] if decoded is not None else []
            strip += [empty] if empty is not None else []
            uri, width, height = strip_uri(np.stack(strip), limits)
            lines = _lines(facts, sample)
            alt = f"{listing(parts)} of sample {sample}".capitalize()
            cards.append(Card(uri, alt, lines, width, height))
        if cards:
            blocks.append(Cards(f"{group.capitalize()} codes", tuple(cards)))
    shown = sum(len(pairs) for pairs in chosen.values())
    note = f"{wording.showing(shown, facts.n, facts.noun)} KL in nats."
    if facts.per_sample("swap_gap") is not None:
        note += (
            " Swap gap: how much worse the reconstruction gets when the code comes from another "
            f"{facts.noun}; 0 means that the decoder ignores the code."
        )
    blocks.append(Note(note))
    return blocks


def _lines(facts: Facts, sample: int) -> tuple[str, ...]:
    label = facts.label_of(sample) or f"#{sample:,}"
    kl, swap = facts.sample_value(sample, "kl_total"), facts.sample_value(sample, "swap_gap")
    first = label
    if math.isfinite(kl):
        first += f" · KL {figure(kl, significant=2)}"
    lines = [first]
    if math.isfinite(swap):
        lines.append(f"swap gap {figure(swap, significant=2)}")
    return tuple(lines)


def _tables(
    facts: Facts,
    chosen: dict[str, list[tuple[int, int]]],
    inputs: np.ndarray,
    decoded: np.ndarray | None,
    empty: np.ndarray | None,
) -> list[Block]:
    """Vectors have no picture: where a sample stands out most, and what becomes of it."""
    flat = np.nan_to_num(inputs.reshape(len(inputs), -1).astype(np.float64))
    back = decoded.reshape(len(decoded), -1).astype(np.float64) if decoded is not None else None
    if back is not None and back.shape != flat.shape:
        back = None
    base = empty.astype(np.float64).ravel() if empty is not None else None
    if base is not None and base.shape != flat.shape[1:]:
        base = None
    reference = base if base is not None else flat.mean(axis=0)
    # All entries with the same decimals: three digits of the largest.
    largest = float(np.abs(flat).max()) or 1.0
    decimals = min(max(2 - math.floor(math.log10(largest)), 0), 6)

    def told(value: float) -> str:
        return f"{value:,.{decimals}f}".replace("-", wording.MINUS) if math.isfinite(value) else ""

    against = "what the decoder gives without a code" if base is not None else "the examples’ mean"
    blocks: list[Block] = [
        Paragraph(
            f"For each sample, the entries in which it differs most from {against}, and what its "
            "reconstruction makes of them."
            if back is not None
            else f"For each sample, the entries in which it differs most from {against}."
        )
    ]
    columns = [
        Column("Sample", numeric=False),
        Column("KL, nats"),
        Column("Entry"),
        Column("Input"),
    ]
    columns += [Column("Reconstruction")] if back is not None else []
    columns += [Column("No code")] if base is not None else []
    for group in GROUPS:
        rows: list[tuple[str, ...]] = []
        for position, sample in chosen[group][:3]:
            away = np.nan_to_num(np.abs(flat[position] - reference))
            for rank, entry in enumerate(np.argsort(-away, kind="stable")[:3]):
                name = facts.label_of(sample)
                first = f"#{sample:,} {name}".strip() if rank == 0 else ""
                kl = figure(facts.sample_value(sample, "kl_total")) if rank == 0 else ""
                row = [first, kl, f"{int(entry):,}", told(flat[position, entry])]
                row += [told(back[position, entry])] if back is not None else []
                row += [told(base[entry])] if base is not None else []
                rows.append(tuple(row))
        if rows:
            blocks.append(
                Table(
                    f"{group.capitalize()} codes",
                    tuple(columns),
                    rows,
                    tight=True,
                    hide_caption=False,
                )
            )
    return blocks
