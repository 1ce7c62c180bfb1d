"""One audit in progress: the rehearsal, then three streams as sums of shards."""

from __future__ import annotations

import functools
import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from collapsekit.checkpoint import PRODUCTS, Checkpoint
from collapsekit.door import Door
from collapsekit.errors import ModelError
from collapsekit.findings import Finding
from collapsekit.groups import GroupDoor
from collapsekit.jobs import Crowd, Errand, Job, Recipe, Shop, compute, make
from collapsekit.logs import event
from collapsekit.observation import Source
from collapsekit.parcels import shippable
from collapsekit.pool import Failure, Pool
from collapsekit.population import Population
from collapsekit.probe import Probe
from collapsekit.products import Place
from collapsekit.provenance import identity, tensors
from collapsekit.rehearsal import HEADS, Rehearsed, rehearse
from collapsekit.samples import Batch, Inputs, Samples
from collapsekit.shards import (
    Lost,
    Outcome,
    Policy,
    Work,
    block_shards,
    blocks,
    shard_rows,
)
from collapsekit.spool import LABELS, Spool, split
from collapsekit.streaming import to_numpy

POPULATION = 50_000
_MEMORY = 2 << 30  # bytes that the population's columns may take
_BATCH_BYTES = 16 << 20  # of inputs: noise and perturbed copies in double precision come on top
_LARGEST_BATCH = 512


@dataclass(frozen=True)
class Origin:
    """Model and data as the user named them, for workers that open them by themselves."""

    model: Any
    data: Any = None
    labels: Any = None
    device: Any = None
    trust_code: bool = False


@dataclass(frozen=True)
class Plan:
    """How an audit is to be run; see `engine.audit`."""

    seed: int = 0
    batch: int | None = None
    population: int = POPULATION
    executor: Executor | None = None
    shards: int | None = None
    checkpoint: str | os.PathLike[str] | None = None
    policy: Policy = "finding"


@dataclass(frozen=True)
class Resumed:
    """A shard that an earlier run finished, and the file of its columns."""

    outcome: Outcome
    rows: Path | None


