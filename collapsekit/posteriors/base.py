"""What every family of posteriors and priors offers, and what it may say that it lacks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from collapsekit.errors import Unavailable
from collapsekit.noise import Noise

_PAIRS = 1 << 22  # values that a block of pairs may hold at once: 32 MB


@runtime_checkable
class Posterior(Protocol):
    """Rows of distributions over the code; a population is a posterior with k rows."""

    @property
    def rows(self) -> int:
        """Number of distributions, B."""
        ...

    @property
    def dims(self) -> int:
        """Number of latent dimensions, D."""
        ...

    def draw(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """One code a row, [B, D], and its log-density under its own row, [B] nats."""
        ...

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of codes [B, D] under their rows, [B] nats."""
        ...

    def take(self, rows: Tensor) -> Self:
        """The rows at these positions."""
        ...


class Family(ABC):
    """Rows of one family of distributions; one row stands for all samples where it is a prior.

    Codes are float64 [B, D] in every family; a categorical variable's is the number of its class.
    Draws are a function of (seed, stream, index) alone.
    """

    coordinates: ClassVar[bool] = True  #: whether one dimension of a code may be set on its own

    @abstractmethod
    def tensors(self) -> tuple[Tensor, ...]:
        """The parameters, each with the rows on its first axis."""

    @abstractmethod
    def like(self, tensors: Sequence[Tensor]) -> Self:
        """The same family with other parameters."""

    @property
    @abstractmethod
    def dims(self) -> int:
        """Number of latent dimensions, D."""

    @abstractmethod
    def draw(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """One code a row (of one row, as many as the noise has), and its log-density."""

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of codes [B, D] in nats, [B]; one row serves all codes."""

    @abstractmethod
    def describe(self) -> str:
        """The family in a few words, for the report."""

    @property
    def splits(self) -> bool:
        """Whether densities are products over the D dimensions."""
        return False

    @property
    def rows(self) -> int:
        """Number of distributions."""
        return self.tensors()[0].shape[0]

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.tensors()[0].device

    def take(self, rows: Tensor | slice) -> Self:
        """The rows at these positions."""
        return self.like([tensor[rows] for tensor in self.tensors()])

    def to(self, device: torch.device | None) -> Self:
        """The same rows on another device."""
        return self.like([tensor.to(device) for tensor in self.tensors()])

    def same(self, other: Family, rtol: float = 0.0, atol: float = 0.0) -> bool:
        """Whether all parameters agree; NaN equals NaN."""
        pairs = zip(self.tensors(), other.tensors(), strict=True)
        return type(self) is type(other) and all(
            a.shape == b.shape and torch.allclose(a, b, rtol, atol, equal_nan=True)
            for a, b in pairs
        )

    @property
    def width(self) -> int:
        """Values that a row's parameters hold."""
        return sum(tensor[:1].numel() for tensor in self.tensors())

    if TYPE_CHECKING:  # fields of the diagonal Gaussian, derived by the others

        @property
        def mean(self) -> Tensor:
            """E[z], [B, D]."""

        @property
        def scale(self) -> Tensor:
            """Standard deviation of each dimension, [B, D]."""

    @property
    def centre(self) -> Tensor:
        """A code [B, D] that stands for the distribution: its mean, where it has one."""
        return self.mean

    def need_coordinates(self) -> None:
        """Raise where a code's dimensions cannot be set one by one.

        Raises
        ------
        Unavailable
        """
        if not self.coordinates:
            raise Unavailable(
                "one dimension of a code cannot be set alone",
                got=self.describe(),
                expected="codes whose dimensions may be set one by one",
            )

    def log_each(self, z: Tensor) -> Tensor:
        """Log-density in each dimension, nats [B, D], where `splits`."""
        raise Unavailable(
            "the posterior's density does not split over dimensions",
            got=self.describe(),
            expected="a family that factorises",
        )

    def log_pairs(self, z: Tensor) -> Tensor:
        """Log-density of every code [R, D] under every row: nats [R, K]. One block."""
        rows = torch.arange(self.rows, device=z.device).repeat(len(z))
        return self.take(rows).log_prob(z.repeat_interleave(self.rows, dim=0)).reshape(len(z), -1)

    def log_others(self, z: Tensor, own: Tensor) -> Tensor:
        """ln of the sum over all rows but `own` [R] of their density at codes [R, D]: nats [R].

        A plain loop over blocks, for the families that have no kernel of their own; the sums run
        over whole columns, so that they do not depend on how rows are cut.
        """
        total = torch.full((len(z),), -torch.inf, dtype=torch.float64, device=z.device)
        block = max(1, _PAIRS // max(self.width, 1) // max(len(z), 1))
        for start in range(0, self.rows, block):
            part = self.take(slice(start, start + block))
            pairs = part.log_pairs(z)
            mine = own - start
            inside = torch.nonzero((mine >= 0) & (mine < part.rows))[:, 0]
            pairs[inside, mine[inside]] = -torch.inf
            total = torch.logaddexp(total, pairs.logsumexp(dim=1))
        return total


class Derived(Family):
    """A family whose moments follow from its parameters."""

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """E[z] and the standard deviation of each dimension, [B, D] both.

        Raises
        ------
        Unavailable
            Codes of this family are no vectors, or nothing is known of their moments.
        """
        raise Unavailable(
            "the posterior has no mean in a vector space",
            got=self.describe(),
            expected="codes that are vectors",
        )

    @property
    def mean(self) -> Tensor:
        """E[z], [B, D]."""
        return self.moments[0]

    @property
    def scale(self) -> Tensor:
        """Standard deviation of each dimension, [B, D]."""
        return self.moments[1]


def joined(parts: Sequence[Family]) -> Family:
    """All rows of several parts of one family."""
    columns = zip(*(part.tensors() for part in parts), strict=True)
    return parts[0].like([torch.cat(column) for column in columns])


def blocks(function: Callable[[slice], Tensor], rows: int, size: int = 4096) -> Tensor:
    """A function of row slices, evaluated block by block."""
    return torch.cat([function(slice(at, at + size)) for at in range(0, max(rows, 1), size)])
