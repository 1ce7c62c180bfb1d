"""A handful of samples: intervals that hold their truth, and no word that so few cannot bear."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import binom, norm
from torch import Tensor

import collapsekit as ck
from benchmarks.coverage_parts import linear
from collapsekit.claims import above_share, least
from collapsekit.intervals import mean_limit, mean_number, wilson
from collapsekit.streaming import Jackknife, Skewed
from tests import models


def exact(total: float, n: int, seed: int) -> models.Arrays:
    """Two dimensions of a linear model with its exact posterior, `total` nats together."""
    lam = math.expm1(total)
    mean = math.sqrt(lam / (1 + lam)) * np.random.default_rng(seed).standard_normal((n, 2))
    return mean, np.full((n, 2), 1 / math.sqrt(1 + lam))


def collapsed(n: int, seed: int) -> models.Arrays:
    return np.zeros((n, 2)), np.ones((n, 2))


CASES: dict[str, tuple[Callable[[int, int], models.Arrays], float]] = {
    "1 nat": (lambda n, seed: exact(1.0, n, seed), 1.0),
    "3 nats": (lambda n, seed: exact(3.0, n, seed), 3.0),
    "local": (linear.local, 0.376445615),
    "widths": (linear.widths, 0.433310719),
    "collapsed": (collapsed, 0.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("n", [10, 20, 50])
@pytest.mark.parametrize("name", CASES)
def test_the_information_bracket_holds_its_truth(name: str, n: int) -> None:
    make, truth = CASES[name]
    replications = 200
    missed = 0
    for seed in range(replications):
        number = ck.probes.mutual_information(*make(n, seed), seed=seed)
        missed += not number.low <= truth <= number.high
    # Of an interval that holds its truth 95 times of 100, once in 1,000 as many are missed.
    assert missed <= binom.isf(0.001, replications, 0.05)


@pytest.mark.parametrize("n", [2, 10, 72])
def test_few_samples_that_tell_nothing_leave_the_upper_end_open(n: int) -> None:
    number = ck.probes.mutual_information(*collapsed(n, 0))
    assert (number.value, number.low, number.high) == (pytest.approx(0, abs=1e-5), 0.0, math.inf)
    assert ck.probes.mutual_information(*collapsed(73, 0)).high < 1e-4


def test_three_samples_that_are_all_told_apart_show_less_than_ln_3() -> None:
    mean = np.array([[0.0], [50.0], [100.0]])
    number = ck.probes.mutual_information(mean, np.ones_like(mean))
    assert number.value == pytest.approx(math.log(3))
    # A share of what was not seen, Wilson's, may tell nothing.
    assert number.low == pytest.approx(wilson(3, 3)[0] * math.log(3), abs=1e-3)


def test_several_codes_a_sample_average_what_one_draw_tells() -> None:
    mean, scale = linear.widths(40, 0)
    told = np.array([ck.probes.pointwise_information(mean, scale, seed=s) for s in range(30)])
    x = np.linspace(-6, 6, 4001)
    log_density = norm.logpdf(x[:, None], mean[:, 0], scale[:, 0])
    density = np.exp(log_density)
    each = log_density - np.log(density.mean(axis=1))[:, None]
    truth = np.trapezoid(density * each, x, axis=0)  # KL(q_i || aggregate) by quadrature
    error = told.std(axis=0, ddof=1) / math.sqrt(len(told))
    np.testing.assert_array_less(np.abs(told.mean(axis=0) - truth), 4.5 * error + 1e-3)
    # 12 codes a sample fill 512 rows; 40 samples' variances of 30 audits are known to a tenth
    one = np.trapezoid(density * each**2, x, axis=0) - truth**2
    assert told.var(axis=0, ddof=1).sum() == pytest.approx(one.sum() / 12, rel=0.4)


def test_values_without_spread_have_no_limit_below_73() -> None:
    moments = Skewed.of(np.full(10, 2.0))
    number = mean_number("x", moments, "1", least=0.0)
    others = 1 - wilson(10, 10)[0]
    assert (number.low, number.high) == (pytest.approx(2 * (1 - others)), math.inf)
    bounded = mean_number("x", moments, "1", least=0.0, most=4.0)
    assert bounded.high == pytest.approx(2 * (1 - others) + 4 * others)
    many = mean_number("x", Skewed.of(np.full(73, 2.0)), "1")
    assert (many.low, many.high) == (2.0, 2.0)


def test_a_limit_by_a_jackknife_is_students_with_its_groups() -> None:
    values = np.array([-1.0, 1.0] * 20)  # no skewness
    found = Jackknife(np.array(0.0), np.array(0.5), np.array(0.0), 4)
    low = mean_limit(Skewed.of(values), 0.025, found=found)
    assert low == pytest.approx(-3.182446 * 0.5, rel=1e-5)  # t of 3 degrees


@pytest.mark.parametrize("n", [1, 2, 10, 72])
def test_a_few_rates_of_0_leave_room_for_others(n: int) -> None:
    probe = ck.probes.KL()
    audit = ck.audit(models.Constant(), torch.randn(n, 6), probes=[probe])
    (finding,) = (f for f in audit.findings if f.code == "CK101")
    assert finding.severity is ck.Severity.INCONCLUSIVE
    assert f"{n} samples leave room for others" in finding.message
    assert math.isnan(audit.number("rate").high)


@pytest.mark.parametrize("n", [3, 5, 9])
def test_a_swap_gap_of_a_handful_is_not_settled(n: int) -> None:
    model = models.LinearVAE((30.0, 3.0))
    for seed in range(20):
        audit = ck.audit(
            model, model.sample(n, seed), likelihood=("gaussian", 0.5), probes=["swap_gap"]
        )
        (finding,) = (f for f in audit.findings if f.code == "CK302")
        assert finding.severity is ck.Severity.INCONCLUSIVE
        assert f"{n} samples do not settle" in finding.message


def test_gaps_that_are_all_0_do_not_say_from_a_few_that_nothing_is_read() -> None:
    for n, severity in ((40, ck.Severity.INCONCLUSIVE), (80, ck.Severity.WARN)):
        audit = ck.audit(
            models.Constant(), torch.randn(n, 6), likelihood=("gaussian", 0.5), probes=["swap_gap"]
        )
        (finding,) = (f for f in audit.findings if f.code == "CK302")
        assert finding.severity is severity


@pytest.mark.slow
@pytest.mark.parametrize("n", [10, 20, 50, 100])
def test_the_interval_of_a_swap_gap_holds_its_truth(n: int) -> None:
    model = models.LinearVAE((1.0, 1.0))  # the gap is the sum, 2 nats
    replications, missed = 150, 0
    for seed in range(replications):
        x = model.sample(n, 1000 + seed)
        probe = ck.probes.SwapGap()
        number = ck.audit(model, x, likelihood=("gaussian", 0.5), probes=[probe], seed=seed).number(
            "swap_gap"
        )
        missed += not number.low <= 2.0 <= number.high
    assert missed <= binom.isf(0.001, replications, 0.073)  # covers 92.7 % at least


def test_shares_of_the_largest() -> None:
    nothing = above_share(np.zeros(3), np.zeros(3), 0.01)
    assert (least(nothing.if_not), least(nothing.if_so)) == (0, 3)
    exact = above_share(np.array([1.0, 0.011, 0.009]), np.zeros(3), 0.01)
    assert (least(exact.if_not), least(exact.if_so)) == (2, 1)
    # 2 errors off the bar by its own error alone, 1 by both
    own = above_share(np.array([1.0, 0.014]), np.array([0.0, 0.002]), 0.01)
    both = above_share(np.array([1.0, 0.014]), np.array([0.2, 0.002]), 0.01)
    np.testing.assert_allclose([own.if_not[1], both.if_not[1]], norm.sf([2.0, 1.0]))


class Reads:
    """A linear decoder: dimension j has the usage w_j over the sum."""

    def __init__(self, weights: list[float]) -> None:
        self.loadings = torch.tensor(weights, dtype=torch.float64).sqrt()

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, torch.ones_like(x)

    def decode(self, z: Tensor) -> Tensor:
        return z * self.loadings


@pytest.mark.slow
@pytest.mark.parametrize(
    "weights",
    [
        [1.0, *([0.01] * 15)],  # on the bar from above
        [1.0, *([0.00999] * 15)],  # and from below
        [*([1.0] * 15), 0.01],  # the loudest of fifteen alike is too loud
        [*([1.0] * 8), *([0.01] * 8)],
    ],
)
def test_the_count_of_used_dimensions_holds_its_truth(weights: list[float]) -> None:
    """The bar, a share of the largest usage, has an error of its own."""
    truth = sum(w >= 0.01 for w in weights)
    model, x = Reads(weights), torch.zeros(2, len(weights), dtype=torch.float64)
    replications, missed = 60, 0
    for seed in range(replications):
        number = ck.audit(model, x, probes=["decoder_usage"], seed=seed).number("used_dimensions")
        missed += not number.low <= truth <= number.high
    assert missed <= binom.isf(0.001, replications, 0.073)
