"""The engine: pass over the three streams, conclude, judge. `audit` and `run`."""

from __future__ import annotations

import logging
import operator
import os
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from collapsekit import probes as default_probes
from collapsekit import readings as default_readings
from collapsekit import troubles
from collapsekit.adapter import session
from collapsekit.adapters import Opened, as_adapter
from collapsekit.archive import SUBSET
from collapsekit.door import Door
from collapsekit.errors import InputError, Unavailable, brief
from collapsekit.findings import Finding, Severity, fold
from collapsekit.groups import GroupDoor, is_grouped, names_of
from collapsekit.independent import rows_alike
from collapsekit.joined import joined_groups
from collapsekit.logs import event
from collapsekit.priors import other_space
from collapsekit.probe import Probe, Reading, Tables
from collapsekit.provenance import provenance, run_block
from collapsekit.results import QUARANTINED, Audit, Result
from collapsekit.sample_table import SampleTable, as_field
from collapsekit.samples import Samples, as_samples
from collapsekit.shards import POLICIES, Lost, Policy, told
from collapsekit.spool import SpooledRows
from collapsekit.tables import infinite, joined, places, summary_table
from collapsekit.task import POPULATION, Origin, Plan, Task
from collapsekit.troubles import CODES

__all__ = ["CODES", "audit", "run"]


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
    probes: Sequence[Probe | str] | None = None,
    batch: int | None = None,
    population: int | None = None,
    device: str | torch.device | None = None,
    trust_code: bool = False,
    executor: Executor | None = None,
    shards: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    on_bad_sample: Policy = "finding",
) -> Audit:
    """Audit a trained VAE for posterior collapse.

    Parameters
    ----------
    model : object
        A torch Module, an adapter (or a hierarchical one: `groups.GroupedAdapter`), an (encode,
        decode) pair (or encode alone), or a spec string:
        ``"pkg.module:factory"``, ``"posteriors:FILE.npz"``, ``"pythae:DIR"``, ``"diffusers:DIR"``
        and the other kinds of `collapsekit.adapters.KINDS`.
    data : object
        Arrays, tensors, a Dataset or DataLoader, or a path; see `collapsekit.samples`. A posteriors
        file brings its own.
    labels : array [N], optional
        Carried through to tables and report.
    parameterisation : {"scale", "variance", "logvar", "log_scale"}
        What the second of the encoder's two outputs holds.
    prior : optional
        (mean, scale) of a diagonal Gaussian, a torch distribution, an object with
        ``log_prob(z)`` and ``sample(shape)``, or a function ``prior(context)`` of a conditional
        model; N(0, I) by default, uniform for discrete codes. A hierarchical model has its own.
    likelihood : optional
        ``"bernoulli"`` (outputs are probabilities), ``"bernoulli_logits"``,
        ``("gaussian", scale)``, ``"categorical"``, or a Likelihood. Without one, reconstruction is
        measured in squared error.
    beta : float, optional
        The KL weight of the training: recorded, filled into advice, and for a Gaussian likelihood
        held against the data's variances as the cause of a collapse.
    seed : int
        Of every random draw; each draw is a function of (seed, stream, sample number).
    probes : sequence of Probe or str, optional
        Instead of `collapsekit.probes.REGISTERED`; registered ones go by their names, ``["kl"]``.
    batch : int, optional
        Samples a call; chosen by size otherwise, and halved whenever memory runs out.
    population : int, optional
        Samples among which pairwise measures are taken; at most 50,000 by default.
    device : optional
        Where the model runs; where it is by default.
    trust_code : bool
        Whether a file named by a spec string may execute code while it is opened; refused by
        default, with an error that says what for.
    executor : concurrent.futures.Executor, optional
        Runs shards of the data, and then blocks of rows, elsewhere: a process or thread pool, or
        ``dask.distributed.Client(...).get_executor(pure=False)``. A model given as a spec string
        and data given as a path are opened by each worker itself.
    shards : int, optional
        Into how many shards the data are cut; by default into 16 or more, of 32 batches at most
        up to 4,096 shards. Results depend on
        it only by rounding, and on the executor not at all.
    checkpoint : path, optional
        A folder that keeps finished shards. The same audit with the same folder goes on from
        there, after whatever ended it.
    on_bad_sample : {"finding", "skip", "raise"}
        What a sample does that cannot be measured. "finding": it is left out and warned about.
        "skip": it is quarantined, also where a single measure fails or is not finite for it;
        table ``quarantined`` lists such samples with the reason. "raise": it is an error.

    Returns
    -------
    Audit

    Raises
    ------
    InputError
        The data or an argument is not what it was said to be.
    ModelError
        The model's outputs cannot be read as a posterior.
    FileError
        The checkpoint, or a temporary folder for the per-sample table, cannot be written.
    """
    adapter, brought = as_adapter(model, device=device, trust_code=trust_code)
    source = brought if data is None else data
    if source is None:
        raise InputError(
            "there is no data to audit on",
            got="data=None",
            expected="an array, tensor, Dataset, DataLoader or path",
            remedy="pass data=...",
        )
    samples = as_samples(source, labels)
    chosen = default_probes.REGISTERED if probes is None else default_probes.chosen(probes)
    named = model.spec if isinstance(model, Opened) else model
    origin = Origin(named, data, labels, device, trust_code)

    def measured(door: Door, folder: str | os.PathLike[str] | None) -> Audit:
        return run(
            door,
            samples,
            chosen,
            seed=seed,
            batch=batch,
            population=population,
            executor=executor,
            shards=shards,
            checkpoint=folder,
            on_bad_sample=on_bad_sample,
            origin=origin,
        )

    if is_grouped(adapter):
        if prior is not None:
            raise InputError(
                "a hierarchical model has priors of its own",
                got=f"prior={type(prior).__name__}",
                expected="the prior that each group passes to draw",
                remedy="leave prior= out; change what encode and generate hand to draw",
            )
        doors = _group_doors(adapter, samples, parameterisation, likelihood, beta, seed)
        folders = [
            None if checkpoint is None else os.path.join(checkpoint, f"group-{place}")
            for place in range(len(doors))
        ]
        pairs = zip(doors.items(), folders, strict=True)
        result = joined_groups({name: measured(door, folder) for (name, door), folder in pairs})
    else:
        door = Door(adapter, parameterisation, prior, likelihood, beta=beta)
        result = measured(door, checkpoint)
    result.provenance["beta"] = beta
    return result


