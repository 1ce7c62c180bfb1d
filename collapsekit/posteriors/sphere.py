"""The unit sphere: von Mises-Fisher posteriors and the uniform prior."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
import torch
from scipy.special import gammaln, ive
from torch import Tensor

from collapsekit.noise import Noise
from collapsekit.posteriors.base import Derived

_TRIES = 1000  # Wood's sampler accepts two of three proposals or more; this is never reached
_TERMS = 40  # of the Bessel function's series, where scipy's underflows


@dataclass(frozen=True)
class UniformSphere(Derived):
    """The uniform distribution on the unit sphere in R^D.

    Parameters
    ----------
    axis : Tensor, float64 [B, D]
        Any point of the sphere: what a code looks like, nothing more.
    """

    axis: Tensor

    coordinates: ClassVar[bool] = False

    def tensors(self) -> tuple[Tensor, ...]:
        """The axis."""
        return (self.axis,)

    def like(self, tensors: Sequence[Tensor]) -> Self:
        """Other axes."""
        return type(self)(*tensors)

    @property
    def dims(self) -> int:
        """Dimensions of the space around the sphere."""
        return self.axis.shape[1]

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """0 and 1 / sqrt D."""
        return self.axis * 0, torch.full_like(self.axis, self.dims**-0.5)

    @property
    def centre(self) -> Tensor:
        """A point of the sphere; its mean is none."""
        return self.axis

    def draw(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """A normal vector scaled to length 1."""
        eps = noise.normal(self.dims)
        z = eps / eps.norm(dim=1, keepdim=True)
        return z, self.log_prob(z)

    def log_prob(self, z: Tensor) -> Tensor:
        """Minus the logarithm of the sphere's area."""
        return torch.full((len(z),), -log_area(self.dims), dtype=torch.float64, device=z.device)

    def describe(self) -> str:
        """Its family."""
        return f"uniform on the unit sphere in {self.dims} dimensions"


