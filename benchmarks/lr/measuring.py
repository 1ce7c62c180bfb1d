"""The columns of a trained model on held-out images: plain torch, and beside it the audit.

AU and good as shares of the L units; information, KL and costs in nats.

    AU, AU.1    Var_i(mu_ij) above 0.01, above 0.1
    good        informative: I(x; z_j) > 0.1 nat and shuffling z_j costs > 0.1 nat of likelihood
    fake        active (0.01) and not good
    KL, I       rate; information with the aggregate of the test posteriors (a floor near ln N)
    rec, obj    0.5 * SSE of a decoded posterior sample; rec + beta * KL
    rt, rt.1    R^2 of E_mu(D(z)), z ~ prior, mean over units clipped at 0; with N(0, 0.1^2) on D(z)
    KL<1        share of samples whose KL is below 1 nat
    probe       accuracy on test images of a ridge classifier on the training images' mu
    audit good  `informative_fraction` of ck.audit: the same quantity by other code
    CK604       1 where the audit warns of fake units
"""

from __future__ import annotations

import math
import statistics

import numpy as np
import torch
from sklearn.linear_model import RidgeClassifier
from torch import Tensor, nn

import collapsekit as ck
from benchmarks.lr.data import Part
from benchmarks.lr.training import VAE

Row = dict[str, float]
MOST_PROBED = 10_000  # training images of the ridge classifier


@torch.no_grad()
def measure(vae: VAE, test: Tensor, beta: float, draws: int = 4) -> Row:
    """Everything that needs no labels; `beta` is the likelihood's variance."""
    generator = torch.Generator().manual_seed(1)
    mean, scale = vae.encode(test)
    n, latent = mean.shape
    variance = mean.var(0)
    kl = (0.5 * (mean**2 + scale**2 - 1.0) - scale.log()).sum(1)
    errors, costs = [], []
    for _ in range(draws):
        z = mean + scale * torch.randn(n, latent, generator=generator)
        own = _error(vae, z, test)
        errors.append(own)
        other = torch.randperm(n, generator=generator)
        costs.append([(_error(vae, _swapped(z, other, j), test) - own) for j in range(latent)])
    total, per_unit = information(mean, scale, z)
    cost = torch.tensor(costs).mean(0) / beta
    good = (per_unit > 0.1) & (cost > 0.1)
    active = variance > 0.01
    z = torch.randn(n, latent, generator=generator)
    x_hat = vae.decode(z)
    noisy = x_hat + 0.1 * torch.randn(x_hat.shape, generator=generator)
    reconstruction, rate = statistics.fmean(errors), float(kl.double().mean())
    return {
        "AU": _share(active),
        "AU.1": _share(variance > 0.1),
        "good": _share(good),
        "fake": _share(active & ~good),
        "KL": rate,
        "I": total,
        "rec": reconstruction,
        "obj": reconstruction + beta * rate,
        "rt": _recovered(vae, z, x_hat),
        "rt.1": _recovered(vae, z, noisy),
        "KL<1": _share(kl < 1.0),
    }


@torch.no_grad()
def probe(vae: VAE, train: Part, test: Part) -> float:
    """Unscaled on purpose: a unit counts by its size in prior units, as it does for the decoder."""
    few = train.rows(0, MOST_PROBED)
    classifier = RidgeClassifier(alpha=1.0).fit(vae.encode(few.x)[0].numpy(), few.y)
    return float(classifier.score(vae.encode(test.x)[0].numpy(), test.y))


class ImageVAE(nn.Module):
    """A VAE that takes and gives images with their axes, for the report's gallery."""

    def __init__(self, vae: VAE, side: int) -> None:
        super().__init__()
        self.vae, self.side = vae, side

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.vae.encode(x.flatten(1))

    def decode(self, z: Tensor) -> Tensor:
        return self.vae.decode(z).unflatten(1, (1, self.side, self.side))


def audited(vae: VAE, test: Part, beta: float) -> ck.Audit:
    """The audit that a user would make of this model."""
    side = math.isqrt(test.x.shape[1])
    return ck.audit(
        ImageVAE(vae, side).eval(),
        test.x.unflatten(1, (1, side, side)),
        labels=test.y,
        likelihood=("gaussian", math.sqrt(beta)),
        beta=beta,
    )


def told(audit: ck.Audit) -> dict[str, object]:
    """The audit's own words: verdict, and every finding that is more than fine."""
    return {
        "verdict": audit.verdict.name,
        "findings": {
            f.code: f.severity.word for f in audit.findings if f.severity > ck.Severity.OK
        },
    }


def columns(audit: ck.Audit) -> Row:
    """The audit's opinion on informative and on fake units, beside ours."""
    warned = any(f.code == "CK604" and f.severity >= ck.Severity.WARN for f in audit.findings)
    return {"audit good": audit.number("informative_fraction").value, "CK604": float(warned)}


def information(mean: Tensor, scale: Tensor, z: Tensor) -> tuple[float, Tensor]:
    """I(x; z) and I(x; z_j): mean_i ln q_i(z_i) - ln (1/N) sum_k q_k(z_i), one z for both terms."""
    n, latent = mean.shape
    joint = torch.zeros(n, n)
    per_unit = torch.empty(latent)
    for j in range(latent):
        density = (z[:, j, None] - mean[None, :, j]) / scale[None, :, j]
        density = density.square_().mul_(-0.5).sub_(scale[None, :, j].log())
        joint += density
        own = density.diagonal()
        per_unit[j] = (own - density.logsumexp(1)).double().mean() + math.log(n)
    total = (joint.diagonal() - joint.logsumexp(1)).double().mean() + math.log(n)
    return float(total), per_unit


def _error(vae: VAE, z: Tensor, x: Tensor) -> float:
    return float(0.5 * (vae.decode(z) - x).square().sum(1).double().mean())


def _swapped(z: Tensor, other: Tensor, j: int) -> Tensor:
    mixed = z.clone()
    mixed[:, j] = z[other, j]
    return mixed


def _recovered(vae: VAE, z: Tensor, x_hat: Tensor) -> float:
    r2 = 1.0 - (vae.encode(x_hat)[0] - z).square().mean(0) / z.var(0)
    return float(r2.clamp(min=0.0).mean())


def _share(mask: Tensor) -> float:
    return float(np.mean(mask.numpy()))
