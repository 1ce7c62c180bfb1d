"""Do different inputs get different codes, and can a code be read back from what it decodes to."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from collapsekit.rendering import wording
from collapsekit.rendering.blocks import (
    Block,
    Card,
    Cards,
    Column,
    Drawing,
    Figure,
    Fold,
    KeyItem,
    Note,
    Paragraph,
    Section,
    Subheading,
    Table,
)
from collapsekit.rendering.facts import Facts, Floats
from collapsekit.rendering.rasters import as_pictures, strip_uri, value_range
from collapsekit.rendering.sections import local_injectivity
from collapsekit.rendering.ticks import rank_ticks, thinned
from collapsekit.rendering.wording import counted, figure, percent, sentences, some_of, tick, tie

if TYPE_CHECKING:
    from collapsekit.rendering.canvas import Canvas

CARDS = 8
DOTS_UP_TO = 256


def build(facts: Facts) -> Section | None:
    """The section, where collisions or round trips were measured."""
    collisions, trips = _collisions(facts), _round_trip(facts)
    nearby = local_injectivity.encoder_blocks(facts)
    directions = local_injectivity.decoder_blocks(facts)
    if not collisions and not trips and not nearby and not directions:
        return None
    return Section(
        id="injectivity",
        nav="Injectivity",
        question="Do different inputs get different codes, and can a code be read back?",
        headline=tie(_headline(facts)),
        blocks=(*collisions, *nearby, *trips, *directions),
    )


def _headline(facts: Facts) -> str:
    share, kept = facts.number("collision_fraction"), survivors(facts)
    noun = facts.nouns(2)
    first = ""
    if share is not None:
        if share.value == 0:
            first = f"No two unrelated {noun} share a code"
        elif share.value >= 0.995:
            first = f"Nearly every {facts.noun} shares its code with an unrelated one"
        else:
            first = f"{percent(share.value)} of the {noun} share a code with an unrelated one"
    if kept is None:
        return f"{first or 'Codes were compared'}."
    n, total = kept
    second = f"{some_of(n, total, 'dimension', capital=not first)} can be read back"
    if not first:
        return f"{second}."
    return f"{first}; {second}."


def survivors(facts: Facts) -> tuple[int, int] | None:
    """Dimensions that the round trip recovers (robustly where measured), of how many measured."""
    for name in ("robust_round_trip_r2", "round_trip_r2", "round_trip_r2_prior"):
        column = facts.per_dimension(name)
        if column is not None:
            known = column[np.isfinite(column)]
            return int((known >= facts.trip_bar).sum()), len(known)
    return None


# -- collisions --------------------------------------------------------------------------------


def _collisions(facts: Facts) -> list[Block]:
    share = facts.number("collision_fraction")
    table = facts.table("collisions", "sample", "partner")
    if share is None and table is None:
        return []
    overlap = facts.overlap_bar
    noun = facts.nouns(2)
    text = (
        f"A collision is a pair of {noun} whose posteriors overlap by at least {tick(overlap)} "
        f"although the {noun} are no more alike than two picked at random."
    )
    if share is not None:
        ends = wording.interval(share)
        bracket = f" (95 % interval {ends})" if ends else ""
        if share.value == 0:
            text += f" None was found{bracket}."
        else:
            text += f" {wording.quantity(share)} of the {noun} are in one{bracket}."
    blocks: list[Block] = [Paragraph(tie(text)), *local_injectivity.by_compared(facts)]
    if table is None:
        return blocks
    records = table.head(64).to_dict("records")
    pairs = facts.array("collision_inputs")
    cards = _pair_cards(facts, records, pairs) if pairs is not None else None
    if cards is not None:
        blocks.append(cards)
    rows = [
        (
            _named(facts, record["sample"]),
            _named(facts, record["partner"]),
            figure(_number(record.get("overlap"))),
            figure(_number(record.get("distance"))),
        )
        for record in records[:24]
    ]
    data = Table(
        "Worst collisions",
        (
            Column("Sample", numeric=False),
            Column("Partner", numeric=False),
            Column("Overlap"),
            Column("Distance of the inputs"),
        ),
        rows,
        note=wording.showing(len(rows), len(table), "pair"),
        tight=True,
    )
    blocks.append(
        data if cards is None and len(rows) <= 8 else Fold("Data: worst collisions", (data,))
    )
    return blocks


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float | np.number) else math.nan


def _named(facts: Facts, sample: object) -> str:
    number = int(sample)  # type: ignore[call-overload]
    label = facts.label_of(number)
    return f"#{number:,} {label}".strip()


def _pair_cards(
    facts: Facts, records: list[dict[object, object]], pairs: np.ndarray
) -> Cards | None:
    if pairs.ndim < 3 or pairs.shape[1] != 2:
        return None
    count = min(len(pairs), len(records), CARDS)
    pictures = as_pictures(pairs[:count].reshape(2 * count, *pairs.shape[2:]))
    if pictures is None or not count:
        return None
    limits = value_range(pictures)
    cards = []
    for at in range(count):
        record = records[at]
        uri, width, height = strip_uri(pictures[2 * at : 2 * at + 2], limits)
        one, two = (int(record[key]) for key in ("sample", "partner"))  # type: ignore[call-overload]
        names = ", ".join(facts.label_of(k) or f"#{k:,}" for k in (one, two))
        lines = [names]
        overlap, distance = (_number(record.get(key)) for key in ("overlap", "distance"))
        if math.isfinite(overlap):
            lines.append(f"overlap {figure(overlap, significant=2)}")
        if math.isfinite(distance):
            lines.append(f"distance {figure(distance)}")
        cards.append(
            Card(uri, f"Samples {one} and {two}, side by side", tuple(lines), width, height)
        )
    return Cards(
        "Worst collisions: one code, two inputs",
        tuple(cards),
        caption=(
            "Overlap: Bhattacharyya coefficient of the two posteriors (1 = the same). Distance: "
            "between the two inputs."
        ),
    )


# -- round trip --------------------------------------------------------------------------------


def _round_trip(facts: Facts) -> list[Block]:
    clean, robust = (
        facts.per_dimension(name) for name in ("round_trip_r2", "robust_round_trip_r2")
    )
    prior = facts.per_dimension("round_trip_r2_prior")
    first = clean if clean is not None else prior
    if first is None:
        return []
    blocks: list[Block] = [
        Subheading("Round trip: decode a code, encode the result"),
        _trip_figure(facts, first, robust, from_prior=clean is None),
    ]
    told = _trip_text(facts, clean, robust, prior)
    if told:
        blocks.append(Note(told))
    return blocks


def _trip_text(
    facts: Facts, clean: Floats | None, robust: Floats | None, prior: Floats | None
) -> str:
    parts: list[str] = []
    correlation = facts.per_dimension("round_trip_corr2")
    if clean is not None and correlation is not None:
        biased = (correlation >= 0.8) & (clean < 0.5)
        n = int(biased.sum())
        if n:
            parts.append(
                f"{counted(n, 'dimension', capital=True)} "
                f"{wording.verb(n, 'comes', 'come')} back shifted or scaled: correlated with the "
                "code, yet not equal to it (a biased encoder)."
            )
    if prior is not None and clean is not None:
        number = facts.number("round_trip_r2_prior")
        if number is not None:
            parts.append(
                f"From draws of the prior the mean is {figure(number.value, significant=2)}."
            )
    residual = facts.number("lr_residual")
    if residual is not None:
        parts.append(
            f"The latent reconstruction loss of this model, as it stands: {figure(residual.value)} "
            "(squared latent units, summed over dimensions)."
        )
    return sentences(*parts)


def _trip_figure(facts: Facts, clean: Floats, robust: Floats | None, *, from_prior: bool) -> Figure:
    order = np.array([k for k in facts.order if np.isfinite(clean[k])], dtype=np.int64)
    size = len(order)
    y = clean[order].clip(0, 1)
    noisy = robust[order].clip(0, 1) if robust is not None else None
    rank = np.arange(1, size + 1, dtype=np.float64)
    few = np.array(thinned(size))
    bar = facts.trip_bar
    negative = int((clean[order] < 0).sum())
    by_rank = size == facts.d

    def paint(canvas: Canvas) -> None:
        canvas.heading("Share of a code that survives, R²", ", after decoding and encoding", top=13)
        axes = canvas.axes(40, 30, 14, 46)
        pad = 0.8 if size < 40 else size * 0.02
        axes.set_xlim(1 - pad, size + pad)
        axes.set_ylim(-0.04, 1.04)
        canvas.threshold(axes, y=bar)
        dense = size > 64 or (canvas.narrow and size > 40)
        if size <= DOTS_UP_TO:
            if noisy is not None:
                canvas.strokes(axes, rank, noisy, y, colour="muted", width=1.1, alpha=0.9)
            canvas.dots(axes, rank, y, colour="c1", size=3.6 if dense else 6)
            if noisy is not None:
                canvas.dots(axes, rank, noisy, colour="c1", hollow=True, size=3.4 if dense else 5.4)
        else:
            axes.plot(rank[few], y[few], color=canvas.colour.c1, linewidth=1.2)
            if noisy is not None:
                axes.plot(rank[few], noisy[few], color=canvas.colour.c2, linewidth=1.0)
        canvas.ticks(axes, "y", sorted({0.0, bar, 1.0}))
        canvas.ticks(axes, "x", rank_ticks(size, 4 if canvas.narrow else 5))
        canvas.label_x(axes, "dimension, by falling KL")

    result = ""
    if noisy is not None:
        loss = np.nan_to_num(y - noisy)
        worst = float(loss.max(initial=0.0))
        if worst < 0.2:
            result = (
                f"Rounding and noise cost at most {figure(worst, 2)}: the codes are not hidden in "
                "imperceptible changes."
            )
        else:
            n = int((loss >= 0.2).sum())
            result = (
                f"{counted(n, 'dimension', capital=True)} {wording.verb(n, 'loses', 'lose')} 0.2 "
                f"or more to rounding and noise (the worst {figure(worst, 2)}): such codes hide in "
                "changes that nobody sees."
            )
    source = "the prior" if from_prior else "the posteriors"
    caption = f"R² = 1 − E(ẑ − z)² / Var z, for z from {source}."
    if negative:
        caption += f" {counted(negative, 'negative value', capital=True)} drawn at 0."
    if not by_rank:
        caption += f" {wording.showing(size, facts.d, 'dimension')}"
    key = []
    if noisy is not None:
        swatches = ("dot-c1", "ring-c1") if size <= DOTS_UP_TO else ("line-c1", "line-c2")
        key = [
            KeyItem(swatches[0], "straight back into the encoder"),
            KeyItem(swatches[1], "after rounding and noise, the worse"),
        ]
    return Figure(
        Drawing(
            "round-trip",
            f"Round-trip R² of {size:,} dimensions by rank. {result}",
            paint,
            280,
            280,
        ),
        result=result,
        caption=caption,
        key=tuple(key),
    )
