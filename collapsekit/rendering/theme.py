"""Colours and sizes, once. The page's style sheet and the figures read the same names.

Figures are drawn with sentinel colours (``#010101``, ``#010102``, ...), which are then replaced by
``var(--ink)``, ``var(--c1)``, ...: one drawing serves light, dark and print.
"""

from __future__ import annotations

from typing import Any

#: Name: (light, dark). Okabe-Ito based; contrast on the background is at least 4.5 for every colour
#: that text is set in, and about 3 for graphics.
COLOURS: dict[str, tuple[str, str]] = {
    "bg": ("#fdfdfc", "#141618"),
    "surface": ("#f4f4f1", "#1c1f22"),
    "ink": ("#1b1d20", "#e9e9e6"),
    "muted": ("#5d636b", "#a2a8af"),
    "line": ("#e3e3df", "#2e3236"),
    "c1": ("#0072b2", "#56b4e9"),
    "c2": ("#d55e00", "#f08a4b"),
    "c3": ("#8b9097", "#6d747c"),
    "c4": ("#5396c1", "#32749f"),
    "c5": ("#b87f1c", "#c9953b"),
    "ok": ("#00714f", "#3cc79a"),
    "warn": ("#8a5a00", "#eab04a"),
    "fail": ("#b03a00", "#f5915c"),
    "track": ("#e0e0dd", "#33373b"),
    "good": ("#b4b5b6", "#5b6167"),
}

#: Sentinels: a colour that nobody draws by chance, one per name.
SENTINELS: dict[str, str] = {name: f"#0101{i:02x}" for i, name in enumerate(COLOURS, start=1)}

#: Sentinel of the stripe pattern, for parts that may be one thing or another.
STRIPED = "#0101f1"
#: Sentinel of text that stands on marks: ink with a rim in the page's colour.
RIMMED = "#0101f2"

FONT_STACK = (
    'Inter, ui-sans-serif, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", '
    '"Liberation Sans", Arial, sans-serif'
)

WIDE, NARROW = 800, 342


class Palette:
    """Colours by name for one use: sentinels for the page, true colours for paper.

    Parameters
    ----------
    colours : dict of str to str
    """

    def __init__(self, colours: dict[str, str]) -> None:
        self._colours = colours

    def __getattr__(self, name: str) -> str:
        try:
            return self._colours[name]
        except KeyError:
            raise AttributeError(name) from None


# On paper, what may be one thing or another is the colour between the two.
PAGE = Palette({**SENTINELS, "stripes": STRIPED, "rimmed": RIMMED})
LIGHT = Palette(
    {**{name: pair[0] for name, pair in COLOURS.items()}, "stripes": "#2e88be", "rimmed": "#1b1d20"}
)
DARK = Palette(
    {**{name: pair[1] for name, pair in COLOURS.items()}, "stripes": "#4292c2", "rimmed": "#e9e9e6"}
)


def rc(palette: Palette) -> dict[str, Any]:
    """matplotlib settings of every figure, for an `rc_context`.

    At 72 dots per inch one point is one SVG unit and one CSS pixel. Text stays text, and is never
    read as mathematics: a label may hold a dollar sign.
    """
    return {
        "figure.dpi": 72,
        "savefig.dpi": 72,
        "svg.fonttype": "none",
        "svg.hashsalt": "collapsekit",
        "text.parse_math": False,
        "text.usetex": False,
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 12,
        "text.color": palette.ink,
        "axes.edgecolor": palette.c3,
        "axes.labelcolor": palette.muted,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "axes.linewidth": 0.8,
        "axes.spines.left": False,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.axisbelow": True,
        "axes.unicode_minus": True,
        "grid.color": palette.line,
        "grid.linewidth": 0.8,
        "xtick.color": palette.c3,
        "xtick.labelcolor": palette.muted,
        "xtick.labelsize": 12,
        "xtick.major.size": 3.5,
        "xtick.major.width": 0.8,
        "ytick.color": palette.c3,
        "ytick.labelcolor": palette.muted,
        "ytick.labelsize": 12,
        "ytick.major.size": 0,
        "ytick.major.pad": 4,
        "lines.linewidth": 1.6,
        "lines.solid_capstyle": "butt",
        "path.simplify": False,  # it would drop the points that are drawn as strokes of no length
    }


def style_variables() -> str:
    """The colours as CSS custom properties, for both schemes."""
    light = ";".join(f"--{name}:{pair[0]}" for name, pair in COLOURS.items())
    dark = ";".join(f"--{name}:{pair[1]}" for name, pair in COLOURS.items())
    return (
        f":root{{color-scheme:light dark;{light}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    )
