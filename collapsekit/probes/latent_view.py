"""Latent view: the posterior means in the plane that shows most of their spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from collapsekit.errors import Unavailable
from collapsekit.findings import Code
from collapsekit.number import Headline
from collapsekit.observation import Observation, Source
from collapsekit.probe import States
from collapsekit.results import Result
from collapsekit.streaming import Array, Rows

_LARGEST = 1e100  # whose squares, and sums of them, are numbers


@dataclass(frozen=True)
class LatentView:
    """Table `latent_view`: first two principal components of the means, in prior scales."""

    limit: int | None = 2000
    most_dimensions: int = 4096

    name: ClassVar[str] = "latent_view"
    source: ClassVar[Source] = "population"
    codes: ClassVar[tuple[Code, ...]] = ()
    headlines: ClassVar[tuple[Headline, ...]] = ()

    def observe(self, obs: Observation) -> States:
        """The rows' means."""
        if obs.posterior.dims > self.most_dimensions:
            raise Unavailable(
                "too many dimensions for principal components",
                got=str(obs.posterior.dims),
                expected=f"at most {self.most_dimensions}",
            )
        return {"rows": Rows(obs.index, mean=obs.standard_mean, kl_total=obs.kl_total)}

    def conclude(self, state: States) -> Result:
        """Coordinates with a fixed sign, and the share of variance that the plane shows."""
        rows: Rows = state["rows"]
        mean = rows.column("mean")
        # Rows whose squares are numbers: no plane holds the others.
        known = (np.abs(mean) < _LARGEST).all(axis=1)
        mean = mean[known]
        x = y = np.zeros(0)
        share = 0.0
        if len(mean):
            x, y, share = _plane(mean - mean.mean(axis=0))
        table = pd.DataFrame(
            {
                "sample": rows.index[known],
                "x": x,
                "y": y,
                "kl_total": rows.column("kl_total")[known],
                "share": np.full(len(x), share),
            }
        )
        return Result(tables={"latent_view": table})


def _plane(centred: Array) -> tuple[Array, Array, float]:
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    scores = left * singular
    # A component's sign is arbitrary: make the largest score positive, so equal runs look equal.
    largest = np.abs(scores).argmax(axis=0)
    scores = scores * np.where(scores[largest, np.arange(scores.shape[1])] < 0, -1.0, 1.0)
    x = scores[:, 0]
    y = scores[:, 1] if scores.shape[1] > 1 else np.zeros(len(x))
    total = float((singular**2).sum())
    share = float((singular[:2] ** 2).sum()) / total if total > 0 else 0.0
    return x, y, share
