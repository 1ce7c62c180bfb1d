"""Pareto k: whether an average of importance weights can be trusted, from their upper tail.

The weights above a high quantile follow a generalised Pareto distribution with shape k. Moments
exist up to order 1/k: below 0.5 the average has a variance, above 0.7 it does not settle at any
practical number of draws (Vehtari, Simpson, Gelman, Yao & Gabry 2024, "Pareto smoothed importance
sampling", arXiv 1507.02646).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: Above this the average of the weights is not reliable.
UNRELIABLE = 0.7
#: Weights a row that a fit needs: five in the tail.
LEAST_DRAWS = 21
_FLAT = 1e-6  # nats: weights that differ by less are equal up to rounding


def tail_size(draws: int) -> int:
    """Weights in the tail of `draws`: a fifth, at most 3 sqrt(draws) (Vehtari et al. 2024)."""
    return math.ceil(min(0.2 * draws, 3.0 * math.sqrt(draws)))


def pareto_k(log_weights: Tensor) -> Tensor:
    """Shape of the upper tail of each row's weights.

    Parameters
    ----------
    log_weights : Tensor [B, K]
        Logarithms of importance weights, up to a constant a row.

    Returns
    -------
    Tensor, float64 [B]
        0 where the tail does not vary (no tail is no danger); infinite below five tail weights,
        which say nothing. With few draws the estimate is drawn towards 1/2 by its prior.
    """
    log_weights = log_weights.to(torch.float64)
    draws = log_weights.shape[1]
    size = tail_size(draws)
    if size < 5 or size >= draws:
        return torch.full((len(log_weights),), math.inf, dtype=torch.float64)
    highest = log_weights.topk(size + 1, dim=1).values  # falling
    scaled = (highest - highest[:, :1]).exp()
    excess = (scaled[:, :size] - scaled[:, size:]).flip(1)  # rising, at least 0
    flat = highest[:, 0] - highest[:, size] < _FLAT
    shape, _ = fit(torch.where(flat[:, None], torch.ones_like(excess), excess))
    # Ten pseudo-observations at 1/2 (Vehtari et al. 2024, appendix C).
    shape = (size * shape + 10 * 0.5) / (size + 10)
    return torch.where(flat, 0.0, shape)


def fit(excess: Tensor) -> tuple[Tensor, Tensor]:
    """Shape and scale of generalised Pareto samples, a fit a row.

    The quasi-Bayesian estimator of Zhang & Stephens 2009 (Technometrics 51, 316), equations 7 to 9,
    with the sign of the shape turned: positive is heavy.

    Parameters
    ----------
    excess : Tensor [B, n]
        Rising along each row, at least 0.

    Returns
    -------
    shape, scale : Tensor, float64 [B]
    """
    n = excess.shape[1]
    grid = 30 + math.isqrt(n)
    quartile = excess[:, max(int(n / 4 + 0.5), 1) - 1].clamp(min=torch.finfo(torch.float64).tiny)
    j = torch.arange(1, grid + 1, dtype=torch.float64, device=excess.device)
    step = (1.0 - (grid / (j - 0.5)).sqrt()) / 3.0
    b = 1.0 / excess[:, -1:] + step / quartile[:, None]  # [B, grid]
    k = torch.log1p(-b[:, :, None] * excess[:, None, :]).mean(dim=2)
    profile = n * ((-b / k).log() - k - 1.0)
    # A grid point at b = 0 or past the largest value has no likelihood.
    profile = torch.where(torch.isfinite(profile), profile, -math.inf)
    b = (b * torch.softmax(profile, dim=1)).nan_to_num().sum(dim=1)
    shape = torch.log1p(-b[:, None] * excess).mean(dim=1)
    return shape, -shape / b
