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
from collapsekit.intervals import mean_limit, mean_number, show_all, wilson
from collapsekit.kernels.mixture import spot_check
from collapsekit.number import Headline, Number
from collapsekit.observation import Observation, Source
from collapsekit.probe import States, measure
from collapsekit.results import Result
from collapsekit.streaming import Constant, Rows, Skewed

INFORMATION = Code(
    id="CK401",
    title="Mutual information",
    meaning="How many nats about the input are in its code, once what all codes share is taken "
    "away. A constant posterior far from the prior has a large KL and no information; this is "
    "the number that notices. It is reported as a bracket: a lower bound that cannot exceed the "
    "logarithm of the number of samples, and an upper bound. Few samples that tell nothing leave "
    "room for others that do: the upper end is then open. Below the top group of a hierarchical "
    "model it is about the input and the drawn groups above together: noise of those above counts.",
    formula="lower L = mean_i [ln q_i(z_i) - ln (1/N) sum_j q_j(z_i)], z_i ~ q_i; upper U the "
    "same over the distinct inputs, the own one left out, and their number less 1; means over "
    "several z_i a sample where there are at most 256. Reported [max(0, L), min(U, R)], each at "
    "its 97.5 % limit: Student's with its skewness taken out, U and R at 98.75 % since the lower "
    "of the two is taken. No upper end below 73 samples where it would be under 0.1 nat.",
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
            "bounds": Skewed.of(pointwise),
            "upper": Rows(obs.index, upper=upper),
            "reidentification": Skewed.of(share),
            "columns": Constant((*facts, columns is not None)),
            "about": Constant(obs.door.about),
            "deviation": Rows(obs.index[:1], deviation=np.array([deviation])),
        }

    def conclude(self, state: States) -> Result:
        """The bracket, whether it is saturated, and what the kernel's spot check found."""
        k, total, dtype, rate, distinct, kernel = state["columns"].value
        moments: Skewed = state["bounds"]
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
        deviation = float(state["deviation"].column("deviation").max())
        found = bracket(
            moments,
            upper,
            distinct,
            rate,
            self.saturation,
            f"lower and upper bound, ceiling ln {distinct:,}",
            self.least,
            deviation,
        )
        number = found.number
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
        findings = [self._judge(number, about, found.room)]
        if found.saturated:
            findings.append(
                SATURATED.finding(
                    Severity.INCONCLUSIVE,
                    f"the information estimate is at its ceiling: {distinct:,} distinct samples "
                    f"can show at most {math.log(distinct):.2f} nats. The truth is "
                    f"{_between(number)}.",
                    evidence=[Evidence(number, self.saturation * math.log(distinct), "<")],
                )
            )
        return Result(
            numbers=(number, reidentification),
            samples=state["rows"].frame(),
            findings=tuple(findings),
        )

    def _judge(self, number: Number, about: str, room: bool) -> Finding:
        evidence = [Evidence(number, self.least, ">=")]
        if room:
            return INFORMATION.finding(
                Severity.INCONCLUSIVE,
                f"the codes of {number.n} samples carry no information about {about}; so few leave "
                "room for others, unlike them.",
                evidence=evidence,
                verdict="total",
            )
        if number.high < self.least:
            return INFORMATION.finding(
                Severity.FAIL,
                f"the code carries no information about {about}: at most {number.high:.3f} nats.",
                evidence=evidence,
                verdict="total",
            )
        if number.low < self.least:
            return INFORMATION.finding(
                Severity.INCONCLUSIVE,
                f"the information about {about} is {_between(number)}, on both sides of "
                f"{self.least:g}.",
                evidence=evidence,
                verdict="total",
            )
        return INFORMATION.finding(
            Severity.OK,
            f"the code carries {_between(number)} about {about}.",
            evidence=evidence,
            verdict="healthy",
        )


def _between(number: Number) -> str:
    if math.isfinite(number.high):
        return f"between {number.low:.2f} and {number.high:.2f} nats"
    return f"{number.low:.2f} nats or more"


@dataclass(frozen=True)
class Bracket:
    """The information with its ends; whether it is saturated; whether few samples tell nothing.

    Where few samples tell nothing, the upper end is infinite: others may be unlike them.
    """

    number: Number
    saturated: bool
    room: bool


def bracket(
    lower: Skewed,
    upper: np.ndarray,
    k: int,
    rate: tuple[float, float],
    saturation: float,
    note: str,
    least: float = 0.1,
    rounding: float = 0.0,
) -> Bracket:
    """The information bracket from its bounds.

    Parameters
    ----------
    lower : Skewed
        Of the pointwise information, whose mean is the lower bound.
    upper : ndarray [n]
        The left-one-out bound of each row.
    k : int
        Distinct inputs; the ceiling is ln k.
    rate : tuple of float
        `Population.most_information`: mean KL over the whole population, an upper bound, and its
        own limit.
    saturation : float
        Share of the ceiling above which the value is flagged.
    note : str
    least : float
        Nats below which samples tell nothing.
    rounding : float
        The kernel's deviation, nats: a lower end below it is none.

    Returns
    -------
    Bracket
        value = L clipped into the bracket. Ends are 97.5 % limits: of L, and of U and the rate,
        98.75 % each, since the lower of two is taken.
    """
    value, n = float(lower.mean[0]), int(lower.n[0])
    low = max(0.0, mean_limit(lower, 0.025, least=0.0) - rounding) if n > 1 else 0.0
    upper_mean = upper_end = math.inf
    if np.isfinite(upper).all() and len(upper) > 1:
        each = Skewed.of(upper)
        upper_mean = float(each.mean[0])
        upper_end = mean_limit(each, 1 - (0.0125 if math.isfinite(rate[0]) else 0.025))
    saturated = k > 1 and value > saturation * math.log(k)
    if saturated and not show_all(n):
        # All are told apart, so that their spread tells nothing of a share unlike them.
        low = min(low, wilson(independent(n), independent(n))[0] * value)
    high = max(min(upper_end, rate[1]), low, 0.0)  # information is never negative
    bounds = {"L": value, "U": upper_mean, "rate": rate[0]}
    known = (f"{name} = {bound:.6g}" for name, bound in bounds.items() if math.isfinite(bound))
    told = f"{note}, at 97.5 % limits; {', '.join(known)}"
    if not math.isfinite(rate[0]):
        told += "; where each sample has a prior of its own the rate is no bound"
    room = high < least and not show_all(n)
    if room:
        high = math.inf
        told += f"; {n} samples that tell nothing leave the upper end open"
    number = Number("information", min(max(value, low), high), low, high, "nats", n, told)
    return Bracket(number, saturated, room)


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
