"""Where an audit's CPU time goes: by stage, in every process.

    python benchmarks/apart.py [--size 2e5] [--model conv] [--dask] [--least 0.1]

The audit of `benchmarks/scale.py`, three times: alone; alone while a second one runs beside it, so
that both cores are busy as they are with two workers; and on two workers. Seconds are CPU time of
the thread that did the work, each stage without those inside it. What no stage claims is the rest:
pickling, queues, and the threads of the executor. The difference in the last column, two workers
less one process beside another, is then what sharing the work costs; that between the first two
columns is what the machine costs when both cores work.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import multiprocessing
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # workers import this file by its name

import collapsekit as ck
from benchmarks import scale
from collapsekit.population import Population
from collapsekit.probes import REGISTERED
from collapsekit.readings import REGISTERED as READINGS

SPENT: Counter[str] = Counter()
_STACKS: dict[int, list[float]] = {}
STAGES = {
    "rehearsal": ("rehearsal", "rehearse"),
    "encode": ("door", "Door.encode"),
    "decode": ("door", "Door.decode"),
    "shards of data, rest": ("shards", "observe_data"),
    "shards of rows, rest": ("shards", "observe_rows"),
    "sums of shards": ("shards", "Outcome.__add__"),
    "population: sorted": ("subset", "KeyedSubset._smallest"),
    "population: made": ("subset", "KeyedSubset.build"),
    "products, rest": ("jobs", "make"),
    "sample table: shards": ("spool", "Spool.add"),
    "sample table: population's": ("spool", "SpooledRows.at"),
    "sample table: whole": ("spool", "Spool.table"),
    "memory given back": ("heap", "give_back"),
    "conclude, rest": ("engine", "_conclude"),
    "worker: model opened": ("jobs", "Recipe.open"),
    "worker: parcels read": ("pool", "_found"),
    "parcels packed": ("pool", "Pool._packed"),
    "parcels filed": ("pool", "Pool._filed"),
    "tasks sent": ("pool", "Pool._submit"),
    "answers taken": ("pool", "Pool._settle"),
}


def timed(stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, whose own seconds are added to a stage."""

    @functools.wraps(work)
    def within(*given: Any, **named: Any) -> Any:
        stack = _STACKS.setdefault(threading.get_ident(), [])
        begin = time.thread_time()
        stack.append(0.0)
        try:
            return work(*given, **named)
        finally:
            took = time.thread_time() - begin
            SPENT[stage] += took - stack.pop()
            if stack:
                stack[-1] += took

    return within


def watch() -> None:
    """Time the stages of this process from now on."""
    torch.set_num_threads(1)
    importlib.import_module("collapsekit.engine")
    for stage, (module, path) in STAGES.items():
        owner: Any = importlib.import_module(f"collapsekit.{module}")
        *classes, name = path.split(".")
        for part in classes:
            owner = getattr(owner, part)
        plain = getattr(owner, name)
        watched = timed(stage, plain)
        setattr(owner, name, watched)
        for other in list(sys.modules.values()) if not classes else []:
            if other.__name__.startswith("collapsekit") and vars(other).get(name) is plain:
                setattr(other, name, watched)
    for probe in REGISTERED:
        for name in ("observe", "conclude"):
            kind: Any = type(probe)
            setattr(kind, name, timed(f"{name}: {probe.name}", getattr(kind, name)))
    for reading in READINGS:
        kind = type(reading)
        kind.read = timed("readings", kind.read)
    for name, method in list(vars(Population).items()):
        if callable(method) and hasattr(method, "__wrapped__"):
            setattr(Population, name, timed(f"product: {name.strip('_')}", method))
    source: Any = scale.Synthetic
    source.take = timed("data made", source.take)


def told() -> tuple[int, float, Counter[str]]:
    """Process, its CPU seconds, and those of its stages."""
    time.sleep(0.2)  # so that each worker gets one of these
    return os.getpid(), time.process_time(), Counter(SPENT)


@contextlib.contextmanager
def executor(dask: bool) -> Iterator[Executor]:
    """Two workers that watch themselves."""
    if dask:
        with scale._cluster(2) as workers:
            workers._client.run(_named().watch)
            yield workers
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context, initializer=_named().watch) as workers:
        yield workers


def _named() -> Any:
    """This file as workers import it: of the script itself they would be sent a copy."""
    return importlib.import_module("benchmarks.apart")


def of(workers: Executor) -> dict[int, tuple[float, Counter[str]]]:
    """What both workers have spent so far."""
    found: dict[int, tuple[float, Counter[str]]] = {}
    while len(found) < 2:
        for future in [workers.submit(_named().told) for _ in range(4)]:
            process, total, stages = future.result()
            found[process] = total, stages
    return found


def audit(rows: int, model: str, workers: Executor | None = None) -> tuple[float, Counter[str]]:
    """Audit; CPU seconds of this process in all and by stage."""
    SPENT.clear()
    begin = time.process_time()
    data, spec = scale.Synthetic(rows), f"benchmarks.scale:{model}"
    ck.audit(spec, data, likelihood=("gaussian", scale.SCALE), executor=workers)
    return time.process_time() - begin, Counter(SPENT)


def neighbour(model: str, enough: Any) -> None:
    """Audit, and again, until it is enough."""
    torch.set_num_threads(1)
    while not enough.is_set():
        audit(20_000, model)


def main() -> None:
    """Measure three times and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=float, default=2e5)
    parser.add_argument("--model", choices=list(scale.MODELS), default="linear")
    parser.add_argument("--dask", action="store_true")
    parser.add_argument("--least", type=float, default=0.1, help="seconds that a line is worth")
    given = parser.parse_args()
    rows, model = int(given.size), given.model
    watch()
    audit(3_000, model)
    columns = {"alone": audit(rows, model)}
    context = multiprocessing.get_context("spawn")
    enough = context.Event()
    beside = context.Process(target=neighbour, args=(model, enough))
    beside.start()
    time.sleep(5)  # it imports torch
    columns["beside"] = audit(rows, model)
    enough.set()
    beside.join()
    with executor(given.dask) as workers:
        audit(3_000, model, workers)
        before = of(workers)
        columns["main"] = audit(rows, model, workers)
        for place, (process, (total, stages)) in enumerate(of(workers).items()):
            was = before[process]
            columns[f"worker {place + 1}"] = total - was[0], stages - was[1]
    print(f"{rows:,} samples, {model}, {'dask' if given.dask else 'processes'}; CPU seconds")
    lines = {
        "in all": [total for total, _ in columns.values()],
        "no stage": [total - sum(stages.values()) for total, stages in columns.values()],
    }
    names = set().union(*(stages for _, stages in columns.values()))
    for name in sorted(names, key=lambda name: -columns["beside"][1][name]):
        lines[name] = [stages[name] for _, stages in columns.values()]
    print(f"{'':32}" + "".join(f"{name:>10}" for name in columns) + f"{'sharing':>10}")
    for name, values in lines.items():
        more = sum(values[2:]) - values[1]
        if max(*values[:2], sum(values[2:])) >= given.least:
            print(f"{name:32}" + "".join(f"{v:10.2f}" for v in [*values, more]))


if __name__ == "__main__":
    main()
