"""Log density of the aggregated posterior: ln sum_j N(z; mu_j, diag s_j^2) over all other columns.

Everything pairwise in an audit (information, its two bounds, re-identification, total correlation)
reads this one sum. It is streamed in cache-sized blocks as ONE matrix product per block: with x the
centred row, ``[x^2, x, 1] @ [-1/(2 s^2), mu/s^2, c]`` is the exponent of every pair in it.

Three decisions carry the accuracy (measured cases: ``tests/kernels/test_mixture.py``):

- The row's own column is left out. Its term is known exactly from the noise that made z
  (`log_own`), and it is the one pair for which the expanded square cancels worst. Callers add it:
  ``torch.logaddexp(log_mixture_others(...), log_own(...))``.
- Every column gets the cheapest arithmetic that is good enough for it (`choose_precision`).
- Exponents are base 2, and clamped to ``FLOOR`` below a block's maximum. Where results underflow,
  which is the normal case here, ``exp`` is 5 to 100 times slower; ``exp2`` with a clamp never is.

Tiles of any shape may be computed anywhere and merged in any order: `tile`, `merge`, `finish`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from collapsekit.errors import InputError
from collapsekit.kernels._components import check_components

LEVELS = ("float32", "float64", "direct float64")
"""The arithmetic a column can get, cheapest first; a column's level is an index into this."""

ACCEPT = 1e-2
"""Largest predicted error (nats) at which a level is accepted; measured errors stay 2.6x below."""

FLOOR = -126.0
"""Base-2 exponents are clamped here: 2^-126 of the maximum, the smallest normal float32."""

_LOG2E = math.log2(math.e)
_LN2 = math.log(2.0)
_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
_UNIT_ROUNDOFF = {"float32": 2.0**-24, "float64": 2.0**-53, "direct float64": 2.0**-53}
_LARGEST_WEIGHT = {"float32": 1e30, "float64": 1e280}  # beyond, products overflow
_COLUMNS_AT_ONCE = 8192  # how many columns are converted at a time when weights are built
_SPAN = 64  # column blocks whose (M, S) are kept before they are merged in one go

State = tuple[Tensor, Tensor]
"""A partial sum ``S * 2^M`` per row, both float64 [R]; M = -inf where nothing was summed."""


@dataclass(frozen=True)
class Precision:
    """What arithmetic a result was made with, and how good it is.

    Attributes
    ----------
    dtype : str
        ``float32``, ``float64``, ``direct float64``, or ``mixed`` where columns differ.
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


@dataclass(frozen=True)
class _Group:
    """Columns of one level, at positions ``start`` .. ``stop`` of the sorted order.

    ``weights`` is [2 D + 1, n]: rows of -1/(2 s^2), mu/s^2, c in units of ``MixtureColumns.unit``
    for the expanded levels; rows of mu, 1/s, c for the direct one. Base-2 logarithms throughout.
    """

    level: str
    start: int
    stop: int
    weights: Tensor


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
        Predicted error in nats, largest over columns; see `choose_precision`.
    groups : tuple
        The columns by level, cheapest first, as the weights that blocks multiply with.
    """

    mean: Tensor
    scale: Tensor
    centre: Tensor
    unit: Tensor
    position: Tensor
    bound: float
    groups: tuple[_Group, ...]

    def __len__(self) -> int:
        return int(self.mean.shape[0])

    @property
    def dtype(self) -> str:
        """The level of the columns, or ``mixed``."""
        levels = [group.level for group in self.groups]
        return levels[0] if len(levels) == 1 else "mixed" if levels else LEVELS[0]


