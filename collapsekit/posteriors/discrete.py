"""Categorical codes: Bernoulli variables are categorical ones with two classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from collapsekit.noise import Noise
from collapsekit.posteriors.base import Derived

_STATES = 4096  # joint states that are listed at most


@dataclass(frozen=True)
class Categorical(Derived):
    """D independent categorical variables of C classes, a row a sample.

    Parameters
    ----------
    log_p : Tensor, float64 [B, D, C]
        Log-probabilities; -inf for a class that never occurs.

    Notes
    -----
    A code holds class numbers, float64 [B, D]; the door turns them into what the decoder takes.
    """

    log_p: Tensor

    @property
    def splits(self) -> bool:
        """A product over dimensions."""
        return True

    def tensors(self) -> tuple[Tensor, ...]:
        """Log-probabilities."""
        return (self.log_p,)

    def like(self, tensors: Sequence[Tensor]) -> Self:
        """Other probabilities."""
        return type(self)(*tensors)

    @property
    def dims(self) -> int:
        """Number of variables."""
        return self.log_p.shape[1]

    @property
    def classes(self) -> int:
        """Number of classes of each."""
        return self.log_p.shape[2]

    @property
    def centre(self) -> Tensor:
        """The likeliest class of each variable."""
        return self.log_p.argmax(dim=2).to(torch.float64)

    @cached_property
    def entropy(self) -> Tensor:
        """Entropy of each variable in nats, [B, D]."""
        p = self.log_p.exp()
        return -torch.where(p > 0, p * self.log_p, 0.0).sum(dim=2)

    @cached_property
    def aggregate(self) -> Tensor:
        """Mean probability of each class over all rows, [D, C]."""
        total = torch.zeros_like(self.log_p[:1].sum(dim=0))
        for part in self.log_p.split(1024):
            total += part.exp().sum(dim=0)
        return total / max(self.rows, 1)

    def draw(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """Class numbers by their distribution functions, and their log-probability."""
        ends = self.log_p.exp().cumsum(dim=2)
        uniform = noise.uniform(self.dims)[:, :, None] * ends[:, :, -1:]
        z = (uniform >= ends).sum(dim=2).clamp(max=self.classes - 1).to(torch.float64)
        return z, self.log_prob(z)

    def log_each(self, z: Tensor) -> Tensor:
        """Log-probability of each variable's class, nats [B, D]."""
        log_p = self.log_p.expand(len(z), -1, -1)
        return log_p.gather(2, z.to(torch.int64)[:, :, None])[:, :, 0]

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-probability of class numbers [B, D] in nats, [B]."""
        return self.log_each(z).sum(dim=1)

    def kl(self, prior: Categorical) -> Tensor:
        """KL per sample and variable in nats, [B, D]; inf where the prior excludes a class."""
        p = self.log_p.exp()
        return torch.where(p > 0, p * (self.log_p - prior.log_p), 0.0).sum(dim=2).clamp(min=0.0)

    def states(self) -> Tensor | None:
        """Every joint code [M, D], where there are at most 4,096; else None."""
        if self.dims * math.log(self.classes) > math.log(_STATES) + 1e-9:
            return None
        one = torch.arange(self.classes, dtype=torch.float64, device=self.log_p.device)
        return torch.cartesian_prod(*[one] * self.dims).reshape(-1, self.dims)

    def at_states(self, states: Tensor) -> Tensor:
        """Log-probability of every joint code [M, D] under every row: nats [B, M]."""
        chosen = torch.nn.functional.one_hot(states.to(torch.int64), self.classes)
        # A class that never occurs has -inf, which a product with 0 would turn into NaN.
        finite = self.log_p.clamp(min=-1e9).flatten(1)
        total = finite @ chosen.flatten(1).to(torch.float64).T
        return torch.where(total < -1e8, -torch.inf, total)

    def describe(self) -> str:
        """Its family and size."""
        if self.classes == 2:
            return f"{self.dims} binary variables"
        return f"{self.dims} categorical variables of {self.classes} classes"
