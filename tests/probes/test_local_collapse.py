"""Which little code is local collapse: one at the prior, not one that is short for everybody."""

from __future__ import annotations

import numpy as np
import pytest

import collapsekit as ck


def audited(mean: np.ndarray, scale: np.ndarray) -> ck.Audit:
    both = {"mean": mean, "scale": scale}
    return ck.audit(lambda x: (x["mean"], x["scale"]), both, probes=[ck.probes.LocalCollapse()])


@pytest.mark.parametrize("nats", [0.6, 1.1])
@pytest.mark.parametrize("idle", [0, 3])
def test_a_short_code_is_not_local(nats: float, idle: int) -> None:
    # one dimension, rate = information = nats; beside it `idle` dimensions at the prior
    width = np.exp(-2 * nats)
    said = np.random.default_rng(0).normal(0, np.sqrt(1 - width), (2000, 1))
    mean = np.concatenate([said, np.zeros((2000, idle))], axis=1)
    audit = audited(mean, np.sqrt([width] + [1.0] * idle) * np.ones_like(mean))
    share = audit.number("locally_collapsed_fraction")
    assert share.low > 0.05  # by the 1 nat bar alone
    assert audit.verdict.name == "healthy"
    finding = next(f for f in audit.findings if f.code == "CK301")
    assert "0.0% of all are wide in every dimension" in finding.message


@pytest.mark.parametrize(("share", "word"), [(0.3, "local"), (0.99, "total"), (0.0, "healthy")])
def test_samples_at_the_prior_are(share: float, word: str) -> None:
    rng = np.random.default_rng(1)
    off = (np.arange(2000) < share * 2000)[:, None]
    mean = np.where(off, 0.0, rng.normal(0, np.sqrt(0.99), (2000, 4)))
    audit = audited(mean, np.where(off, 1.0, 0.1) * np.ones((1, 4)))
    assert audit.verdict.name == word


def test_weak_in_every_dimension_is() -> None:
    """Thirty dimensions of 0.01 nat each, wide and of one width: nobody's code carries anything."""
    mean = np.random.default_rng(2).normal(0, np.sqrt(0.02), (2000, 30))
    assert audited(mean, np.full_like(mean, np.sqrt(0.98))).verdict.name == "total"


@pytest.mark.parametrize(("lam", "dims"), [(0.5, 1), (0.3, 2), (0.9, 2), (0.7, 4)])
def test_weak_for_every_sample_alike_is_no_collapse_of_samples(lam: float, dims: int) -> None:
    """Exact posteriors of a linear model, 0.13 nat a dimension at least: one width for all."""
    mean = np.random.default_rng(3).normal(0, np.sqrt(lam / (1 + lam)), (2000, dims))
    audit = audited(mean, np.full_like(mean, np.sqrt(1 / (1 + lam))))
    finding = next(f for f in audit.findings if f.code == "CK301")
    assert (finding.severity, finding.verdict) == (ck.Severity.WARN, None)
    assert "weak for every sample alike" in finding.message


def test_between_local_and_total_is_not_settled() -> None:
    """94 % at the prior, 6 % narrow, 200 samples: either word is within their error."""
    at_prior = (np.arange(200) < 188)[:, None]
    mean = np.where(at_prior, 0.0, np.random.default_rng(4).normal(0, 1, (200, 2)))
    audit = audited(mean, np.where(at_prior, 1.0, 0.1) * np.ones((1, 2)))
    assert audit.verdict.name == "inconclusive"
