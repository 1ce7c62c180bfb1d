"""The engine: rehearse, pass over the three streams, conclude, judge. `audit` and `run`."""

from __future__ import annotations

import hashlib
import itertools
import os
import platform
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from collapsekit import probes as default_probes
from collapsekit import readings as default_readings
from collapsekit.adapter import session
from collapsekit.adapters import as_adapter
from collapsekit.door import Door
from collapsekit.errors import CollapsekitError, InputError, ModelError, Unavailable
from collapsekit.findings import Code, Finding, Severity, fold
from collapsekit.number import Number
from collapsekit.observation import Observation, first_rows, population_rows, prior_draws
from collapsekit.population import KeyedSubset, Population
from collapsekit.probe import Probe, Reading, States, Tables, merge
from collapsekit.results import Audit, Result, joined, summary_table
from collapsekit.samples import Batch, Inputs, Samples, as_samples, rows_of, take_rows
from collapsekit.streaming import Array, Rows, to_numpy

LOST = Code(
    id="CK001",
    title="Samples that could not be measured",
    meaning="For some samples the encoder returned something that is no posterior, or failed. They "
    "are left out of every number; their cells in the table are <NA>.",
    formula="mean and scale finite, scale above 0",
    remedy="Look at these inputs: NaN, infinities, values far outside the training range.",
    source="collapsekit",
)
SKIPPED = Code(
    id="CK002",
    title="Not measured",
    meaning="Some measurements need what this model or these data do not offer (a decoder, inputs, a "
    "likelihood). The audit goes as far as it can and says where it stopped.",
    formula="a rehearsal of every probe on two samples before the pass",
    remedy="audit.skipped holds the reason for each; widen the adapter where it matters.",
    source="collapsekit",
)
BROKEN = Code(
    id="CK003",
    title="A measurement broke off",
    meaning="A probe failed on some batch. What it had seen until then was kept and is reported with "
    "the number of samples it rests on.",
    formula="n in the summary against the number of samples",
    remedy="The message holds the error; most often the decoder fails on some codes.",
    source="collapsekit",
)
CONVERTED = Code(
    id="CK004",
    title="Inputs were converted",
    meaning="The data or the model were not used exactly as handed in.",
    formula="",
    remedy="Hand in what the model was trained on if this is not it.",
    source="collapsekit",
)
RANDOM = Code(
    id="CK005",
    title="The encoder is random",
    meaning="The same input gave two different posteriors: dropout or batch statistics are still on, "
    "or the encoder draws noise. Noise in the means turns dead units active.",
    formula="two calls of encode on the same samples differ",
    remedy="Put the model in evaluation mode and take the noise out of encode.",
    source="collapsekit",
)
FEW = Code(
    id="CK006",
    title="Too few samples",
    meaning="Variances, information and collisions compare samples with each other; one sample has "
    "nobody to be compared with.",
    formula="N = 1",
    remedy="Audit at least a few hundred samples.",
    source="collapsekit",
)
SUBSET = Code(
    id="CK007",
    title="Measured on a subset",
    meaning="Costly measures are taken on a uniform subset of the samples; the other samples' cells "
    "are <NA>. Intervals account for the subset's size.",
    formula="the samples of smallest keyed hash",
    remedy="Raise population=, or a probe's limit, to measure more.",
    source="collapsekit",
)
CODES = (LOST, SKIPPED, BROKEN, CONVERTED, RANDOM, FEW, SUBSET)

POPULATION = 50_000
_MEMORY = 2 << 30  # bytes that the population's columns may take
_BATCH_BYTES = 64 << 20
_LARGEST_BATCH = 512


