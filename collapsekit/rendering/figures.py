"""From drawings to small, theme-aware SVG inside the page, or to a matplotlib figure for paper.

A page draws every figure twice, 800 and 342 pixels wide, and shows one of them: real reflow beats
text scaled to six pixels. What matplotlib writes is parsed and written again, so that nothing gets
into the page that was not looked at: no style sheet, no metadata, no stray id; colours become CSS
variables, styles become shared classes, numbers are rounded to a tenth of a pixel.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

import matplotlib
from markupsafe import Markup

from collapsekit.rendering.canvas import Canvas, Raster
from collapsekit.rendering.rasters import png_uri
from collapsekit.rendering.theme import (
    LIGHT,
    NARROW,
    PAGE,
    RIMMED,
    SENTINELS,
    STRIPED,
    WIDE,
    Palette,
    rc,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from collapsekit.rendering.blocks import Drawing

_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}href"
_NUMBER = re.compile(r"-?\d+\.?\d*(?:e-?\d+)?")
_PATH = re.compile(r"[A-Za-z]|-?\d+\.?\d*(?:e-?\d+)?")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_NAMES = {sentinel: name for name, sentinel in SENTINELS.items()}


@contextmanager
def style(palette: Palette) -> Iterator[None]:
    """matplotlib as this package wants it, whatever the user's own settings are, and back again."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        # A label in a script that the measuring font lacks is still set by the browser.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        matplotlib.rcdefaults()
        # Newer type stubs list every key; older matplotlib takes any text.
        matplotlib.rcParams.update(cast(Any, rc(palette)))
        yield


def paper(drawing: Drawing, *, width: int = WIDE, palette: Palette = LIGHT) -> Figure:
    """A drawing as a matplotlib figure in true colours, to save in any format."""
    height = drawing.narrow_height if width <= NARROW else drawing.height
    with style(palette):
        canvas = Canvas(width, height, palette)
        drawing.paint(canvas)
        canvas.finish()
        for raster in canvas.rasters:
            axes = canvas.figure.add_axes(
                (
                    raster.left / width,
                    1 - (raster.top + raster.height) / height,
                    raster.width / width,
                    raster.height / height,
                ),
                zorder=-1,
            )
            axes.set_axis_off()
            axes.imshow(raster.pixels, aspect="auto", interpolation="none")
    return canvas.figure


@dataclass(frozen=True)
class Pair:
    """One figure at both widths."""

    wide: Markup
    narrow: Markup


class Sheet:
    """All figures of one page: they share style classes and images.

    Use inside `style(PAGE)`.

    Attributes
    ----------
    css : str
        The classes that the figures use.
    definitions : Markup
        A hidden SVG with the shared images and the stripe pattern; goes into the page once.
    """

    def __init__(self) -> None:
        self._classes: dict[str, str] = {}
        self._images: dict[str, tuple[str, int, int, bool]] = {}
        self._stripes = False

    def draw(self, drawing: Drawing) -> Pair:
        """Draw at both widths."""
        return Pair(
            self._one(drawing, WIDE, drawing.height, "w"),
            self._one(drawing, NARROW, drawing.narrow_height, "n"),
        )

    @property
    def css(self) -> str:
        return "".join(f".{name}{{{style}}}" for style, name in self._classes.items())

    @property
    def definitions(self) -> Markup:
        parts = [
            f'<image id="{name}" width="{width}" height="{height}" preserveAspectRatio="none" '
            f'class="{"smooth" if smooth else "px"}" href="{uri}"/>'
            for uri, (name, width, height, smooth) in self._images.items()
        ]
        if self._stripes:
            parts.append(
                '<pattern id="stripes" width="6" height="6" patternUnits="userSpaceOnUse" '
                'patternTransform="rotate(45)"><rect width="6" height="6" class="s4"/>'
                '<rect width="2.5" height="6" class="s1"/></pattern>'
            )
        if not parts:
            return Markup("")
        return Markup(
            '<svg class="defs" width="0" height="0" aria-hidden="true"><defs>{}</defs></svg>'
        ).format(Markup("".join(parts)))

    def _one(self, drawing: Drawing, width: int, height: int, suffix: str) -> Markup:
        canvas = Canvas(width, height, PAGE)
        drawing.paint(canvas)
        canvas.finish()
        buffer = io.StringIO()
        canvas.figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        root = ElementTree.fromstring(buffer.getvalue())
        body = _Writer(f"{drawing.name}-{suffix}-", self).write(root)
        layers = "".join(self._layer(raster) for raster in canvas.rasters)
        title = escape(drawing.title)
        return Markup(
            f'<svg class="{"wide" if suffix == "w" else "narrow"}" role="img" '
            f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
            f"<title>{title}</title>{layers}{body}</svg>"
        )

    def _layer(self, raster: Raster) -> str:
        uri = png_uri(raster.pixels)
        high, wide = raster.pixels.shape[:2]
        found = self._images.setdefault(
            uri, (f"raster-{len(self._images)}", wide, high, raster.smooth)
        )
        name = found[0]
        move = f"translate({_round(raster.left)} {_round(raster.top)})"
        scale = f"scale({raster.width / wide:.4g} {raster.height / high:.4g})"
        return f'<use class="raster" href="#{name}" transform="{move} {scale}"/>'

    def class_of(self, declarations: str) -> str:
        """The class that stands for these declarations."""
        return self._classes.setdefault(declarations, f"f{len(self._classes)}")

    def stripes(self) -> str:
        """Paint for what cannot be told apart."""
        self._stripes = True
        return "url(#stripes)"


