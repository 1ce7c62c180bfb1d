"""Audits of models beyond the diagonal Gaussian under N(0, I), against known answers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor
from torch import distributions as D

import collapsekit as ck
from collapsekit.errors import InputError, ModelError
from collapsekit.probes import KL, REGISTERED, ActiveUnits, LocalCollapse, MutualInformation
from tests import families

FAST = (KL(), ActiveUnits(), LocalCollapse(), MutualInformation())


class Encoder:
    """A function as an encoder, with a prior and a context."""

    def __init__(self, encode: Any, prior: Any = None, context: Any = None) -> None:
        self.encode, self.prior = encode, prior
        if context is not None:
            self.context = context


def normal(n: int, dims: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dims))


@pytest.mark.parametrize("name", families.MODELS)
def test_whole_audits_end_with_a_verdict_and_explained_gaps(name: str) -> None:
    model, lacking = families.MODELS[name]
    audit = ck.audit(model, families.data(), likelihood=("gaussian", 0.5))
    probes = {probe.name for probe in REGISTERED}
    assert set(audit.skipped) & probes == lacking
    assert not [f for f in audit.findings if f.code == "CK003"]  # nothing broke off
    assert audit.number("rate").known
    assert "collapse" in audit.to_html() or audit.to_html()
    assert ("kl" in audit.dimensions) == ("kl_distribution" not in lacking)


def test_full_covariance_of_a_linear_gaussian_model() -> None:
    # x = W z + N(0, s^2 I): the posterior is Gaussian with full covariance, the aggregate is the
    # prior, so that the rate is the information, 0.5 ln det(I + W'W / s^2).
    s, weights = 0.6, torch.tensor([[1.0, 0.8], [0.3, 1.1], [-0.5, 0.9]], dtype=torch.float64)
    precision = torch.eye(2, dtype=torch.float64) + weights.T @ weights / s**2
    covariance = torch.linalg.inv(precision)
    truth = 0.5 * float(torch.logdet(precision))
    z = torch.from_numpy(normal(3000, 2))
    x = z @ weights.T + s * torch.from_numpy(normal(3000, 3, 1))

    def encode(x: Tensor) -> D.Distribution:
        return D.MultivariateNormal(
            x @ weights @ covariance / s**2, covariance.expand(len(x), 2, 2)
        )

    audit = ck.audit(Encoder(encode), x, probes=FAST)
    rate, information = audit.number("rate"), audit.number("mutual_information")
    assert rate.low < truth < rate.high
    assert rate.high - rate.low < 0.15
    assert information.low < truth < information.high
    assert information.high - information.low < 0.5
    assert audit.number("active_units").value == 2


def test_a_posterior_that_is_the_prior_of_its_condition() -> None:
    # q = p(z | c) = N(+-2, 1): nothing is spent, yet z tells the class. The information is that of
    # a bit through a Gaussian channel, by quadrature.
    def prior(c: Tensor) -> tuple[Tensor, Tensor]:
        return 4.0 * c - 2.0, torch.ones_like(c)

    model = Encoder(lambda x: prior(x[:, :1]), prior, lambda x: x[:, :1])
    x = (np.arange(2000) % 2).astype(np.float64)[:, None]
    audit = ck.audit(model, x, probes=FAST)

    def density(z: float) -> float:
        return 0.5 * float(stats.norm.pdf(z, -2) + stats.norm.pdf(z, 2))

    entropy = integrate.quad(lambda z: -density(z) * math.log(density(z)), -12, 12)[0]
    truth = entropy - 0.5 * math.log(2 * math.pi * math.e)
    information = audit.number("mutual_information")
    assert audit.number("rate").value == pytest.approx(0.0, abs=1e-12)
    assert 0.5 < information.low < truth < information.high
    # Within a condition the means never move: by the prior's own scale nothing is active.
    assert audit.number("active_units").value == 0
    assert audit.provenance["prior"] == "given: a prior for each sample, by its condition"


def test_each_row_is_measured_against_its_own_prior() -> None:
    def prior(c: Tensor) -> tuple[Tensor, Tensor]:
        return 3.0 * c, 0.5 + c

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, 1:], torch.full_like(x[:, 1:], 0.3)

    x = np.concatenate([(np.arange(500) % 2)[:, None], normal(500, 1)], axis=1)
    model = Encoder(encode, prior, lambda x: x[:, :1])
    audit = ck.audit(model, x, probes=FAST)
    m, s = 3.0 * x[:, 0], 0.5 + x[:, 0]
    by_hand = np.log(s / 0.3) + (0.09 + (x[:, 1] - m) ** 2) / (2 * s**2) - 0.5
    np.testing.assert_allclose(audit.samples["kl_total"], by_hand, rtol=1e-10)
    by_hand_variance = np.var((x[:, 1] - m) / s, ddof=1)
    assert audit.dimensions["mean_variance"][0] == pytest.approx(by_hand_variance, rel=1e-10)


@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_activity_is_relative_to_the_priors_scale(shift: float) -> None:
    # Means with sd 0.05 are still under N(0, I), and fully active under a prior of that size.
    mean = 0.05 * normal(4000, 2)

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        return x + shift, torch.full_like(x, 0.01)

    assert ck.audit(Encoder(encode), mean, probes=FAST).number("active_units").value == 0
    means = torch.full((2, 2), shift, dtype=torch.float64)
    means[0] -= 0.03
    means[1] += 0.03
    components = D.Independent(D.Normal(means, torch.full_like(means, 0.04)), 1)
    prior = D.MixtureSameFamily(D.Categorical(torch.ones(2).double()), components)
    audit = ck.audit(Encoder(encode, prior), mean, probes=FAST)
    assert audit.number("active_units").value == 2
    # The prior's variance is 0.04^2 + 0.03^2 = 0.05^2 by the law of total variance.
    np.testing.assert_allclose(audit.dimensions["mean_variance"], 1.0, rtol=0.1)


def test_an_affine_flow_prior_gives_the_gaussian_priors_rate() -> None:
    mean, scale = torch.tensor([1.0, -1.0]).double(), torch.tensor([0.5, 2.0]).double()
    base = D.Independent(D.Normal(torch.zeros(2).double(), torch.ones(2).double()), 1)
    flow = D.TransformedDistribution(base, [D.transforms.AffineTransform(mean, scale)])
    x = normal(2000, 2)
    exact = ck.audit(Encoder(families.diagonal), x, prior=(mean, scale), probes=FAST)
    drawn = ck.audit(Encoder(families.diagonal), x, prior=flow, probes=FAST)
    gap = drawn.samples["kl_total"] - exact.samples["kl_total"]
    assert "kl_total_se" not in exact.samples
    told = drawn.samples["kl_total_se"]
    assert abs(gap.mean()) < 4 * gap.std() / math.sqrt(len(gap))
    assert float(np.sqrt((told**2).mean())) == pytest.approx(float(gap.std()), rel=0.1)
    assert "Monte Carlo" in drawn.number("rate").note


# -- discrete codes ------------------------------------------------------------------------------


def test_information_of_a_discrete_code_is_exact() -> None:
    # I = H(mean of the posteriors) - mean H, by hand; no draw enters.
    logits = normal(400, 6).reshape(400, 2, 3)

    def encode(x: Tensor) -> D.Distribution:
        return D.Independent(D.OneHotCategorical(logits=x.reshape(-1, 2, 3)), 1)

    found = [ck.audit(Encoder(encode), logits, probes=FAST, seed=seed) for seed in (0, 1)]
    p = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    joint = np.einsum("ia,ib->iab", p[:, 0], p[:, 1]).reshape(400, 9)
    by_hand = stats.entropy(joint.mean(axis=0)) - stats.entropy(joint, axis=1).mean()
    for audit in found:
        assert audit.number("mutual_information").value == pytest.approx(by_hand, rel=1e-10)
        by_kl = np.log(9) - stats.entropy(joint, axis=1).mean()
        assert audit.number("rate").value == pytest.approx(by_kl, rel=1e-10)
    shares = (joint**2 / joint.sum(axis=0)).sum(axis=1)
    np.testing.assert_allclose(found[0].samples["reidentification"], shares, rtol=1e-10)


def test_a_bit_that_is_the_input_and_one_that_never_moves() -> None:
    def encode(x: Tensor) -> D.Distribution:
        still = torch.zeros_like(x)
        return D.Independent(D.Bernoulli(logits=torch.cat([60 * x, still], dim=1)), 1)

    x = (2.0 * (np.arange(200) % 2) - 1)[:, None]
    audit = ck.audit(Encoder(encode), x)
    assert audit.number("mutual_information").value == pytest.approx(math.log(2), rel=1e-9)
    np.testing.assert_allclose(audit.dimensions["kl"], [math.log(2), 0.0], atol=1e-12)
    assert audit.number("locally_collapsed_fraction").value == 0.0


def test_local_collapse_of_a_discrete_code_is_a_tenth_of_the_priors_entropy() -> None:
    # One bit holds ln 2 = 0.69 nats: by the bar of one nat every sample would be collapsed.
    def encode(x: Tensor) -> D.Distribution:
        return D.Bernoulli(logits=x)

    kl = 0.1 * math.log(2)
    weak = _logit_with_kl(0.9 * kl)
    strong = _logit_with_kl(1.1 * kl)
    x = np.where(np.arange(100) < 30, weak, strong)[:, None]
    audit = ck.audit(Encoder(encode), x, probes=FAST)
    assert audit.number("locally_collapsed_fraction").value == pytest.approx(0.3)


def _logit_with_kl(nats: float) -> float:
    from scipy.optimize import brentq

    def excess(logit: float) -> float:
        p = 1 / (1 + math.exp(-logit))
        return math.log(2) - float(stats.entropy([p, 1 - p])) - nats

    return float(brentq(excess, 0.01, 5.0))


def test_the_decoder_gets_codes_as_it_was_trained() -> None:
    seen: list[Tensor] = []

    class Model:
        def __init__(self, kind: Any) -> None:
            self.kind = kind

        def encode(self, x: Tensor) -> D.Distribution:
            return self.kind(logits=x.reshape(-1, 2, 3).float())

        def decode(self, z: Tensor) -> Tensor:
            seen.append(z)
            return torch.zeros(len(z), 6)

    ck.audit(Model(D.OneHotCategorical), normal(40, 6))
    assert seen[0].shape[1:] == (2, 3)
    assert seen[0].dtype == torch.float32
    assert bool((seen[0].sum(dim=2) == 1).all())
    seen.clear()
    ck.audit(Model(D.Categorical), normal(40, 6))
    assert seen[0].shape[1:] == (2,)
    assert seen[0].dtype == torch.int64
    seen.clear()
    audit = ck.audit(
        Model(lambda logits: D.RelaxedOneHotCategorical(torch.tensor(0.5), logits=logits)),
        normal(40, 6),
    )
    assert bool((seen[0].sum(dim=2) == 1).all())
    assert any("relaxed" in note for note in audit.provenance["notes"])


def test_a_codebook_has_no_posterior() -> None:
    for encode in (lambda x: x.long(), lambda x: (x, x[:, :1].long())):
        with pytest.raises(ModelError, match="vector-quantised code has no posterior"):
            ck.audit(Encoder(encode), normal(20, 3))


# -- what cannot be used is told -----------------------------------------------------------------


def test_priors_that_cannot_be_used() -> None:
    x = normal(20, 2)
    with pytest.raises(InputError, match="needs the condition"):
        ck.audit(Encoder(families.diagonal, lambda c: (c, c)), x)
    with pytest.raises(InputError, match="usable prior for every row"):
        ck.audit(Encoder(families.diagonal, lambda c: (c, -c * 0), lambda x: x), x)
    with pytest.raises(InputError, match="code's dimensions"):
        ck.audit(Encoder(families.diagonal, D.MultivariateNormal(torch.zeros(3), torch.eye(3))), x)
    with pytest.raises(InputError, match="not distributions over the same codes"):
        ck.audit(Encoder(families.diagonal, D.OneHotCategorical(torch.ones(2))), x)
    with pytest.raises(InputError, match="classes"):
        ck.audit(Encoder(families.one_hot, np.ones(4) / 4), x)


def test_distributions_that_are_not_finite_lose_their_rows_alone() -> None:
    def encode(x: Tensor) -> D.Distribution:
        mean = torch.where(x > 1e5, torch.nan, x)
        factor = torch.eye(2, dtype=torch.float64).expand(len(x), 2, 2)
        return D.MultivariateNormal(mean, scale_tril=factor, validate_args=False)

    x = normal(50, 2)
    x[7] = 1e6
    audit = ck.audit(Encoder(encode), x, probes=FAST)
    lost = [f for f in audit.findings if f.code == "CK001"]
    assert [f.samples for f in lost] == [(7,)]
    assert audit.samples["kl_total"].notna().sum() == 49


def test_infinite_variances_are_no_constant_encoder() -> None:
    """Student's t with 1.5 degrees: no width to measure distances between codes in."""

    def encode(x: Tensor) -> D.Distribution:
        freedom = torch.full_like(x, 1.5)
        return D.Independent(D.StudentT(freedom, x, torch.full_like(x, 0.1)), 1)

    audit = ck.audit(encode, torch.from_numpy(normal(200, 2)))
    assert "no finite mean and variance" in audit.skipped["lower_lipschitz"]
    assert not any("it is constant" in f.message for f in audit.findings)


