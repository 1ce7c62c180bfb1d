"""Log density of the aggregated posterior: ln sum_j N(z; mu_j, diag s_j^2) over all other columns.

Everything pairwise in an audit (information, its two bounds, re-identification, total correlation)
reads this one sum. It is streamed, never stored, by one of two paths: in torch on any device
(`blocks`: a matrix product and three passes over each cache-sized block), or, for many columns on a
CPU with a compiler, by a fused loop (`native`) that also leaves pairs which cannot matter and takes
collapsed dimensions in 16-bit integers (`screen`, `fixed`).

Three decisions carry the accuracy (measured cases: ``tests/kernels/test_mixture.py``):

- The row's own column is left out. Its term is known exactly from the noise that made z
  (`log_own`), and it is the one pair for which the expanded square cancels worst. Callers add it:
  ``torch.logaddexp(log_mixture_others(...), log_own(...))``.
- Every column gets the cheapest arithmetic that is good enough for it (`choose_precision`).
- Exponents are base 2, and clamped. Where results underflow, which is the normal case here, ``exp``
  is 5 to 100 times slower; ``exp2`` with a clamp never is.

Tiles of any shape may be computed anywhere and merged in any order: `tile`, `merge`, `finish`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from collapsekit.errors import InputError
from collapsekit.kernels import native
from collapsekit.kernels.blocks import State, afresh, merge, nothing
from collapsekit.kernels.blocks import tile as torch_tile
from collapsekit.kernels.columns import Group, MixtureColumns, prepare
from collapsekit.kernels.precision import HALF_LOG_2PI, Precision

__all__ = [
    "MixtureColumns",
    "Precision",
    "State",
    "finish",
    "log_mixture_others",
    "log_own",
    "merge",
    "prepare",
    "spot_check",
    "tile",
]

_LN2 = math.log(2.0)


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
    state = nothing(len(z), z.device)
    own_position = _own_position(columns, own)
    for group in columns.groups:
        span = slice(max(start, group.start), min(stop, group.stop))
        if span.start < span.stop:
            state = merge(state, _group_tile(columns, group, z, own_position, span))
    return state


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
    constant = scale.log().sum(-1) + scale.shape[-1] * HALF_LOG_2PI
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
    own_position = _own_position(columns, belongs[pick])
    everything = slice(0, len(columns))
    truth = finish(afresh(columns, "direct float64", flat[pick], own_position, everything))
    got = result.reshape(-1)[pick]
    deviation = torch.where(truth == got, 0.0, (truth - got).abs()).nan_to_num(
        nan=math.inf, posinf=math.inf
    )
    worst = float(deviation.max()) if len(pick) else 0.0
    return Precision(columns.told, columns.bound, len(pick), worst)


# --- what comes in, and the two paths ------------------------------------------------------------


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


def _group_tile(
    columns: MixtureColumns, group: Group, z: Tensor, own: Tensor, span: slice
) -> State:
    """(M, S) over positions of one group, by the columns' path."""
    if columns.path == "torch":
        return torch_tile(columns, group, z, own, span)
    single, fixed = group.level == "direct float32", group.fixed
    fits = torch.ones(len(z), dtype=torch.bool)

    def rows(part: slice) -> native.Rows:
        steps = group.screen.features(z[part]) if group.screen else None
        if not single:
            return native.Rows(z[part][:, columns.ranking], steps=steps)
        x = ((z[part] - columns.centre) / columns.unit)[:, columns.ranking]
        if fixed is None:
            return native.Rows(x.float(), steps=steps)
        factors, common, fits[part] = fixed.features(x[:, -fixed.dims :])
        return native.Rows(x[:, : -fixed.dims].float(), factors, common, steps)

    found = native.sums(group, rows, own - group.start, span, len(columns))
    level = "float64" if single else group.level
    if found is None:  # prepared where there is a library and sent where there is none
        return afresh(columns, level, z, own, span)
    if not fits.all():  # rows further out than any that the columns would give
        for state, far in zip(
            found, afresh(columns, level, z[~fits], own[~fits], span), strict=True
        ):
            state[~fits] = far
    return found
