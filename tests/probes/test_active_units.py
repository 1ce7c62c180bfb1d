"""Active units of codes without axes of their own: counted along directions of the means."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard
from torch.distributions import MultivariateNormal

import collapsekit as ck
from collapsekit.probes._spread import along_directions
from collapsekit.streaming import Array, Comoments, Grouped, keyed_groups


def turned(dims: int, seed: int = 0) -> Array:
    found: Array = np.linalg.qr(np.random.default_rng(seed).normal(size=(dims, dims)))[0]
    return found


def spread(mean: Array, first: int = 0) -> tuple[Array, Array]:
    values, index = torch.from_numpy(mean), torch.arange(first, first + len(mean))
    groups = Grouped.of(keyed_groups(index), lambda rows: Comoments.of(values[rows]))
    return along_directions(groups)


def full(mean: Array, width: float = 0.1, prior: object = None) -> ck.Audit:
    covariance = np.broadcast_to(width * np.eye(mean.shape[1]), (*mean.shape, mean.shape[1]))
    both = {"mean": mean, "covariance": covariance.copy()}
    return ck.audit(
        lambda x: MultivariateNormal(x["mean"], x["covariance"]),
        both,
        prior=prior,
        probes=["active_units", "effective_rank"],
    )


def test_variances_far_apart_are_those_of_the_covariance() -> None:
    mean = np.random.default_rng(1).normal(size=(4000, 4)) * [3.0, 1.0, 0.2, 0.0]
    variance, (low, high) = spread(mean @ turned(4).T)
    by_hand = np.linalg.eigvalsh(np.cov(mean.T))[::-1]
    np.testing.assert_allclose(variance[:3], by_hand[:3], rtol=0.01)
    assert variance[3] < 1e-12
    truth = np.array([9.0, 1.0, 0.04])
    error = truth * np.sqrt(2 / 4000)  # standard error of a Gaussian's variance
    assert (np.abs(variance[:3] - truth) < 4 * error).all()
    # Student's t of 19 degrees, of an error that 20 groups know to 16 %
    np.testing.assert_allclose((high - low)[:3] / 2, 2.09 * error, rtol=0.5)


@pytest.mark.parametrize("n", [30, 60, 200])
def test_a_rotation_changes_nothing_whatever_the_number_of_samples(n: int) -> None:
    mean = np.random.default_rng(n).normal(size=(n, 48)) * np.linspace(1.0, 0.1, 48)
    for one, other in zip(spread(mean), spread(mean @ turned(48).T), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("n", [40, 200, 500])
def test_few_samples_do_not_make_equal_variances_look_unequal(n: int) -> None:
    """Of 64 variances of 0.02, the covariance's own eigenvalues would be 0 or reach 0.1."""
    found = []
    for seed in range(10):
        mean = np.random.default_rng(seed).normal(size=(n, 64)) * np.sqrt(0.02)
        variance, (_, high) = spread(mean, seed * 1000)
        found.append(variance.mean())
        if n > 128:
            assert (np.linalg.eigvalsh(np.cov(mean.T)) < 0.01).sum() >= 3
            assert (high > 0.01).all()
            assert (variance > 0.01).sum() >= 63
    # 64 n squares of N(0, 0.02) each, about their mean
    error = 0.02 * np.sqrt(2 / (64 * n * 10))
    assert abs(np.mean(found) - 0.02) < 4 * error


def test_limits_of_the_count_cover_the_truth() -> None:
    truth = np.array([0.9, 0.7, 0.5, 0.3, 0.1, 0.03, 0.012, 0.008])
    hits, width = 0, []
    for seed in range(60):
        mean = np.random.default_rng(seed).normal(size=(300, 8)) * np.sqrt(truth)
        variance, (low, high) = spread(mean @ turned(8, seed).T, 500 * seed)
        count = [int((part > 0.01).sum()) for part in (low, variance, high)]
        assert count[0] <= count[1] <= count[2]
        hits += count[0] <= 7 <= count[2]
        width.append(count[2] - count[0])
    assert hits >= 54  # 57 of 60 expected, standard error 1.7
    assert np.mean(width) < 2


def test_both_counts_are_told_and_the_columns_stay_those_of_the_axes() -> None:
    mean = np.zeros((300, 4))
    mean[:, 0] = np.random.default_rng(2).normal(size=300)
    audit = full(mean @ hadamard(4) / 2)  # a quarter of it on each axis
    number = audit.number("active_units")
    assert (number.low, number.value, number.high) == (1, 1, 1)
    assert "4 along the axes" in number.note
    assert audit.dimensions["active"].sum() == 4
    finding = next(f for f in audit.findings if f.code == "CK201")
    assert finding.message.startswith("1 of 4 directions of the means are active at 0.01")
    assert finding.message.endswith("Along the axes, one basis of many, 4 are.")
    assert finding.dimensions == ()
    table = audit.tables["active_directions"]
    assert table["variance"].iloc[0] == pytest.approx(mean[:, 0].var(ddof=1), rel=0.02)
    curve = audit.tables["active_units_curve"]
    assert curve["count"].tolist() == [(table["variance"] > t).sum() for t in curve["threshold"]]


def test_the_prior_gives_the_units_whatever_its_covariance() -> None:
    """Means 0.05 of N(0, P) along two of its directions: below 0.01 of its variance."""
    rng = np.random.default_rng(3)
    root = np.linalg.cholesky(np.cov(rng.normal(size=(3, 30)) * [[1.0], [9.0], [0.1]]))
    mean = rng.normal(size=(400, 3)) * [0.05, 0.8, 0.05]
    prior = MultivariateNormal(torch.zeros(3).double(), scale_tril=torch.from_numpy(root))
    for basis in (np.eye(3), turned(3, 5)):
        audit = full(mean @ basis.T @ root.T, prior=prior)
        assert audit.number("active_units").value == 1
        rank = ck.probes.effective_rank(mean)
        assert audit.number("effective_rank").value == pytest.approx(rank.value, rel=1e-9)


def test_one_sample_and_still_means() -> None:
    assert np.isnan(full(np.zeros((1, 3))).number("active_units").value)
    number = full(np.full((50, 3), 7.0)).number("active_units")
    assert (number.low, number.value, number.high) == (0, 0, 0)


def test_products_count_their_axes() -> None:
    mean = np.random.default_rng(4).normal(size=(300, 1)) * np.ones((1, 3))
    both = {"mean": mean, "scale": np.full_like(mean, 0.2)}
    audit = ck.audit(lambda x: (x["mean"], x["scale"]), both, probes=["active_units"])
    assert audit.number("active_units").value == 3  # as Burda et al. count
    assert "active_directions" not in audit.tables
