"""How the KL spreads over samples: quantiles per dimension, and the sample x dimension map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch

from collapsekit.findings import Code
from collapsekit.number import Headline
from collapsekit.observation import Observation, Source
from collapsekit.probe import States, measure
from collapsekit.results import Result
from collapsekit.streaming import Rows, to_numpy


@dataclass(frozen=True)
class KLDistribution:
    """Quantiles of kl[i, j] per dimension and the first rows themselves, from the population."""

    limit: int | None = 4096
    most_values: int = 1 << 22  # rows times dimensions that are kept

    name: ClassVar[str] = "kl_distribution"
    source: ClassVar[Source] = "population"
    codes: ClassVar[tuple[Code, ...]] = ()
    headlines: ClassVar[tuple[Headline, ...]] = ()

    def observe(self, obs: Observation) -> States:
        """The rows themselves, in single precision where they fit: looked at, not computed with."""
        kept = obs.rows < max(self.most_values // obs.posterior.dims, 16)
        kl = obs.kl[torch.as_tensor(kept, device=obs.kl.device)]
        if not bool((kl > torch.finfo(torch.float32).max).any()):
            kl = kl.to(torch.float32)
        return {"rows": Rows(to_numpy(obs.index)[kept], kl=kl)}

    def conclude(self, state: States) -> Result:
        """Columns `kl_q05`, `kl_median`, `kl_q95`; table `kl_map`."""
        rows: Rows = state["rows"]
        kl = rows.column("kl")
        with np.errstate(invalid="ignore"):  # between two infinite ones; the engine tells them
            low, median, high = np.quantile(kl.astype(np.float64), [0.05, 0.5, 0.95], axis=0)
        dimensions = pd.DataFrame(
            {"kl_q05": low, "kl_median": median, "kl_q95": high},
            index=pd.RangeIndex(kl.shape[1], name="dimension"),
        )
        table = pd.DataFrame(
            kl,
            index=pd.Index(rows.index, name="sample"),
            columns=[str(j) for j in range(kl.shape[1])],
        )
        return Result(dimensions=dimensions, tables={"kl_map": table})


def kl_distribution(mean: Any, scale: Any, *, prior: Any = None) -> pd.DataFrame:
    """Quantiles over samples of each dimension's KL from the prior.

    Parameters
    ----------
    mean, scale : array [N, D]
    prior : optional

    Returns
    -------
    DataFrame
        `kl_q05`, `kl_median`, `kl_q95` per dimension, nats.
    """
    obs = Observation.of_arrays(mean, scale, prior=prior)
    table = measure(KLDistribution(limit=None), obs).dimensions
    assert table is not None
    return table
