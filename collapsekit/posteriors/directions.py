"""Directions of a code whose axes mean nothing by themselves: the KL along any of them."""

from __future__ import annotations

import torch
from torch import Tensor

from collapsekit.posteriors.base import Family
from collapsekit.posteriors.divergence import root
from collapsekit.posteriors.gaussian import DiagonalGaussian, FullGaussian


def turns(q: Family, p: Family) -> bool:
    """Whether a rotation of the code leaves the model as it was: Gaussians of full covariance.

    In units of a Gaussian prior the prior is N(0, I) in every basis, and the posteriors' family is
    the same in every basis too. Posteriors that are products single the axes out.
    """
    return isinstance(q, FullGaussian) and isinstance(p, DiagonalGaussian | FullGaussian)


def whitened(q: Family, p: Family) -> tuple[Tensor, Tensor]:
    """Means [B, D] and covariances [B, D, D] of Gaussians in units in which the prior is N(0, I).

    These units are known up to a rotation, which for a prior with a covariance is that of its
    Cholesky factor.
    """
    assert isinstance(q, FullGaussian)
    factor = _in_units(root(q), p)
    return whitened_mean(q, p), factor @ factor.mT


def whitened_mean(q: Family, p: Family) -> Tensor:
    """Means [B, D] in the units of `whitened`."""
    return _in_units((q.mean - p.mean)[:, :, None], p)[:, :, 0]


def _in_units(columns: Tensor, p: Family) -> Tensor:
    assert isinstance(p, DiagonalGaussian | FullGaussian)
    if isinstance(p, FullGaussian):
        found: Tensor = torch.linalg.solve_triangular(p.cholesky, columns, upper=False)
        return found
    return columns / p.scale[:, :, None]


def kl_matrix(mean: Tensor, covariance: Tensor) -> Tensor:
    """KL(N(m, C) || N(0, I)) as a matrix K = (m m' + C - I - ln C) / 2, nats: [B, D, D].

    Symmetric, no eigenvalue below 0, its trace the KL. u'K u is the KL along a unit vector u: over
    any orthonormal basis it adds up to the KL, and it is 0 only where m has no part along u and
    C u = u, that is, where the code's coordinate along u is N(0, 1) and independent of the rest. It
    is never less than the KL of that coordinate alone (-ln is operator convex). Of a product it is
    the KL of each dimension on its axis.
    """
    variance, basis = torch.linalg.eigh(covariance)
    # Eigenvalues are known to the rounding of the largest; the narrowest may come out negative.
    least = torch.finfo(variance.dtype).eps * variance[:, -1:]
    log = torch.maximum(variance, least).log()
    # As DiagonalGaussian.kl: near 1 the difference would lose every digit.
    series = log**2 * (0.25 + log / 12.0)
    along = torch.where(log.abs() < 1e-5, series, 0.5 * (torch.expm1(log) - log))
    found: Tensor = (basis * along[:, None]) @ basis.mT
    return found + 0.5 * mean[:, :, None] * mean[:, None]


def directions(kl: Tensor, epsilon: float) -> Tensor:
    """Sum over rows of ln(1 + K / epsilon), whose eigenvectors are the code's directions: [D, D].

    Of the matrices of `kl_matrix`, whose kernel it keeps. The plain sum would do for a code of one
    kind; the logarithm keeps a few samples of large KL from turning a direction that all others
    leave idle into the plane of one that all use a little.
    """
    value, basis = torch.linalg.eigh(kl)
    damped = torch.log1p(value.clamp(min=0.0) / epsilon)
    found: Tensor = ((basis * damped[:, None]) @ basis.mT).sum(dim=0)
    return found
