"""Is the collapse global, per dimension, or per group: samples by dimensions in one picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from collapsekit.rendering import wording
from collapsekit.rendering.blocks import Drawing, Figure, Section
from collapsekit.rendering.facts import Facts, Floats, natural
from collapsekit.rendering.rasters import alpha_layer
from collapsekit.rendering.theme import NARROW, WIDE
from collapsekit.rendering.ticks import rank_ticks
from collapsekit.rendering.wording import figure, percent, plural, spelled, tick, tie, verb

if TYPE_CHECKING:
    from collapsekit.rendering.canvas import Canvas

MOST_COLUMNS, MOST_ROWS, MOST_GROUPS = 400, 256, 12
BLUE = (0, 114, 178)
ALWAYS, NEVER = 0.95, 0.05


@dataclass(frozen=True)
class _Map:
    """KL [rows: dimensions by rank, columns: samples], with the groups along the columns."""

    values: Floats
    ranks: npt.NDArray[np.int64]
    groups: list[tuple[str, int, int]]  # label, first column, columns
    labels: int


def build(facts: Facts) -> Section | None:
    """The section, where the audit kept per-sample KL by dimension."""
    loaded = _load(facts)
    if loaded is None:
        return None
    chosen, lit, by_group = loaded
    result = _difference({facts.named(name): lit for name, lit in by_group.items()})
    return Section(
        id="map",
        nav="Map",
        question="Is the collapse global, per dimension, or per group?",
        headline=tie(_headline(lit, facts.noun)),
        blocks=(_figure(facts, chosen, result),),
    )


def _load(facts: Facts) -> tuple[_Map, Floats, dict[str, Floats]] | None:
    frame = facts.table("kl_map")
    if frame is None:
        return None
    numbers = {int(j): row for row, j in enumerate(facts.index)}
    columns = [at for at, c in enumerate(frame.columns) if str(c).isdigit() and int(c) in numbers]
    if not columns:
        return None
    place = {int(k): rank for rank, k in enumerate(facts.order)}
    by_rank = np.argsort([place[numbers[int(frame.columns[at])]] for at in columns], kind="stable")
    at = np.array(columns)[by_rank]
    # A latent image has thousands of columns: the whole matrix is read once and never copied.
    matrix = frame.to_numpy(dtype=np.float64, na_value=np.nan)
    lit = _lit(matrix, facts.epsilon)[at]
    if len(at) > MOST_ROWS:
        at = at[np.linspace(0, len(at) - 1, MOST_ROWS).round().astype(int)]
    ranks = np.array([place[numbers[int(frame.columns[k])]] + 1 for k in at], dtype=np.int64)
    values = matrix[:, at]
    known = np.isfinite(values).any(axis=1)
    values, samples = values[known], frame.index.to_numpy()[known]
    if not len(values):
        return None
    labels = _labels_of(facts, samples)
    rows, groups = _arrange(values, labels)
    by_group: dict[str, Floats] = {}
    if labels is not None:
        for name, _, _ in groups:
            by_group[name] = _lit(values[labels == name], facts.epsilon)
    distinct = len(set(labels)) if labels is not None else 0
    return _Map(values[rows].T, ranks, groups, distinct), lit, by_group


def _lit(matrix: Floats, epsilon: float) -> Floats:
    """Share of the samples that use each column; unknown cells count as unused."""
    count = np.zeros(matrix.shape[1])
    for start in range(0, len(matrix), 512):
        count += (matrix[start : start + 512] >= epsilon).sum(axis=0)
    return count / max(len(matrix), 1)


def _labels_of(facts: Facts, samples: np.ndarray) -> npt.NDArray[np.object_] | None:
    labels = facts.labels
    if labels is None:
        return None
    at = facts.audit.some_samples.index.get_indexer(pd.Index(samples))
    if (at < 0).any():
        return None
    found = labels[at]
    return found if len(set(found)) > 1 else None


def _arrange(
    values: Floats, labels: npt.NDArray[np.object_] | None
) -> tuple[npt.NDArray[np.int64], list[tuple[str, int, int]]]:
    """Which samples, in which order: the strongest first within each label."""
    total = np.nansum(values, axis=1)
    names: list[str]
    if labels is None:
        names, per_group = [""], MOST_COLUMNS
    else:
        distinct, sizes = np.unique(labels.astype(str), return_counts=True)
        largest = sorted(zip(-sizes, distinct, strict=True))[:MOST_GROUPS]
        names = sorted((str(name) for _, name in largest), key=natural)
        per_group = max(1, MOST_COLUMNS // len(names))
    order: list[np.ndarray] = []
    groups: list[tuple[str, int, int]] = []
    start = 0
    for name in names:
        rows = np.arange(len(values)) if labels is None else np.flatnonzero(labels == name)
        rows = rows[np.argsort(-total[rows], kind="stable")]
        if len(rows) > per_group:
            rows = rows[np.linspace(0, len(rows) - 1, per_group).round().astype(int)]
        order.append(rows)
        groups.append((name, start, len(rows)))
        start += len(rows)
    return np.concatenate(order).astype(np.int64), groups


def _headline(lit: Floats, noun: str) -> str:
    total = len(lit)
    always, never = int((lit >= ALWAYS).sum()), int((lit <= NEVER).sum())
    between = total - always - never
    if total == 1:
        if always or never:
            return f"The one dimension is {'lit' if always else 'empty'} for nearly every {noun}."
        return f"The one dimension is lit for {percent(float(lit[0]))} of the {noun}s."
    if always == total:
        every = f"All {total:,} dimensions are lit for nearly every {noun}"
        return f"{every}: there is no collapse to see."
    if never == total:
        return (
            f"All {total:,} dimensions stay empty for nearly every {noun}: the collapse is global."
        )
    parts = []
    if always:
        parts.append(f"{spelled(always)} {verb(always, 'is', 'are')} lit for nearly every {noun}")
    if between:
        parts.append(f"{spelled(between)} {verb(between, 'flickers', 'flicker')}")
    if never:
        parts.append(f"{spelled(never)} {verb(never, 'stays', 'stay')} empty")
    first = parts[0]
    number = always or between or never
    first = first.replace(" ", f" {plural(number, 'dimension')} ", 1)
    text = ", ".join([first, *parts[1:]])
    return f"{text[0].upper()}{text[1:]}."


def _difference(by_group: dict[str, Floats]) -> str:
    """The dimension whose use depends most on the label."""
    if len(by_group) < 2:
        return ""
    names = list(by_group)
    shares = np.array([by_group[name] for name in names])
    spread = np.nan_to_num(shares.max(axis=0) - shares.min(axis=0))
    rank = int(spread.argmax())
    if spread[rank] < 0.3:
        return "Every label lights the same dimensions: the collapse is not a matter of groups."
    high, low = int(shares[:, rank].argmax()), int(shares[:, rank].argmin())
    return (
        f"The dimension of rank {rank + 1} is lit for {percent(float(shares[high, rank]))} of "
        f"{names[high]} and {percent(float(shares[low, rank]))} of {names[low]}."
    )


def _figure(facts: Facts, chosen: _Map, result: str) -> Figure:
    rows, columns = chosen.values.shape
    finite = chosen.values[np.isfinite(chosen.values)]
    low = facts.epsilon / 2
    high = max(float(np.quantile(finite, 0.999)) if finite.size else 1.0, 4 * low)
    scale = np.log(np.clip(np.nan_to_num(chosen.values, nan=0.0), low, high) / low) / math.log(
        high / low
    )
    strength = np.where(scale > 0, 0.08 + 0.92 * scale, 0.0)
    pixels, spans = _with_gaps(alpha_layer(strength, BLUE), chosen.groups)
    height = int(min(max(rows * 7, 16 * min(rows, 8), 44), 300))
    named = any(name for name, _, _ in chosen.groups)

    names = [wording.middle(name, 14) for name, _, _ in chosen.groups]

    def upright(width: int) -> bool:
        scale = (width - 42) / pixels.shape[1]
        slots = ((end - start) * scale for start, end in spans)
        return named and any(
            len(name) * 7.0 > slot - 6 for name, slot in zip(names, slots, strict=True)
        )

    def below(width: int) -> int:
        if upright(width):
            return 14 + round(7.4 * max(map(len, names)))
        return 22 if named else 28

    def paint(canvas: Canvas) -> None:
        left, right, top = 40.0, 2.0, 72.0
        bottom = canvas.height - top - height
        canvas.heading("KL of a sample in a dimension, nats", top=13)
        _scale(canvas, low, high)
        axes = canvas.axes(left, top, right, bottom, grid="none")
        axes.spines["bottom"].set_visible(False)
        width = pixels.shape[1]
        axes.set_xlim(0, width)
        axes.set_ylim(rows + 0.5, 0.5)
        canvas.raster(axes, pixels)
        ticks = rank_ticks(rows, 5)
        canvas.ticks(axes, "y", ticks, [f"{chosen.ranks[int(t) - 1]:,}" for t in ticks])
        middle = [(start + end) / 2 for start, end in spans]
        canvas.ticks(
            axes,
            "x",
            middle if named else [],
            names if named else [],
            marks=False,
            upright=upright(canvas.width),
        )
        if not named:
            canvas.label_x(axes, "samples, strongest to weakest")

    noun = facts.nouns(2)
    caption = (
        f"{columns:,} of {facts.n:,} {noun}" if columns < facts.n else f"All {columns:,} {noun}"
    )
    if named:
        caption += ", label by label"
        if chosen.labels > len(chosen.groups):
            caption += f" (the {len(chosen.groups)} largest of {chosen.labels:,})"
    caption += (
        ", each sorted from strongest to weakest."
        if named
        else ", sorted from strongest to weakest."
    )
    caption += " Rows: dimensions by falling KL"
    caption += f", showing {rows:,} of {facts.d:,}, evenly spaced." if rows < facts.d else "."
    caption += " Empty means that the posterior equals the prior."
    return Figure(
        Drawing(
            "kl-map",
            f"Heat map of KL, {columns} samples by {rows} dimensions. {result}",
            paint,
            72 + height + below(WIDE),
            72 + height + below(NARROW),
        ),
        result=result,
        caption=caption,
    )


def _scale(canvas: Canvas, low: float, high: float) -> None:
    """The key of the opacity: a small ramp with three numbers."""
    axes = canvas.axes(0, 24, canvas.width - 150, canvas.height - 34, grid="none")
    axes.set_axis_off()
    ramp = np.linspace(0.0, 1.0, 24)[None, :]
    canvas.raster(axes, alpha_layer(np.where(ramp > 0, 0.08 + 0.92 * ramp, 0.0), BLUE))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    middle = math.sqrt(low * high)
    ends = (
        (0.0, f"≤ {tick(low)}", "left"),
        (0.5, figure(middle, significant=1), "center"),
        (1.0, figure(high, significant=2), "right"),
    )
    for at, text, side in ends:
        canvas.words(axes, at, 0, text, dy=-4, va="top", ha=side, colour="muted")  # type: ignore[arg-type]


def _with_gaps(
    pixels: npt.NDArray[np.uint8], groups: list[tuple[str, int, int]]
) -> tuple[npt.NDArray[np.uint8], list[tuple[int, int]]]:
    """The image with one empty column between labels, and where each label lies in it."""
    # Few samples are widened first: a gap is a hairline, not a column of its own.
    zoom = max(1, -(-200 // pixels.shape[1]))
    parts: list[np.ndarray] = []
    spans: list[tuple[int, int]] = []
    at = 0
    for _, start, size in groups:
        if parts:
            parts.append(np.zeros((len(pixels), 1, 4), dtype=np.uint8))
            at += 1
        parts.append(np.repeat(pixels[:, start : start + size], zoom, axis=1))
        spans.append((at, at + size * zoom))
        at += size * zoom
    return np.concatenate(parts, axis=1), spans
