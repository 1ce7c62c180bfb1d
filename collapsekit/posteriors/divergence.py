"""KL between families: exact where a closed form is known, else from draws with its error."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.distributions import Distribution

from collapsekit.errors import ModelError, Unavailable
from collapsekit.noise import Noise
from collapsekit.posteriors.base import Family
from collapsekit.posteriors.discrete import Categorical
from collapsekit.posteriors.gaussian import DiagonalGaussian, FullGaussian
from collapsekit.posteriors.mixture import GaussianMixture
from collapsekit.posteriors.sphere import UniformSphere, VonMisesFisher
from collapsekit.posteriors.torch_rows import TorchRows, product

DRAWS = 8
"""Draws a sample where a KL has no closed form; the mean over samples averages their error."""


@dataclass(frozen=True)
class Divergence:
    """KL(q_i || p) in nats.

    Parameters
    ----------
    total : Tensor, float64 [B]
    each : Tensor, float64 [B, D], or None
        Its split over dimensions, where both sides factorise.
    error : Tensor, float64 [B], or None
        Standard error of `total` over the draws; None where it is exact.
    """

    total: Tensor
    each: Tensor | None = None
    error: Tensor | None = None


def divergence(q: Family, p: Family, noise: Noise, draws: int = DRAWS) -> Divergence:
    """KL of each row of q from p (a row each, or one for all).

    Monte Carlo where nothing closed is known: the mean of ln q(z) - ln p(z) over z ~ q. Both
    densities are taken at the same codes, so that the error vanishes where q = p. Of Gaussians and
    their mixtures only what sets the two apart from Gaussians g, h of their moments is left to the
    draws, unless that makes the error twice as large: KL(g || h) + E[(ln q - ln g) - (ln p - ln
    h)], since E_q of ln g and of ln h rests on moments alone.

    Raises
    ------
    ModelError
        Codes of one side have no density on the other: a discrete code and a continuous prior.
    """
    each = _each(q, p)
    if each is not None:
        return Divergence(each.sum(dim=1), each)
    if isinstance(q, Categorical) != isinstance(p, Categorical):
        raise ModelError(
            "the posterior and the prior are not distributions over the same codes",
            got=f"posterior: {q.describe()}; prior: {p.describe()}",
            expected="both discrete or both continuous",
            remedy="declare the prior that the model was trained with",
        )
    total = _whole(q, p)
    if total is not None:
        return Divergence(total, total[:, None] if q.dims == 1 else None)
    near = _near(q, p)
    plain, controls = [], []
    for at in range(draws):
        z, log_q = q.draw(replace(noise, stream=f"{noise.stream}/{at}"))
        plain.append(log_q - p.log_prob(z))
        if near is not None:
            controls.append(near[0].log_prob(z) - near[1].log_prob(z))
    sample = torch.stack(plain)
    if near is not None:
        controlled = sample - torch.stack(controls) + _gaussian(*near)
        # Each half of the draws chooses for the other: a choice by the values themselves is biased.
        chosen = sample.clone()
        for half in range(2):
            mine, other = slice(half, None, 2), slice(1 - half, None, 2)
            better = controlled[other].std(dim=0) < 2 * sample[other].std(dim=0)
            chosen[mine] = torch.where(better, controlled[mine], sample[mine])
        sample = chosen
    mean = sample.mean(dim=0)
    return Divergence(
        mean, mean[:, None] if q.dims == 1 else None, sample.std(dim=0) / math.sqrt(draws)
    )


def added(q: Family, p: Family) -> Tensor | None:
    """What each dimension adds to the KL of all others, nats [B, D]; None where it is not known.

    KL(q || p) less the KL of the codes without dimension j, which is E KL(q(z_j | rest) || p(z_j |
    rest)): 0 only where z_j says nothing and follows nothing. `Divergence.each` where that exists.
    A prior without a closed form stands as the Gaussian of its moments, in the prior's dimensions
    one by one: a Gaussian posterior that has these for every sample tells nothing either.
    """
    each = _each(q, p)
    if each is not None or not isinstance(q, DiagonalGaussian | FullGaussian):
        return each
    if not isinstance(p, DiagonalGaussian | FullGaussian):
        if (near := _near(q, p)) is None:
            return None
        p = near[1]
        if isinstance(q, DiagonalGaussian):
            return q.kl(p)
    factor, inverse = (root(family) for family in (q, p))
    inverse = torch.linalg.inv(inverse)
    precision = inverse.mT @ inverse
    own = precision.diagonal(dim1=1, dim2=2)
    # ln of the precision of z_j given the rest, under the posterior
    log_own = torch.linalg.inv(factor).square().sum(dim=1).log()
    moved = (precision @ (q.mean - p.mean)[:, :, None])[:, :, 0]
    spread = (precision @ factor).square().sum(dim=2)
    found: Tensor = 0.5 * (log_own - own.log() + (spread + moved**2) / own - 1.0)
    return found


def least_variance(q: Family, p: Family) -> Tensor:
    """Variance of each row's narrowest direction, in the prior's units: float64 [B].

    The smallest eigenvalue of the covariance standardised by the prior's; over the dimensions
    alone where both sides have no other directions.

    Raises
    ------
    Unavailable
        One side has no widths.
    """
    if not isinstance(q, FullGaussian | GaussianMixture) and not isinstance(p, FullGaussian):
        return (q.scale / p.scale).square().amin(dim=1)
    if isinstance(q, GaussianMixture):
        weights = q.log_weights.exp()[:, :, None]
        between = (weights.sqrt() * (q.means - q.mean[:, None])).mT
        inside = torch.diag_embed((weights * q.scales.square()).sum(dim=1))
        covariance = between @ between.mT + inside
    else:
        assert isinstance(q, DiagonalGaussian | FullGaussian)
        covariance = root(q) @ root(q).mT
    if isinstance(p, FullGaussian):
        half = torch.linalg.solve_triangular(p.cholesky, covariance, upper=False)
        covariance = torch.linalg.solve_triangular(p.cholesky, half.mT, upper=False)
    else:
        covariance = covariance / (p.scale[:, :, None] * p.scale[:, None, :])
    found: Tensor = torch.linalg.eigvalsh(covariance)[:, 0]
    return found


def _near(q: Family, p: Family) -> tuple[DiagonalGaussian | FullGaussian, DiagonalGaussian] | None:
    """Gaussians of the two sides' moments, as control variates; None without such moments.

    Of Gaussian tails alone: the squares in a Gaussian's log-density may have no variance under
    others.
    """
    if not isinstance(q, DiagonalGaussian | FullGaussian | GaussianMixture):
        return None
    try:
        h = DiagonalGaussian(p.mean, p.scale)
    except Unavailable:
        return None
    if not bool((h.mean.isfinite() & h.scale.isfinite() & (h.scale > 0)).all()):
        return None
    return q if isinstance(q, FullGaussian) else DiagonalGaussian(q.mean, q.scale), h


def root(family: DiagonalGaussian | FullGaussian) -> Tensor:
    """L of the covariance L L', a row a sample: [B, D, D]."""
    return family.cholesky if isinstance(family, FullGaussian) else torch.diag_embed(family.scale)