def choose_precision(mean: Tensor, scale: Tensor) -> ColumnPrecision:
    """Choose the arithmetic of each column from how much its expanded square cancels.

    With ``T_j = sum_d 2 (mu_jd - m_d)^2 / s_jd^2`` and m the mean of the means, the predicted error
    of column j's exponent is ``4 u (T_j + D)`` nats, u the unit roundoff. The first level of
    `LEVELS` where that is at most `ACCEPT` is taken. Direct differences do not cancel: theirs is
    ``4 u D``. On top of it every level has a relative error of a few u of the result itself (up to
    (4 + D) u if direct), which matters only for rows thousands of nats away from every column.

    The constant 4 is EMPIRICAL, not a worst-case proof: over 73 cases (Gaussian, clusters,
    duplicates, mixed; D 4 to 64; s 6e-5 to 1) the measured error was at most 0.38 of the bound.
    `spot_check` is the safeguard. The rule is conservative for isolated sharp posteriors.

    Parameters
    ----------
    mean, scale : Tensor
        float64 [K, D], scale > 0.

    Returns
    -------
    ColumnPrecision
    """
    check_components(mean, scale)
    centre, unit = _frame(mean, scale)
    ratio = ((mean - centre) / scale).square().sum(1).mul_(2.0)
    largest = (unit / scale).amax(1).square_() * (1.0 + ratio)
    dims = mean.shape[1]
    level = torch.full_like(ratio, LEVELS.index("direct float64"), dtype=torch.int64)
    bound = torch.full_like(ratio, 4.0 * _UNIT_ROUNDOFF["direct float64"] * dims)
    for name in ("float64", "float32"):  # the cheaper one last, so that it wins
        error = 4.0 * _UNIT_ROUNDOFF[name] * (ratio + dims)
        good = (error <= ACCEPT) & (largest <= _LARGEST_WEIGHT[name])
        level[good] = LEVELS.index(name)
        bound = torch.where(good, error, bound)
    return ColumnPrecision(level, bound)


def prepare(mean: Tensor, scale: Tensor) -> MixtureColumns:
    """Make K Gaussian components ready for the kernel.

    Parameters
    ----------
    mean, scale : Tensor
        float64 [K, D], scale > 0, any device. Kept by reference: do not change them afterwards.

    Returns
    -------
    MixtureColumns
        Picklable; holds 2 D + 1 numbers per column of its level's width beside mean and scale.

    Raises
    ------
    InputError
        Wrong shapes or dtypes, a scale that is not positive, or a value that is not finite.
    """
    mean, scale = mean.detach(), scale.detach()
    choice = choose_precision(mean, scale)
    centre, unit = _frame(mean, scale)
    # Sorted by level, so that a level's columns lie together; stable: order is kept within it.
    order = torch.argsort(choice.level, stable=True)
    position = torch.empty_like(order)
    position[order] = torch.arange(len(order), device=order.device)
    groups = []
    start = 0
    for name, count in zip(LEVELS, torch.bincount(choice.level, minlength=3).tolist(), strict=True):
        if count:
            members = order[start : start + count]
            weights = _weights(name, mean, scale, members, centre, unit)
            groups.append(_Group(name, start, start + count, weights))
        start += count
    bound = float(choice.bound.max()) if len(mean) else 0.0
    return MixtureColumns(mean, scale, centre, unit, position, bound, tuple(groups))


def log_mixture_others(columns: MixtureColumns, z: Tensor, own: Tensor) -> Tensor:
    """ln of the SUM (not the mean) over all columns but the row's own of N(z; mu_j, diag s_j^2).

    Parameters
    ----------
    columns : MixtureColumns
        From `prepare`, on the device of ``z``.
    z : Tensor
        float64 [R, D], or [R, M, D] for M draws per row. Float32 rows would carry an error of
        3e-3 scales at s = 1e-4, mu = 5, so they are refused.
    own : Tensor
        int64 [R]: the column that belongs to the row and is left out; -1 for none.

    Returns
    -------
    Tensor
        float64 [R] or [R, M], nats; -inf where there is no other column. Error: ``columns.bound``
        plus 4 u of the result, see `choose_precision`. Blocks are the only memory beside it
        (under 16 MB on a CPU).

    Raises
    ------
    InputError
        Shapes or dtypes that do not fit.
    """
    rows, belongs = _rows(columns, z, own)
    return finish(tile(columns, rows, belongs, 0, len(columns))).reshape(z.shape[:-1])