def audit(
    model: Any,
    data: Any = None,
    *,
    labels: Any = None,
    parameterisation: str = "scale",
    prior: Any = None,
    likelihood: Any = None,
    beta: float | None = None,
    seed: int = 0,
    probes: Sequence[Probe] | None = None,
    batch: int | None = None,
    population: int | None = None,
    device: str | torch.device | None = None,
) -> Audit:
    """Audit a trained VAE for posterior collapse.

    Parameters
    ----------
    model : object
        A torch Module, an adapter, an (encode, decode) pair (or encode alone), or a spec string:
        ``"pkg.module:factory"``, ``"posteriors:FILE.npz"``.
    data : object
        Arrays, tensors, a Dataset or DataLoader, or a path; see `collapsekit.samples`. A posteriors
        file brings its own.
    labels : array [N], optional
        Carried through to tables and report.
    parameterisation : {"scale", "variance", "logvar", "log_scale"}
        What the second of the encoder's two outputs holds.
    prior : optional
        (mean, scale) of a diagonal Gaussian; N(0, I) by default.
    likelihood : optional
        ``"bernoulli"`` (outputs are probabilities), ``"bernoulli_logits"``,
        ``("gaussian", scale)``, ``"categorical"``, or a Likelihood. Without one, reconstruction is
        measured in squared error.
    beta : float, optional
        The KL weight of the training; recorded, and filled into advice.
    seed : int
        Of every random draw; each draw is a function of (seed, stream, sample number).
    probes : sequence of Probe, optional
        Instead of `collapsekit.probes.REGISTERED`.
    batch : int, optional
        Samples a call; chosen by size otherwise, and halved whenever memory runs out.
    population : int, optional
        Samples among which pairwise measures are taken; at most 50,000 by default.
    device : optional
        Where the model runs; where it is by default.

    Returns
    -------
    Audit

    Raises
    ------
    InputError
        The data or an argument is not what it was said to be.
    ModelError
        The model's outputs cannot be read as a posterior.
    """
    adapter, brought = as_adapter(model, device=device)
    source = brought if data is None else data
    if source is None:
        raise InputError(
            "there is no data to audit on",
            got="data=None",
            expected="an array, tensor, Dataset, DataLoader or path",
            remedy="pass data=...",
        )
    samples = as_samples(source, labels)
    door = Door(adapter, parameterisation, prior, likelihood)
    result = run(
        door,
        samples,
        default_probes.REGISTERED if probes is None else tuple(probes),
        seed=seed,
        batch=batch,
        population=population,
    )
    result.provenance["beta"] = beta
    return result