class _Writer:
    """Writes one matplotlib SVG again, smaller and safe."""

    def __init__(self, prefix: str, sheet: Sheet) -> None:
        self._prefix, self._sheet = prefix, sheet
        self._used: dict[str, str] = {}

    def write(self, root: ElementTree.Element) -> str:
        for element in root.iter():
            for key, value in element.attrib.items():
                if key == _XLINK and value.startswith("#"):
                    self._name(value[1:])
                for found in _REFERENCE.findall(value):
                    self._name(found)
        return "".join(self._element(child) for child in root)

    def _name(self, old: str) -> str:
        return self._used.setdefault(old, f"{self._prefix}{len(self._used)}")

    def _element(self, element: ElementTree.Element) -> str:
        tag = element.tag.removeprefix(_SVG)
        if tag not in ("g", "path", "use", "text", "tspan", "defs", "clipPath", "rect"):
            return ""
        declarations = self._declarations(element.get("style", ""))
        if tag == "path" and declarations in ("fill:none", "") and "id" not in element.attrib:
            return ""  # backgrounds that paint nothing
        attributes = self._attributes(element, tag)
        inner = escape(element.text or "") if tag in ("text", "tspan") else ""
        inner += "".join(self._element(child) for child in element)
        if tag in ("g", "defs", "clipPath") and not inner:
            return ""
        if declarations:
            attributes.insert(0, ("class", self._sheet.class_of(declarations)))
        if tag == "g" and not attributes:
            return inner
        head = "".join(f" {key}={quoteattr(value)}" for key, value in attributes)
        return f"<{tag}{head}>{inner}</{tag}>" if inner else f"<{tag}{head}/>"

    def _attributes(self, element: ElementTree.Element, tag: str) -> list[tuple[str, str]]:
        kept: list[tuple[str, str]] = []
        for key, value in element.attrib.items():
            if key == "id":
                if value in self._used:
                    kept.append(("id", self._used[value]))
            elif key == _XLINK:
                kept.append(("href", f"#{self._name(value[1:])}"))
            elif key == "d":
                kept.append(("d", _path(value)))
            elif key == "clip-path":
                kept.append((key, _REFERENCE.sub(lambda m: f"url(#{self._name(m[1])})", value)))
            elif key == "transform":
                if tag != "text" or not value.startswith("rotate(-0 "):
                    kept.append((key, _NUMBER.sub(lambda m: _round(float(m[0])), value)))
            elif key in ("x", "y", "width", "height"):
                kept.append((key, _round(float(value))))
        return kept

    def _declarations(self, style: str) -> str:
        kept: list[str] = []
        for declaration in style.split(";"):
            key, _, value = (part.strip() for part in declaration.partition(":"))
            if not value or key in ("font-family", "stroke-linejoin"):
                continue
            if key == "stroke-linecap" and (value == "butt" or "stroke-width: 0.8" in style):
                continue
            if (key, value) in (("font-size", "12px"), ("text-anchor", "start")):
                continue
            if key == "font" or not re.fullmatch(r"[-#\w\s.,()%]+", value):
                continue
            if key == "font-weight":
                value = "600"  # there is one bold on the page; matplotlib's own fonts know only 700
            name = _NAMES.get(value)
            if name is not None:
                value = f"var(--{name})"
            elif value == STRIPED:
                value = self._sheet.stripes()
            elif value == RIMMED:
                kept += ["paint-order:stroke", "stroke:var(--bg)", "stroke-width:3px"]
                value = "var(--ink)"
            kept.append(f"{key}:{value.replace(', ', ',')}")
        return ";".join(kept)


def _round(value: float) -> str:
    text = f"{value:.1f}"
    text = text.removesuffix(".0")
    if text in ("-0", "0"):
        return "0"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def _path(data: str) -> str:
    """A path in relative steps of a tenth of a pixel; exact to that tenth at every point."""
    tokens = _PATH.findall(data)
    if any(token in "QCST" for token in tokens):  # markers: short, and curved
        return " ".join(
            token if token.isalpha() else _round2(float(token)) for token in tokens
        ).replace(" -", "-")
    out: list[str] = []
    x = y = 0  # tenths
    run: tuple[bool, int] | None = None  # the last step, where it was level or upright
    command, i = "", 0
    while i < len(tokens):
        if tokens[i].isalpha():
            command = tokens[i]
            i += 1
            if command in "zZ":
                out.append("z")
                run = None
                continue
        nx, ny = round(float(tokens[i]) * 10), round(float(tokens[i + 1]) * 10)
        i += 2
        if command == "M":
            out.append(f"M{_tenths(nx)}{_joined(ny)}")
        elif nx == x and ny == y:
            if out and out[-1].startswith("M"):
                out.append("h0")  # a point: its round cap is the mark
        elif ny == y or nx == x:
            across, step = ny == y, (nx - x) + (ny - y)
            if run is not None and run[0] == across and run[1] * step > 0:
                step += run[1]  # straight on: one step instead of two
                out.pop()
            out.append(f"{'h' if across else 'v'}{_tenths(step)}")
            run, x, y = (across, step), nx, ny
            continue
        else:
            out.append(f"l{_tenths(nx - x)}{_joined(ny - y)}")
        run, x, y = None, nx, ny
    return "".join(out)


def _tenths(value: int) -> str:
    return _round(value / 10)


def _joined(value: int) -> str:
    text = _tenths(value)
    return text if text.startswith("-") else f" {text}"


def _round2(value: float) -> str:
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text
