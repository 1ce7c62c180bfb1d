"""A shard: a stretch of one stream, observed by every probe.

Pure work: a shard's `Outcome` depends on the model, the data and the stretch alone, never on what
was computed before it or where. So a pass is a sum of outcomes, in the order of the shards, and the
same number comes out of one process, of many, and of a pass that was killed and taken up again.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import numpy as np
import torch

from collapsekit.door import Door, out_of_memory
from collapsekit.errors import ModelError, Unavailable, brief
from collapsekit.observation import Observation, Source, population_rows, prior_draws
from collapsekit.population import Population
from collapsekit.probe import Probe, States, merge
from collapsekit.samples import Batch, take_rows
from collapsekit.streaming import Array, Rows, to_numpy
from collapsekit.subset import KeyedSubset

#: What happens to a sample that cannot be measured; see `engine.audit`.
Policy = Literal["finding", "skip", "raise"]
POLICIES: tuple[Policy, ...] = ("finding", "skip", "raise")
#: Sample numbers that are kept for each reason; the count beside them is always whole.
KEPT = 10_000
_REASONS = 64
_OTHERS = "other reasons"


@dataclass(frozen=True)
class Lost:
    """State: samples that something befell, by reason: how many, and which came first."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, Array] = field(default_factory=dict)  # ascending, at most `KEPT`

    @classmethod
    def of(cls, why: str, index: Array) -> Self:
        """These samples, for this reason."""
        index = np.sort(np.asarray(index, dtype=np.int64))
        return cls({why: len(index)}, {why: index[:KEPT]})

    def __add__(self, other: Self) -> Self:
        counts, first = dict(self.counts), dict(self.first)
        for why, count in other.counts.items():
            # A model may put the sample's own numbers into its error: reasons are bounded too.
            name = why if why in counts or len(counts) < _REASONS else _OTHERS
            both = np.concatenate([first.get(name, other.first[why][:0]), other.first[why]])
            counts[name] = counts.get(name, 0) + count
            first[name] = np.sort(both)[:KEPT]
        return type(self)(counts, first)

    @property
    def total(self) -> int:
        """Samples, over all reasons."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class Stop:
    """Why a probe stopped within a shard, and whether the model merely does not offer it."""

    why: str
    unavailable: bool


@dataclass(frozen=True)
class Work:
    """What every shard of an audit is computed with."""

    door: Door
    probes: tuple[Probe, ...]
    seed: int
    limit: int  # rows of the keyed subset
    stored: bool  # whether the subset keeps the inputs, which cannot be read again
    policy: Policy
    #: CPU seconds of this process in `observe`, by probe.
    seconds: dict[str, float] = field(default_factory=dict)

    def watching(self, stream: str, skip: frozenset[str]) -> list[Probe]:
        """The probes of a stream that are still running."""
        return [p for p in self.probes if p.source == stream and p.name not in skip]

    def counting(self) -> Work:
        """The same with counts of its own: threads do not share one."""
        door = copy.copy(self.door)
        door.passes = Counter()
        return replace(self, door=door, seconds={})


@dataclass(frozen=True)
class Outcome:
    """What a shard leaves behind; ``+`` in the order of the shards."""

    count: int = 0
    states: dict[str, States] = field(default_factory=dict)
    stopped: dict[str, Stop] = field(default_factory=dict)
    lost: Lost = field(default_factory=Lost)
    odd: Lost = field(default_factory=Lost)
    subset: KeyedSubset | None = None
    labels: Rows | None = None
    passes: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)

    def __add__(self, other: Self) -> Self:
        # A probe that has stopped hears nothing of later shards: as in one unbroken pass.
        news = {name: s for name, s in other.states.items() if name not in self.stopped}
        states = dict(self.states)
        for name, state in news.items():
            states[name] = merge(states[name], state) if name in states else state
        return replace(
            self,
            count=self.count + other.count,
            states=states,
            stopped={**other.stopped, **self.stopped},
            lost=self.lost + other.lost,
            odd=self.odd + other.odd,
            subset=_both(self.subset, other.subset),
            labels=_both(self.labels, other.labels),
            passes=self.passes + other.passes,
            seconds={
                **self.seconds,
                **{name: self.seconds.get(name, 0.0) + s for name, s in other.seconds.items()},
            },
        )


def _both(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return a if b is None else b
    return a + b


# -- the data stream -------------------------------------------------------------------------------


def observe_data(
    work: Work,
    parts: Iterable[Batch],
    skip: frozenset[str] = frozenset(),
    bound: int | None = None,
    tick: Callable[[int], object] | None = None,
) -> Outcome:
    """Observe the samples of a shard.

    Parameters
    ----------
    work : Work
    parts : iterable of Batch
    skip : names of probes that stopped before
    bound : int, optional
        A hash above which a sample is known not to be in the population: its row is not kept.
    tick : callable, optional
        Told the number of samples after every batch.
    """
    total = Outcome()
    for part in parts:
        if part.failed:
            total = total + _unread(work, part)
        if len(part.index):
            total = total + _read(work, part, skip | total.stopped.keys(), bound)
        if tick is not None:
            tick(len(part.index) + len(part.failed))
    # One piece a shard: thousands of small ones would pin the heap in fragments.
    subset = total.subset.compact()[0] if total.subset is not None and len(total.subset) else None
    return replace(total, subset=subset, passes=Counter(work.door.passes), seconds=work.seconds)


def _unread(work: Work, part: Batch) -> Outcome:
    """The samples of a batch that could not be read."""
    lost = Lost()
    for why in dict.fromkeys(part.failed.values()):
        rows = [number for number, reason in part.failed.items() if reason == why]
        lost = lost + _lose(work, why, np.array(rows))
    return Outcome(count=len(part.failed), lost=lost)


def _read(work: Work, part: Batch, stopped: frozenset[str], bound: int | None) -> Outcome:
    """The samples of a batch that could."""
    found = _batch(work, part, stopped, bound)
    if work.policy == "skip" and found.lost.total == len(part.index) >= _HOPELESS:
        # Where a probe fails on all samples it is the probe that is broken: it stops.
        other = _batch(replace(work, policy="finding"), part, stopped, bound)
        found = other if other.lost.total < found.lost.total else found
    return found


_HOPELESS = 8  # samples in a batch, all of which fail


def _batch(work: Work, part: Batch, skip: frozenset[str], bound: int | None) -> Outcome:
    """Observe one batch. What fails is halved: memory may then suffice, and a sample that the
    model cannot bear is told alone and costs no other, however the data were cut."""
    try:
        return _observed(work, part, skip, bound)
    except BadSample:
        raise
    except Exception as error:  # whatever a stranger's model raises
        if len(part.index) > 1:
            half = len(part.index) // 2
            total = Outcome()
            for rows in (np.arange(half), np.arange(half, len(part.index))):
                some = batch_rows(part, rows)
                total = total + _batch(work, some, skip | total.stopped.keys(), bound)
            return total
        why = f"encode raised {type(error).__name__}: {brief(error)}"
        if isinstance(error, _ProbeFailed):
            why = str(error)
        return Outcome(
            count=1,
            lost=_lose(work, why, part.index),
            labels=None if part.labels is None else Rows(part.index, label=part.labels),
        )


def _observed(work: Work, part: Batch, skip: frozenset[str], bound: int | None) -> Outcome:
    whole = len(part.index)
    labels = None if part.labels is None else Rows(part.index, label=part.labels)
    encoded = work.door.encode(part.x, "data", part.index)
    posterior, lost = encoded.posterior, Lost()
    if not bool(encoded.good.all()):
        bad = to_numpy(~encoded.good)
        flat = to_numpy(encoded.flat) & bad
        why = "its scale is not positive; log-variances are declared by parameterisation"
        for reason, rows in ((why, flat), ("its posterior is not finite", bad & ~flat)):
            if rows.any():
                lost = lost + _lose(work, reason, part.index[rows])
        good = np.flatnonzero(~bad)
        if not len(good):
            return Outcome(count=whole, lost=lost, labels=labels)
        part = batch_rows(part, good)
        posterior = posterior.take(torch.as_tensor(good))
    obs = Observation(work.door, "data", part.index, posterior=posterior, seed=work.seed, x=part.x)
    states, stopped = _observe(work, obs, work.watching("data", skip))
    odd = Lost()
    for reason, rows in _not_finite(states).items():
        if work.policy == "finding":
            odd = odd + Lost.of(reason, rows)
            continue
        # Out with these samples, and once more over the others: no state may have seen them.
        lost = lost + _lose(work, reason, rows)
        rest = np.flatnonzero(~np.isin(part.index, rows))
        again = Outcome() if not len(rest) else _batch(work, batch_rows(part, rest), skip, bound)
        return replace(again, count=whole, lost=lost + again.lost, labels=labels)
    subset = KeyedSubset(
        work.seed, work.limit, part.index, posterior, part.x if work.stored else None
    )
    if bound is not None:
        subset = subset.within(bound)
    return Outcome(whole, states, stopped, lost, odd, subset, labels)


def _not_finite(states: dict[str, States]) -> dict[str, Array]:
    """Samples for which a probe measured no number, by column."""
    found: dict[str, Array] = {}
    for state in states.values():
        for rows in state.values():
            if not isinstance(rows, Rows) or not rows.flat:
                continue
            for name in rows.names:
                values = rows.column(name)
                if values.dtype.kind == "f" and not np.isfinite(values).all():
                    found[f"{name} is not finite"] = rows.index[~np.isfinite(values)]
    return found


class BadSample(ModelError):
    """A sample that could not be measured, where the audit was told to stop at the first."""


class _ProbeFailed(Exception):
    pass


def _lose(work: Work, why: str, index: Array) -> Lost:
    if work.policy == "raise":
        raise BadSample(
            "a sample could not be measured",
            got=f"sample {', '.join(map(str, index[:10]))}: {why}",
            expected="a finite posterior and finite measures for every sample",
            remedy='take it out, or pass on_bad_sample="skip" to quarantine such samples',
        )
    return Lost.of(why, index)


def batch_rows(part: Batch, rows: Array) -> Batch:
    """Some samples of a batch."""
    labels = None if part.labels is None else part.labels[rows]
    return Batch(part.index[rows], take_rows(part.x, rows), labels)


# -- the other two streams -------------------------------------------------------------------------


def blocks(work: Work, stream: Source, total: int, size: int) -> list[tuple[int, int]]:
    """(start, stop) of the row blocks of a stream; they end where a probe's limit does, so that
    every probe sees whole blocks."""
    running = work.watching(stream, frozenset())
    if not running:
        return []
    ends = {min(p.limit or total, total) for p in running}
    return list(itertools.pairwise(sorted({0, total, *ends, *range(0, total, size)})))


def observe_rows(
    work: Work,
    population: Population,
    stream: Source,
    stretches: Sequence[tuple[int, int]],
    skip: frozenset[str] = frozenset(),
    tick: Callable[[int], object] | None = None,
) -> Outcome:
    """Observe row blocks of the population, or draws from the prior."""
    total = Outcome()
    for start, stop in stretches:
        total = total + _block(work, population, stream, start, stop, skip | total.stopped.keys())
        if tick is not None:
            tick(stop - start)
    return replace(total, passes=Counter(population.door.passes), seconds=work.seconds)


def _block(
    work: Work, population: Population, stream: Source, start: int, stop: int, skip: frozenset[str]
) -> Outcome:
    wanted = [p for p in work.watching(stream, skip) if p.limit is None or stop <= p.limit]
    if not wanted:
        return Outcome()
    build = population_rows if stream == "population" else prior_draws
    try:
        states, stopped = _observe(work, build(population, start, stop, work.seed), wanted)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error) or stop - start < 2:
            raise
        middle = (start + stop) // 2
        first = _block(work, population, stream, start, middle, skip)
        return first + _block(work, population, stream, middle, stop, skip | first.stopped.keys())
    return Outcome(count=stop - start, states=states, stopped=stopped)


def _observe(
    work: Work, obs: Observation, wanted: Sequence[Probe]
) -> tuple[dict[str, States], dict[str, Stop]]:
    """States of one batch from every probe; one that fails stops, the others go on."""
    states: dict[str, States] = {}
    stopped: dict[str, Stop] = {}
    for probe in wanted:
        begin = time.process_time()
        try:
            states[probe.name] = probe.observe(obs)
        except Unavailable as reason:
            stopped[probe.name] = Stop(told(reason), True)
        except Exception as error:
            if out_of_memory(error) and len(obs) > 1:
                raise
            why = f"{type(error).__name__}: {brief(error)}"
            if obs.source == "data" and work.policy != "finding":
                raise _ProbeFailed(f"{probe.name} failed on it: {why}") from error
            stopped[probe.name] = Stop(why, False)
        finally:
            spent = time.process_time() - begin
            work.seconds[probe.name] = work.seconds.get(probe.name, 0.0) + spent
    return states, stopped


# -- how samples and rows are cut into shards ------------------------------------------------------

BATCHES = 32  # in a shard at most, or so: seconds of work, a few megabytes of states
_FEWEST_SHARDS = 16  # where there are so many batches: enough to share out evenly
_MOST_SHARDS = 4096
_LOOKS = 2048  # rows of the population in a shard, times probes


def shard_rows(size: int, total: int | None, shards: int | None) -> int:
    """Samples in a shard, a multiple of the batch size so that no batch is cut in two.

    Parameters
    ----------
    size : int
        Samples in a batch.
    total : int or None
        Samples in all, where that is known.
    shards : int or None
        How many shards are wanted.
    """
    if shards is not None and total is not None:
        return -(-total // (shards * size)) * size
    if total is None:
        return BATCHES * size
    batches = -(-total // size)
    few = min(BATCHES, -(-batches // _FEWEST_SHARDS))
    return max(1, few, -(-batches // _MOST_SHARDS)) * size


def block_shards(
    work: Work, stream: Source, stretches: Sequence[tuple[int, int]]
) -> list[tuple[tuple[int, int], ...]]:
    """Row blocks dealt into shards, in order.

    The first rows are the dearest by far, for every probe looks at them: a shard ends after about
    2,048 rows, each counted once for every probe that looks at it, but is no longer than that.
    """
    running = work.watching(stream, frozenset())
    shards: list[tuple[tuple[int, int], ...]] = []
    held: list[tuple[int, int]] = []
    looks = 0
    for start, stop in stretches:
        held.append((start, stop))
        looks += (stop - start) * sum(p.limit is None or stop <= p.limit for p in running)
        if looks >= _LOOKS or stop - held[0][0] >= _LOOKS:
            shards.append(tuple(held))
            held, looks = [], 0
    return [*shards, tuple(held)] if held else shards


def told(reason: Unavailable) -> str:
    """Why something is unavailable, on one line."""
    parts = [reason.what]
    parts += [f"got {reason.got}"] if reason.got else []
    parts += [f"expected {reason.expected}"] if reason.expected else []
    return ", ".join(parts)
