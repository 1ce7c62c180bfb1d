"""Which arithmetic each column of a mixture gets, and how good a result was."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from collapsekit.kernels._components import check_components

LEVELS = ("float32", "direct float32", "float64", "direct float64")
"""The arithmetic a column can get, cheapest first; a column's level is an index into this.

Direct levels take differences z - mu, the others the expanded square in one matrix product."""

OFFERED = {
    "torch": ("float32", "float64", "direct float64"),
    "compiled": ("direct float32", "direct float64"),
}
"""The levels of each path: a compiled loop takes differences at the price of a product."""

ACCEPT = 1e-2
"""Largest predicted error (nats) at which a level is accepted; measured errors stay 2.6x below."""

FAR = 1000.0
"""Nats below a column's peak up to which the bound of ``direct float32`` is meant."""

UNIT_ROUNDOFF = {level: 2.0**-24 if "float32" in level else 2.0**-53 for level in LEVELS}

_LARGEST_WEIGHT = {"float32": 1e30, "float64": 1e280}  # beyond, products overflow


@dataclass(frozen=True)
class Precision:
    """What arithmetic a result was made with, and how good it is.

    Attributes
    ----------
    dtype : str
        ``float32``, ``float64``, ``direct float32``, ``direct float64``, or ``mixed`` where columns
        differ; then, where it matters, the path: ``MixtureColumns.told``.
    bound : float
        Predicted error in nats, largest over columns; see `choose_precision`.
    checked_rows : int
        Rows that were computed again by direct float64 differences.
    max_deviation : float
        Largest deviation over those rows, nats.
    """

    dtype: str
    bound: float
    checked_rows: int
    max_deviation: float


@dataclass(frozen=True)
class ColumnPrecision:
    """Per column: the level to use, int64 [K] into `LEVELS`, and its error bound, nats [K]."""

    level: Tensor
    bound: Tensor


def choose_precision(mean: Tensor, scale: Tensor, path: str = "torch") -> ColumnPrecision:
    """Choose the arithmetic of each column from how much it cancels there.

    With ``T_j = sum_d 2 (mu_jd - m_d)^2 / s_jd^2``, m the mean of the means and u the unit
    roundoff, the predicted error of column j's exponent in nats is

    - ``4 u (T_j + D)`` for an expanded square,
    - ``4 u (sqrt(FAR T_j) + D)`` for ``direct float32``: z and mu are rounded to float32 before
      their difference is taken, which moves it by u |mu| / s; the square multiplies that by the
      distance, so rows E nats below the column's peak are off by 2 u sqrt(E T_j),
    - ``4 u D`` for ``direct float64``: z and mu are float64 to begin with.

    The first level that the path offers where that is at most `ACCEPT` is taken. On top of it every
    level has a relative error of a few u of the result itself (up to (8 + D) u if direct), which
    matters only for rows thousands of nats away from every column.

    The constant 4 is EMPIRICAL for the expanded square, not a worst-case proof: over 73 cases
    (Gaussian, clusters, duplicates, mixed; D 4 to 64; s 6e-5 to 1) the measured error was at most
    0.38 of the bound. `spot_check` is the safeguard. The rule is conservative for isolated sharp
    posteriors.

    Parameters
    ----------
    mean, scale : Tensor
        float64 [K, D], scale > 0.
    path : {"torch", "compiled"}
        What computes; it decides which levels there are.

    Returns
    -------
    ColumnPrecision
    """
    check_components(mean, scale)
    centre, unit = frame(mean, scale)
    ratio = ((mean - centre) / scale).square().sum(1).mul_(2.0)
    largest = (unit / scale).amax(1).square_() * (1.0 + ratio)
    dims = mean.shape[1]
    *cheaper, last = OFFERED[path]
    level = torch.full_like(ratio, LEVELS.index(last), dtype=torch.int64)
    bound = torch.full_like(ratio, 4.0 * UNIT_ROUNDOFF[last] * dims)
    for name in reversed(cheaper):  # the cheapest one last, so that it wins
        lost = (FAR * ratio).sqrt() if name.startswith("direct") else ratio
        error = 4.0 * UNIT_ROUNDOFF[name] * (lost + dims)
        good = (error <= ACCEPT) & (largest <= _LARGEST_WEIGHT[name.removeprefix("direct ")])
        level[good] = LEVELS.index(name)
        bound = torch.where(good, error, bound)
    return ColumnPrecision(level, bound)


def frame(mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and unit per dimension, [D].

    Centring is free and mandatory (means of 1000 + N(0, 1) cost 5 nats without). The unit is a
    power of two, so it changes no digit; it keeps squares in float32's range at any latent scale.
    """
    if not len(mean):
        return torch.zeros_like(mean.sum(0)), torch.ones_like(mean.sum(0))
    centre = mean.mean(0)
    spread = (mean - centre).abs().amax(0) + scale.amax(0)
    return centre, torch.exp2(spread.log2().round())


LOG2E = math.log2(math.e)
HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
