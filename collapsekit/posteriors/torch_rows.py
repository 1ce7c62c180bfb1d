"""Any torch distribution as rows: taken apart into tensors, put together again for some rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    MixtureSameFamily,
    TransformedDistribution,
)

from collapsekit.errors import ModelError, Unavailable
from collapsekit.noise import Noise
from collapsekit.posteriors.base import Derived
from collapsekit.posteriors.draws import draw, dtype_of

_NESTED = {
    Independent: ("base_dist",),
    MixtureSameFamily: ("mixture_distribution", "component_distribution"),
    TransformedDistribution: ("base_dist",),
}


@dataclass(frozen=True)
class Recipe:
    """How a distribution is built from its tensors: plain data, so that rows can be shipped."""

    kind: Callable[..., Distribution]
    names: tuple[str, ...]
    nested: tuple[Recipe, ...] = ()
    extra: tuple[Any, ...] = ()

    def build(self, tensors: list[Tensor]) -> Distribution:
        """The distribution; takes its tensors off the front of the list."""
        if self.nested:
            return self.kind(*[part.build(tensors) for part in self.nested], *self.extra)
        own = {name: tensors.pop(0) for name in self.names}
        return self.kind(**own, validate_args=False)


def opened(distribution: Distribution) -> tuple[Recipe, list[Tensor]]:
    """A distribution's recipe and its tensors, each with the batch shape in front.

    Raises
    ------
    ModelError
        It cannot be taken apart.
    """
    kind = type(distribution)
    if kind in _NESTED:
        parts = [opened(getattr(distribution, name)) for name in _NESTED[kind]]
        extra: tuple[Any, ...] = ()
        if isinstance(distribution, Independent):
            extra = (distribution.reinterpreted_batch_ndims,)
        if isinstance(distribution, TransformedDistribution):
            extra = (distribution.transforms,)
        tensors = [tensor for _, found in parts for tensor in found]
        return Recipe(kind, (), tuple(recipe for recipe, _ in parts), extra), tensors
    try:
        names = [name for name in distribution.arg_constraints if name in vars(distribution)]
        names = names or list(distribution.arg_constraints)
        if {"probs", "logits"} <= set(names):
            names.remove("probs")
        found = [torch.as_tensor(getattr(distribution, name)) for name in names]
        recipe = Recipe(kind, tuple(names))
        again = recipe.build(list(found))
    except (NotImplementedError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            "this distribution cannot be taken apart into rows",
            got=f"{kind.__name__}: {type(error).__name__}: {error}",
            expected="a torch distribution that is built from its arg_constraints",
            remedy="return one of collapsekit.posteriors' families",
        ) from error
    if again.batch_shape != distribution.batch_shape:
        raise ModelError(
            "this distribution cannot be taken apart into rows",
            got=f"{kind.__name__} whose parameters do not carry its batch shape",
            expected=f"parameters that lead with {tuple(distribution.batch_shape)}",
            remedy="return one of collapsekit.posteriors' families",
        )
    return recipe, found


def product(distribution: Distribution) -> Distribution | None:
    """The distributions of single values of which this one is the product, if it is one."""
    inner: Any = distribution
    while isinstance(inner, Independent):
        inner = inner.base_dist
    return None if inner.event_shape else inner


@dataclass(frozen=True)
class TorchRows(Derived):
    """Rows of a torch distribution of any kind that has a log_prob and can be sampled.

    Parameters
    ----------
    recipe : Recipe
    parameters : tuple of Tensor
        Each with the rows on its first axis.
    """

    recipe: Recipe
    parameters: tuple[Tensor, ...]

    @classmethod
    def of(cls, distribution: Distribution) -> Self:
        """Rows of a distribution whose first batch axis are the samples."""
        recipe, tensors = opened(distribution)
        return cls(recipe, tuple(tensors))

    @cached_property
    def distribution(self) -> Distribution:
        """The torch object."""
        return self.recipe.build(list(self.parameters))

    def tensors(self) -> tuple[Tensor, ...]:
        """The parameters."""
        return self.parameters

    def like(self, tensors: Sequence[Tensor]) -> Self:
        """Other parameters."""
        return type(self)(self.recipe, tuple(tensors))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one code."""
        whole = self.distribution
        return tuple((*whole.batch_shape[1:], *whole.event_shape))

    @property
    def splits(self) -> bool:
        """Whether torch keeps the dimensions apart, or makes one event of independent ones."""
        return self._product is not None

    @cached_property
    def _product(self) -> Distribution | None:
        return product(self.distribution)

    @property
    def dims(self) -> int:
        """Values in a code."""
        return int(torch.Size(self.shape).numel())

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Torch's own mean and variance.

        Raises
        ------
        Unavailable
            Torch has none for this family, or they are infinite in every row.
        """
        try:
            found = self.distribution.mean, self.distribution.variance
        except NotImplementedError as error:
            raise Unavailable(
                "the posterior's mean is not known",
                got=self.describe(),
                expected="a distribution with mean and variance",
            ) from error
        mean, variance = (t.to(torch.float64).reshape(self.rows, -1) for t in found)
        if self.rows and bool((torch.isinf(mean) | torch.isinf(variance)).any(dim=1).all()):
            raise Unavailable(
                "the posterior has no finite mean and variance",
                got=self.describe(),
                expected="widths that distances between codes can be measured in",
            )
        return mean, variance.sqrt()

    def _shaped(self, z: Tensor) -> Tensor:
        return z.reshape(len(z), *self.shape).to(dtype_of(self.distribution))

    def draw(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """Codes through the distribution's own structure, else row by row under a keyed seed."""
        value = draw(self.distribution, noise, lambda row: self.take(slice(row, row + 1)))
        z = value.to(torch.float64).reshape(len(noise.index), -1)
        return z, self.log_prob(z)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of codes [B, D] in nats, [B]."""
        value = self.distribution.log_prob(self._shaped(z)).to(torch.float64)
        return value.reshape(len(z), -1).sum(dim=1)

    def log_each(self, z: Tensor) -> Tensor:
        """Log-density in each dimension where the family is a product of them, nats [B, D]."""
        if self._product is None:
            return super().log_each(z)
        value = self._product.log_prob(self._shaped(z)).to(torch.float64)
        return value.reshape(len(z), -1)

    def describe(self) -> str:
        """The torch class."""
        inner: Any = self.distribution
        while isinstance(inner, Independent):
            inner = inner.base_dist
        return type(inner).__name__
