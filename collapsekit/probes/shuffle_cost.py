"""Shuffle cost: what reconstruction loses when one dimension of the code is another sample's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from collapsekit.findings import Code
from collapsekit.number import Headline
from collapsekit.observation import Observation, Source
from collapsekit.population import by_dimension
from collapsekit.probe import States
from collapsekit.results import Result
from collapsekit.streaming import Array, Constant, Grouped, Moments, block_groups


@dataclass(frozen=True)
class ShuffleCost:
    """`shuffle_cost` per dimension: nats with a likelihood, else squared error.

    Beyond 64 dimensions of a spatial latent: `channel_shuffle_cost`, a channel at once.
    """

    limit: int | None = 1024  # rows; each costs a decode a dimension

    name: ClassVar[str] = "shuffle_cost"
    source: ClassVar[Source] = "population"
    codes: ClassVar[tuple[Code, ...]] = ()
    headlines: ClassVar[tuple[Headline, ...]] = ()

    def observe(self, obs: Observation) -> States:
        """Error with one dimension taken from the partner's code, less the row's own error."""
        obs.posterior.need_coordinates()
        z, other, own = obs.z, obs.z_partner, obs.error
        parts, alone = obs.population.parts, other.isnan().any(dim=1)
        own = torch.where(alone.to(own.device), torch.nan, own)  # no partner, no cost
        cost = []
        for dims in parts.dims:
            mixed = z.clone()
            mixed[:, dims] = other[:, dims]
            cost.append(obs.error_of(torch.where(alone[:, None], z, mixed)) - own)
        return {
            "cost": Grouped.of(
                block_groups(obs.population.place[obs.rows], obs.population.size),
                lambda rows: Moments.of(torch.stack(cost, dim=1)[rows]),
            ),
            "facts": Constant((*parts.facts, obs.door.error_unit)),
        }

    def conclude(self, state: States) -> Result:
        """Mean and standard error per dimension; the column's name carries no unit, `unit` does."""
        prefix, dims, unit = state["facts"].value
        cost = state["cost"].jackknife(lambda part: part.average)
        dimensions = by_dimension(
            prefix,
            dims,
            shuffle_cost=cost.value,
            shuffle_cost_se=cost.error,
            shuffle_cost_unit=np.repeat(unit, len(dims)),
        )
        return Result(dimensions=dimensions)


def shuffle_cost(own: Any, shuffled: Any) -> Array:
    """Mean cost of replacing one dimension of the code by another sample's.

    Parameters
    ----------
    own : array [N]
        Reconstruction errors from the samples' own codes.
    shuffled : array [N, D]
        The same with dimension j taken from another sample.

    Returns
    -------
    ndarray, float64 [D]
        In the unit of the errors.
    """
    base = np.asarray(own, dtype=np.float64)[:, None]
    return Moments.of(np.asarray(shuffled, dtype=np.float64) - base).mean
