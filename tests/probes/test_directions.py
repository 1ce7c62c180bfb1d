"""Rotated codes of full covariance: verdict and numbers do not depend on the rotation."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

import collapsekit as ck
from collapsekit.probes import directions

DIMS, NOISE = 8, 0.5


def rotation(seed: int, dims: int = DIMS) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(dims, dims, generator=g, dtype=torch.float64))[0]


class Linear:
    """x = W z + N(0, s^2 I) with its exact posterior, all of it in a rotated code.

    W has orthogonal columns of squared norm s^2 `lam`: the rate along each is known.
    """

    def __init__(self, lam: tuple[float, ...], turn: Tensor, blind: int = 0) -> None:
        self.lam, self.turn = torch.tensor(lam, dtype=torch.float64), turn
        self.loadings = rotation(1, 12)[:, : len(lam)] * self.lam.sqrt() * NOISE
        self.read = self.loadings.clone()
        self.read[:, :blind] = 0.0

    def encode(self, x: Tensor) -> MultivariateNormal:
        variance = 1 / (1 + self.lam)
        mean = x @ self.loadings / NOISE**2 * variance
        covariance = self.turn @ torch.diag(variance) @ self.turn.T
        covariance = (covariance + covariance.T) / 2
        return MultivariateNormal(mean @ self.turn.T, covariance.expand(len(x), -1, -1))

    def decode(self, z: Tensor) -> Tensor:
        return z @ self.turn @ self.read.T

    def data(self, n: int) -> Tensor:
        g = torch.Generator().manual_seed(2)
        z, noise = (torch.randn(n, k, generator=g, dtype=torch.float64) for k in (DIMS, 12))
        return z @ self.loadings.T + NOISE * noise


TURNS = [torch.eye(DIMS, dtype=torch.float64), rotation(0)]
HALF = (30.0, 10.0, 4.0, 2.0, 0.0, 0.0, 0.0, 0.0)
WHOLE = (30.0, 20.0, 14.0, 10.0, 7.0, 5.0, 4.0, 3.0)


@functools.cache
def audited(lam: tuple[float, ...], turn: int, blind: int) -> ck.Audit:
    model = Linear(lam, TURNS[turn], blind)
    return ck.audit(model, model.data(300), likelihood=("gaussian", NOISE))


@pytest.mark.parametrize(
    ("lam", "blind", "word"), [(HALF, 0, "partial"), (WHOLE, 0, "healthy"), (WHOLE, 1, "partial")]
)
def test_the_verdict_does_not_depend_on_the_rotation(
    lam: tuple[float, ...], blind: int, word: str
) -> None:
    audits = [audited(lam, turn, blind) for turn in range(len(TURNS))]
    assert [audit.verdict.name for audit in audits] == [word] * len(audits)
    idle = lam.count(0.0)
    for audit in audits:
        assert audit.number("passive_directions").value == idle
        assert audit.number("unread_directions").value == idle + blind
    table, *others = (audit.tables["directions"] for audit in audits)
    columns = table.select_dtypes("number").columns
    for other in others:
        assert (other["state"] == table["state"]).all()
        np.testing.assert_allclose(other[columns], table[columns], rtol=1e-9, atol=1e-9)


def test_axes_are_told_and_not_judged() -> None:
    along, across = (audited(HALF, turn, 0) for turn in range(2))
    assert along.number("passive_dimensions").value == 4
    assert across.number("passive_dimensions").value == 0
    for audit in (along, across):
        for code in ("CK102", "CK601"):
            finding = next(f for f in audit.findings if f.code == code)
            assert (finding.severity, finding.verdict) == (ck.Severity.OK, None)
            assert finding.message.startswith("axis by axis")


def test_the_rate_splits_over_the_directions_of_a_linear_model() -> None:
    """Each carries ln(1 + lam) / 2 in the mean; the variance of its means is lam / (1 + lam)."""
    model = Linear(HALF, rotation(5))
    audit = ck.audit(model, model.data(4000), probes=["kl", "directions"])
    table, lam = audit.tables["directions"], np.array(HALF)
    assert table["kl"].sum() == pytest.approx(audit.number("rate").value, rel=0.03)  # 2,048 rows
    truth = 0.5 * np.log1p(lam)
    used = lam > 0
    error = (table["kl_high"] - table["kl"]).to_numpy() / 1.96
    assert (np.abs(table["kl"] - truth)[used] < 4 * error[used]).all()
    np.testing.assert_allclose(table["kl"][~used], 0.0, atol=1e-12)
    np.testing.assert_allclose(table["width"], 1 / (1 + lam), rtol=0.05)
    np.testing.assert_allclose(table["mean_variance"], lam / (1 + lam), rtol=0.15, atol=1e-12)
    assert table["state"].tolist() == ["active"] * 4 + ["passive"] * 4


def test_usage_along_the_decoders_directions_in_closed_form() -> None:
    audit = audited(HALF, 1, 0)
    table = audit.tables["read_directions"]
    truth = np.array(HALF) / sum(HALF)
    assert (np.abs(table["usage"] - truth) <= 4 * table["usage_se"] + 1e-9).all()
    # E |D(z) - D(z')|^2 / (2 s^2) along a direction is lam
    assert (np.abs(table["nats"] - np.array(HALF)) <= 4 * table["nats_se"] + 1e-9).all()


def test_a_direction_used_for_some_samples_only_is_local_in_any_basis() -> None:
    n, rng = 800, np.random.default_rng(0)
    mean = rng.normal(0, np.sqrt(0.99), (n, 3))
    variance = np.full((n, 3), 0.01)
    off = np.arange(n) < 0.7 * n
    mean[off, 0], variance[off, 0] = 0.0, 1.0
    for turn in (np.eye(3), rotation(4, 3).numpy()):
        covariance = turn @ (variance[:, :, None] * np.eye(3)) @ turn.T
        both = {"mean": mean @ turn.T, "covariance": (covariance + covariance.swapaxes(1, 2)) / 2}
        audit = ck.audit(lambda x: MultivariateNormal(x["mean"], x["covariance"]), both)
        assert audit.verdict.name == "local"
        table = directions(both["mean"], both["covariance"])
        assert table["local"].tolist() == [False, False, True]
        assert table["share_below_epsilon"].iloc[2] == pytest.approx(0.7)


def test_a_correlated_prior_is_measured_in_its_own_units() -> None:
    """q = p for every sample along two of three directions of N(0, P), whatever P is."""
    rng = np.random.default_rng(1)
    root = np.linalg.cholesky(np.cov(rng.normal(size=(3, 20)) * [[1.0], [3.0], [0.2]]))
    mean = np.zeros((400, 3))
    mean[:, 1] = rng.normal(0, np.sqrt(0.9), 400)
    prior = MultivariateNormal(torch.zeros(3).double(), scale_tril=torch.from_numpy(root))
    inside = root @ np.diag([1.0, 0.1, 1.0]) @ root.T
    table = directions(mean @ root.T, np.broadcast_to(inside, (400, 3, 3)), prior=prior)
    assert table["state"].tolist() == ["active", "passive", "passive"]
    by_hand = 0.5 * (0.1 - 1 - np.log(0.1) + (mean[:, 1] ** 2).mean())
    assert table["kl"][0] == pytest.approx(by_hand, rel=1e-9)
    assert table["mean_variance"][0] == pytest.approx(mean[:, 1].var(ddof=1), rel=1e-9)


def test_products_keep_their_axes() -> None:
    mean = np.random.default_rng(2).normal(size=(300, 2))
    audit = ck.audit(lambda x: (0.9 * x, torch.full_like(x, 0.4)), mean)
    assert "directions" not in audit.tables
    assert "directions" not in audit.skipped
    assert "passive_directions" not in audit.summary.index
