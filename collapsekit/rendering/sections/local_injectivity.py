"""Parts of the injectivity section: how code and output move nearby, and folds far away."""

from __future__ import annotations

import math
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
    Note,
    Subheading,
    Table,
)
from collapsekit.rendering.facts import Facts
from collapsekit.rendering.ticks import rank_ticks
from collapsekit.rendering.wording import figure, percent, quantity, sentences, tie

if TYPE_CHECKING:
    from collapsekit.number import Number
    from collapsekit.rendering.canvas import Canvas

SHOWN = 256
LISTED = 64
FLOOR = 1e-4  # of the largest singular value: below it a direction is drawn at the floor


def by_compared(facts: Facts) -> list[Block]:
    """The share of collisions for fewer samples compared: it grows with their number."""
    table = facts.table("collision_by_compared", "compared", "share", "low", "high")
    if table is None or len(table) < 2:
        return []
    cells = table[["compared", "share", "low", "high"]].to_numpy(dtype=np.float64)
    rows = [
        (f"{compared:,.0f}", percent(share), f"{percent(low)} to {percent(high)}")
        for compared, share, low, high in cells
    ]
    return [
        Fold(
            "Data: share in a collision by samples compared",
            (
                Table(
                    "Collisions by samples compared",
                    (Column("Compared"), Column("In a collision"), Column("95 % interval")),
                    rows,
                    note="The more samples, the more partners: compare audits at one number.",
                    tight=True,
                ),
            ),
        )
    ]


def encoder_blocks(facts: Facts) -> list[Block]:
    """How the code moves between neighbouring inputs."""
    names = (
        "lower_lipschitz",
        "lower_lipschitz_low",
        "folded_fraction",
        "encoder_rank",
        "tangent_rank",
        "rank_drop_fraction",
    )
    numbers = _known(facts, names)
    if not numbers:
        return []
    parts: list[str] = []
    rank, tangent = numbers.get("encoder_rank"), numbers.get("tangent_rank")
    if rank is not None and tangent is not None:
        parts.append(
            f"Around the median {facts.noun} the code moves in {figure(rank.value)} of the "
            f"{figure(tangent.value)} directions in which its neighbours differ."
        )
    share = numbers.get("folded_fraction")
    if share is not None:
        parts.append(
            f"{percent(share.value)} of the {facts.nouns(2)} are folded on a neighbour: the code "
            "hardly moves on the way."
            if share.value
            else f"No {facts.noun} is folded on a neighbour."
        )
    return [
        Subheading("Encoder, nearby: does the code move between neighbouring inputs"),
        _table(facts, "Encoder between neighbours", numbers, tie(sentences(*parts))),
    ]


def decoder_blocks(facts: Facts) -> list[Block]:
    """The spectrum of the decoder's Jacobian, and folds."""
    numbers = _known(
        facts,
        (
            "decoder_rank",
            "decoder_full_rank_fraction",
            "decoder_reciprocal_condition",
            "fold_fraction",
            "fold_fraction_prior",
        ),
    )
    if not numbers:
        return []
    blocks: list[Block] = [
        Subheading("Decoder, nearby and far away: do different codes give different outputs")
    ]
    spectrum = _spectrum(facts, numbers.get("decoder_rank"))
    if spectrum is not None:
        blocks.append(spectrum)
    blocks.append(Fold("Data: the decoder's directions", (_data(facts, numbers), *_values(facts))))
    told = _folds(facts, numbers)
    if told:
        blocks.append(Note(told))
    return blocks


def _known(facts: Facts, names: tuple[str, ...]) -> dict[str, Number]:
    found = {name: facts.number(name) for name in names}
    return {name: number for name, number in found.items() if number is not None}


def _table(facts: Facts, caption: str, numbers: dict[str, Number], note: str = "") -> Table:
    rows = [
        (facts.title(name), quantity(number), wording.interval(number) or "–")
        for name, number in numbers.items()
    ]
    return Table(
        caption,
        (Column("Number", numeric=False), Column("Value"), Column("95 % interval")),
        rows,
        note=note,
        tight=True,
    )