def _each(q: Family, p: Family) -> Tensor | None:
    if isinstance(q, DiagonalGaussian) and isinstance(p, DiagonalGaussian):
        return q.kl(p)
    if isinstance(q, Categorical) and isinstance(p, Categorical):
        return q.kl(p)
    if isinstance(q, TorchRows) and (prior := _torch(p)) is not None:
        parts, other = product(q.distribution), product(prior)
        if other is not None and other.batch_shape[-len(q.shape) :] != torch.Size(q.shape):
            other = None  # of another shape: it may broadcast, and then mean something else
        value = _of_torch(parts, other)
        return None if value is None else value.reshape(q.rows, -1)
    return None


def _whole(q: Family, p: Family) -> Tensor | None:
    if isinstance(q, VonMisesFisher) and isinstance(p, UniformSphere):
        return q.rate
    gaussian = DiagonalGaussian | FullGaussian
    if isinstance(q, gaussian) and isinstance(p, gaussian):
        return _gaussian(q, p)
    if isinstance(q, TorchRows):
        value = _of_torch(q.distribution, _torch(p))
        return None if value is None else value.reshape(q.rows, -1).sum(dim=1)
    return None


def _torch(p: Family) -> Distribution | None:
    """A prior as torch's own distribution, where it is one."""
    if isinstance(p, TorchRows):
        return p.distribution
    source = getattr(p, "source", None)
    if isinstance(p, DiagonalGaussian):
        return torch.distributions.Normal(p.mean, p.scale)
    return source if isinstance(source, Distribution) else None


def _of_torch(q: Distribution | None, p: Distribution | None) -> Tensor | None:
    if q is None or p is None:
        return None
    try:
        return torch.distributions.kl_divergence(q, p).to(torch.float64)
    except (NotImplementedError, ValueError, RuntimeError):
        return None


def _gaussian(q: DiagonalGaussian | FullGaussian, p: DiagonalGaussian | FullGaussian) -> Tensor:
    """0.5 (tr(P^-1 Q) + |P^-1/2 (m - n)|^2 - D + ln det P - ln det Q), through Cholesky factors."""
    if isinstance(p, DiagonalGaussian):
        standard = root(q) / p.scale[:, :, None]
        gap = (q.mean - p.mean) / p.scale
    else:
        assert isinstance(p, FullGaussian)
        standard = torch.linalg.solve_triangular(p.cholesky, root(q), upper=False)
        step = (q.mean - p.mean)[:, :, None]
        gap = torch.linalg.solve_triangular(p.cholesky, step, upper=False)[:, :, 0]
    # The diagonal of the standardised factor carries ln det and, squared, its part of the trace:
    # taken together they keep their digits near collapse, where they cancel.
    diagonal = standard.diagonal(dim1=1, dim2=2)
    twice = 2.0 * diagonal.log()
    exact = 0.5 * (torch.expm1(twice) - twice)
    series = twice**2 * (0.25 + twice / 12.0)
    inner = torch.where(twice.abs() < 1e-5, series, exact).sum(dim=1)
    outside = 0.5 * torch.tril(standard, diagonal=-1).square().sum(dim=(1, 2))
    return inner + outside + 0.5 * gap.square().sum(dim=1)
