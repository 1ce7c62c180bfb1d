"""Model information: how far the true posterior is from the prior, seen from the decoder alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from collapsekit.findings import Code, Evidence, Severity
from collapsekit.intervals import mean_number
from collapsekit.observation import Observation, Source
from collapsekit.probe import States
from collapsekit.results import Result
from collapsekit.streaming import Array, Constant, Moments, Rows, to_numpy

DECODER_VIEW = Code(
    id="CK404",
    title="What the decoder would allow",
    meaning="The true posterior p(z | x) equals the prior exactly when the likelihood of x does "
    "not depend on z: that is collapse of the model, whatever the encoder does. If the encoder "
    "is at the prior while the decoder does depend on z, only the inference is collapsed, and "
    "training the encoder more can repair it.",
    formula="model_information[i] = ln((1/K) sum_k e^l_ik) - (1/K) sum_k l_ik, l_ik = ln p(x_i | "
    "z_k), z_k from the prior: an estimate of KL(p(z) || p(z | x_i)) in nats, at least 0. It "
    "reads low where the true posterior is so sharp that few of the K draws hit it (saturated).",
    remedy="See CK605 for which side collapsed.",
    source="Song, Kim, Lee 2025, arXiv 2508.12530; He et al. 2019, arXiv 1901.05534",
)


@dataclass(frozen=True)
class ModelInformation:
    """`model_information` per sample, and beside its mean the encoder's own `reverse_rate`."""

    limit: int | None = 2048  # rows
    draws: int = 2048  # from the prior, shared by all rows
    heaviest: float = 0.5  # weight of one draw from which a sample counts as saturated
    most_values: int = 1 << 26  # in all outputs together: half a gigabyte in double precision

    name: ClassVar[str] = "model_information"
    source: ClassVar[Source] = "population"
    codes: ClassVar[tuple[Code, ...]] = (DECODER_VIEW,)

    def observe(self, obs: Observation) -> States:
        """K decodes for the whole stream, then one matrix product a batch."""
        width = obs.door.target(obs.x)[0].numel()
        # A handful of samples (a rehearsal, say) is not worth thousands of decodes.
        most = min(self.draws, self.most_values // max(width, 1), 64 * obs.population.size)
        draws = max(2, most)
        _, outputs = obs.population.prior_outputs(draws, obs.seed)
        value, heaviest = _divergence(obs.door.pairwise(outputs, obs.x))
        return {
            "rows": Rows(obs.index, model_information=value),
            "moments": Moments.of(
                torch.stack(
                    [
                        value,
                        (heaviest > self.heaviest).to(torch.float64),
                        # The encoder's answer to the same question, in the same direction: of two
                        # Gaussians KL(p || q) is several times KL(q || p) where q is narrow.
                        obs.prior.kl(obs.posterior).sum(dim=1),
                    ],
                    dim=1,
                )
            ),
            "draws": Constant(draws),
        }

    def conclude(self, state: States) -> Result:
        """The mean, and whether it can be trusted upwards."""
        moments, draws = state["moments"], state["draws"].value
        share = float(moments.mean[1])
        number = mean_number(
            "model_information",
            moments,
            "nats",
            f"{draws:,} shared prior draws; reads low for the {share:.0%} of samples whose "
            "posterior few draws hit",
        )
        encoder = mean_number(
            "reverse_rate", moments, "nats", "KL(p(z) || q(z | x)), by the encoder", column=2
        )
        finding = DECODER_VIEW.finding(
            Severity.OK,
            f"by its decoder alone a sample's true posterior is {number.digits()} nats away from "
            f"the prior{' or more' if share > 0 else ''}{number.interval()}.",
            evidence=[Evidence(number), Evidence(encoder)],
        )
        return Result(numbers=(number, encoder), samples=state["rows"].frame(), findings=(finding,))


def _divergence(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Per row, ln mean e^l - mean l, and the largest weight among the draws."""
    log_mean = torch.logsumexp(scores, dim=1) - math.log(scores.shape[1])
    heaviest = torch.softmax(scores, dim=1).amax(dim=1)
    # Jensen: never negative but for rounding.
    return (log_mean - scores.mean(dim=1)).clamp(min=0.0), heaviest


def model_information(scores: Any) -> Array:
    """KL(p(z) || p(z | x)) estimated from log-likelihoods under draws from the prior.

    Parameters
    ----------
    scores : array [N, K]
        ln p(x_i | z_k), z_k from the prior.

    Returns
    -------
    ndarray, float64 [N]
        Nats, at least 0; low where few draws hit the true posterior.
    """
    value, _ = _divergence(torch.as_tensor(scores, dtype=torch.float64))
    return to_numpy(value)
