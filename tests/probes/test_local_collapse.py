"""Which little code is local collapse: one at the prior, not one that is short for everybody."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch import distributions as D

import collapsekit as ck


def audited(mean: np.ndarray, scale: np.ndarray) -> ck.Audit:
    both = {"mean": mean, "scale": scale}
    return ck.audit(lambda x: (x["mean"], x["scale"]), both, probes=[ck.probes.LocalCollapse()])


@pytest.mark.parametrize("nats", [0.6, 1.1])
@pytest.mark.parametrize("idle", [0, 3])
def test_a_short_code_is_not_local(nats: float, idle: int) -> None:
    # one dimension, rate = information = nats; beside it `idle` dimensions at the prior
    width = np.exp(-2 * nats)
    said = np.random.default_rng(0).normal(0, np.sqrt(1 - width), (2000, 1))
    mean = np.concatenate([said, np.zeros((2000, idle))], axis=1)
    audit = audited(mean, np.sqrt([width] + [1.0] * idle) * np.ones_like(mean))
    share = audit.number("locally_collapsed_fraction")
    assert share.low > 0.05  # by the 1 nat bar alone
    assert audit.verdict.name == "healthy"
    finding = next(f for f in audit.findings if f.code == "CK301")
    assert "0.0 % of all are wide in every direction" in finding.message


@pytest.mark.parametrize(("share", "word"), [(0.3, "local"), (0.99, "total"), (0.0, "healthy")])
def test_samples_at_the_prior_are(share: float, word: str) -> None:
    rng = np.random.default_rng(1)
    off = (np.arange(2000) < share * 2000)[:, None]
    mean = np.where(off, 0.0, rng.normal(0, np.sqrt(0.99), (2000, 4)))
    audit = audited(mean, np.where(off, 1.0, 0.1) * np.ones((1, 4)))
    assert audit.verdict.name == word


def test_weak_in_every_dimension_is() -> None:
    """Thirty dimensions of 0.01 nat each, wide and of one width: nobody's code carries anything."""
    mean = np.random.default_rng(2).normal(0, np.sqrt(0.02), (2000, 30))
    assert audited(mean, np.full_like(mean, np.sqrt(0.98))).verdict.name == "total"


@pytest.mark.parametrize(("lam", "dims"), [(0.5, 1), (0.3, 2), (0.9, 2), (0.7, 4)])
def test_weak_for_every_sample_alike_is_no_collapse_of_samples(lam: float, dims: int) -> None:
    """Exact posteriors of a linear model, 0.13 nat a dimension at least: one width for all."""
    mean = np.random.default_rng(3).normal(0, np.sqrt(lam / (1 + lam)), (2000, dims))
    audit = audited(mean, np.full_like(mean, np.sqrt(1 / (1 + lam))))
    finding = next(f for f in audit.findings if f.code == "CK301")
    assert (finding.severity, finding.verdict) == (ck.Severity.WARN, None)
    assert "weak for every sample alike" in finding.message


def test_between_local_and_total_is_not_settled() -> None:
    """94 % at the prior, 6 % narrow, 200 samples: either word is within their error."""
    at_prior = (np.arange(200) < 188)[:, None]
    mean = np.where(at_prior, 0.0, np.random.default_rng(4).normal(0, 1, (200, 2)))
    audit = audited(mean, np.where(at_prior, 1.0, 0.1) * np.ones((1, 2)))
    assert audit.verdict.name == "inconclusive"


