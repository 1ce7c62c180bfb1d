"""Pairs that are too far apart to matter, told by 16-bit integers before float arithmetic.

Where columns are told apart well, a row has few near columns and nearly all pairs are left out in
the end. Integers give a lower bound of a pair's distance at half of the price:

    t = (z_q - mu_q) * rate_q / 2^15,   sum_d t_d^2,

and a block of pairs that all lie beyond the row's limit, more than what rounding can hide, is left
at once. What is not left is computed as ever, so that no bit of a result depends on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from collapsekit.kernels.fixed import LARGEST, packed
from collapsekit.kernels.precision import LOG2E

PAYS = 0.3
"""Share of blocks that may be kept for the screen to pay."""

BLOCK = 64
"""Pairs in a block of mixture.cpp, within a factor of two."""

FEWEST = 12
"""Dimensions from which on it pays."""

_ROWS = 8  # by which the share is estimated


@dataclass(frozen=True)
class Screen:
    """Columns and rows in steps of 16 bits.

    Attributes
    ----------
    weights : Tensor
        int32 [panels, 1 + 2 p, panel width], p pairs of dimensions: the constant in units of
        ``unit``^2 bits, then means and rates of two dimensions each.
    centre, step : Tensor
        Rows are rounded as (z - centre) / step, float64 [D].
    unit : float
        What an integer 1 stands for in t, square root of bits.
    slack : float
        By how much rounding can make the norm of t too large, square root of bits.
    """

    weights: Tensor
    centre: Tensor
    step: Tensor
    unit: float
    slack: float

    @property
    def pairs(self) -> int:
        return -(-len(self.centre) // 2)

    def features(self, z: Tensor) -> Tensor:
        """Rows, int32 [R, p]. One further out than all columns seems nearer, never farther."""
        return _two_by_two(((z - self.centre) / self.step).round_().clamp_(-LARGEST, LARGEST))


def choose_screen(
    mean: Tensor, scale: Tensor, constant: Tensor, cut: float, width: int
) -> Screen | None:
    """The screen of K columns (``constant`` >= 0 in bits, [K]), or None where it would not pay.

    ``cut`` is how many bits below a row's best term others still count.
    """
    dims = mean.shape[1]
    if dims < FEWEST:
        return None
    most = math.isqrt(2**30 // dims)  # of a rate, so that no sum of squares overflows
    room = 2 * scale.mean(0)  # rows beyond seem nearer than they are, no more
    low, high = mean.amin(0) - room, mean.amax(0) + room
    centre, step = (low + high) / 2, (high - low) / (2 * LARGEST)
    half = math.sqrt(0.5 * LOG2E)
    unit = float((step * half / scale.amin(0)).amax()) * 2**15 / most
    # t is off by 1/2 each for its own rounding and the rate's, and by z's and mu's times the rate.
    slack = unit * math.sqrt(dims) * (1 + most / 2**15)
    if not math.isfinite(slack) or unit == 0 or _kept(mean, scale, constant, cut, slack) > PAYS:
        return None
    whole = torch.zeros(
        (-(-len(mean) // width) * width, 1 + 2 * (-(-dims // 2))), dtype=torch.int32
    )
    whole[: len(mean), 0] = (constant / unit**2).floor().clamp_max(2**30)
    whole[len(mean) :, 0] = 2**30
    for start in range(0, len(mean), 8192):
        part = slice(start, start + 8192)
        rounded = ((mean[part] - centre) / step).round_()
        whole[start : start + len(rounded), 1::2] = _two_by_two(rounded)
        rate = (step * half / scale[part] * (2**15 / unit)).round_()
        whole[start : start + len(rounded), 2::2] = _two_by_two(rate)
    weights = whole.view(-1, width, whole.shape[1]).transpose(1, 2).contiguous()
    return Screen(weights, centre, step, unit, slack)


def _kept(mean: Tensor, scale: Tensor, constant: Tensor, cut: float, slack: float) -> float:
    """Share of blocks with a pair that is not beyond the limit, by a sample of the columns."""
    some = slice(None, None, -(-len(mean) // 1024))
    mean, scale, constant = mean[some], scale[some], constant[some]
    rows = slice(None, None, max(1, len(mean) // _ROWS))
    noise = torch.randn(
        mean[rows].shape, generator=torch.Generator().manual_seed(0), dtype=mean.dtype
    )
    z = mean[rows] + scale[rows] * noise
    energy = constant + 0.5 * LOG2E * ((z[:, None] - mean) / scale).square().sum(-1)
    own = torch.arange(len(mean))[rows]
    energy[torch.arange(len(own)), own] = math.inf
    limit = energy.amin(1, keepdim=True) + cut
    near = (energy <= (limit.sqrt() + slack).square()).double().sum(1) - 1.0  # the best is one
    return 1.0 - (1.0 - float(near.mean()) / len(mean)) ** BLOCK


def _two_by_two(x: Tensor) -> Tensor:
    """Neighbouring dimensions in one integer of 32 bits each."""
    if x.shape[1] % 2:
        x = torch.cat([x, torch.zeros_like(x[:, :1])], 1)
    return packed(x[:, 0::2], x[:, 1::2])
