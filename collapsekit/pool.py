"""Jobs on an executor: any ``concurrent.futures.Executor``, on this machine or on many.

A task is a few hundred bytes: which shard, and the names of what it needs. What it needs (the
model and the data, later the population and its products) is kept in each worker process under
such a name. A worker that does not have it answers so. It is then told of a file to read it from,
and where it does not see that file it is sent the content: a spec string and a path where there are
some, which it opens itself, else the pickled objects. Threads, and processes that were forked
afterwards, find it in memory.
"""

from __future__ import annotations

import itertools
import os
import pickle
import tempfile
import uuid
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from collapsekit import heap
from collapsekit.adapter import session
from collapsekit.errors import InputError, brief
from collapsekit.executors import workers
from collapsekit.jobs import Crowd, Errand, Job, Made, Recipe, Shop, compute, make
from collapsekit.parcels import arrays, packed
from collapsekit.population import Population
from collapsekit.products import Place
from collapsekit.shards import BadSample, Outcome

# -- in the worker ---------------------------------------------------------------------------------

_KEPT: OrderedDict[str, Any] = OrderedDict()
_MOST_KEPT = 6  # audits, populations and their products that a worker process keeps


@dataclass(frozen=True)
class _Missing:
    """A worker's answer: it lacks these."""

    keys: tuple[str, ...]


@dataclass(frozen=True)
class _Order:
    """A task: the names of the recipe, the population and its products, and what to do."""

    recipe: str
    crowd: str
    products: str
    job: Job | Errand
    home: int  # process that sent it
    serial: int = 0  # no two are equal: dask would answer the second with what came of the first
    files: dict[str, str] = field(default_factory=dict)
    sent: dict[str, bytes] = field(default_factory=dict)


def _serve(order: _Order) -> Outcome | Made | _Missing:
    away = os.getpid() != order.home
    if away:
        torch.set_num_threads(1)  # a worker a core: threads would fight over it
        heap.keep()
    wanted = [key for key in (order.recipe, order.crowd, order.products) if key]
    missing = tuple(key for key in wanted if key not in _KEPT and not _found(order, key))
    if missing:
        return _Missing(missing)
    shop = _shop(order)
    # A thread works within the session that the audit holds open; gradients are off by thread.
    held = session(shop.work.door.adapter) if away else nullcontext()
    with torch.no_grad(), held:
        return make(shop, order.job) if isinstance(order.job, Errand) else compute(shop, order.job)


def _found(order: _Order, key: str) -> bool:
    """Whether the order brings this, or names a file that has it."""
    content = order.sent.get(key)
    if content is None and key in order.files:
        try:
            content = Path(order.files[key]).read_bytes()
        except OSError:  # another machine
            return False
    if content is not None:
        _keep(key, pickle.loads(content))
    return content is not None


def _shop(order: _Order) -> Shop:
    content = _KEPT[order.recipe]
    held: Shop = content.open() if isinstance(content, Recipe) else content
    if held is not content:
        _keep(order.recipe, held)
    if not order.crowd:
        return held
    people = _KEPT[order.crowd]
    if isinstance(people, Crowd):
        with torch.no_grad(), session(held.work.door.adapter):
            people = people.build(held)
        _keep(order.crowd, people)
    if order.products and (brought := _KEPT[order.products]) is not None:
        for place, value in brought.values:
            people.bring(place, value)
        _keep(order.products, None)
    return replace(held, population=people)


def _keep(key: str, value: Any) -> None:
    _KEPT[key] = value
    _KEPT.move_to_end(key)
    while len(_KEPT) > _MOST_KEPT:
        _KEPT.popitem(last=False)


# -- in the audit ----------------------------------------------------------------------------------

T = TypeVar("T", Job, Errand)


@dataclass(frozen=True)
class Failure:
    """A job that failed twice."""

    why: str