@dataclass
class Task:
    """One audit in progress: what is still running, what has been seen, what went wrong."""

    door: Door
    samples: Samples
    probes: tuple[Probe, ...]
    plan: Plan
    origin: Origin
    total: Outcome = field(default_factory=Outcome)
    skipped: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    lost_shards: list[tuple[str, int, int, str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    population: Population | None = None
    spool: Spool = field(default_factory=Spool)
    checkpoint: Checkpoint | None = None
    started: float = field(default_factory=time.time)
    size: int = 0  # samples in a batch
    device: str = ""
    silent: str = ""  # what the decoder raised in the rehearsal

    def run(self) -> None:
        """The three streams.

        Raises
        ------
        KeyboardInterrupt
            With a note that says how to go on, where there is a checkpoint.
        """
        try:
            self._streams()
        except KeyboardInterrupt as stop:
            if self.checkpoint is not None:
                stop.add_note(self.checkpoint.how_to_go_on())
            raise
        finally:
            if self.checkpoint is not None:
                self.checkpoint.close()

    def done(self, stage: str, begin: float) -> None:
        """Note that a stage is over, for the audit and for whoever listens."""
        seconds = self.timings[stage] = time.perf_counter() - begin
        told = f"{stage}: {seconds:.1f} s"
        event("stage", told, stage=stage, seconds=round(seconds, 3), samples=self.count)

    def _streams(self) -> None:
        begin = time.perf_counter()
        event("begin", "data begins", stage="data")
        size = self.plan.batch or _batch_size(self.samples)
        batches = self.samples.batches(size)
        seen: list[Batch] = []
        heads = _kept(itertools.islice(batches, HEADS), seen)
        known = rehearse(self.door, self.probes, self.plan.seed, heads)
        self.findings += known.findings
        self.skipped |= known.skipped
        self.silent = known.silent
        self.size, self.device = size, str(known.posterior.device)
        work = self._work(known)
        rows = shard_rows(size, self.samples.size, self.plan.shards)
        if self.plan.checkpoint is not None:
            settings = self._settings(size, rows)
            facts = identity(self.door, self.samples, self.probes, seen[0], settings)
            told = enumerate(known.posterior.tensors())
            answers = {f"answer {i + 1}": to_numpy(tensor[0]) for i, tensor in told}
            self.checkpoint = Checkpoint(self.plan.checkpoint, facts, answers, self.probes)
            self.spool = self.checkpoint.spool()
        shop = Shop(work, None if work.stored else self.samples, known.posterior.device)
        executor = self.plan.executor
        pool = None if executor is None else Pool(executor, self._recipe(work, known), shop)
        try:
            self._data(shop, pool, itertools.chain(seen, batches), size, rows)
            self.done("data", begin)
            # Workers take rows of both streams as they come: none waits for the end of one.
            both: tuple[Source, ...] = ("prior", "population")
            for streams in [both] if pool is not None else [both[:1], both[1:]]:
                stage, begin = " and ".join(streams), time.perf_counter()
                event("begin", f"{stage} begins", stage=stage)
                self._rows(shop, pool, streams, size, known.asked)
                self.done(stage, begin)
        finally:
            if pool is not None:
                pool.close()
        self._count_products()
        self.door.passes = self.total.passes

    def _work(self, known: Rehearsed) -> Work:
        stored = not self.samples.random_access
        width = 8 * known.posterior.width
        if stored:
            width += sum(leaf[0].numel() * leaf.element_size() for _, leaf in tensors(known.x))
        limit = max(1, min(self.plan.population, _MEMORY // max(width, 1)))
        return Work(self.door, self.probes, self.plan.seed, limit, stored, self.plan.policy)

    def _recipe(self, work: Work, known: Rehearsed) -> Recipe:
        origin, door = self.origin, self.door
        return Recipe(
            origin.model,
            None if work.stored else shippable(origin.data),
            origin.labels,
            origin.device,
            origin.trust_code,
            _maker(door),
            work.probes,
            work.seed,
            work.limit,
            work.stored,
            work.policy,
            known.x,
            known.posterior.to(torch.device("cpu")).take(slice(1)),
        )

    def _settings(self, size: int, rows: int) -> dict[str, Any]:
        plan = self.plan
        return {
            "seed": plan.seed,
            "batch": size,
            "shard": rows,
            "population": plan.population,
            "on_bad_sample": plan.policy,
        }

    # -- the data stream ---------------------------------------------------------------------

    def _data(
        self, shop: Shop, pool: Pool | None, batches: Iterator[Batch], size: int, rows: int
    ) -> None:
        """One pass over the data."""
        with _progress("data", self.samples.size, "samples") as bar:
            jobs = self._data_jobs(pool, batches, size, rows)
            for job, found in self._computed(shop, pool, jobs, bar.update):
                self._add(job, found)
                self._tighten()
        subset = self.total.subset
        if subset is None:
            why = [f"{w}: {n:,} samples" for w, n in self.total.lost.counts.items()]
            why += [f"samples {a} to {b - 1}: {w}" for _, a, b, w in self.lost_shards[:3]]
            raise ModelError(
                "no sample could be encoded",
                got="; ".join(why),
                expected="a finite posterior for at least one sample",
                remedy="try encode on a few samples by hand",
            )
        crowd = Crowd(subset.compact()[0], self.total.count)
        self._members = crowd.digest()
        shop.population = self.population = crowd.build(shop)
        if pool is not None:
            pool.populate(crowd, self.population)

    def _data_jobs(
        self, pool: Pool | None, batches: Iterator[Batch], size: int, rows: int
    ) -> Iterator[tuple[Job, Resumed | None]]:
        """Shards in order, with what an earlier run found where it finished them.

        Where the data can be read anywhere, workers are told where. In this process one pass of
        the source goes on from shard to shard: it may have workers of its own.
        """
        total = self.samples.size if self.samples.random_access else None
        if total is None:
            for number, parts in itertools.groupby(batches, lambda part: part.start // rows):
                start = number * rows
                job = Job("data", number, start, start, size)
                if (found := self._resumed(job)) is not None:
                    yield job, found
                    continue
                held: Iterable[Batch] = parts
                if pool is not None:
                    held = list(parts)  # noqa: B031 - once, here or there
                    job = replace(job, stop=held[-1].stop)
                yield self._told(replace(job, parts=held)), None
            return
        where = 0  # the sample that `batches` gives next
        for number, start in enumerate(range(0, total, rows)):
            job = Job("data", number, start, min(start + rows, total), size)
            if (found := self._resumed(job)) is not None:
                yield job, found
                continue
            if pool is None:
                if start != where:
                    batches = self.samples.batches(size, start)
                job = replace(job, parts=_until(batches, job.stop))
                where = job.stop
            yield self._told(job), None

    def _told(self, job: Job) -> Job:
        return replace(job, skip=self._stopped(), bound=self._bound)

    _bound: int | None = None
    _members: str = ""
    _labels: Any = None
    _furnished: bool = False
    _counted: bool = False

    def _tighten(self) -> None:
        """Once the population is full, later shards need not keep what cannot enter it."""
        subset = self.total.subset
        if subset is not None and len(subset) >= 1.5 * subset.limit:
            small, self._bound = subset.compact()
            self.total = replace(self.total, subset=small)

    # -- the other two streams ---------------------------------------------------------------

    def _rows(
        self,
        shop: Shop,
        pool: Pool | None,
        streams: Sequence[Source],
        size: int,
        asked: Sequence[Place],
    ) -> None:
        """Row blocks of the population with all columns beside them, and draws from the prior."""
        plan = [
            (stream, part) for stream in streams for part in self._stretches(shop, stream, size)
        ]
        rows = sum(part[-1][1] - part[0][0] for _, part in plan)

        def jobs() -> Iterator[tuple[Job, Resumed | None]]:
            numbers = {stream: itertools.count() for stream in streams}
            for stream, part in plan:
                number = next(numbers[stream])
                job = Job(stream, number, part[0][0], part[-1][1], size, blocks=part)
                found = self._resumed(job)
                if found is None:
                    self._furnish(shop, pool, asked)
                yield (job, found) if found is not None else (self._told(job), None)

        with _progress(" and ".join(streams), rows, "rows") as bar:
            for job, found in self._computed(shop, pool, jobs(), bar.update):
                self._add(job, found)

    def _stretches(
        self, shop: Shop, stream: Source, size: int
    ) -> list[tuple[tuple[int, int], ...]]:
        assert self.population is not None
        running = [p for p in self.probes if p.source == stream and p.name not in self._stopped()]
        total = self.population.size
        if stream == "prior":
            total = max((p.limit or 0 for p in running), default=0)
        work = replace(shop.work, probes=tuple(running))
        return block_shards(work, stream, blocks(work, stream, total, size))

    def _furnish(self, shop: Shop, pool: Pool | None, asked: Sequence[Place]) -> None:
        """Make what probes asked of the population when they were rehearsed, once.

        Workers make it where there are some: each would otherwise make all of it for itself. What
        fails here is made, or told, when it is asked for.
        """
        if self._furnished:
            return
        self._furnished = True
        assert self.population is not None
        wanted = self.population.lacking(asked)
        if pool is None:
            passes = make(shop, Errand(tuple(wanted))).passes
        else:
            passes = pool.furnish(self.population, wanted)
        self._count_products(passes)

    def _count_products(self, passes: Counter[str] | None = None) -> None:
        """Take in the passes of the population's products: as they were when first made.

        An audit that goes on makes them again, where a shard is left that needs them. Without
        `passes` none was.
        """
        if self._counted:
            return
        key = PRODUCTS, 0, self._members
        known = None if self.checkpoint is None else self.checkpoint.read(*key)
        if known is None and passes is None:
            return
        outcome = Outcome(passes=passes or Counter()) if known is None else known[0]
        self.total += outcome
        self._counted = True
        if known is None and self.checkpoint is not None:
            self.checkpoint.write(*key, outcome, None)

    # -- shards ------------------------------------------------------------------------------

    def _computed(
        self,
        shop: Shop,
        pool: Pool | None,
        jobs: Iterable[tuple[Job, Resumed | None]],
        tick: Callable[[int], object],
    ) -> Iterator[tuple[Job, Any]]:
        if pool is None:
            for job, known in jobs:
                if known is not None:
                    tick(known.outcome.count)
                yield job, known or compute(shop, job, tick)
            return
        # Shards of the data are alike, and hold much.
        for job, found in pool.map(jobs, ahead=1 if self.population is None else 4):
            tick(job.stop - job.start)
            yield job, found

    def _add(self, job: Job, found: Outcome | Failure | Resumed) -> None:
        """Take in a shard: to the disk first, where there is a checkpoint it did not come from."""
        if isinstance(found, Resumed):
            if job.stream == "data":
                self.spool.found(job.number, job.start, found.outcome.count, found.rows)
            self._sum(job.stream, found.outcome)
            return
        if isinstance(found, Failure):
            self.lost_shards.append((job.stream, job.start, job.stop, found.why))
            if job.stream == "data":
                self.spool.found(job.number, job.start, job.stop - job.start, None)
                self.total += Outcome(count=job.stop - job.start)
            return
        found = self._heard(found)
        rest, rows = split(found)
        path = None
        if job.stream == "data":
            path = self.spool.add(job.number, job.start, found.count, rows)
        else:
            rest = found
        if self.checkpoint is not None:
            self.checkpoint.write(job.stream, job.number, self._key(job), rest, path)
        self._sum(job.stream, rest)

    def _resumed(self, job: Job) -> Resumed | None:
        """What an earlier run found, where it finished this shard."""
        found = None
        if self.checkpoint is not None:
            found = self.checkpoint.read(job.stream, job.number, self._key(job))
        return None if found is None else Resumed(*found)

    def _key(self, job: Job) -> str:
        """What a shard depends on beside the audit: its stretch, and the population's members."""
        stretch = f"{job.start}" if job.stream == "data" else f"{job.blocks}"
        return stretch + ("" if job.stream == "data" else self._members)

    def _heard(self, found: Outcome) -> Outcome:
        """What counts of a shard: nothing of a probe that stopped in an earlier one."""
        stopped = self._stopped()
        states = {name: state for name, state in found.states.items() if name not in stopped}
        return replace(found, states=states)

    def _sum(self, stream: Source, outcome: Outcome) -> None:
        if stream != "data":
            outcome = replace(outcome, count=0)
        begun = set(self.total.states) | set(outcome.states)
        self.total += outcome
        for name, stop in outcome.stopped.items():
            # Once something was seen the probe has broken off; before that it never began.
            if name not in self._stopped():
                never = stop.unavailable and name not in begun
                (self.skipped if never else self.broken)[name] = stop.why

    def _stopped(self) -> frozenset[str]:
        return frozenset(self.skipped) | frozenset(self.broken)

    # -- what is read afterwards -------------------------------------------------------------

    @property
    def count(self) -> int:
        """Samples."""
        return self.total.count

    @property
    def lost(self) -> Lost:
        """Samples that were left out."""
        return self.total.lost

    def labels(self) -> Any:
        """Labels as columns of the sample table; None without any."""
        if self._labels is None:
            found = self.spool.rows(LABELS)
            self._labels = None if found is None else found.table()
        return self._labels


def _maker(door: Door) -> Callable[[Any], Door]:
    """What makes another door like this one before a worker's adapter."""
    if isinstance(door, GroupDoor):
        return functools.partial(
            GroupDoor,
            parameterisation=door.parameterisation,
            likelihood=door.likelihood,
            beta=door.beta,
            group=door.group,
            names=door.names,
            seed=door.seed,
        )
    return functools.partial(
        Door,
        parameterisation=door.parameterisation,
        prior=door.prior,
        likelihood=door.likelihood,
        beta=door.beta,
    )


def _until(batches: Iterator[Batch], stop: int) -> Iterator[Batch]:
    """The batches up to sample `stop`, leaving the rest where they are."""
    for part in batches:
        yield part
        if part.stop >= stop:
            return


def _kept(batches: Iterable[Batch], seen: list[Batch]) -> Iterator[Batch]:
    """The batches as they are asked for, each remembered."""
    for part in batches:
        seen.append(part)
        yield part


def _batch_size(samples: Samples) -> int:
    """As many samples as fit 16 MB of input, at most 512."""
    if not samples.random_access or not samples.size:
        return _LARGEST_BATCH
    one: Inputs = ()
    for number in range(min(samples.size, _LARGEST_BATCH)):
        try:
            one = samples.take(np.array([number]))
            break
        except Exception:
            continue  # the pass will tell that it cannot be read
    width = sum(leaf.numel() * leaf.element_size() for _, leaf in tensors(one))
    return int(min(max(_BATCH_BYTES // max(width, 1), 1), _LARGEST_BATCH))


def _progress(what: str, total: int | None, unit: str) -> Any:
    # disable=None: quiet wherever stderr is no terminal.
    quiet = True if os.environ.get("CI") else None
    return tqdm(
        desc=what, total=total, disable=quiet, leave=False, unit=f" {unit}", unit_scale=True
    )