class Plain:
    """N(0, I) in 8 dimensions, which does not say so."""

    def log_prob(self, z: Tensor) -> Tensor:
        return D.Normal(torch.zeros((), dtype=z.dtype), 1.0).log_prob(z).sum(dim=-1)

    def sample(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(*shape, 8, dtype=torch.float64)


def encoded(encode: Any, x: Tensor, prior: Any = None) -> ck.Audit:
    probes = [ck.probes.KL(), ck.probes.LocalCollapse()]
    return ck.audit(encode, x, prior=prior, probes=probes)


def one_of_a_mixture(x: Tensor) -> D.Distribution:
    parts = D.Independent(D.Normal(x[:, None], torch.ones_like(x)[:, None]), 1)
    return D.MixtureSameFamily(D.Categorical(logits=torch.zeros(len(x), 1)), parts)


@pytest.mark.parametrize("nats", [1.5, 1.1, 0.05])
@pytest.mark.parametrize("drawn", ["prior", "posterior"])
def test_noise_of_the_draws_collapses_no_sample(nats: float, drawn: str) -> None:
    """Width 1, |mean|^2 = 2 nats: the KL is that of every sample, on one side of each bar."""
    x = torch.randn(1000, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x *= (2 * nats) ** 0.5 / x.norm(dim=1, keepdim=True)
    if drawn == "prior":
        audit = encoded(lambda x: (x, torch.ones_like(x)), x, Plain())
    else:
        audit = encoded(one_of_a_mixture, x)
    assert audit.number("locally_collapsed_fraction").value == (nats < 1)
    assert not audit.samples["prior_matched"].any()
    error = audit.samples["kl_total"] - nats
    assert np.abs(error).max() < 0.05  # three standard deviations of |z|^2 / 8 were 0.6 and more


def test_undecided_samples_are_in_the_upper_end() -> None:
    """A KL that is the bar itself: the draws do not tell on which side it is."""
    x = torch.zeros(500, 1, dtype=torch.float64)
    prior = D.MixtureSameFamily(
        D.Categorical(torch.ones(2).double()), D.Normal(torch.tensor([-2.0, 2.0]).double(), 1.0)
    )
    # KL(N(0, 0.3) || half N(-2, 1), half N(2, 1)) by quadrature
    z = torch.linspace(-3, 3, 20001, dtype=torch.float64)
    q = D.Normal(torch.zeros((), dtype=torch.float64), 0.3)
    truth = float(torch.trapezoid(q.log_prob(z).exp() * (q.log_prob(z) - prior.log_prob(z)), z))
    probe = ck.probes.LocalCollapse(bar=truth)
    audit = ck.audit(lambda x: (x, torch.full_like(x, 0.3)), x, prior=prior, probes=[probe])
    share = audit.number("locally_collapsed_fraction")
    assert share.value < 0.1
    assert share.high > 0.8  # 0.95, less what the skewness of eight draws takes
    assert "within their draws' error" in share.note
    both = ck.audit(
        lambda x: (x, torch.full_like(x, 0.3)), x, prior=prior, probes=[probe, ck.probes.KL()]
    )
    noise = float(np.sqrt((both.samples["kl_total_se"] ** 2).mean()))
    assert f"known from draws to {noise:.2g} nats" in both.number(share.name).note
    # The true curve is a step at the one KL that all have; noise spreads it, its limits hold it.
    curve = both.tables["local_collapse_curve"]
    before = curve[curve["threshold"] < truth]
    assert before["low"].max() < 0.01 < 0.05 < before["share"].max()


def narrow_along(direction: Tensor) -> Any:
    """One informative direction, 0.1 prior variances wide; the prior in all others."""
    covariance = torch.eye(8, dtype=torch.float64) - 0.9 * torch.outer(direction, direction)
    return lambda x: D.MultivariateNormal(x * direction, covariance.expand(len(x), 8, 8))


def test_turning_a_code_changes_nothing() -> None:
    g = torch.Generator().manual_seed(1)
    x = 0.9**0.5 * torch.randn(2000, 1, generator=g, dtype=torch.float64)
    axis, diagonal = torch.eye(8, dtype=torch.float64)[0], torch.full((8,), 8**-0.5).double()
    found = []
    for direction in (axis, diagonal):
        audit = encoded(narrow_along(direction), x)
        finding = next(f for f in audit.findings if f.code == "CK301")
        found.append((finding.severity, finding.verdict, finding.message))
    assert found[0] == found[1]
    assert found[0][:2] == (ck.Severity.OK, "healthy")


def test_a_mixture_is_as_wide_as_its_narrowest_direction() -> None:
    """Two components on a diagonal line: each dimension has variance 1, across it is 0.64."""
    x = torch.zeros(300, 1, dtype=torch.float64)
    ends = 0.6 * torch.tensor([[1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)

    def encode(x: Tensor) -> D.Distribution:
        parts = D.Independent(D.Normal(ends.expand(len(x), 2, 2), 0.8), 1)
        weights = D.Categorical(torch.ones(len(x), 2, dtype=torch.float64))
        return D.MixtureSameFamily(weights, parts)

    audit = ck.audit(encode, x, probes=[ck.probes.LocalCollapse(wide=0.65)])
    assert audit.number("locally_collapsed_fraction").value == 1
    finding = next(f for f in audit.findings if f.code == "CK301")
    assert "0.0 % of all are wide in every direction" in finding.message


def test_samples_at_the_prior_beside_weak_ones_are_local() -> None:
    """Nobody is narrower than half of the prior's variance, and yet two kinds stand apart."""
    at_prior = (np.arange(2000) < 1200)[:, None]
    said = np.random.default_rng(5).normal(0, np.sqrt(0.4), (2000, 1))
    audit = audited(np.where(at_prior, 0.0, said), np.where(at_prior, 1.0, np.sqrt(0.6)))
    assert audit.verdict.name == "local"
