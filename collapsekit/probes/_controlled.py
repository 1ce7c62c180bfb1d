"""Information of each dimension from one draw a sample, with the least error that draw allows.

Two estimates of I_j have the same mean. The exact KL less the aggregate's log-ratio at the code,
KL_j - ln q^/p, has no error of the draw where the aggregate is the prior; the paired densities,
ln q/q^, have none where all posteriors are one: there the first errs by the spread of ln q/p, 1.5
nats a sample at a width of 1.75. They differ by c = ln q/p - KL_j, whose mean is 0 given the
input: a control variate. So I_j is estimated by KL_j - ln q^/p + b c, and KL(q^_j || p_j) by
ln q^/p - b c, which add up to KL_j in every sample; since the KL is known given the input, one b is
the best of both. b is the regression coefficient, held to [0, 1], between the two estimates: where
few samples are in use it errs wildly otherwise. It is taken from the other groups of samples than
those that it is used on: given the inputs, draws of different samples are independent, so that
neither mean is biased and the spread about it is an honest one at any number of samples.

Noise of different dimensions is independent given the input, so that the coefficients that are
best one by one are best for sums, too.

Lavenberg & Welch 1981, "A perspective on the use of control variables"; cross-fitting as in
Avramidis & Wilson 1993, "A splitting scheme for control variates".
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from collapsekit.probes._marginal_ratios import Ratios
from collapsekit.streaming import Array, Grouped, Moments, Paired, keyed_groups


def split(found: Ratios, kl: Tensor, totals: Tensor, index: Tensor) -> Grouped:
    """The state of some samples.

    Parameters
    ----------
    found : Ratios
        Of m dimensions.
    kl : Tensor, float64 [B, m]
    totals : Tensor, float64 [B, T]
        Sums that hold the log-ratio of every dimension, with or without the own posterior.
    index : Tensor, int64 [B]
    """
    c = found.control
    values = torch.cat([kl - found.each, found.each, totals], dim=1)
    controls = torch.cat([c, c, torch.zeros_like(totals)], dim=1)

    def of(rows: Tensor) -> Paired:
        rows = rows.to(values.device)
        return Paired.of(values[rows], controls[rows])

    return Grouped.of(keyed_groups(index), of)


def each(state: Grouped, dims: int) -> Moments:
    """Information of each dimension, then KL(q^_j || p_j) of each: 2 `dims` columns of nats."""

    def made(part: Paired, others: Paired) -> Moments:
        by = _coefficient(others, dims)
        by, some = np.concatenate([by, -by]), slice(2 * dims)
        squares = part.aa[some] + 2 * by * part.ab[some] + by**2 * part.bb[some]
        mean = part.mean_a[some] + by * part.mean_b[some]
        return Moments(part.n[some], mean, np.maximum(squares, 0.0))

    whole: Moments = state.against_others(made).whole
    return whole


def with_totals(state: Grouped, dims: int) -> Grouped:
    """By group the means of sum_j KL(q^_j || p_j), then of the totals, b c taken from each.

    For a jackknife: dimensions of one sample err together, and their errors add up.
    """

    def made(part: Paired, others: Paired) -> Moments:
        taken = _coefficient(others, dims) @ part.mean_b[:dims]
        ratios = part.mean_a[dims : 2 * dims].sum()
        mean = np.concatenate([[ratios], part.mean_a[2 * dims :]]) - taken
        n = np.concatenate([part.n[dims : dims + 1], part.n[2 * dims :]])
        return Moments(n, mean, np.zeros_like(mean))

    return state.against_others(made)


def _coefficient(others: Paired, dims: int) -> Array:
    """By the estimate that spreads less: the KL's chance covariance with c is noise to either."""
    information, mismatch = slice(dims), slice(dims, 2 * dims)
    spread, steady = others.bb[information], others.aa[information] < others.aa[mismatch]
    common = np.where(steady, -others.ab[information], others.ab[mismatch])
    found = common / np.where(spread > 0, spread, 1.0)
    return np.clip(np.where(spread > 0, found, 0.0), 0.0, 1.0)
