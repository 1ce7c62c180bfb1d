"""Cases beyond the diagonal Gaussian under N(0, I): their truth by closed forms, by sums over all
codes, or by quadrature."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor
from torch import distributions as D

from benchmarks.coverage_parts.audits import GIVEN, OWN, Case, Truth, all_probes, audited
from collapsekit.results import Audit
from collapsekit.streaming import Array


class Model:
    """A posterior and a decoder, each a function, and a prior."""

    def __init__(self, encode: Any, decode: Any, prior: Any = None) -> None:
        self.encode, self.decode, self.prior = encode, decode, prior


def drawn(model: Model, make: Any, scale: float, n: int, seed: int) -> tuple[Audit, Array]:
    """One audit, with every probe that applies, of `n` samples that `make` draws; and these."""
    x = make(np.random.default_rng(10_000 + seed), n)
    likelihood = ("gaussian", scale)
    data = torch.from_numpy(x)
    return audited(model, data, seed, likelihood=likelihood, probes=all_probes()), x


def tenth_of_range(x: Array) -> Array:
    """The noise of the robust round trip in each feature, as these samples set it."""
    low, high = np.quantile(x[:1000], [0.005, 0.995], axis=0)
    return np.asarray(0.1 * (high - low))


def case(model: Model, make: Any, scale: float, truth: Truth, robust: Any = None) -> Case:
    """A case of drawn samples; `robust` is the robust round trip under noise of given scales."""

    def run(n: int, seed: int) -> tuple[Audit, Truth]:
        audit, x = drawn(model, make, scale, n, seed)
        given = {} if robust is None else {"robust_round_trip_r2": robust(tenth_of_range(x))}
        return audit, given

    return Case(run, truth if robust is None else {**truth, "robust_round_trip_r2": GIVEN})


LOADINGS = np.array([[0.9, 0.5, 0.0], [0.4, 0.8, 0.3], [-0.5, 0.6, 0.4], [0.2, -0.3, 0.5]])


def full_covariance() -> Case:
    """x = W z + N(0, s^2 I), W not orthogonal, with its exact posterior N(S W'x / s^2, S)."""
    s, w = 0.6, LOADINGS
    precision = np.eye(3) + w.T @ w / s**2
    inverse = np.linalg.inv(precision)
    factor = torch.from_numpy(np.linalg.cholesky(inverse))
    read = torch.from_numpy(w @ inverse / s**2)
    loadings = torch.from_numpy(w)

    def encode(x: Tensor) -> D.Distribution:
        return D.MultivariateNormal(x @ read, scale_tril=factor.expand(len(x), 3, 3))

    def make(rng: np.random.Generator, n: int) -> Array:
        found: Array = rng.normal(size=(n, 3)) @ w.T + s * rng.normal(size=(n, 4))
        return found

    means = np.eye(3) - inverse  # their covariance: the aggregate is the prior
    log_det = np.linalg.slogdet(precision)[1]
    evidence = -0.5 * np.linalg.slogdet(2 * math.pi * math.e * (w @ w.T + s**2 * np.eye(4)))[1]
    reverse = 0.5 * (2 * np.trace(precision) - 6 - log_det)
    r2 = 1 - np.diag(inverse @ inverse)  # E(D(z)) = (1 - S) z
    truth = {
        "rate": 0.5 * log_det,
        "mutual_information": 0.5 * log_det,
        "aggregate_mismatch": 0.0,
        "passive_dimensions": 0.0,
        "passive_directions": 0.0,
        "unread_directions": 0.0,
        "reidentification": OWN,
        "locally_collapsed_fraction": OWN,
        "active_units": 3.0,
        "active_fraction": 1.0,
        "effective_rank": np.trace(means) ** 2 / (means**2).sum(),
        "redundant_dimensions": 0.0,
        "reconstruction_error": 2 * math.log(2 * math.pi * s**2) + 2,
        "elbo": evidence,
        "log_likelihood_bound": evidence,
        "inference_gap": 0.0,
        "unreliable_weights_fraction": 0.0,
        "model_information": reverse,
        "reverse_rate": reverse,
        "saturated_fraction": OWN,
        "swap_gap": (w**2).sum() / s**2,
        "used_dimensions": 3.0,
        "linear_dimensions": 3.0,  # the fourth stands at the decoder's variance, not above
        "decoder_variance": s**2,
        "round_trip_r2": r2.mean(),
        "round_trip_r2_prior": r2.mean(),
        "lr_residual": (inverse**2).sum(),
        "decoder_rank": 3.0,
        "decoder_full_rank_fraction": 1.0,
        "decoder_reciprocal_condition": float(
            np.linalg.svd(w)[1].min() / np.linalg.svd(w)[1].max()
        ),
        "fold_fraction": 0.0,
        "fold_fraction_prior": 0.0,
        "encoder_rank": OWN,
        "tangent_rank": OWN,
        "lower_lipschitz": OWN,
        "lower_lipschitz_low": OWN,
        "folded_fraction": OWN,
        "rank_drop_fraction": OWN,
        "told_by_mean_fraction": OWN,
        "reconstruction_slope": (w**2).sum() / np.trace(w @ means @ w.T),
    }
    recode = inverse @ w.T / s**2  # what the noise in x does to the code

    def robust(noise: Array) -> float:
        left = np.diag(inverse @ inverse) + recode**2 @ noise**2
        return float((1 - left).clip(0).mean())

    return case(Model(encode, lambda z: z.double() @ loadings.T), make, s, truth, robust)


KINDS = np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])  # shares of six different inputs


