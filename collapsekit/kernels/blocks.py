"""The blocks of the mixture kernel in torch, on any device: a matrix product and three passes.

With x the centred row, ``[x^2, x, 1, r] @ [-1/(2 s^2), mu/s^2, c, -1]`` is the exponent of every
pair of a block, less the row's reference r. That is the largest exponent so far and some more; it
need not be the largest of all, since a float has room on both sides. A block whose sum outgrows it
all the same is computed again against its own largest, and so are those after it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from collapsekit.kernels.columns import COLUMNS_AT_ONCE, Group, MixtureColumns, expanded
from collapsekit.kernels.precision import LOG2E

State = tuple[Tensor, Tensor]
"""A partial sum ``S * 2^M`` per row, both float64 [R]; M = -inf where nothing was summed."""

FLOOR = -126.0
"""Base-2 exponents are clamped here: 2^-126 of the reference, the smallest normal float32."""

CEILING = 2.0**118
"""A block's sum beyond it is computed again: float32 ends at 2^128."""

MARGIN = 60.0
"""How far the reference lies above the largest exponent so far: later ones may exceed that by 178
bits, and what lies 66 bits below it is clamped, which is nothing."""

_SPAN = 64  # column blocks whose (M, S) are kept before they are merged in one go


def merge(first: State, second: State) -> State:
    """Add two partial sums of the same rows: associative and commutative to rounding."""
    exponent = torch.maximum(first[0], second[0])
    safe = finite(exponent)  # -inf - -inf would be NaN; 2^(-inf - finite) is the 0 it should be
    total = first[1] * torch.exp2(first[0] - safe) + second[1] * torch.exp2(second[0] - safe)
    return exponent, total


def nothing(rows: int, device: torch.device) -> State:
    """The sum of no terms."""
    exponent = torch.full((rows,), -torch.inf, dtype=torch.float64, device=device)
    return exponent, torch.zeros_like(exponent)


def finite(exponent: Tensor) -> Tensor:
    """-inf becomes the lowest finite number, so that differences of two -inf are not NaN."""
    return exponent.clamp_min(torch.finfo(exponent.dtype).min)


def tile(columns: MixtureColumns, group: Group, z: Tensor, own: Tensor, span: slice) -> State:
    """(M, S) of rows over the positions ``span`` of one group; own positions on the host."""
    height, width = _block_shape(group.level, z.device)
    scratch = _Scratch(height, width, group.weights)
    exponent, total = nothing(len(z), z.device)
    for top in range(0, len(z), height):
        part = slice(top, min(top + height, len(z)))
        features = _features(columns, group.level, z[part])
        state = (exponent[part], total[part])
        for left in range(span.start, span.stop, width * _SPAN):
            right = min(left + width * _SPAN, span.stop)
            found = _span(group, features, own[part], left, right, width, scratch)
            state = merge(state, found)
        exponent[part], total[part] = state
    return exponent, total


def afresh(columns: MixtureColumns, level: str, z: Tensor, own: Tensor, span: slice) -> State:
    """The same by any level, from means and scales: whatever `prepare` chose and packed."""
    order = torch.empty_like(columns.position)
    order[columns.position] = torch.arange(len(order), device=order.device)
    state = nothing(len(z), z.device)
    for start in range(span.start, span.stop, COLUMNS_AT_ONCE):
        stop = min(start + COLUMNS_AT_ONCE, span.stop)
        weights = expanded(
            level, columns.mean, columns.scale, order[start:stop], columns.centre, columns.unit
        )
        group = Group(level, start, stop, weights)
        state = merge(state, tile(columns, group, z, own, slice(start, stop)))
    return state


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
    group: Group,
    features: Tensor,
    own_position: Tensor,
    first: int,
    last: int,
    width: int,
    scratch: _Scratch,
) -> State:
    """(M, S) of one block of rows over the positions ``first`` .. ``last`` of a group."""
    rows, edges = len(features), [*range(first, last, width), last]
    # Views of all blocks at once, nothing allocated inside: a block takes 0.2 ms, a call 2 us.
    weights = group.weights[:, first - group.start : last - group.start].split(width, 1)
    own = _own_pairs(own_position, edges, features.device)
    peaks = features.new_empty((len(weights), rows, 1))
    sums = features.new_empty((len(weights), rows))
    lowest = torch.finfo(features.dtype).min  # instead of -inf: -inf - -inf would be NaN
    direct = group.level == "direct float64"

    def add(number: int, *, against_own_peak: bool) -> None:
        block = scratch.block(rows, weights[number].shape[1])
        if direct:
            _direct_exponents(features, weights[number], block)
        else:
            torch.mm(features, weights[number], out=block)
        pairs = own[number]
        if pairs is not None:
            block[pairs] = lowest
        if against_own_peak:
            torch.amax(block, 1, keepdim=True, out=peaks[number])
            block.sub_(peaks[number].clamp_min_(lowest))
        torch.sum(block.clamp_min_(FLOOR).exp2_(), 1, out=sums[number])

    reference: Tensor | None = None
    steady = not direct
    if steady:
        features[:, -1] = 0.0  # the span before this one may have left its reference
    for number in range(len(weights)):
        if reference is not None:
            peaks[number] = reference
            add(number, against_own_peak=False)
            if bool((sums[number] <= CEILING).all()):
                continue
            # Where exponents lie thousands of bits apart it would be a product lost each time.
            reference, steady = None, False
            features[:, -1] = 0.0
        add(number, against_own_peak=True)
        # A row without a term yet (its own column only, or out of range) has no reference either.
        if steady and bool((peaks[number] > lowest).all()):
            reference = peaks[number].floor() + MARGIN  # an integer: exact in every product
            features[:, -1:] = reference
    exponents = peaks.squeeze(-1).double()
    exponents.masked_fill_(exponents == lowest, -torch.inf)  # only own pairs, or out of range
    exponent = exponents.amax(0)
    return exponent, sums.double().mul_(torch.exp2(exponents - finite(exponent))).sum(0)


def _direct_exponents(rows: Tensor, weights: Tensor, out: Tensor) -> None:
    """c_j - sum_d ((z_d - mu_jd) / s_jd)^2 / 2 in base 2, one dimension at a time: no 3-D array."""
    dims = rows.shape[1]
    difference = torch.empty_like(out)
    out.zero_()
    for d in range(dims):
        torch.sub(rows[:, d, None], weights[d], out=difference)
        difference.mul_(weights[dims + d])
        out.addcmul_(difference, difference)
    out.mul_(-0.5 * LOG2E).add_(weights[2 * dims])


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


def _features(columns: MixtureColumns, level: str, z: Tensor) -> Tensor:
    """What a block of rows contributes: [x^2, x, 1, 0], [R, 2 D + 2], or z itself if direct."""
    if level == "direct float64":
        return z
    x = (z - columns.centre) / columns.unit
    one = torch.ones_like(x[:, :1])
    # The constant as a feature costs 1-3 %; addmm's bias is a whole pass over the block.
    return torch.cat([x.square(), x, one, torch.zeros_like(one)], 1).to(getattr(torch, level))
