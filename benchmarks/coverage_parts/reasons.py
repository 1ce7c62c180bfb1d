"""What is measured about intervals that hold the truth more often than they have to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.stats import binom

from collapsekit.intervals import Z95, mean_number, quantile_number, wilson
from collapsekit.number import Number
from collapsekit.results import Audit
from collapsekit.streaming import Array, Skewed

Ends = tuple[float, float]
#: Of an audit and the headline: the interval without what widens it.
Plain = Callable[[Audit, Number], Ends]


def _column(audit: Audit, name: str) -> Array:
    values = audit.samples[name].to_numpy(dtype=np.float64, na_value=np.nan)
    found: Array = values[np.isfinite(values)]
    return found


def _mean(column: str) -> Plain:
    def plain(audit: Audit, number: Number) -> Ends:
        alone = mean_number("", Skewed.of(_column(audit, column)), "")
        return alone.low, alone.high

    return plain


def _quantile(share: float) -> Plain:
    def plain(audit: Audit, number: Number) -> Ends:
        alone = quantile_number("", _column(audit, "lower_lipschitz"), share, "")
        return alone.low, alone.high

    return plain


def _share(audit: Audit, number: Number) -> Ends:
    return wilson(round(number.value * number.n), number.n)


#: For a headline what its interval is without the widening, and what that leaves out.
PLAIN: dict[str, tuple[str, Plain]] = {
    "mutual_information": ("its lower bound alone", _mean("pointwise_information")),
    "inference_gap": ("without the move", _mean("inference_gap")),
    "log_likelihood_bound": ("without the move", _mean("log_likelihood_bound")),
    "model_information": ("over samples alone", _mean("model_information")),
    "lower_lipschitz": ("by ranks of n", _quantile(0.5)),
    "lower_lipschitz_low": ("by ranks of n", _quantile(0.05)),
    "told_by_mean_fraction": ("Wilson of n", _share),
    "collision_fraction": ("Wilson of n", _share),
    "folded_fraction": ("Wilson of n", _share),
    "saturated_fraction": ("Wilson over samples alone", _share),
}
#: Headlines clipped at 0 in every dimension, and the column that is clipped.
CLIPPED = ("round_trip_r2", "round_trip_r2_prior", "robust_round_trip_r2")


def unclipped(audit: Audit, name: str) -> float:
    """The mean over dimensions without its clip."""
    return float(audit.dimensions[name].mean())


def wilson_coverage(share: float, n: int) -> float:
    """How often Wilson's interval of n independent samples holds the share: by enumeration."""
    count = np.arange(n + 1)
    ends = np.array([wilson(int(k), n) for k in count])
    inside = (ends[:, 0] <= share + 1e-12) & (share - 1e-12 <= ends[:, 1])
    return float(binom.pmf(count, n, share)[inside].sum())


def measured(numbers: Sequence[Number], truth: Sequence[float]) -> dict[str, Any]:
    """Of one headline over all replications, what can explain a coverage above its level.

    `same` is the share of replications that read the commonest value; `alone` how often the truth
    lies within 1.96 standard deviations of the value; `wilson` the coverage of Wilson's interval
    by enumeration, where it is one; `width` the mean length of the intervals over that of 1.96
    standard deviations on either side.
    """
    values = np.array([number.value for number in numbers])
    known = values[np.isfinite(values)]
    found: dict[str, Any] = {}
    if not len(known):
        return found
    step = 1e-9 * max(float(np.abs(known).max()), 1e-3)  # equal but for rounding
    counts = np.unique(np.round(known / step), return_counts=True)[1]
    found["same"] = float(counts.max() / len(values))
    spread = float(values.std())
    if spread > step:
        length = float(np.mean([number.high - number.low for number in numbers]))
        found["width"] = length / (2 * Z95 * spread)
        off = np.abs(values - np.asarray(truth))
        found["alone"] = float((off <= Z95 * spread).mean())
    if "Wilson" in numbers[0].note and numbers[0].unit == "share":
        sizes = [number.n for number in numbers]
        found["wilson"] = wilson_coverage(float(np.mean(truth)), round(float(np.median(sizes))))
    return {name: value for name, value in found.items() if not math.isnan(value)}