def tile(columns: MixtureColumns, z: Tensor, own: Tensor, start: int, stop: int) -> State:
    """Sum over the columns at positions ``start`` .. ``stop``: a task of any size for an executor.

    Parameters
    ----------
    columns : MixtureColumns
    z : Tensor
        float64 [R, D].
    own : Tensor
        int64 [R]; -1 for none.
    start, stop : int
        Positions, 0 .. K: ``columns.position`` maps a column to its position.

    Returns
    -------
    State
        (M, S), float64 [R]: the sum is S * 2^M. Merge with `merge`, read with `finish`.
    """
    rows = len(z)
    exponent = torch.full((rows,), -math.inf, dtype=torch.float64, device=z.device)
    total = torch.zeros_like(exponent)
    own_position = _own_position(columns, own)
    for group in columns.groups:
        first, last = max(start, group.start), min(stop, group.stop)
        if first >= last:
            continue
        height, width = _block_shape(group.level, z.device)
        scratch = _Scratch(height, width, group.weights)
        for top in range(0, rows, height):
            part = slice(top, min(top + height, rows))
            features = _features(columns, group.level, z[part])
            state = (exponent[part], total[part])
            for left in range(first, last, width * _SPAN):
                right = min(left + width * _SPAN, last)
                span = _span(group, features, own_position[part], left, right, width, scratch)
                state = merge(state, span)
            exponent[part], total[part] = state
    return exponent, total


def merge(first: State, second: State) -> State:
    """Add two partial sums of the same rows: associative and commutative to rounding."""
    exponent = torch.maximum(first[0], second[0])
    safe = _finite(exponent)  # -inf - -inf would be NaN; 2^(-inf - finite) is the 0 it should be
    total = first[1] * torch.exp2(first[0] - safe) + second[1] * torch.exp2(second[0] - safe)
    return exponent, total


def finish(state: State) -> Tensor:
    """ln of a partial sum, nats, float64 [R]; -inf where nothing was summed."""
    return _LN2 * (state[0] + torch.log2(state[1]))


def log_own(scale: Tensor, noise: Tensor) -> Tensor:
    """ln N(z; mu, diag s^2) of z = mu + s * noise, exactly: z and mu are not needed.

    Parameters
    ----------
    scale : Tensor
        float64 [R, D].
    noise : Tensor
        float64 [R, D] or [R, M, D].

    Returns
    -------
    Tensor
        float64 [R] or [R, M], nats.
    """
    constant = scale.log().sum(-1) + scale.shape[-1] * _HALF_LOG_2PI
    square = noise.square().sum(-1).mul_(0.5)
    return -square - (constant if noise.ndim == scale.ndim else constant[:, None])


def spot_check(
    columns: MixtureColumns, z: Tensor, own: Tensor, result: Tensor, rows: int = 64
) -> Precision:
    """Compute some rows again by direct float64 differences and say how far the result was off.

    Parameters
    ----------
    columns, z, own
        As handed to `log_mixture_others`.
    result : Tensor
        What it returned.
    rows : int
        How many rows to check, evenly spaced; all of them where there are fewer.

    Returns
    -------
    Precision
        ``max_deviation`` counts two equal infinities as 0, one alone as inf.
    """
    flat, belongs = _rows(columns, z, own)
    count = min(rows, len(flat))
    # float64: float32 cannot count beyond 2^24 rows
    pick = torch.linspace(0, max(len(flat) - 1, 0), count, dtype=z.dtype, device=z.device)
    pick = pick.round().to(torch.int64).unique()
    # The direct level is simply forced on all columns, a chunk at a time to bound the memory.
    states = []
    own_position = belongs[pick].cpu()
    for start in range(0, len(columns), _COLUMNS_AT_ONCE):
        stop = min(start + _COLUMNS_AT_ONCE, len(columns))
        members = torch.arange(start, stop, device=z.device)
        weights = _weights(
            LEVELS[2], columns.mean, columns.scale, members, columns.centre, columns.unit
        )
        group = _Group(LEVELS[2], start, stop, weights)
        height, width = _block_shape(group.level, z.device)
        scratch = _Scratch(max(height, len(pick)), width, weights)
        states.append(_span(group, flat[pick], own_position, start, stop, width, scratch))
    if not states:
        return Precision(columns.dtype, columns.bound, len(pick), 0.0)
    truth, got = finish(reduce(merge, states)), result.reshape(-1)[pick]
    deviation = torch.where(truth == got, 0.0, (truth - got).abs()).nan_to_num(
        nan=math.inf, posinf=math.inf
    )
    worst = float(deviation.max()) if len(pick) else 0.0
    return Precision(columns.dtype, columns.bound, len(pick), worst)


