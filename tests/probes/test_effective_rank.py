"""Redundant dimensions: means that repeat one another, and means that merely correlate."""

from __future__ import annotations

import itertools
import math

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


@pytest.mark.parametrize(
    ("dims", "n", "heavy"), [(64, 500, False), (128, 1000, False), (64, 500, True)]
)
def test_effective_rank_covers_the_truth_at_real_sizes(dims: int, n: int, heavy: bool) -> None:
    """Eigenvalues 1 / j; the plain ratio of sample covariances is short by D / n of its square."""
    values = 1 / np.arange(1, dims + 1)
    truth = values.sum() ** 2 / (values**2).sum()
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        mean = rng.standard_normal((n, dims)) * np.sqrt(values)
        if heavy:  # Student's t with 6 degrees: fourth moments twice the Gaussian's
            mean *= np.sqrt(4 / rng.chisquare(6, (n, 1)))
        found.append(ck.probes.effective_rank(mean))
    assert sum(number.low <= truth <= number.high for number in found) >= 17  # 19 of 20 expected
    value = np.array([number.value for number in found])
    assert abs(value.mean() - truth) < 3 * value.std(ddof=1) / np.sqrt(20)


def test_both_traces_are_averages_over_four_samples() -> None:
    """U-statistics: products of two independent differences, over all quadruples."""
    x = np.random.default_rng(4).gamma(1.0, size=(9, 3)) + np.array([5.0, 0.0, -2.0])
    four = np.array(list(itertools.permutations(range(9), 4)))
    a, b = x[four[:, 0]] - x[four[:, 1]], x[four[:, 2]] - x[four[:, 3]]
    lengths = (a**2).sum(axis=1) * (b**2).sum(axis=1)
    ratio = lengths.mean() / ((a * b).sum(axis=1) ** 2).mean()
    assert ck.probes.effective_rank(x).value == pytest.approx(min(ratio, 3.0), rel=1e-9)


def test_independent_dimensions_all_count() -> None:
    number = ck.probes.effective_rank(np.random.default_rng(0).standard_normal((1000, 128)))
    assert number.low <= 128 <= number.high
    assert number.high - number.low < 2


def test_fewer_samples_than_dimensions_do_not_tell_repeats() -> None:
    free = np.random.default_rng(3).normal(size=(40, 32))
    audit = audited(np.column_stack([free, free]))
    number = redundant(audit)
    assert np.isnan(number.value)
    assert (number.low, number.high) == (0, 63)
    finding = next(f for f in audit.findings if f.code == "CK612")
    assert finding.severity is ck.Severity.INCONCLUSIVE
    assert "not determined: 40 samples" in finding.message


@pytest.mark.slow
def test_the_interval_near_full_rank_misses_on_both_sides_alike() -> None:
    """Near D the ratio is skewed; an interval symmetric in it misses above the truth."""
    rng, variances = np.random.default_rng(3), np.array([0.45, 0.7])
    truth = variances.sum() ** 2 / (variances**2).sum()
    measured = ck.probes.effective_rank
    found = [measured(rng.normal(size=(200, 2)) * np.sqrt(variances)) for _ in range(400)]
    above = np.mean([number.low > truth for number in found])
    below = np.mean([number.high < truth for number in found])
    allowed = 0.025 + 3 * math.sqrt(0.025 * 0.975 / 400)
    assert above < allowed
    assert below < allowed
    assert all(number.low <= number.value <= number.high <= 2 for number in found)
