"""Redundant dimensions: means that repeat one another, and means that merely correlate."""

from __future__ import annotations

import numpy as np
import pytest

import collapsekit as ck


def audited(mean: np.ndarray) -> ck.Audit:
    both = {"mean": mean, "scale": np.full_like(mean, 0.2)}
    return ck.audit(lambda x: (x["mean"], x["scale"]), both, probes=[ck.probes.EffectiveRank()])


def redundant(audit: ck.Audit) -> ck.Number:
    return audit.number("redundant_dimensions")


def test_copies_and_sums_are_counted() -> None:
    rng = np.random.default_rng(0)
    free = rng.normal(size=(600, 3)) * [1.0, 0.5, 0.2]
    mean = np.column_stack([free, free[:, 0], free[:, 1] - 0.3 * free[:, 2]])
    audit = audited(mean)
    assert redundant(audit).value == redundant(audit).low == redundant(audit).high == 2
    finding = next(f for f in audit.findings if f.code == "CK612")
    assert finding.severity is ck.Severity.WARN
    assert "2 of 5 active dimensions" in finding.message
    assert finding.dimensions == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.9])
def test_correlation_is_no_redundancy(correlation: float) -> None:
    # eigenvalues 1 + r and 1 - r: 0.1 of a dimension's variance is twice the bar
    mean = np.random.default_rng(1).multivariate_normal(
        np.zeros(2), [[1, correlation], [correlation, 1]], 2000
    )
    audit = audited(mean)
    assert redundant(audit).value == 0
    assert all(f.code != "CK612" for f in audit.findings)


@pytest.mark.parametrize("n", [40, 60, 200])
def test_few_samples_make_no_redundancy(n: int) -> None:
    # of 30 independent dimensions, 40 samples show eigenvalues near (1 - sqrt(30 / 40))^2 = 0.018
    mean = np.random.default_rng(n).normal(size=(n, 30))
    assert redundant(audited(mean)).value == 0


def test_passive_and_still_dimensions_do_not_count() -> None:
    mean = np.column_stack([np.random.default_rng(2).normal(size=500), np.zeros(500)])
    assert redundant(audited(mean)).value == 0
    assert redundant(audited(np.zeros((500, 2)))).value == 0
