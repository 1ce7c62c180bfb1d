"""Coverage of the 95 % intervals: how often they hold the truth, over replications.

    python benchmarks/coverage.py [CASE ...] [--quick] [--replications N] [--samples N] [--out DIR]
    python benchmarks/coverage.py --table DIR

Every case has its truth in closed form, by quadrature, or in a population from which samples are
drawn: the linear VAE with its exact posterior (every headline), a code by widths, a locally
collapsed one, a correlated one, a full-covariance posterior, a categorical code, a mixture prior,
and a real model on real images, resampled (the vanilla digits VAE; its 1,437 training images are
the population). Printed for each headline: coverage with its own
Wilson interval, and the share of misses on either side. Brackets and counts are conservative by
construction; what lies above 97.5 % is marked with why. Where a headline is defined by the audited
samples themselves (a share of N, a fixed number of draws) it is held against its own mean over the
replications, marked "own mean" (whole counts: their median): that tests its width, not its aim. A
headline that is measured for a given quantity of the samples (the noise of the robust round trip)
is held against the closed form at each replication's own, marked "given". An interval without an
upper end covers what is above its lower one; their share is told. One without either end is a miss
on both sides.

One JSON record per case with --out; exit code 1 where a headline is below 92.7 %.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.coverage_parts import digits, families, linear
from benchmarks.coverage_parts.audits import GIVEN, Case, Truth
from collapsekit.intervals import Z95, wilson
from collapsekit.number import Number
from collapsekit.streaming import Array

FLOOR, CEILING = 0.927, 0.975

#: Why a headline may be above the ceiling, in general or in one case.
WIDE = {
    "mutual_information": "a bracket, widened on both sides",
    "total_correlation": "a bracket, that of the information",
    "dimensionwise_kl": "a bracket, without and with a sample's own posterior",
    "active_units": "a count",
    "active_fraction": "a count",
    "redundant_dimensions": "a count",
    "passive_dimensions": "a count, Wilson in every dimension",
    "used_dimensions": "a count",
    "informative_fraction": "a count",
    "linear_dimensions": "a count",
    "locally_collapsed_fraction": "discrete",
    "collision_fraction": "next to none, counted as n / 2 pairs",
    "unreliable_weights_fraction": "none is",
    "folded_fraction": "counted as n / 2 pairs",
    "told_by_mean_fraction": "counted as n / 2 pairs",
    "rank_drop_fraction": "next to none",
    "fold_fraction": "none is",
    "fold_fraction_prior": "none is",
    "decoder_full_rank_fraction": "the same at every code",
    "saturated_fraction": "a handful, and the draws' error by a jackknife",
    "encoder_rank": "the same in every sample",
    "tangent_rank": "the same in every sample",
    "digits tangent_rank": "a count",
    "decoder_rank": "the same at every code",
    "decoder_reciprocal_condition": "the same at every code",
    "inference_gap": "0 in every sample",
    "digits inference_gap": "upper end moved by the draws' bias",
    "categorical inference_gap": "weights have not settled: open above",
    "categorical log_likelihood_bound": "weights have not settled: open above",
    "model_information": "upper end moved by the draws' bias, or open",
    "lower_lipschitz": "both ends of a pair share a value: ranks are those of n / 2",
    "lower_lipschitz_low": "both ends of a pair share a value: ranks are those of n / 2",
    "round_trip_r2": "the squared mean of the codes is all that varies; widened by the bias",
    "round_trip_r2_prior": "the squared mean of the codes is all that varies; widened by the bias",
    "digits round_trip_r2": "the clip narrows the value, not its interval",
    "digits robust_round_trip_r2": "the clip narrows the value, not its interval",
    "digits round_trip_r2_prior": "the clip narrows the value, not its interval",
    "reidentification": "samples compete for the same codes: their mean varies less than they do",
    "linear reidentification": "samples compete for the same codes: their mean varies less than "
    "they do (intervals 1.3 times as long as its spread asks for, 150 replications)",
    "mixture-prior effective_rank": "1 in one dimension",
    "mixture-prior reconstruction_slope": "the same in every sample",
}
#: Why a headline may be below the floor.
NARROW = {
    "folded_fraction": "less than one pair expected: Wilson's lower end is above the truth "
    "where one is seen",
}


CASES: dict[str, Callable[[], tuple[Case, Truth]]] = {
    "linear": linear.linear,
    "local": linear.local_code,
    "widths": linear.widths_code,
    "correlated": linear.correlated_code,
    "full-covariance": families.full_covariance,
    "categorical": families.categorical,
    "mixture-prior": families.mixture_prior,
    "digits": digits.digits,
}


def covered(number: tuple[float, float], truth: float) -> int:
    """0 inside, -1 interval below the truth, +1 above; rounding dust counts as inside.

    A missing end is open; an interval without either is none, and 2.
    """
    low, high = number
    if math.isnan(low) and math.isnan(high):
        return 2
    dust = 1e-9 * max(abs(truth), 1.0)
    return 1 if low > truth + dust else -1 if high < truth - dust else 0


def replicate(
    name: str, replications: int, samples: int, folder: Path | None = None, every: int = 50
) -> dict[str, Any]:
    """One case's record: for each headline the truth, coverage and misses on either side.

    In `folder` the record of what is done so far is kept after `every` so many replications; one
    that was broken off goes on from there.
    """
    begin = time.process_time()
    run, truth = CASES[name]()
    found: dict[str, list[Number]] = {key: [] for key in truth}
    given: dict[str, list[float]] = {key: [] for key, value in truth.items() if value == GIVEN}
    begun = None if folder is None else folder / f"{name}.begun.json"
    if begun is not None and begun.exists():
        before = json.loads(begun.read_text("utf-8"))
        found = {key: [Number(*values) for values in before["found"][key]] for key in truth}
        given, begin = before["given"], begin - before["cpu"]

    def record() -> dict[str, Any]:
        done = len(next(iter(found.values())))
        headlines = {key: judged(found[key], given.get(key, value)) for key, value in truth.items()}
        cpu = time.process_time() - begin
        made = {"case": name, "replications": done, "samples": samples, "cpu": cpu}
        made["headlines"] = headlines
        if folder is None or begun is None:
            return made
        folder.mkdir(parents=True, exist_ok=True)
        numbers = {
            key: [(n.name, n.value, n.low, n.high, n.unit, n.n) for n in values]
            for key, values in found.items()
        }
        begun.write_text(json.dumps({"found": numbers, "given": given, "cpu": cpu}), "utf-8")
        text = json.dumps(made, indent=1) + "\n"
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
        if done == replications:
            begun.unlink()
        return made

    for seed in range(len(next(iter(found.values()))), replications):
        audit, own = run(samples, seed)
        for key in truth:
            found[key].append(audit.number(key))
        for key, values in given.items():
            values.append(own[key])
        if (seed + 1) % every == 0 and seed + 1 < replications:
            record()
    return record()


def judged(numbers: list[Number], truth: float | list[float]) -> dict[str, Any]:
    """How often the intervals hold the truth, or their values' mean where there is none.

    A list holds each replication's own truth; told is then their mean.
    """
    given = isinstance(truth, list)
    own = not isinstance(truth, list) and math.isnan(truth)
    values = np.array([n.value for n in numbers])
    # Between two whole numbers lies no count: the own mean of counts is their median.
    whole = numbers[0].unit == "dimensions" and (values % 1 == 0).mean() > 0.5
    middle = float(np.median(values) if whole else values.mean())
    each = truth if isinstance(truth, list) else [middle if own else truth] * len(numbers)
    sides = np.array([covered((n.low, n.high), t) for n, t in zip(numbers, each, strict=True)])
    low, high = wilson(int((sides == 0).sum()), len(sides))
    return {
        "truth": float(np.mean(each)),
        "own mean": own,
        "given": given,
        "coverage": float((sides == 0).mean()),
        "low": low,
        "high": high,
        "below": float(((sides < 0) | (sides == 2)).mean()),
        "above": float((sides > 0).mean()),
        "width": _width(numbers, values),
        "one-sided": float(np.mean([math.isnan(n.low) != math.isnan(n.high) for n in numbers])),
    }


def _width(numbers: list[Number], values: Array) -> float:
    """Mean length of the intervals over that of an interval of 1.96 standard deviations of the
    values on either side; NaN where nothing varies or an end is open."""
    length = np.mean([n.high - n.low for n in numbers])
    spread = 2 * Z95 * values.std()
    return float(length / spread) if spread > 1e-9 * abs(values.mean()) else math.nan


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """The records as Markdown."""
    lines = [
        "| case, replications | headline | truth | coverage % | 95 % limits | misses | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for record in records:
        for key, row in record["headlines"].items():
            why, few = "", record["replications"] < 1000
            if row["coverage"] > CEILING:
                # Of few replications all may be covered at 95 % as well: nothing to explain yet.
                unknown = "" if few and row["low"] <= CEILING else "not explained"
                why = WIDE.get(f"{record['case']} {key}", WIDE.get(key, unknown))
                if why and math.isfinite(row.get("width", math.nan)):
                    why = f"{why}; {row['width']:.1f} x"
            if row["coverage"] < FLOOR:
                narrow = NARROW.get(key, "")
                below = "within the error of few" if few and row["high"] >= FLOOR else narrow
                why = f"**below 92.7** {below}".strip()
            if row.get("one-sided"):
                why = f"{why}; {100 * row['one-sided']:.0f} % without an upper end".lstrip("; ")
            held = f"{row['truth']:.4g}" + (" (own mean)" if row["own mean"] else "")
            held += " (given the range)" if row.get("given") else ""
            lines.append(
                f"| {record['case']}, {record['replications']:,} | `{key}` | {held} | "
                f"{100 * row['coverage']:.1f} | {100 * row['low']:.1f} to {100 * row['high']:.1f} "
                f"| {100 * row['below']:.1f}, {100 * row['above']:.1f} | {why} |"
            )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--quick", action="store_true", help="40 replications")
    parser.add_argument("--replications", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--out", type=Path, help="folder for one record a case")
    parser.add_argument("--table", type=Path, help="print this folder's records and stop")
    arguments = parser.parse_args(argv)
    if arguments.table is not None:
        files = [arguments.table / f"{name}.json" for name in CASES]
        print(table([json.loads(f.read_text("utf-8")) for f in files if f.exists()]))
        return 0
    for name in arguments.cases:
        if name not in CASES:
            parser.error(f"{name} is not one of {', '.join(CASES)}")
    torch.set_num_threads(1)
    replications = 40 if arguments.quick else arguments.replications
    records = []
    for name in arguments.cases or CASES:
        record = replicate(name, replications, arguments.samples, arguments.out)
        records.append(record)
        print(f"{name}: {record['cpu']:.0f} s of CPU", file=sys.stderr, flush=True)
    print(f"N = {arguments.samples}, {replications} replications a case\n\n{table(records)}")
    rows = [row for record in records for row in record["headlines"].values()]
    # With few replications a coverage of 95 % is often seen below 92.7: judged by its upper limit.
    return int(any(row["high"] < FLOOR or _below(row, replications) for row in rows))


def _below(row: Mapping[str, Any], replications: int) -> bool:
    return replications >= 1000 and row["coverage"] < FLOOR


if __name__ == "__main__":
    sys.exit(main())
