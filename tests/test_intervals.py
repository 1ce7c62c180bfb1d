"""Intervals that are used by more than one probe."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch

from collapsekit.independent import independent, rows_alike
from collapsekit.intervals import (
    _unskewed,
    jackknife_number,
    mean_number,
    quantile_number,
    ratio_error,
    share_number,
    wilson,
    wilson_arrays,
)
from collapsekit.streaming import Bootstrap, Grouped, Jackknife, Moments, Skewed


@pytest.mark.parametrize("share", [0.5, 0.05])
@pytest.mark.parametrize("n", [30, 500])
def test_quantile_intervals_cover(share: float, n: int) -> None:
    rng = np.random.default_rng(0)
    truth = scipy.stats.expon.ppf(share)
    found = [quantile_number("q", rng.exponential(size=n), share, "1") for _ in range(2000)]
    hit = np.mean([number.low <= truth <= number.high for number in found])
    # At least 95 %, exactly so for continuous data; three standard errors of 2,000 replications.
    assert hit > 0.95 - 3 * math.sqrt(0.95 * 0.05 / 2000)
    assert all(number.low <= number.value <= number.high for number in found)


def test_quantiles_of_scipy_and_of_nothing() -> None:
    values = np.arange(101.0)
    number = quantile_number("q", values, 0.5, "1")
    expected = scipy.stats.quantile_test(values, q=50, p=0.5).confidence_interval(0.95)
    assert (number.value, number.low, number.high) == (50.0, expected.low, expected.high)
    assert quantile_number("q", values[:3], 0.05, "1", least=-1.0).low == -1.0
    assert math.isnan(quantile_number("q", values[:0], 0.5, "1").value)


@pytest.mark.parametrize("share", [0.5, 0.05])
def test_quantile_intervals_of_values_that_come_in_pairs(share: float) -> None:
    rng = np.random.default_rng(1)
    truth = scipy.stats.expon.ppf(share)
    found = [
        quantile_number("q", np.repeat(rng.exponential(size=250), 2), share, "1", alike=2)
        for _ in range(2000)
    ]
    hit = np.mean([number.low <= truth <= number.high for number in found])
    assert hit > 0.95 - 3 * math.sqrt(0.95 * 0.05 / 2000)


@pytest.mark.parametrize("count, n", [(0, 7), (7, 7), (3, 7), (41, 1000), (1, 1)])
def test_wilson_against_scipy(count: int, n: int) -> None:
    expected = scipy.stats.binomtest(count, n).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose(wilson(count, n), (expected.low, expected.high), rtol=1e-12)
    number = share_number("s", 2 * count, 2 * n, alike=2)  # pairs: half as many are independent
    np.testing.assert_allclose((number.low, number.high), wilson(count, n), rtol=1e-12)
    assert number.value == count / n


@pytest.mark.parametrize("n", [1, 3, 5])
def test_a_few_values_give_a_median_no_upper_end(n: int) -> None:
    # The largest of n values lies below the median with probability 2^-n, more than 2.5 %.
    values = np.arange(1.0, n + 1)
    number = quantile_number("q", values, 0.5, "1")
    assert number.low == 0.0
    assert math.isnan(number.high)
    assert "too few samples for an upper one" in number.note
    assert quantile_number("q", values, 0.5, "1", most=9.0).high == 9.0
    assert math.isnan(quantile_number("q", values, 0.5, "1", alike=2).high)
    assert quantile_number("q", np.arange(6.0), 0.5, "1").high == 5.0


@pytest.mark.parametrize("lean", [-0.9, -0.1, 1e-9, 0.05, 0.9])
def test_halls_transformation_is_undone(lean: float) -> None:
    for normal in (-1.96, 0.3, 1.96):
        t = _unskewed(normal, lean)
        assert t + lean * (t**2 / 3 + 1 / 6) + lean**2 * t**3 / 27 == pytest.approx(normal)


@pytest.mark.parametrize("share", [0.03, 0.5])
def test_means_of_skewed_values_are_covered_from_both_sides(share: float) -> None:
    # A few samples in use among idle ones: the normal interval misses 7 % below, 1 % above.
    rng = np.random.default_rng(2)
    found = [
        mean_number("m", Skewed.of(6.0 * (rng.random(300) < share)), "nats") for _ in range(2000)
    ]
    below = np.mean([number.high < 6.0 * share for number in found])
    above = np.mean([number.low > 6.0 * share for number in found])
    assert max(below, above) < 0.025 + 4 * math.sqrt(0.025 * 0.975 / 2000)  # counts: not exact


def test_intervals_end_where_the_quantity_does() -> None:
    values = np.array([0.0, 0.0, 0.0, 0.9, 0.0])
    number = mean_number("m", Skewed.of(values), "nats", least=0.0, most=0.2)
    assert (number.low, number.high) == (0.0, 0.2)
    assert mean_number("m", Skewed.of(values), "nats").low < 0
    # an estimate may lie outside; its interval still holds it
    outside = mean_number("m", Skewed.of(values - 1.0), "nats", least=0.0)
    assert outside.low == outside.value < 0
    wide = Jackknife(np.array(0.5), np.array(1.0), np.array(0.0), 20)
    cut = jackknife_number("j", wide, "1", 9, least=0.0, most=1.0)
    assert (cut.low, cut.value, cut.high) == (0.0, 0.5, 1.0)
    beyond = Jackknife(np.array(1.3), np.array(0.05), np.array(0.0), 9)
    cut = jackknife_number("j", beyond, "1", 9, least=0.0, most=1.0)
    assert (cut.low, cut.value, cut.high) == (1.0, 1.0, 1.0)
    near = Jackknife(np.array(1.05), np.array(0.05), np.array(0.0), 9)
    cut = jackknife_number("j", near, "1", 9, least=0.0, most=1.0)
    assert cut.low == pytest.approx(1.05 - 0.05 * scipy.stats.t.ppf(0.975, 8))
    assert (cut.value, cut.high) == (1.0, 1.0)
    unknown = jackknife_number("j", Jackknife(*[np.array(math.nan)] * 3, 1), "1", 1, least=0.0)
    assert math.isnan(unknown.low)


def test_the_error_of_a_ratio_is_that_of_its_linearised_terms() -> None:
    rng = np.random.default_rng(4)
    whole = rng.gamma(4.0, size=500)
    parts = np.stack([0.3 * whole, rng.gamma(2.0, size=500)])  # one moves with the whole, one not
    covariance = np.cov(np.vstack([parts, whole]))
    ratio, error = ratio_error(parts.mean(axis=1), whole.mean(), covariance, 500)
    np.testing.assert_allclose(ratio, parts.mean(axis=1) / whole.mean())
    terms = (parts - ratio[:, None] * whole) / whole.mean()
    expected = terms.std(axis=1, ddof=1) / math.sqrt(500)
    np.testing.assert_allclose(error, expected, rtol=1e-9, atol=1e-9)
    assert expected[0] < 1e-12  # a fixed share of the whole has no error


def test_intervals_of_copies_are_those_of_the_samples_once() -> None:
    """Five times each sample, among rows that count as one in five."""
    once = np.random.default_rng(5).exponential(size=300)
    often = np.tile(once, 5)
    count = int((once > 1).sum())
    expected = (
        mean_number("m", Skewed.of(once), "1"),
        share_number("s", count, 300),
        quantile_number("q", once, 0.5, "1"),
    )
    with rows_alike(5.0):
        found = (
            mean_number("m", Skewed.of(often), "1"),
            share_number("s", 5 * count, 1500),
            quantile_number("q", often, 0.5, "1"),
        )
        limits = wilson_arrays(np.array([5 * count]), 1500)
        assert independent(1500) == 300
    for a, b in zip(expected, found, strict=True):
        # variances of n - 1 and of 5 n - 1
        assert (b.value, b.low, b.high) == pytest.approx((a.value, a.low, a.high), rel=2e-3)
    assert [float(end[0]) for end in limits] == pytest.approx(wilson(count, 300))
    assert independent(1500) == 1500  # and nothing is left behind


def test_jackknives_and_bootstraps_of_copies_are_widened() -> None:
    values = np.random.default_rng(6).normal(size=400)
    groups = Grouped.of(np.arange(400) % 20, lambda rows: Moments.of(values[rows]))
    index = torch.arange(400)
    draws = Bootstrap.of(torch.from_numpy(values[:, None]), index, torch.zeros(1))
    plain, ends = groups.jackknife(lambda part: part.average), draws.limits
    with rows_alike(4.0):
        wide, far = groups.jackknife(lambda part: part.average), draws.limits
    assert wide.error == pytest.approx(2 * plain.error)
    assert wide.bias == pytest.approx(4 * plain.bias)
    middle = draws.variance.mean(axis=0)
    np.testing.assert_allclose(far - middle, 2 * (ends - middle))


def test_fewer_rows_than_one_cannot_be_alike() -> None:
    with rows_alike(0.5):
        assert independent(10) == 10


@pytest.mark.parametrize("n", [2, 5, 10])
def test_means_of_few_values_have_students_interval(n: int) -> None:
    rng = np.random.default_rng(n)
    numbers = [mean_number("m", Skewed.of(rng.normal(size=n)), "1") for _ in range(1000)]
    missed = sum(not number.low <= 0 <= number.high for number in numbers)
    assert missed <= 75  # 50 expected, standard error 7; the normal interval missed 77 to 300
