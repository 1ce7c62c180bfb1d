"""The linear VAE with its exact posterior, and codes that are given as posteriors alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.coverage_parts.audits import GIVEN, OWN, Case, Truth, all_probes, audited
from collapsekit.results import Audit
from collapsekit.streaming import Array
from tests import models

LAM = np.array([30.0, 3.0, 0.5, 0.0])


def linear() -> Case:
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
        "decoder_variance": 0.25,
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
        "total_correlation": 0.0,
        "told_by_mean_fraction": OWN,
        # D(m) = lam v x: the covariance of x and D(m) over the variance of D(m)
        "reconstruction_slope": lam.sum() / (lam**2 * v).sum(),
    }
    return Case(linear_audit, truth)


def linear_audit(n: int, seed: int) -> tuple[Audit, Truth]:
    model = models.LinearVAE(tuple(LAM))
    x = model.sample(n, 10_000 + seed)
    audit = audited(model, x, seed, likelihood=("gaussian", 0.5), probes=all_probes())
    return audit, {"robust_round_trip_r2": noisy_round_trip(LAM, x.numpy())}


def copied() -> Case:
    """The same model on samples that are there 1, 2, ... times, 2 on average."""
    model = models.LinearVAE(tuple(LAM))

    def run(n: int, seed: int) -> tuple[Audit, Truth]:
        times = 1 + np.random.default_rng(20_000 + seed).poisson(1.0, size=n)
        x = model.sample(n, 10_000 + seed).repeat_interleave(torch.from_numpy(times), dim=0)[:n]
        audit = audited(model, x, seed, likelihood=("gaussian", 0.5), probes=all_probes())
        return audit, {"robust_round_trip_r2": noisy_round_trip(LAM, x.numpy())}

    # Copies take the places of neighbours: fewer directions are seen.
    return Case(run, linear().truth | {"encoder_rank": OWN, "tangent_rank": OWN})


def noisy_round_trip(lam: Array, x: Array) -> float:
    """Of the linear VAE, with noise of a tenth of the range of `x`; rounding is far below that.

    z comes back as (1 - v) z + a noise, a = sqrt(lam) v / s.
    """
    v = 1 / (1 + lam)
    noise = 0.1 * np.subtract(*np.quantile(x[:1000], [0.995, 0.005], axis=0))
    return float((1 - v**2 - lam * (v * noise / 0.5) ** 2).clip(0).mean())


def posteriors(make: Callable[[int, int], models.Arrays], truth: Truth) -> Case:
    def run(n: int, seed: int) -> tuple[Audit, Truth]:
        mean, scale = make(n, 10_000 + seed)
        both = {"mean": torch.from_numpy(mean), "scale": torch.from_numpy(scale)}
        return audited(lambda x: (x["mean"], x["scale"]), both, seed), {}

    return Case(run, truth)


def local(n: int, seed: int) -> models.Arrays:
    """P5 with its parts drawn, not dealt: 90 % at the prior, 5 % at +3, 5 % at -3."""
    part = np.random.default_rng(seed).choice(3, size=n, p=[0.9, 0.05, 0.05])
    return np.choose(part, [0.0, 3.0, -3.0])[:, None], np.where(part == 0, 1.0, 0.1)[:, None]


def widths(n: int, seed: int) -> models.Arrays:
    """P4 with its halves drawn."""
    wide = np.random.default_rng(seed).random(n) < 0.5
    return np.zeros((n, 1)), np.where(wide, 1.0, 0.1)[:, None]


ONE_DIMENSION = {"passive_dimensions": 0.0, "total_correlation": 0.0, "redundant_dimensions": 0.0}


def local_code() -> Case:
    truth = {"rate": 0.630758509, "mutual_information": 0.376445615, "reidentification": OWN}
    truth |= {"dimensionwise_kl": 0.254312894, "locally_collapsed_fraction": 0.9}
    truth |= {"active_units": 1.0, "active_fraction": 1.0, "effective_rank": 1.0}
    return posteriors(local, truth | ONE_DIMENSION)


def widths_code() -> Case:
    truth = {"rate": 0.903792546, "mutual_information": 0.433310719, "reidentification": OWN}
    truth |= {"dimensionwise_kl": 0.903792546 - 0.433310719, "locally_collapsed_fraction": 0.5}
    truth |= {"active_units": 0.0, "active_fraction": 0.0, "effective_rank": 0.0}
    return posteriors(widths, truth | ONE_DIMENSION)


def correlated_code() -> Case:
    truth = {"rate": 2.302585093, "mutual_information": 1.517236051, "reidentification": OWN}
    truth |= {"total_correlation": 0.785349042, "dimensionwise_kl": 0.0}
    # a KL is ln 10 - 0.9 at least; correlation 0.89 / 0.9, eigenvalues 1.79 and 0.01
    truth |= {"locally_collapsed_fraction": 0.0, "passive_dimensions": 0.0}
    truth |= {"active_units": 2.0, "active_fraction": 1.0, "redundant_dimensions": 1.0}
    truth |= {"effective_rank": 1.8**2 / (1.79**2 + 0.01**2)}
    return posteriors(models.p7, truth)
