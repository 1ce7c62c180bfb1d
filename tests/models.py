"""Analytic VAEs: models and posteriors small enough to know the answer by hand."""

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


# -- more posteriors; test_constructed_answers.py has the answers, each found twice ----------------


def four_symbols(n: int, seed: int = 21) -> Arrays:
    """A discrete code: four codes far apart, drawn with these probabilities."""
    pick = np.random.default_rng(seed).choice(4, size=n, p=[0.5, 0.25, 0.125, 0.125])
    return np.array([-3.0, -1.0, 1.0, 3.0])[pick][:, None], np.full((n, 1), 0.02)


def coin(n: int, seed: int = 22) -> Arrays:
    """Two codes that overlap: N(-1, 1) and N(1, 1)."""
    sign = np.random.default_rng(seed).choice([-1.0, 1.0], size=n)
    return sign[:, None], np.ones((n, 1))


def off_unit(n: int, seed: int = 23) -> Arrays:
    """For the prior N(1, 4): the aggregate is that prior, 0.4 of its variance is width."""
    mean = 1.0 + 2.0 * np.sqrt(0.6) * np.random.default_rng(seed).standard_normal((n, 1))
    return mean, np.full((n, 1), 2.0 * np.sqrt(0.4))


def laplace(n: int, seed: int = 24) -> Arrays:
    return np.random.default_rng(seed).laplace(0.0, 0.6, (n, 1)), np.full((n, 1), 0.5)


EQUICORRELATED = np.full((3, 3), 0.48) + 0.32 * np.eye(3)  # variance 0.8, correlation 0.6


def equicorrelated(n: int, seed: int = 25) -> Arrays:
    mean = np.random.default_rng(seed).multivariate_normal(np.zeros(3), EQUICORRELATED, n)
    return mean, np.full((n, 3), np.sqrt(0.2))


def rotated(n: int, seed: int = 25) -> Arrays:
    """`equicorrelated` turned by a rotation: with one common width, the same information."""
    turn = np.linalg.qr(np.random.default_rng(99).standard_normal((3, 3)))[0]
    mean, scale = equicorrelated(n, seed)
    return mean @ turn, scale


def half_sharp(n: int, seed: int = 26) -> Arrays:
    """Half of the samples at the prior, half near-deterministic; the aggregate is N(0, 1)."""
    rng = np.random.default_rng(seed)
    sharp = rng.random(n) < 0.5
    mean = np.where(sharp, np.sqrt(1 - 1e-4) * rng.standard_normal(n), 0.0)
    return mean[:, None], np.where(sharp, 0.01, 1.0)[:, None]


def classes(n: int, seed: int = 27) -> Arrays:
    """Eight classes in equal numbers, one posterior each, at the corners of a cube."""
    corner = np.arange(n) % 8
    mean = np.stack([2.0 * (corner >> bit & 1) - 1.0 for bit in range(3)], axis=1)
    return mean, np.full((n, 3), 0.1)


def repeated(n: int, seed: int = 28) -> Arrays:
    """Twenty distinct samples, each there n / 20 times."""
    return (np.arange(n) % 20 - 9.5)[:, None], np.full((n, 1), 0.05)


def student(n: int, seed: int = 29) -> Arrays:
    """A heavy-tailed code in the widths: sigma^2 is inverse-gamma, so the aggregate Student's."""
    gamma = np.random.default_rng(seed).gamma(2.5, size=n)
    return np.zeros((n, 1)), np.sqrt(0.75 / gamma)[:, None]  # nu = 5, tau^2 = 0.3


def ring(n: int, seed: int = 30) -> Arrays:
    """Means on a circle of radius 1.2: two dimensions, one of them enough."""
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, n)
    return 1.2 * np.stack([np.cos(angle), np.sin(angle)], axis=1), np.full((n, 2), 0.3)


def uniform(n: int, seed: int = 31) -> Arrays:
    return np.random.default_rng(seed).uniform(-1.7, 1.7, (n, 1)), np.full((n, 1), 0.2)


def one_of_three(n: int, seed: int = 32) -> Arrays:
    """One dimension says everything; one is narrow for all, one away from the prior for all."""
    said = np.sqrt(0.75) * np.random.default_rng(seed).standard_normal(n)
    mean = np.stack([said, np.zeros(n), np.full(n, 1.5)], axis=1)
    return mean, np.tile([0.5, 0.4, 1.0], (n, 1))
