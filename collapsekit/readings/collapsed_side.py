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
    "encoder lags behind (inference collapse). The repairs differ.",
    formula="where the rate is below 1 nat: model collapse if model_information is below 0.1 "
    "nat; inference collapse if it is at least 1 nat and at least twice reverse_rate, the "
    "encoder's divergence in the same direction.",
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
        if taken.known and offered.low >= max(self.weak, self.factor * taken.high):
            return Result(
                findings=(
                    SIDE.finding(
                        Severity.WARN,
                        f"only the inference is collapsed: the decoder uses the code "
                        f"(KL(prior || true posterior) is at least {offered.digits()} nats), the "
                        f"encoder follows it by {taken.digits()} in the same direction.",
                        evidence=evidence,
                        advice="Train the encoder more, several steps a decoder step.",
                    ),
                )
            )
        return Result()
