"""By dimension: ln of the aggregate over ln of the prior, at a sample's codes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from collapsekit.observation import Observation
from collapsekit.posteriors import Categorical, DiagonalGaussian


@dataclass(frozen=True)
class Ratios:
    """Means over rows are KL(q^_j || p_j), nats.

    Parameters
    ----------
    dims : Tensor, int [m]
        The dimensions that were measured.
    each : Tensor, float64 [B, m]
        The sample's own posterior is part of the aggregate, which draws it towards the sample's
        code: the KL reads high.
    without : Tensor, float64 [B, m]
        The same without it and its copies: the KL reads low (both by Jensen). The population's
        lies between.
    control : Tensor, float64 [B, m]
        ln of the posterior over ln of the prior at the same code, less its expectation KL_j: its
        mean is 0 whatever the input. 0 where the ratios are expectations and no draws.
    """

    dims: Tensor
    each: Tensor
    without: Tensor
    control: Tensor


def ratios(obs: Observation, limit: int | None, most: int) -> Ratios | None:
    """In the first `limit` rows and at most `most` dimensions; None where there is no such split.

    It takes a posterior and one prior that are products of Gaussians, or of categorical variables.
    """
    q, p = obs.posterior, obs.prior
    if isinstance(q, DiagonalGaussian) and isinstance(p, DiagonalGaussian):
        return _at_draws(obs, limit, most)
    if isinstance(q, Categorical) and isinstance(p, Categorical):
        return _over_classes(obs, q, p, most)
    return None


def _at_draws(obs: Observation, limit: int | None, most: int) -> Ratios:
    """At one draw a sample; the aggregate's density on a grid."""
    population, z = obs.population, obs.z
    k = population.size
    dims = torch.as_tensor(population.measured(most), device=z.device)
    marginal = population.log_marginals(limit, most, obs.seed)[obs.rows]
    log_prior = obs.prior.log_each(z)[:, dims]
    copies = torch.as_tensor(population.copies[obs.rows], device=z.device)[:, None]
    own = obs.posterior.log_each(z)[:, dims]
    share = copies * torch.exp(own - marginal) / k
    rest = (k - copies).clamp(min=1)
    others = marginal + torch.log1p(-share.clamp(max=1 - 1e-9)) + (k / rest).log()
    control = own - log_prior - obs.kl[:, dims]
    return Ratios(dims, marginal - log_prior, others - log_prior, control)


def _over_classes(obs: Observation, q: Categorical, p: Categorical, most: int) -> Ratios:
    """Exact: a finite sum over the classes of each variable instead of a draw."""
    everyone = obs.population.posterior
    assert isinstance(everyone, Categorical)
    k = obs.population.size
    dims = torch.as_tensor(obs.population.measured(most), device=q.device)
    own, prior = q.log_p[:, dims].exp(), p.log_p[:, dims]
    together = everyone.aggregate[None, dims]
    copies = torch.as_tensor(obs.population.copies[obs.rows], device=q.device)[:, None, None]
    others = ((k * together - copies * own) / (k - copies).clamp(min=1)).clamp(min=0.0)
    # A class that only this sample has: the others would be infinitely surprised. Rounding of the
    # own share alone is taken for nothing.
    others = torch.where(others < 1e-12 * together, 0.0, others)

    def expected(aggregate: Tensor) -> Tensor:
        return torch.where(own > 0, own * (aggregate.log() - prior), 0.0).sum(dim=2)

    return Ratios(dims, expected(together), expected(others), torch.zeros_like(own[:, :, 0]))
