"""Distances between samples and their neighbours, shared by the probes of injectivity."""

from __future__ import annotations

import torch
from torch import Tensor

from collapsekit.errors import Unavailable
from collapsekit.observation import Observation
from collapsekit.population import Population
from collapsekit.posteriors import Family, FullGaussian

#: Neighbours in data space. One number for all probes: the population finds them once.
NEIGHBOURS = 10
_VALUES = 1 << 22  # of covariances at a time


def crowd_of(obs: Observation, limit: int | None) -> Population:
    """The samples compared with each other.

    Raises
    ------
    Unavailable
        There is only one.
    """
    crowd = obs.population.head(limit)
    if crowd.size < 2:
        raise Unavailable("one sample has no neighbours", expected="two samples at least")
    return crowd


def input_distance(targets: Tensor, rows: Tensor, near: Tensor) -> Tensor:
    """Euclidean distances of rows [B] from their candidates [B, m]: float64 [B, m]."""
    # A candidate at a time: [B, m, P] of images would be the largest array of the audit.
    # Squares in double precision: those of 1e-27 or 1e25 are no single-precision numbers.
    parts = [
        torch.linalg.vector_norm(targets[rows] - targets[column], dim=1, dtype=torch.float64)
        for column in near.T
    ]
    return torch.stack(parts, dim=1)


def code_distance(posterior: Family, rows: Tensor, near: Tensor) -> Tensor:
    """Distances of posterior means in posterior widths, the pair's own: float64 [B, m].

    |mu_i - mu_k| with each dimension divided by the root mean square of the two widths; of full
    covariances, in units of the mean of the two, which no basis changes. Two Gaussians of one width
    that lie d widths apart are told apart from one draw with probability Phi(d / 2).
    """
    if isinstance(posterior, FullGaussian):
        covariance = posterior.cholesky @ posterior.cholesky.mT
        step = max(1, _VALUES // posterior.dims**2)
        parts = [
            torch.stack(
                [_apart(posterior.mean, covariance, own, column) for column in candidates.T], dim=1
            )
            for own, candidates in zip(rows.split(step), near.split(step), strict=True)
        ]
        return torch.cat(parts)
    variance = posterior.scale.square()
    pooled = 0.5 * (variance[rows][:, None] + variance[near])
    gap = posterior.mean[rows][:, None] - posterior.mean[near]
    return (gap.square() / pooled).sum(dim=2).sqrt()


def _apart(mean: Tensor, covariance: Tensor, a: Tensor, b: Tensor) -> Tensor:
    pooled = 0.5 * (covariance[a] + covariance[b])
    # Variances are known to the rounding of the largest: one below that may come out as none.
    diagonal = pooled.diagonal(dim1=1, dim2=2)
    diagonal += 4 * torch.finfo(pooled.dtype).eps * diagonal.sum(dim=1, keepdim=True)
    gap = (mean[a] - mean[b])[:, :, None]
    units = torch.linalg.solve_triangular(torch.linalg.cholesky(pooled), gap, upper=False)
    found: Tensor = torch.linalg.vector_norm(units[:, :, 0], dim=1)
    return found