def categorical() -> Case:
    """Two one-hot variables of three classes, uniform prior; every expectation is a sum over the
    six inputs and the nine codes."""
    rng, s = np.random.default_rng(3), 0.8
    inputs, words = rng.normal(size=(6, 3)), rng.normal(size=(2, 3, 3))
    logits = 1.5 * rng.normal(size=(6, 2, 3))
    logits[0] *= 0.1  # the most frequent input says hardly anything
    each = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    q = (each[:, 0, :, None] * each[:, 1, None, :]).reshape(6, 9)
    outputs = (words[0][:, None] + words[1][None]).reshape(9, 3)
    apart = ((inputs[:, None] - outputs) ** 2).sum(axis=2)
    log_p = -apart / (2 * s**2) - 1.5 * math.log(2 * math.pi * s**2)  # ln p(x | z): [6, 9]
    kl = (q * np.log(9 * q)).sum(axis=1)
    apiece = (each * np.log(3 * each)).sum(axis=2)
    evidence = np.log(np.exp(log_p).mean(axis=1))
    known, table, spoken = (torch.from_numpy(a) for a in (inputs, logits, words))

    def encode(x: Tensor) -> D.Distribution:
        kind = torch.cdist(x, known).argmin(dim=1)
        return D.Independent(D.OneHotCategorical(logits=table[kind]), 1)

    def decode(z: Tensor) -> Tensor:
        return torch.einsum("bvk,vko->bo", z.double().reshape(len(z), 2, 3), spoken)

    def make(rng: np.random.Generator, n: int) -> Array:
        return inputs[rng.choice(6, size=n, p=KINDS)]

    mixed = KINDS @ q
    own = -(q * log_p).sum(axis=1)
    of_variable = np.einsum("i,ivk->vk", KINDS, each)
    information = KINDS @ (q * np.log(q / mixed)).sum(axis=1)
    mismatch = (of_variable * np.log(3 * of_variable)).sum()
    spread = np.linalg.eigvalsh(np.cov(inputs.T, aweights=KINDS, bias=True))
    truth = {
        "rate": KINDS @ kl,
        "mutual_information": information,
        "dimensionwise_kl": mismatch,
        "total_correlation": KINDS @ kl - information - mismatch,
        "linear_dimensions": float((spread > s**2).sum()),
        "decoder_variance": s**2,
        "reidentification": OWN,
        "locally_collapsed_fraction": KINDS @ (kl < 0.2 * math.log(3)),
        "passive_dimensions": float((KINDS @ (apiece < 0.01) >= 0.95).sum()),
        "reconstruction_error": KINDS @ own,
        "elbo": -KINDS @ (own + kl),
        "log_likelihood_bound": KINDS @ evidence,
        "inference_gap": KINDS @ (evidence + own + kl),
        "unreliable_weights_fraction": OWN,
        "model_information": KINDS @ (evidence - log_p.mean(axis=1)),
        "reverse_rate": KINDS @ (-np.log(9 * q)).mean(axis=1),
        "saturated_fraction": 0.0,
        "swap_gap": -KINDS @ log_p @ mixed - KINDS @ own,
        "used_dimensions": 2.0,
    }
    return case(Model(encode, decode), make, s, truth)


WEIGHTS, CENTRES, WIDTHS = np.array([0.4, 0.6]), np.array([-1.5, 1.0]), np.array([0.6, 0.8])


