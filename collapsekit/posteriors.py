"""Posteriors: what an encoder says about each sample. Diagonal Gaussians in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from collapsekit.noise import Noise


@runtime_checkable
class Posterior(Protocol):
    """Rows of distributions over the code; a population is a posterior with k rows."""

    @property
    def rows(self) -> int:
        """Number of distributions, B."""
        ...

    @property
    def dims(self) -> int:
        """Number of latent dimensions, D."""
        ...

    def draw(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """One code a row, [B, D], and its log-density under its own row, [B] nats."""
        ...

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of codes [B, D] under their rows, [B] nats."""
        ...

    def kl(self, prior: Self) -> Tensor:
        """KL(row || prior) in nats, [B, D] where it factorises."""
        ...

    def take(self, rows: Tensor) -> Self:
        """The rows at these positions."""
        ...


@dataclass(frozen=True)
class DiagonalGaussian:
    """N(mean, diag(scale^2)), a row a sample.

    Parameters
    ----------
    mean, scale : Tensor, float64 [B, D]
        One row stands for all samples where it is a prior.
    """

    mean: Tensor
    scale: Tensor

    @property
    def rows(self) -> int:
        """Number of distributions."""
        return self.mean.shape[0]

    @property
    def dims(self) -> int:
        """Number of latent dimensions."""
        return self.mean.shape[1]

    def take(self, rows: Tensor | slice) -> DiagonalGaussian:
        """The rows at these positions."""
        return DiagonalGaussian(self.mean[rows], self.scale[rows])

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


def standard_normal(dims: int, device: torch.device | None = None) -> DiagonalGaussian:
    """The prior N(0, I) with one row."""
    zeros = torch.zeros(1, dims, dtype=torch.float64, device=device)
    return DiagonalGaussian(zeros, torch.ones_like(zeros))
