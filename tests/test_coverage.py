"""Coverage of the intervals: the machinery, and a smoke run of it."""

from __future__ import annotations

import math

import pytest

from benchmarks import coverage
from collapsekit.number import Number


def test_misses_are_counted_on_their_sides() -> None:
    assert coverage.covered((1.0, 2.0), 1.5) == 0
    assert coverage.covered((1.0, 2.0), 0.5) == 1
    assert coverage.covered((1.0, 2.0), 2.5) == -1
    assert coverage.covered((1.0, 1.0), 1.0 + 1e-12) == 0


def test_a_headline_is_judged_against_its_truth_or_its_own_mean() -> None:
    numbers = [Number("x", v, v - 1, v + 1, "1", 10) for v in (0.0, 0.0, 0.0, 4.0)]
    told = coverage.judged(numbers, 0.5)
    assert (told["coverage"], told["above"], told["own mean"]) == (0.75, 0.25, False)
    own = coverage.judged(numbers, math.nan)
    assert (own["truth"], own["coverage"], own["own mean"]) == (1.0, 0.75, True)
    record = {"case": "made up", "replications": 4, "headlines": {"x": told}}
    assert "| made up, 4 | `x` | 0.5 | 75.0 |" in coverage.table([record])
    assert "**below 92.7**" in coverage.table([record])


@pytest.mark.slow
@pytest.mark.parametrize("case", ["local", "widths", "correlated"])
def test_a_hundred_replications(case: str) -> None:
    """Not below 92.7 % as far as a hundred replications can tell: by the upper Wilson limit."""
    record = coverage.replicate(case, 100, 500)
    for key, row in record["headlines"].items():
        assert row["high"] >= coverage.FLOOR, key


@pytest.mark.slow
def test_encoder_and_decoder_headlines_of_the_linear_model() -> None:
    record = coverage.replicate("linear", 40, 500)
    for key, row in record["headlines"].items():
        assert row["high"] >= coverage.FLOOR, key
