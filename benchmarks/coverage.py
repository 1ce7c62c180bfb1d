"""Coverage of the 95 % intervals: how often they hold the truth, over replications.

    python benchmarks/coverage.py [CASE ...] [--quick] [--replications N] [--samples N] [--out DIR]
    python benchmarks/coverage.py --table DIR

Every case has its truth in closed form, or in a population from which samples are drawn: the linear
VAE with its exact posterior (headlines of encoder and decoder), a code by widths, a locally
collapsed one, a correlated one, and a real model on real images, both resampled (the vanilla digits
VAE; its 1,437 training images are the population). Printed for each headline: coverage with its own
Wilson interval, and the share of misses on either side. Brackets and counts are conservative by
construction; what lies above 97.5 % is marked with why. Where a headline is defined by the audited
samples themselves (a share of N, a fixed number of draws) it is held against its own mean over the
replications, marked "own mean": that tests its width, not its aim. A headline that is measured for
a given quantity of the samples (the noise of the robust round trip) is held against the closed form
at each replication's own, marked "given". An interval without an upper end covers what is above its
lower one; their share is told. One without either end is a miss on both sides.

One JSON record per case with --out; exit code 1 where a headline is below 92.7 %.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import collapsekit as ck
from collapsekit.door import Door
from collapsekit.intervals import wilson
from collapsekit.number import Number
from collapsekit.probe import Probe, Reading
from collapsekit.readings import Informative
from collapsekit.results import Audit
from collapsekit.samples import as_samples
from collapsekit.streaming import Array
from tests import models

Truth = dict[str, float]
#: From samples and seed: the audit, and truths that depend on the replication's samples.
Case = Callable[[int, int], tuple[Audit, Truth]]

OWN = math.nan  # the truth of a headline that is held against its own mean
GIVEN = math.inf  # that of one whose truth comes with each replication
FLOOR, CEILING = 0.927, 0.975
#: No headline of theirs.
PICTURES = ("kl_distribution", "gallery", "traversals", "latent_view", "shuffle_cost")

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
    "locally_collapsed_fraction": "discrete",
    "collision_fraction": "none seen, in any replication",
    "unreliable_weights_fraction": "none is",
    "folded_fraction": "counted as n / 2 pairs",
    "rank_drop_fraction": "none is",
    "fold_fraction": "none is",
    "fold_fraction_prior": "none is",
    "decoder_full_rank_fraction": "none is",
    "saturated_fraction": "a handful, Wilson",
    "encoder_rank": "the same in every sample",
    "tangent_rank": "the same in every sample",
    "decoder_rank": "the same at every code",
    "decoder_reciprocal_condition": "0 at every code",
    "linear_dimensions": "a count",
    "inference_gap": "upper end moved by the draws' bias; 0 in every sample of the linear model",
    "model_information": "upper end moved by the draws' bias, or open",
    "lower_lipschitz": "both ends of a pair share a value: ranks are those of n / 2",
    "lower_lipschitz_low": "both ends of a pair share a value: ranks are those of n / 2",
    "round_trip_r2": "the squared mean of the codes is all that varies; widened by the bias",
    "round_trip_r2_prior": "the squared mean of the codes is all that varies; widened by the bias",
}
#: Why a headline may be below the floor.
NARROW = {
    "saturated_fraction": "draws are shared, so samples move together; the interval takes the "
    "draws as given",
    "folded_fraction": "less than one pair expected: Wilson's lower end is above the truth "
    "where one is seen",
}


def audited(
    model: Any, data: Any, seed: int, *, likelihood: Any = None, probes: list[Probe] | None = None
) -> Audit:
    """An audit without pictures, and with the one reading that has a headline."""
    some = [p for p in ck.probes.REGISTERED if p.name not in PICTURES]
    readings: list[Reading] = []
    if probes is not None:
        some, readings = probes, [Informative()]
    door = Door(ck.adapters.as_adapter(model)[0], "scale", None, likelihood)
    return ck.run(door, as_samples(data, None), some, readings=readings, seed=seed)


LAM = np.array([30.0, 3.0, 0.5, 0.0])


def linear() -> tuple[Case, Truth]:
    """The linear VAE with its exact posterior: every headline."""
    lam, v = LAM, 1 / (1 + LAM)
    evidence = -0.5 * np.log(2 * math.pi * math.e * 0.25 * (1 + lam)).sum()
    truth = {
        "rate": 0.5 * np.log1p(lam).sum(),
        "mutual_information": 0.5 * np.log1p(lam).sum(),
        "active_units": 3.0,
        "active_fraction": 0.75,
        "passive_dimensions": 1.0,
        "used_dimensions": 3.0,
        "informative_fraction": 0.75,
        "redundant_dimensions": 0.0,
        "locally_collapsed_fraction": OWN,
        "reidentification": OWN,
        "collision_fraction": OWN,
        "effective_rank": (lam * v).sum() ** 2 / ((lam * v) ** 2).sum(),
        "dimensionwise_kl": 0.0,
        "reconstruction_error": 2 * math.log(2 * math.pi * 0.25) + 2,
        "swap_gap": lam.sum(),
        # z ~ q averages to the prior; E(D(z)) = (1 - v) z
        "round_trip_r2": (1 - v**2).mean(),
        "round_trip_r2_prior": (1 - v**2).mean(),
        "lr_residual": (v**2).sum(),
        "reverse_rate": 0.5 * ((1 + lam * v) / v - 1 + np.log(v)).sum(),
        # the posterior is exact: the bound is the evidence, whatever the draws
        "elbo": evidence,
        "log_likelihood_bound": evidence,
        "inference_gap": 0.0,
        "unreliable_weights_fraction": 0.0,
        "model_information": 0.5 * ((1 + lam * v) / v - 1 + np.log(v)).sum(),
        "saturated_fraction": OWN,
        "linear_dimensions": 3.0,  # the fourth stands at the decoder's variance, not above
        "encoder_rank": 3.0,
        "tangent_rank": 4.0,
        "rank_drop_fraction": 0.0,
        "lower_lipschitz": OWN,
        "lower_lipschitz_low": OWN,
        "folded_fraction": OWN,
        "decoder_rank": 3.0,
        "decoder_full_rank_fraction": 0.0,
        "decoder_reciprocal_condition": 0.0,
        "fold_fraction": 0.0,
        "fold_fraction_prior": 0.0,
        "robust_round_trip_r2": GIVEN,
    }
    return linear_audit, truth


def linear_audit(n: int, seed: int) -> tuple[Audit, Truth]:
    model = models.LinearVAE(tuple(LAM))
    x = model.sample(n, 10_000 + seed)
    probes = [p for p in ck.probes.REGISTERED if p.name not in PICTURES[:-1]]
    audit = audited(model, x, seed, likelihood=("gaussian", 0.5), probes=probes)
    return audit, {"robust_round_trip_r2": noisy_round_trip(LAM, x.numpy())}


def noisy_round_trip(lam: Array, x: Array) -> float:
    """Of the linear VAE, with noise of a tenth of the range of `x`; rounding is far below that.

    z comes back as (1 - v) z + a noise, a = sqrt(lam) v / s.
    """
    v = 1 / (1 + lam)
    noise = 0.1 * np.subtract(*np.quantile(x[:1000], [0.995, 0.005], axis=0))
    return float((1 - v**2 - lam * (v * noise / 0.5) ** 2).clip(0).mean())


def posteriors(make: Callable[[int, int], models.Arrays], truth: Truth) -> tuple[Case, Truth]:
    def run(n: int, seed: int) -> tuple[Audit, Truth]:
        mean, scale = make(n, 10_000 + seed)
        both = {"mean": torch.from_numpy(mean), "scale": torch.from_numpy(scale)}
        return audited(lambda x: (x["mean"], x["scale"]), both, seed), {}

    return run, truth


def local(n: int, seed: int) -> models.Arrays:
    """P5 with its parts drawn, not dealt: 90 % at the prior, 5 % at +3, 5 % at -3."""
    part = np.random.default_rng(seed).choice(3, size=n, p=[0.9, 0.05, 0.05])
    return np.choose(part, [0.0, 3.0, -3.0])[:, None], np.where(part == 0, 1.0, 0.1)[:, None]


def widths(n: int, seed: int) -> models.Arrays:
    """P4 with its halves drawn."""
    wide = np.random.default_rng(seed).random(n) < 0.5
    return np.zeros((n, 1)), np.where(wide, 1.0, 0.1)[:, None]


def digits() -> tuple[Case, Truth]:
    """A real model on real images, resampled with replacement: the 1,437 are the population."""
    from collapsekit.demo import Setting, train
    from collapsekit.demo import digits as load

    images, *_ = load()
    vae = train(images, repaired=False)
    beta = Setting().beta
    x = torch.from_numpy(images)
    with torch.no_grad():
        mean, scale = (a.double() for a in vae.encode(x))
        population = _population(vae, x, mean, scale, beta)
    kl = ck.probes.kl(mean.numpy(), scale.numpy())
    variance = mean.numpy().var(axis=0)
    covariance = np.cov(mean.numpy().T, bias=True)
    truth = {
        "rate": kl.sum(axis=1).mean(),
        "locally_collapsed_fraction": (kl.sum(axis=1) < 3.0).mean(),
        "active_units": float((variance > 0.01).sum()),
        "effective_rank": np.trace(covariance) ** 2 / (covariance**2).sum(),
        "mutual_information": _information(mean, scale),
        "dimensionwise_kl": OWN,
        "active_fraction": float((variance > 0.01).mean()),
        "elbo": -population["reconstruction_error"] - kl.sum(axis=1).mean(),
        # defined by their draws, or by how many samples there are
        "reidentification": OWN,
        "total_correlation": OWN,
        "log_likelihood_bound": OWN,
        "inference_gap": OWN,
        "unreliable_weights_fraction": OWN,
        "model_information": OWN,
        "saturated_fraction": OWN,
    }
    truth |= population
    wanted = ("kl", "active_units", "effective_rank", "mutual_information", "information_budget")
    wanted += ("reconstruction", "swap_gap", "round_trip", "inference_gap", "model_information")

    def run(n: int, seed: int) -> tuple[Audit, Truth]:
        pick = np.random.default_rng(10_000 + seed).integers(0, len(mean), n)
        probes: list[Probe] = [ck.probes.LocalCollapse(bar=3.0)]
        probes += [p for p in ck.probes.REGISTERED if p.name in wanted]
        likelihood = ("gaussian", math.sqrt(beta))
        return audited(vae, images[pick], seed, likelihood=likelihood, probes=probes), {}

    return run, truth


def _population(
    vae: Any, x: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor, beta: float
) -> Truth:
    """Over 200 draws of every image: errors from the own code and another's, and round trips.

    More than 0.5 % of the pixels are black and more than 0.5 % white: the range is 0 to 1.
    """
    generator = torch.Generator().manual_seed(7)
    constant = 0.5 * x[0].numel() * math.log(2 * math.pi * beta)
    errors = torch.zeros(2, dtype=torch.float64)
    codes = torch.zeros(2, mean.shape[1], dtype=torch.float64)  # means of z and of its square
    back = torch.zeros(3, mean.shape[1], dtype=torch.float64)  # clean, rounded, noisy
    for _ in range(200):
        other = torch.randint(len(x), (len(x),), generator=generator)
        noise = torch.randn(mean.shape, generator=generator, dtype=torch.float64)
        z, z_other = mean + scale * noise, mean[other] + scale[other] * noise
        x_hat = vae.decode(z.float())
        for at, output in enumerate((x_hat, vae.decode(z_other.float()))):
            error = (output - x).double().square().flatten(1).sum(dim=1)
            errors[at] += error.mean() / (2 * beta) + constant
        codes += torch.stack([z.mean(dim=0), z.square().mean(dim=0)])
        noisy = x_hat + 0.1 * torch.randn(x_hat.shape, generator=generator)
        for at, output in enumerate((x_hat, torch.round(x_hat * 255) / 255, noisy)):
            back[at] += (vae.encode(output)[0].double() - z).square().mean(dim=0)
    errors, codes, back = errors / 200, codes / 200, back / 200
    r2 = 1 - back / (codes[1] - codes[0].square())
    return {
        "reconstruction_error": float(errors[0]),
        "swap_gap": float(errors[1] - errors[0]),
        "lr_residual": float(back[0].sum()),
        "round_trip_r2": float(r2[0].clamp(min=0).mean()),
        "robust_round_trip_r2": float(r2[1:].amin(dim=0).clamp(min=0).mean()),
    }


def _information(mean: torch.Tensor, scale: torch.Tensor) -> float:
    """Mean of ln q_i(z) - ln mean_j q_j(z) over the whole population, 40 draws of every sample."""
    generator = torch.Generator().manual_seed(8)
    found = []
    for _ in range(40):
        noise = torch.randn(mean.shape, generator=generator, dtype=torch.float64)
        z = mean + scale * noise
        for rows in torch.arange(len(z)).split(100):
            at = (z[rows, None] - mean) / scale
            log = -0.5 * at.square().sum(dim=2) - scale.log().sum(dim=1)
            own = -0.5 * noise[rows].square().sum(dim=1) - scale[rows].log().sum(dim=1)
            found.append(own - log.logsumexp(dim=1) + math.log(len(z)))
    return float(torch.cat(found).mean())


KL5 = {"rate": 0.630758509, "mutual_information": 0.376445615, "dimensionwise_kl": 0.254312894}
P7 = {
    "rate": 2.302585093,
    "mutual_information": 1.517236051,
    "total_correlation": 0.785349042,
    "dimensionwise_kl": 0.0,
}
CASES: dict[str, Callable[[], tuple[Case, Truth]]] = {
    "linear": linear,
    "local": partial(posteriors, local, {**KL5, "locally_collapsed_fraction": 0.9}),
    "widths": partial(posteriors, widths, {"rate": 0.903792546, "mutual_information": 0.433310719}),
    "correlated": partial(posteriors, models.p7, P7),
    "digits": digits,
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
    name: str, replications: int, samples: int, save: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """One case's record: for each headline the truth, coverage and misses on either side.

    `save` is handed the record of what is done so far, every fifty replications.
    """
    begin = time.process_time()
    run, truth = CASES[name]()
    found: dict[str, list[Number]] = {key: [] for key in truth}
    given: dict[str, list[float]] = {key: [] for key, value in truth.items() if value == GIVEN}

    def record(done: int) -> dict[str, Any]:
        return {
            "case": name,
            "replications": done,
            "samples": samples,
            "cpu": time.process_time() - begin,
            "headlines": {
                key: judged(found[key], given.get(key, value)) for key, value in truth.items()
            },
        }

    for seed in range(replications):
        audit, own = run(samples, seed)
        for key in truth:
            found[key].append(audit.number(key))
        for key, values in given.items():
            values.append(own[key])
        if save is not None and seed % 50 == 49:
            save(record(seed + 1))
    return record(replications)


def judged(numbers: list[Number], truth: float | list[float]) -> dict[str, Any]:
    """How often the intervals hold the truth, or their values' mean where there is none.

    A list holds each replication's own truth; told is then their mean.
    """
    given = isinstance(truth, list)
    own = not given and math.isnan(truth)
    each = (
        truth if given else [np.mean([n.value for n in numbers]) if own else truth] * len(numbers)
    )
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
        "one-sided": float(np.mean([math.isnan(n.low) != math.isnan(n.high) for n in numbers])),
    }


def table(records: list[Mapping[str, Any]]) -> str:
    """The records as Markdown."""
    lines = [
        "| case, replications | headline | truth | coverage % | 95 % limits | misses | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for record in records:
        for key, row in record["headlines"].items():
            why = WIDE.get(key, "not explained") if row["coverage"] > CEILING else ""
            if row["coverage"] < FLOOR:
                why = f"**below 92.7** {NARROW.get(key, '')}".strip()
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

    def save(record: dict[str, Any]) -> None:
        if arguments.out is not None:
            arguments.out.mkdir(parents=True, exist_ok=True)
            file = arguments.out / f"{record['case']}.json"
            file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    for name in arguments.cases or CASES:
        record = replicate(name, replications, arguments.samples, save)
        save(record)
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
