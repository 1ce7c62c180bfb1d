"""Traversals: what one latent dimension does to the output, from the prior's centre."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import torch

from collapsekit.errors import Unavailable
from collapsekit.findings import Code
from collapsekit.number import Headline
from collapsekit.observation import Observation, Source
from collapsekit.probe import States
from collapsekit.results import Result
from collapsekit.streaming import Array, Constant, Top, to_numpy


@dataclass(frozen=True)
class Traversals:
    """Array `traversals` [J, T, ...]: the dimensions of highest and lowest mean KL, moved."""

    limit: int | None = 1  # one look is enough: nothing here is random
    highest: int = 6
    lowest: int = 2
    steps: int = 7
    reach: float = 2.5  # prior standard deviations to either side
    largest: int = 1 << 16  # values in a sample; beyond, pictures would fill the file

    name: ClassVar[str] = "traversals"
    source: ClassVar[Source] = "prior"
    codes: ClassVar[tuple[Code, ...]] = ()
    headlines: ClassVar[tuple[Headline, ...]] = ()

    def observe(self, obs: Observation) -> States:
        """Decode the prior's mean with one dimension moved."""
        obs.prior.need_coordinates()
        dims, kl = self._chosen(obs)
        shifts = np.linspace(-self.reach, self.reach, self.steps)
        prior = obs.prior
        z = prior.mean[:1].repeat(len(dims) * self.steps, 1)
        at = torch.arange(len(z), device=z.device)
        moved = torch.as_tensor(np.repeat(dims, self.steps), device=z.device)
        shift = torch.as_tensor(np.tile(shifts, len(dims)), device=z.device)
        z[at, moved] += shift * prior.scale[0, moved]
        context = obs.context
        if context is not None:
            context = context[:1].repeat(len(z), *[1] * (context.ndim - 1))
        images = obs.door.mean(obs.door.decode(z, context, obs.source))
        if images[0].numel() > self.largest:
            raise Unavailable(
                "outputs are too large to be shown",
                got=f"{images[0].numel():,} values",
                expected=f"at most {self.largest:,}",
            )
        shaped = images.reshape(1, len(dims), self.steps, *images.shape[1:])
        # Shards see different draws but the same picture: the first draw's is kept.
        first = -obs.index[:1].to(torch.float64)
        return {
            "images": Top(1, first, obs.index[:1], images=shaped),
            "facts": Constant((tuple(dims.tolist()), tuple(kl.tolist()), tuple(shifts.tolist()))),
        }

    def _chosen(self, obs: Observation) -> tuple[Array, Array]:
        mean_kl = obs.population.head(4096).mean_kl
        if mean_kl is None:
            raise Unavailable(
                "dimensions cannot be ranked by their KL",
                got=obs.population.posterior.describe(),
                expected="a KL that splits over dimensions",
            )
        kl = to_numpy(mean_kl)
        order = np.argsort(-kl, kind="stable")
        some = len(order) > self.highest + self.lowest
        dims = np.concatenate([order[: self.highest], order[-self.lowest :]]) if some else order
        return dims, kl[dims]

    def conclude(self, state: States) -> Result:
        """The pictures and which dimension each row of them moves."""
        dims, kl, shifts = state["facts"].value
        table = pd.DataFrame({"position": range(len(dims)), "dimension": dims, "kl": kl})
        steps = pd.DataFrame({"step": range(len(shifts)), "shift": shifts})
        return Result(
            tables={"traversals": table, "traversal_steps": steps},
            arrays={"traversals": state["images"].columns["images"][0]},
        )
