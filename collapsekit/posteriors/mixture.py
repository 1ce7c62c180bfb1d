"""Mixtures of diagonal Gaussians: mixture posteriors, mixture priors, VampPriors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from collapsekit.noise import Noise
from collapsekit.posteriors.base import Derived


@dataclass(frozen=True)
class GaussianMixture(Derived):
    """sum_k w_k N(m_k, diag(s_k^2)), a row a sample.

    As a prior of one row with K pseudo-posteriors it is the VampPrior (Tomczak & Welling 2018,
    arXiv 1705.07120).

    Parameters
    ----------
    log_weights : Tensor, float64 [B, K]
        Logarithms of the weights, which add up to 1.
    means, scales : Tensor, float64 [B, K, D]
    """

    log_weights: Tensor
    means: Tensor
    scales: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """Log-weights, means and scales."""
        return self.log_weights, self.means, self.scales

    def like(self, tensors: Sequence[Tensor]) -> Self:
        """Other parameters."""
        return type(self)(*tensors)

    @property
    def dims(self) -> int:
        """Number of latent dimensions."""
        return self.means.shape[2]

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, by the law of total variance."""
        weight = self.log_weights.exp()[:, :, None]
        mean = (weight * self.means).sum(dim=1)
        within = weight * (self.scales.square() + (self.means - mean[:, None]).square())
        return mean, within.sum(dim=1).sqrt()

    def draw(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """A component by a uniform of its own stream, then a code from it."""
        uniform = replace(noise, stream=f"{noise.stream}/component").uniform(1)
        ends = self.log_weights.exp().cumsum(dim=1)
        chosen = (uniform * ends[:, -1:] >= ends).sum(dim=1).clamp(max=ends.shape[1] - 1)
        rows = torch.arange(len(chosen), device=chosen.device) * (self.rows > 1)
        z = self.means[rows, chosen] + self.scales[rows, chosen] * noise.normal(self.dims)
        return z, self.log_prob(z)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of codes [B, D] in nats, [B]."""
        standard = (z[:, None] - self.means) / self.scales
        exponent = -0.5 * standard.square().sum(dim=2) - self.scales.log().sum(dim=2)
        constant = 0.5 * self.dims * math.log(2 * math.pi)
        return (self.log_weights + exponent).logsumexp(dim=1) - constant

    def describe(self) -> str:
        """Its family and components."""
        return f"mixture of {self.means.shape[1]} diagonal Gaussians"
