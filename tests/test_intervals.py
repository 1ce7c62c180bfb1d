"""Intervals that are used by more than one probe."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from collapsekit.intervals import quantile_number


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
