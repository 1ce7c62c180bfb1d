"""Information of a dimension from one draw a sample: its error, and what it is held against."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

from collapsekit.observation import Observation
from collapsekit.probe import measure
from collapsekit.probes import InformationBudget
from collapsekit.probes._controlled import each
from collapsekit.results import Result
from collapsekit.streaming import Grouped, Paired
from tests import models


def budget(mean: np.ndarray, scale: np.ndarray, seed: int = 0) -> Result:
    return measure(InformationBudget(), Observation.of_arrays(mean, scale, seed=seed))


def columns(mean: np.ndarray, scale: np.ndarray, seed: int = 0) -> pd.DataFrame:
    found = budget(mean, scale, seed).dimensions
    assert found is not None
    return found


def kl(mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    found: np.ndarray = 0.5 * (mean**2 + scale**2 - 1) - np.log(scale)
    return found


def aggregate_ratio(mean: np.ndarray, scale: np.ndarray) -> float:
    """Mean over the samples of E_{z ~ q_i} ln q^(z) / p(z) in one dimension, by quadrature."""
    grid = np.linspace(-14, 14, 40_001)
    each_one = scipy.stats.norm.pdf(grid[:, None], mean, scale)
    aggregate = each_one.mean(axis=1)
    ratio = np.log(aggregate) - scipy.stats.norm.logpdf(grid)
    return float(np.trapezoid(aggregate * ratio, grid))


@pytest.mark.parametrize("n", [3, 200])
def test_one_posterior_for_all_tells_nothing_and_that_is_sure(n: int) -> None:
    """KL_j - ln q^/p alone errs by 1.46 nats a sample in the first dimension."""
    off, width = np.array([0.0, 2.0, 0.3]), np.array([1.75, 0.5, 1.0])
    result = budget(np.tile(off, (n, 1)), np.tile(width, (n, 1)))
    assert result.dimensions is not None
    np.testing.assert_allclose(result.dimensions["information"], 0.0, atol=1e-4)
    np.testing.assert_allclose(result.dimensions["information_se"], 0.0, atol=1e-4)
    np.testing.assert_allclose(result.dimensions["aggregate_kl"], kl(off, width), atol=1e-4)
    np.testing.assert_allclose(result.dimensions["aggregate_kl_se"], 0.0, atol=1e-4)
    mismatch, overlap = result.numbers
    assert mismatch.high - kl(off, width).sum() < 1e-3
    assert overlap.value == pytest.approx(0.0, abs=1e-3)
    assert overlap.low == 0.0
    if n > 3:  # without the own posterior the bracket is wide, of three
        assert overlap.high < 1e-2


def test_a_collapsed_dimension_reads_nothing() -> None:
    found = columns(np.zeros((100, 2)), np.ones((100, 2)))
    np.testing.assert_allclose(
        found.drop(columns=["aggregate_mean", "aggregate_variance"]), 0.0, atol=1e-12
    )


@pytest.mark.parametrize("lam", [0.05, 0.5, 3.0, 30.0])
def test_a_matched_code_keeps_the_closed_forms_small_error(lam: float) -> None:
    """I_j = 0.5 ln(1 + lam); the error is that of KL_j alone, the aggregate being the prior."""
    v, n = 1 / (1 + lam), 4000
    mean = np.random.default_rng(0).normal(0, math.sqrt(1 - v), (n, 1))
    found = columns(mean, np.full_like(mean, math.sqrt(v))).iloc[0]
    # Var(KL_j) = Var(mu^2) / 4 = (1 - v)^2 / 2
    error = (1 - v) / math.sqrt(2 * n)
    assert found["information_se"] == pytest.approx(error, rel=0.15)
    own = 1 / math.sqrt(v) / n  # its own posterior in the aggregate: about a width's share
    assert abs(found["information"] - 0.5 * math.log1p(lam)) < 4 * error + own


def test_neither_estimate_alone_has_less_error() -> None:
    """Off the prior and informative: between the two; of the sample variance never above both."""
    rng = np.random.default_rng(1)
    mean, scale = 2 + rng.normal(0, 0.6, (2000, 1)), np.full((2000, 1), 0.5)
    obs = Observation.of_arrays(mean, scale)
    z = obs.z.numpy()[:, 0]
    aggregate = np.log(scipy.stats.norm.pdf(z[:, None], mean[:, 0], 0.5).mean(axis=1))
    exact = kl(mean, scale)[:, 0] - aggregate + scipy.stats.norm.logpdf(z)
    paired = scipy.stats.norm.logpdf(z, mean[:, 0], 0.5) - aggregate
    errors = [values.std(ddof=1) / math.sqrt(2000) for values in (exact, paired)]
    found = columns(mean, scale).iloc[0]
    assert found["information_se"] < min(errors) * 0.97
    truth = 0.5 * math.log1p(0.36 / 0.25)
    assert abs(found["information"] - truth) < 4 * found["information_se"]


def test_information_and_mismatch_make_up_the_kl() -> None:
    mean, scale = models.p8(700)
    found = columns(mean, scale)
    np.testing.assert_allclose(
        found["information"] + found["aggregate_kl"], kl(mean, scale).mean(axis=0), rtol=1e-12
    )


def state_of(values: np.ndarray, controls: np.ndarray) -> Grouped:
    """Of samples [N, C] whose KL is 0: information is the value, the log-ratio its negative."""
    both = torch.tensor(np.concatenate([values, -values], axis=1))
    twice = torch.tensor(np.concatenate([controls, controls], axis=1))
    group = np.arange(len(values)) % 20
    return Grouped.of(group, lambda rows: Paired.of(both[rows], twice[rows]))


@pytest.mark.parametrize("n", [3, 12, 50])
def test_the_coefficient_that_is_estimated_leaves_no_bias(n: int) -> None:
    """5,000 draws of the codes of fixed posteriors, unequal in place and width: quadrature's."""
    rng, many = np.random.default_rng(n), 5_000
    mean, scale = 0.7 * rng.exponential(size=(n, 1)), 0.5 * np.exp(rng.normal(0, 0.3, (n, 1)))
    truth = kl(mean, scale).mean() - aggregate_ratio(mean[:, 0], scale[:, 0])
    z = mean + scale * rng.standard_normal((n, many))
    aggregate = np.zeros_like(z)
    for m, s in zip(mean[:, 0], scale[:, 0], strict=True):
        aggregate += scipy.stats.norm.pdf(z, m, s) / n
    log_prior = scipy.stats.norm.logpdf(z)
    control = scipy.stats.norm.logpdf(z, mean, scale) - log_prior - kl(mean, scale)
    found = each(state_of(kl(mean, scale) - np.log(aggregate) + log_prior, control), many)
    values = found.mean[:many]
    error = values.std(ddof=1) / math.sqrt(many)
    assert error < 0.012
    assert abs(values.mean() - truth) < 3.5 * error


def test_the_coefficient_lies_between_the_two_estimates() -> None:
    """Where chance asks for one of -5 or 7, nothing is made worse than the worse of the two."""
    rng = np.random.default_rng(0)
    c = rng.normal(size=100)
    for slope, used in ((5.0, 0.0), (-7.0, 1.0)):
        value = slope * c + rng.normal(size=100)
        moments = each(state_of(value[:, None], c[:, None]), 1)
        assert moments.mean[0] == pytest.approx((value + used * c).mean(), abs=1e-12)
        assert moments.variance[0] == pytest.approx((value + used * c).var(ddof=1), rel=1e-12)
