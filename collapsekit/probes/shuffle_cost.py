"""Shuffle cost: what reconstruction loses when one dimension of the code is another sample's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch

from collapsekit.findings import Code
from collapsekit.observation import Observation, Source
from collapsekit.probe import States
from collapsekit.results import Result
from collapsekit.streaming import Array, Constant, Grouped, Moments, block_groups


@dataclass(frozen=True)
class ShuffleCost:
    """`shuffle_cost` per dimension: nats with a likelihood, else squared error."""

    limit: int | None = 1024  # rows; each costs a decode a dimension

    name: ClassVar[str] = "shuffle_cost"
    source: ClassVar[Source] = "population"
    codes: ClassVar[tuple[Code, ...]] = ()

    def observe(self, obs: Observation) -> States:
        """Error with one dimension taken from the partner's code, less the row's own error."""
        z, other, own = obs.z, obs.z_partner, obs.error
        focus, alone = obs.population.focus, other.isnan().any(dim=1)
        own = torch.where(alone.to(own.device), torch.nan, own)  # no partner, no cost
        cost = []
        for j in focus:
            mixed = z.clone()
            mixed[:, j] = other[:, j]
            cost.append(obs.error_of(torch.where(alone[:, None], z, mixed)) - own)
        return {
            "cost": Grouped.of(
                block_groups(obs.population.place[obs.rows], obs.population.size),
                lambda rows: Moments.of(torch.stack(cost, dim=1)[rows]),
            ),
            "facts": Constant((tuple(int(j) for j in focus), obs.door.error_unit)),
        }

    def conclude(self, state: States) -> Result:
        """Mean and standard error per dimension; the column's name carries no unit, `unit` does."""
        focus, unit = state["facts"].value
        cost = state["cost"].jackknife(lambda part: part.mean)
        dimensions = pd.DataFrame(
            {
                "shuffle_cost": cost.value,
                "shuffle_cost_se": cost.error,
                "shuffle_cost_unit": np.repeat(unit, len(focus)),
            },
            index=pd.Index(list(focus), name="dimension"),
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
