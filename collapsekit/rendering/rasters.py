"""Pictures and pixel layers as data URIs, small: palettes for grey, JPEG for colour."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Pictures = npt.NDArray[np.float64]
LARGEST_SIDE = 48  # pixels of one picture on a card; a larger one is shrunk


def png_uri(pixels: npt.NDArray[np.uint8]) -> str:
    """RGBA pixels as a PNG data URI; few distinct colours become a palette."""
    height, width = pixels.shape[:2]
    flat = np.ascontiguousarray(pixels).reshape(-1, 4)
    colours, inverse = np.unique(flat.view(np.uint32).ravel(), return_inverse=True)
    if len(colours) > 256:
        return _png(Image.frombytes("RGBA", (width, height), flat.tobytes()))
    # Pillow finds no exact RGBA palette, so it is set by hand: indices, colours, their alpha.
    table = colours.view(np.uint8).reshape(-1, 4)
    image = Image.frombytes("P", (width, height), inverse.astype(np.uint8).tobytes())
    image.putpalette(table[:, :3].tobytes(), "RGB")
    return _png(image, transparency=table[:, 3].tobytes())


def _png(image: Image.Image, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True, **options)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def as_pictures(array: np.ndarray) -> Pictures | None:
    """Samples [G, ...] as pictures [G, H, W, C], C in {1, 3}; None where they are no pictures.

    Taken for pictures: [H, W], [C, H, W] and [H, W, C] with C in {1, 3} and both sides at least 4.
    """
    if array.dtype.kind not in "fiub":
        return None
    if array.ndim == 3:
        array = array[..., None]
    elif (array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[3] not in (1, 3)) or (
        array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[2] == array.shape[3]
    ):
        array = np.moveaxis(array, 1, -1)
    if array.ndim != 4 or array.shape[3] not in (1, 3) or min(array.shape[1:3]) < 4:
        return None
    return array.astype(np.float64)


def value_range(*arrays: Pictures | None) -> tuple[float, float]:
    """The range that black and white stand for: 0 to 1 or 0 to 255 where the data lie in it."""
    known = [a[np.isfinite(a)] for a in arrays if a is not None]
    values = np.concatenate([a.ravel() for a in known]) if known else np.zeros(0)
    if not values.size:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    if low >= 0 and 1.5 < high <= 255 and high > 16:
        return 0.0, 255.0
    if low >= -1 and high <= 1:
        return -1.0, 1.0
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def strip_uri(
    pictures: Pictures, limits: tuple[float, float], *, largest: int = LARGEST_SIDE
) -> tuple[str, int, int]:
    """Pictures [K, H, W, C] side by side in one image: its URI, width and height in pixels."""
    low, high = limits
    scaled = np.nan_to_num((pictures - low) / (high - low), nan=0.0, posinf=1.0, neginf=0.0)
    pixels = np.round(np.clip(scaled, 0, 1) * 255).astype(np.uint8)
    tiles = [_shrink(picture, largest) for picture in pixels]
    joined = np.concatenate(tiles, axis=1)
    height, width = joined.shape[:2]
    if joined.shape[2] == 1 or bool((joined[..., :1] == joined).all()):
        return _grey([tile[..., 0] for tile in tiles])
    buffer = io.BytesIO()
    image = Image.frombytes("RGB", (width, height), np.ascontiguousarray(joined).tobytes())
    image.save(buffer, "JPEG", quality=80, optimize=True)
    coded = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/jpeg;base64,{coded}", width, height


def _shrink(picture: npt.NDArray[np.uint8], largest: int) -> npt.NDArray[np.uint8]:
    height, width = picture.shape[:2]
    factor = math.ceil(max(height, width) / largest)
    if factor == 1:
        return picture
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
    small = np.asarray(image.resize(size, Image.Resampling.BOX))
    return small[..., None] if small.ndim == 2 else small


def _grey(tiles: list[npt.NDArray[np.uint8]]) -> tuple[str, int, int]:
    # 15 greys are what a thumbnail needs, and with one transparent entry for the seam between two
    # pictures they pack two pixels into a byte.
    height = tiles[0].shape[0]
    seam = np.full((height, 1), 15, dtype=np.uint8)
    parts: list[npt.NDArray[np.uint8]] = []
    for tile in tiles:
        levels = np.round(tile.astype(np.float64) / 255 * 14).astype(np.uint8)
        parts += [seam, levels] if parts else [levels]
    joined = np.ascontiguousarray(np.concatenate(parts, axis=1))
    width = joined.shape[1]
    image = Image.frombytes("P", (width, height), joined.tobytes())
    greys = [round(k * 255 / 14) for k in range(15)]
    image.putpalette([grey for level in [*greys, 0] for grey in [level] * 3], "RGB")
    return _png(image, bits=4, transparency=15), width, height


def alpha_layer(
    strength: npt.NDArray[np.float64], rgb: tuple[int, int, int], levels: int = 24
) -> npt.NDArray[np.uint8]:
    """One hue whose opacity is `strength` in [0, 1]: nothing is the page itself, in both themes.

    Few steps of opacity make the PNG several times smaller and cannot be told from many.
    """
    steps = np.round(np.clip(np.nan_to_num(strength), 0, 1) * levels) / levels
    pixels = np.empty((*strength.shape, 4), dtype=np.uint8)
    pixels[..., :3] = rgb
    pixels[..., 3] = np.round(steps * 255)
    pixels[pixels[..., 3] == 0] = 0
    return pixels