@dataclass(frozen=True)
class VonMisesFisher(Derived):
    """Density proportional to exp(kappa mu'z) on the unit sphere in R^D, a row a sample.

    Parameters
    ----------
    direction : Tensor, float64 [B, D]
        mu, of length 1.
    concentration : Tensor, float64 [B, 1]
        kappa, at least 0; 0 is the uniform distribution.

    Notes
    -----
    Sampled by Wood's rejection (1994, Commun. Stat. Simul. 23, 157), a stream of noise a trial, so
    that a row's code depends on nothing but its own number.
    """

    direction: Tensor
    concentration: Tensor

    coordinates: ClassVar[bool] = False

    def tensors(self) -> tuple[Tensor, ...]:
        """Directions and concentrations."""
        return self.direction, self.concentration

    def like(self, tensors: Sequence[Tensor]) -> Self:
        """Other directions and concentrations."""
        return type(self)(*tensors)

    @property
    def dims(self) -> int:
        """Dimensions of the space around the sphere."""
        return self.direction.shape[1]

    @cached_property
    def resultant(self) -> Tensor:
        """A(kappa) = E[mu'z] = I_(D/2)(kappa) / I_(D/2 - 1)(kappa), [B]."""
        kappa, order = self.concentration[:, 0], self.dims / 2 - 1
        return kappa * torch.exp(_log_bessel(order + 1, kappa) - _log_bessel(order, kappa))

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """A mu, and the root of the covariance's diagonal (Mardia & Jupp 2000, section 9.3)."""
        kappa, mean = self.concentration, self.resultant[:, None]
        across = torch.where(kappa > 1e-6, mean / kappa.clamp(min=1e-6), 1.0 / self.dims)
        along = 1 - mean.square() - (self.dims - 1) * across
        variance = across + (along - across) * self.direction.square()
        return mean * self.direction, variance.clamp(min=0).sqrt()

    @property
    def centre(self) -> Tensor:
        """The mean direction."""
        return self.direction

    @cached_property
    def _log_normaliser(self) -> Tensor:
        kappa = self.concentration[:, 0]
        return -0.5 * self.dims * math.log(2 * math.pi) - _log_bessel(self.dims / 2 - 1, kappa)

    @property
    def rate(self) -> Tensor:
        """KL from the uniform distribution in nats, [B]: ln C(kappa) + kappa A(kappa) + ln area."""
        return (
            self._log_normaliser + self.concentration[:, 0] * self.resultant + log_area(self.dims)
        )

    def draw(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """A code on the sphere and its log-density."""
        cosine = self._cosines(noise)
        eps = replace(noise, stream=f"{noise.stream}/tangent").normal(self.dims)
        tangent = eps - (eps * self.direction).sum(dim=1, keepdim=True) * self.direction
        tangent = tangent / tangent.norm(dim=1, keepdim=True)
        z = cosine[:, None] * self.direction + (1 - cosine.square())[:, None].sqrt() * tangent
        return z, self._log_normaliser + self.concentration[:, 0] * cosine

    def _cosines(self, noise: Noise) -> Tensor:
        kappa, m = self.concentration[:, 0], self.dims - 1
        kappa = kappa.expand(len(noise.index))
        # Wood's b, written so that it does not cancel where kappa is large.
        b = m / (2 * kappa + torch.sqrt(4 * kappa.square() + m**2))
        x = (1 - b) / (1 + b)
        c = kappa * x + m * torch.log1p(-x.square())
        cosine = torch.full_like(kappa, torch.nan)
        open_rows = torch.arange(len(kappa), device=kappa.device)
        for trial in range(_TRIES):
            part = Noise(noise.seed, f"{noise.stream}/trial {trial}", noise.index[open_rows])
            normal = part.normal(self.dims)
            # The first coordinate of a uniform direction is 2 Beta(m/2, m/2) - 1.
            beta = 0.5 * (1 + normal[:, 0] / normal.norm(dim=1))
            uniform = replace(part, stream=f"{part.stream}/uniform").uniform(1)[:, 0]
            bb, xx, kk = b[open_rows], x[open_rows], kappa[open_rows]
            w = (1 - (1 + bb) * beta) / (1 - (1 - bb) * beta)
            taken = kk * w + m * torch.log1p(-xx * w) - c[open_rows] >= uniform.log()
            cosine[open_rows[taken]] = w[taken].clamp(-1, 1)
            open_rows = open_rows[~taken]
            if not len(open_rows):
                break
        return cosine

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of codes [B, D] on the sphere, in nats with respect to its area."""
        return self._log_normaliser + self.concentration[:, 0] * (z * self.direction).sum(dim=1)

    def log_pairs(self, z: Tensor) -> Tensor:
        """Log-density of every code under every row: one product."""
        return z @ (self.concentration * self.direction).T + self._log_normaliser

    def describe(self) -> str:
        """Its family."""
        return f"von Mises-Fisher on the unit sphere in {self.dims} dimensions"


def log_area(dims: int) -> float:
    """ln of the area of the unit sphere in R^dims."""
    return math.log(2) + 0.5 * dims * math.log(math.pi) - math.lgamma(dims / 2)


def _log_bessel(order: float, kappa: Tensor) -> Tensor:
    """ln [I_order(kappa) / kappa^order], finite at kappa = 0."""
    k = kappa.detach().cpu().numpy()
    scaled = ive(order, k)
    large = (scaled > 1e-290) & (k > 1e-3)
    safe = np.where(large, k, 1.0)
    asymptotic = np.log(np.where(large, scaled, 1.0)) + safe - order * np.log(safe)
    # Where scipy underflows (large order, small kappa) the power series converges at once.
    term, total, quarter = np.ones_like(k), np.ones_like(k), np.where(large, 0.0, k) ** 2 / 4
    for j in range(1, _TERMS):
        term = term * quarter / (j * (order + j))
        total = total + term
    series = np.log(total) - order * math.log(2) - gammaln(order + 1)
    return torch.as_tensor(np.where(large, asymptotic, series), device=kappa.device)
