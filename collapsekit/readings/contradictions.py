"""Contradictions: measures of the same thing that cannot both be right."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from collapsekit.errors import Unavailable
from collapsekit.findings import Code, Evidence, Severity
from collapsekit.intervals import Z95
from collapsekit.number import Number
from collapsekit.probe import Tables
from collapsekit.results import Result

CONTRADICTION = Code(
    id="CK602",
    title="Measures contradict each other",
    meaning="KL and activity are computed from the posterior that the model declares; the swap "
    "gap from what its decoder does with codes. When the first say that the code is unused and "
    "the second that it is vital, the declared posterior is usually not the one that the model "
    "samples from (a log-variance used as a scale, a KL computed from another width). When it is "
    "the other way round, information is written that nobody reads.",
    formula="unused: rate < 0.1 nat, or no active unit and rate < 1 nat; vital: mean swap gap "
    "more than 3 standard errors above 0, at least 0.1 nat and ten times the rate (in a "
    "consistent linear model the gap of a weak code is about twice its rate), and 4 "
    "sqrt(model_information x rate), what a lagging encoder can make of a sharp decoder; without a "
    "likelihood, at least 5 % of the swapped error and five times the gap that the rate allows a "
    "linear model, 2 (e^2R - 1) of the own error. Or: active units, but information and swap gap "
    "both at zero.",
    remedy="Check which width the model's own sampler uses, and declare that one "
    "(parameterisation=...).",
    source="collapsekit",
)


@dataclass(frozen=True)
class Contradictions:
    """Whether KL and activity agree with what the decoder does."""

    least: float = 0.1  # nats: rate, information, swap gap
    least_share: float = 0.05  # of the swapped error, without a likelihood
    sigmas: float = 3.0
    little: float = 1.0  # nats of rate below which "no active unit" means unused
    factor: float = 10.0  # times the rate, from which a swap gap is out of proportion

    name: ClassVar[str] = "contradictions"
    codes: ClassVar[tuple[Code, ...]] = (CONTRADICTION,)

    def read(self, tables: Tables) -> Result:
        """Compare the two sides."""
        numbers = tables.numbers
        if "swap_gap" not in numbers or "rate" not in numbers:
            raise Unavailable(
                "contradictions need the swap gap and the rate",
                remedy="hand in a decoder beside the encoder",
            )
        gap, rate = numbers["swap_gap"], numbers["rate"]
        information, active = numbers.get("mutual_information"), numbers.get("active_units")
        vital = self._vital(gap, rate, numbers.get("reconstruction_error"))
        # A sharp decoder behind a lagging encoder makes much of little: a likelihood that moves by
        # 2 M in variance under the prior moves by 2 (M R)^1/2 at most under a rate of R (Pinsker's
        # argument for bounded exponential moments), and the gap is the difference of two moves.
        offered = numbers.get("model_information")
        if offered is not None and gap.unit == "nats":
            vital &= gap.value >= 4 * math.sqrt(max(offered.value * rate.value, 0.0))
        empty = information is not None and information.high < self.least
        still = active is not None and active.value == 0
        evidence = [Evidence(n) for n in (rate, active, information, gap) if n is not None]
        if vital and (rate.high < self.least or (still and rate.high < self.little)):
            return Result(
                findings=(
                    CONTRADICTION.finding(
                        Severity.FAIL,
                        f"by its KL the code is unused (rate {rate.digits()} nats), yet another "
                        f"sample's code costs the decoder {gap.digits()} {gap.unit}.",
                        evidence=evidence,
                        verdict="contradictory",
                    ),
                )
            )
        silent = gap.known and gap.low <= 0
        if active is not None and active.low >= 1 and empty and silent:
            return Result(
                findings=(
                    CONTRADICTION.finding(
                        Severity.FAIL,
                        f"{active.digits()} units are active, yet their codes carry no information "
                        "and the decoder does not react to them.",
                        evidence=evidence,
                        verdict="contradictory",
                    ),
                )
            )
        return Result(
            findings=(
                CONTRADICTION.finding(
                    Severity.OK, "KL, activity and swap gap agree.", evidence=evidence
                ),
            )
        )

    def _vital(self, gap: Number, rate: Number, error: Number | None) -> bool:
        if not gap.known:
            return False
        standard_error = (gap.high - gap.low) / (2 * Z95)
        bar = max(self.least, self.factor * rate.value)
        if gap.unit != "nats":
            own = error.value if error is not None else 0.0
            # In a linear model the gap is at most 2 (e^2R - 1) of the own error.
            exponent = min(2 * max(rate.value, 0.0), 700.0)  # beyond, a double overflows
            allowed = 0.5 * self.factor * 2 * own * math.expm1(exponent)
            bar = max(self.least_share * (own + gap.value), allowed)
        return gap.value > self.sigmas * standard_error and gap.value >= bar
