"""Coverage of the 95 % intervals: how often they hold the truth, over replications.

    python benchmarks/coverage.py [--quick] [--replications N] [--samples N]

Every case has its truth in closed form, or in a population from which samples are drawn: the linear
VAE with its exact posterior (headlines of encoder and decoder), a code by widths, a locally
collapsed one, a correlated one, and real posteriors resampled (the vanilla digits VAE). Printed for
each headline: coverage with its own Wilson interval, and the share of misses on either side.
Brackets and counts are conservative by construction; what lies above 97.5 % is marked with why.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

import collapsekit as ck
from collapsekit.intervals import wilson
from collapsekit.number import Number
from collapsekit.results import Audit
from tests import models

Truth = dict[str, float]
Case = Callable[[int, int], Audit]

WIDE = {
    "mutual_information": "a bracket, widened on both sides",
    "total_correlation": "a bracket",
    "active_units": "a count",
    "active_fraction": "a count",
    "passive_dimensions": "a count, Wilson in every dimension",
    "used_dimensions": "a count",
    "informative_fraction": "a count",
    "locally_collapsed_fraction": "discrete",
    "collision_fraction": "discrete",
}


def linear() -> tuple[Case, Truth]:
    lam = np.array([30.0, 3.0, 0.5, 0.0])
    model = models.LinearVAE(tuple(lam))
    v = 1 / (1 + lam)
    truth = {
        "rate": 0.5 * np.log1p(lam).sum(),
        "mutual_information": 0.5 * np.log1p(lam).sum(),
        "active_units": 3.0,
        "effective_rank": (lam * v).sum() ** 2 / ((lam * v) ** 2).sum(),
        "dimensionwise_kl": 0.0,
        "reconstruction_error": 2 * math.log(2 * math.pi * 0.25) + 2,
        "swap_gap": lam.sum(),
        # z ~ q averages to the prior; E(D(z)) = (1 - v) z
        "round_trip_r2": (1 - v**2).mean(),
        "round_trip_r2_prior": (1 - v**2).mean(),
        "lr_residual": (v**2).sum(),
        "reverse_rate": 0.5 * ((1 + lam * v) / v - 1 + np.log(v)).sum(),
    }

    def run(n: int, seed: int) -> Audit:
        return ck.audit(
            model, model.sample(n, 10_000 + seed), likelihood=("gaussian", 0.5), seed=seed
        )

    return run, truth


def posteriors(make: Callable[[int, int], models.Arrays], truth: Truth) -> tuple[Case, Truth]:
    def run(n: int, seed: int) -> Audit:
        mean, scale = make(n, 10_000 + seed)
        both = {"mean": torch.from_numpy(mean), "scale": torch.from_numpy(scale)}
        return ck.audit(lambda x: (x["mean"], x["scale"]), both, seed=seed)

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
    """Posteriors of a real model, resampled with replacement: the 1,437 are the population."""
    from collapsekit.demo import digits as load
    from collapsekit.demo import train

    images, *_ = load()
    vae = train(images, repaired=False)
    with torch.no_grad():
        mean, scale = (a.double().numpy() for a in vae.encode(torch.from_numpy(images)))
    kl = ck.probes.kl(mean, scale)
    variance = mean.var(axis=0)
    covariance = np.cov(mean.T, bias=True)
    truth = {
        "rate": kl.sum(axis=1).mean(),
        "locally_collapsed_fraction": (kl.sum(axis=1) < 3.0).mean(),
        "active_units": float((variance > 0.01).sum()),
        "effective_rank": np.trace(covariance) ** 2 / (covariance**2).sum(),
    }

    def run(n: int, seed: int) -> Audit:
        pick = np.random.default_rng(10_000 + seed).integers(0, len(mean), n)
        both = {"mean": torch.from_numpy(mean[pick]), "scale": torch.from_numpy(scale[pick])}
        probes = [
            ck.probes.KL(),
            ck.probes.LocalCollapse(bar=3.0),
            ck.probes.ActiveUnits(),
            ck.probes.EffectiveRank(),
        ]
        return ck.audit(lambda x: (x["mean"], x["scale"]), both, seed=seed, probes=probes)

    return run, truth


def cases() -> Iterator[tuple[str, Case, Truth]]:
    yield ("linear VAE", *linear())
    kl5 = {"rate": 0.630758509, "mutual_information": 0.376445615}
    yield (
        "local (P5)",
        *posteriors(
            local, {**kl5, "locally_collapsed_fraction": 0.9, "dimensionwise_kl": 0.254312894}
        ),
    )
    yield (
        "widths (P4)",
        *posteriors(widths, {"rate": 0.903792546, "mutual_information": 0.433310719}),
    )
    yield (
        "correlated (P7)",
        *posteriors(
            models.p7,
            {
                "rate": 2.302585093,
                "mutual_information": 1.517236051,
                "total_correlation": 0.785349042,
                "dimensionwise_kl": 0.0,
            },
        ),
    )
    yield ("digits VAE, resampled", *digits())


def covered(number: Number, truth: float) -> int:
    """0 inside, -1 interval below the truth, +1 above; rounding dust counts as inside."""
    dust = 1e-9 * max(abs(truth), 1.0)
    return 1 if number.low > truth + dust else -1 if number.high < truth - dust else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="40 replications")
    parser.add_argument("--replications", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=500)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    replications = 40 if arguments.quick else arguments.replications
    print(f"N = {arguments.samples}, {replications} replications a case; coverage in %")
    for name, run, truth in cases():
        begin = time.process_time()
        misses: dict[str, list[int]] = {key: [] for key in truth}
        for seed in range(replications):
            audit = run(arguments.samples, seed)
            for key, value in truth.items():
                misses[key].append(covered(audit.number(key), value))
        print(f"\n{name} ({time.process_time() - begin:.0f} s CPU)")
        for key, found in misses.items():
            sides = np.array(found)
            hit = int((sides == 0).sum())
            low, high = wilson(hit, len(sides))
            why = WIDE.get(key, "") if hit / len(sides) > 0.975 else ""
            flag = "  BELOW 92.7" if hit / len(sides) < 0.927 else ""
            print(
                f"  {key:28s} {100 * hit / len(sides):5.1f}  [{100 * low:.1f}, {100 * high:.1f}]  "
                f"low {100 * (sides < 0).mean():.1f} high {100 * (sides > 0).mean():.1f}  "
                f"{why}{flag}"
            )


if __name__ == "__main__":
    main()
