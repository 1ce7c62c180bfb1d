"""Does it look like a blob: the codes in the plane that shows most of their spread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from collapsekit.rendering import wording
from collapsekit.rendering.blocks import Block, Drawing, Figure, KeyItem, Paragraph, Section
from collapsekit.rendering.facts import Facts, Floats, natural
from collapsekit.rendering.rasters import alpha_layer
from collapsekit.rendering.ticks import round_ticks
from collapsekit.rendering.wording import percent, tie

if TYPE_CHECKING:
    from collapsekit.rendering.canvas import Canvas

BLUE, VERMILION = (0, 114, 178), (213, 94, 0)
PIXELS = 270
MOST_NAMES = 12
#: Share of a plane normal distribution inside two standard deviations.
INSIDE = 0.865


def build(facts: Facts) -> Section | None:
    """The section, where the audit kept the plane and the codes spread in it."""
    frame = facts.table("latent_view", "sample", "x", "y")
    if frame is None or facts.d < 2:
        return None
    points = frame[["x", "y"]].to_numpy(dtype=np.float64, na_value=np.nan)
    keep = np.isfinite(points).all(axis=1)
    points, samples = points[keep], frame["sample"].to_numpy()[keep]
    if len(points) < 3 or float(np.abs(points).max()) <= 0:
        return None
    share = float(frame["share"].iloc[0]) if "share" in frame.columns else float("nan")
    at = facts.audit.some_samples.index.get_indexer(pd.Index(samples))
    ignored = _ignored(facts, at)
    labels = _labels(facts, at)
    blocks: list[Block] = [
        Paragraph(
            "Each point is the mean of one code, centred, in the prior’s standard deviations: a "
            "principal component analysis. Distances in the dimensions left out do not show."
        ),
        _figure(facts, points, ignored, labels),
    ]
    return Section(
        id="latent",
        nav="Latent view",
        question="What do the codes look like together?",
        headline=tie(_headline(points, share)),
        blocks=tuple(blocks),
    )


def _ignored(facts: Facts, at: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    flags = facts.per_sample("locally_collapsed")
    if flags is None:
        return np.zeros(len(at), dtype=bool)
    return np.asarray((flags[at] > 0.5) & (at >= 0))


def _labels(facts: Facts, at: npt.NDArray[np.intp]) -> npt.NDArray[np.object_] | None:
    if facts.labels is None or (at < 0).any():
        return None
    found = facts.labels[at]
    return found if 1 < len(set(found)) <= MOST_NAMES else None


def _headline(points: Floats, share: float) -> str:
    spread = points.std(axis=0)
    told = f"Two axes show {percent(share)} of the codes’ spread" if share == share else "The codes"
    inside = float((np.hypot(points[:, 0], points[:, 1]) < 0.5).mean())
    if inside > 0.95:
        return f"{told}: a point, far narrower than the prior."
    if spread[1] < 0.1 * spread[0]:
        return f"{told}: a line."
    if float(np.hypot(*spread)) > 3:
        return f"{told}: wider than the prior."
    return f"{told}."


def _figure(
    facts: Facts,
    points: Floats,
    ignored: npt.NDArray[np.bool_],
    labels: npt.NDArray[np.object_] | None,
) -> Figure:
    reach = max(2.3, float(np.quantile(np.abs(points), 0.998)) * 1.05)
    layers = [
        _layer(points[~ignored], reach, BLUE),
        _layer(points[ignored], reach, VERMILION) if ignored.any() else None,
    ]
    outside = int((np.abs(points) > reach).any(axis=1).sum())
    names = _names(points, labels, reach) if labels is not None else []

    def paint(canvas: Canvas) -> None:
        side = min(canvas.width, 470) - 50
        canvas.heading("Second principal component", top=13)
        axes = canvas.axes(40, 26, canvas.width - 40 - side, canvas.height - 26 - side, grid="none")
        axes.set_xlim(-reach, reach)
        axes.set_ylim(-reach, reach)
        for layer in layers:
            if layer is not None:
                canvas.raster(axes, layer, smooth=True)
        turn = np.linspace(0, 2 * np.pi, 90)
        axes.plot(
            2 * np.cos(turn),
            2 * np.sin(turn),
            color=canvas.colour.c5,
            linewidth=1.2,
            dashes=(3, 2.4),
        )
        for name, x, y in names:
            canvas.words(axes, x, y, name, colour="rimmed", bold=True, ha="center", va="center")
        ticks = round_ticks(reach, 4, -reach)
        canvas.ticks(axes, "x", ticks)
        canvas.ticks(axes, "y", ticks)
        canvas.label_x(axes, "first principal component")

    key = [KeyItem("dot-c1", f"{int((~ignored).sum()):,} {facts.nouns(2)}")]
    if ignored.any():
        key.append(KeyItem("dot-c2", f"{int(ignored.sum()):,} locally collapsed"))
    key.append(
        KeyItem(
            "line-c5 dash", f"two standard deviations of the prior ({percent(INSIDE, 0)} of it)"
        )
    )
    caption = wording.showing(len(points), facts.n, facts.noun)
    if names:
        caption += (
            " Names stand at the median of their label; where two would meet, one is left out."
        )
    if outside:
        caption += f" {outside:,} outside the axes."
    return Figure(
        Drawing(
            "latent-view",
            f"Scatter of {len(points):,} codes in their first two principal components",
            paint,
            26 + 420 + 46,
            26 + 292 + 46,
        ),
        result=(
            f"{percent(float((np.hypot(points[:, 0], points[:, 1]) < 2).mean()))} of the codes lie "
            f"in the circle that holds {percent(INSIDE, 0)} of the prior’s draws."
        ),
        caption=caption.strip(),
        key=tuple(key),
    )


def _layer(points: Floats, reach: float, rgb: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    edges = np.linspace(-reach, reach, PIXELS + 1)
    count = np.histogram2d(points[:, 1], points[:, 0], (edges, edges))[0][::-1]
    # Every point becomes a small disc; where many lie on each other the ink adds up.
    padded = np.pad(count, 2)
    soft = np.zeros_like(count)
    for (row, column), weight in np.ndenumerate(_DISC):
        if weight:
            soft += weight * padded[row : row + PIXELS, column : column + PIXELS]
    return alpha_layer(1 - 0.25**soft, rgb, levels=6)


_DISC = np.array(
    [
        [0.0, 0.4, 0.7, 0.4, 0.0],
        [0.4, 1.0, 1.0, 1.0, 0.4],
        [0.7, 1.0, 1.0, 1.0, 0.7],
        [0.4, 1.0, 1.0, 1.0, 0.4],
        [0.0, 0.4, 0.7, 0.4, 0.0],
    ]
)


def _names(
    points: Floats, labels: npt.NDArray[np.object_], reach: float
) -> list[tuple[str, float, float]]:
    """Labels at their medians; one that would touch another (at the narrow width) is left out."""
    per_pixel = 2 * reach / 292
    placed: list[tuple[str, float, float]] = []
    boxes: list[tuple[float, float, float]] = []
    for label in sorted(set(labels), key=natural):
        if not label:
            continue
        x, y = (float(v) for v in np.median(points[labels == label], axis=0))
        name = wording.middle(str(label), 14)
        half = 4.4 * len(name) * per_pixel
        free = all(
            abs(x - ox) > half + other or abs(y - oy) > 18 * per_pixel for ox, oy, other in boxes
        )
        if free and abs(x) + half < reach and abs(y) < reach - 10 * per_pixel:
            placed.append((name, x, y))
            boxes.append((x, y, half))
    return placed
