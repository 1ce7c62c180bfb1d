"""Contradictions: measures of the same thing that cannot both be right."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from scipy.stats import cauchy

from collapsekit.errors import Unavailable
from collapsekit.findings import Code, Evidence, Severity
from collapsekit.number import Headline, Number
from collapsekit.probe import Tables
from collapsekit.results import Result

CONTRADICTION = Code(
    id="CK602",
    title="Measures contradict each other",
    meaning="KL and activity are computed from the posterior that the model declares. When they "
    "say that the code is unused, and yet the decoder gives each sample back from its posterior "
    "mean, then the declared posterior is usually not the one that the model samples from (a "
    "log-variance used as a scale, a KL computed from another width). Codes drawn from the "
    "declared posterior cannot show this: whatever they do to a likelihood is bounded by their KL "
    "and the decoder's sharpness. An encoder that merely lags behind a sharp decoder is no "
    "contradiction: its means give nothing back. Nor can both sides be right when the encoder "
    "tells samples apart and outputs move from sample to sample, yet not as the samples do: then "
    "encoder and decoder come from two models, or the data are not what they learnt from.",
    formula="unused: rate < 0.1 nat, or no active unit and rate < 1 nat (interval included); given "
    "back: the lower end of told_by_mean_fraction is above 0.5 and above what an honest code of "
    "that rate R could reach in a linear model of Gaussian data, P(|1 - r c| > 2^1/2 (1 - r)), "
    "r = 1 - e^-2R, c standard Cauchy: 0.27 at 0.1 nat, 0.5 at 0.16, 0.94 at 1. Or: rate above "
    "1 nat and the upper end of reconstruction_slope below 0.2, 1 in a matching pair.",
    remedy="Check which width the model's own sampler uses, and declare that one "
    "(parameterisation=...); check that encoder and decoder are of one checkpoint, take the code "
    "in one order and sign, and that the data are prepared as in training; a decoder that draws "
    "noise (CK017) is to return its mean.",
    source="collapsekit; r is the Gaussian rate-distortion function, Cover & Thomas 2006, "
    "section 10.3.2",
)


@dataclass(frozen=True)
class Contradictions:
    """Whether what the KL says of the code agrees with what the decoder makes of its means."""

    least: float = 0.1  # nats of rate below which the code counts as unused
    little: float = 1.0  # the same where no unit is active
    most: float = 0.5  # share of samples given back from their mean
    slope: float = 0.2  # of samples on their outputs; 1 where encoder and decoder match

    name: ClassVar[str] = "contradictions"
    codes: ClassVar[tuple[Code, ...]] = (CONTRADICTION,)
    headlines: ClassVar[tuple[Headline, ...]] = ()

    def read(self, tables: Tables) -> Result:
        """Compare the two sides."""
        numbers = tables.numbers
        told, rate = numbers.get("told_by_mean_fraction"), numbers.get("rate")
        if told is None or rate is None:
            raise Unavailable(
                "contradictions need the rate, and outputs decoded from posterior means",
                expected="rate and told_by_mean_fraction",
                remedy="hand in a decoder beside the encoder",
            )
        active = numbers.get("active_units")
        still = active is not None and active.value == 0
        unused = rate.high < (self.little if still else self.least)
        honest = max(self.most, told_by_honest(max(rate.high, 0.0))) if unused else self.most
        others = (numbers.get(name) for name in ("mutual_information", "swap_gap"))
        evidence = [Evidence(told, honest, "<=") if unused else Evidence(told), Evidence(rate)]
        evidence += [Evidence(n) for n in (active, *others) if n is not None]
        if unused and told.low > honest:
            return Result(
                findings=(
                    CONTRADICTION.finding(
                        Severity.FAIL,
                        f"by its KL the code is unused (rate {rate.digits()} nats), yet its means "
                        f"give {told.value:.0%} of {told.n:,} samples back, where an honest code "
                        f"of that rate gives at most {honest:.0%}.",
                        evidence=evidence,
                        verdict="contradictory",
                    ),
                )
            )
        slope = numbers.get("reconstruction_slope")
        if slope is not None and rate.low > self.little and slope.high < self.slope:
            return Result(
                findings=(
                    CONTRADICTION.finding(
                        Severity.FAIL,
                        f"the code costs {rate.digits()} nats and outputs move from sample to "
                        "sample, but not as the samples do: their slope on the outputs is "
                        f"{slope.digits()}{slope.interval()}, 1 where encoder and decoder belong "
                        "together.",
                        evidence=[Evidence(slope, self.slope, ">="), *evidence],
                        verdict="contradictory",
                    ),
                )
            )
        if self._unsettled(numbers):
            return Result(
                findings=(
                    CONTRADICTION.finding(
                        Severity.INCONCLUSIVE,
                        "whether the KL and what the decoder makes of the means agree is not "
                        f"settled: rate {rate.digits()} nats{rate.interval()}, "
                        f"{told.value:.0%} of {told.n:,} samples given back from their means.",
                        evidence=evidence,
                        verdict="contradictory",
                    ),
                )
            )
        gap = numbers.get("swap_gap")
        if gap is not None and gap.high < 0:
            return Result(
                findings=(
                    CONTRADICTION.finding(
                        Severity.INCONCLUSIVE,
                        "no contradiction is seen at the means, but the own code reconstructs no "
                        f"better than another's (swap gap {gap.digits()} {gap.unit}"
                        f"{gap.interval()}): see CK302.",
                        evidence=evidence,
                    ),
                )
            )
        return Result(
            findings=(
                CONTRADICTION.finding(
                    Severity.OK,
                    "the KL and what the decoder makes of the means agree.",
                    evidence=evidence,
                ),
            )
        )

    def _unsettled(self, numbers: Mapping[str, Number]) -> bool:
        """Whether a contradiction lies within the intervals."""
        told, rate, active, slope = (
            numbers.get(name)
            for name in ("told_by_mean_fraction", "rate", "active_units", "reconstruction_slope")
        )
        assert told is not None
        assert rate is not None
        still = active is not None and active.low == 0
        if rate.low < (self.little if still else self.least):
            honest = max(self.most, told_by_honest(max(rate.low, 0.0)))
            if told.high > honest:
                return True
        return slope is not None and rate.high > self.little and slope.low < self.slope


def told_by_honest(rate: float) -> float:
    """Share of samples that their posterior mean tells in a linear model of one dimension.

    x ~ N(0, 1) has the mean code r x and is decoded to it, r = 1 - e^-2R: own error (1 - r)^2 x^2,
    another's (x - r x')^2; told where the first is below half of the second, x' / x = c Cauchy.
    More dimensions at the same rate tell fewer.

    Parameters
    ----------
    rate : float
        Nats, at least 0.
    """
    share = -math.expm1(-2 * rate)
    if share == 0:
        return 0.0
    reach = math.sqrt(2) * (1 - share)
    return float(cauchy.cdf((1 - reach) / share) + cauchy.sf((1 + reach) / share))
