"""Pairs that are too far apart to matter, told by 16-bit integers before float arithmetic.

Where columns are told apart well, a row has few near columns and nearly all pairs are left out in
the end. Integers give a lower bound of a pair's distance at two thirds of the price:

    t = (z_q - mu_q) * rate_q / 2^15,   sum_d t_d^2.

A row by a panel of columns that all lie beyond the row's limit, more than what rounding can hide,
is left at once. What is not left is computed as ever, so that no bit of a result depends on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from collapsekit.kernels.fixed import packed
from collapsekit.kernels.precision import LOG2E

PAYS = 0.1
"""Share of rows by panels that may be kept for the screen to pay: each costs what two or three of a
whole block do."""

FEWEST = 12
"""Dimensions from which on it pays."""

LEAST_SLACK = 0.001
"""Square root of bits: more than dimensions in fixed point are off (fixed.py)."""

_HALF = 2**14 - 1
"""Of what steps go to either side of the centre: a difference of two then fits in 16 bits."""

_ROWS = 8  # by which the share is estimated
_COLUMNS = 1024


@dataclass(frozen=True)
class Screen:
    """Columns and rows in steps of 16 bits.

    Attributes
    ----------
    weights : Tensor
        int32 [panels, 1 + 2 p, panel width], p pairs of dimensions: the constant in units of
        ``unit``^2 bits, then means and rates of two dimensions each.
    dims : Tensor
        int64 [q], 2 p or 2 p - 1 of them: what is looked at.
    centre, step : Tensor
        Rows are rounded as (z - centre) / step, float64 [q].
    unit : float
        What an integer 1 stands for in t, square root of bits.
    slack : float
        By how much rounding can make the norm of t too large, square root of bits.
    """

    weights: Tensor
    dims: Tensor
    centre: Tensor
    step: Tensor
    unit: float
    slack: float

    @property
    def pairs(self) -> int:
        return -(-len(self.dims) // 2)

    def features(self, z: Tensor) -> Tensor:
        """Rows, int32 [R, p]. One further out than all columns seems nearer, never farther."""
        steps = ((z[:, self.dims] - self.centre) / self.step).round_()
        return _two_by_two(steps.clamp_(-_HALF, _HALF))


def choose_screen(
    mean: Tensor, scale: Tensor, constant: Tensor, dims: Tensor, cut: float, width: int
) -> Screen | None:
    """The screen of K columns (``constant`` >= 0 in bits, [K]), or None where it would not pay.

    ``dims`` are looked at: those in fixed point have next to no part in a distance. ``cut`` is how
    many bits below a row's best term others still count.
    """
    if len(dims) < FEWEST:
        return None
    most = math.isqrt(2**30 // len(dims))  # of a rate, so that no sum of squares overflows
    room = 2 * scale.mean(0)  # rows beyond seem nearer than they are, no more
    low, high = ((mean.amin(0) - room)[dims], (mean.amax(0) + room)[dims])
    centre, step = (low + high) / 2, (high - low) / (2 * _HALF)
    half = math.sqrt(0.5 * LOG2E)
    unit = float((step * half / scale.amin(0)[dims]).amax()) * 2**15 / most
    # t is off by 1/2 each for its own rounding and the rate's, and by z's and mu's times the rate.
    slack = max(unit * math.sqrt(len(dims)) * (1 + most / 2**15), LEAST_SLACK)
    if not math.isfinite(slack) or unit == 0:
        return None
    if _kept(mean, scale, constant, dims, cut, slack, width) > PAYS:
        return None
    pairs = -(-len(dims) // 2)
    whole = torch.zeros((-(-len(mean) // width) * width, 1 + 2 * pairs), dtype=torch.int32)
    whole[: len(mean), 0] = (constant / unit**2).floor().clamp_max(2**30)
    whole[len(mean) :, 0] = 2**30
    for start in range(0, len(mean), 8192):
        part = slice(start, start + 8192)
        rounded = ((mean[part][:, dims] - centre) / step).round_()
        whole[start : start + len(rounded), 1::2] = _two_by_two(rounded)
        rate = (step * half / scale[part][:, dims] * (2**15 / unit)).round_()
        whole[start : start + len(rounded), 2::2] = _two_by_two(rate)
    weights = whole.view(-1, width, whole.shape[1]).transpose(1, 2).contiguous()
    return Screen(weights, dims, centre, step, unit, slack)


def _kept(
    mean: Tensor,
    scale: Tensor,
    constant: Tensor,
    dims: Tensor,
    cut: float,
    slack: float,
    width: int,
) -> float:
    """Share of rows by panels with a pair that is not beyond the limit, by some of the rows."""
    own = torch.arange(0, len(mean), max(1, len(mean) // _ROWS))
    generator = torch.Generator().manual_seed(0)
    z = mean[own] + scale[own] * torch.randn(
        (len(own), mean.shape[1]), generator=generator, dtype=mean.dtype
    )

    def energies(part: slice, dims: Tensor | slice = slice(None)) -> Tensor:
        t = (z[:, None, dims] - mean[part][:, dims]) / scale[part][:, dims]
        energy = constant[part] + 0.5 * LOG2E * t.square().sum(-1)
        return energy.masked_fill(own[:, None] == torch.arange(len(mean))[part], math.inf)

    least = torch.full((len(own), 1), math.inf, dtype=mean.dtype)
    best = torch.zeros((len(own), 1), dtype=torch.int64)
    for start in range(0, len(mean), _COLUMNS):
        found, at = energies(slice(start, start + _COLUMNS)).min(1, keepdim=True)
        best = torch.where(found < least, at + start, best)
        least = torch.minimum(least, found)
    part = slice(None, None, -(-len(mean) // _COLUMNS))
    near = energies(part, dims) <= ((least + cut).sqrt() + slack).square()
    near &= best != torch.arange(len(mean))[part]  # one of very many, where there are many
    return 1.0 - (1.0 - float(near.double().mean())) ** width


def _two_by_two(x: Tensor) -> Tensor:
    """Neighbouring dimensions in one integer of 32 bits each."""
    if x.shape[1] % 2:
        x = torch.cat([x, torch.zeros_like(x[:, :1])], 1)
    return packed(x[:, 0::2], x[:, 1::2])
