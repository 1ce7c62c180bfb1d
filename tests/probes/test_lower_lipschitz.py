"""How close the codes of neighbouring inputs come: linear encoders, and folds made on purpose."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from torch.distributions import MultivariateNormal

import collapsekit as ck
from collapsekit.findings import Severity
from collapsekit.number import Number
from collapsekit.observation import Observation
from collapsekit.probe import measure
from collapsekit.results import Result


def of(mean: np.ndarray, width: float, x: np.ndarray) -> Result:
    obs = Observation.of_arrays(mean, np.full_like(mean, width), x=x)
    return measure(ck.probes.LowerLipschitz(limit=None), obs)


def test_a_scaled_encoder_has_its_scale_everywhere() -> None:
    x = np.random.default_rng(0).normal(size=(80, 3))
    got = ck.probes.lower_lipschitz(2.5 * x, np.full_like(x, 0.5), x)
    np.testing.assert_allclose(got, 5.0, rtol=1e-12)


def noisy(x: np.ndarray, matrix: np.ndarray) -> Number:
    """E(x) = A x with covariance A A' / 4: two codes lie 2 |x - x'| apart, whatever A is."""
    factor = np.linalg.qr(matrix.T / 2)[1].T
    factor = torch.from_numpy(factor * np.sign(np.diag(factor)))
    obs = Observation.of_arrays(
        torch.from_numpy(x @ matrix.T),
        factor.expand(len(x), -1, -1),
        x=x,
        family=lambda given: MultivariateNormal(given[0], scale_tril=given[1]),
    )
    return measure(ck.probes.LowerLipschitz(limit=None), obs).numbers[0]


def test_noise_that_goes_the_way_of_the_data_has_one_scale_in_any_basis() -> None:
    rng = np.random.default_rng(3)
    x, matrix = rng.normal(size=(80, 3)), rng.normal(size=(3, 3))
    for found in (noisy(x, matrix), noisy(x, matrix @ np.diag([1.0, 1.0, 1e-3]))):
        np.testing.assert_allclose([found.low, found.value, found.high], 2.0, rtol=1e-6)


def test_widths_below_rounding_read_as_wider_and_stop_nothing() -> None:
    rng = np.random.default_rng(3)
    found = noisy(rng.normal(size=(80, 3)), rng.normal(size=(3, 3)) @ np.diag([1.0, 1.0, 1e-9]))
    assert 0 < found.low <= found.value <= 2


def test_a_linear_encoder_on_a_lattice_is_slowest_along_an_axis() -> None:
    # Four nearest on a lattice: one step along either axis. The slower axis is the minimum.
    x = np.array(list(itertools.product(range(9), range(9))), dtype=np.float64)
    got = ck.probes.lower_lipschitz(x * [3.0, 0.7], np.full_like(x, 0.1), x, neighbours=4)
    inner = ((x > 0) & (x < 8)).all(axis=1)
    np.testing.assert_allclose(got[inner], 7.0, rtol=1e-12)


def test_any_linear_encoder_against_its_matrix() -> None:
    rng = np.random.default_rng(1)
    x, matrix = rng.normal(size=(60, 4)), rng.normal(size=(4, 3))
    scale = rng.uniform(0.2, 2.0, size=(60, 3))
    _, near = cKDTree(x).query(x, 11)  # the sample itself comes first
    step = x[near[:, 1:]] - x[:, None]
    pooled = (scale[near[:, 1:]] ** 2 + scale[:, None] ** 2) / 2
    moved = np.sqrt(((step @ matrix) ** 2 / pooled).sum(axis=2))
    expected = (moved / np.linalg.norm(step, axis=2)).min(axis=1)
    got = ck.probes.lower_lipschitz(x @ matrix, scale, x)
    np.testing.assert_allclose(got, expected, rtol=1e-10)


def test_equal_inputs_are_left_out() -> None:
    x = np.arange(20.0)[:, None]
    twins = np.concatenate([x, x])
    got = ck.probes.lower_lipschitz(3 * twins, np.ones_like(twins), twins)
    np.testing.assert_allclose(got, 3.0)
    # More copies than neighbours are looked at: the nearest others are found all the same.
    heap = np.concatenate([np.zeros((30, 1)), x + 5])
    result = of(heap, 1.0, heap)
    np.testing.assert_allclose(result.samples["lower_lipschitz"], 1.0)
    assert result.numbers[0].n == 50
    alike = of(np.zeros((15, 2)), 1.0, np.zeros((15, 2)))
    assert alike.findings[0].severity is Severity.INCONCLUSIVE


def test_a_fold_is_seen_and_named() -> None:
    # |x| on a grid: only the samples beside 0 lie nearer to their mirror image's code than to any.
    x = np.arange(-100.0, 101.0)[:, None]
    folded = of(np.abs(x), 1.0, x)
    (share,) = [n for n in folded.numbers if n.name == "folded_fraction"]
    # Ten nearest reach five steps either way: 1 and 2 find their images, 2 and 4 steps off.
    assert share.value == 4 / 201
    assert folded.findings[0].samples == (98, 99, 101, 102)
    straight = of(x, 1.0, x)
    assert straight.numbers[2].value == 0
    assert straight.findings[0].severity is Severity.OK


def test_an_encoder_that_drops_a_direction_folds() -> None:
    x = np.random.default_rng(2).normal(size=(500, 4))
    dropped = of(x[:, :1], 0.1, x)
    assert dropped.findings[0].severity is Severity.WARN
    assert of(x, 0.1, x).findings[0].severity is Severity.OK


def test_a_constant_encoder_is_called_constant() -> None:
    x = np.random.default_rng(3).normal(size=(50, 2))
    result = of(np.full((50, 2), 2.0), 1.0, x)
    assert result.numbers[2].value == 1.0
    assert "it is constant" in result.findings[0].message


def test_one_sample_has_no_neighbours() -> None:
    with pytest.raises(ck.Unavailable, match="no neighbours"):
        of(np.zeros((1, 2)), 1.0, np.zeros((1, 2)))


@pytest.mark.parametrize("unit", [1e-27, 1e25])
def test_units_whose_squares_are_no_single_precision_numbers(unit: float) -> None:
    x = np.random.default_rng(0).normal(size=(60, 4))
    mean, scale = x[:, :2], np.full((60, 2), 0.1)
    expected = ck.probes.lower_lipschitz(mean, scale, x)
    got = ck.probes.lower_lipschitz(mean, scale, (x * unit).astype(np.float32))
    np.testing.assert_allclose(got * unit, expected, rtol=1e-4)
