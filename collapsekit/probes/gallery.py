"""Gallery: the samples with the weakest, the most typical and the strongest codes."""

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
from collapsekit.streaming import Array, Rows, Top, to_numpy


@dataclass(frozen=True)
class Gallery:
    """Inputs, their reconstructions, and what the decoder gives without any code."""

    limit: int | None = 4096
    shown: int = 8  # in each of the three groups
    pool: int = 64  # the typical ones are picked from this many, kept by hash
    largest: int = 1 << 18  # values in a sample; beyond, pictures would fill the file

    name: ClassVar[str] = "gallery"
    source: ClassVar[Source] = "population"
    codes: ClassVar[tuple[Code, ...]] = ()
    headlines: ClassVar[tuple[Headline, ...]] = ()

    def observe(self, obs: Observation) -> States:
        """Keep the extremes, and a keyed pool from which the median's neighbours are picked."""
        inputs = obs.door.target(obs.x)
        if inputs[0].numel() > self.largest:
            raise Unavailable(
                "samples are too large to be shown",
                got=f"{inputs[0].numel():,} values",
                expected=f"at most {self.largest:,}",
            )
        images = obs.reconstruction
        if images.shape != inputs.shape:
            raise Unavailable(
                "reconstructions do not have the data's shape",
                got=str(tuple(images.shape)),
                expected=str(tuple(inputs.shape)),
            )
        total = obs.kl_total
        kept = {"inputs": inputs, "reconstructions": images, "kl": total}
        in_pool = torch.as_tensor(np.where(obs.rows < self.pool, -obs.rows.astype(float), np.nan))
        empty = obs.door.mean(obs.door.decode(obs.prior.centre[:1], _first(obs), obs.source))
        return {
            "weakest": Top(self.shown, -total, obs.index, **kept),
            "strongest": Top(self.shown, total, obs.index, **kept),
            "pool": Top(self.pool, in_pool, obs.index, **kept),
            "kl": Rows(obs.index, kl=total),
            # Of the lowest row that there is: the block that holds the first may be lost.
            "empty": Top(1, -obs.rows[:1].astype(float), obs.index[:1], image=empty[:1]),
        }

    def conclude(self, state: States) -> Result:
        """Three groups without overlap, weakest first."""
        median = float(np.median(state["kl"].column("kl")))
        pool: Top = state["pool"]
        near = np.argsort(np.abs(pool.columns["kl"] - median), kind="stable")
        taken: set[int] = set()
        rows: list[dict[str, object]] = []
        inputs: list[Array] = []
        reconstructions: list[Array] = []
        groups = (
            ("weakest", state["weakest"], range(self.shown)),
            ("strongest", state["strongest"], range(self.shown)),
            ("typical", pool, near),
        )
        for group, top, order in groups:
            shown = 0
            for at in order:
                if at >= len(top.index) or shown == self.shown or int(top.index[at]) in taken:
                    continue
                shown += 1
                taken.add(int(top.index[at]))
                rows.append(
                    {
                        "position": len(rows),
                        "sample": int(top.index[at]),
                        "group": group,
                        "kl_total": float(top.columns["kl"][at]),
                    }
                )
                inputs.append(top.columns["inputs"][at])
                reconstructions.append(top.columns["reconstructions"][at])
        return Result(
            tables={"gallery": pd.DataFrame(rows)},
            arrays={
                "gallery_inputs": np.stack(inputs),
                "gallery_reconstructions": np.stack(reconstructions),
                "gallery_empty": to_numpy(state["empty"].columns["image"][0]),
            },
        )


def _first(obs: Observation) -> object:
    return None if obs.context is None else obs.context[:1]
