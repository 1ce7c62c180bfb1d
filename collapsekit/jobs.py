"""What a worker needs, and what it does: shards, and products of the population."""

from __future__ import annotations

import copy
import hashlib
import pickle
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from collapsekit.adapter import session
from collapsekit.adapters import as_adapter
from collapsekit.door import Door
from collapsekit.errors import ModelError
from collapsekit.observation import Source
from collapsekit.population import Population
from collapsekit.posteriors import Family
from collapsekit.probe import Probe
from collapsekit.products import Place, on_device, size_of
from collapsekit.samples import Batch, Inputs, Samples, as_samples
from collapsekit.shards import Outcome, Policy, Work, observe_data, observe_rows
from collapsekit.subset import KeyedSubset

#: Bytes of a product that are sent about; a larger one is made by every worker for itself.
CARRIED = 128 << 20


@dataclass(frozen=True)
class Recipe:
    """What a worker needs to compute a shard by itself.

    Parameters
    ----------
    model, data, labels : object
        As `audit` got them: a spec string and paths are opened by the worker. `data` is None where
        samples come one way only; they then travel with the task.
    device, trust_code : as `audit`'s
    door : callable
        From the adapter to the door before it, with all that was declared.
    probes, seed, limit, stored, policy : as `shards.Work`'s
    x : Inputs
        Two samples, from which the door learns the code's shape and type.
    posterior : Family
        What the model says of the first: a factory has to build the same model everywhere.
    """

    model: Any
    data: Any
    labels: Any
    device: Any
    trust_code: bool
    door: Callable[[Any], Door]
    probes: tuple[Probe, ...]
    seed: int
    limit: int
    stored: bool
    policy: Policy
    x: Inputs
    posterior: Family

    def open(self) -> Shop:
        """The model and the data, opened where this runs."""
        adapter, brought = as_adapter(self.model, device=self.device, trust_code=self.trust_code)
        source = brought if self.data is None else self.data
        samples = None if source is None or self.stored else as_samples(source, self.labels)
        door = self.door(adapter)
        with torch.no_grad(), session(adapter):
            posterior = door.encode(self.x, "rehearsal").posterior
        if not posterior.to(torch.device("cpu")).take(slice(1)).same(self.posterior, 1e-3, 1e-4):
            raise ModelError(
                "a worker has another model than the audit",
                got="other posterior means of the first sample",
                expected="a factory that builds the same model, with its weights, every time",
                remedy="load trained weights in the factory, or pass the model itself",
            )
        work = Work(door, self.probes, self.seed, self.limit, self.stored, self.policy)
        return Shop(work, samples, posterior.device)


@dataclass
class Shop:
    """What a process keeps to compute shards with."""

    work: Work
    samples: Samples | None
    device: torch.device
    population: Population | None = None


@dataclass(frozen=True)
class Crowd:
    """The population as it travels: the subset, from which a worker builds it.

    Parameters
    ----------
    subset : KeyedSubset
    total : int
        Samples in all.
    """

    subset: KeyedSubset
    total: int

    def digest(self) -> str:
        """Tells one population from another: its members and the size of the data."""
        content = pickle.dumps((self.total, self.subset.members()), protocol=5)
        return hashlib.sha256(content).hexdigest()[:32]

    def build(self, shop: Shop) -> Population:
        """The population in front of the worker's own model and data."""
        take = shop.samples.take if shop.samples is not None else None
        return self.subset.build(shop.work.door, self.total, take, shop.device)


@dataclass(frozen=True)
class Job:
    """One shard, to be computed anywhere.

    Parameters
    ----------
    stream : {"data", "population", "prior"}
    number, start, stop : int
        The shard, and the samples or rows in it.
    size : int
        Samples in a batch.
    blocks : tuple of (start, stop)
        Row blocks, for the streams other than "data".
    parts : iterable of Batch or None
        The samples themselves, where the worker cannot read them.
    skip : frozenset of str
        Probes that stopped before.
    bound : int or None
        See `shards.observe_data`.
    """

    stream: Source
    number: int
    start: int
    stop: int
    size: int
    blocks: tuple[tuple[int, int], ...] = ()
    parts: Iterable[Batch] | None = None
    skip: frozenset[str] = frozenset()
    bound: int | None = None


@dataclass(frozen=True)
class Errand:
    """Products of the population, to be made anywhere.

    Parameters
    ----------
    places : tuple of Place
    """

    places: tuple[Place, ...]


@dataclass(frozen=True)
class Made:
    """What came of an errand: of the products those that could be made and are not too large.

    Parameters
    ----------
    values : tuple of (Place, product)
    passes : Counter
    """

    values: tuple[tuple[Place, Any], ...] = ()
    passes: Counter[str] = field(default_factory=Counter)


def compute(shop: Shop, job: Job, tick: Callable[[int], object] | None = None) -> Outcome:
    """Compute a shard here."""
    work = shop.work.counting()
    if job.stream == "data":
        parts = job.parts
        if parts is None:
            assert shop.samples is not None
            parts = shop.samples.batches(job.size, job.start, job.stop)
        return observe_data(work, parts, job.skip, job.bound, tick)
    assert shop.population is not None
    # The population's products are shared, the count of passes is not.
    population = copy.copy(shop.population)
    population.door = work.door
    return observe_rows(work, population, job.stream, job.blocks, job.skip, tick)


def make(shop: Shop, errand: Errand) -> Made:
    """Make products here. One that fails is left out: whoever asks for it will be told why."""
    assert shop.population is not None
    population = copy.copy(shop.population)
    population.door = shop.work.counting().door
    values = []
    for place in errand.places:
        try:
            value = population.make(place)
        except Exception:
            continue
        if size_of(value) <= CARRIED:
            values.append((place, on_device(value, torch.device("cpu"))))
    return Made(tuple(values), Counter(population.door.passes))