# --- blocks -------------------------------------------------------------------------------------


class _Scratch:
    """One block of exponents, reused for every block of a tile."""

    def __init__(self, height: int, width: int, like: Tensor) -> None:
        self._memory = torch.empty(height * width, dtype=like.dtype, device=like.device)

    def block(self, rows: int, columns: int) -> Tensor:
        # Contiguous for every shape: row strides of the full width would leave the cache lines.
        return self._memory[: rows * columns].view(rows, columns)


def _block_shape(level: str, device: torch.device) -> tuple[int, int]:
    """Rows and columns of a block: it and its weights stay in a CPU's second-level cache.

    Flat within 10 % from 256 x 512 to 512 x 1024 on two CPU makes. Accelerators want few large
    launches instead; their shape is a guess (32 MB blocks), not measured.
    """
    if device.type != "cpu":
        return (2048, 4096) if level == "float32" else (1024, 4096)
    return (512, 512) if level == "float32" else (256, 512)


def _span(
    group: _Group,
    features: Tensor,
    own_position: Tensor,
    first: int,
    last: int,
    width: int,
    scratch: _Scratch,
) -> State:
    """(M, S) of one block of rows over the positions ``first`` .. ``last`` of a group."""
    rows = len(features)
    edges = [*range(first, last, width), last]
    # Views of all blocks at once, nothing allocated inside: a block takes 0.2 ms, a call 2 us.
    weights = group.weights[:, first - group.start : last - group.start].split(width, 1)
    peaks = features.new_empty((len(weights), rows, 1))
    sums = features.new_empty((len(weights), rows))
    own = _own_pairs(own_position, edges, features.device)
    lowest = torch.finfo(features.dtype).min  # instead of -inf: -inf - -inf would be NaN
    for part, pairs, peak, total in zip(weights, own, peaks.unbind(), sums.unbind(), strict=True):
        block = scratch.block(rows, part.shape[1])
        if group.level == LEVELS[2]:
            _direct_exponents(features, part, block)
        else:
            torch.mm(features, part, out=block)
        if pairs is not None:
            block[pairs] = lowest
        torch.amax(block, 1, keepdim=True, out=peak)
        peak.clamp_min_(lowest)
        block.sub_(peak).clamp_min_(FLOOR).exp2_()
        torch.sum(block, 1, out=total)
    exponents = peaks.squeeze(-1).double()
    exponents.masked_fill_(exponents == lowest, -math.inf)  # only own pairs, or out of range
    exponent = exponents.amax(0)
    return exponent, sums.double().mul_(torch.exp2(exponents - _finite(exponent))).sum(0)


def _direct_exponents(rows: Tensor, weights: Tensor, out: Tensor) -> None:
    """c_j - sum_d ((z_d - mu_jd) / s_jd)^2 / 2 in base 2, one dimension at a time: no 3-D array."""
    dims = rows.shape[1]
    difference = torch.empty_like(out)
    out.zero_()
    for d in range(dims):
        torch.sub(rows[:, d, None], weights[d], out=difference)
        difference.mul_(weights[dims + d])
        out.addcmul_(difference, difference)
    out.mul_(-0.5 * _LOG2E).add_(weights[2 * dims])


def _own_pairs(
    own_position: Tensor, edges: list[int], device: torch.device
) -> list[tuple[Tensor, Tensor] | None]:
    """For each block of columns the (row, column in block) pairs to leave out, or None."""
    ordered, rows = own_position.sort()
    cuts = torch.searchsorted(ordered, torch.tensor(edges)).tolist()
    return [
        (rows[low:high].to(device), (ordered[low:high] - left).to(device)) if high > low else None
        for left, low, high in zip(edges, cuts, cuts[1:], strict=False)
    ]


