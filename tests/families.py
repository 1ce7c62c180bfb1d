"""One small model of each family of posteriors and priors, in two dimensions, with what it lacks.

Encoders are linear in the input, decoders hand the code back: nothing here is random.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import distributions as D

from collapsekit.door import Door
from collapsekit.samples import Samples, as_samples

N = 13


def data(n: int = N, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, 3))
    x[:, 2] = np.arange(n) % 2  # the condition, where there is one
    return x


class Model:
    """Encodes by a function of x[:, :2]; decodes a code to itself and a fixed third value."""

    def __init__(self, posterior: Callable[[Tensor], Any], prior: Any = None) -> None:
        self.posterior, self.prior = posterior, prior

    def encode(self, x: Tensor) -> Any:
        return self.posterior(x[:, :2])

    def decode(self, z: Tensor) -> Tensor:
        z = z.double().reshape(len(z), -1)[:, :2]
        return torch.cat([z, z[:, :1] * 0 + 0.5], dim=1)


class Conditional(Model):
    """The same with a prior that depends on the third value."""

    def context(self, x: Tensor) -> Tensor:
        return x[:, 2:]

    def decode(self, z: Tensor, context: Tensor) -> Tensor:  # type: ignore[override]
        return torch.cat([z, context], dim=1)


def diagonal(x: Tensor) -> tuple[Tensor, Tensor]:
    return 0.8 * x, torch.full_like(x, 0.4)


def full(x: Tensor) -> D.Distribution:
    factor = torch.tensor([[0.5, 0.0], [0.3, 0.4]], dtype=torch.float64)
    return D.MultivariateNormal(0.8 * x, scale_tril=factor.expand(len(x), 2, 2))


def mixture(x: Tensor) -> D.Distribution:
    means = torch.stack([0.8 * x, -0.5 * x], dim=1)
    components = D.Independent(D.Normal(means, torch.full_like(means, 0.4)), 1)
    return D.MixtureSameFamily(D.Categorical(logits=x), components)


def sphere(x: Tensor) -> Any:
    return VonMisesFisher(torch.cat([x, x[:, :1] * 0 + 0.3], dim=1), torch.full((len(x), 1), 8.0))


@dataclass
class VonMisesFisher:
    """As packages for hyperspherical VAEs call it."""

    loc: Tensor
    scale: Tensor


def one_hot(x: Tensor) -> D.Distribution:
    logits = torch.stack([x, -x, x * 0], dim=2)
    return D.Independent(D.OneHotCategorical(logits=logits), 1)


def bernoulli(x: Tensor) -> D.Distribution:
    return D.Independent(D.Bernoulli(logits=2 * x), 1)


def laplace(x: Tensor) -> D.Distribution:
    return D.Laplace(0.8 * x, torch.full_like(x, 0.4))


def vamp() -> D.Distribution:
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.0]], dtype=torch.float64)
    components = D.Independent(D.Normal(means, torch.full_like(means, 0.7)), 1)
    return D.MixtureSameFamily(D.Categorical(torch.tensor([0.5, 0.3, 0.2]).double()), components)


def flow() -> D.Distribution:
    base = D.Independent(D.Normal(torch.zeros(2).double(), torch.ones(2).double()), 1)
    bend = D.transforms.TanhTransform()
    spread = D.transforms.AffineTransform(torch.zeros(2).double(), 4.0)
    return D.TransformedDistribution(base, [bend, spread])


def correlated() -> D.Distribution:
    covariance = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    return D.MultivariateNormal(torch.zeros(2).double(), covariance)


def by_condition(context: Tensor) -> tuple[Tensor, Tensor]:
    mean = torch.cat([context - 0.5, 0.5 - context], dim=1)
    return mean, torch.full_like(mean, 0.9)


# What a family cannot have. A split: anything that reads the KL of one dimension.
SPLIT = {"kl_distribution", "traversals"}
STATE = {"dimension_state"}  # what a dimension adds to the KL of the others is known of Gaussians
GAUSSIAN = {"collisions"}
SPHERE = {"decoder_usage", "shuffle_cost", "decoder_jacobian", "decoder_folds"}
SPHERE |= {"decoder_folds_prior", "mean_codes"}
VECTORS = {
    "active_units",
    "effective_rank",
    "round_trip",
    "round_trip_prior",
    "latent_view",
    "traversals",
    "lower_lipschitz",
    "encoder_rank",
    "decoder_jacobian",
    "decoder_folds",
    "decoder_folds_prior",
    "mean_codes",
}

MODELS: dict[str, tuple[Model, set[str]]] = {
    "full covariance": (Model(full), SPLIT | GAUSSIAN),
    "mixture": (Model(mixture), SPLIT | STATE | GAUSSIAN),
    "von Mises-Fisher": (
        Model(sphere),
        SPLIT | STATE | GAUSSIAN | SPHERE,
    ),
    "one-hot": (Model(one_hot), VECTORS | GAUSSIAN),
    "Bernoulli": (Model(bernoulli), VECTORS | GAUSSIAN),
    "Laplace": (Model(laplace, D.Laplace(torch.zeros(2).double(), 1.0)), GAUSSIAN),
    "correlated prior": (Model(diagonal, correlated()), SPLIT),
    "VampPrior": (Model(diagonal, vamp()), SPLIT),
    "flow prior": (Model(diagonal, flow()), SPLIT),
    "prior by condition": (
        Conditional(diagonal, by_condition),
        {"information_budget", "principal_variances"},
    ),
}


def opened(name: str) -> tuple[Door, Samples]:
    """The model behind its door, and data for it."""
    return Door(MODELS[name][0], likelihood=("gaussian", 0.5)), as_samples(data())