def _group_doors(
    adapter: Any,
    samples: Samples,
    parameterisation: str,
    likelihood: Any,
    beta: float | None,
    seed: int,
) -> dict[str, GroupDoor]:
    """A door for each group of a hierarchical model, from the top down."""
    first = next((part for part in samples.batches(2) if len(part.index)), None)
    if first is None:
        raise InputError(
            "the data hold no sample",
            got="N = 0",
            expected="at least one",
            remedy="hand in data with at least one sample; look for an empty file or filter",
        )
    with _undisturbed(), session(adapter):
        names = names_of(adapter, first.x, parameterisation)
    return {
        name: GroupDoor(
            adapter,
            parameterisation,
            likelihood=likelihood,
            beta=beta,
            group=name,
            names=names,
            seed=seed,
        )
        for name in names
    }


def run(
    adapter: Any,
    samples: Samples,
    probes: Sequence[Probe],
    *,
    readings: Sequence[Reading] = default_readings.REGISTERED,
    seed: int = 0,
    batch: int | None = None,
    population: int | None = None,
    executor: Executor | None = None,
    shards: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    on_bad_sample: Policy = "finding",
    origin: Origin | None = None,
) -> Audit:
    """Run probes over samples: the engine under `audit`, for those who bring their own pieces.

    Parameters
    ----------
    adapter : Adapter or Door
    samples : Samples
    probes, readings : sequences
    seed, batch, population, executor, shards, checkpoint, on_bad_sample : see `audit`
    origin : Origin, optional
        What workers open instead of unpickling the adapter and the samples.
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
    seed = _whole("the seed", seed)
    batch, population, shards = (
        None if number is None else _whole(name, number, least=1)
        for name, number in (("batch", batch), ("population", population), ("shards", shards))
    )
    if on_bad_sample not in POLICIES:
        raise InputError(
            "no such way to treat a bad sample",
            got=repr(on_bad_sample),
            expected=f"one of {', '.join(POLICIES)}",
            remedy="pass one of these words as on_bad_sample",
        )
    plan = Plan(seed, batch, population or POPULATION, executor, shards, checkpoint, on_bad_sample)
    task = Task(door, samples, tuple(probes), plan, origin or Origin(door.adapter, samples))
    with _undisturbed(seed), session(door.adapter):
        task.run()
    audit = _conclude(task, readings)
    _log(audit)
    return audit


def _whole(name: str, number: Any, least: int | None = None) -> int:
    """A whole number of any type, NumPy's among them."""
    try:
        whole = operator.index(number)
    except TypeError:
        whole = None
    if whole is None or (least is not None and whole < least):
        raise InputError(
            f"{name} must be a {'' if least is None else 'positive '}whole number",
            got=repr(number),
            expected="an int" if least is None else f"{least} or more",
            remedy="pass a whole number, or leave it out",
        )
    return whole


