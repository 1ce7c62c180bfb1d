"""One audit in progress: the rehearsal and the three streams."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from collapsekit.door import Door, out_of_memory
from collapsekit.errors import CollapsekitError, InputError, ModelError, Unavailable
from collapsekit.findings import Finding, Severity
from collapsekit.observation import Observation, first_rows, population_rows, prior_draws
from collapsekit.population import KeyedSubset, Population
from collapsekit.probe import Probe, States, merge
from collapsekit.provenance import tensors
from collapsekit.readers import Encoded
from collapsekit.samples import Batch, Inputs, Samples, take_rows
from collapsekit.streaming import Array, Rows, to_numpy
from collapsekit.troubles import BATCHWISE, RANDOM

POPULATION = 50_000
_MEMORY = 2 << 30  # bytes that the population's columns may take
_BATCH_BYTES = 16 << 20  # of inputs: noise and perturbed copies in double precision come on top
_LARGEST_BATCH = 512


@dataclass
class Task:
    """One audit in progress: what is still running, what has been seen, what went wrong."""

    door: Door
    samples: Samples
    probes: tuple[Probe, ...]
    seed: int
    batch: int | None
    most: int
    states: dict[str, States] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    lost: dict[str, list[int]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    labels: Rows | None = None
    population: Population | None = None
    count: int = 0
    started: float = field(default_factory=time.time)
    _device: torch.device | None = None
    _rows_a_call: int = _LARGEST_BATCH

    # -- the data stream ---------------------------------------------------------------------

    def stream_data(self) -> None:
        """One pass over the data: rehearse on its first rows, then observe every batch."""
        begin = time.perf_counter()
        size = self._rows_a_call = self.batch or _batch_size(self.samples)
        batches = self.samples.batches(size)
        first = next(batches, None)
        if first is None:
            raise InputError("the data hold no sample", got="N = 0", expected="at least one")
        kept: list[KeyedSubset] = []
        self._rehearse(first)
        total = None if self.samples.size is None else -(-self.samples.size // size)
        for part in _progress(itertools.chain([first], batches), "data", total):
            self._data_batch(part, kept)
        if not kept:
            raise ModelError(
                "no sample could be encoded",
                got="; ".join(f"{why}: {len(rows)} samples" for why, rows in self.lost.items()),
                expected="a finite posterior for at least one sample",
                remedy="try encode on a few samples by hand",
            )
        subset = kept[0]
        take = self.samples.take if self.samples.random_access else None
        self.population = subset.build(self.door, self.count, take, self._device)
        self.timings["data"] = time.perf_counter() - begin

    def _data_batch(self, part: Batch, kept: list[KeyedSubset]) -> None:
        """Observe one batch. What fails is halved: memory may then suffice, and a sample that the
        model cannot bear is told alone and costs no other, however the data were cut."""
        try:
            observed = self._data_states(part)
        except Exception as error:  # whatever a stranger's model raises
            if len(part.index) > 1:
                half = len(part.index) // 2
                for rows in (np.arange(half), np.arange(half, len(part.index))):
                    self._data_batch(_batch_rows(part, rows), kept)
                return
            self.count += 1
            if part.labels is not None:
                self._label(Rows(part.index, label=part.labels))
            self._lose(f"encode raised {type(error).__name__}: {brief(error)}", part.index)
            return
        states, subset, labels = observed
        self.count += len(part.index)
        for name, state in states.items():
            self.states[name] = merge(self.states[name], state) if name in self.states else state
        if subset is not None:
            kept[:] = [kept[0] + subset] if kept else [subset]
        if labels is not None:
            self._label(labels)

    def _label(self, labels: Rows) -> None:
        self.labels = labels if self.labels is None else self.labels + labels

    def _data_states(
        self, part: Batch
    ) -> tuple[dict[str, States], KeyedSubset | None, Rows | None]:
        encoded = self.door.encode(part.x, "data", part.index)
        labels = None if part.labels is None else Rows(part.index, label=part.labels)
        if not bool(encoded.good.all()):
            bad = to_numpy(~encoded.good)
            flat = to_numpy(encoded.flat) & bad
            why = "its scale is not positive; log-variances are declared by parameterisation"
            for reason, rows in ((why, flat), ("its posterior is not finite", bad & ~flat)):
                if rows.any():
                    self._lose(reason, part.index[rows])
            good = np.flatnonzero(~bad)
            if not len(good):
                return {}, None, labels
            part = _batch_rows(part, good)
            posterior = encoded.posterior.take(torch.as_tensor(good))
        else:
            posterior = encoded.posterior
        self._device = posterior.device
        obs = Observation(
            self.door, "data", part.index, posterior=posterior, seed=self.seed, x=part.x
        )
        stored = None if self.samples.random_access else part.x
        width = 8 * posterior.width
        if stored is not None:
            width += sum(leaf[0].numel() * leaf.element_size() for _, leaf in tensors(stored))
        limit = self._limit(width)
        subset = KeyedSubset(self.seed, limit, part.index, posterior, stored)
        return self._observe("data", obs), subset, labels

    def _limit(self, width: int) -> int:
        return max(1, min(self.most, _MEMORY // max(width, 1)))

    def _lose(self, why: str, index: Array) -> None:
        self.lost.setdefault(why, []).extend(index.tolist())

    # -- the other two streams ---------------------------------------------------------------

    def stream_population(self) -> None:
        """Rows of the population, in hash order, with all columns beside them."""
        assert self.population is not None
        self._stream("population", self.population.size)

    def stream_prior(self) -> None:
        """Draws from the prior."""
        limits = [p.limit or 0 for p in self._running("prior")]
        self._stream("prior", max(limits, default=0))

    def _stream(self, source: str, total: int) -> None:
        begin = time.perf_counter()
        running = self._running(source)
        size = self._rows_a_call
        # Blocks end where a probe's limit does, so that every probe sees whole blocks.
        ends = {min(p.limit or total, total) for p in running}
        cuts = sorted({0, total, *ends, *range(0, total, size)})
        blocks = list(itertools.pairwise(cuts)) if running else []
        for start, stop in _progress(blocks, source, len(blocks)):
            self._block(source, start, stop)
        self.timings[source] = time.perf_counter() - begin

    def _block(self, source: str, start: int, stop: int) -> None:
        assert self.population is not None
        wanted = [p for p in self._running(source) if p.limit is None or stop <= p.limit]
        if not wanted:
            return
        build = population_rows if source == "population" else prior_draws
        try:
            observed = self._observe(source, build(self.population, start, stop, self.seed), wanted)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error) or stop - start < 2:
                raise
            middle = (start + stop) // 2
            self._block(source, start, middle)
            self._block(source, middle, stop)
            return
        for name, state in observed.items():
            self.states[name] = merge(self.states[name], state) if name in self.states else state

    def _running(self, source: str) -> list[Probe]:
        return [
            p
            for p in self.probes
            if p.source == source and p.name not in self.skipped and p.name not in self.broken
        ]

    def _observe(
        self, source: str, obs: Observation, wanted: Sequence[Probe] | None = None
    ) -> dict[str, States]:
        """States of one batch from every probe; one that fails stops, the others go on."""
        states: dict[str, States] = {}
        for probe in self._running(source) if wanted is None else wanted:
            try:
                states[probe.name] = probe.observe(obs)
            except Unavailable as reason:
                # Once something was seen the probe has broken off; before that it never began.
                begun = probe.name in self.states
                (self.broken if begun else self.skipped)[probe.name] = told(reason)
            except Exception as error:
                if out_of_memory(error) and len(obs) > 1:
                    raise
                self.broken[probe.name] = f"{type(error).__name__}: {brief(error)}"
        return states

    # -- rehearsal ---------------------------------------------------------------------------

    def _rehearse(self, first: Batch) -> None:
        """Try everything on two samples, so that what cannot be measured is known at once.

        The encoder's own errors are raised: without a posterior there is no audit. A probe's
        `Unavailable` skips it; an error in what was declared (a likelihood that does not fit) is
        raised as well, since every number of that probe would be wrong.
        """
        x = first_rows(first.x, 2)
        encoded = self._try_encode(x)
        if encoded.problem is not None:  # bad rows may come first: look at the whole batch
            x = first.x
            encoded = self._try_encode(x)
        if encoded.problem is not None:
            raise encoded.problem
        again = self._try_encode(x)
        if not encoded.posterior.same(again.posterior):
            self.findings.append(
                RANDOM.finding(
                    Severity.WARN, "two calls of the encoder on the same samples differ."
                )
            )
        self._check_batch(x, encoded)
        # One good sample stands in for two: pairs are then rehearsed whatever the conditions.
        rows = np.repeat(np.flatnonzero(to_numpy(encoded.good))[:1], 2)
        x, index = take_rows(x, rows), np.arange(2)
        posterior = encoded.posterior.take(torch.as_tensor(rows))
        subset = KeyedSubset(self.seed, 2, index, posterior, x)
        crowd = subset.build(self.door, len(rows), None, posterior.device)
        observations = {
            "data": Observation(self.door, "data", index, posterior=posterior, seed=self.seed, x=x),
            "population": population_rows(crowd, 0, 2, self.seed),
            "prior": prior_draws(crowd, 0, 2, self.seed),
        }
        for probe in self.probes:
            try:
                probe.observe(observations[probe.source])
            except Unavailable as reason:
                self.skipped[probe.name] = told(reason)
            except CollapsekitError:
                raise
            except Exception as error:
                self.skipped[probe.name] = f"{type(error).__name__}: {brief(error)}"
        self.door.passes = type(self.door.passes)()

    def _check_batch(self, x: Inputs, together: Encoded) -> None:
        alone = self._try_encode(first_rows(x, 1)).posterior
        first = together.posterior.take(slice(1))
        if not alone.same(first, 1e-3, 1e-4):
            self.findings.append(
                BATCHWISE.finding(
                    Severity.WARN, "a sample's posterior changes with the samples beside it."
                )
            )

    def _try_encode(self, x: Inputs) -> Encoded:
        try:
            return self.door.encode(x, "rehearsal")
        except CollapsekitError:
            raise
        except Exception as error:
            raise ModelError(
                "the encoder failed on the first samples",
                got=f"{type(error).__name__}: {brief(error)}",
                expected="a posterior for every row",
                remedy="try encode(data[:2]) by hand; check the data's shape and type",
            ) from error


def _batch_rows(part: Batch, rows: Array) -> Batch:
    labels = None if part.labels is None else part.labels[rows]
    return Batch(part.index[rows], take_rows(part.x, rows), labels)


def _batch_size(samples: Samples) -> int:
    """As many samples as fit 16 MB of input, at most 512."""
    if not samples.random_access or not samples.size:
        return _LARGEST_BATCH
    one = samples.take(np.arange(1))
    width = sum(leaf.numel() * leaf.element_size() for _, leaf in tensors(one))
    return int(min(max(_BATCH_BYTES // max(width, 1), 1), _LARGEST_BATCH))


def brief(error: BaseException) -> str:
    """An error's text on one line, cut."""
    text = " ".join(str(error).split())
    return text[:300] + ("..." if len(text) > 300 else "")


def told(reason: Unavailable) -> str:
    """Why something is unavailable, on one line."""
    parts = [reason.what]
    parts += [f"got {reason.got}"] if reason.got else []
    parts += [f"expected {reason.expected}"] if reason.expected else []
    return ", ".join(parts)


def _progress(parts: Any, what: str, total: int | None) -> Any:
    # disable=None: quiet wherever stderr is no terminal.
    quiet = True if os.environ.get("CI") else None
    return tqdm(parts, desc=what, total=total, disable=quiet, leave=False, unit="batch")
