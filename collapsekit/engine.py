"""The engine: pass over the three streams, conclude, judge. `audit` and `run`."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator, Sequence
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
from collapsekit.adapters import as_adapter
from collapsekit.door import Door
from collapsekit.errors import InputError, Unavailable
from collapsekit.findings import Finding, Severity, fold
from collapsekit.groups import GroupDoor, is_grouped, names_of
from collapsekit.joined import joined_groups
from collapsekit.logs import event
from collapsekit.probe import Probe, Reading, Tables
from collapsekit.provenance import provenance, run_block
from collapsekit.results import Audit, Result
from collapsekit.samples import Samples, as_samples
from collapsekit.tables import joined, places, summary_table
from collapsekit.task import POPULATION, Task, brief, told
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
    probes: Sequence[Probe] | None = None,
    batch: int | None = None,
    population: int | None = None,
    device: str | torch.device | None = None,
    trust_code: bool = False,
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
    probes : sequence of Probe, optional
        Instead of `collapsekit.probes.REGISTERED`.
    batch : int, optional
        Samples a call; chosen by size otherwise, and halved whenever memory runs out.
    population : int, optional
        Samples among which pairwise measures are taken; at most 50,000 by default.
    device : optional
        Where the model runs; where it is by default.
    trust_code : bool
        Whether a file named by a spec string may execute code while it is opened; refused by
        default, with an error that says what for.

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
    chosen = default_probes.REGISTERED if probes is None else tuple(probes)

    def measured(door: Door) -> Audit:
        return run(door, samples, chosen, seed=seed, batch=batch, population=population)

    if is_grouped(adapter):
        doors = _group_doors(adapter, samples, parameterisation, likelihood, seed)
        result = joined_groups({name: measured(door) for name, door in doors.items()})
    else:
        result = measured(Door(adapter, parameterisation, prior, likelihood, beta=beta))
    result.provenance["beta"] = beta
    return result


def _group_doors(
    adapter: Any, samples: Samples, parameterisation: str, likelihood: Any, seed: int
) -> dict[str, GroupDoor]:
    """A door for each group of a hierarchical model, from the top down."""
    first = next(samples.batches(2), None)
    if first is None:
        raise InputError("the data hold no sample", got="N = 0", expected="at least one")
    with _undisturbed(), session(adapter):
        names = names_of(adapter, first.x, parameterisation)
    return {
        name: GroupDoor(
            adapter, parameterisation, None, likelihood, group=name, names=names, seed=seed
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
        if number is not None and (not isinstance(number, int) or number < 1):
            raise InputError(
                f"{name} must be a positive whole number", got=repr(number), expected="1 or more"
            )
    if not isinstance(seed, int):
        raise InputError("the seed must be a whole number", got=repr(seed), expected="an int")
    task = Task(door, samples, tuple(probes), seed, batch, population or POPULATION)
    with _undisturbed(), session(door.adapter):
        task.stream_data()
        task.stream_population()
        task.stream_prior()
    audit = _conclude(task, readings)
    _log(audit)
    return audit


def _conclude(task: Task, readings: Sequence[Reading]) -> Audit:
    """Fold states into results, results into tables, findings into the verdict."""
    begin = time.perf_counter()
    results: dict[str, Result] = {}
    for probe in task.probes:
        if probe.name in task.states:
            try:
                results[probe.name] = probe.conclude(task.states[probe.name])
            except Exception as error:  # one probe's failure loses no other's result
                task.broken[probe.name] = f"{type(error).__name__}: {brief(error)}"
    for reading in readings:
        try:
            results[reading.name] = reading.read(_tables(task, results, ()))
        except Unavailable as reason:
            task.skipped[reading.name] = told(reason)
        except Exception as error:  # nor does one reading's
            task.broken[reading.name] = f"{type(error).__name__}: {brief(error)}"
    tables = _tables(task, results, _troubles(task))
    found = list(tables.findings)
    if task.count < troubles.FEWEST:
        found = [*troubles.undecided(found), troubles.few(task.count)]
    findings = tuple(sorted(found, key=lambda f: (-f.severity, f.code)))
    assert task.population is not None
    task.timings["conclude"] = time.perf_counter() - begin
    return Audit(
        verdict=fold(findings),
        findings=findings,
        summary=summary_table(tables.numbers.values()),
        samples=tables.samples,
        dimensions=tables.dimensions,
        tables={name: table for r in results.values() for name, table in r.tables.items()},
        arrays={name: array for r in results.values() for name, array in r.arrays.items()},
        skipped=dict(task.skipped),
        settings={
            **{p.name: _fields(p) for p in task.probes if p.name in results},
            **{r.name: _fields(r) for r in readings if r.name in results},
        },
        provenance=provenance(task.door, task.samples, task.population, task.count, task.seed),
        run=run_block(task.started, task.timings),
    )


def _log(audit: Audit) -> None:
    """Records of what happened, for whoever listens to the logger."""
    n = audit.provenance["n"]
    for stage, seconds in audit.run["timings"].items():
        told = f"{stage}: {seconds:.1f} s"
        event("stage", told, stage=stage, seconds=seconds, samples=n)
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
    return asdict(measure)


def _tables(task: Task, results: dict[str, Result], extra: Sequence[Finding]) -> Tables:
    found = list(results.values())
    labels = None if task.labels is None else task.labels.frame()
    return Tables(
        numbers={n.name: n for r in found for n in r.numbers},
        samples=joined(
            [labels, *(r.samples for r in found)], pd.RangeIndex(task.count, name="sample")
        ),
        dimensions=joined(
            [places(task.door.latent_shape), *(r.dimensions for r in found)],
            pd.RangeIndex(task.door.dims, name="dimension"),
        ),
        findings=(*extra, *(f for r in found for f in r.findings)),
    )


def _troubles(task: Task) -> list[Finding]:
    """What the engine itself has to tell."""
    assert task.population is not None
    notes = [*task.samples.notes, *task.door.notes, *getattr(task.door.adapter, "notes", ())]
    found = [
        *task.findings,
        *troubles.lost(task.lost, task.count),
        *troubles.broken(task.broken),
        *troubles.converted(notes),
        *troubles.skipped(task.skipped),
    ]
    size = task.population.size
    measured = task.count - sum(map(len, task.lost.values()))
    rows = {
        p.name: min(p.limit or size, size)
        for p in task.probes
        if p.source == "population" and p.name in task.states
    }
    fewer = {name: n for name, n in rows.items() if n < measured}
    return [*found, troubles.subset(fewer, task.count)] if fewer else found


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
