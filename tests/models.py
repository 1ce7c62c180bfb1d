"""Analytic VAEs: models and posteriors small enough to know the answer by hand (METRICS 7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Arrays = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class LinearVAE:
    """x = W z + N(0, s^2 I) with orthogonal columns of W, encoded by its exact posterior.

    ``lam[j]`` is w_j / s^2; the posterior of dimension j has variance 1 / (1 + lam_j).
    """

    lam: tuple[float, ...]
    scale: float = 0.5

    @property
    def loadings(self) -> Tensor:
        return torch.tensor(self.lam, dtype=torch.float64).sqrt() * self.scale

    @property
    def widths(self) -> Tensor:
        return 1.0 / (1.0 + torch.tensor(self.lam, dtype=torch.float64))  # posterior variances

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x.double() * self.loadings / self.scale**2 * self.widths
        return mean, self.widths.sqrt().expand_as(mean)

    def decode(self, z: Tensor) -> Tensor:
        return z * self.loadings

    def sample(self, n: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(n, len(self.lam), generator=generator, dtype=torch.float64)
        noise = torch.randn(z.shape, generator=generator, dtype=torch.float64)
        return self.decode(z) + self.scale * noise


P1 = LinearVAE(tuple(10 ** (2 - 5 * j / 31) for j in range(32)))


def p1(n: int, seed: int = 1) -> Arrays:
    mean, scale = P1.encode(P1.sample(n, seed))
    return mean.numpy(), scale.numpy()


def p2(n: int, seed: int = 2) -> Arrays:
    c = 0.05
    mean = np.sqrt(0.9) * c * np.random.default_rng(seed).standard_normal((n, 1))
    return mean, np.full((n, 1), np.sqrt(0.1) * c)


def p3(n: int, seed: int = 3) -> Arrays:
    return np.full((n, 1), 2.0), np.full((n, 1), 0.5)


def p4(n: int, seed: int = 4) -> Arrays:
    scale = np.where(np.arange(n) % 2 == 0, 0.1, 1.0)[:, None]
    return np.zeros((n, 1)), scale


def p5(n: int, seed: int = 5) -> Arrays:
    part = np.arange(n) % 20  # 18 of 20 at the prior, one at +3, one at -3
    mean = np.select([part == 18, part == 19], [3.0, -3.0], 0.0)[:, None]
    scale = np.where(part >= 18, 0.1, 1.0)[:, None]
    return mean, scale


def p7(n: int, seed: int = 7) -> Arrays:
    covariance = np.array([[0.9, 0.89], [0.89, 0.9]])
    mean = np.random.default_rng(seed).multivariate_normal(np.zeros(2), covariance, n)
    return mean, np.full((n, 2), np.sqrt(0.1))


def p8(n: int, seed: int = 8) -> Arrays:
    # lam = 99 along (1, 1) / sqrt 2: the exact mean of the true posterior, best mean-field widths.
    # Posterior mean along the axis has variance lam / (1 + lam) = 0.99.
    along = np.sqrt(0.99) * np.random.default_rng(seed).standard_normal(n)
    mean = np.stack([along, along], axis=1) / np.sqrt(2)
    return mean, np.full((n, 2), np.sqrt(1 / 50.5))


def p10(n: int = 32, seed: int = 10) -> Arrays:
    return np.zeros((n, 32)), np.ones((n, 32))


class Constant:
    """An encoder frozen at one posterior and a decoder that ignores the code."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shape = (len(x), 4)
        return torch.zeros(shape, dtype=torch.float64), torch.ones(shape, dtype=torch.float64)

    def decode(self, z: Tensor) -> Tensor:
        return torch.full((len(z), 6), 0.25, dtype=torch.float64)


class TinyVAE(torch.nn.Module):
    """A small random network with a dropout layer, to be put in evaluation mode by the audit."""

    def __init__(self, inputs: int = 6, dims: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.inner = torch.nn.Linear(inputs, 2 * dims)
            self.outer = torch.nn.Linear(dims, inputs)
        self.dropout = torch.nn.Dropout(0.5)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.inner(self.dropout(x)).chunk(2, dim=1)
        return mean, torch.nn.functional.softplus(raw)

    def decode(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.outer(z))


def images(n: int = 60, seed: int = 0) -> Any:
    """Small float images in [0, 1]."""
    return np.random.default_rng(seed).random((n, 1, 4, 4)).astype(np.float32)
