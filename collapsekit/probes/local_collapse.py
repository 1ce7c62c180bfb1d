"""Local posterior collapse: samples whose posterior says next to nothing about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch

from collapsekit.findings import Code, Evidence, Severity
from collapsekit.intervals import share_number, wilson_arrays
from collapsekit.number import Number
from collapsekit.observation import Observation, Source
from collapsekit.probe import States, measure
from collapsekit.results import Result
from collapsekit.streaming import Rows

LOCAL = Code(
    id="CK301",
    title="Locally collapsed samples",
    meaning="Collapse is a property of a data point, not only of a model: at some inputs the "
    "posterior is the prior though elsewhere it is not. A sample is locally collapsed when its "
    "whole code carries less than one nat.",
    formula="locally_collapsed[i] = (sum_j KL_ij < 1 nat), with a Wilson interval on its share; "
    "the curve shows the share below every threshold from 0.01 to 10 nats.",
    remedy="Look at who they are (labels, gallery). Latent reconstruction empties this count "
    "reliably; KL annealing and longer training often do too.",
    source="Song, Kim, Lee 2025, arXiv 2508.12530; the 1 nat bar is collapsekit's",
)


@dataclass(frozen=True)
class LocalCollapse:
    """`active_dims`, `collapsed_fraction`, `locally_collapsed`, `prior_matched` per sample."""

    bar: float = 1.0  # nats in a sample's whole code
    epsilon: float = 0.01  # nats in one dimension
    local_share: float = 0.05
    total_share: float = 0.95

    name: ClassVar[str] = "local_collapse"
    source: ClassVar[Source] = "data"
    limit: ClassVar[int | None] = None
    codes: ClassVar[tuple[Code, ...]] = (LOCAL,)

    def observe(self, obs: Observation) -> States:
        """What each sample's code carries."""
        active = (obs.kl >= self.epsilon).sum(dim=1)
        rows = Rows(
            obs.index,
            kl_total=obs.kl_total,
            active_dims=active,
            collapsed_fraction=1.0 - active.to(torch.float64) / obs.posterior.dims,
            locally_collapsed=obs.kl_total < self.bar,
            prior_matched=active == 0,
        )
        return {"rows": rows}

    def conclude(self, state: States) -> Result:
        """The share of locally collapsed samples and its curve over thresholds."""
        frame = state["rows"].frame()
        n, count = len(frame), int(frame["locally_collapsed"].sum())
        share = share_number(
            "locally_collapsed_fraction", count, n, f"KL of a sample below {self.bar:g} nat"
        )
        told = f"{count:,} of {n:,} samples carry less than {self.bar:g} nat"
        limits = f"{share.value:.1%}; 95 % interval {share.low:.1%} to {share.high:.1%}"
        if share.low >= self.total_share:
            severity, verdict = Severity.FAIL, "total"
        elif share.low >= self.local_share:
            severity, verdict = Severity.FAIL, "local"
        elif share.straddles(self.local_share):
            severity, verdict = Severity.INCONCLUSIVE, "inconclusive"
        else:
            severity, verdict = Severity.OK, "healthy"
        finding = LOCAL.finding(
            severity,
            f"{told} ({limits}).",
            evidence=[Evidence(share, self.local_share, "<")],
            verdict=verdict,
            samples=frame.index[frame["locally_collapsed"]],
        )
        return Result(
            numbers=(share,),
            samples=frame.drop(columns="kl_total"),
            findings=(finding,),
            tables={"local_collapse_curve": _curve(frame["kl_total"])},
        )


def _curve(kl_total: pd.Series) -> pd.DataFrame:
    thresholds = np.logspace(-2, 1, 61)
    values = np.sort(kl_total.to_numpy())
    count = np.searchsorted(values, thresholds, side="left")
    low, high = wilson_arrays(count, len(values))
    return pd.DataFrame(
        {"threshold": thresholds, "share": count / len(values), "low": low, "high": high}
    )


def local_collapse(mean: Any, scale: Any, *, bar: float = 1.0, prior: Any = None) -> Number:
    """Share of samples whose whole code carries less than `bar` nats.

    Parameters
    ----------
    mean, scale : array [N, D]
    bar : float
        Nats.
    prior : optional

    Returns
    -------
    Number
        A share with its Wilson interval.
    """
    obs = Observation.of_arrays(mean, scale, prior=prior)
    return measure(LocalCollapse(bar=bar), obs).numbers[0]
