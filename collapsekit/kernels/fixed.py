"""Dimensions that hardly tell columns apart, in 16-bit integers: twice the speed of float32.

In a collapsed dimension ``((z - mu_j) / s_j)^2 / 2`` is nearly the same for all columns j. What it
is on average over them depends on the row alone and is taken in float64, once a row. The rest, in
units of the reach X of a dimension,

    u_j = sum_d beta_jd (x_d / X_d) + alpha_jd (x_d / X_d)^2,

is small, so that 16 bits of each factor are enough, and processors multiply and add twice as many
of these in a cycle. Integers add up without rounding; the error is that of the factors, and its
bound follows from the factors as rounded. Rows that lie outside what the integers reach are told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from collapsekit.kernels.precision import ACCEPT, LOG2E

LARGEST = 32767
"""The largest 16-bit integer."""

REACH = 6.0
"""Scales beyond the outermost mean that a row may lie in every dimension."""

TAIL = 20.0
"""Rows whose norm a Gaussian one exceeds with a probability of at most e^-TAIL are let through."""

_MOST = 2**30 - 2**21  # what a sum may be either way, so that one that is lifted fits 32 bits
_DEVIATION = math.sqrt(0.5 * LOG2E)  # a rate is this over a scale

FEWEST = 12
"""Dimensions from which on it pays."""


@dataclass(frozen=True)
class Fixed:
    """The last dimensions of a group's ranking, in fixed point.

    Attributes
    ----------
    weights : Tensor
        int32 [panels, 1 + n, panel width]: what makes a column's sum positive, then beta (low 16
        bits) and alpha (high) per dimension, all in ``unit``.
    unit : float
        Bits that an integer 1 stands for.
    reach : Tensor
        X, float64 [n], in the unit of `MixtureColumns`.
    largest : float
        Largest norm of a row's factors for which no sum overflows.
    square, linear : Tensor
        What columns have in common: the row's ``square @ x^2 + linear @ x`` bits, float64 [n].
    bound : float
        Largest possible error of an exponent, nats.
    """

    weights: Tensor
    unit: float
    reach: Tensor
    largest: float
    square: Tensor
    linear: Tensor
    bound: float

    @property
    def dims(self) -> int:
        return len(self.reach)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Factors of rows, int32 [R, n]; bits common to all columns, [R]; whether it fits, [R]."""
        share = x / self.reach
        square = share.square()
        fits = (share.abs() <= 1).all(1) & ((square + square.square()).sum(1) <= self.largest**2)
        # No product of matrices: its roundings would depend on the rows beside a row.
        common = (x.square() * self.square + x * self.linear).sum(1)
        return packed(share.clamp(-1, 1) * LARGEST, square.clamp_max(1) * LARGEST), common, fits


Parts = Callable[[int], Iterator[tuple[Tensor, Tensor]]]
"""Rates 1 / s and shifts mu / s of some columns at a time, float64 [k, last], in the dimensions
that tell columns apart least; the square of ``x * rate - shift`` is in bits."""


def choose_fixed(parts: Parts, sample: tuple[Tensor, Tensor], width: int) -> Fixed | None:
    """As many of the last dimensions as the bound allows; None where they are too few to pay.

    A sample of the columns is enough for what the columns have in common and for the reach: they
    decide how good the bound is, not whether it holds. It also turns most codes away at once.
    """
    rate, shift = sample
    square, linear = rate.square().mean(0), (rate * shift).mean(0).mul_(-2.0)
    edge = (shift / rate).abs().amax(0)
    reach = edge + REACH * _DEVIATION / rate.amin(0)

    def factors(rate: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """beta and alpha of the dimensions that rates and shifts are of."""
        tail = slice(len(reach) - rate.shape[1], None)
        beta = (rate * shift).mul_(-2.0).sub_(linear[tail]).mul_(reach[tail])
        return beta, rate.square().sub_(square[tail]).mul_(reach[tail].square())

    def norms(rate: Tensor, shift: Tensor) -> Tensor:
        """The largest over columns, of the last 1, 2, ... dimensions."""
        beta, alpha = factors(rate, shift)
        return beta.square_().add_(alpha.square_()).flip(1).cumsum(1).amax(0).sqrt()

    n = torch.arange(1, len(reach) + 1, dtype=torch.float64)
    largest = torch.minimum(2 * n, (n + 2 * (TAIL * n).sqrt() + 2 * TAIL) * 2 / REACH**2).sqrt()
    # Half an integer's unit in each of 2 n factors, of columns and of rows, by Cauchy and Schwarz;
    # then the sum as float32.
    rounded = (2 * n).sqrt() * (largest.square() * LARGEST / 2 / _MOST + 0.5 / LARGEST)
    error = (rounded + largest * 2.0**-22) / LOG2E
    last = int((norms(rate, shift) * error <= ACCEPT / 2).sum())
    if last < FEWEST:
        return None
    found = torch.stack([norms(*part) for part in parts(last)]).amax(0)
    last = int((found * error[:last] <= ACCEPT / 2).sum())
    if last < FEWEST:
        return None
    top, norm = float(largest[last - 1]), float(found[last - 1])
    unit = max(norm * top / _MOST, 2.0**-100)  # all columns may be equal
    panels = []
    for rate, shift in parts(last):
        beta, alpha = factors(rate, shift)
        # Rounded up by more than all roundings together: no row's sum is negative.
        lift = (beta.square() + alpha.square()).sum(1).sqrt().mul_(top * 1.001 / unit).ceil_()
        here = torch.zeros((-(-len(rate) // width) * width, 1 + last), dtype=torch.int32)
        here[: len(rate), 0] = lift
        here[: len(rate), 1:] = packed(*(part.div_(unit * LARGEST) for part in (beta, alpha)))
        panels.append(here.view(-1, width, 1 + last).transpose(1, 2).contiguous())
    tail = slice(len(reach) - last, None)
    bound = norm * float(error[last - 1])
    return Fixed(torch.cat(panels), unit, reach[tail], top, square[tail], linear[tail], bound)


def packed(low: Tensor, high: Tensor) -> Tensor:
    """Two 16-bit integers in one of 32."""
    return ((high.round().int() << 16) | (low.round().int() & 0xFFFF)).contiguous()
