"""Counts of what holds: their limits, by enumeration and by how often they are wrong."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from collapsekit.claims import (
    LEVEL,
    Claim,
    above,
    above_by_ends,
    any_of,
    count_number,
    every,
    known,
    least,
    perhaps,
    share_at_least,
)
from collapsekit.independent import rows_alike


def simes(chance: tuple[float, ...]) -> float:
    """The p-value of Simes' test that none of them holds."""
    ordered = sorted(chance)
    return min(p * len(ordered) / (i + 1) for i, p in enumerate(ordered))


def by_enumeration(chance: np.ndarray) -> int:
    """Closed testing by its definition: each set of things, and each set that holds it."""
    kept = [2 * p for p in chance if p <= 0.5]
    things = range(len(kept))
    sets = [s for size in range(1, len(kept) + 1) for s in itertools.combinations(things, size)]
    rejected = {s for s in sets if simes(tuple(kept[i] for i in s)) <= LEVEL}
    sure = {s for s in sets if all(t in rejected for t in sets if set(t) >= set(s))}
    return len(kept) - max((len(s) for s in sets if s not in sure), default=0)


@pytest.mark.parametrize("seed", range(40))
def test_the_least_number_is_that_of_closed_testing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    chance = rng.random(7) ** rng.choice([1, 3, 6])
    assert least(chance) == by_enumeration(chance)


def test_the_ends_of_a_count() -> None:
    assert least(np.array([])) == 0
    assert least(np.zeros(5)) == 5
    assert least(np.ones(5)) == 0
    assert least(np.array([0.0, 1.0, 1.0])) == 1
    number = count_number("n", known(np.array([True, False, True])), "dimensions", 9, "told")
    assert (number.value, number.low, number.high, number.n) == (2, 2, 2, 9)
    nothing = count_number("n", known(np.zeros(0, dtype=bool)), "dimensions", 0, "")
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)


def test_one_among_many_clear_ones_pays_for_no_looks() -> None:
    """Beside 31 that surely are not, one is judged at its own level (twice: it was picked)."""
    ratio = np.array([2.3, *[-8.0] * 31])
    claim = above(ratio, np.ones(32), 0.0)
    number = count_number("n", claim, "dimensions", 100, "")
    assert (number.low, number.value, number.high) == (1, 1, 1)
    crowd = count_number("n", above(np.maximum(ratio, 0.0), np.ones(32), 0.0), "d", 100, "")
    assert (crowd.low, crowd.high) == (0, 32)  # all at the bar: 2.3 is what 32 show by chance


def noise(dims: int, correlation: float, rng: np.random.Generator) -> np.ndarray:
    """300 audits of normal errors that go together: [300, dims]."""
    shape = np.full((dims, dims), correlation) + (1 - correlation) * np.eye(dims)
    values, vectors = np.linalg.eigh(shape)
    root = vectors * np.sqrt(np.maximum(values, 0))
    drawn: np.ndarray = rng.standard_normal((300, dims)) @ root.T
    return drawn


