"""K Gaussian components made ready for the mixture kernel: once, for any number of rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from collapsekit.kernels import native
from collapsekit.kernels.fixed import Fixed, choose_fixed
from collapsekit.kernels.precision import (
    HALF_LOG_2PI,
    LEVELS,
    LOG2E,
    OFFERED,
    choose_precision,
    frame,
)
from collapsekit.kernels.screen import Screen, choose_screen

COLUMNS_AT_ONCE = 8192
"""How many columns are converted at a time when weights are built; a multiple of every panel."""

SAMPLE = 1024
"""Columns at most by which dimensions in fixed point are chosen."""


@dataclass(frozen=True)
class Group:
    """Columns of one level, at positions ``start`` .. ``stop`` of the sorted order.

    ``weights`` on the path ``torch`` is [2 D + 2, n]: rows of -1/(2 s^2), mu/s^2, c in units of
    ``MixtureColumns.unit`` and -1 for the expanded levels; rows of mu, 1/s, c, [2 D + 1, n], for
    the direct one. On the path ``compiled`` it is [panels, 2 D + 1, panel width]: ``offset`` - c,
    then per dimension 1/s and mu/s (float32) or mu (float64); the last dimensions of the ranking
    may be in ``fixed`` instead. Base-2 logarithms throughout.
    """

    level: str
    start: int
    stop: int
    weights: Tensor
    offset: float = 0.0
    fixed: Fixed | None = None
    screen: Screen | None = None


@dataclass(frozen=True)
class MixtureColumns:
    """K mixture components, made ready once by `prepare` for any number of row blocks.

    Attributes
    ----------
    mean, scale : Tensor
        The components, float64 [K, D], as they were handed in (not copied).
    centre, unit : Tensor
        Rows are used as (z - centre) / unit, float64 [D].
    position : Tensor
        int64 [K]: where column j stands in the order in which tiles count columns.
    bound : float
        Predicted error in nats, largest over columns; see `choose_precision` and, for dimensions in
        fixed point, `fixed.choose_fixed`.
    groups : tuple
        The columns by level, cheapest first, as the weights that blocks use.
    path : {"torch", "compiled"}
        What computes.
    why : str
        Why the path is ``torch`` where ``compiled`` would have been taken; else empty.
    ranking : Tensor
        int64 [D]: dimensions, those first that tell columns apart best (``compiled`` only).
    """

    mean: Tensor
    scale: Tensor
    centre: Tensor
    unit: Tensor
    position: Tensor
    bound: float
    groups: tuple[Group, ...]
    path: str
    why: str
    ranking: Tensor

    def __len__(self) -> int:
        return int(self.mean.shape[0])

    @property
    def dtype(self) -> str:
        """The level of the columns, or ``mixed``."""
        levels = [group.level for group in self.groups]
        return levels[0] if len(levels) == 1 else "mixed" if levels else OFFERED[self.path][0]

    @property
    def told(self) -> str:
        """Level and, where it is not what goes without saying, the path: for a result's note."""
        if self.path == "compiled":
            return f"{self.dtype}, compiled"
        return f"{self.dtype}, not compiled: {self.why}" if self.why else self.dtype


def prepare(mean: Tensor, scale: Tensor, path: str | None = None) -> MixtureColumns:
    """Make K Gaussian components ready for the kernel.

    Parameters
    ----------
    mean, scale : Tensor
        float64 [K, D], scale > 0, any device. Kept by reference: do not change them afterwards.
    path : {"torch", "compiled"}, optional
        Left out, `native.choose_path` decides by the number of columns, so that the same data take
        the same path every time on a machine.

    Returns
    -------
    MixtureColumns
        Picklable; holds 2 D + 1 numbers per column of its level's width beside mean and scale.

    Raises
    ------
    InputError
        Wrong shapes or dtypes, a scale that is not positive, a value that is not finite, or a path
        that was asked for and cannot be taken.
    """
    mean, scale = mean.detach(), scale.detach()
    path, why = native.choose_path(len(mean), mean.device, path)
    choice = choose_precision(mean, scale, path)
    centre, unit = frame(mean, scale)
    # Sorted by level, so that a level's columns lie together; stable: order is kept within it.
    order = torch.argsort(choice.level, stable=True)
    position = torch.empty_like(order)
    position[order] = torch.arange(len(order), device=order.device)
    ranking = _ranking(mean, scale, centre, unit)
    groups = []
    start = 0
    counts = torch.bincount(choice.level, minlength=len(LEVELS)).tolist()
    for name, count in zip(LEVELS, counts, strict=True):
        if count:
            members = order[start : start + count]
            if path == "compiled":
                group = _panels(name, start, mean, scale, members, centre, unit, ranking)
            else:
                weights = expanded(name, mean, scale, members, centre, unit)
                group = Group(name, start, start + count, weights)
            groups.append(group)
        start += count
    bound = float(choice.bound.max()) if len(mean) else 0.0
    bound += max((group.fixed.bound for group in groups if group.fixed), default=0.0)
    return MixtureColumns(
        mean, scale, centre, unit, position, bound, tuple(groups), path, why, ranking
    )


