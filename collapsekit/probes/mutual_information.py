"""Mutual information between input and code, bracketed from both sides, and re-identification."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from collapsekit.door import INPUT
from collapsekit.findings import Code, Evidence, Finding, Severity
from collapsekit.independent import independent
from collapsekit.intervals import Z95, mean_number, show_all
from collapsekit.kernels.mixture import spot_check
from collapsekit.number import Headline, Number
from collapsekit.observation import Observation, Source
from collapsekit.probe import States, measure
from collapsekit.results import Result
from collapsekit.streaming import Constant, Moments, Rows, Skewed

INFORMATION = Code(
    id="CK401",
    title="Mutual information",
    meaning="How many nats about the input are in its code, once what all codes share is taken "
    "away. A constant posterior far from the prior has a large KL and no information; this is "
    "the number that notices. It is reported as a bracket: a lower bound that cannot exceed the "
    "logarithm of the number of samples, and an upper bound. Below the top group of a hierarchical "
    "model it is about the input and the drawn groups above together: noise of those above counts.",
    formula="lower L = mean_i [ln q_i(z_i) - ln (1/N) sum_j q_j(z_i)], z_i ~ q_i; upper U the "
    "same over the distinct inputs, the own one left out, and their number less 1; reported "
    "[max(0, L), min(U, R)] widened by two standard errors on each side.",
    remedy="With no information in the code, weaken the decoder or lower beta; if the KL is "
    "large all the same, the encoder ignores its input.",
    source="Hoffman & Johnson 2016; Poole et al. 2019, arXiv 1905.06922, equations 2 and 12",
)
SATURATED = Code(
    id="CK402",
    title="Information saturated",
    meaning="N distinct samples can tell at most ln N nats apart. When the lower bound comes close "
    "to that ceiling it says only that the samples are nearly all distinguishable; the information "
    "may be far larger. How the rate splits into information and overlap is then not identified "
    "either.",
    formula="L > 0.9 ln N, N the distinct inputs",
    remedy="Quote the bracket, not the value; audit more samples to raise the ceiling.",
    source="McAllester & Stratos 2020; Poole et al. 2019",
)


@dataclass(frozen=True)
class MutualInformation:
    """`pointwise_information`, `reidentification` per sample; `mutual_information` as a bracket."""

    limit: int | None = 20_000  # rows; all columns of the population are always used
    least: float = 0.1  # nats
    saturation: float = 0.9  # of ln N
    checked_rows: int = 64  # computed again by direct float64 differences

    name: ClassVar[str] = "mutual_information"
    source: ClassVar[Source] = "population"
    codes: ClassVar[tuple[Code, ...]] = (INFORMATION, SATURATED)
    headlines: ClassVar[tuple[Headline, ...]] = (
        Headline("mutual_information", "Information about the input", "up"),
        Headline("reidentification", "Samples that their code identifies", "up"),
    )

    def observe(self, obs: Observation) -> States:
        """Both bounds of every row, from the one kernel pass."""
        k = obs.population.size
        pointwise, upper, share = obs.information
        columns = obs.population.columns
        dtype, deviation = "float64", 0.0
        first = obs.rows < self.checked_rows
        if columns is not None:
            checked = spot_check(
                columns,
                obs.z[first],
                torch.as_tensor(obs.rows[first], device=obs.z.device),
                obs.log_others[first],
                rows=self.checked_rows,
            )
            dtype, deviation = checked.dtype, checked.max_deviation if first.any() else 0.0
        own = obs.population
        facts = k, own.total, dtype, own.most_information, own.distinct.size
        return {
            "rows": Rows(
                obs.index,
                pointwise_information=pointwise,
                reidentification=share,
            ),
            "bounds": Moments.of(pointwise),
            "upper": Rows(obs.index, upper=upper),
            "reidentification": Skewed.of(share),
            "columns": Constant((*facts, columns is not None)),
            "about": Constant(obs.door.about),
            "deviation": Rows(obs.index[:1], deviation=np.array([deviation])),
        }

    def conclude(self, state: States) -> Result:
        """The bracket, whether it is saturated, and what the kernel's spot check found."""
        k, total, dtype, rate, distinct, kernel = state["columns"].value
        moments: Moments = state["bounds"]
        n = int(moments.n[0])
        reidentification = mean_number(
            "reidentification",
            state["reidentification"],
            "share",
            f"between 1/{k:,} (collapsed) and 1",
            least=1 / k,
            most=1.0,
        )
        upper = state["upper"].column("upper")
        number, saturated = bracket(
            moments,
            upper,
            distinct,
            rate,
            self.saturation,
            f"lower and upper bound, ceiling ln {distinct:,}",
        )
        deviation = float(state["deviation"].column("deviation").max())
        note = f"{number.note}; {n:,} of {total:,} samples as rows; "
        note += (
            f"kernel {dtype}, spot check of {min(self.checked_rows, n)} rows within "
            f"{deviation:.1e} nats"
            if kernel
            else "direct sums in float64"
        )
        about = state["about"].value
        note += f"; about {about}" if about != INPUT else ""
        if k < 2:
            return Result(
                numbers=(
                    Number("mutual_information", math.nan, math.nan, math.nan, "nats", n, note),
                )
            )
        number = Number(
            "mutual_information", number.value, number.low, number.high, "nats", n, note
        )
        findings = [self._judge(number, about)]
        if saturated:
            findings.append(
                SATURATED.finding(
                    Severity.INCONCLUSIVE,
                    f"the information estimate is at its ceiling: {distinct:,} distinct samples "
                    f"can show at most {math.log(distinct):.2f} nats. The truth lies between "
                    f"{number.low:.2f} and {number.high:.2f} nats.",
                    evidence=[Evidence(number, self.saturation * math.log(distinct), "<")],
                )
            )
        return Result(
            numbers=(number, reidentification),
            samples=state["rows"].frame(),
            findings=tuple(findings),
        )

    def _judge(self, number: Number, about: str) -> Finding:
        between = f"{number.low:.2f} nats or more"
        if math.isfinite(number.high):
            between = f"between {number.low:.2f} and {number.high:.2f} nats"
        evidence = [Evidence(number, self.least, ">=")]
        if number.high < self.least:
            told = f"the code carries no information about {about}: at most {number.high:.3f} nats"
            sure = show_all(number.n)
            if not sure:
                told += f"; {number.n} samples leave room for others, unlike them"
            return INFORMATION.finding(
                Severity.FAIL if sure else Severity.INCONCLUSIVE,
                f"{told}.",
                evidence=evidence,
                verdict="total",
            )
        if number.low < self.least:
            return INFORMATION.finding(
                Severity.INCONCLUSIVE,
                f"the information about {about} is {between}, on both sides of {self.least:g}.",
                evidence=evidence,
                verdict="total",
            )
        return INFORMATION.finding(
            Severity.OK,
            f"the code carries {between} about {about}.",
            evidence=evidence,
            verdict="healthy",
        )


