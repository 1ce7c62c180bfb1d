"""Which side collapsed: the inference alone, or the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from collapsekit.errors import Unavailable
from collapsekit.findings import Code, Evidence, Severity
from collapsekit.number import Headline
from collapsekit.probe import Tables
from collapsekit.results import Result

SIDE = Code(
    id="CK605",
    title="Inference or model collapse",
    meaning="When the encoder's posteriors sit at the prior, either the decoder ignores the code "
    "(model collapse: the true posterior is the prior too) or the decoder uses it and the "
    "encoder lags behind (inference collapse). The repairs differ. Where a KL weight beta above 1 "
    "was declared, an encoder that lags is one that stays behind the posterior which this weight "
    "asks for; if that one is itself near the prior, beta is the cause.",
    formula="where the rate is below 1 nat: model collapse if model_information is below 0.1 "
    "nat; inference collapse if it is at least 1 nat and at least twice reverse_rate, the "
    "encoder's divergence in the same direction. With beta above 1 tempered_information has to be "
    "so; by beta if model_information is and tempered_information is not, with its upper end.",
    remedy="Inference collapse: train the encoder more, several steps a decoder step. Model "
    "collapse: weaken the decoder, lower beta, or add the latent reconstruction loss.",
    source="He et al. 2019, arXiv 1901.05534; Lucas et al. 2019, arXiv 1911.02469",
)


@dataclass(frozen=True)
class CollapsedSide:
    """Compares the encoder's divergence from the prior with the decoder's."""

    weak: float = 1.0  # nats of rate below which the encoder counts as collapsed
    model: float = 0.1  # nats of model information below which the model is
    factor: float = 2.0  # times the encoder's divergence in the same direction

    name: ClassVar[str] = "collapsed_side"
    codes: ClassVar[tuple[Code, ...]] = (SIDE,)
    headlines: ClassVar[tuple[Headline, ...]] = ()

    def read(self, tables: Tables) -> Result:
        """Judge where the encoder is weak."""
        numbers = tables.numbers
        if "model_information" not in numbers or "rate" not in numbers:
            raise Unavailable(
                "which side collapsed needs the decoder's view",
                expected="rate and model_information",
                remedy="declare likelihood=...",
            )
        offered, rate = numbers["model_information"], numbers["rate"]
        taken = numbers["reverse_rate"]
        evidence = [Evidence(rate), Evidence(offered), Evidence(taken)]
        if not rate.high < self.weak:  # or not known
            return Result()
        if offered.high < self.model:
            return Result(
                findings=(
                    SIDE.finding(
                        Severity.WARN,
                        f"the model itself is collapsed: its decoder depends on the code by only "
                        f"{offered.digits()} nats.",
                        evidence=evidence,
                        advice="Weaken the decoder, lower beta, or add the latent reconstruction "
                        "loss.",
                    ),
                )
            )
        bar = max(self.weak, self.factor * taken.high)
        if not (taken.known and offered.low >= bar):
            return Result()
        asked = numbers.get("tempered_information", offered)
        if asked.low >= bar:
            message = (
                f"only the inference is collapsed: the decoder uses the code (KL(prior || true "
                f"posterior) is at least {offered.digits()} nats), the encoder follows it by "
                f"{taken.digits()} in the same direction."
            )
            advice = "Train the encoder more, several steps a decoder step."
        elif asked.high < max(self.weak, self.factor * taken.low):
            evidence.append(Evidence(asked))
            message = (
                f"the weight of the KL keeps the code weak: the decoder uses it, but the posterior "
                f"that beta asks for is only {asked.digits()} nats from the prior (KL(prior || "
                f"posterior); {offered.digits()} without beta), and the encoder's is "
                f"{taken.digits()}."
            )
            advice = "Lower beta; training the encoder more at this beta gains little."
        else:
            return Result()
        return Result(
            findings=(SIDE.finding(Severity.WARN, message, evidence=evidence, advice=advice),)
        )
