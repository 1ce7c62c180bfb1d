"""Local rank of the encoder along the data: linear maps of known rank, and folds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import collapsekit as ck
from collapsekit.findings import Severity
from collapsekit.observation import Observation
from collapsekit.probe import measure
from collapsekit.probes.encoder_rank import EncoderRank, _along_neighbours
from collapsekit.results import Result

RNG = np.random.default_rng(0)


def of(mean: np.ndarray, x: np.ndarray) -> Result:
    obs = Observation.of_arrays(mean, np.full_like(mean, 0.1), x=x)
    return measure(EncoderRank(limit=None), obs)


@pytest.mark.parametrize("rank", [0, 1, 2, 4])
def test_a_linear_encoder_has_the_rank_of_its_matrix(rank: int) -> None:
    x = RNG.normal(size=(200, 6))
    left, right = (np.linalg.qr(RNG.normal(size=(m, 4)))[0] for m in (6, 5))
    matrix = left[:, :rank] @ right[:, :rank].T
    result = of(x @ matrix, x)
    assert (result.samples["encoder_rank"] == rank).all()
    assert result.numbers[0].value == rank
    assert result.numbers[1].value == 6  # the data's own
    assert result.findings[0].severity is (Severity.OK if rank else Severity.WARN)


def test_singular_values_of_a_linear_encoder_are_its_own() -> None:
    x, matrix = RNG.normal(size=(150, 3)), RNG.normal(size=(3, 4))
    obs = Observation.of_arrays(x @ matrix, np.full((150, 4), 0.5), x=x)
    crowd, rows = obs.population, torch.as_tensor(obs.rows)
    near = torch.as_tensor(crowd.nearest("inputs", 10))
    values, directions = _along_neighbours(crowd, rows, near, 1e-6)
    assert (directions == 3).all()
    expected = np.linalg.svd(matrix / 0.5, compute_uv=False)
    np.testing.assert_allclose(values[:, :3], np.tile(expected, (150, 1)), rtol=1e-9)
    np.testing.assert_allclose(values[:, 3:], 0.0, atol=1e-6 * expected[0])


def test_the_tangent_of_data_on_a_plane_is_the_plane() -> None:
    x = RNG.normal(size=(200, 2)) @ RNG.normal(size=(2, 30))
    result = of(x[:, :20], x)
    assert result.numbers[1].value == 2
    assert result.numbers[0].value == 2


def test_a_fold_takes_a_direction_away() -> None:
    # (x1^2, x2): full rank but beside x1 = 0, where only the second direction moves.
    x = np.random.default_rng(1).uniform(-1, 1, size=(2000, 2))
    result = of(np.stack([x[:, 0] ** 2, x[:, 1]], axis=1), x)
    rank = result.samples["encoder_rank"].to_numpy(dtype=int)
    assert result.numbers[0].value == 2
    assert set(rank) == {1, 2}
    assert np.abs(x[rank == 1, 0]).max() < 0.1
    assert (rank[np.abs(x[:, 0]) < 0.005] == 1).all()


def test_the_plain_function_and_equal_inputs() -> None:
    x = np.concatenate([np.zeros((12, 3)), RNG.normal(size=(50, 3)) + 9])
    got = ck.probes.encoder_rank(x, np.ones_like(x), x)
    # Eleven copies of a sample among its twelve nearest: the rank is that of one without copies.
    np.testing.assert_array_equal(got[11:], ck.probes.encoder_rank(x[11:], 1 + 0 * x[11:], x[11:]))
    assert (got[:12] == got[11]).all()
    assert np.median(got) == 3
    alike = of(np.zeros((15, 2)), np.zeros((15, 2)))
    assert alike.findings[0].severity is Severity.INCONCLUSIVE
