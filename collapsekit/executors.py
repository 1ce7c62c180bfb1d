"""Shards on an executor: any ``concurrent.futures.Executor``, on this machine or on many.

A task is a few hundred bytes: which shard, and the names of what it needs. What it needs (the
model and the data, later the population) is kept in each worker process under such a name. A worker
that does not have it answers so, and is sent it once: a spec string and a path where there are
some, which it opens itself, else the pickled objects. Threads, and processes that were forked
afterwards, find it in memory.
"""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Executor, Future
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from collapsekit.adapter import session
from collapsekit.adapters import as_adapter
from collapsekit.door import Door
from collapsekit.errors import InputError, ModelError
from collapsekit.observation import Source
from collapsekit.population import KeyedSubset, Population
from collapsekit.posteriors import Family
from collapsekit.probe import Probe
from collapsekit.samples import Batch, Inputs, Samples, as_samples
from collapsekit.shards import BadSample, Outcome, Policy, Work, brief, observe_data, observe_rows


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


# -- in the worker ---------------------------------------------------------------------------------

_KEPT: OrderedDict[str, Any] = OrderedDict()
_MOST_KEPT = 4  # audits and populations that a worker process keeps


@dataclass(frozen=True)
class _Missing:
    """A worker's answer: it lacks these."""

    keys: tuple[str, ...]


@dataclass(frozen=True)
class _Order:
    """A task: the names of the recipe and of the population, and the shard."""

    recipe: str
    crowd: str
    job: Job
    home: int  # process that sent it
    sent: dict[str, bytes] = field(default_factory=dict)


def _serve(order: _Order) -> Outcome | _Missing:
    away = os.getpid() != order.home
    if away:
        torch.set_num_threads(1)  # a worker a core: threads would fight over it
    for key, content in order.sent.items():
        _keep(key, pickle.loads(content))
    wanted = [key for key in (order.recipe, order.crowd) if key]
    missing = tuple(key for key in wanted if key not in _KEPT)
    if missing:
        return _Missing(missing)
    shop = _shop(order.recipe, order.crowd)
    # A thread works within the session that the audit holds open; gradients are off by thread.
    held = session(shop.work.door.adapter) if away else nullcontext()
    with torch.no_grad(), held:
        return compute(shop, order.job)


def _shop(recipe: str, crowd: str) -> Shop:
    content = _KEPT[recipe]
    held: Shop = content.open() if isinstance(content, Recipe) else content
    if held is not content:
        _keep(recipe, held)
    if not crowd:
        return held
    people = _KEPT[crowd]
    if isinstance(people, Crowd):
        with torch.no_grad(), session(held.work.door.adapter):
            people = people.build(held)
        _keep(crowd, people)
    return replace(held, population=people)


def _keep(key: str, value: Any) -> None:
    _KEPT[key] = value
    _KEPT.move_to_end(key)
    while len(_KEPT) > _MOST_KEPT:
        _KEPT.popitem(last=False)


# -- in the audit ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failure:
    """A shard that failed twice."""

    why: str


class Pool:
    """An executor with what its workers need.

    Parameters
    ----------
    executor : concurrent.futures.Executor
    recipe : Recipe
    shop : Shop
        The audit's own: threads and forked processes use it.
    """

    def __init__(self, executor: Executor, recipe: Recipe, shop: Shop) -> None:
        self._executor, self._recipe = executor, recipe
        self._name, self._crowd = f"recipe-{uuid.uuid4().hex}", ""
        self._contents: dict[str, Any] = {self._name: recipe}
        self._bytes: dict[str, bytes] = {}
        self._in_flight = 2 * workers(executor) + 2
        _keep(self._name, shop)

    def populate(self, crowd: Crowd, population: Population) -> None:
        """Tell of the population, for the jobs of the other streams."""
        self._crowd = f"crowd-{uuid.uuid4().hex}"
        self._contents[self._crowd] = crowd
        _keep(self._crowd, population)

    def map(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Outcome | Failure]]:
        """Outcomes in the order of the jobs; each failed job was tried a second time.

        At most twice as many jobs as workers are out at a time. What is out is cancelled when the
        caller stops.
        """
        out: deque[tuple[Job, Future[Any] | Failure]] = deque()
        waiting = iter(jobs)
        try:
            while True:
                while len(out) < self._in_flight and (job := next(waiting, None)) is not None:
                    out.append((job, self._submit(job)))
                if not out:
                    return
                job, future = out.popleft()
                yield job, self._result(job, future)
        finally:
            for _, future in out:
                if not isinstance(future, Failure):
                    future.cancel()

    def close(self) -> None:
        """Forget what is kept in this process."""
        for key in self._contents:
            _KEPT.pop(key, None)

    def _order(self, job: Job, sent: dict[str, bytes]) -> _Order:
        crowd = "" if job.stream == "data" else self._crowd
        return _Order(self._name, crowd, job, os.getpid(), sent)

    def _submit(self, job: Job, sent: dict[str, bytes] | None = None) -> Future[Any] | Failure:
        try:
            return self._executor.submit(_serve, self._order(job, sent or {}))
        except Exception as error:  # a pool that is broken or was shut down
            return Failure(f"{type(error).__name__}: {brief(error)}")

    def _result(self, job: Job, future: Future[Any] | Failure) -> Outcome | Failure:
        sent: dict[str, bytes] = {}
        again = True
        while True:
            if isinstance(future, Failure):
                if not again:
                    return future
                again = False
                future = self._submit(job, sent)
                continue
            try:
                found = future.result()
            except (BadSample, InputError):
                raise
            except (Exception, CancelledError) as error:
                if not again:
                    return Failure(f"{type(error).__name__}: {brief(error)}")
                again = False
                future = self._submit(job, sent)
                continue
            if not isinstance(found, _Missing):
                return found  # type: ignore[no-any-return]
            sent = {key: self._packed(key) for key in found.keys}
            future = self._submit(job, sent)

    def _packed(self, key: str) -> bytes:
        if key not in self._bytes:
            self._bytes[key] = packed(self._contents[key])
        return self._bytes[key]