def _conclude(task: Task, readings: Sequence[Reading]) -> Audit:
    """Fold states into results, results into tables, findings into the verdict."""
    begin = time.perf_counter()
    event("begin", "conclude begins", stage="conclude")
    results: dict[str, Result] = {}
    concluded: dict[str, float] = {}
    states = task.spool.restore(task.total.states)
    for probe in task.probes:
        if probe.name in states:
            started = time.process_time()
            try:
                with rows_alike(_alike(task, probe)):
                    results[probe.name] = probe.conclude(states[probe.name])
            except Exception as error:  # one probe's failure loses no other's result
                task.broken[probe.name] = f"{type(error).__name__}: {brief(error)}"
            concluded[probe.name] = time.process_time() - started
    tables = _tables(task, results)
    # Of all probes there are: a gate tells what was not measured from what nobody measures.
    measures: list[Probe | Reading] = [*default_probes.REGISTERED, *task.probes, *readings]
    for reading in readings:
        try:
            results[reading.name] = reading.read(tables)
            tables = _beside(tables, results[reading.name])
        except Unavailable as reason:
            task.skipped[reading.name] = told(reason)
        except Exception as error:  # nor does one reading's
            task.broken[reading.name] = f"{type(error).__name__}: {brief(error)}"
    found = [*_troubles(task), *_emptied(task, results), *tables.findings]
    if task.count < troubles.FEWEST:
        found = [*troubles.undecided(found), troubles.few(task.count)]
    decoded = any(name.endswith(": decode") for name in task.total.passes)
    if task.silent and not decoded:
        found.append(troubles.silent(task.silent, fold(found).name))
    findings = tuple(sorted(found, key=lambda f: (-f.severity, f.code)))
    assert task.population is not None
    samples: pd.DataFrame | SampleTable = tables.samples
    extra = {} if not task.lost.total else {QUARANTINED: _quarantined(task)}
    if task.spool.on_disk:
        samples = task.spool.table(_columns(task, results))
        extra[SUBSET] = tables.samples
    task.done("conclude", begin)
    seconds = task.total.seconds
    spent = {
        p.name: (p.source, seconds.get(p.name, 0.0), concluded.get(p.name, 0.0))
        for p in task.probes
        if p.name in seconds
    }
    return Audit(
        verdict=fold(findings),
        findings=findings,
        summary=summary_table(tables.numbers.values()),
        samples=as_field(samples),
        dimensions=tables.dimensions,
        tables={
            **{name: table for r in results.values() for name, table in r.tables.items()},
            **extra,
        },
        arrays={name: array for r in results.values() for name, array in r.arrays.items()},
        skipped=dict(task.skipped),
        settings={
            **{p.name: _fields(p) for p in task.probes if p.name in results},
            **{r.name: _fields(r) for r in readings if r.name in results},
        },
        provenance={
            **provenance(task.door, task.samples, task.population, task.count, task.plan.seed),
            "batch": task.size,
            "device": task.device,
            "population_limit": task.plan.population,
            "on_bad_sample": task.plan.policy,
            "rows_alike": task.population.alike(task.count),
        },
        run=run_block(task.started, task.timings, spent),
        titles={h.name: h.title for one in measures for h in one.headlines},
        better={h.name: h.better for one in measures for h in one.headlines},
    )


def _alike(task: Task, probe: Probe) -> float:
    """Rows to an independent one among those that a probe watched; draws of the prior are."""
    assert task.population is not None
    if probe.source == "prior":
        return 1.0
    rows = task.count if probe.source == "data" else task.population.size
    return task.population.alike(min(probe.limit or rows, rows))


def _log(audit: Audit) -> None:
    """Records of what happened, for whoever listens to the logger."""
    n = audit.provenance["n"]
    for name, why in audit.skipped.items():
        event("skipped", f"{name} was not measured: {why}", logging.WARNING, probe=name, why=why)
    for finding in audit.findings:
        level = logging.WARNING if finding.severity >= Severity.WARN else logging.INFO
        fields = {"code": finding.code, "severity": finding.severity.word}
        event("finding", finding.message, level, **fields, sample_numbers=finding.samples[:100])
    event(
        "end",
        f"verdict {audit.verdict.name} on {n:,} samples in {audit.run['seconds']:.1f} s",
        verdict=audit.verdict.name,
        seconds=audit.run["seconds"],
        samples=n,
        model=audit.provenance["model"],
        data=audit.provenance["data"],
        passes=audit.provenance["passes"],
    )


def _fields(measure: Any) -> dict[str, Any]:
    # Probes are dataclasses by custom, not by inheritance; one without fields prints none.
    if not is_dataclass(measure) or isinstance(measure, type):
        return {}
    # Lists, as they come back from a file: a loaded audit equals the one that was saved.
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(measure).items()}