@dataclass
class _Out(Generic[T]):
    """A job that is out, or whose answer waits for its turn."""

    job: T
    future: Future[Any] | None = None
    answer: Any = None
    failed: bool = False  # once
    told: frozenset[str] = frozenset()  # of the files that hold these


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
        self._name, self._crowd, self._products = f"recipe-{uuid.uuid4().hex}", "", ""
        self._contents: dict[str, Any] = {self._name: recipe}
        self._bytes: dict[str, bytes] = {}
        self._files: dict[str, str] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._serials = itertools.count()
        self._in_flight = 2 * workers(executor) + 2
        _keep(self._name, shop)

    def populate(self, crowd: Crowd, population: Population) -> None:
        """Tell of the population, for the jobs of the other streams."""
        self._crowd = f"crowd-{uuid.uuid4().hex}"
        self._contents[self._crowd] = crowd
        _keep(self._crowd, population)

    def furnish(self, population: Population, wanted: Sequence[Place]) -> Counter[str]:
        """Have workers make products of the population, for this process and for all of them.

        Returns
        -------
        Counter
            The passes of the model that it took.
        """
        passes: Counter[str] = Counter()
        errands: dict[Any, list[Place]] = {}
        for piece in itertools.chain.from_iterable(map(population.pieces, wanted)):
            # A head's products rest on each other.
            errands.setdefault(piece[0] or piece, []).append(piece)
        # Searches for neighbours, which cost most, are heads' products: they go first.
        ordered = sorted(errands.values(), key=lambda places: not places[0][0])
        brought: set[Place] = set()
        for _, made in self.map(((Errand(tuple(places)), None) for places in ordered), ahead=4):
            if isinstance(made, Made):
                for place, value in made.values:
                    population.bring(place, value)
                    brought.add(place)
                passes += made.passes
        whole = [place for place in wanted if brought.issuperset(population.pieces(place))]
        products = Made(tuple((place, population.make(place)) for place in whole))
        self._products = f"products-{uuid.uuid4().hex}"
        self._contents[self._products] = products
        _keep(self._products, None)
        return passes

    def map(self, jobs: Iterable[tuple[T, Any]], ahead: int = 1) -> Iterator[tuple[T, Any]]:
        """Answers in the order of the jobs; each failed job was tried a second time.

        At most twice as many jobs as workers are out at a time. What is out is cancelled when the
        caller stops.

        Parameters
        ----------
        jobs : iterable of (job, answer)
            A job whose answer is known, not None, keeps its place in the order. Answers are an
            `Outcome`, or `Made`, or a `Failure`.
        ahead : int
            How many times as many may be out or wait for their turn: jobs of unlike length would
            hold each other up otherwise, and answers that wait take memory.
        """
        line: deque[_Out[T]] = deque()
        waiting = iter(jobs)
        try:
            while True:
                out = sum(each.future is not None for each in line)
                while out < self._in_flight and len(line) < ahead * self._in_flight:
                    following = next(waiting, None)
                    if following is None:
                        break
                    line.append(_Out(following[0], answer=following[1]))
                    if following[1] is None:
                        self._submit(line[-1])
                        out += line[-1].future is not None
                if not line:
                    return
                futures = [each.future for each in line if each.future is not None]
                if line[0].future is not None:
                    wait(futures, return_when=FIRST_COMPLETED)
                for each in line:
                    if each.future is not None and each.future.done():
                        self._settle(each)
                while line and line[0].future is None:
                    first = line.popleft()
                    if isinstance(first.answer, BadSample | InputError):
                        raise first.answer
                    yield first.job, first.answer
        finally:
            for each in line:
                if each.future is not None:
                    each.future.cancel()

    def close(self) -> None:
        """Forget what is kept for workers."""
        for key in self._contents:
            _KEPT.pop(key, None)
        if self._folder is not None:
            self._folder.cleanup()

    def _submit(self, each: _Out[T], sent: dict[str, bytes] | None = None) -> None:
        data = isinstance(each.job, Job) and each.job.stream == "data"
        crowd, products = ("", "") if data else (self._crowd, self._products)
        each.told = frozenset(self._files)
        home, files = os.getpid(), dict(self._files)
        while each.answer is None:
            serial = next(self._serials)
            order = _Order(self._name, crowd, products, each.job, home, serial, files, sent or {})
            try:
                each.future = self._executor.submit(_serve, order)
                return
            except Exception as error:  # a pool that is broken or was shut down
                self._fail(each, error)

    def _settle(self, each: _Out[T]) -> None:
        """Take in what came of a job, or send it again."""
        assert each.future is not None
        future, each.future = each.future, None
        try:
            found = future.result()
        except (BadSample, InputError) as error:
            each.answer = error
        except (Exception, CancelledError) as error:
            self._fail(each, error)
            if each.answer is None:
                self._submit(each)
        else:
            if isinstance(found, _Missing):
                self._submit(each, self._sent(each, found.keys))
            else:
                each.answer = found

    def _fail(self, each: _Out[T], error: BaseException) -> None:
        if each.failed:
            each.answer = Failure(f"{type(error).__name__}: {brief(error)}")
        each.failed = True

    def _sent(self, each: _Out[T], keys: Iterable[str]) -> dict[str, bytes]:
        """What has to be sent to a worker that lacks these: not what it can try in a file yet."""
        sent: dict[str, bytes] = {}
        for key in keys:
            if key not in each.told and self._filed(key):
                continue
            if key not in self._bytes:
                self._bytes[key] = self._packed(key)
            sent[key] = self._bytes[key]
        return sent

    def _filed(self, key: str) -> bool:
        """Whether a file holds this, if need be from now on."""
        if key not in self._files:
            content = self._packed(key)
            try:
                if self._folder is None:
                    self._folder = tempfile.TemporaryDirectory(prefix="collapsekit-")
                path = Path(self._folder.name) / key
                path.write_bytes(content)
            except OSError:  # no room for it: it is sent instead
                return False
            self._files[key] = str(path)
        return True

    def _packed(self, key: str) -> bytes:
        # A model's tensors may be tied to each other; those of a population are not.
        content = self._contents[key]
        return packed(content) if isinstance(content, Recipe) else arrays(content)
