"""The vanilla digits VAE on its own images, resampled: a real code, most of it idle."""

from __future__ import annotations

import math
from typing import Any
from unittest import mock

import numpy as np
import torch

import collapsekit as ck
from benchmarks.coverage_parts.audits import OWN, Case, Truth, all_probes, audited
from collapsekit.probe import Probe
from collapsekit.results import Audit


def digits() -> Case:
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
    active = variance > 0.01
    covariance = np.cov(mean.numpy().T, bias=True)
    correlation = np.corrcoef(mean.numpy().T[active])
    spread = np.linalg.eigvalsh(np.cov(x.flatten(1).numpy().T.astype(np.float64), bias=True))
    truth = {
        "rate": kl.sum(axis=1).mean(),
        "reverse_rate": float(
            (0.5 * ((1 + mean**2) / scale**2 - 1) + scale.log()).sum(dim=1).mean()
        ),
        "passive_dimensions": float(((kl < 0.01).mean(axis=0) >= 0.95).sum()),
        "locally_collapsed_fraction": (kl.sum(axis=1) < 3.0).mean(),
        "active_units": float(active.sum()),
        "active_fraction": float(active.mean()),
        "effective_rank": np.trace(covariance) ** 2 / (covariance**2).sum(),
        "redundant_dimensions": float((np.linalg.eigvalsh(correlation) < 0.05).sum()),
        "mutual_information": _information(mean, scale),
        "elbo": -population["reconstruction_error"] - kl.sum(axis=1).mean(),
        "linear_dimensions": float((spread > beta).sum()),
        "decoder_variance": beta,
        # defined by their draws, or by how many samples there are and how densely they lie
        "informative_fraction": OWN,
        "dimensionwise_kl": OWN,
        "reidentification": OWN,
        "total_correlation": OWN,
        "log_likelihood_bound": OWN,
        "inference_gap": OWN,
        "unreliable_weights_fraction": OWN,
        "model_information": OWN,
        "saturated_fraction": OWN,
        "collision_fraction": OWN,
        "lower_lipschitz": OWN,
        "lower_lipschitz_low": OWN,
        "folded_fraction": OWN,
        "encoder_rank": OWN,
        "tangent_rank": OWN,
        "rank_drop_fraction": OWN,
        "fold_fraction": OWN,
        "fold_fraction_prior": OWN,
        "told_by_mean_fraction": OWN,
    }
    truth |= population | _jacobian(vae, mean, scale)

    def run(n: int, seed: int) -> tuple[Audit, Truth]:
        pick = np.random.default_rng(10_000 + seed).integers(0, len(mean), n)
        probes: list[Probe] = [
            ck.probes.LocalCollapse(bar=3.0) if p.name == "local_collapse" else p
            for p in all_probes()
        ]
        likelihood = ("gaussian", math.sqrt(beta))
        # An image that comes twice was drawn twice from this population: no copy.
        with mock.patch("collapsekit.members.originals", return_value=None):
            return audited(vae, images[pick], seed, likelihood=likelihood, probes=probes), {}

    return Case(run, truth)


def _jacobian(vae: Any, mean: torch.Tensor, scale: torch.Tensor) -> Truth:
    """Medians over codes of the decoder's local ranks, by reverse mode; three draws a sample."""
    generator = torch.Generator().manual_seed(9)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda v: vae.decode(v[None]).flatten()))
    ranks, even = [], []
    for _ in range(3):
        z = mean + scale * torch.randn(mean.shape, generator=generator, dtype=torch.float64)
        slopes = jacobian(z.float()).detach()
        values = torch.linalg.svdvals(slopes.double())
        ranks.append((values >= 0.1 * values[:, :1]).sum(dim=1))
        even.append(values[:, -1] / values[:, 0])
    rank = torch.cat(ranks)
    return {
        "decoder_rank": float(rank.double().median()),
        "decoder_full_rank_fraction": float((rank == mean.shape[1]).double().mean()),
        "decoder_reciprocal_condition": float(torch.cat(even).median()),
    }


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
    from_prior = torch.zeros(2, mean.shape[1], dtype=torch.float64)  # residuals and codes, squared
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
        drawn = vae.encode(vae.decode(noise.float()))[0].double()
        from_prior += torch.stack([drawn - noise, noise]).square().mean(dim=1)
    errors, codes, back = errors / 200, codes / 200, back / 200
    z, other = torch.randn(2, 20_000, mean.shape[1], generator=generator)
    # Outputs at the means: twice their covariance with the images, over twice their variance.
    outputs = vae.decode(mean.float()).flatten(1).double()
    apart, images = (a - a.mean(dim=0) for a in (outputs, x.flatten(1).double()))
    usage = torch.zeros(mean.shape[1])
    for j in range(len(usage)):
        redrawn = z.clone()
        redrawn[:, j] = other[:, j]
        usage[j] = (vae.decode(redrawn) - vae.decode(z)).square().sum() / len(z)
    r2 = 1 - back / (codes[1] - codes[0].square())
    return {
        "reconstruction_error": float(errors[0]),
        "swap_gap": float(errors[1] - errors[0]),
        "reconstruction_slope": float((images * apart).sum() / apart.square().sum()),
        "lr_residual": float(back[0].sum()),
        "round_trip_r2": float(r2[0].clamp(min=0).mean()),
        "round_trip_r2_prior": float((1 - from_prior[0] / from_prior[1]).clamp(min=0).mean()),
        "used_dimensions": float((usage >= 0.01 * usage.max()).sum()),
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