def run(
    adapter: Any,
    samples: Samples,
    probes: Sequence[Probe],
    *,
    readings: Sequence[Reading] = default_readings.REGISTERED,
    seed: int = 0,
    batch: int | None = None,
    population: int | None = None,
) -> Audit:
    """Run probes over samples: the engine under `audit`, for those who bring their own pieces.

    Parameters
    ----------
    adapter : Adapter or Door
    samples : Samples
    probes, readings : sequences
    seed, batch, population : see `audit`
    """
    door = adapter if isinstance(adapter, Door) else Door(adapter)
    names = [p.name for p in probes] + [r.name for r in readings]
    if len(set(names)) < len(names):
        raise InputError(
            "two probes have one name",
            got=", ".join(sorted({n for n in names if names.count(n) > 1})),
            expected="unique names",
            remedy="drop one of them",
        )
    for name, number in (("batch", batch), ("population", population)):
        if number is not None and number < 1:
            raise InputError(f"{name} must be positive", got=str(number), expected="1 or more")
    task = Task(door, samples, tuple(probes), seed, batch, population or POPULATION)
    with _undisturbed(), session(door.adapter):
        task.stream_data()
        task.stream_population()
        task.stream_prior()
    return task.conclude(readings)


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

    # -- the data stream ---------------------------------------------------------------------

    def stream_data(self) -> None:
        """One pass over the data: rehearse on its first rows, then observe every batch."""
        begin = time.perf_counter()
        size = self.batch or _batch_size(self.samples)
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
        """Observe one batch; halve it when memory runs out; a batch that fails is told and left."""
        try:
            observed = self._data_states(part)
        except (MemoryError, RuntimeError) as error:
            if _out_of_memory(error) and len(part.index) > 1:
                half = len(part.index) // 2
                for rows in (np.arange(half), np.arange(half, len(part.index))):
                    self._data_batch(_batch_rows(part, rows), kept)
                return
            self._lose(f"encode raised {type(error).__name__}: {_brief(error)}", part)
            return
        except CollapsekitError:
            raise
        except Exception as error:  # whatever a stranger's model raises
            self._lose(f"encode raised {type(error).__name__}: {_brief(error)}", part)
            return
        states, subset, labels = observed
        self.count += len(part.index)
        for name, state in states.items():
            self.states[name] = merge(self.states[name], state) if name in self.states else state
        if subset is not None:
            kept[:] = [kept[0] + subset] if kept else [subset]
        if labels is not None:
            self.labels = labels if self.labels is None else self.labels + labels

    def _data_states(
        self, part: Batch
    ) -> tuple[dict[str, States], KeyedSubset | None, Rows | None]:
        encoded = self.door.encode(part.x, "data")
        labels = None if part.labels is None else Rows(part.index, label=part.labels)
        if not bool(encoded.good.all()):
            bad = to_numpy(~encoded.good)
            self.lost.setdefault("the posterior is not finite or not positive", []).extend(
                part.index[bad].tolist()
            )
            good = np.flatnonzero(~bad)
            if not len(good):
                return {}, None, labels
            part = _batch_rows(part, good)
            posterior = encoded.posterior.take(torch.as_tensor(good))
        else:
            posterior = encoded.posterior
        self._device = posterior.mean.device
        obs = Observation(
            self.door, "data", part.index, posterior=posterior, seed=self.seed, x=part.x
        )
        stored = None if self.samples.random_access else part.x
        subset = KeyedSubset(self.seed, self._limit(posterior.dims), part.index, posterior, stored)
        return self._observe("data", obs), subset, labels

    _device: torch.device | None = None

    def _limit(self, dims: int) -> int:
        return max(2, min(self.most, _MEMORY // (16 * dims)))

    def _lose(self, why: str, part: Batch) -> None:
        self.count += len(part.index)
        self.lost.setdefault(why, []).extend(part.index.tolist())

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
        size = self.batch or _LARGEST_BATCH
        # Blocks end where a probe's limit does, so that every probe sees whole blocks.
        ends = {min(p.limit or total, total) for p in running}
        cuts = sorted({0, total, *ends, *range(0, total, size)})
        blocks = list(itertools.pairwise(cuts)) if running else []
        for start, stop in _progress(blocks, source, len(blocks)):
            self._block(source, start, stop)
        self.timings[source] = time.perf_counter() - begin

    def _block(self, source: str, start: int, stop: int) -> None:
        assert self.population is not None
        wanted = [
            p for p in self._running(source) if p.limit is None or stop <= p.limit
        ]
        if not wanted:
            return
        build = population_rows if source == "population" else prior_draws
        try:
            observed = self._observe(
                source, build(self.population, start, stop, self.seed), wanted
            )
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error) or stop - start < 2:
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
            except Exception as error:
                if _out_of_memory(error) and len(obs) > 1:
                    raise
                self.broken[probe.name] = f"{type(error).__name__}: {_brief(error)}"
        return states

    # -- rehearsal ---------------------------------------------------------------------------

    def _rehearse(self, first: Batch) -> None:
        """Try everything on two samples, so that what cannot be measured is known at once.

        The encoder's own errors are raised: without a posterior there is no audit. A probe's
        `Unavailable` skips it; an error in what was declared (a likelihood that does not fit) is
        raised as well, since every number of that probe would be wrong.
        """
        x = first_rows(first.x, 2)
        index = first.index[:2]
        encoded = self.door.encode(x, "rehearsal")
        again = self.door.encode(x, "rehearsal")
        same = torch.equal(
            torch.nan_to_num(encoded.posterior.mean), torch.nan_to_num(again.posterior.mean)
        ) and torch.equal(
            torch.nan_to_num(encoded.posterior.scale), torch.nan_to_num(again.posterior.scale)
        )
        if not same:
            self.findings.append(
                RANDOM.finding(
                    Severity.WARN, "two calls of the encoder on the same samples differ."
                )
            )
        good = to_numpy(encoded.good)
        rows = np.flatnonzero(good)
        x, index = take_rows(x, rows), index[rows]
        posterior = encoded.posterior.take(torch.as_tensor(rows))
        subset = KeyedSubset(self.seed, 2, index, posterior, x)
        crowd = subset.build(self.door, len(rows), None, posterior.mean.device)
        observations = {
            "data": Observation(
                self.door, "data", index, posterior=posterior, seed=self.seed, x=x
            ),
            "population": population_rows(crowd, 0, 2, self.seed),
            "prior": prior_draws(crowd, 0, 2, self.seed),
        }
        for probe in self.probes:
            try:
                probe.observe(observations[probe.source])
            except Unavailable as reason:
                if len(rows) > 1 or rows_of(first.x) < 2:
                    self.skipped[probe.name] = _told(reason)
            except CollapsekitError:
                raise
            except Exception as error:
                self.skipped[probe.name] = f"{type(error).__name__}: {_brief(error)}"
        self.door.passes = type(self.door.passes)()

    # -- conclusions -------------------------------------------------------------------------

    def conclude(self, readings: Sequence[Reading]) -> Audit:
        """Fold states into results, results into tables, findings into the verdict."""
        begin = time.perf_counter()
        results = {}
        for probe in self.probes:
            if probe.name not in self.states:
                continue
            try:
                results[probe.name] = probe.conclude(self.states[probe.name])
            except Exception as error:
                self.broken[probe.name] = f"{type(error).__name__}: {_brief(error)}"
        self._tell()
        tables = self._tables(list(results.values()))
        for reading in readings:
            try:
                results[reading.name] = reading.read(tables)
            except Unavailable as reason:
                self.skipped[reading.name] = _told(reason)
            else:
                tables = self._tables(list(results.values()))
        self._tell_skipped()
        tables = self._tables(list(results.values()))
        self.timings["conclude"] = time.perf_counter() - begin
        findings = tuple(sorted(tables.findings, key=lambda f: (-f.severity, f.code)))
        extra = {name: table for r in results.values() for name, table in r.tables.items()}
        arrays = {name: array for r in results.values() for name, array in r.arrays.items()}
        return Audit(
            verdict=fold(findings),
            findings=findings,
            summary=summary_table(tables.numbers.values()),
            samples=tables.samples,
            dimensions=tables.dimensions,
            tables=extra,
            arrays=arrays,
            skipped=self.skipped,
            settings={
                p.name: _settings(p)
                for p in (*self.probes, *readings)
                if p.name in results
            },
            provenance=self._provenance(),
            run=self._run(),
        )

    def _tables(self, results: Sequence[Result]) -> Tables:
        numbers: dict[str, Number] = {n.name: n for r in results for n in r.numbers}
        labels = None if self.labels is None else self.labels.frame()
        samples = joined(
            [labels, *(r.samples for r in results)], pd.RangeIndex(self.count, name="sample")
        )
        dimensions = joined(
            [r.dimensions for r in results], pd.RangeIndex(self.door.dims, name="dimension")
        )
        findings = [*self.findings, *(f for r in results for f in r.findings)]
        return Tables(numbers, samples, dimensions, tuple(findings))

    def _tell(self) -> None:
        """Findings of the engine's own."""
        for why, rows in self.lost.items():
            rows.sort()
            shown = ", ".join(map(str, rows[:10])) + (", ..." if len(rows) > 10 else "")
            self.findings.append(
                LOST.finding(
                    Severity.WARN,
                    f"{len(rows):,} of {self.count:,} samples were left out ({why}): {shown}.",
                    samples=rows,
                )
            )
        for name, why in self.broken.items():
            self.findings.append(
                BROKEN.finding(Severity.WARN, f"the probe {name} broke off: {why}.")
            )
        notes = [*self.samples.notes, *getattr(self.door.adapter, "notes", ())]
        for note in notes:
            self.findings.append(CONVERTED.finding(Severity.OK, f"{note}.", advice=CONVERTED.remedy))
        if self.count == 1:
            self.findings.append(
                FEW.finding(
                    Severity.INCONCLUSIVE,
                    "there is one sample: variances, information and collisions are not defined.",
                    verdict="inconclusive",
                )
            )
        assert self.population is not None
        limits = [
            min(p.limit or self.population.size, self.population.size)
            for p in self.probes
            if p.source == "population" and p.name in self.states
        ]
        if limits and min(limits) < self.count - sum(map(len, self.lost.values())):
            told = ", ".join(
                f"{p.name} {min(p.limit or self.population.size, self.population.size):,}"
                for p in self.probes
                if p.source == "population" and p.name in self.states
            )
            self.findings.append(
                SUBSET.finding(
                    Severity.OK,
                    f"of {self.count:,} samples some measures used fewer rows, drawn by hash: "
                    f"{told}; the rest of their cells are <NA>.",
                    advice=SUBSET.remedy,
                )
            )

    def _tell_skipped(self) -> None:
        if self.skipped:
            reasons: dict[str, list[str]] = {}
            for name, why in self.skipped.items():
                reasons.setdefault(why, []).append(name)
            told = "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items())
            self.findings.append(
                SKIPPED.finding(
                    Severity.INCONCLUSIVE, f"{len(self.skipped)} measures were skipped ({told})."
                )
            )

    def _provenance(self) -> dict[str, Any]:
        door = self.door
        adapter = door.adapter
        assert self.population is not None
        return {
            "model": str(getattr(adapter, "description", type(adapter).__name__)),
            "adapter": type(adapter).__name__,
            "data": self.samples.description,
            "data_fingerprint": self._fingerprint(),
            "n": self.count,
            "population": self.population.size,
            "dimensions": door.dims,
            "latent_shape": list(door.latent_shape),
            "seed": self.seed,
            "prior": "N(0, I)" if door.prior is None else f"given: {_prior_text(door)}",
            "likelihood": _likelihood_text(door),
            "parameterisation": door.parameterisation,
            "reductions": "KL and errors are summed over dimensions and values, means are over "
            "samples; nats",
            "passes": dict(sorted(door.passes.items())),
            "notes": [*self.samples.notes, *getattr(adapter, "notes", ())],
            "versions": _versions(),
        }

    def _fingerprint(self) -> str:
        """Hash of N and of the 256 samples that a fixed key picks: equal for equal data."""
        assert self.population is not None
        digest = hashlib.sha256(f"{self.count}".encode())
        head = self.population.head(256)
        order = np.argsort(head.index)
        digest.update(head.index[order].tobytes())
        try:
            for _, leaf in _leaves(head.inputs(order)):
                digest.update(str((leaf.dtype, tuple(leaf.shape[1:]))).encode())
                digest.update(to_numpy(leaf.contiguous()).tobytes())
        except Unavailable:
            pass  # posteriors alone: N and the keyed indices have to do
        return digest.hexdigest()[:32]

    def _run(self) -> dict[str, Any]:
        epoch = os.environ.get("SOURCE_DATE_EPOCH")
        fixed = epoch is not None
        started = float(epoch) if epoch is not None else self.started
        return {
            "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
            "seconds": 0.0 if fixed else round(time.time() - self.started, 3),
            "host": "" if fixed else platform.platform(terse=True),
            "threads": torch.get_num_threads(),
            "timings": {k: 0.0 if fixed else round(v, 3) for k, v in self.timings.items()},
        }


def _leaves(x: Inputs) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(x, torch.Tensor):
        yield "", x
        return
    pairs = x.items() if hasattr(x, "items") else enumerate(x)
    for key, value in pairs:
        if isinstance(value, torch.Tensor):
            yield str(key), value


def _settings(probe: Any) -> dict[str, Any]:
    return dict(asdict(probe))


def _prior_text(door: Door) -> str:
    prior = door._prior
    if prior is None:
        return "unused"
    mean, scale = to_numpy(prior.mean[0]), to_numpy(prior.scale[0])
    return (
        f"diagonal Gaussian, means {mean.min():.4g} to {mean.max():.4g}, scales {scale.min():.4g} "
        f"to {scale.max():.4g}"
    )


def _likelihood_text(door: Door) -> str:
    if getattr(door.adapter, "log_likelihood", None) is not None:
        return "the model's own log_likelihood"
    return "none declared: squared error" if door.likelihood is None else str(door.likelihood)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("collapsekit", "torch", "numpy", "scipy", "scikit-learn", "pandas"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def _batch_rows(part: Batch, rows: Array) -> Batch:
    labels = None if part.labels is None else part.labels[rows]
    return Batch(part.index[rows], take_rows(part.x, rows), labels)


def _batch_size(samples: Samples) -> int:
    """As many samples as fit 64 MB of input, at most 512."""
    if not samples.random_access or not samples.size:
        return _LARGEST_BATCH
    one = samples.take(np.arange(1))
    width = sum(leaf.numel() * leaf.element_size() for _, leaf in _leaves(one))
    return int(min(max(_BATCH_BYTES // max(width, 1), 1), _LARGEST_BATCH))


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return "out of memory" in text or "can't allocate memory" in text


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:300] + ("..." if len(text) > 300 else "")


def _told(reason: Unavailable) -> str:
    parts = [reason.what]
    parts += [f"got {reason.got}"] if reason.got else []
    parts += [f"expected {reason.expected}"] if reason.expected else []
    return ", ".join(parts)


def _progress(parts: Any, what: str, total: int | None) -> Any:
    # disable=None: quiet wherever stderr is no terminal.
    quiet = True if os.environ.get("CI") else None
    return tqdm(parts, desc=what, total=total, disable=quiet, leave=False, unit="batch")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No gradients, and every global random state as it was found."""
    state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        with torch.no_grad():
            yield
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])
        torch.set_rng_state(state[2])
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
