"""Posteriors on the sphere, and a hierarchy of two groups: by quadrature and closed forms."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import ncx2
from torch import Tensor

import collapsekit as ck
from benchmarks.coverage_parts.audits import GIVEN, OWN, Case, Truth
from benchmarks.coverage_parts.families import Model, drawn, tenth_of_range
from collapsekit.results import Audit
from collapsekit.streaming import Array
from tests.families import VonMisesFisher
from tests.test_groups import Ladder


def sphere() -> Case:
    """z uniform on the unit sphere in R^3, x = w z + N(0, s^2 I), with its exact posterior.

    |z| = 1, so p(z | x) is proportional to exp(w x'z / s^2): von Mises-Fisher about x / |x| with
    kappa = w |x| / s^2, and |x / s|^2 is noncentral chi-squared. The aggregate is the prior.
    """
    w, s = 1.0, 0.4

    def encode(x: Tensor) -> VonMisesFisher:
        length = x.norm(dim=1, keepdim=True)
        return VonMisesFisher(x / length, w * length / s**2)

    def make(rng: np.random.Generator, n: int) -> Array:
        z = rng.normal(size=(n, 3))
        found: Array = w * z / np.linalg.norm(z, axis=1, keepdims=True) + s * rng.normal(
            size=z.shape
        )
        return found

    law = ncx2(3, (w / s) ** 2)
    grid = (np.arange(200_000) + 0.5) / 200_000
    kappa = w * np.sqrt(law.ppf(grid)) / s  # at the middle of every quantile
    log_sinh = kappa + np.log1p(-np.exp(-2 * kappa)) - math.log(2)
    kl = kappa / np.tanh(kappa) - 1 + np.log(kappa) - log_sinh
    evidence = -1.5 * math.log(2 * math.pi * s**2) + float(
        (log_sinh - np.log(kappa) - 0.5 * (kappa * s / w) ** 2).mean() - 0.5 * (w / s) ** 2
    )
    lost = 1 - float(resultant(np.array((w / s) ** 2)))
    reverse = float((log_sinh - np.log(kappa)).mean())
    truth = {
        "rate": float(kl.mean()),
        "mutual_information": float(kl.mean()),
        "aggregate_mismatch": 0.0,
        "reidentification": OWN,
        "locally_collapsed_fraction": float((kl < 1).mean()),
        # means A(kappa) x / |x|, the same in every direction
        "active_units": 3.0,
        "active_fraction": 1.0,
        "effective_rank": 3.0,
        "redundant_dimensions": 0.0,
        "reconstruction_error": 1.5 * math.log(2 * math.pi * s**2) + 1.5,
        "elbo": evidence,
        "log_likelihood_bound": evidence,
        "inference_gap": 0.0,
        "unreliable_weights_fraction": 0.0,
        "model_information": reverse,
        "reverse_rate": reverse,
        "saturated_fraction": OWN,
        "swap_gap": (w / s) ** 2,
        "linear_dimensions": 3.0,  # 1 / 3 + s^2 each, above s^2
        "decoder_variance": s**2,
        "round_trip_r2": 1 - lost**2,  # E(D(z)) = A(w^2 / s^2) z, and z is uniform
        "round_trip_r2_prior": 1 - lost**2,
        "lr_residual": lost**2,
        "robust_round_trip_r2": GIVEN,
        "encoder_rank": OWN,
        "tangent_rank": OWN,
        "rank_drop_fraction": OWN,
        "lower_lipschitz": OWN,
        "lower_lipschitz_low": OWN,
        "folded_fraction": OWN,
    }
    model = Model(encode, lambda z: w * z.double())
    rng = np.random.default_rng(6)
    points = rng.normal(size=(100_000, 3))
    points, normal = (
        points / np.linalg.norm(points, axis=1, keepdims=True),
        rng.normal(size=points.shape),
    )

    def run(n: int, seed: int) -> tuple[Audit, Truth]:
        audit, x = drawn(model, make, s, n, seed)
        disturbed = w * points + normal * tenth_of_range(x)
        length = np.linalg.norm(disturbed, axis=1, keepdims=True)
        back = resultant(w * length / s**2) * disturbed / length
        r2 = 1 - 3 * ((back - points) ** 2).mean(axis=0)
        return audit, {"robust_round_trip_r2": float(r2.clip(0).mean())}

    return Case(run, truth)


def resultant(kappa: Array) -> Array:
    """A(kappa) on the unit sphere in R^3: how far a mean lies from the centre."""
    found: Array = 1 / np.tanh(kappa) - 1 / kappa
    return found


#: What the case of two groups judges: measures of codes, and the bounds of the whole.
JUDGED = (
    "kl",
    "local_collapse",
    "dimension_state",
    "active_units",
    "effective_rank",
    "mutual_information",
    "reconstruction",
)


def groups() -> Case:
    """Two groups of two dimensions, z1 above z2 above x, all Gaussian, with exact posteriors."""
    model = Ladder()
    above, below = (v.numpy() for v in (model.first, 1 / (model.t**2 * model.precision)))
    first, second = -0.5 * np.log(above).sum(), -0.5 * np.log(below).sum()
    spread = (model.a**2 + model.t**2).numpy()
    error = 2 * 0.5 * math.log(2 * math.pi * math.e * model.s**2)
    evidence = -0.5 * np.log(2 * math.pi * math.e * (model.b.numpy() ** 2 * spread + model.s**2))
    truth = {"rate": first + second, "elbo": evidence.sum()}
    for group, rate, left in (("z1", first, above), ("z2", second, below)):
        own = {
            "rate": rate,
            "mutual_information": rate,
            "reidentification": OWN,
            "locally_collapsed_fraction": OWN,
            "passive_dimensions": 0.0,
            "active_units": 2.0,
            "active_fraction": 1.0,
            "effective_rank": (1 - left).sum() ** 2 / ((1 - left) ** 2).sum(),
            "redundant_dimensions": 0.0,
        }
        truth |= {f"{group}/{key}": float(value) for key, value in own.items()}
    # about the input and the drawn group above
    truth["z2/mutual_information"] = 0.5 * float(np.log(spread * model.precision.numpy()).sum())
    # the group below is drawn for each code of z1, as the decoder draws it
    truth |= {"z1/reconstruction_error": error, "z2/reconstruction_error": error}
    truth |= {"z2/elbo": -(error + second)}

    def run(n: int, seed: int) -> tuple[Audit, Truth]:
        probes = [p for p in ck.probes.REGISTERED if p.name in JUDGED]
        return ck.audit(model, model.sample(n, 10_000 + seed), probes=probes, seed=seed), {}

    return Case(run, truth)
