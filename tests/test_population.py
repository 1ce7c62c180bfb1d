"""The keyed subset: uniform, exact under any cut, and its partners."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collapsekit.door import Door
from collapsekit.kernels.mixture import MixtureColumns
from collapsekit.observation import Observation
from collapsekit.population import Population
from collapsekit.posteriors import DiagonalGaussian
from collapsekit.samples import take_rows
from collapsekit.subset import KeyedSubset
from tests import models


def subset(rows: np.ndarray, limit: int, x: Any = None) -> KeyedSubset:
    mean = torch.from_numpy(rows.astype(float))[:, None]
    return KeyedSubset(0, limit, rows, DiagonalGaussian(mean, torch.ones_like(mean)), x)


def test_any_cut_gives_the_same_subset() -> None:
    rows = np.arange(5_000)
    whole = subset(rows, 300).build(Door(models.Constant()), 5_000)
    rng = np.random.default_rng(0)
    for cuts in ([2500], list(range(0, 5000, 37))):
        pieces = [subset(r, 300) for r in np.split(rng.permutation(rows), cuts)]
        total = pieces[0]
        for piece in pieces[1:]:
            total = total + piece
        built = total.build(Door(models.Constant()), 5_000)
        np.testing.assert_array_equal(built.index, whole.index)
        assert torch.equal(built.posterior.mean, whole.posterior.mean)


def test_the_subset_is_uniform() -> None:
    index = subset(np.arange(20_000), 2_000).build(Door(models.Constant()), 20_000).index
    assert len(set(index.tolist())) == 2_000
    mean, error = index.mean(), 20_000 / np.sqrt(12 * 2_000)
    assert abs(mean - 10_000) < 4 * error
    head = index[:500]
    assert abs(head.mean() - 10_000) < 4 * 20_000 / np.sqrt(12 * 500)


def test_stored_inputs_follow_their_rows() -> None:
    rows = np.arange(100)
    x = torch.arange(100.0)[:, None]
    total = subset(rows[:40], 30, x[:40]) + subset(rows[40:], 30, x[40:])
    built = total.build(Door(models.Constant()), 100)
    got = built.inputs(np.arange(30))
    assert isinstance(got, Tensor)
    np.testing.assert_array_equal(got[:, 0], built.index)


class Conditional:
    """Three classes; the condition is the last column."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :1].double(), torch.ones(len(x), 1).double()

    def context(self, x: Tensor) -> Tensor:
        return x[:, -1:]

    def decode(self, z: Tensor, context: Tensor) -> Tensor:
        return torch.cat([z, context], dim=1)


def test_partners_share_the_condition() -> None:
    x = torch.stack([torch.randn(61), torch.arange(61) % 3], dim=1)
    x[60, 1] = 9  # a class of its own
    adapter = Conditional()
    posterior = DiagonalGaussian(x[:, :1].double(), torch.ones(61, 1).double())
    keyed = KeyedSubset(0, 61, np.arange(61), posterior)
    population = keyed.build(Door(adapter), 61, lambda rows: take_rows(x, rows))
    partner = population.partner.numpy()
    condition = x[population.index, 1].numpy()
    alone = condition == 9
    assert (partner[alone] == -1).all()
    assert (condition[partner[~alone]] == condition[~alone]).all()
    assert (partner != np.arange(61)).all()
    assert len(set(partner[~alone].tolist())) == 60  # a cycle within each class


def test_a_partner_is_the_next_in_hash_order() -> None:
    population = subset(np.arange(10), 10).build(Door(models.Constant()), 10)
    assert population.partner.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]


def test_focus_takes_all_up_to_64_and_the_extremes_beyond() -> None:
    mean = torch.zeros(20, 200, dtype=torch.float64)
    mean[:, 50] = 3.0
    posterior = DiagonalGaussian(mean, torch.ones_like(mean))
    population = Population(Door(models.Constant()), np.arange(20), posterior, None, 20)
    assert len(population.focus) == 64
    assert 50 in population.focus


def test_information_does_not_depend_on_the_rows_asked_for() -> None:
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(1300, 4))
    obs = Observation.of_arrays(mean, np.full((1300, 4), 0.3))
    whole = obs.population.log_others(0, 1300, 0)
    fresh = Observation.of_arrays(mean, np.full((1300, 4), 0.3)).population  # nothing cached yet
    assert torch.equal(fresh.log_others(511, 513, 0), whole[511:513])


def test_products_are_made_elsewhere_and_brought() -> None:
    """What two rows were asked for is known beforehand; brought, it is what it would have been."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(700, 3)))

    def built(rows: int, apart: bool = False) -> Population:
        mean = x[:rows, :2].contiguous()
        posterior = DiagonalGaussian(mean, torch.full_like(mean, 0.3))
        door = Door(models.LinearVAE((3.0, 1.0)))
        keyed = KeyedSubset(0, rows, np.arange(rows), posterior, x[:rows])
        return keyed.build(door, rows, apart=apart)

    def ask(population: Population) -> list[Any]:
        head = population.head(600)
        return [
            population.columns,
            population.rate,
            population.value_range,
            population.log_marginals(500, 64, 0),
            population.prior_outputs(1_000, 0)[1],
            head.nearest("inputs", 5),
            population.head(5_000).nearest("codes", 5),
        ]

    rehearsed = built(2, apart=True)
    ask(rehearsed)
    worker, receiver, plain = built(700), built(700), built(700)
    pieces = [p for place in receiver.lacking(rehearsed.asked()) for p in receiver.pieces(place)]
    names = [name for _, (name, _) in pieces]
    assert names.count("_prior_part") == 2  # 1,000 decodes in tiles of 512
    assert ((600,), ("nearest", ("inputs", 5))) in pieces
    assert ((), ("nearest", ("codes", 5))) in pieces  # 5,000 rows are all rows here
    for place in pieces:
        receiver.bring(place, pickle.loads(pickle.dumps(worker.make(place))))
    assert not {name for _, (name, _) in receiver.lacking(plain.asked())}
    before = set(receiver.asked())
    for mine, theirs in zip(ask(receiver), ask(plain), strict=True):
        same_value(mine, theirs)
    wholes = {"prior_outputs", "log_marginals"}  # put together here, from what was brought
    assert {name for _, (name, _) in set(receiver.asked()) - before} == wholes


def same_value(mine: Any, theirs: Any) -> None:
    if isinstance(mine, MixtureColumns):
        for name in ("mean", "scale", "position"):
            assert torch.equal(getattr(mine, name), getattr(theirs, name))
    elif isinstance(mine, Tensor):
        assert torch.equal(mine, theirs)
    else:
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(theirs))