def mixture_prior() -> Case:
    """One dimension under a prior of two Gaussians, x = z + N(0, s^2), q = N(0.8 x, 0.5^2): by
    quadrature on grids."""
    s, gain, width = 0.7, 0.8, 0.5
    components = D.Independent(
        D.Normal(*torch.from_numpy(np.stack([CENTRES, WIDTHS]))[:, :, None]), 1
    )
    prior = D.MixtureSameFamily(D.Categorical(torch.from_numpy(WEIGHTS)), components)

    def density(z: Array, blur: float = 0.0, factor: float = 1.0) -> Array:
        """Of factor * (a prior draw + blur) at z."""
        spread = factor * np.sqrt(WIDTHS**2 + blur**2)
        return np.asarray(norm.pdf(z[..., None], factor * CENTRES, spread) @ WEIGHTS)

    def make(rng: np.random.Generator, n: int) -> Array:
        part = rng.choice(2, size=n, p=WEIGHTS)
        z = CENTRES[part] + WIDTHS[part] * rng.normal(size=n)
        return (z + s * rng.normal(size=n))[:, None]

    grid = np.linspace(-9, 9, 3001)
    step = grid[1] - grid[0]
    of_x, of_z = density(grid, s) * step, density(grid) * step
    nodes, node_weights = np.polynomial.hermite_e.hermegauss(80)
    node_weights = node_weights / node_weights.sum()
    cross = -np.log(density(gain * grid[:, None] + width * nodes)) @ node_weights  # -E_q ln p
    entropy = 0.5 * math.log(2 * math.pi * math.e * width**2)
    first, second = of_x @ grid, of_x @ grid**2
    of_prior = of_z @ grid, of_z @ grid**2
    codes = density(grid, math.hypot(s, width / gain), gain) * step
    code = gain * first, gain**2 * second + width**2  # E z, E z^2 under the aggregate
    constant = 0.5 * math.log(2 * math.pi * s**2)
    rate = of_x @ cross - entropy
    information = -codes @ np.log(codes / step) - entropy
    own = constant + ((1 - gain) ** 2 * second + width**2) / (2 * s**2)
    other = constant + (second + code[1] - 2 * first * code[0]) / (2 * s**2)
    of_pairs = constant + (second + of_prior[1] - 2 * first * of_prior[0]) / (2 * s**2)
    evidence = of_x @ np.log(density(grid, s))
    shrunk = (1 - gain) ** 2  # E(D(z)) = 0.8 z
    truth = {
        "rate": rate,
        "mutual_information": information,
        "aggregate_mismatch": rate - information,
        "reidentification": OWN,
        "locally_collapsed_fraction": OWN,
        "active_units": 1.0,
        "active_fraction": 1.0,
        "effective_rank": 1.0,
        "reconstruction_error": own,
        "elbo": -own - rate,
        "log_likelihood_bound": evidence,
        "inference_gap": evidence + own + rate,
        "unreliable_weights_fraction": OWN,
        "model_information": evidence + of_pairs,
        "reverse_rate": of_z @ np.log(density(grid))
        + 0.5 * math.log(2 * math.pi * width**2)
        + (of_prior[1] - 2 * gain * first * of_prior[0] + gain**2 * second) / (2 * width**2),
        "saturated_fraction": OWN,
        "swap_gap": other - own,
        "used_dimensions": 1.0,
        "round_trip_r2": 1 - shrunk * code[1] / (code[1] - code[0] ** 2),
        "round_trip_r2_prior": 1 - shrunk * of_prior[1] / (of_prior[1] - of_prior[0] ** 2),
        "lr_residual": shrunk * code[1],
        "decoder_rank": 1.0,
        "decoder_full_rank_fraction": 1.0,
        "fold_fraction": 0.0,
        "fold_fraction_prior": 0.0,
        "passive_dimensions": 0.0,
        "redundant_dimensions": 0.0,
        "linear_dimensions": 1.0,
        "decoder_variance": s**2,
        "collision_fraction": OWN,
        "told_by_mean_fraction": OWN,
        # |E(x) - E(x')| / width is gain / width |x - x'| everywhere
        "lower_lipschitz": gain / width,
        "lower_lipschitz_low": gain / width,
        "folded_fraction": 0.0,
        "encoder_rank": 1.0,
        "tangent_rank": 1.0,
        "rank_drop_fraction": 0.0,
        "decoder_reciprocal_condition": 1.0,
        "reconstruction_slope": 1 / gain,
    }

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        return gain * x, torch.full_like(x, width)

    def robust(noise: Array) -> float:
        lost = shrunk * code[1] + (gain * float(noise[0])) ** 2
        return float(1 - lost / (code[1] - code[0] ** 2))

    return case(Model(encode, lambda z: z.double(), prior), make, s, truth, robust)