def packed(content: Any) -> bytes:
    """Pickled, by cloudpickle where it is installed and the standard pickle does not do.

    Raises
    ------
    InputError
        The model, the data or a probe cannot be pickled.
    """
    try:
        return pickle.dumps(content, protocol=5)
    except Exception as first:
        try:
            import cloudpickle
        except ImportError:
            cloudpickle = None
        try:
            if cloudpickle is None:
                raise first
            found: bytes = cloudpickle.dumps(content, protocol=5)
            return found
        except Exception as error:
            raise InputError(
                "the model or the data cannot be sent to worker processes",
                got=f"{type(error).__name__}: {brief(error)}",
                expected="a spec string and a path, which workers open themselves, or objects that "
                "can be pickled",
                remedy='pass "package.module:factory", a module-level class, or a path',
            ) from error


def shippable(data: Any) -> Any:
    """Data as they travel: of a memory map its file's name, since it would be pickled whole."""
    if isinstance(data, np.memmap) and data.filename is not None and data.mode in ("r", "c"):
        mapped = MappedFile(
            Path(str(data.filename)), data.dtype.str, data.shape, data.offset, _order_of(data)
        )
        return data if not mapped.same_as(data) else mapped
    return data


def _order_of(data: np.ndarray) -> Literal["C", "F"]:
    return "F" if data.flags.f_contiguous and not data.flags.c_contiguous else "C"


@dataclass(frozen=True)
class MappedFile:
    """A memory-mapped array by its file: pickles to a few bytes, reads as the array."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    order: Literal["C", "F"]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        mapped: np.ndarray = np.memmap(
            self.path, self.dtype, "r", self.offset, self.shape, self.order
        )
        return mapped if dtype is None else mapped.astype(dtype)

    def same_as(self, data: np.ndarray) -> bool:
        """Whether the file says what the array does: a view of a part of it does not."""
        if not (data.flags.c_contiguous or data.flags.f_contiguous):
            return False
        size = self.path.stat().st_size if self.path.exists() else 0
        if self.offset + data.nbytes > size:
            return False
        mine = np.asarray(self)
        ends = [0, len(data) // 2, len(data) - 1] if len(data) else []
        return all(np.array_equal(mine[i], data[i]) for i in ends)


def workers(executor: Executor) -> int:
    """How many tasks an executor runs at a time, as far as it tells."""
    count = getattr(executor, "_max_workers", None)
    if isinstance(count, int) and count > 0:
        return count
    client = getattr(executor, "_client", None)  # dask's
    try:
        return max(1, sum(client.nthreads().values())) if client is not None else 8
    except Exception:
        return 8


@contextmanager
def on_cluster(address: str) -> Iterator[Executor]:
    """The workers of a dask cluster as an executor.

    Parameters
    ----------
    address : str
        Of its scheduler, ``tcp://host:8786``, or the path of a scheduler file (.json).

    Raises
    ------
    InputError
        dask.distributed is not installed, or nobody answers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError(
            "dask.distributed is not installed",
            got=str(error),
            expected="dask.distributed beside collapsekit, here and on the workers",
            remedy="pip install 'collapsekit[dask]'",
        ) from error
    where = {"scheduler_file": address} if address.endswith(".json") else {"address": address}
    try:
        client = Client(**where)
    except (OSError, ValueError) as error:
        raise InputError(
            "the cluster cannot be reached",
            got=f"{address}: {brief(error)}",
            expected="the address of a dask scheduler, such as tcp://host:8786",
            remedy="dask scheduler; dask worker ADDRESS --nthreads 1",
        ) from error
    with client, client.get_executor() as executor:
        yield executor


class LocalProcesses(Executor):
    """Worker processes on this machine, begun anew when one of them dies.

    Parameters
    ----------
    count : int
    """

    def __init__(self, count: int) -> None:
        self._max_workers = count
        self._pool = self._begin()

    def _begin(self) -> ProcessPoolExecutor:
        import multiprocessing

        # Spawned: a forked child inherits locks and thread pools in whatever state they are.
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self._max_workers, mp_context=context)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a call on a worker."""
        try:
            return self._pool.submit(fn, *args, **kwargs)
        except BrokenProcessPool:
            self._pool.shutdown(wait=False)
            self._pool = self._begin()
            return self._pool.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers."""
        self._pool.shutdown(wait, cancel_futures=cancel_futures)
