"""Swap gap: what a sample's reconstruction loses when it gets another sample's code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.stats import norm
from scipy.stats import t as student

from collapsekit.findings import Code, Evidence, Severity
from collapsekit.intervals import mean_number
from collapsekit.number import Headline, Number
from collapsekit.observation import Observation, Source
from collapsekit.probe import States
from collapsekit.results import Result
from collapsekit.streaming import Constant, Grouped, Moments, Rows, Skewed, block_groups

SWAP = Code(
    id="CK302",
    title="Swap gap",
    meaning="The cheapest test of whether the decoder reads the code: give it another sample's "
    "code and see how much worse it reconstructs. Zero means that it does not care. The test "
    "needs no prior and no scale of the latents. Codes are drawn from the declared posterior: "
    "before a sharp decoder the gap can be large at a KL of next to nothing (CK605).",
    formula="swap_gap[i] = error(x_i, D(z_partner)) - error(x_i, D(z_i)), both codes drawn with "
    "the same noise; the partner is the next sample in hash order with the same condition. Nats "
    "with a likelihood, else squared error. Reads the code: mean further above 0 than 3 standard "
    "errors of a normal mean (by Student's distribution: 235 of two groups, 3.4 of twenty) and at "
    "least 0.1 nat (or 5 % of the swapped error). Does not read it: the whole interval lies below "
    "that; else, and below 10 samples, it is not settled. Contradictory: as far below 0 as it has "
    "to be above, since no decoder that learnt from these codes does worse with the right one. "
    "Where all posteriors are one, the partner's code is the sample's own, and the gap is 0 "
    "whatever the decoder does.",
    remedy="If the gap is far below zero, look for an encoder and a decoder of two checkpoints, a "
    "swapped sign or order of the code, or data prepared otherwise. If the gap is zero the decoder "
    "ignores the code: weaken the decoder (no skip around the code, less teacher forcing), lower "
    "beta, or add the latent reconstruction loss.",
    source="collapsekit",
)


_SAME = 1e-9  # of a code's size: two draws with one noise from one posterior differ by rounding


@dataclass(frozen=True)
class SwapGap:
    """`swap_gap` per sample, and its mean."""

    least_nats: float = 0.1
    least_share: float = 0.05  # of the swapped error, where there is no likelihood
    sigmas: float = 3.0

    name: ClassVar[str] = "swap_gap"
    source: ClassVar[Source] = "population"
    limit: ClassVar[int | None] = None
    codes: ClassVar[tuple[Code, ...]] = (SWAP,)
    headlines: ClassVar[tuple[Headline, ...]] = (Headline("swap_gap", "Swap gap", "up"),)

    def observe(self, obs: Observation) -> States:
        """Two decodes a sample: with its own code, with its partner's."""
        swapped = obs.swapped_error
        gap = swapped - obs.error
        paired = ~obs.z_partner.isnan().any(dim=1)
        differs = (obs.z_partner - obs.z).abs() > _SAME * obs.z.abs().clamp(min=1.0)
        return {
            "rows": Rows(obs.index, swap_gap=gap),
            # Each sample stands in two gaps, as input and as partner: neighbours go together.
            "moments": Grouped.of(
                block_groups(obs.population.place[obs.rows], obs.population.size),
                lambda rows: Skewed.of(torch.stack([gap, swapped], dim=1)[rows]),
            ),
            "unit": Constant(obs.door.error_unit),
            "differs": Moments.of(differs.any(dim=1).double()[paired]),
        }

    def conclude(self, state: States) -> Result:
        """The mean gap against its standard error and its bar."""
        groups, unit = state["moments"], state["unit"].value
        moments: Skewed = groups.whole
        found = groups.jackknife(lambda part: part.average[0])
        n = int(moments.n[0])
        note = f"jackknife of {found.groups} groups; another sample's code against its own"
        gap = mean_number("swap_gap", moments, unit, note, found=found)
        nats = unit == "nats"
        bar = self.least_nats if nats else self.least_share * float(moments.mean[1])
        cost = f"another sample's code costs {gap.digits()} {unit}{gap.interval()}"
        word = None
        # As unlikely by chance as so many standard errors of a normal mean: of few groups more.
        far = float(found.error * student.ppf(norm.cdf(self.sigmas), max(found.groups - 1, 1)))
        if gap.value >= bar and gap.value > far and gap.low > 0:
            severity, message = Severity.OK, f"{cost}: the decoder reads the code."
        elif gap.value <= -bar and gap.value < -far:
            severity, word = Severity.FAIL, "contradictory"
            message = (
                f"{cost}: the own code reconstructs worse than another's. Encoder and decoder do "
                "not belong together, or the data are not what they learnt from."
            )
        elif gap.high < 0 and gap.low <= -bar:
            severity, word = Severity.INCONCLUSIVE, "contradictory"
            message = (
                f"{cost}: {n:,} samples do not settle whether the own code reconstructs worse than "
                "another's."
            )
        elif gap.high < bar and not float(state["differs"].mean[0]) > 0:
            severity = Severity.WARN
            message = (
                f"{cost}: all samples have one and the same code, so the gap does not tell whether "
                "the decoder would read another."
            )
        elif gap.high < bar:
            severity, message = Severity.WARN, f"{cost}: the decoder does not read the code."
        else:
            severity = Severity.INCONCLUSIVE
            message = f"{cost}: {n:,} samples do not settle whether the decoder reads the code."
        finding = SWAP.finding(severity, message, evidence=[Evidence(gap, bar, ">=")], verdict=word)
        return Result(numbers=(gap,), samples=state["rows"].frame(), findings=(finding,))


def swap_gap(own: Any, swapped: Any, *, unit: str = "nats") -> Number:
    """How much reconstruction loses with another sample's code.

    Parameters
    ----------
    own, swapped : array [N]
        Reconstruction errors of the same samples, from their own codes and from others'.
    unit : str
        Of the errors.

    Returns
    -------
    Number
        Mean of swapped - own, with its normal interval.
    """
    gap = np.asarray(swapped, dtype=np.float64) - np.asarray(own, dtype=np.float64)
    return mean_number("swap_gap", Skewed.of(gap), unit)
