"""A matplotlib figure measured in CSS pixels, with the few marks that the report is made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FixedLocator, NullLocator

from collapsekit.rendering.theme import NARROW, Palette
from collapsekit.rendering.wording import tick

Array = npt.NDArray[np.float64]
SINGLE_MARKS = 64
SMALL, BODY, HEADING = 12.0, 12.5, 12.5


@dataclass(frozen=True)
class Raster:
    """An image layer: where it lies (CSS pixels from the top left) and its RGBA pixels."""

    left: float
    top: float
    width: float
    height: float
    pixels: npt.NDArray[np.uint8]
    smooth: bool = False


class Canvas:
    """One figure at one width.

    Parameters
    ----------
    width, height : int
        CSS pixels.
    palette : Palette
        `theme.PAGE` for the page; true colours for paper.

    Attributes
    ----------
    narrow : bool
        Whether this is the phone's figure: fewer ticks, shorter words.
    rasters : list of Raster
        Layers that `figures` puts below the lines, at their native resolution.
    """

    def __init__(self, width: int, height: int, palette: Palette) -> None:
        self.width, self.height, self.colour = width, height, palette
        self.narrow = width <= NARROW
        self.figure = Figure(figsize=(width / 72, height / 72))
        self.rasters: list[Raster] = []

    def axes(
        self,
        left: float,
        top: float,
        right: float,
        bottom: float,
        *,
        grid: Literal["x", "y", "none"] = "y",
    ) -> Axes:
        """Axes whose frame lies this many pixels from the four edges of the figure."""
        width, height = self.width - left - right, self.height - top - bottom
        axes: Axes = self.figure.add_axes(
            (left / self.width, bottom / self.height, width / self.width, height / self.height)
        )
        if grid != "none":
            axes.grid(True, axis=grid)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_locator(NullLocator())
        return axes

    def heading(self, text: str, more: str = "", *, top: float, left: float = 0.0) -> None:
        """A figure's title, flush with the column: it is also the label of the y axis.

        `more` follows it where there is room.
        """
        text = text if self.narrow else f"{text}{more}"
        self.figure.text(
            left / self.width,
            1 - top / self.height,
            text,
            fontsize=HEADING,
            fontweight="bold",
            ha="left",
            va="baseline",
        )

    def words(
        self,
        axes: Axes,
        x: float,
        y: float,
        text: str,
        *,
        colour: str = "ink",
        bold: bool = False,
        ha: Literal["left", "center", "right"] = "left",
        va: Literal["baseline", "center", "top", "bottom"] = "baseline",
        dx: float = 0.0,
        dy: float = 0.0,
    ) -> None:
        """One line of text at a data point, moved by (dx, dy) pixels. Always one line: a browser
        sets several with other metrics than matplotlib's."""
        axes.annotate(
            text,
            (x, y),
            xytext=(dx, dy),
            textcoords="offset points",
            color=getattr(self.colour, colour),
            fontsize=SMALL,
            fontweight="bold" if bold else "normal",
            ha=ha,
            va=va,
            annotation_clip=False,
        )

    def label_x(self, axes: Axes, text: str) -> None:
        """What the x axis shows, below its ticks."""
        axes.set_xlabel(text, fontsize=SMALL, labelpad=6)

    def ticks(
        self,
        axes: Axes,
        axis: Literal["x", "y"],
        positions: Iterable[float],
        labels: Sequence[str] | None = None,
    ) -> None:
        """Exactly these ticks."""
        at = [float(position) for position in positions]
        side = axes.xaxis if axis == "x" else axes.yaxis
        side.set_major_locator(FixedLocator(at))
        side.set_minor_locator(NullLocator())
        side.set_ticklabels(list(labels) if labels is not None else [tick(p) for p in at])

    def log_axis(
        self, axes: Axes, axis: Literal["x", "y"], low: float, high: float, *, most: int = 7
    ) -> None:
        """A logarithmic axis from `low` to `high` with decades as ticks."""
        if axis == "x":
            axes.set_xscale("log")
            axes.set_xlim(low, high)
        else:
            axes.set_yscale("log")
            axes.set_ylim(low, high)
        first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
        step = max(1, math.ceil((last - first + 1) / most))
        decades = [10.0**power for power in range(first, last + 1, step)]
        if len(decades) < 2:  # less than a decade on show: halves and doubles instead
            decades = [
                mantissa * 10.0**power
                for power in range(first - 1, last + 2)
                for mantissa in (1, 2, 5)
                if low <= mantissa * 10.0**power <= high
            ] or [low, high]
        self.ticks(axes, axis, decades)

    def strokes(
        self,
        axes: Axes,
        x: Array,
        low: Array,
        high: Array,
        *,
        colour: str,
        width: float = 2.5,
        alpha: float = 0.45,
        horizontal: bool = False,
    ) -> None:
        """Intervals as one path: a stroke from `low` to `high` at every x."""
        keep = np.isfinite(low) & np.isfinite(high)
        if not keep.any():
            return
        at, a, b = x[keep], low[keep], high[keep]
        along = np.column_stack([a, b, np.full(len(a), np.nan)]).ravel()
        across = np.repeat(at, 3)
        first, second = (along, across) if horizontal else (across, along)
        axes.plot(first, second, color=getattr(self.colour, colour), linewidth=width, alpha=alpha)

    def bars(
        self,
        axes: Axes,
        edges: Array,
        heights: Array,
        *,
        colour: str = "c1",
        alpha: float = 1.0,
        gap: float = 0.12,
    ) -> None:
        """Histogram bars as one path."""
        width = np.diff(edges)
        vertices: list[tuple[float, float]] = []
        codes: list[Any] = []
        for left, wide, height in zip(edges[:-1], width, heights, strict=True):
            if height <= 0:
                continue
            a, b = left + gap / 2 * wide, left + (1 - gap / 2) * wide
            vertices += [(a, 0), (a, height), (b, height), (b, 0), (a, 0)]
            codes += [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
        if vertices:
            axes.add_patch(
                PathPatch(
                    Path(vertices, codes),
                    facecolor=getattr(self.colour, colour),
                    linewidth=0,
                    alpha=alpha,
                )
            )

    def dots(
        self,
        axes: Axes,
        x: Any,
        y: Any,
        *,
        colour: str,
        marker: str = "o",
        size: float = 6.5,
        hollow: bool = False,
    ) -> None:
        """Markers; hollow ones show the page through them.

        Beyond `SINGLE_MARKS` they are drawn as one path of points with round (or square) caps: a
        tenth of the bytes.
        """
        ink = getattr(self.colour, colour)
        if len(x) > SINGLE_MARKS and marker in ("o", "D"):
            self._points(axes, x, y, ink, size, round_cap=marker == "o")
            if hollow:
                self._points(axes, x, y, self.colour.bg, size - 2.2, round_cap=marker == "o")
            return
        axes.plot(
            x,
            y,
            linestyle="none",
            marker=marker,
            markersize=size,
            markerfacecolor=self.colour.bg if hollow else ink,
            markeredgecolor=ink,
            markeredgewidth=1.2 if hollow or marker == "x" else 0,
            clip_on=False,
            zorder=3,
        )

    def _points(
        self, axes: Axes, x: Any, y: Any, ink: str, size: float, *, round_cap: bool
    ) -> None:
        first, second = (
            np.column_stack([v, v, np.full(len(v), np.nan)]).ravel()
            for v in (np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))
        )
        axes.plot(
            first,
            second,
            color=ink,
            linewidth=size if round_cap else 0.86 * size,
            solid_capstyle="round" if round_cap else "projecting",
            clip_on=False,
            zorder=3,
        )

    def threshold(
        self, axes: Axes, *, x: float | None = None, y: float | None = None, colour: str = "muted"
    ) -> None:
        """A dashed line: always a threshold, never data."""
        style: dict[str, Any] = {
            "color": getattr(self.colour, colour),
            "linewidth": 1.0,
            "dashes": (3, 2.4),
            "zorder": 2,
        }
        if x is not None:
            axes.axvline(x, **style)
        if y is not None:
            axes.axhline(y, **style)

    def raster(self, axes: Axes, pixels: npt.NDArray[np.uint8], *, smooth: bool = False) -> None:
        """Fill the axes with an RGBA image, pixel for pixel unless `smooth`."""
        box = axes.get_position()
        self.rasters.append(
            Raster(
                left=box.x0 * self.width,
                top=(1 - box.y1) * self.height,
                width=box.width * self.width,
                height=box.height * self.height,
                pixels=pixels,
                smooth=smooth,
            )
        )