def _finite(exponent: Tensor) -> Tensor:
    """-inf becomes the lowest finite number, so that differences of two -inf are not NaN."""
    return exponent.clamp_min(torch.finfo(exponent.dtype).min)


def _features(columns: MixtureColumns, level: str, z: Tensor) -> Tensor:
    """What a block of rows contributes: [x^2, x, 1], [R, 2 D + 1], or z itself if direct."""
    if level == LEVELS[2]:
        return z
    x = (z - columns.centre) / columns.unit
    one = torch.ones_like(x[:, :1])
    # The constant as a last feature costs 1-3 %; addmm's bias is a whole pass over the block.
    return torch.cat([x.square(), x, one], 1).to(getattr(torch, level))


def _weights(
    level: str, mean: Tensor, scale: Tensor, members: Tensor, centre: Tensor, unit: Tensor
) -> Tensor:
    """[2 D + 1, n] of `_Group`, filled a few columns at a time: float64 copies stay small."""
    dims = mean.shape[1]
    dtype = torch.float32 if level == "float32" else torch.float64
    weights = torch.empty((2 * dims + 1, len(members)), dtype=dtype, device=mean.device)
    for start in range(0, len(members), _COLUMNS_AT_ONCE):
        some = members[start : start + _COLUMNS_AT_ONCE]
        mu, s = mean[some], scale[some]
        constant = -(s.log().sum(1) + dims * _HALF_LOG_2PI)
        if level == LEVELS[2]:
            quadratic, linear = mu, s.reciprocal()
        else:
            rate, shift = unit / s, (mu - centre) / s
            quadratic, linear = rate.square() * (-0.5 * _LOG2E), shift * rate * _LOG2E
            constant -= 0.5 * shift.square().sum(1)
        out = weights[:, start : start + len(some)]
        out[:dims], out[dims : 2 * dims], out[2 * dims] = quadratic.T, linear.T, constant * _LOG2E
    return weights


def _frame(mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and unit per dimension, [D].

    Centring is free and mandatory (means of 1000 + N(0, 1) cost 5 nats without). The unit is a
    power of two, so it changes no digit; it keeps squares in float32's range at any latent scale.
    """
    if not len(mean):
        return torch.zeros_like(mean.sum(0)), torch.ones_like(mean.sum(0))
    centre = mean.mean(0)
    spread = (mean - centre).abs().amax(0) + scale.amax(0)
    return centre, torch.exp2(spread.log2().round())


# --- what comes in ------------------------------------------------------------------------------


def _own_position(columns: MixtureColumns, own: Tensor) -> Tensor:
    """Positions of the own columns on the host: the blocks' loops must not wait for a device."""
    if not len(columns):
        return torch.full_like(own, -1).cpu()
    return torch.where(own < 0, -1, columns.position[own.clamp_min(0)]).cpu()


def _rows(columns: MixtureColumns, z: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and draws flattened to [R * M, D], and the own column of each."""
    dims = columns.mean.shape[1]
    if z.ndim not in (2, 3) or z.shape[-1] != dims or z.dtype != torch.float64:
        raise InputError(
            "rows do not fit the mixture's columns",
            got=f"{z.dtype} {tuple(z.shape)}",
            expected=f"torch.float64 [R, {dims}] or [R, M, {dims}]",
            remedy="sample z in float64 from posteriors of the same dimension",
        )
    if own.shape != z.shape[:1] or own.dtype != torch.int64:
        raise InputError(
            "own columns do not fit the rows",
            got=f"{own.dtype} {tuple(own.shape)}",
            expected=f"torch.int64 [{z.shape[0]}]",
            remedy="pass one column index per row, -1 where the row has none",
        )
    if len(own) and int(own.max()) >= len(columns):
        raise InputError(
            "an own column does not exist",
            got=str(int(own.max())),
            expected=f"-1 .. {len(columns) - 1}",
            remedy="number columns from 0; pass -1 where the row has none",
        )
    z = z.detach()
    if z.ndim == 3:
        own = own.repeat_interleave(z.shape[1])
    return z.reshape(-1, dims), own
