"""KL from the prior, per sample and per dimension, and its mean total: the rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from collapsekit.findings import Code, Evidence, Severity
from collapsekit.intervals import mean_number, show_all
from collapsekit.number import Headline
from collapsekit.observation import Observation, Source
from collapsekit.posteriors.divergence import DRAWS
from collapsekit.probe import States
from collapsekit.results import Result
from collapsekit.streaming import Array, Constant, Moments, Rows, Skewed, to_numpy

RATE = Code(
    id="CK101",
    title="Rate",
    meaning="The rate is how many nats the encoder spends, on average, to say which sample it "
    "saw: the KL divergence of the posterior from the prior, summed over dimensions. Near zero "
    "every posterior equals the prior and the code can carry nothing. A large rate alone does "
    "not prove that information flows: a constant posterior away from the prior has one too.",
    formula="R = mean_i sum_j KL(q(z_j | x_i) || p(z_j)) in nats; summed over dimensions, "
    "averaged over samples.",
    remedy="Lower beta or warm it up, or add the latent reconstruction loss; make sure first "
    "that the KL weight is the one you meant.",
    source="Alemi et al. 2018, Fixing a Broken ELBO, arXiv 1711.00464",
)


@dataclass(frozen=True)
class KL:
    """KL(q_i,j || p_j) in nats; columns `kl_total` (samples) and `kl` (dimensions), `rate`.

    Where the KL does not split over dimensions there is no column `kl`; where it is estimated from
    draws, `kl_total_se` is its standard error.
    """

    collapsed_rate: float = 0.1  # nats

    name: ClassVar[str] = "kl"
    source: ClassVar[Source] = "data"
    limit: ClassVar[int | None] = None
    codes: ClassVar[tuple[Code, ...]] = (RATE,)
    headlines: ClassVar[tuple[Headline, ...]] = (
        Headline("rate", "Rate: KL per sample", "neither"),
    )

    def observe(self, obs: Observation) -> States:
        """Totals per sample, moments per dimension."""
        found = obs.divergence
        columns = {"kl_total": found.total}
        if found.error is not None:
            columns["kl_total_se"] = found.error
        states: States = {
            "rows": Rows(obs.index, **columns),
            "total": Skewed.of(found.total),
            "drawn": Constant(found.error is not None),
        }
        if found.each is not None:
            states["dimensions"] = Moments.of(found.each)
        return states

    def conclude(self, state: States) -> Result:
        """The rate and its split over dimensions."""
        note = "summed over dimensions"
        if state["drawn"].value:
            note = f"the whole code; Monte Carlo with {DRAWS} draws a sample, whose error it holds"
        rate = mean_number("rate", state["total"], "nats", note, least=0.0)
        all_alike = math.isinf(rate.high)  # too few rows, of one value: see `mean_limit`
        settled = all_alike or not rate.straddles(self.collapsed_rate)
        if rate.value < self.collapsed_rate and settled:
            severity, verdict = Severity.FAIL, "total"
            message = f"the posterior equals the prior: the rate is {rate.digits()} nats a sample."
            if not show_all(rate.n):
                severity = Severity.INCONCLUSIVE
                message = f"{message[:-1]}; {rate.n} samples leave room for others, unlike them."
        elif rate.straddles(self.collapsed_rate):
            severity, verdict = Severity.INCONCLUSIVE, "total"
            message = (
                f"the rate is {rate.digits()} nats{rate.interval()}, on both sides of "
                f"{self.collapsed_rate:g}."
            )
        else:
            severity, verdict = Severity.OK, "healthy"
            message = f"the encoder spends {rate.digits()} nats a sample{rate.interval()}."
        finding = RATE.finding(
            severity,
            message,
            evidence=[Evidence(rate, self.collapsed_rate, ">=")],
            verdict=verdict,
        )
        return Result(
            numbers=(rate,),
            samples=state["rows"].table(),
            dimensions=_by_dimension(state["dimensions"]) if "dimensions" in state else None,
            findings=(finding,),
        )


def _by_dimension(moments: Moments) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "kl": moments.mean,
            "kl_se": moments.standard_error,
            "kl_std": np.sqrt(moments.variance),
        },
        index=pd.RangeIndex(len(moments.mean), name="dimension"),
    )


def kl(mean: Any, scale: Any, *, prior: Any = None) -> Array:
    """KL divergence of each posterior from the prior, per dimension.

    Parameters
    ----------
    mean, scale : array [N, D]
    prior : optional
        (mean, scale) with one value a dimension; N(0, I) by default.

    Returns
    -------
    ndarray, float64 [N, D]
        Nats. Sum over axis 1 for the KL of a sample; the mean of that is the rate.

    Raises
    ------
    ModelError
        Shapes differ or no row is usable.
    """
    obs = Observation.of_arrays(mean, scale, prior=prior)
    out = np.empty((len(obs), obs.posterior.dims))
    out[obs.index.numpy()] = to_numpy(obs.kl)
    return out
