"""Intervals: the few ways in which a headline says how sure it is."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import binom
from scipy.stats import t as student

from collapsekit.independent import alike as rows_to_one
from collapsekit.independent import independent
from collapsekit.number import Z95 as Z95
from collapsekit.number import Number
from collapsekit.streaming import Array, Jackknife, Skewed

_ALIKE = 1e-6  # of a mean: a standard error below is rounding


def mean_number(
    name: str,
    moments: Skewed,
    unit: str,
    note: str = "",
    column: int = 0,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    found: Jackknife | None = None,
) -> Number:
    """A mean with its 95 % interval from standard error and skewness.

    Means of skewed values (the KL of a few samples in use among idle ones) are skewed themselves
    at some hundreds of samples, and a symmetric interval misses on one side. Hall's transformation
    takes the skewness out of Student's ratio (Hall 1992, "On the removal of skewness by
    transformation"); without skewness it is Student's interval. `least` and `most` bound the
    quantity, and so the interval. `found` is a jackknife of blocks, whose error is taken where
    neighbours share a sample.
    """
    value, n = float(moments.average[column]), int(moments.n[column])
    low, high = (mean_limit(moments, share, column, least, most, found) for share in (0.025, 0.975))
    told = "95 % interval, Student's with its skewness taken out" + (f"; {note}" if note else "")
    return Number(name, value, *within(low, value, high, least, most), unit, n, told)


def mean_limit(
    moments: Skewed,
    share: float,
    column: int = 0,
    least: float = -math.inf,
    most: float = math.inf,
    found: Jackknife | None = None,
) -> float:
    """The limit below which a mean lies with probability `share`: one end of `mean_number`.

    Values without any spread have no error to tell a limit by. Few of them (`show_all`) leave room
    for a share of others, whose values are only known to lie in [least, most].
    """
    value, error = float(moments.average[column]), float(moments.standard_error[column])
    n = int(moments.n[column])
    freedom = independent(n) - 1
    if found is not None:
        error, freedom = float(found.error), found.groups - 1
    if error <= _ALIKE * abs(value) and not show_all(n):
        others, beyond = 1 - wilson(independent(n), independent(n))[0], least
        if share > 0.5:
            beyond = most
        return (1 - others) * value + others * beyond
    lean = float(moments.skewness[column]) / math.sqrt(independent(max(n, 1)))
    end = float(student.ppf(share, max(freedom, 1)))
    return value - error * _unskewed(-end, lean)


def _unskewed(ratio: float, lean: float) -> float:
    """Student's ratio at which Hall's transformation takes the value `ratio`.

    `lean` is the skewness over sqrt(n); the transformation is T + lean (T^2 / 3 + 1 / 6) + lean^2
    T^3 / 27, which rises everywhere.
    """
    if abs(lean) < 1e-6:  # the formula divides by it
        return ratio
    return float(np.cbrt(1 + lean * (ratio - lean / 6)) - 1) * 3 / lean


def within(low: float, value: float, high: float, least: float, most: float) -> tuple[float, float]:
    """An interval cut at the ends of what is possible; it still holds its value.

    A quantity that cannot leave [least, most] is covered by the cut interval as often as by the
    whole one. NaN, an end that is not known, stays.
    """
    if low < least:
        low = min(least, value)
    if high > most:
        high = max(most, value)
    return low, high


def jackknife_number(
    name: str,
    found: Jackknife,
    unit: str,
    n: int,
    note: str = "",
    *,
    least: float = -math.inf,
    most: float = math.inf,
) -> Number:
    """A value with its jackknife interval: Student's t, about the value less its bias.

    The value itself stays as defined over the samples; the interval is moved by the bias (of a
    ratio of moments at small n, say) and widened to hold the value. Both are cut where the quantity
    cannot be (`least`, `most`), an unbiased estimate beyond them as well: cut before the jackknife,
    it would hide its error.
    """
    value, error, bias = (float(x) for x in (found.value, found.error, found.bias))
    half = float(half_width(found))
    told = f"95 % interval, jackknife of {found.groups} groups" + (f"; {note}" if note else "")
    low, high = (
        float(np.fmin(value - bias - half, value)),
        float(np.fmax(value - bias + half, value)),
    )
    if not math.isfinite(error):
        low = high = math.nan
    value = min(max(value, least), most)
    low, high = min(low, value), max(high, value)
    return Number(name, value, *within(low, value, high, least, most), unit, n, told)


def half_width(found: Jackknife) -> Array:
    """Half of a jackknife's 95 % interval, of each value: Student's t times the error."""
    half: Array = student.ppf(0.975, max(found.groups - 1, 1)) * np.asarray(found.error)
    return half


def share_number(
    name: str, count: int, n: int, note: str = "", alike: float = 1.0, perhaps: int = 0
) -> Number:
    """A share with its Wilson 95 % interval (Wilson 1927).

    `alike` is how many samples share one outcome at most, as the two ends of a pair do: the
    interval is that of n / alike independent ones. `perhaps` more may belong to the count: the
    upper end is that of all of them.
    """
    told = "95 % interval, Wilson" + (f"; {note}" if note else "")
    if n == 0:
        return Number(name, math.nan, math.nan, math.nan, "share", 0, told)
    alike *= rows_to_one()
    low, high = wilson(count / alike, n / alike)
    if perhaps:
        high = wilson((count + perhaps) / alike, n / alike)[1]
    return Number(name, count / n, low, high, "share", n, told)


def wilson(count: float, n: float) -> tuple[float, float]:
    """Wilson 95 % interval of count / n; n need not be whole where samples are not independent."""
    share, z2 = count / n, Z95**2 / n
    centre = (share + z2 / 2) / (1 + z2)
    half = math.sqrt(share * (1 - share) * z2 + z2**2 / 4) / (1 + z2)
    return (
        0.0 if count <= 0 else max(centre - half, 0.0),
        1.0 if count >= n else min(centre + half, 1.0),
    )


def show_all(n: float, share: float = 0.95) -> bool:
    """Whether n samples that are all alike show that at least `share` of all samples are: Wilson.

    73 are needed for 0.95. An interval of their mean is no help: where all read the same it has no
    width, whatever n.
    """
    rows = independent(n)
    return wilson(rows, rows)[0] >= share


def wilson_arrays(count: Array, n: int) -> tuple[Array, Array]:
    """Wilson 95 % limits of many counts out of one n."""
    counts = np.asarray(count, dtype=np.float64).ravel() / rows_to_one()
    limits = np.array([wilson(c, independent(n)) for c in counts]).reshape(-1, 2)
    return limits[:, 0], limits[:, 1]


def quantile_number(
    name: str,
    values: Array,
    share: float,
    unit: str,
    note: str = "",
    *,
    least: float = 0.0,
    most: float = math.nan,
    alike: float = 1,
) -> Number:
    """A quantile with the interval between two order statistics, free of any distribution.

    The ranks are those between which a binomial count of values below the quantile falls with 95 %
    probability at least (David and Nagaraja 2003, section 7.1). `least` and `most` are the
    smallest and the largest value possible: the ends where the sample is too small for one of its
    values to serve (a median of fewer than six); NaN for a `most` that does not exist. `alike` is
    how many samples share one value at most, as the two ends of a pair do: ranks are then those of
    n / alike independent ones.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    told = "95 % interval, order statistics" + (f"; {note}" if note else "")
    if not n:
        return Number(name, math.nan, math.nan, math.nan, unit, 0, told)
    alike *= rows_to_one()
    apart = int(n / alike)
    below, above = (int(binom.ppf(tail, apart, share)) for tail in (0.025, 0.975))
    low = float(ordered[math.floor(alike * below) - 1]) if below else least
    value = float(np.quantile(ordered, share))
    high = float(ordered[math.ceil(alike * (above + 1)) - 1]) if above < apart else most
    if math.isnan(high):
        told = "95 % lower end; too few samples for an upper one" + (f"; {note}" if note else "")
    return Number(name, value, low, high, unit, n, told)


def ratio_error(
    numerator: Array, denominator: float, covariance: Array, n: int
) -> tuple[Array, Array]:
    """Ratios of means with delta-method standard errors.

    Parameters
    ----------
    numerator : ndarray [F], denominator : float
        Means of the numerators and of the one denominator.
    covariance : ndarray [F + 1, F + 1]
        Of single draws, the denominator last.
    n : int
    """
    ratio = numerator / denominator
    variance = (
        np.diag(covariance)[:-1] - 2 * ratio * covariance[:-1, -1] + ratio**2 * covariance[-1, -1]
    )
    return ratio, np.sqrt(np.maximum(variance, 0.0) / independent(n)) / abs(denominator)
