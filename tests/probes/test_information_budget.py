"""The budget of discrete codes by exact sums, and of families that are no products."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch import distributions as D

import collapsekit as ck
from collapsekit.probes import InformationBudget, MutualInformation
from collapsekit.probes.information_budget import _by_moments
from collapsekit.results import Audit
from collapsekit.streaming import Grouped, Moments, keyed_groups

PROBES = (ck.probes.KL(), MutualInformation(), InformationBudget())

#: p(z_l | x) of three variables of three classes for four inputs: the second repeats the first,
#: the third says nothing but sits off the uniform prior.
FIRST = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [1 / 3, 1 / 3, 1 / 3]])
TABLE = np.stack([FIRST, FIRST, np.tile([0.7, 0.2, 0.1], (4, 1))], axis=1)


class Classes:
    """Encodes the number of an input as given tables."""

    def __init__(self, table: np.ndarray = TABLE) -> None:
        self.log_p = torch.as_tensor(np.log(table))

    def encode(self, x: Tensor) -> D.Distribution:
        return D.Independent(D.OneHotCategorical(logits=self.log_p[x[:, 0].long()]), 1)


def audited(repeats: int = 100) -> Audit:
    x = np.tile(np.arange(4.0), repeats)[:, None]
    return ck.audit(Classes(), x, probes=PROBES)


def entropy(p: np.ndarray) -> float:
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def test_information_of_each_variable_is_exact() -> None:
    columns = audited().dimensions
    for at in range(3):
        told = entropy(TABLE[:, at].mean(axis=0)) - np.mean([entropy(p) for p in TABLE[:, at]])
        assert columns["information"][at] == pytest.approx(told, abs=1e-12)
        # The other way: the part of the KL that is not the aggregate's.
        aside = entropy(TABLE[:, at].mean(axis=0))
        assert columns["aggregate_kl"][at] == pytest.approx(math.log(3) - aside, abs=1e-12)
    assert columns["information"][2] == pytest.approx(0.0, abs=1e-12)
    # n - 1 = 399: the spread of KL(q_i || q^) over the four inputs, each a hundred times.
    each = [float((q * np.log(q / FIRST.mean(axis=0))).sum()) for q in FIRST]
    error = np.std(np.tile(each, 100), ddof=1) / 20
    assert columns["information_se"][0] == pytest.approx(error, rel=1e-9)


def test_the_parts_of_a_discrete_budget_add_up() -> None:
    audit = audited()
    joint = np.zeros((3, 3, 3))
    for row, code in itertools.product(range(4), itertools.product(range(3), repeat=3)):
        joint[code] += math.prod(TABLE[row, at, c] for at, c in enumerate(code)) / 4
    information = entropy(joint) - np.mean([sum(map(entropy, row)) for row in TABLE])
    marginals = sum(entropy(joint.sum(axis=tuple({0, 1, 2} - {at}))) for at in range(3))
    overlap = marginals - entropy(joint)
    mismatch = 3 * math.log(3) - marginals
    assert overlap > 0.05  # the second repeats the first
    parts = audit.tables["information_budget"].set_index("part")["value"]
    assert parts["information"] == pytest.approx(information, abs=1e-9)
    assert parts["dimension-wise KL"] == pytest.approx(mismatch, abs=1e-9)
    assert parts["total correlation"] == pytest.approx(overlap, abs=1e-9)
    assert parts[:3].sum() == pytest.approx(parts["rate"], abs=1e-9)
    for name, truth in (("dimensionwise_kl", mismatch), ("total_correlation", overlap)):
        number = audit.number(name)
        assert number.low - 1e-12 <= truth <= number.high + 1e-12, name


def test_a_binary_code_of_fresh_samples_is_within_its_error() -> None:
    class Binary:
        def encode(self, x: Tensor) -> D.Distribution:
            return D.Independent(D.Bernoulli(logits=3 * x), 1)

    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    p = 1 / (1 + np.exp(-3 * nodes))
    inside = 3 * nodes * (1 - p) + np.log1p(np.exp(-3 * nodes))  # entropy of a logit of 3 x
    truth = math.log(2) - float((weights * inside).sum() / weights.sum())
    x = np.random.default_rng(4).normal(size=(3000, 2))
    columns = ck.audit(Binary(), x, probes=PROBES).dimensions
    for at in range(2):
        off = columns["information"][at] - truth
        assert abs(off) < 3.5 * columns["information_se"][at]
    assert (columns["information_se"] < 0.01).all()


def test_a_class_that_one_sample_alone_uses() -> None:
    table = np.tile([[0.5, 0.5, 0.0]], (4, 1))[:, None]
    table[3, 0] = [0.0, 0.0, 1.0]
    with np.errstate(divide="ignore"):
        audit = ck.audit(Classes(table), np.arange(4.0)[:, None], probes=PROBES)
    alone = entropy(np.array([0.25, 0.75]))
    assert audit.dimensions["information"][0] == pytest.approx(alone, abs=1e-12)
    assert audit.number("dimensionwise_kl").known


class Full:
    """Full covariance, its mean a linear function of the input."""

    def __init__(self, slope: float, mean: float, factor: list[list[float]]) -> None:
        self.slope, self.mean = slope, mean
        self.factor = torch.tensor(factor, dtype=torch.float64)

    def encode(self, x: Tensor) -> D.Distribution:
        factor = self.factor.expand(len(x), 2, 2)
        return D.MultivariateNormal(self.mean + self.slope * x, scale_tril=factor)


def test_whole_codes_have_a_budget_where_dimensions_have_none() -> None:
    # q(z | x) = N(2, S) for every x: all of the rate is mismatch.
    model = Full(0.0, 2.0, [[0.5, 0.0], [0.3, 0.4]])
    x = np.random.default_rng(0).normal(size=(500, 2))
    audit = ck.audit(model, x, probes=PROBES)
    prior = D.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    posterior = D.MultivariateNormal(torch.full((2,), 2.0).double(), scale_tril=model.factor)
    truth = float(D.kl_divergence(posterior, prior))
    number = audit.number("aggregate_mismatch")
    assert number.value == pytest.approx(truth, abs=1e-6)
    assert number.low - 1e-9 <= truth <= number.high + 1e-9
    parts = audit.tables["information_budget"].set_index("part")["value"]
    assert parts["KL(aggregate || prior)"] == pytest.approx(truth, abs=1e-6)
    assert "information_budget" not in audit.skipped
    # x ~ N(0, I), z = 0.8 x + noise of covariance I - 0.64 I: the aggregate is the prior.
    matched = ck.audit(Full(0.8, 0.0, [[0.6, 0.0], [0.0, 0.6]]), x, probes=PROBES)
    number = matched.number("aggregate_mismatch")
    assert number.low == 0.0
    assert number.value < 0.1
    assert number.high < 0.3


def test_a_mixture_as_prior_has_a_budget_of_whole_codes() -> None:
    # Each posterior is one component of the prior: the aggregate is the prior, I = ln 2 (nearly).
    class Two:
        prior = D.MixtureSameFamily(
            D.Categorical(torch.ones(2).double()),
            D.Independent(
                D.Normal(torch.tensor([[-4.0], [4.0]]).double(), torch.full((2, 1), 0.5).double()),
                1,
            ),
        )

        def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return 4.0 * x.sign(), torch.full_like(x, 0.5)

    # No two inputs alike: copies would widen the bracket.
    x = (np.where(np.arange(400) % 2, 1.0, -1.0) * (1 + np.arange(400)))[:, None]
    audit = ck.audit(Two(), x, probes=PROBES)
    assert audit.number("mutual_information").value == pytest.approx(math.log(2), abs=1e-6)
    number = audit.number("aggregate_mismatch")
    assert number.low <= 0.0 <= number.value + 1e-12
    assert number.high < 0.05


def test_a_prior_for_each_sample_says_why_there_is_no_budget() -> None:
    class Conditional:
        def context(self, x: Tensor) -> Tensor:
            return x[:, :1]

        def prior(self, context: Tensor) -> tuple[Tensor, Tensor]:
            return context, torch.ones_like(context)

        def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x[:, :1] + 0.1, torch.ones_like(x[:, :1])

    audit = ck.audit(Conditional(), np.random.default_rng(0).normal(size=(60, 1)), probes=PROBES)
    assert "a prior for each sample" in audit.skipped["information_budget"]
    assert "what the condition tells" in audit.skipped["information_budget"]


def by_moments(z: np.ndarray) -> float:
    groups = keyed_groups(torch.arange(len(z)))
    codes = Grouped.of(groups, lambda rows: Moments.of(z[rows.numpy()]))
    return _by_moments(codes, range(z.shape[1]))


def test_the_limit_by_moments_is_unbiased_for_a_matched_code() -> None:
    """A code that is N(0, I): its mismatch is 0, though 400 dimensions of 500 rows read 0.8."""
    rng = np.random.default_rng(0)
    found = np.array([by_moments(rng.normal(size=(500, 400))) for _ in range(40)])
    # Two standard errors below 0 on average; the limit may lie above 0 in one of forty.
    assert np.mean(found > 0) <= 0.15
    assert np.mean(found) > -0.5


@pytest.mark.parametrize(("n", "dims"), [(20, 16), (50, 64)])
def test_the_limit_by_moments_holds_where_dimensions_move_together(n: int, dims: int) -> None:
    """One normal value in every dimension: a mismatch of 0, whose errors add up over them."""
    rng = np.random.default_rng(n)
    found = [by_moments(np.tile(rng.normal(size=(n, 1)), dims)) for _ in range(80)]
    # 0.025 asked for: more than 6 of 80 have a chance of 0.004
    assert np.sum(np.array(found) > 0) <= 6


@pytest.mark.slow
def test_the_interval_of_the_total_correlation_holds_the_truth() -> None:
    """Equicorrelated means: the aggregate is N(0, A) with ones on A's diagonal, ln det A known.

    The rate and the mismatch err by sampling as much as the information does.
    """
    dims, width, n, correlation = 20, 0.7, 500, 0.9
    means = np.full((dims, dims), correlation) + (1 - correlation) * np.eye(dims)
    aggregate = (1 - width**2) * means + width**2 * np.eye(dims)
    truth = -0.5 * np.linalg.slogdet(aggregate)[1]
    factor = np.linalg.cholesky(means) * (1 - width**2) ** 0.5
    held = 0
    for seed in range(20):
        mean = np.random.default_rng(seed).standard_normal((n, dims)) @ factor.T
        budget = ck.probes.information_budget(mean, np.full_like(mean, width), seed=seed)
        low, high = budget.loc["total correlation", ["low", "high"]]
        held += low <= truth <= high
        assert high - low < 2
    assert held >= 17  # 19 of 20 expected at least


def test_a_value_at_its_biased_end_is_told_with_its_bracket() -> None:
    """A matched code of needles: 200 samples cannot tell its mismatch, 0, from 3.5 nats."""
    mean = np.random.default_rng(0).standard_normal((200, 2))
    both = {"mean": mean, "scale": np.full_like(mean, 0.001)}
    audit = ck.audit(lambda x: (x["mean"], x["scale"]), both, probes=[InformationBudget()])
    finding = next(f for f in audit.findings if f.code == "CK403")
    number = audit.number("dimensionwise_kl")
    assert number.low == 0 < 3 < number.value
    assert number.interval() in finding.message
    assert finding.severity is ck.Severity.OK  # judged by the lower end
    assert "information of 2 of them is at its ceiling, ln 200" in finding.message
