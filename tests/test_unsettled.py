"""Real audits with an interval on both sides of a bar: what is not settled blocks milder words."""

from __future__ import annotations

import numpy as np
import pytest

import collapsekit as ck
from collapsekit.findings import Severity


def audited(mean: np.ndarray, scale: np.ndarray) -> ck.Audit:
    return ck.audit(lambda x: (x["mean"], x["scale"]), {"mean": mean, "scale": scale})


def severity(audit: ck.Audit, code: str) -> Severity:
    return next(f.severity for f in audit.findings if f.code == code)


def linear(lam: float, n: int, idle: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Exact posteriors of a linear model: one dimension of signal to noise `lam`, others idle."""
    mean = np.zeros((n, 1 + idle))
    mean[:, 0] = np.random.default_rng(seed).normal(0, np.sqrt(lam / (1 + lam)), n)
    scale = np.ones_like(mean)
    scale[:, 0] = np.sqrt(1 / (1 + lam))
    return mean, scale


@pytest.mark.parametrize(
    ("lam", "word"),
    [
        (np.expm1(0.2), "inconclusive"),  # information and rate are ln(1 + lam) / 2 = 0.1 nat
        (np.expm1(2.0), "partial"),  # 1 nat
        (np.expm1(0.02), "total"),  # 0.01 nat
    ],
)
def test_idle_dimensions_of_a_code_that_may_carry_nothing(lam: float, word: str) -> None:
    audit = audited(*linear(lam, 1000, 7, seed=0))
    assert severity(audit, "CK102") is Severity.WARN  # 7 of 8 are passive, settled
    assert audit.verdict.name == word
    if word == "inconclusive":
        rate = audit.number("rate")
        assert rate.low < 0.1 < rate.high
        assert "perhaps total, partial at least" in audit.verdict.sentence


@pytest.mark.parametrize(
    ("share", "word"), [(0.05, "inconclusive"), (0.15, "local"), (0, "partial")]
)
def test_idle_dimensions_of_a_code_that_may_be_locally_collapsed(share: float, word: str) -> None:
    """The share of samples at the prior is on the bar of 5 %, above it, none; two are idle."""
    n = 600
    off = (np.arange(n) < share * n)[:, None]
    mean = np.where(off, 0.0, np.random.default_rng(1).normal(0, np.sqrt(0.99), (n, 4)))
    scale = np.where(off, 1.0, 0.1) * np.ones_like(mean)
    mean[:, 2:], scale[:, 2:] = 0.0, 1.0
    audit = audited(mean, scale)
    assert severity(audit, "CK102") is Severity.WARN
    if share == 0.05:
        assert severity(audit, "CK301") is Severity.INCONCLUSIVE
    assert audit.verdict.name == word


@pytest.mark.parametrize(
    ("share", "word"), [(0.95, "inconclusive"), (0.9, "local"), (0.99, "partial")]
)
def test_a_dimension_between_passive_and_local(share: float, word: str) -> None:
    """One of two dimensions equals the prior for 95 % of the samples: at the bar of both words."""
    n = 800
    off = np.arange(n) < share * n
    mean = np.random.default_rng(2).normal(0, np.sqrt(0.99), (n, 2))
    scale = np.full_like(mean, 0.1)
    mean[off, 1], scale[off, 1] = 0.0, 1.0
    assert audited(mean, scale).verdict.name == word


def test_a_narrow_code_at_the_edge_of_the_prior_with_an_idle_dimension() -> None:
    """Near-deterministic or not is open (0.14 nat of mismatch a code, the bar is 0.5 in all)."""
    mean = 0.65 * np.random.default_rng(0).normal(size=(1000, 4))
    scale = np.full_like(mean, 0.018)
    mean[:, 3], scale[:, 3] = 0.0, 1.0
    audit = audited(mean, scale)
    assert severity(audit, "CK603") is Severity.INCONCLUSIVE
    assert audit.verdict.name == "inconclusive"
    assert "perhaps near-deterministic, partial at least" in audit.verdict.sentence
