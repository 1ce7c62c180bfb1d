"""KL schedules against their formulas."""

from __future__ import annotations

import pytest

from collapsekit.errors import InputError
from collapsekit.remedies import cyclical_annealing, linear_annealing


@pytest.mark.parametrize(
    ("step", "weight"), [(0, 0.0), (1, 0.05), (5, 0.25), (10, 0.5), (11, 0.5), (1000, 0.5)]
)
def test_linear_rises_and_holds(step: int, weight: float) -> None:
    assert linear_annealing(step, 10, beta=0.5) == pytest.approx(weight, abs=1e-15)


def test_no_warm_up_is_beta_from_the_first_step() -> None:
    assert linear_annealing(0, 0, beta=0.3) == 0.3


def test_cycles_rise_over_their_ramp_and_hold() -> None:
    # T = 40, M = 4, R = 0.5: cycles of 10 steps, 5 of them rising by 0.2.
    cycle = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0]
    weights = [cyclical_annealing(step, 40) for step in range(44)]
    assert weights == pytest.approx(cycle * 4 + [1.0] * 4, abs=1e-15)


def test_one_cycle_is_a_linear_rise() -> None:
    for step in range(30):
        cyclical = cyclical_annealing(step, 20, cycles=1, ramp=0.5, beta=2.0)
        assert cyclical == pytest.approx(linear_annealing(step, 10, beta=2.0), abs=1e-15)


def test_cycles_that_do_not_divide_the_training_start_at_whole_steps() -> None:
    # ceil(10 / 3) = 4 steps a cycle, tau in units of 10 / 3 steps (Fu et al. 2019).
    weights = [cyclical_annealing(step, 10, cycles=3, ramp=1.0) for step in range(10)]
    assert weights == pytest.approx([0, 0.3, 0.6, 0.9] * 2 + [0, 0.3], abs=1e-15)


def test_refusals() -> None:
    with pytest.raises(InputError, match=r"cannot be placed[\s\S]*step -1 of 10"):
        linear_annealing(-1, 10)
    with pytest.raises(InputError, match="cannot be placed"):
        linear_annealing(0, -1)
    with pytest.raises(InputError, match="cannot be placed"):
        cyclical_annealing(0, 0)
    for wrong in ({"cycles": 0}, {"ramp": 0.0}, {"ramp": 1.5}):
        with pytest.raises(InputError, match="cycles cannot be used"):
            cyclical_annealing(0, 10, **wrong)  # type: ignore[arg-type]