def _columns(task: Task, results: dict[str, Result]) -> list[pd.DataFrame | SpooledRows | None]:
    """Columns per sample from everybody, in memory or on disk."""
    # Whatever is on disk was put there by the spool; results knows it by its face alone.
    return [task.labels(), *(r.samples for r in results.values())]


def _tables(task: Task, results: dict[str, Result]) -> Tables:
    """What probes measured, side by side. Where samples are many, those of the population."""
    found = list(results.values())
    index = pd.RangeIndex(task.count, name="sample")
    if task.spool.on_disk:
        assert task.population is not None
        index = pd.Index(np.sort(task.population.index), name="sample")
    return Tables(
        numbers={n.name: n for r in found for n in r.numbers},
        samples=joined((_at(column, index) for column in _columns(task, results)), index),
        dimensions=joined(
            [places(task.door.latent_shape), *(r.dimensions for r in found)],
            pd.RangeIndex(task.door.dims, name="dimension"),
        ),
        findings=tuple(f for r in found for f in r.findings),
    )


def _at(column: pd.DataFrame | SpooledRows | None, index: pd.Index) -> pd.DataFrame | None:
    return column.at(index.to_numpy()) if isinstance(column, SpooledRows) else column


def _beside(tables: Tables, new: Result) -> Tables:
    """The tables with what one more reading says."""

    def both(old: pd.DataFrame, columns: pd.DataFrame | None) -> pd.DataFrame:
        return old if columns is None else pd.concat([old, joined([columns], old.index)], axis=1)

    return Tables(
        numbers={**tables.numbers, **{n.name: n for n in new.numbers}},
        samples=both(tables.samples, _at(new.samples, tables.samples.index)),
        dimensions=both(tables.dimensions, new.dimensions),
        findings=(*tables.findings, *new.findings),
    )


def _quarantined(task: Task) -> pd.DataFrame:
    """The samples that were left out, with the reason; of each reason at most `shards.KEPT`."""
    rows = [(int(i), why) for why, first in task.lost.first.items() for i in first]
    return pd.DataFrame(sorted(rows), columns=["sample", "reason"])


def _troubles(task: Task) -> list[Finding]:
    """What the engine itself has to tell."""
    assert task.population is not None
    notes = [*task.samples.notes, *task.door.notes, *getattr(task.door.adapter, "notes", ())]
    lost, odd, count = task.lost, task.total.odd, task.count
    damaged = [] if task.checkpoint is None else task.checkpoint.damaged
    found = [
        *task.findings,
        *troubles.lost_shards(task.lost_shards, count),
        *troubles.lost(lost.counts, _listed(lost), count, skipped=task.plan.policy == "skip"),
        *troubles.not_finite(odd.counts, _listed(odd), count),
        *troubles.broken(task.broken),
        *troubles.converted(notes),
        *troubles.skipped(task.skipped),
        *troubles.recomputed(damaged),
    ]
    posterior = task.population.posterior
    if task.door.one_prior:
        found += troubles.other_space(other_space(posterior, task.door.prior_for(posterior)))
    size, distinct = task.population.size, task.population.distinct.size
    common = int(task.population.common.sum())
    most = int(task.population.copies.max(initial=1))
    found += troubles.copies(size, distinct, task.population.effective, common, most)
    found += troubles.unlike(task.population.unlike)
    gone = sum(stop - start for stream, start, stop, _ in task.lost_shards if stream == "data")
    measured = count - lost.total - gone
    rows = {
        p.name: min(p.limit or size, size)
        for p in task.probes
        if p.source == "population" and p.name in task.total.states
    }
    fewer = {name: n for name, n in rows.items() if n < measured}
    return [*found, troubles.subset(fewer, count)] if fewer else found


def _emptied(task: Task, results: dict[str, Result]) -> list[Finding]:
    """Infinite cells of measures that are concluded in memory, as far as they are not told yet."""
    found = results.values()
    frames = (r.samples for r in found)
    samples = infinite(f for f in frames if not isinstance(f, SpooledRows))
    told = {f"{name} is not finite": index for name, index in samples.items()}
    told = {why: index for why, index in told.items() if why not in task.total.odd.counts}
    return [
        *troubles.not_finite({w: len(i) for w, i in told.items()}, told, task.count),
        *troubles.not_finite_dimensions(infinite(r.dimensions for r in found), task.door.dims),
    ]


def _listed(lost: Lost) -> dict[str, list[int]]:
    return {why: first.tolist() for why, first in lost.first.items()}


@contextmanager
def _undisturbed(seed: int = 0) -> Iterator[None]:
    """No gradients, and every global random state as it was found.

    Models that draw from it draw the same in every run: it is seeded meanwhile.
    """
    state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        with torch.no_grad():
            yield
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])
        torch.set_rng_state(state[2])
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
