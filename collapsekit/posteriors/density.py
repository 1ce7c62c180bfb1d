"""A prior of any kind: an object with log_prob(z) and sample(shape). One row for all samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from collapsekit.errors import ModelError
from collapsekit.noise import Noise
from collapsekit.posteriors.base import Derived, blocks
from collapsekit.posteriors.draws import draw, dtype_of, many

_DRAWS = 16_384  # from which moments are estimated: standard deviations to half a percent


@dataclass(frozen=True)
class Density(Derived):
    """A flow, a torch distribution, or any other object with a log-density and a sampler.

    Parameters
    ----------
    source : object
        ``log_prob(z)`` of codes [B, D] (or [B, *shape]) in nats; ``sample(shape)`` or
        ``sample(count)``, from torch's generator.
    anchor : Tensor, float64 [1, D]
        Where and how large codes are; its values do not matter.
    shape : tuple of int
        Shape of one code.
    """

    source: Any
    anchor: Tensor
    shape: tuple[int, ...]

    def tensors(self) -> tuple[Tensor, ...]:
        """The anchor: what is known of the source are its answers."""
        return (self.anchor,)

    def like(self, tensors: Sequence[Tensor]) -> Self:
        """The same source elsewhere."""
        return type(self)(self.source, tensors[0], self.shape)

    @property
    def dims(self) -> int:
        """Values in a code."""
        return self.anchor.shape[1]

    @property
    def rows(self) -> int:
        """One for all samples."""
        return 1

    @cached_property
    def _dtype(self) -> torch.dtype:
        if isinstance(self.source, torch.distributions.Distribution):
            return dtype_of(self.source)
        return many(self.source, 1).dtype

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation: the source's own, else from 16,384 draws."""
        try:
            mean, variance = self.source.mean, self.source.variance
            parts = [torch.as_tensor(part).detach() for part in (mean, variance)]
            flat = [part.to(torch.float64).reshape(-1).expand(self.dims) for part in parts]
            if all(bool(torch.isfinite(part).all()) for part in flat):
                return flat[0][None].to(self.device), flat[1][None].sqrt().to(self.device)
        except (NotImplementedError, AttributeError, TypeError, RuntimeError):
            pass
        z = self._flat(many(self.source, _DRAWS), _DRAWS).to(self.device)
        return z.mean(dim=0, keepdim=True), z.std(dim=0, keepdim=True)

    def _draw(self, noise: Noise) -> Tensor:
        return self._flat(draw(self.source, noise).detach(), len(noise.index))

    def _flat(self, value: Tensor, count: int) -> Tensor:
        if value.numel() != count * self.dims:
            raise ModelError(
                "the prior's samples do not have the code's dimensions",
                got=str(tuple(value.shape[1:])),
                expected=f"{self.dims} values",
                remedy="pass a prior over the code of this model",
            )
        return value.to(torch.float64).reshape(count, self.dims)

    def draw(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """Codes and their log-density."""
        z = self._draw(noise)
        return z, self.log_prob(z)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of codes [B, D] in nats, [B]."""

        def some(rows: slice) -> Tensor:
            part = z[rows].to(self._dtype)
            shaped = part.reshape(len(part), *self.shape)
            with torch.no_grad():
                value = torch.as_tensor(self.source.log_prob(shaped)).to(torch.float64)
            if value.shape[:1] != part.shape[:1]:
                raise ModelError(
                    "the prior's log_prob does not have a row for every code",
                    got=f"{tuple(value.shape)} for {len(part)} codes",
                    expected=f"({len(part)},)",
                    remedy="keep the samples on the first axis",
                )
            return value.reshape(len(part), -1).sum(dim=1)

        return blocks(some, len(z))

    def describe(self) -> str:
        """The source's class."""
        inner = self.source
        while isinstance(inner, torch.distributions.Independent):
            inner = inner.base_dist
        return f"{type(inner).__name__} over {self.dims} dimensions"
