"""Draws from torch distributions that are a function of (seed, stream, index) alone.

Known structures are followed down to our own normals and uniforms. What nothing is known of is
sampled row by row under a generator seeded from the row's hash, with the global state put back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
)

from collapsekit.noise import Noise, hash_index
from collapsekit.posteriors.gaussian import cholesky_of


def draw(distribution: Any, noise: Noise, row: Callable[[int], Any] | None = None) -> Tensor:
    """One value a number in `noise`: [B, ...].

    Parameters
    ----------
    distribution : object
        A torch distribution, or anything with ``sample(shape)``.
    noise : Noise
    row : callable or None
        None where one distribution serves all draws. Else its first batch axis are the rows, and
        this gives the family of one row, for what has to be sampled row by row.
    """
    count = len(noise.index)
    found = None
    if isinstance(distribution, Distribution):
        found = _followed(distribution, noise, row is not None)
    if found is not None:
        return found
    keys = hash_index(noise.seed, f"{noise.stream}/rows", noise.index.cpu()).tolist()
    with torch.random.fork_rng():
        parts = []
        for at in range(count):
            _seed(keys[at])
            source = distribution if row is None else row(at).distribution
            parts.append(sampled(source, None if row is not None else 1))
    return torch.cat(parts)


def _seed(key: int) -> None:
    # Not torch.manual_seed: it also notes down a call for every device that was never used, with
    # its stack, which takes a millisecond.
    torch.default_generator.manual_seed(key)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(key)


def many(source: Any, count: int) -> Tensor:
    """`count` values in one call, always the same ones: for moments, which no cut touches."""
    with torch.random.fork_rng():
        _seed(0)
        return sampled(source, count)


def sampled(source: Any, count: int | None) -> Tensor:
    """``sample(shape)`` as torch spells it, or ``sample(count)`` as some flows do."""
    with torch.no_grad():
        if count is None:
            return torch.as_tensor(source.sample())
        try:
            return torch.as_tensor(source.sample((count,)))
        except TypeError:
            return torch.as_tensor(source.sample(count))


def dtype_of(distribution: Any) -> torch.dtype:
    """The type in which a distribution takes its values."""
    inner = distribution
    while isinstance(inner, Independent | TransformedDistribution):
        inner = inner.base_dist
    for name in getattr(inner, "arg_constraints", ()):
        value = getattr(inner, name, None)
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.dtype
    return torch.float64


def _followed(distribution: Distribution, noise: Noise, by_row: bool) -> Tensor | None:
    count = len(noise.index)
    if isinstance(distribution, Independent):
        return _followed(distribution.base_dist, noise, by_row)
    batch = distribution.batch_shape[1:] if by_row else distribution.batch_shape
    shape = (count, *batch, *distribution.event_shape)
    size = torch.Size(shape[1:]).numel()
    if isinstance(distribution, Normal):
        eps = noise.normal(size).reshape(shape)
        return distribution.loc + distribution.scale * eps
    if isinstance(distribution, MultivariateNormal | LowRankMultivariateNormal):
        eps = noise.normal(size).reshape(shape)
        factor = cholesky_of(distribution)
        return distribution.loc + (factor * eps[..., None, :]).sum(dim=-1)
    if isinstance(distribution, TransformedDistribution):
        return _transformed(distribution, noise, by_row)
    if isinstance(distribution, MixtureSameFamily):
        return _of_mixture(distribution, noise, by_row)
    if distribution.has_enumerate_support:
        return None
    uniform = noise.uniform(size).reshape(shape)
    try:
        return distribution.icdf(uniform)
    except NotImplementedError:
        return None


def _transformed(
    distribution: TransformedDistribution, noise: Noise, by_row: bool
) -> Tensor | None:
    value = _followed(distribution.base_dist, noise, by_row)
    if value is None:
        return None
    value = value.to(dtype_of(distribution))
    for transform in distribution.transforms:
        value = transform(value)
    return value


def _of_mixture(distribution: MixtureSameFamily, noise: Noise, by_row: bool) -> Tensor | None:
    values = _followed(distribution.component_distribution, noise, by_row)
    if values is None:
        return None
    chooser = distribution.mixture_distribution
    ends = chooser.probs.to(torch.float64).cumsum(dim=-1)  # [..., K]
    lead = ends.shape[1:-1] if by_row else ends.shape[:-1]
    part = replace(noise, stream=f"{noise.stream}/component")
    uniform = part.uniform(max(torch.Size(lead).numel(), 1)).reshape(len(noise.index), *lead, 1)
    chosen = (uniform * ends[..., -1:] >= ends).sum(dim=-1).clamp(max=ends.shape[-1] - 1)
    event = distribution.event_shape
    at = chosen.reshape(*chosen.shape, 1, *[1] * len(event)).expand(*chosen.shape, 1, *event)
    return values.gather(len(chosen.shape), at).squeeze(len(chosen.shape))
