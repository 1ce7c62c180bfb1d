"""What every probe must satisfy, whatever it measures."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Sequence
from functools import reduce

import numpy as np
import pandas as pd
import torch

from collapsekit.door import Door
from collapsekit.observation import Observation, population_rows, prior_draws
from collapsekit.population import Population
from collapsekit.probe import Probe, States, merge
from collapsekit.results import Result
from collapsekit.samples import Samples, take_rows
from collapsekit.subset import KeyedSubset


def population_of(door: Door, samples: Samples, seed: int = 0) -> Population:
    """All samples as one population."""
    assert samples.size is not None
    x = samples.take(np.arange(samples.size))
    posterior = door.encode(x, "data", np.arange(samples.size)).posterior
    subset = KeyedSubset(seed, samples.size, np.arange(samples.size), posterior)
    return subset.build(door, samples.size, samples.take)


def observations(
    probe: Probe, door: Door, samples: Samples, cuts: Sequence[int], seed: int = 0
) -> list[Observation]:
    """The probe's stream, cut at `cuts` (sizes; what remains comes last)."""
    assert samples.size is not None
    population = population_of(door, samples, seed)
    total = samples.size
    if probe.source == "prior":
        total = min(probe.limit or 64, 64)
    elif probe.source == "population":
        total = min(probe.limit or total, total)
    ends = [0, *[end for end in np.cumsum(cuts).tolist() if end < total], total]
    parts: list[Observation] = []
    for start, stop in itertools.pairwise(ends):
        if probe.source == "population":
            parts.append(population_rows(population, start, stop, seed))
        elif probe.source == "prior":
            parts.append(prior_draws(population, start, stop, seed))
        else:
            index = np.arange(start, stop)
            x = take_rows(samples.take(np.arange(total)), index)
            posterior = door.encode(x, "data", index).posterior
            parts.append(Observation(door, "data", index, posterior=posterior, seed=seed, x=x))
    return parts


def states_of(probe: Probe, parts: Sequence[Observation]) -> list[States]:
    """States of each part, as a worker would compute them."""
    with torch.no_grad():
        return [probe.observe(part) for part in parts]


def total(states: Sequence[States]) -> States:
    """Their sum."""
    return reduce(merge, states)


def assert_same(a: Result, b: Result, rtol: float = 1e-9, atol: float = 1e-9) -> None:
    """Two results are equal up to rounding."""
    assert [n.name for n in a.numbers] == [n.name for n in b.numbers]
    for first, second in zip(a.numbers, b.numbers, strict=True):
        for field in ("value", "low", "high"):
            np.testing.assert_allclose(
                getattr(first, field), getattr(second, field), rtol, atol, err_msg=first.name
            )
        assert first.n == second.n
        assert first.unit == second.unit
    for left, right in ((a.samples, b.samples), (a.dimensions, b.dimensions)):
        assert (left is None) == (right is None)
        if left is not None and right is not None:
            pd.testing.assert_frame_equal(left, right, rtol=rtol, atol=atol)
    assert a.tables.keys() == b.tables.keys()
    for name, table in a.tables.items():
        pd.testing.assert_frame_equal(table, b.tables[name], rtol=1e-6, atol=1e-6)
    for name, array in a.arrays.items():
        np.testing.assert_allclose(array, b.arrays[name], 1e-6, 1e-6)
    assert [f.code for f in a.findings] == [f.code for f in b.findings]
    assert [f.severity for f in a.findings] == [f.severity for f in b.findings]


def check_probe(probe: Probe, door: Door, samples: Samples) -> None:
    """Any cut, any order of merges, through pickle, twice: the same result."""
    assert samples.size is not None
    whole = probe.conclude(total(states_of(probe, observations(probe, door, samples, []))))
    again = probe.conclude(total(states_of(probe, observations(probe, door, samples, []))))
    assert_same(whole, again, rtol=0, atol=0)
    rng = np.random.default_rng(0)
    for cuts in ([1] * 200, [7] * 40, [13, 1, 29], [samples.size - 1]):
        states = states_of(probe, observations(probe, door, samples, cuts))
        states = [pickle.loads(pickle.dumps(state)) for state in states]
        assert_same(whole, probe.conclude(total(states)))
        shuffled = [states[i] for i in rng.permutation(len(states))]
        assert_same(whole, probe.conclude(total(shuffled)))
        middle = len(states) // 2
        if middle:  # associativity: (a + b) + (c + d)
            halves = [total(states[:middle]), total(states[middle:])]
            assert_same(whole, probe.conclude(total(halves)))
