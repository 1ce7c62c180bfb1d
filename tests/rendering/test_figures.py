"""Figures: what is left of matplotlib's SVG, colours, pictures, and figures for papers."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from collapsekit.errors import InputError
from collapsekit.rendering import page, rasters
from collapsekit.rendering.figures import _path
from collapsekit.rendering.plots import Plots
from collapsekit.rendering.theme import COLOURS, SENTINELS
from collapsekit.rendering.ticks import rank_ticks, round_ticks, thinned, whole_ticks
from tests import audits


@pytest.fixture(scope="module")
def text() -> str:
    return page.render(audits.made_up("local"))


def test_nothing_of_matplotlib_leaks_into_the_page(text: str) -> None:
    for trace in ("matplotlib", "Matplotlib", "rdf:", "xlink", "xmlns", "DejaVu", "<metadata"):
        assert trace not in text
    figures = re.findall(r"<svg class=\"(?:wide|narrow)\".*?</svg>", text, re.S)
    assert figures
    for figure in figures:
        assert "<style" not in figure
        assert "style=" not in figure
        assert "#0101" not in figure


def test_every_colour_of_a_figure_follows_the_theme(text: str) -> None:
    classes = re.findall(r"\.f\d+\{([^}]*)\}", text)
    assert len(classes) > 10
    for declarations in classes:
        for paint in re.findall(r"(?:fill|stroke):([^;]+)", declarations):
            assert paint == "none" or paint.startswith(("var(--", "url(#stripes)")), paint
    for sentinel in SENTINELS.values():
        assert sentinel not in text


def test_paths_are_exact_to_a_tenth_of_a_pixel() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 800, (200, 2))
    written = _path("M " + " L ".join(f"{x:.6f} {y:.6f}" for x, y in points))
    at = np.zeros(2)
    seen = []
    for command, numbers in re.findall(r"([Mlhv])([^Mlhv]*)", written):
        values = [float(v) for v in re.findall(r"-?\d*\.?\d+", numbers)]
        if command == "M":
            at = np.array(values)
        else:
            step = {"l": values, "h": [*values, 0], "v": [0, *values]}[command]
            at = at + np.array(step)
        seen.append(at)
    assert np.abs(np.array(seen) - points).max() <= 0.05 + 1e-6


def test_straight_on_is_one_step_and_turning_back_is_not() -> None:
    assert _path("M 0 0 L 10 0 L 30 0 L 30 5 L 30 7.5") == "M0 0h30v7.5"
    assert _path("M 0 0 L 10 0 L 4 0 L 4 5 L 4 2") == "M0 0h10h-6v5v-3"
    # A point is a step of no length: its round cap is the mark.
    assert _path("M 1 1 L 1 1 M 4 1 L 4 1 L 9 1") == "M1 1h0M4 1h0h5"


def _contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_and_marks_stand_out(scheme: int) -> None:
    background = COLOURS["bg"][scheme]
    for name in ("ink", "muted", "ok", "warn", "fail", "c1"):
        assert _contrast(COLOURS[name][scheme], background) >= 4.5, name
        assert _contrast(COLOURS[name][scheme], COLOURS["surface"][scheme]) >= 4.5, name
    for name in ("c1", "c2", "c3", "c4", "c5"):
        assert _contrast(COLOURS[name][scheme], background) >= 3, name


# -- pictures ----------------------------------------------------------------------------------


def _open(uri: str) -> Image.Image:
    image: Image.Image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    return image


def test_a_layer_survives_its_palette_pixel_for_pixel() -> None:
    rng = np.random.default_rng(0)
    layer = rasters.alpha_layer(rng.random((32, 400)), (0, 114, 178))
    back = np.asarray(_open(rasters.png_uri(layer)).convert("RGBA"))
    assert (back == layer).all()
    many = rng.integers(0, 256, (40, 40, 4)).astype(np.uint8)
    assert (np.asarray(_open(rasters.png_uri(many))) == many).all()


def test_grey_pictures_keep_their_greys_and_a_seam_between_them() -> None:
    pictures = np.zeros((2, 8, 8, 1))
    pictures[1] = np.linspace(0, 1, 8)[None, :, None]
    uri, width, height = rasters.strip_uri(pictures, (0.0, 1.0))
    assert (width, height) == (17, 8)
    back = np.asarray(_open(uri).convert("RGBA")).astype(float)
    assert (back[:, 8, 3] == 0).all()
    assert np.abs(back[0, 9:, 0] / 255 - np.linspace(0, 1, 8)).max() < 0.04


@pytest.mark.parametrize(
    ("shape", "pictures"),
    [
        ((5, 28, 28), (5, 28, 28, 1)),
        ((5, 1, 28, 28), (5, 28, 28, 1)),
        ((5, 3, 32, 32), (5, 32, 32, 3)),
        ((5, 32, 32, 3), (5, 32, 32, 3)),
        ((5, 28, 28, 1), (5, 28, 28, 1)),
        ((5, 784), None),
        ((5, 4, 32, 32), None),
        ((5, 3, 2), None),
        ((5,), None),
    ],
)
def test_what_is_taken_for_a_picture(
    shape: tuple[int, ...], pictures: tuple[int, ...] | None
) -> None:
    found = rasters.as_pictures(np.zeros(shape))
    assert (None if found is None else found.shape) == pictures


@pytest.mark.parametrize(
    ("values", "limits"),
    [
        ([0.0, 0.4], (0.0, 1.0)),
        ([0.0, 200.0], (0.0, 255.0)),
        ([-0.9, 0.9], (-1.0, 1.0)),
        ([-3.0, 5.0], (-3.0, 5.0)),
        ([7.0, 7.0], (6.5, 7.5)),
        ([np.nan, np.nan], (0.0, 1.0)),
    ],
)
def test_black_and_white_stand_for_the_datas_range(
    values: list[float], limits: tuple[float, float]
) -> None:
    assert rasters.value_range(np.array(values)) == limits


def test_pictures_with_no_number_in_them_are_drawn_all_the_same() -> None:
    pictures = np.full((2, 8, 8, 3), np.nan)
    pictures[0, :, :, 0] = np.inf
    assert rasters.strip_uri(pictures, (0.0, 1.0))[0].startswith("data:image/")


# -- ticks -------------------------------------------------------------------------------------


def test_ticks() -> None:
    assert round_ticks(33) == [0, 10, 20, 30]
    assert round_ticks(1.0, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0] or round_ticks(1.0, 5)[-1] == 1.0
    assert rank_ticks(32) == [1, 8, 16, 24, 32]
    assert rank_ticks(1) == [1]
    assert rank_ticks(300)[-1] == 300
    assert whole_ticks(3) == [0, 1, 2, 3]
    assert thinned(5) == [0, 1, 2, 3, 4]
    assert thinned(16_384)[0] == 0
    assert thinned(16_384)[-1] == 16_383
    assert len(thinned(16_384)) == 400


# -- for papers --------------------------------------------------------------------------------


def test_figures_for_papers_have_true_colours() -> None:
    plots = Plots(audits.made_up(n=60, d=8))
    assert {"kl_per_dimension", "kl_map", "active_units"} <= set(dir(plots))
    for name in plots.names:
        figure = getattr(plots, name)(width=420)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg")
        assert "#0101" not in buffer.getvalue()
    with pytest.raises(AttributeError):
        _ = plots.nothing_of_that_name
    with pytest.raises(InputError, match="no figure called 'nothing'"):
        plots.draw("nothing")