def _data(facts: Facts, numbers: dict[str, Number]) -> Table:
    return _table(facts, "Decoder's directions and folds", numbers, _method(facts))


def _values(facts: Facts) -> list[Table]:
    """The figure's own data."""
    table = facts.table("decoder_spectrum", "direction", "low", "median", "high")
    if table is None:
        return []
    cells = table[["direction", "low", "median", "high"]].to_numpy(dtype=np.float64)
    rows = [(f"{at:,.0f}", *(figure(value) for value in values)) for at, *values in cells[:LISTED]]
    names = ("Direction", "5 % quantile", "Median", "95 % quantile")
    return [
        Table(
            "Singular values of the decoder's Jacobian",
            tuple(Column(name) for name in names),
            rows,
            note=wording.showing(len(rows), len(cells), "direction"),
            tight=True,
        )
    ]


def _method(facts: Facts) -> str:
    if "decoder_rank" not in facts.audit.summary.index:
        return ""
    note = str(facts.audit.summary.loc["decoder_rank", "note"])
    told = note.partition("order statistics; ")[2]
    return f"Jacobian: {wording.clean(told, 160)}." if told else ""


def _folds(facts: Facts, numbers: dict[str, Number]) -> str:
    data, prior = numbers.get("fold_fraction"), numbers.get("fold_fraction_prior")
    worst = max((n for n in (data, prior) if n is not None), key=lambda n: n.value, default=None)
    if worst is None:
        return ""
    if worst.value == 0:
        return (
            "No code was found whose output another code, far away, gives as well. Only folds that "
            "the encoder jumps over are found."
        )
    source = "of the data's codes" if worst is data else "of the draws of the prior"
    return tie(
        f"{percent(worst.value)} {source} have a second code, far away, with the same output: the "
        "decoder folds there, which no Jacobian shows."
    )


def _spectrum(facts: Facts, rank: Number | None) -> Figure | None:
    table = facts.table("decoder_spectrum", "direction", "low", "median", "high")
    if table is None:
        return None
    values = table[["low", "median", "high"]].to_numpy(dtype=np.float64)[:SHOWN]
    top = float(values[0, 1])
    if not math.isfinite(top) or top <= 0:
        return None
    low, middle, high = (values / top).clip(FLOOR, None).T
    size = len(middle)
    at = np.arange(1, size + 1, dtype=np.float64)
    bar = facts.setting("decoder_jacobian.reads", default=0.1)

    def paint(canvas: Canvas) -> None:
        canvas.heading("Effect on the output", ", of the strongest direction = 1", top=13)
        axes = canvas.axes(46, 30, 14, 46)
        pad = 0.8 if size < 40 else size * 0.02
        axes.set_xlim(1 - pad, size + pad)
        least = max(float(low.min()) * 0.7, FLOOR * 0.7)
        canvas.log_axis(axes, "y", min(least, bar * 0.7), float(high.max()) * 1.4)
        canvas.threshold(axes, y=bar)
        canvas.strokes(axes, at, low, high, colour="muted", width=1.1, alpha=0.9)
        canvas.dots(axes, at, middle, colour="c1", size=3.6 if size > 40 else 6)
        canvas.ticks(axes, "x", rank_ticks(size, 4 if canvas.narrow else 5))
        canvas.label_x(axes, "direction of the code, by falling effect")

    result = ""
    if rank is not None:
        result = (
            f"At the median code the decoder reads {figure(rank.value)} of {size:,} directions "
            f"with at least {percent(bar)} of the strongest effect."
        )
    caption = (
        "Singular values of the decoder's Jacobian at codes of the data: median, and strokes from "
        "the 5 % to the 95 % quantile."
    )
    if size < len(table):
        caption += f" {wording.showing(size, len(table), 'direction')}"
    return Figure(
        Drawing(
            "decoder-spectrum",
            f"Singular values of the decoder's Jacobian, {size:,} directions. {result}",
            paint,
            260,
            260,
        ),
        result=result,
        caption=caption,
        key=(KeyItem("dot-c1", "median over codes"),),
    )
