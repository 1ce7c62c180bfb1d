"""Importance-weighted bound of ln p(x), and what the encoder's posterior leaves of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from collapsekit.errors import InputError
from collapsekit.findings import Code, Evidence, Severity
from collapsekit.intervals import mean_number, share_number
from collapsekit.number import Headline, Number
from collapsekit.observation import Observation, Source
from collapsekit.pareto import LEAST_DRAWS, UNRELIABLE, pareto_k
from collapsekit.probe import States
from collapsekit.results import Result
from collapsekit.streaming import Array, Constant, Rows, Skewed, to_numpy

GAP = Code(
    id="CK407",
    title="Inference gap",
    meaning="The evidence lower bound falls short of the log-likelihood of a sample by the "
    "divergence of the encoder's posterior from the true one. Averaging importance weights closes "
    "most of that distance; what it closes is the inference gap: what better posteriors would buy "
    "without touching the decoder.",
    formula="w_k = p(x_i | z_k) p(z_k) / q_i(z_k), z_k ~ q_i, K draws; log_likelihood_bound[i] = "
    "ln((1/K) sum_k w_k), inference_gap[i] = that less (1/K) sum_k ln w_k, in nats, at least 0. In "
    "expectation the bound is below ln p(x_i) by about Var(w) / (2 K E(w)^2); the upper ends of "
    "the intervals are moved up by the jackknife's estimate of it. The gap tends to KL(q_i || "
    "p(z | x_i)) as K grows.",
    remedy="A large gap with an idle encoder is inference collapse (CK605): train the encoder "
    "more, or give it a richer posterior.",
    source="Burda, Grosse, Salakhutdinov 2016, arXiv 1509.00519; Cremer, Li, Duvenaud 2018, arXiv "
    "1801.03558; jackknife: Nowozin 2018",
)
WEIGHTS = Code(
    id="CK408",
    title="Importance weights not reliable",
    meaning="Where a few draws carry most of the weight, the importance-weighted average has not "
    "settled: bound and gap of these samples are too low by an unknown amount. That happens when "
    "the encoder's posterior misses where the true one has its mass.",
    formula="pareto_k[i] > 0.7, the shape of a generalised Pareto fit to the largest weights "
    "(drawn towards 1/2 where there are few draws); told when more than a quarter of the samples "
    "do, and the intervals then have no upper end. With 64 draws the tail is 13 weights: at k = "
    "1/2, where all is still well, a fifth of the samples exceed 0.7 by chance. The intervals have "
    "no upper end either where the interval of that share reaches a quarter.",
    remedy="Read log_likelihood_bound and inference_gap as lower ends, or raise the probe's draws.",
    source="Vehtari et al. 2024, arXiv 1507.02646; Zhang & Stephens 2009",
)


@dataclass(frozen=True)
class InferenceGap:
    """`log_likelihood_bound`, `inference_gap` and `pareto_k` per sample, and their means."""

    limit: int | None = 256  # rows; each costs `draws` decodes
    draws: int = 64
    unreliable: float = UNRELIABLE  # Pareto k above which a sample's weights are not
    most: float = 0.25  # share of unreliable samples: a fifth is chance, see CK408

    name: ClassVar[str] = "inference_gap"
    source: ClassVar[Source] = "population"
    codes: ClassVar[tuple[Code, ...]] = (GAP, WEIGHTS)
    headlines: ClassVar[tuple[Headline, ...]] = (
        Headline("log_likelihood_bound", "Log-likelihood, importance-weighted", "up"),
        Headline("inference_gap", "Inference gap", "neither"),
        Headline("unreliable_weights_fraction", "Samples with unreliable weights", "neither"),
    )

    def __post_init__(self) -> None:
        if self.draws < LEAST_DRAWS:
            raise InputError(
                "the tail of so few weights says nothing",
                got=f"draws={self.draws}",
                expected=f"at least {LEAST_DRAWS}: the Pareto fit needs five weights in its tail",
                remedy="raise draws",
            )

    def observe(self, obs: Observation) -> States:
        """`draws` codes and decodes a row, each row with noise of its own."""
        z, log_q = obs.many_codes(self.draws, "importance")
        log_p = obs.log_prior(z)
        log_likelihood = obs.log_likelihoods(z)
        log_weights = log_likelihood + (log_p - log_q).to(log_likelihood.device)
        bound, gap, bias = _bound(log_weights)
        return {
            "rows": Rows(
                obs.index,
                log_likelihood_bound=bound,
                inference_gap=gap,
                pareto_k=pareto_k(log_weights),
            ),
            "moments": Skewed.of(torch.stack([bound, gap, bound + bias, gap + bias], dim=1)),
            "draws": Constant(self.draws),
            "given": Constant(obs.door.given),
        }

    def conclude(self, state: States) -> Result:
        """The means, and the share of samples on which they rest safely."""
        moments, draws = state["moments"], state["draws"].value
        given = state["given"].value if "given" in state else ""
        frame = state["rows"].frame()
        bad = ~(frame["pareto_k"] <= self.unreliable)  # NaN is no good news either
        share = share_number(
            "unreliable_weights_fraction",
            int(bad.sum()),
            len(frame),
            f"Pareto k above {self.unreliable:g} of {draws} weights a sample",
        )
        # Too few samples to say that the weights of most have settled: no upper end either.
        open_above = share.high > self.most
        elbo = moments.average[0] - moments.average[1]
        bound = _number(
            "log_likelihood_bound",
            moments,
            0,
            f"importance-weighted, {draws} draws a sample; the elbo of these samples is "
            f"{elbo:.4g}, their bound a lower one in expectation{given}",
            open_above,
        )
        gap = _number(
            "inference_gap", moments, 1, "importance-weighted bound less elbo", open_above
        )
        findings = [
            GAP.finding(
                Severity.OK,
                f"better posteriors under the same decoder would raise the evidence lower bound "
                f"by {gap.digits()} nats{gap.interval()}{' or more' if open_above else ''}.",
                evidence=[Evidence(gap), Evidence(bound)],
            )
        ]
        if share.value > self.most:
            findings.append(
                WEIGHTS.finding(
                    Severity.INCONCLUSIVE,
                    f"the importance weights of {int(bad.sum()):,} of {len(frame):,} samples have "
                    "not settled: their bound and gap are too low.",
                    evidence=[Evidence(share, self.most, "<=")],
                    samples=frame.index[bad],
                )
            )
        lost = ~np.isfinite(frame[["log_likelihood_bound", "inference_gap"]]).all(axis=1)
        if lost.any():
            findings.append(
                WEIGHTS.finding(
                    Severity.INCONCLUSIVE,
                    f"{int(lost.sum()):,} of {len(frame):,} samples have a log-likelihood that is "
                    "not finite under some of their own codes: they are left out of the means.",
                    samples=frame.index[lost],
                    advice="Look at what the decoder returns for these samples' codes.",
                )
            )
        return Result((bound, gap, share), samples=frame, findings=tuple(findings))


def _bound(log_weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """ln mean w, that less mean ln w, and what the jackknife adds to it: each [B]."""
    draws = log_weights.shape[1]
    total = torch.logsumexp(log_weights, dim=1)
    bound = total - math.log(draws)
    gap = (bound - log_weights.mean(dim=1)).clamp(min=0.0)  # Jensen; below 0 by rounding alone
    # ln of the mean without draw k; a draw that carries everything leaves next to nothing.
    share = (log_weights - total[:, None]).exp().clamp(max=1.0 - 1e-12)
    left = bound[:, None] + torch.log1p(-share) + math.log(draws / (draws - 1))
    bias = (draws - 1) * (bound - left.mean(dim=1))
    return bound, gap, bias.clamp(min=0.0)


def _number(name: str, moments: Skewed, column: int, note: str, open_above: bool) -> Number:
    """A mean whose upper end is moved by its bias; without one where the weights are wild."""
    least = 0.0 if name == "inference_gap" else -math.inf
    found = mean_number(name, moments, "nats", column=column, least=least)
    corrected = mean_number(name, moments, "nats", column=column + 2)
    high, ends = corrected.high, f"{found.note}, upper end moved by the jackknife's bias"
    if open_above:
        high, ends = math.nan, "95 % lower end; no upper one, the weights have not settled"
    return replace(found, high=high, note=f"{ends}; {note}")


def inference_gap(log_weights: Any) -> pd.DataFrame:
    """Importance-weighted bound, inference gap and Pareto k of each sample.

    Parameters
    ----------
    log_weights : array [N, K]
        ln p(x_i | z_k) + ln p(z_k) - ln q_i(z_k), z_k ~ q_i.

    Returns
    -------
    DataFrame
        Columns `log_likelihood_bound`, `inference_gap` (nats) and `pareto_k`.
    """
    weights = torch.as_tensor(log_weights, dtype=torch.float64)
    bound, gap, _ = _bound(weights)
    columns: dict[str, Array] = {
        "log_likelihood_bound": to_numpy(bound),
        "inference_gap": to_numpy(gap),
        "pareto_k": to_numpy(pareto_k(weights)),
    }
    return pd.DataFrame(columns)
