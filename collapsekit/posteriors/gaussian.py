"""Gaussians: diagonal, the fast path of everything, and with full covariance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal

from collapsekit.noise import Noise
from collapsekit.posteriors.base import Derived, Family


@dataclass(frozen=True)
class DiagonalGaussian(Family):
    """N(mean, diag(scale^2)), a row a sample.

    Parameters
    ----------
    mean, scale : Tensor, float64 [B, D]
        One row stands for all samples where it is a prior.
    """

    mean: Tensor
    scale: Tensor

    @property
    def splits(self) -> bool:
        """A product over dimensions."""
        return True

    def tensors(self) -> tuple[Tensor, ...]:
        """Means and scales."""
        return self.mean, self.scale

    def like(self, tensors: Sequence[Tensor]) -> Self:
        """Other means and scales."""
        return type(self)(*tensors)

    @property
    def rows(self) -> int:
        """Number of distributions."""
        return self.mean.shape[0]

    @property
    def dims(self) -> int:
        """Number of latent dimensions."""
        return self.mean.shape[1]

    def draw(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """A code a row and its own log-density, the latter exactly from the noise.

        ln q(z) = -|eps|^2/2 - sum ln sigma - D/2 ln 2 pi needs no difference z - mean, which loses
        every digit when the scale is tiny beside the mean.
        """
        eps = noise.normal(self.dims)
        log_density = (
            -0.5 * (eps * eps).sum(dim=1)
            - self.scale.log().sum(dim=1)
            - 0.5 * self.dims * math.log(2 * math.pi)
        )
        return self.mean + self.scale * eps, log_density

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of codes [B, D] in nats, [B]."""
        standard = (z - self.mean) / self.scale
        return (
            -0.5 * (standard * standard).sum(dim=1)
            - self.scale.log().sum(dim=1)
            - 0.5 * self.dims * math.log(2 * math.pi)
        )

    def kl(self, prior: DiagonalGaussian) -> Tensor:
        """KL per sample and dimension in nats, [B, D], exact to rounding even at collapse.

        0.5 (mu^2 + expm1(lv) - lv) with lv = ln sigma^2, both in units of the prior. Below
        |lv| = 1e-5 the variance part is its series lv^2/4 + lv^3/12, since the difference
        expm1(lv) - lv would lose every digit there.
        """
        mean = (self.mean - prior.mean) / prior.scale
        log_variance = 2.0 * torch.log(self.scale / prior.scale)
        series = log_variance**2 * (0.25 + log_variance / 12.0)
        exact = 0.5 * (torch.expm1(log_variance) - log_variance)
        return 0.5 * mean**2 + torch.where(log_variance.abs() < 1e-5, series, exact)

    def log_each(self, z: Tensor) -> Tensor:
        """Log-density in each dimension, nats [B, D]."""
        standard = (z - self.mean) / self.scale
        return -0.5 * standard**2 - self.scale.log() - 0.5 * math.log(2 * math.pi)

    def describe(self) -> str:
        """Its family and, as one row, its range."""
        if self.rows != 1:
            return "diagonal Gaussian"
        (low, high), (least, most) = (torch.aminmax(t) for t in self.tensors())
        return (
            f"diagonal Gaussian, means {float(low):.4g} to {float(high):.4g}, scales "
            f"{float(least):.4g} to {float(most):.4g}"
        )


