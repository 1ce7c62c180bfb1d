"""Dead dimensions where the KL does not split: the word is that of the product posterior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

import collapsekit as ck

DIMS = 16
GAIN = torch.randn(32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Plain:
    """N(0, I), which does not say so."""

    def log_prob(self, z: Tensor) -> Tensor:
        return Normal(torch.zeros((), dtype=z.dtype), 1.0).log_prob(z).sum(dim=-1)

    def sample(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(*shape, DIMS, dtype=torch.float64)


def encode(x: Tensor) -> tuple[Tensor, Tensor]:
    """The true posterior of the one dimension that makes x; the prior in 15 others."""
    mean, scale = torch.zeros(len(x), DIMS).double(), torch.ones(len(x), DIMS).double()
    precision = 1 + GAIN @ GAIN / 0.01
    mean[:, 0], scale[:, 0] = x @ GAIN / 0.01 / precision, precision**-0.5
    return mean, scale


def full(x: Tensor) -> MultivariateNormal:
    mean, scale = encode(x)
    return MultivariateNormal(mean, scale_tril=torch.diag_embed(scale))


def mixed(x: Tensor) -> MixtureSameFamily:
    """One component each: the posterior of `encode`, in a family without moments of its own."""
    mean, scale = encode(x)
    return MixtureSameFamily(
        Categorical(logits=torch.zeros(len(x), 1)),
        Independent(Normal(mean[:, None], scale[:, None]), 1),
    )


def decode(z: Tensor) -> Tensor:
    return z[:, :1] * GAIN


def samples() -> Tensor:
    g = torch.Generator().manual_seed(2)
    z, noise = (torch.randn(400, k, generator=g, dtype=torch.float64) for k in (1, 32))
    return z * GAIN + 0.1 * noise


@pytest.mark.parametrize(
    ("code", "prior"), [(encode, None), (full, None), (encode, Plain()), (mixed, None)]
)
def test_the_same_word_for_the_same_code(code: Callable[[Tensor], Any], prior: Any) -> None:
    audit = ck.audit((code, decode), samples(), prior=prior)
    assert audit.verdict.name == "partial"
    assert (audit.dimensions["role"] == "dead").tolist() == [False] + [True] * 15
    if code is not mixed:
        assert audit.summary.loc["passive_dimensions", "value"] == 15


def test_a_mixture_without_a_decoder_does_not_settle_it() -> None:
    assert ck.audit(mixed, samples()).verdict.name == "inconclusive"


def test_a_code_in_the_correlation_is_not_passive() -> None:
    """Both marginals are N(0, 1) for every sample; what the code tells is in the correlation."""
    x = torch.randn(800, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def encode(x: Tensor) -> MultivariateNormal:
        covariance = torch.eye(3, dtype=torch.float64).repeat(len(x), 1, 1)
        covariance[:, 0, 1] = covariance[:, 1, 0] = 0.9 * x[:, 0].sign()
        return MultivariateNormal(torch.zeros(len(x), 3).double(), covariance)

    audit = ck.audit(encode, x)
    assert audit.dimensions["state"].tolist() == ["active", "active", "passive"]
