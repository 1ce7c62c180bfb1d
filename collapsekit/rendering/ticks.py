"""Where axes have their ticks. Knows no plotting library."""

from __future__ import annotations

import math


def round_ticks(high: float, most: int = 5, low: float = 0.0) -> list[float]:
    """Ticks at 1, 2, 2.5 or 5 times a power of ten from `low` to at most `high`."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 10) for k in range(first, last + 1)]


def thinned(size: int, most: int = 400) -> list[int]:
    """Positions 0..size-1, all of them or `most` evenly spaced ones with both ends."""
    if size <= most:
        return list(range(size))
    return [round(k * (size - 1) / (most - 1)) for k in range(most)]


def rank_ticks(size: int, most: int = 5) -> list[float]:
    """Ticks for ranks 1..size that end on the last rank."""
    if size <= most:
        return [float(rank) for rank in range(1, size + 1)]
    inner = [
        t for t in round_ticks(size, most - 1) if 1 < t <= size * 0.94 and float(t).is_integer()
    ]
    for count in (2, 4):  # powers of two are what latent sizes are made of
        if size % (2 * count) == 0 and size >= 16:
            inner = [size * k / 4 for k in range(1, 4)]
    return [1.0, *inner, float(size)]


def whole_ticks(high: float, most: int = 5) -> list[float]:
    """As `round_ticks`, whole numbers only."""
    ticks = [t for t in round_ticks(high, most) if float(t).is_integer()]
    return ticks if len(ticks) > 1 else [0.0, max(1.0, float(math.floor(high)))]
