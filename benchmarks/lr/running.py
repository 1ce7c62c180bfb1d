"""One benchmark from its grid to its bars."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import collapsekit as ck
from benchmarks.lr.data import Data, Part
from benchmarks.lr.measuring import Row, audited, columns, measure, probe, told
from benchmarks.lr.settings import BATCH, LATENT, RATE, RATIO, WARMUP, Bar, Benchmark
from benchmarks.lr.training import Method, Trainer
from collapsekit.comparison import Comparison

VALIDATION_SEED = 20
RULE = (
    "of the weights (multiples of beta) whose validation rec is at most {most_error} x vanilla's, "
    "the one with the most informative units; of equal ones the smallest; where none qualifies, "
    "the one with the least validation rec. One seed, {seed}, that is not reported."
)
Rows = dict[str, dict[int, Row]]


def trainer(bench: Benchmark, method: Method, weight: float, part: Part, seed: int) -> Trainer:
    # The negative control keeps LR.md's weight, 1 x beta: it is not to be made to look better.
    weight = 1.0 if method == "detached" else weight
    return Trainer(
        bench,
        method,
        weight,
        part.x,
        seed,
        latent=LATENT,
        batch=BATCH,
        rate=RATE,
        warmup=WARMUP,
    )


def choose(bench: Benchmark, data: Data) -> tuple[float, dict[str, object]]:
    """The weight that validation chooses, and the record of how; the test part is not looked at."""
    tried: dict[str, Row] = {}
    for weight in (0.0, *bench.grid):
        model = trainer(bench, "lr" if weight else "vanilla", weight, data.fit, VALIDATION_SEED)
        model.run()
        row = measure(model.vae, data.validation.x, model.beta)
        tried[f"{weight:g}" if weight else "vanilla"] = row
        tell(f"  validation, weight {weight:g} x beta: good {row['good']:.3f} rec {row['rec']:.3f}")
    weight = decide(tried, bench.most_error)
    rule = RULE.format(most_error=bench.most_error, seed=VALIDATION_SEED)
    return weight, {"rule": rule, "tried": tried, "weight": weight}


def decide(tried: Mapping[str, Row], most_error: float) -> float:
    """RULE, applied to rows by weight ("vanilla" and numbers)."""
    limit = most_error * tried["vanilla"]["rec"]
    weights = sorted(float(key) for key in tried if key != "vanilla")
    allowed = [w for w in weights if tried[f"{w:g}"]["rec"] <= limit]
    if not allowed:
        return min(weights, key=lambda w: tried[f"{w:g}"]["rec"])
    return max(allowed, key=lambda w: tried[f"{w:g}"]["good"])  # the first, so smallest, of equals


def run(
    name: str,
    bench: Benchmark,
    folder: Path,
    seeds: Sequence[int],
    methods: Sequence[Method],
    *,
    search: bool = True,
    page: Path | None = None,
) -> dict[str, Any]:
    """The benchmark's record, ready for JSON; a comparison page at `page` where it has one."""
    begin = time.process_time()
    data = bench.data(folder)
    tell(f"\n{name}: {bench.title}; beta {bench.beta:g}, {bench.epochs} epochs")
    weight, choice = choose(bench, data) if search else (bench.weight, {"weight": bench.weight})
    rows: Rows = {}
    words: dict[str, dict[int, object]] = {}
    shown: dict[str, ck.Audit] = {}
    for method in methods:
        rows[method], words[method] = {}, {}
        for seed in seeds:
            row, audit = evaluated(bench, method, weight, data, seed)
            if not shown:
                tell(f"{'method':10s} seed " + " ".join(f"{c:>6.6s}" for c in row))
            rows[method][seed], words[method][seed] = row, told(audit)
            tell(f"{method:10s} {seed:4d} " + " ".join(f"{v:6.3f}" for v in row.values()))
            if seed == seeds[0]:
                shown[method] = audit
    if page is not None and bench.report:
        compared(shown).to_html(page)
    steps = step_times(bench, methods, weight, data)
    ratios = {c: _mean(rows["lr"], c) / _mean(rows["vanilla"], c) for c in ("rec", "obj", "KL")}
    ratios["step"] = steps["lr"] / steps["vanilla"]
    tell(f"{RATIO}: " + ", ".join(f"{c} {v:.3f}" for c, v in ratios.items()))
    bars = [judge(bar, rows, ratios) for bar in bench.bars if bar.method in (RATIO, *methods)]
    for bar in bars:
        word = "met" if bar["met"] else "MISSED"
        tell(f"  {bar['method']} {bar['column']} {bar['relation']} {bar['limit']}: {word}")
    return {
        "setting": setting(bench, data),
        "choice": choice,
        "rows": rows,
        "audits": words,
        "ratios": ratios,
        "step_ms": steps,
        "bars": bars,
        "cpu_seconds": time.process_time() - begin,
    }


def compared(audits: Mapping[str, ck.Audit]) -> Comparison:
    """Side by side, against vanilla; the page leads with the last, which is to be the LR loss."""
    order = ["vanilla", *(name for name in audits if name not in ("vanilla", "lr")), "lr"]
    names = {"sigma": "sigma only", "lr": "LR"}
    return ck.compare({names.get(name, name): audits[name] for name in order})


def evaluated(
    bench: Benchmark, method: Method, weight: float, data: Data, seed: int
) -> tuple[Row, ck.Audit]:
    """One model trained on all training images, on the test images."""
    model = trainer(bench, method, weight, data.train, seed)
    cpu = model.run()
    row = measure(model.vae, data.test.x, model.beta)
    row["probe"] = probe(model.vae, data.train, data.test)
    audit = audited(model.vae, data.test, model.beta)
    return row | columns(audit) | {"cpu": cpu}, audit


def step_times(
    bench: Benchmark, methods: Sequence[Method], weight: float, data: Data
) -> dict[str, float]:
    """Milliseconds of CPU a step: medians of 12 blocks of 20 steps, the methods in turn."""
    models = {m: trainer(bench, m, weight, data.train, seed=0) for m in methods}
    blocks: dict[str, list[float]] = {m: [] for m in models}
    for _ in range(13):
        for method, model in models.items():
            start = time.process_time()
            for _ in range(20):
                model.advance()
            blocks[method].append((time.process_time() - start) / 20 * 1e3)
    return {m: statistics.median(times[1:]) for m, times in blocks.items()}  # the first warms up


def setting(bench: Benchmark, data: Data) -> dict[str, object]:
    told = {
        k: v
        for k, v in asdict(bench).items()
        if k not in ("data", "bars", "methods", "report", "weight")
    }
    told |= {"latent": LATENT, "batch": BATCH, "rate": RATE, "warmup": WARMUP}
    return told | {"split": data.split, "train": len(data.train), "test": len(data.test)}


def judge(bar: Bar, rows: Rows, ratios: Row) -> dict[str, object]:
    """A bar with what was reached: the ratio, or the worst seed."""
    if bar.method == RATIO:
        value = ratios[bar.column]
    else:
        values = [row[bar.column] for row in rows[bar.method].values()]
        value = max(values) if bar.relation == "<=" else min(values)
    met = value <= bar.limit if bar.relation == "<=" else value >= bar.limit
    return asdict(bar) | {"value": value, "met": met}


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _mean(rows: dict[int, Row], column: str) -> float:
    return statistics.fmean(row[column] for row in rows.values())
