"""Near-deterministic encoders: the opposite of collapse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from collapsekit.errors import Unavailable
from collapsekit.findings import Code, Evidence, Severity
from collapsekit.number import Headline, Number
from collapsekit.probe import Tables
from collapsekit.results import Result

DETERMINISTIC = Code(
    id="CK603",
    title="Near-deterministic encoder",
    meaning="Posteriors so narrow that the model is an autoencoder with a little noise: every "
    "sample has a code of its own, information is at its ceiling, and the prior was never "
    "matched. Common, and intended, in the VAEs of latent diffusion models. Not collapse; but do "
    "not sample from the prior.",
    formula="information saturated (CK402), median over dimensions of sigma^2 / (mean_variance + "
    "sigma^2) below 1e-3, and the aggregated posterior far from the prior (CK403); inconclusive "
    "where the interval of that mismatch holds its bar.",
    remedy="Fit a density to the codes before generating from them; raise beta if you wanted a "
    "generative model.",
    source="collapsekit",
)


@dataclass(frozen=True)
class NearDeterministic:
    """Whether widths are negligible beside the spread of the means."""

    width: float = 1e-3  # median share of variance that is posterior width

    name: ClassVar[str] = "near_deterministic"
    codes: ClassVar[tuple[Code, ...]] = (DETERMINISTIC,)
    headlines: ClassVar[tuple[Headline, ...]] = (
        Headline("width_share", "Posterior width in the codes’ variance", "neither"),
    )

    def read(self, tables: Tables) -> Result:
        """Join information, activity and mismatch."""
        if not tables.has("signal_fraction"):
            raise Unavailable("widths and spreads were not measured")
        signal = tables.dimensions["signal_fraction"].to_numpy(dtype=np.float64)
        if not np.isfinite(signal).all():
            raise Unavailable("widths and spreads need two samples")
        share = float(np.median(1.0 - signal))
        number = Number(
            "width_share", share, np.nan, np.nan, "share", len(signal), "median over dimensions"
        )
        saturated = bool(_held_below(tables, "mutual_information"))  # held, where it is not below
        mismatch = _held_below(tables, "dimensionwise_kl")
        mismatched = any(n.low > bar for n, bar in mismatch)
        doubtful = any(n.straddles(bar) for n, bar in mismatch)
        evidence = [Evidence(number, self.width, ">=")]
        if saturated and not mismatched and doubtful and share < self.width:
            return Result(
                findings=(
                    DETERMINISTIC.finding(
                        Severity.INCONCLUSIVE,
                        f"posterior widths make up {share:.1e} of the codes' variance; whether "
                        "the codes are far from the prior, too, is not settled.",
                        evidence=[*evidence, *(Evidence(n, bar, "<") for n, bar in mismatch)],
                        verdict="near-deterministic",
                    ),
                )
            )
        if saturated and mismatched and share < self.width:
            return Result(
                findings=(
                    DETERMINISTIC.finding(
                        Severity.WARN,
                        f"posterior widths make up {share:.1e} of the codes' variance: the encoder "
                        "is practically deterministic.",
                        evidence=evidence,
                        verdict="near-deterministic",
                    ),
                )
            )
        return Result(
            findings=(
                DETERMINISTIC.finding(
                    Severity.OK,
                    f"posterior widths make up {share:.2g} of the codes' variance (median).",
                    evidence=evidence,
                ),
            )
        )


def _held_below(tables: Tables, name: str) -> list[tuple[Number, float]]:
    """A headline with the bars that findings want it below, whichever findings these are."""
    return [
        (e.number, e.threshold)
        for finding in tables.findings
        for e in finding.evidence
        if e.number.name == name and e.relation == "<" and e.threshold is not None
    ]