def expanded(
    level: str, mean: Tensor, scale: Tensor, members: Tensor, centre: Tensor, unit: Tensor
) -> Tensor:
    """What `Group` keeps for torch, filled a few columns at a time: float64 copies stay small."""
    dims, direct = mean.shape[1], level == "direct float64"
    dtype = torch.float32 if level == "float32" else torch.float64
    height = 2 * dims + (1 if direct else 2)
    weights = torch.full((height, len(members)), -1.0, dtype=dtype, device=mean.device)
    for start in range(0, len(members), COLUMNS_AT_ONCE):
        some = members[start : start + COLUMNS_AT_ONCE]
        mu, s = mean[some], scale[some]
        constant = -(s.log().sum(1) + dims * HALF_LOG_2PI)
        if direct:
            quadratic, linear = mu, s.reciprocal()
        else:
            rate, shift = unit / s, (mu - centre) / s
            quadratic, linear = rate.square() * (-0.5 * LOG2E), shift * rate * LOG2E
            constant -= 0.5 * shift.square().sum(1)
        out = weights[:, start : start + len(some)]
        out[:dims], out[dims : 2 * dims], out[2 * dims] = quadratic.T, linear.T, constant * LOG2E
    return weights


def _panels(
    level: str,
    start: int,
    mean: Tensor,
    scale: Tensor,
    members: Tensor,
    centre: Tensor,
    unit: Tensor,
    ranking: Tensor,
) -> Group:
    """The columns of a level on the path ``compiled``."""
    dims, single = mean.shape[1], level == "direct float32"
    dtype = torch.float32 if single else torch.float64
    width = native.panel_width(dtype)
    some = members.split(COLUMNS_AT_ONCE)
    half = math.sqrt(0.5 * LOG2E)  # the square of t is then in bits

    def ranked(part: Tensor, last: int = dims) -> tuple[Tensor, Tensor]:
        """Rates and shifts in the last dimensions of the ranking."""
        chosen = ranking[dims - last :]
        rate = (unit[chosen] * half) / scale[part][:, chosen]
        return rate, (mean[part][:, chosen] - centre[chosen]) / unit[chosen] * rate

    fixed = None
    if single and native.fast_integers():
        sample = ranked(members[:: -(-len(members) // SAMPLE)])
        fixed = choose_fixed(lambda last: (ranked(part, last) for part in some), sample, width)
    together = dims - (fixed.dims if fixed else 0)
    constants = [scale[part].log().sum(1).add_(dims * HALF_LOG_2PI).mul_(-LOG2E) for part in some]
    offset = max(float(part.max()) for part in constants)  # no density lies above it
    panels = torch.zeros((-(-len(members) // width), 2 * together + 1, width), dtype=dtype)
    panels[-1, 0] = math.inf  # columns that only fill the last panel
    for number, part in enumerate(some):
        rate, shift = ranked(part)
        first, count = number * COLUMNS_AT_ONCE // width, -(-len(part) // width)
        constant = offset - constants[number]
        if fixed:
            # Its sums are of what is linear and quadratic in z, and lifted above 0.
            lifted = fixed.weights[first : first + count, 0].reshape(-1)[: len(part)]
            constant += shift[:, together:].square().sum(1) - lifted * fixed.unit
        if single:
            # With the rate as rounded, so that its own error is that of a scale, not of a shift.
            shift = shift / rate * rate.float()
        else:
            rate = (half / scale[part][:, ranking]).clamp_max(torch.finfo(dtype).max)
            shift = mean[part][:, ranking]
        whole = torch.zeros((count * width, 2 * together + 1), dtype=dtype)
        whole[:, 0] = math.inf
        whole[: len(part), 0] = constant.to(dtype)
        whole[: len(part), 1::2] = rate[:, :together].to(dtype)
        whole[: len(part), 2::2] = shift[:, :together].to(dtype)
        panels[first : first + count] = whole.view(-1, width, 2 * together + 1).transpose(1, 2)
    screen = None
    if native.fast_integers():
        cut = native.cut_of(dtype, len(mean))
        k = offset - torch.cat(constants)
        screen = choose_screen(mean[members], scale[members], k, ranking[:together], cut, width)
    return Group(level, start, start + len(members), panels, offset, fixed, screen)


def _ranking(mean: Tensor, scale: Tensor, centre: Tensor, unit: Tensor) -> Tensor:
    """Dimensions by the mean over all pairs of ((z - mu) / s)^2, largest first."""
    if not len(mean):
        return torch.arange(mean.shape[1], device=mean.device)
    spread = ((mean - centre) / unit).square().mean(0) + (scale / unit).square().mean(0)
    return torch.argsort(spread * (unit / scale).square().mean(0), descending=True, stable=True)
