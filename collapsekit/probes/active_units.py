"""Active units: dimensions whose posterior mean moves with the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from collapsekit.findings import Code, Evidence, Finding, Severity
from collapsekit.number import Headline, Number
from collapsekit.observation import Observation, Source
from collapsekit.posteriors import turns, whitened_mean
from collapsekit.probe import States, measure
from collapsekit.probes._spread import along_directions
from collapsekit.results import Result
from collapsekit.streaming import Array, Bootstrap, Comoments, Grouped, Moments, keyed_groups

ACTIVE = Code(
    id="CK201",
    title="Active units",
    meaning="A latent dimension is active when its posterior mean varies over the data by more "
    "than a threshold, in units of the prior's variance. The threshold is a convention: "
    "rescaling a latent moves its variance, and a dimension may carry information by its width "
    "alone. So the whole curve is shown, and the count alone never decides a verdict. A code with "
    "full-covariance posteriors under a Gaussian prior has no axes of its own: a rotation, which "
    "changes nothing else, would change the count. There the units are directions, and what is "
    "active along the axes is told beside them.",
    formula="A_j = Var_i(mu_ij) / prior variance (unbiased); active where A_j > 0.01. Limits of "
    "the count: each unit's variance at its bootstrap 95 % ends. Of directions: the variance of "
    "the means, in units in which the prior is N(0, I), along the eigenvectors of their "
    "covariance, each of 20 groups of samples judged along the directions of the other 19; limits: "
    "that variance and the eigenvalue, 95 % around them.",
    remedy="Lower beta, warm it up, or add the latent reconstruction loss; then read the writes "
    "and reads table before pruning anything.",
    source="Burda, Grosse, Salakhutdinov 2016, arXiv 1509.00519, section 5; Lam 2016, "
    "Ann. Statist. 44 (eigenvalues of a covariance from a split of the samples)",
)


@dataclass(frozen=True)
class ActiveUnits:
    """`mean_variance`, `signal_fraction`, `active` per dimension; `active_units`, its curve.

    Of codes with full-covariance posteriors the count and its curve are those of directions, in the
    table `active_directions`; the columns stay those of the axes.
    """

    threshold: float = 0.01  # prior variances
    expected_fraction: float = 0.8  # below this share of active units the finding warns

    name: ClassVar[str] = "active_units"
    source: ClassVar[Source] = "data"
    limit: ClassVar[int | None] = None
    codes: ClassVar[tuple[Code, ...]] = (ACTIVE,)
    headlines: ClassVar[tuple[Headline, ...]] = (
        Headline("active_units", "Active units", "up"),
        Headline("active_fraction", "Share of units active", "up"),
    )

    def observe(self, obs: Observation) -> States:
        """Moments of the means and of the variances, in units of the prior."""
        mean = obs.standard_mean
        states: States = {
            "mean": Moments.of(mean),
            "width": Moments.of(obs.standard_width**2),
            "bootstrap": Bootstrap.of(mean, obs.index.to(mean.device), mean[0] * 0),
        }
        if turns(obs.posterior, obs.prior):
            turning = whitened_mean(obs.posterior, obs.prior)
            states["groups"] = Grouped.of(
                keyed_groups(obs.index), lambda rows: Comoments.of(turning[rows])
            )
        return states

    def conclude(self, state: States) -> Result:
        """Counts with intervals."""
        variance = state["mean"].variance
        n, dims = int(state["mean"].n.max(initial=0)), len(variance)
        low, high = limits = state["bootstrap"].limits
        dimensions = pd.DataFrame(
            {
                "mean_variance": variance,
                "mean_variance_low": np.minimum(low, variance),
                "mean_variance_high": np.maximum(high, variance),
                "signal_fraction": variance / (variance + state["width"].mean),
            },
            index=pd.RangeIndex(dims, name="dimension"),
        )
        spread, note = variance, "limits: each unit's variance at its bootstrap 95 % ends"
        if turning := "groups" in state:
            spread, limits = along_directions(state["groups"])
            axes = int((variance > self.threshold).sum())
            note = f"along directions of the means, {axes} along the axes; limits: 95 % in each"
        note = f"threshold {self.threshold:g} prior variances; {note}"
        count = _count("active_units", spread, limits, self.threshold, n, note)
        fraction = Number(
            "active_fraction",
            count.value / dims,
            count.low / dims,
            count.high / dims,
            "share",
            n,
            f"of {dims} dimensions; {note}",
        )
        if not np.isfinite(variance).all():
            return Result(numbers=(count, fraction), dimensions=dimensions)
        dimensions["active"] = variance > self.threshold
        tables = {"active_units_curve": _curve(spread, limits, np.logspace(-4, 1, 101))}
        if turning:
            tables["active_directions"] = _table(spread, limits)
        return Result(
            numbers=(count, fraction),
            dimensions=dimensions,
            findings=(self._judge(fraction, spread, variance, turning=turning),),
            tables=tables,
        )

    def _judge(self, fraction: Number, spread: Array, variance: Array, *, turning: bool) -> Finding:
        at = {k: int((spread > self.threshold * k).sum()) for k in (0.1, 1.0, 10.0)}
        what = "directions of the means" if turning else "units"
        told = (
            f"{at[1.0]} of {len(spread)} {what} are active at {self.threshold:g}; {at[0.1]} at a "
            f"tenth of that threshold, {at[10.0]} at ten times."
        )
        axes: Array = variance > self.threshold
        if turning:  # directions are no dimensions: their numbers would be read as axes
            told += f" Along the axes, one basis of many, {int(axes.sum())} are."
        return ACTIVE.finding(
            Severity.OK if fraction.high >= self.expected_fraction else Severity.WARN,
            told,
            evidence=[Evidence(fraction, self.expected_fraction, ">=")],
            dimensions=() if turning else np.flatnonzero(~axes),
        )


def _table(spread: Array, limits: Array) -> pd.DataFrame:
    low, high = limits
    return pd.DataFrame(
        {"direction": np.arange(len(spread)), "variance": spread, "low": low, "high": high}
    )


def _count(
    name: str, variance: Array, limits: Array, threshold: float, n: int, note: str
) -> Number:
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
