"""A matplotlib figure measured in CSS pixels, with the few marks that the report is made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.text import Text
from matplotlib.transforms import ScaledTranslation

from collapsekit.rendering.theme import NARROW, Palette
from collapsekit.rendering.wording import tick

Array = npt.NDArray[np.float64]
#: Up to how many marks are drawn one by one; beyond, round ones and diamonds are one path.
SINGLE_MARKS = {"o": 12, "D": 64}
SMALL, BODY, HEADING = 12.0, 12.5, 12.5
TICK = 3.5


@dataclass(frozen=True)
class Raster:
    """An image layer: where it lies (CSS pixels from the top left) and its RGBA pixels."""

    left: float
    top: float
    width: float
    height: float
    pixels: npt.NDArray[np.uint8]
    smooth: bool = False


@dataclass
class _Frame:
    """What surrounds one pair of axes: grid, ticks, names. Written once, by `Canvas.finish`."""

    axes: Axes
    grid: str
    drop: float
    ticks: dict[str, tuple[list[float], list[str]]] = field(default_factory=dict)
    marks: bool = True
    upright: bool = False
    name: str = ""

    def within(self, axis: str) -> list[tuple[float, str]]:
        """The ticks that lie between the limits."""
        if axis not in self.ticks:
            return []
        low, high = sorted(self.axes.get_xlim() if axis == "x" else self.axes.get_ylim())
        slack = 1e-9 * (high - low)
        pairs = zip(*self.ticks[axis], strict=True)
        return [(at, text) for at, text in pairs if low - slack <= at <= high + slack]


class _Bare(Axes):
    """Axes without matplotlib's grid: switching it off makes the ticks that nobody asked for."""

    def grid(self, *_: Any, **__: Any) -> None:
        """Nothing: `Canvas.finish` draws the grid."""


class Canvas:
    """One figure at one width.

    Ticks, their labels and the grid are drawn by `finish`, a path and a few texts per axis:
    matplotlib's own ticks, five artists each, took half of the time that a page takes.

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
        self._frames: dict[Axes, _Frame] = {}

    def axes(
        self,
        left: float,
        top: float,
        right: float,
        bottom: float,
        *,
        grid: Literal["x", "y", "none"] = "y",
        drop: float = 0.0,
    ) -> Axes:
        """Axes whose frame lies this many pixels from the four edges of the figure.

        The line at the bottom, with its ticks, lies `drop` pixels below the frame.
        """
        width, height = self.width - left - right, self.height - top - bottom
        axes = self.figure.add_axes(
            _Bare(
                self.figure,
                (left / self.width, bottom / self.height, width / self.width, height / self.height),
            )
        )
        if drop:
            axes.spines["bottom"].set_position(("outward", drop))
        self._frames[axes] = _Frame(axes, grid, drop)
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
        self._frames[axes].name = text

    def ticks(
        self,
        axes: Axes,
        axis: Literal["x", "y"],
        positions: Iterable[float],
        labels: Sequence[str] | None = None,
        *,
        marks: bool = True,
        upright: bool = False,
    ) -> None:
        """Exactly these ticks, those outside the limits left out.

        `marks` are the short strokes below the x axis; `upright` turns its labels.
        """
        at = [float(position) for position in positions]
        named = list(labels) if labels is not None else [tick(p) for p in at]
        frame = self._frames[axes]
        frame.ticks[axis] = (at, named)
        if axis == "x":
            frame.marks, frame.upright = marks, upright
        (axes.xaxis if axis == "x" else axes.yaxis).set_visible(False)

    def finish(self) -> None:
        """Draw what surrounds the axes; call once, after everything else."""
        for frame in self._frames.values():
            if "x" in frame.ticks:
                self._scaffold_x(frame)
            if "y" in frame.ticks:
                self._scaffold_y(frame)
            if frame.name:
                labelled = any(text for _, text in frame.within("x"))
                deep = 25.0 if labelled else 6.0
                place = frame.axes.transAxes + self._moved(0, -frame.drop - deep)
                self._text(frame, 0.5, 0, frame.name, place, ha="center", va="top")

    def _scaffold_x(self, frame: _Frame) -> None:
        place = frame.axes.get_xaxis_transform()
        kept = frame.within("x")
        at = [position for position, _ in kept]
        if frame.grid == "x":
            self._lines(frame, at, (0.0, 1.0), self.colour.line, place, zorder=0.5)
        if frame.marks:
            pixel = 1.0 / (frame.axes.get_position().height * self.height)
            ends = -frame.drop * pixel, -(frame.drop + TICK) * pixel
            self._lines(frame, at, ends, self.colour.c3, place, zorder=2)
        away = 2 * TICK if frame.marks else TICK
        place = place + self._moved(0, -frame.drop - away)
        turned = 90 if frame.upright else 0
        for position, label in kept:
            self._text(frame, position, 0, label, place, ha="center", va="top", rotation=turned)

    def _scaffold_y(self, frame: _Frame) -> None:
        place = frame.axes.get_yaxis_transform()
        kept = frame.within("y")
        at = [position for position, _ in kept]
        if frame.grid == "y":
            self._lines(frame, at, (0.0, 1.0), self.colour.line, place, zorder=0.5, flat=True)
        place = place + self._moved(-4, 0)
        for position, label in kept:
            self._text(frame, 0, position, label, place, ha="right", va="center_baseline")

    def _moved(self, x: float, y: float) -> ScaledTranslation:
        """A shift in pixels, whatever the resolution at which the figure is saved."""
        return ScaledTranslation(x / 72, y / 72, self.figure.dpi_scale_trans)

    @staticmethod
    def _lines(
        frame: _Frame,
        at: list[float],
        ends: tuple[float, float],
        colour: str,
        place: Any,
        *,
        zorder: float,
        flat: bool = False,
    ) -> None:
        """A stroke between these ends at every position, all in one path."""
        if not at:
            return
        first, second = np.repeat(at, 3), np.tile([*ends, math.nan], len(at))
        x, y = (second, first) if flat else (first, second)
        line = Line2D(x, y, color=colour, linewidth=0.8, transform=place, zorder=zorder)
        line.set_clip_on(False)
        frame.axes.add_artist(line)

    def _text(
        self, frame: _Frame, x: float, y: float, text: str, place: Any, **placed: Any
    ) -> None:
        written = Text(x, y, text, color=self.colour.muted, fontsize=SMALL, **placed)
        written.set_transform(place)
        written.set_clip_on(False)
        frame.axes.add_artist(written)

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

        Beyond `SINGLE_MARKS` they are drawn as one path of points with round (or, for diamonds,
        square) caps: a tenth of the bytes.
        """
        ink = getattr(self.colour, colour)
        if len(x) > SINGLE_MARKS.get(marker, len(x)):
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
