"""Encoder collisions: merged inputs are found, compressed ones are not accused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

import collapsekit as ck
from collapsekit.findings import Severity
from collapsekit.observation import Observation
from collapsekit.probe import measure
from collapsekit.results import Result


def of(mean: np.ndarray, scale: np.ndarray, x: np.ndarray, **fields: object) -> Result:
    probe = ck.probes.Collisions(**fields)  # type: ignore[arg-type]
    return measure(probe, Observation.of_arrays(mean, scale, x=x))


def test_merged_inputs_collide_and_equal_ones_do_not() -> None:
    # Ten pairs of far-apart inputs share a code each; the other samples have their own.
    x = np.arange(60.0)[:, None] * 10
    own = np.arange(60.0)[:, None] * 100
    mean = own.copy()
    mean[40:50] = mean[:10]  # 400 apart; random pairs lie 590 (1 - 1 / sqrt 2) = 173 apart
    assert ck.probes.collisions(mean, np.ones_like(mean), x).value == 20 / 60
    assert ck.probes.collisions(own, np.ones_like(mean), x).value == 0
    mean[40:50] = own[40:50]
    mean[10:20] = mean[:10]  # 100 apart: alike, as samples go
    assert ck.probes.collisions(mean, np.ones_like(mean), x).value == 0
    twins = np.concatenate([x, x])  # equal inputs may share a code
    codes = np.concatenate([own, own])
    assert ck.probes.collisions(codes, np.ones_like(codes), twins).value == 0


def test_the_overlap_is_an_error_of_guessing() -> None:
    # Two Gaussians of one width: BC = exp(-d^2 / 8), and the best guess errs Phi(-d / 2) >= 0.4.
    bar = ck.probes.Collisions().overlap
    d = math.sqrt(-8 * math.log(bar))
    assert scipy.stats.norm.cdf(-d / 2) >= (1 - math.sqrt(1 - bar**2)) / 2 >= 0.4
    x = np.random.default_rng(0).normal(size=(40, 2)) * 100
    spread = np.arange(40.0)[:, None] * 1000
    far = int(np.linalg.norm(x - x[0], axis=1).argmax())
    for gap, count in ((0.99 * d, 2), (1.01 * d, 0)):
        mean = spread.copy()
        mean[far] = mean[0] + gap
        assert of(mean, np.ones_like(mean), x).samples["collides"].sum() == count


def test_broad_posteriors_of_a_good_encoder_are_not_accused() -> None:
    # Eight dimensions at 0.7 nats each: everyone overlaps with neighbours, nobody with strangers.
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1500, 8))
    healthy = of(x * 0.85, np.full_like(x, 0.5), x)
    assert healthy.findings[0].severity is Severity.OK
    order = rng.permutation(1500)
    mean = x * 0.85
    mean[order[750:]] = mean[order[:750]]
    merged = of(mean, np.full_like(x, 0.5), x)
    assert merged.findings[0].severity is Severity.WARN
    assert merged.numbers[0].value > 0.4  # half of random pairs lie beyond their median


def test_a_collapsed_encoder_collides_though_it_orders_its_inputs() -> None:
    # Means follow the inputs at a thousandth of the width: nearest codes are alike, others not.
    x = np.random.default_rng(2).normal(size=(400, 6))
    result = of(1e-3 * x, np.ones_like(x), x)
    # One of ten random others lies beyond the median distance: all but 2^-10 of the samples.
    assert result.numbers[0].value > 0.98
    assert "tells hardly two samples apart" in result.findings[0].message


def test_it_is_told_for_fewer_samples_too() -> None:
    x = np.random.default_rng(3).normal(size=(1200, 3))
    result = of(x * 0.5, np.ones_like(x), x)
    table = result.tables["collision_by_compared"]
    assert table["compared"].tolist() == [300, 1000, 1200]
    assert table["share"].is_monotonic_increasing
    assert table["share"].iloc[-1] == result.numbers[0].value
    assert ((table["low"] <= table["share"]) & (table["share"] <= table["high"])).all()
    assert "1,200 samples compared" in result.numbers[0].note


def test_one_sample_cannot_collide() -> None:
    with pytest.raises(ck.Unavailable, match="no neighbours"):
        of(np.zeros((1, 2)), np.ones((1, 2)), np.zeros((1, 2)))
    two = of(np.zeros((2, 2)), np.ones((2, 2)), np.eye(2))
    assert two.numbers[0].value == 1.0


def test_equal_inputs_leave_nothing_to_collide_with() -> None:
    obs = Observation.of_arrays(np.zeros((30, 2)), np.ones((30, 2)), x=np.ones((30, 4)))
    result = measure(ck.probes.Collisions(), obs)
    assert result.numbers == ()
    (finding,) = result.findings
    assert finding.severity is Severity.INCONCLUSIVE
    assert "all equal" in finding.message


def test_who_collides_does_so_in_company_and_the_interval_knows() -> None:
    x = np.arange(60.0)[:, None] * 10
    mean = np.arange(60.0)[:, None] * 100
    mean[40:50] = mean[:10]  # ten pairs far apart share a code: ten events, not twenty
    number = next(
        n for n in of(mean, np.ones_like(mean), x).numbers if n.name == "collision_fraction"
    )
    expected = scipy.stats.binomtest(10, 30).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose((number.low, number.high), (expected.low, expected.high))
