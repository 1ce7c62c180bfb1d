"""Active units: dimensions whose posterior mean moves with the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from collapsekit.findings import Code, Evidence, Severity
from collapsekit.number import Headline, Number
from collapsekit.observation import Observation, Source
from collapsekit.probe import States, measure
from collapsekit.results import Result
from collapsekit.streaming import Array, Bootstrap, Moments

ACTIVE = Code(
    id="CK201",
    title="Active units",
    meaning="A latent dimension is active when its posterior mean varies over the data by more "
    "than a threshold, in units of the prior's variance. The threshold is a convention: "
    "rescaling a latent moves its variance, and a dimension may carry information by its width "
    "alone. So the whole curve is shown, and the count alone never decides a verdict.",
    formula="A_j = Var_i(mu_ij) / prior variance (unbiased); active where A_j > 0.01. Limits of "
    "the count: each unit's variance at its bootstrap 95 % ends.",
    remedy="Lower beta, warm it up, or add the latent reconstruction loss; then read the writes "
    "and reads table before pruning anything.",
    source="Burda, Grosse, Salakhutdinov 2016, arXiv 1509.00519, section 5",
)


@dataclass(frozen=True)
class ActiveUnits:
    """`mean_variance`, `signal_fraction`, `active` per dimension; `active_units`, its curve."""

    threshold: float = 0.01  # prior variances
    expected_fraction: float = 0.8  # below this share of active units the finding warns

    name: ClassVar[str] = "active_units"
    source: ClassVar[Source] = "data"
    limit: ClassVar[int | None] = None
    codes: ClassVar[tuple[Code, ...]] = (ACTIVE,)
    headlines: ClassVar[tuple[Headline, ...]] = (
        Headline("active_units", "Active units"),
        Headline("active_fraction", "Share of units active"),
    )

    def observe(self, obs: Observation) -> States:
        """Moments of the means and of the variances, in units of the prior."""
        mean = obs.standard_mean
        return {
            "mean": Moments.of(mean),
            "width": Moments.of(obs.standard_width**2),
            "bootstrap": Bootstrap.of(mean, obs.index.to(mean.device), mean[0] * 0),
        }

    def conclude(self, state: States) -> Result:
        """Counts with intervals."""
        variance = state["mean"].variance
        width = state["width"].mean
        n, dims = int(state["mean"].n.max(initial=0)), len(variance)
        known = bool(np.isfinite(variance).all())
        limits = state["bootstrap"].limits
        thresholds = np.logspace(-4, 1, 101)
        curve = _curve(variance, limits, thresholds)
        count = _count("active_units", variance, limits, self.threshold, n)
        fraction = Number(
            "active_fraction",
            count.value / dims,
            count.low / dims,
            count.high / dims,
            "share",
            n,
            f"of {dims} dimensions; {count.note}",
        )
        low, high = limits
        dimensions = pd.DataFrame(
            {
                "mean_variance": variance,
                "mean_variance_low": np.minimum(low, variance),
                "mean_variance_high": np.maximum(high, variance),
                "signal_fraction": variance / (variance + width),
            },
            index=pd.RangeIndex(dims, name="dimension"),
        )
        if not known:
            return Result(numbers=(count, fraction), dimensions=dimensions)
        dimensions["active"] = variance > self.threshold
        ends = {k: int((variance > self.threshold * k).sum()) for k in (0.1, 10.0)}
        finding = ACTIVE.finding(
            Severity.OK if fraction.high >= self.expected_fraction else Severity.WARN,
            f"{int(count.value)} of {dims} units are active at {self.threshold:g}; "
            f"{ends[0.1]} at a tenth of that threshold, {ends[10.0]} at ten times.",
            evidence=[Evidence(fraction, self.expected_fraction, ">=")],
            dimensions=np.flatnonzero(variance <= self.threshold),
        )
        return Result(
            numbers=(count, fraction),
            dimensions=dimensions,
            findings=(finding,),
            tables={"active_units_curve": curve},
        )


def _count(name: str, variance: Array, limits: Array, threshold: float, n: int) -> Number:
    note = (
        f"threshold {threshold:g} prior variances; limits: each unit's variance at its bootstrap "
        "95 % ends"
    )
    if not np.isfinite(variance).all():
        return Number(name, np.nan, np.nan, np.nan, "dimensions", n, note)
    value = float((variance > threshold).sum())
    # Limits unit by unit: counting within replicates would repeat the sample's own error.
    low, high = ((ends > threshold).sum() for ends in limits)
    return Number(
        name, value, float(min(low, value)), float(max(high, value)), "dimensions", n, note
    )


def _curve(variance: Array, limits: Array, thresholds: Array) -> pd.DataFrame:
    def above(values: Array) -> Array:
        counts: Array = len(values) - np.searchsorted(np.sort(values), thresholds, side="right")
        return counts

    count = above(variance)
    low, high = (above(ends) for ends in limits)
    return pd.DataFrame(
        {
            "threshold": thresholds,
            "count": count,
            "low": np.minimum(low, count),
            "high": np.maximum(high, count),
        }
    )


def active_units(mean: Any, *, threshold: float = 0.01) -> Number:
    """Count the latent dimensions whose posterior mean varies by more than `threshold`.

    Parameters
    ----------
    mean : array [N, D]
        Posterior means in units of the prior's scale.
    threshold : float
        On the variance of the mean (Burda et al. 2016 use 0.01).

    Returns
    -------
    Number
        In dimensions, with a bootstrap interval over samples; NaN for one sample.
    """
    mean = np.asarray(mean, dtype=np.float64)
    obs = Observation.of_arrays(mean, np.ones_like(mean))
    return measure(ActiveUnits(threshold=threshold), obs).numbers[0]


def mean_variance(mean: Any) -> Array:
    """Variance over samples of each posterior mean: [D], in the units of `mean` squared."""
    mean = np.asarray(mean, dtype=np.float64)
    return Moments.of(mean).variance


def signal_fraction(mean: Any, scale: Any) -> Array:
    """Share of each dimension's variance that is signal: [D] in [0, 1], whatever its scale.

    Var_i(mu_ij) / (Var_i(mu_ij) + mean_i sigma_ij^2); 0 where the mean never moves.
    """
    variance = mean_variance(mean)
    width: Array = np.mean(np.asarray(scale, dtype=np.float64) ** 2, axis=0)
    share: Array = variance / (variance + width)
    return share
