"""The eight cases of known answer: closed forms to 1e-9, estimates within four standard errors.

Constants were computed outside this project (two independent ways each); what is compared with
them is estimated here from samples, so the tolerance is the estimate's own standard error, or the
spread of the sampled posteriors where these are drawn themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

import collapsekit as ck
from collapsekit.results import Audit
from tests import models

N = 10_000
CASES: dict[str, tuple[Callable[..., models.Arrays], float, float]] = {
    # construction, information, mean KL
    "p1": (models.p1, 17.645183996, 17.645183996),
    "p2": (models.p2, 1.151292546, 3.648274820),
    "p3": (models.p3, 0.0, 2.318147181),
    "p4": (models.p4, 0.433310719, 0.903792546),
    "p5": (models.p5, 0.376445615, 0.630758509),
    "p7": (models.p7, 1.517236051, 2.302585093),
    "p8": (models.p8, 1.965863794, 3.436775316),
    "p10": (models.p10, 0.0, 0.0),
}


@pytest.fixture(scope="module")
def audits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Audit]:
    folder = tmp_path_factory.mktemp("posteriors")
    found = {}
    for name, (make, _, _) in CASES.items():
        mean, scale = make(32 if name == "p10" else N)
        np.savez(folder / f"{name}.npz", mean=mean, scale=scale)
        found[name] = ck.audit(f"posteriors:{folder / name}.npz")
    return found


def standard_error(audit: Audit, name: str) -> float:
    number = audit.number(name)
    return (number.high - number.low) / (2 * 1.959963984540054)


@pytest.mark.parametrize("name", CASES)
def test_closed_forms(name: str, audits: dict[str, Audit]) -> None:
    make = CASES[name][0]
    mean, scale = make(32 if name == "p10" else N)
    audit = audits[name]
    normal = torch.distributions.Normal(torch.tensor(mean), torch.tensor(scale))
    prior = torch.distributions.Normal(torch.zeros(()).double(), torch.ones(()).double())
    kl = torch.distributions.kl_divergence(normal, prior).numpy()
    close = dict(rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(audit.samples["kl_total"], kl.sum(axis=1), **close)
    np.testing.assert_allclose(audit.dimensions["kl"], kl.mean(axis=0), **close)
    np.testing.assert_allclose(audit.number("rate").value, kl.sum(axis=1).mean(), **close)
    variance = mean.var(axis=0, ddof=1)
    np.testing.assert_allclose(audit.dimensions["mean_variance"], variance, **close)
    signal = variance / (variance + (scale**2).mean(axis=0))
    np.testing.assert_allclose(audit.dimensions["signal_fraction"], signal, **close)
    below = (kl < 0.01).mean(axis=0)
    np.testing.assert_allclose(audit.dimensions["share_below_epsilon"], below, **close)
    eigenvalues = np.linalg.eigvalsh(np.atleast_2d(np.cov(mean.T)))
    rank = eigenvalues.sum() ** 2 / (eigenvalues**2).sum() if variance.any() else 0.0
    # the sample's ratio, which errs by its rank squared over n (probes/test_effective_rank.py)
    effective = audit.number("effective_rank").value
    np.testing.assert_allclose(effective, rank, rtol=6 * max(rank, 1.0) / len(mean), atol=1e-12)
    active = (kl >= 0.01).sum(axis=1)
    np.testing.assert_array_equal(audit.samples["active_dims"], active)
    np.testing.assert_array_equal(audit.samples["locally_collapsed"], kl.sum(axis=1) < 1)
    assert audit.number("active_units").value == (variance > 0.01).sum()


@pytest.mark.parametrize("name", CASES)
def test_information_is_bracketed(name: str, audits: dict[str, Audit]) -> None:
    _, information, rate = CASES[name]
    number = audits[name].number("mutual_information")
    assert number.low <= information
    if name == "p10":  # 32 samples that tell nothing do not show that no other does
        assert math.isnan(number.high)
    else:
        assert information <= number.high
    assert 0 <= number.low <= number.value
    assert not number.high < number.value
    error = standard_error(audits[name], "rate")
    assert abs(audits[name].number("rate").value - rate) <= 4 * np.nan_to_num(error) + 1e-8
    saturated = "CK402" in {f.code for f in audits[name].findings}
    assert saturated == (name == "p1")
    if not saturated:
        error = np.nan_to_num(number.high - number.low) / 4  # two standard errors on each side
        assert abs(number.value - information) <= 4 * error + 1e-5


def test_p1(audits: dict[str, Audit]) -> None:
    audit = audits["p1"]
    lam = np.array(models.P1.lam)
    expected_kl = 0.5 * np.log1p(lam)
    assert np.all(
        abs(audit.dimensions["kl"] - expected_kl) <= 4.5 * audit.dimensions["kl_se"] + 1e-12
    )
    assert (lam / (1 + lam) > 0.01).sum() == 25 == audit.number("active_units").value
    assert (audit.dimensions["state"] == "passive").sum() == 5
    assert (audit.dimensions["state"] == "active").sum() == 17
    assert not audit.dimensions["local"].any()
    share = [0.779210, 0.859236, 0.923599, 0.966993, 0.989700, 0.997984, 0.999798, 0.999992]
    error = np.sqrt(np.array(share) * (1 - np.array(share)) / N)
    assert np.all(abs(audit.dimensions["share_below_epsilon"].to_numpy()[-8:] - share) <= 4 * error)
    assert abs(audit.number("dimensionwise_kl").value) <= 4 * standard_error(
        audit, "dimensionwise_kl"
    )
    correlation = audit.number("total_correlation")
    assert math.isnan(correlation.value)  # not identified when saturated
    assert correlation.low <= 0 <= correlation.high
    informed = audit.dimensions["information"]
    assert np.all(abs(informed - expected_kl) <= 4.5 * audit.dimensions["information_se"] + 1e-4)


def test_p1_round_trip_and_usage() -> None:
    model = models.P1
    audit = ck.audit(model, model.sample(N, 1), likelihood=("gaussian", 0.5))
    lam = np.array(model.lam)
    v = 1 / (1 + lam)
    residual = audit.number("lr_residual")
    assert abs(residual.value - 16.411728702) <= 4 * standard_error(audit, "lr_residual")
    # E(D(z)) = (1 - v) z exactly, so r2 = 1 - v^2 whatever the draws, up to their sample mean.
    np.testing.assert_allclose(audit.dimensions["round_trip_r2_prior"], 1 - v**2, atol=4e-3)
    np.testing.assert_allclose(audit.dimensions["round_trip_corr2"], 1.0, atol=1e-9)
    usage, error = audit.dimensions["decoder_usage"], audit.dimensions["decoder_usage_se"]
    assert np.all(abs(usage - lam / lam.sum()) <= 4.5 * error)
    # Given x, a posterior draw is distributed as the true code: E|x - W z|^2 = s^2 a dimension.
    expected = 16 * math.log(2 * math.pi * 0.25) + 16
    got = audit.number("reconstruction_error")
    assert abs(got.value - expected) <= 4 * standard_error(audit, "reconstruction_error")
    # A partner's draw is independent of x: E|x - W z|^2 = 2 w + s^2, so the gap is sum_j lam_j.
    gap = audit.number("swap_gap")
    assert abs(gap.value - lam.sum()) <= 4 * standard_error(audit, "swap_gap")


def test_p2_scale_is_not_collapse(audits: dict[str, Audit]) -> None:
    audit = audits["p2"]
    assert audit.number("active_units").value == 0
    assert audit.verdict.name == "healthy"
    mismatch = audit.number("dimensionwise_kl")
    expected = 3.648274820 - 1.151292546  # KL of the aggregate N(0, c^2) from N(0, 1)
    assert abs(mismatch.value - expected) <= 4 * standard_error(audit, "dimensionwise_kl")
    assert any(f.code == "CK403" and f.severity.word == "warn" for f in audit.findings)


def test_p3_constant_off_the_prior(audits: dict[str, Audit]) -> None:
    audit = audits["p3"]
    assert audit.verdict.name == "total"
    assert audit.number("mutual_information").high < 1e-6
    error = standard_error(audit, "dimensionwise_kl")
    assert abs(audit.number("dimensionwise_kl").value - 2.318147181) <= 4 * error
    np.testing.assert_allclose(audit.samples["reidentification"], 1 / N, rtol=1e-4)


def test_p4_variance_code(audits: dict[str, Audit]) -> None:
    audit = audits["p4"]
    assert audit.number("active_units").value == 0
    assert audit.verdict.name == "local"  # half of the samples equal the prior
    assert audit.dimensions["state"].tolist() == ["mixed"]
    assert audit.dimensions["local"].tolist() == [True]
    # the aggregate is (N(0, 0.01) + N(0, 1)) / 2: its KL by quadrature, independently
    grid = np.linspace(-12, 12, 2_000_001)
    q = 0.5 * scipy.stats.norm.pdf(grid, 0, 0.1) + 0.5 * scipy.stats.norm.pdf(grid)
    expected = np.trapezoid(q * (np.log(q) - scipy.stats.norm.logpdf(grid)), grid)
    got = audit.number("dimensionwise_kl")
    assert abs(got.value - expected) <= 4 * standard_error(audit, "dimensionwise_kl")


def test_p5_local(audits: dict[str, Audit]) -> None:
    audit = audits["p5"]
    share = audit.number("locally_collapsed_fraction")
    assert share.value == pytest.approx(0.9)
    assert audit.verdict.name == "local"
    assert audit.dimensions["mean_variance"].iloc[0] == pytest.approx(0.9, rel=1e-3)
    live = audit.samples.loc[~audit.samples["locally_collapsed"], "kl_total"]
    np.testing.assert_allclose(live, 6.307585093, rtol=1e-9)
    mean, scale = models.p5(N)
    tie = ck.probes.dimension_state(mean, scale, epsilon=0.01, delta=0.10)
    assert tie["state"].tolist() == ["passive"]  # exactly 1 - delta counts


def test_p7_total_correlation(audits: dict[str, Audit]) -> None:
    audit = audits["p7"]
    correlation = audit.number("total_correlation")
    assert correlation.low <= 0.785349042 <= correlation.high
    informed = audit.dimensions["information"].sum()
    error = math.sqrt((audit.dimensions["information_se"] ** 2).sum() * 2)
    assert abs(informed - 2.302585093) <= 4 * error


def test_p8_duplicated_axis(audits: dict[str, Audit]) -> None:
    audit = audits["p8"]
    assert audit.number("active_units").value == 2
    assert audit.number("effective_rank").value == pytest.approx(1.0, abs=1e-9)
    informed = audit.dimensions["information"].sum()
    error = math.sqrt((audit.dimensions["information_se"] ** 2).sum() * 2)
    assert abs(informed - 3.258000380) <= 4 * error
    rate, information = audit.number("rate"), audit.number("mutual_information")
    gap = rate.value - information.value  # KL of the aggregate from the prior
    assert abs(gap - 1.470911522) <= 4 * math.hypot(
        standard_error(audit, "rate"), (information.high - information.low) / 4
    )


def test_p10_all_equal_the_prior(audits: dict[str, Audit]) -> None:
    audit = audits["p10"]
    # 32 samples at the prior show that at least 89 % are (Wilson), not 95
    assert audit.verdict.name == "inconclusive"
    assert "perhaps total" in audit.verdict.sentence
    many = ck.audit(lambda x: models.p10(len(x)), np.arange(80.0)[:, None])
    assert many.verdict.name == "total"
    assert audit.number("rate").value == 0
    assert abs(audit.samples["pointwise_information"]).max() < 1e-4
    np.testing.assert_allclose(audit.samples["reidentification"], 1 / 32, rtol=1e-4)


def test_duplicated_samples_halve_reidentification() -> None:
    mean = np.repeat(np.arange(50.0)[:, None] * 10, 2, axis=0)
    value = ck.probes.reidentification(mean, np.full_like(mean, 0.1))
    np.testing.assert_allclose(value, 0.5, rtol=1e-3)  # the kernel promises 1e-3 nats a row


def test_one_sharp_dimension_among_collapsed_ones() -> None:
    rng = np.random.default_rng(0)
    mean = np.concatenate([rng.normal(size=(500, 1)), np.zeros((500, 31))], axis=1)
    scale = np.concatenate([np.full((500, 1), 1e-4), np.ones((500, 31))], axis=1)
    together = ck.probes.pointwise_information(mean, scale)
    # the collapsed dimensions add nothing: the sharp one alone, by direct summation in float64
    alone = ck.probes.pointwise_information(mean[:, :1], scale[:, :1])
    assert together.mean() == pytest.approx(alone.mean(), abs=0.02)
    assert together.max() <= math.log(500) + 1e-9


def test_the_memory_of_information_is_bounded(tmp_path: Path) -> None:
    """10,000 x 32 posteriors: less than 200 MB above the data, in a process of its own."""
    import subprocess
    import sys

    script = (
        "import resource, numpy as np, collapsekit as ck\n"
        "rng = np.random.default_rng(0)\n"
        "mean, scale = rng.normal(size=(10_000, 32)), np.full((10_000, 32), 0.3)\n"
        "ck.probes.mutual_information(mean[:600], scale[:600])\n"  # imports and thread pools
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "ck.probes.mutual_information(mean, scale)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 200 * 1024  # kB