@pytest.mark.parametrize(
    "posterior, prior, told",
    [
        (lambda x: D.VonMises(x, torch.full_like(x, 4.0)), None, "angles"),
        (
            lambda x: D.VonMises(x, torch.full_like(x, 4.0)),
            D.VonMises(torch.zeros(1).double(), torch.full((1,), 1e-3).double()),
            "",
        ),
        (lambda x: D.Gamma(1 + x.abs(), torch.ones_like(x)), None, "the positive numbers"),
        (
            lambda x: D.Gamma(1 + x.abs(), torch.ones_like(x)),
            D.Gamma(torch.ones(1).double(), torch.ones(1).double()),
            "",
        ),
        (lambda x: D.Beta(1 + x.abs(), torch.ones_like(x)), None, "the interval from 0 to 1"),
        (lambda x: D.StudentT(torch.full_like(x, 5.0), x), None, ""),
        (lambda x: D.Normal(x, torch.ones_like(x)), None, ""),
    ],
)
def test_a_prior_on_another_space_is_told(posterior: Any, prior: Any, told: str) -> None:
    x = torch.randn(40, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    audit = ck.audit(posterior, x, prior=prior, probes=[KL()])
    found = [f.message for f in audit.findings if f.code == "CK016"]
    assert len(found) == (1 if told else 0)
    assert all(f"posteriors are on {told}, the prior is on the real line" in m for m in found)
