"""Every measure as a plain function of arrays, against NumPy and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

import collapsekit as ck
from collapsekit.errors import ModelError
from tests import models

RNG = np.random.default_rng(0)
MEAN = RNG.normal(size=(400, 3)) * [1.0, 0.3, 0.0]
SCALE = np.broadcast_to([0.3, 0.95, 1.0], (400, 3)).copy()


def test_kl_against_quadrature() -> None:
    got = ck.probes.kl(MEAN[:3], SCALE[:3], prior=(0.5, 2.0))
    grid = np.linspace(-15, 15, 300_001)
    for i in range(3):
        for j in range(3):
            q = scipy.stats.norm.pdf(grid, MEAN[i, j], SCALE[i, j])
            ratio = scipy.stats.norm.logpdf(grid, MEAN[i, j], SCALE[i, j])
            ratio = ratio - scipy.stats.norm.logpdf(grid, 0.5, 2.0)
            assert got[i, j] == pytest.approx(np.trapezoid(q * ratio, grid), abs=1e-8)


def test_kl_keeps_its_digits_near_collapse() -> None:
    from decimal import Decimal, getcontext

    getcontext().prec = 60
    for mean, log_variance in [(1e-8, 1e-9), (0.0, 3e-6), (0.0, 9.99e-6), (0.0, 1.01e-5)]:
        scale = float(np.exp(0.5 * log_variance))
        s = Decimal(scale)
        exact = (Decimal(mean) ** 2 + s * s - 1 - (s * s).ln()) / 2
        got = ck.probes.kl(np.array([[mean]]), np.array([[scale]]))[0, 0]
        assert got == pytest.approx(float(exact), rel=1e-9)


def test_activity() -> None:
    variance = MEAN.var(axis=0, ddof=1)
    np.testing.assert_allclose(ck.probes.mean_variance(MEAN), variance)
    units = ck.probes.active_units(MEAN)
    assert (units.value, units.low, units.high, units.unit, units.n) == (2, 2, 2, "dimensions", 400)
    assert ck.probes.active_units(MEAN, threshold=0.5).value == 1
    near = ck.probes.active_units(MEAN[:, 1:2] / np.sqrt(variance[1]) * 0.1)
    assert near.low == 0  # a variance of exactly 0.01: the bootstrap cannot tell
    assert near.high == 1
    np.testing.assert_allclose(
        ck.probes.signal_fraction(MEAN, SCALE), variance / (variance + SCALE[0] ** 2)
    )


def test_information_against_direct_summation() -> None:
    number = ck.probes.mutual_information(MEAN, SCALE, seed=3)
    pointwise = ck.probes.pointwise_information(MEAN, SCALE, seed=3)
    assert number.value == pytest.approx(pointwise.mean(), abs=1e-6)
    rng = np.random.default_rng(1)
    z = MEAN + SCALE * rng.normal(size=MEAN.shape)  # other draws of the same estimate
    log_q = scipy.stats.norm.logpdf(z[:, None], MEAN, SCALE).sum(axis=2)
    direct = np.diag(log_q) - scipy.special.logsumexp(log_q, axis=1) + np.log(400)
    error = np.hypot(direct.std(), pointwise.std()) / np.sqrt(400)
    assert abs(direct.mean() - pointwise.mean()) < 4 * error
    again = ck.probes.reidentification(MEAN, SCALE, seed=3)
    np.testing.assert_allclose(again, np.exp(pointwise) / 400, rtol=1e-6)


def test_the_budget_adds_up() -> None:
    mean, scale = models.p8(4_000)
    budget = ck.probes.information_budget(mean, scale)
    parts = budget.loc[["information", "total correlation", "dimension-wise KL"], "value"].sum()
    assert parts == pytest.approx(budget.loc["rate", "value"], abs=1e-9)
    assert budget.loc["information", "low"] <= 1.965863794 <= budget.loc["information", "high"]


def test_quantiles_and_states() -> None:
    table = ck.probes.kl_distribution(MEAN, SCALE)
    expected = np.quantile(ck.probes.kl(MEAN, SCALE), [0.05, 0.5, 0.95], axis=0)
    np.testing.assert_allclose(table.to_numpy().T, expected, rtol=1e-5)
    assert ck.probes.dimension_state(MEAN, SCALE)["state"].tolist() == [
        "active",
        "mixed",
        "passive",
    ]


def test_local_collapse() -> None:
    share = ck.probes.local_collapse(MEAN, SCALE, bar=1.0)
    below = (ck.probes.kl(MEAN, SCALE).sum(axis=1) < 1).sum()
    interval = scipy.stats.binomtest(int(below), 400).proportion_ci(method="wilson")
    assert share.value == below / 400
    assert (share.low, share.high) == pytest.approx((interval.low, interval.high))


def test_errors_and_gaps() -> None:
    x = RNG.random((50, 4))
    out = np.clip(x + 0.1 * RNG.normal(size=x.shape), 0.01, 0.99)
    np.testing.assert_allclose(ck.probes.reconstruction(x, out), ((x - out) ** 2).sum(axis=1))
    nats = ck.probes.reconstruction(x, out, likelihood=("gaussian", 0.2))
    np.testing.assert_allclose(nats, -scipy.stats.norm.logpdf(x, out, 0.2).sum(axis=1))
    gap = ck.probes.swap_gap(nats, nats + 2.0)
    assert (gap.value, gap.n) == (pytest.approx(2.0), 50)
    np.testing.assert_allclose(ck.probes.shuffle_cost(nats, nats[:, None] + [1.0, 0.0]), [1, 0])
    with pytest.raises(ModelError, match="data's shape"):
        ck.probes.reconstruction(x, out[:, :2])


def test_round_trip() -> None:
    z = RNG.normal(size=(1000, 3))
    back = z * [1.0, 0.5, 0.0]
    expected = 1 - ((back - z) ** 2).mean(axis=0) / z.var(axis=0)
    np.testing.assert_allclose(ck.probes.round_trip(z, back), expected)


def test_usage_of_a_linear_decoder() -> None:
    weights = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    usage = ck.probes.decoder_usage(lambda z: z @ weights.T, 3, draws=20_000)
    np.testing.assert_allclose(usage, [0.8, 0.2, 0.0], atol=0.02)
    still = ck.probes.decoder_usage(lambda z: torch.ones(len(z), 5), 3)
    assert (still == 0).all()


def test_usage_of_a_folding_decoder_against_quadrature() -> None:
    # D(z) = z1^2 + z1 z2: total effects by hand. Var = 2 + 1 = 3; fixing all but z1 leaves
    # E[Var | z2] = 2 + z2^2 -> 3, all but z2 leaves z1^2 -> 1.
    usage = ck.probes.decoder_usage(lambda z: z[:, :1] ** 2 + z[:, :1] * z[:, 1:], 2, draws=60_000)
    np.testing.assert_allclose(usage, [1.0, 1 / 3], atol=0.04)


def test_overlap_against_quadrature() -> None:
    from collapsekit.posteriors import DiagonalGaussian
    from collapsekit.probes.collisions import _overlap

    posterior = DiagonalGaussian(
        torch.tensor([[0.0, 1.0], [0.7, 0.5]], dtype=torch.float64),
        torch.tensor([[0.5, 1.0], [1.1, 0.3]], dtype=torch.float64),
    )
    got = _overlap(posterior, torch.tensor([0]), torch.tensor([[1]])).item()
    grid = np.linspace(-12, 12, 200_001)
    expected = 1.0
    for j in range(2):
        p, q = (
            scipy.stats.norm.pdf(grid, float(posterior.mean[i, j]), float(posterior.scale[i, j]))
            for i in range(2)
        )
        expected *= np.trapezoid(np.sqrt(p * q), grid)
    assert got == pytest.approx(expected, rel=1e-8)
