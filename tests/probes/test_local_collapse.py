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