def bracket(
    moments: Moments,
    upper: np.ndarray,
    k: int,
    rate: tuple[float, float],
    saturation: float,
    note: str,
) -> tuple[Number, bool]:
    """The information bracket from its bounds.

    Parameters
    ----------
    moments : Moments
        Of the pointwise information, whose mean is the lower bound.
    upper : ndarray [n]
        The left-one-out bound of each row.
    k : int
        Distinct inputs; the ceiling is ln k.
    rate : tuple of float
        Mean KL over the whole population, closed form, and its standard error: an upper bound.
    saturation : float
        Share of the ceiling above which the value is flagged.
    note : str

    Returns
    -------
    Number, bool
        value = L clipped into the bracket [max(0, L - 2 se), min(U + 2 se, rate + 2 se)].
    """
    lower, lower_error = float(moments.mean[0]), float(np.nan_to_num(moments.standard_error[0]))
    n = int(moments.n[0])
    finite = np.isfinite(upper).all() and len(upper) > 1
    upper_mean = float(upper.mean()) if finite else math.inf
    upper_error = float(upper.std(ddof=1)) / math.sqrt(independent(n)) if finite else 0.0
    low = max(0.0, lower - 2 * lower_error)
    # Rounding can push a bound that is exactly 0 a hair below it; information is never negative.
    high = max(min(upper_mean + 2 * upper_error, rate[0] + 2 * rate[1]), low, 0.0)
    value = min(max(lower, 0.0), high)
    told = (
        f"{note}, widened by two standard errors; L = {lower:.6g} +- {Z95 * lower_error:.2g}, "
        f"U = {upper_mean:.6g}, rate = {rate[0]:.6g}"
    )
    return Number("information", value, low, high, "nats", n, told), (
        k > 1 and lower > saturation * math.log(k)
    )


def mutual_information(mean: Any, scale: Any, *, prior: Any = None, seed: int = 0) -> Number:
    """Mutual information of samples and codes under given posteriors, as a bracket.

    Parameters
    ----------
    mean, scale : array [N, D]
        All N are used, as rows and as columns; memory stays bounded.
    prior : optional
        Enters through the rate, which is an upper bound of its own.
    seed : int
        Of the one draw a sample.

    Returns
    -------
    Number
        Nats. `value` is the lower bound clipped to [0, high]; `low` and `high` are the bracket.
    """
    obs = Observation.of_arrays(mean, scale, prior=prior, seed=seed)
    return measure(MutualInformation(limit=None), obs).numbers[0]


def pointwise_information(mean: Any, scale: Any, *, seed: int = 0) -> np.ndarray:
    """ln q_i(z_i) - ln q^(z_i) of one draw a sample: nats, float64 [N]; mean = information."""
    return _column("pointwise_information", mean, scale, seed)


def reidentification(mean: Any, scale: Any, *, seed: int = 0) -> np.ndarray:
    """How surely one draw leads back to its sample: float64 [N] in [1/N, 1]; 1/N = collapsed."""
    return _column("reidentification", mean, scale, seed)


def _column(name: str, mean: Any, scale: Any, seed: int) -> np.ndarray:
    obs = Observation.of_arrays(mean, scale, seed=seed)
    rows: Rows = MutualInformation(limit=None).observe(obs)["rows"]
    return rows.column(name)