@pytest.mark.parametrize("dims", [2, 32, 64])
@pytest.mark.parametrize("correlation", [None, 0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("below", [0.0, 0.7])
def test_none_is_called_by_the_number_of_looks(
    dims: int, correlation: float | None, below: float
) -> None:
    """None holds, all stand at the bar or 0.7 errors short of it; None: as negative as can be."""
    rng = np.random.default_rng([dims, int(10 * below)])
    common = -0.999 / (dims - 1) if correlation is None else correlation
    called = sum(
        least(above(row - below, np.ones(dims), 0.0).if_not) >= 1
        for row in noise(dims, common, rng)
    )
    # 2.5 % asked for: 7.5 of 300, and 17 or more with a chance of 0.002
    assert called <= 16


@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_the_count_lies_in_its_interval(correlation: float) -> None:
    """Ten clear on one side, ten on the other, and twelve about the bar."""
    truth = np.concatenate([np.full(10, 6.0), np.full(10, -6.0), np.linspace(-2, 2, 12)])
    right = 0
    for row in noise(32, correlation, np.random.default_rng(1)):
        number = count_number("n", above(truth + row, np.ones(32), 0.0), "dimensions", 1, "")
        right += number.low <= (truth > 0).sum() <= number.high
    assert right >= 272  # 285 of 300 asked for: fewer than 272 have a chance of 0.001


def test_a_normal_measure_and_students() -> None:
    claim = above(np.array([1.2, 0.8]), np.array([0.1, 0.1]), 1.0)
    np.testing.assert_allclose(claim.if_not, scipy.stats.norm.sf([2, -2]), rtol=1e-9)
    np.testing.assert_allclose(claim.if_so, scipy.stats.norm.cdf([2, -2]), rtol=1e-9)
    assert claim.so.tolist() == [True, False]
    few = above(np.array([1.2]), np.array([0.1]), 1.0, 4)
    assert few.if_not[0] == pytest.approx(scipy.stats.t.sf(2, 4))
    exact = above(np.array([1.0, 1.1, 1.1]), np.array([0.0, 0.0, np.nan]), 1.0)
    assert exact.if_not.tolist() == [0.5, 0.0, 1.0]  # an error that is not known settles nothing
    assert exact.if_so.tolist() == [0.5, 1.0, 1.0]
    ends = above_by_ends(np.array([2.0, 2.0]), np.array([1.0, 1.0]), np.array([6.0, 6.0]), 1.0)
    np.testing.assert_allclose(ends.if_not, 0.025)  # the bar is the lower end
    ends = above_by_ends(np.array([2.0]), np.array([1.0]), np.array([6.0]), 6.0)
    np.testing.assert_allclose(ends.if_so, 0.025)


def test_a_share_is_judged_by_the_binomial_distribution() -> None:
    count = np.array([0.0, 470.0, 475.0, 488.0, 500.0])
    claim = share_at_least(count, 500, 0.95)
    assert claim.so.tolist() == [False, False, True, True, True]
    np.testing.assert_allclose(claim.if_not, scipy.stats.binom.sf(count - 1, 500, 0.95), rtol=1e-9)
    np.testing.assert_allclose(claim.if_so, scipy.stats.binom.cdf(count, 500, 0.95), rtol=1e-9)
    with rows_alike(5.0):  # five times each: a fifth of the samples
        often = share_at_least(np.array([475.0]), 500, 0.95)
    once = share_at_least(np.array([95.0]), 100, 0.95)
    assert often.if_not[0] == pytest.approx(once.if_not[0])
    one = share_at_least(np.array([1.0]), 1, 0.95)
    assert one.if_not[0] == pytest.approx(0.95)


def test_claims_combine() -> None:
    a = Claim(np.array([True, True, False]), np.array([0.01, 0.2, 0.9]), np.array([0.99, 0.8, 0.1]))
    b = Claim(np.array([True, False, False]), np.array([0.3, 0.7, 1.0]), np.array([0.7, 0.3, 0.0]))
    both = every(a, b)
    assert both.so.tolist() == [True, False, False]
    np.testing.assert_allclose(both.if_not, [0.3, 0.7, 1.0])
    np.testing.assert_allclose(both.if_so, [1.0, 0.6, 0.0])
    either = any_of(a, b)
    assert either.so.tolist() == [True, True, False]
    np.testing.assert_allclose(either.if_not, [0.02, 0.4, 0.9])  # b fails for sure: a alone is open
    np.testing.assert_allclose(either.if_so, [0.99, 0.8, 0.1])
    few = a.among(np.array([True, False, False]))
    assert few.so.tolist() == [True, False, False]
    assert few.if_so.tolist() == [0.99, 0.0, 0.0]
    assert (~a).so.tolist() == [False, False, True]


def test_none_perhaps_is_as_sure_as_one_look() -> None:
    """One of 32 is so, exactly at its bar: none is told of it in 2.5 % of the cases at most."""
    rng = np.random.default_rng(1)
    value = rng.standard_normal((2000, 32)) + 6.0
    value[:, 5] -= 6.0  # not above 0, just so
    none = [perhaps(~above(row, np.ones(32), 0.0)) == 0 for row in value]
    assert sum(none) <= 2000 * LEVEL + 3 * math.sqrt(2000 * LEVEL)
    assert sum(none) > 0


def test_both_at_the_bar_are_not_called_too_often() -> None:
    """That not both hold, where both just do: two looks at one thing."""
    rng = np.random.default_rng(0)
    called = 0
    for row in rng.standard_normal((2000, 2)):
        both = every(*(above(row[[i]], np.ones(1), 0.0) for i in range(2)))
        called += least(both.if_so)
    assert called <= 2000 * LEVEL + 3 * math.sqrt(2000 * LEVEL)