@dataclass(frozen=True)
class FullGaussian(Derived):
    """N(mean, L L'), a row a sample.

    Parameters
    ----------
    location : Tensor, float64 [B, D]
        Means.
    cholesky : Tensor, float64 [B, D, D]
        L, lower triangular with a positive diagonal.
    """

    location: Tensor
    cholesky: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """Means and Cholesky factors."""
        return self.location, self.cholesky

    def like(self, tensors: Sequence[Tensor]) -> Self:
        """Other means and factors."""
        return type(self)(*tensors)

    @property
    def dims(self) -> int:
        """Number of latent dimensions."""
        return self.location.shape[1]

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean, and the root of the covariance's diagonal."""
        return self.location, self.cholesky.square().sum(dim=2).sqrt()

    @cached_property
    def _log_volume(self) -> Tensor:
        diagonal = self.cholesky.diagonal(dim1=1, dim2=2)
        return diagonal.log().sum(dim=1) + 0.5 * self.dims * math.log(2 * math.pi)

    def draw(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """mean + L eps, with the log-density from eps itself."""
        eps = noise.normal(self.dims)
        # A product and a sum, row by row: a batched matrix product rounds as its batch is cut.
        z = self.location + (self.cholesky * eps[:, None, :]).sum(dim=2)
        return z, -0.5 * (eps * eps).sum(dim=1) - self._log_volume

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of codes [B, D] in nats, [B]."""
        gap = z - self.location
        # One row serves all codes with one factor: they become the columns of one solve.
        if self.rows == 1:
            standard = torch.linalg.solve_triangular(self.cholesky[0], gap.T, upper=False).T
        else:
            standard = torch.linalg.solve_triangular(self.cholesky, gap[..., None], upper=False)
            standard = standard[..., 0]
        density: Tensor = -0.5 * (standard * standard).sum(dim=1) - self._log_volume
        return density

    def log_pairs(self, z: Tensor) -> Tensor:
        """Log-density of every code under every row: one triangular solve a row."""
        gap = (z[None] - self.location[:, None]).transpose(1, 2)  # [K, D, R]
        standard = torch.linalg.solve_triangular(self.cholesky, gap, upper=False)
        density: Tensor = -0.5 * standard.square().sum(dim=1) - self._log_volume[:, None]
        return density.T

    def describe(self) -> str:
        """Its family."""
        return "Gaussian with full covariance"


def cholesky_of(distribution: MultivariateNormal | LowRankMultivariateNormal) -> Tensor:
    """L of a torch Gaussian's covariance L L', float64 [..., D, D].

    Torch factors a low-rank covariance, W W' + diag(v), by way of I + W W' / v, where I is lost to
    rounding as soon as v lies below 1e-16 of a square in W.
    """
    if isinstance(distribution, MultivariateNormal):
        return distribution.scale_tril.detach().to(torch.float64)
    parts = (distribution.cov_factor, distribution.cov_diag)
    return low_rank_cholesky(*(part.detach().to(torch.float64) for part in parts))


def low_rank_cholesky(factor: Tensor, variance: Tensor) -> Tensor:
    """L of W W' + diag(v) = L L' for W [..., D, R] and v [..., D]: float64 [..., D, D].

    Plane rotations turn [diag(sqrt v), W] into a lower triangle, one number of W at a time. No
    covariance is formed and no row is projected out of another, so v and W may differ by any
    factor: only what two columns of W share is known no better than W is.

    References
    ----------
    Golub & Van Loan, Matrix Computations, 4th ed. (2013), sec. 6.5.4: updating a Cholesky factor.
    """
    # The batch comes last, so that what is left of a column is one piece of memory.
    rest = factor.movedim((-1, -2), (0, 1)).clone(memory_format=torch.contiguous_format)
    width = variance.movedim(-1, 0).sqrt()
    lower = torch.zeros(len(width), *width.shape, dtype=width.dtype, device=width.device)
    for j in range(len(width)):
        column = torch.zeros_like(width[j:])
        column[0] = width[j]
        for k in range(len(rest)):
            other = rest[k, j:]
            whole = torch.hypot(column[0], other[0])
            cosine, sine = column[0] / whole, other[0] / whole
            column, rest[k, j:] = cosine * column + sine * other, cosine * other - sine * column
        lower[j, j:] = column
    return lower.movedim((1, 0), (-2, -1)).contiguous()


def standard_normal(dims: int, device: torch.device | None = None) -> DiagonalGaussian:
    """The prior N(0, I) with one row."""
    zeros = torch.zeros(1, dims, dtype=torch.float64, device=device)
    return DiagonalGaussian(zeros, torch.ones_like(zeros))
