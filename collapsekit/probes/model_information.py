"""Model information: how far the true posterior is from the prior, seen from the decoder alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

from collapsekit.adapter import offers
from collapsekit.door import Door
from collapsekit.findings import Code, Evidence, Severity
from collapsekit.independent import independent
from collapsekit.intervals import Z95, mean_number, share_number, within
from collapsekit.likelihoods import Gaussian, flat
from collapsekit.number import Headline, Number
from collapsekit.observation import Observation, Source
from collapsekit.posteriors import divergence
from collapsekit.probe import States
from collapsekit.results import Result
from collapsekit.streaming import Array, Constant, Moments, Rows, Skewed, to_numpy

DECODER_VIEW = Code(
    id="CK404",
    title="What the decoder would allow",
    meaning="The true posterior p(z | x) equals the prior exactly when the likelihood of x does "
    "not depend on z: that is collapse of the model, whatever the encoder does. If the encoder "
    "is at the prior while the decoder does depend on z, only the inference is collapsed, and "
    "training the encoder more can repair it. KL(prior || posterior) is not the rate, KL(posterior "
    "|| prior): where posteriors are narrow it is many times that. The encoder's own in this "
    "direction is reverse_rate.",
    formula="model_information[i] = ln((1/K) sum_k e^l_ik) - (1/K) sum_k l_ik, l_ik = ln p(x_i | "
    "z_k), z_k from the prior: an estimate of KL(p(z) || p(z | x_i)) in nats, at least 0, and in "
    "expectation below it. One set of draws serves all samples where the likelihood scores every "
    "input under every output; a decoder that sees the input (log_likelihood) or a condition gets "
    "draws for each sample. The interval joins the errors over samples and over draws; its upper "
    "end is moved by the jackknife's bias. Where a beta above 1 is declared (and is not the "
    "likelihood's own variance), tempered_information is the same from l_ik / beta: the divergence "
    "of the posterior p(z) p(x | z)^(1 / beta) that such a training asks for.",
    remedy="See CK605 for which side collapsed.",
    source="Song, Kim, Lee 2025, arXiv 2508.12530; He et al. 2019, arXiv 1901.05534",
)
SATURATED = Code(
    id="CK405",
    title="Decoder's view saturated",
    meaning="A true posterior so sharp that few draws from the prior hit it is further from the "
    "prior than these draws can tell: the estimate reads low. That is harmless for finding "
    "collapse, where the true posterior is wide, unless the estimate itself is small.",
    formula="a sample is saturated where one draw carries at least half of sum_k e^l_ik; told when "
    "more than 5 % of the samples are, and the interval of model_information then has no "
    "upper end. Inconclusive only where its lower end is below 1 nat. The interval of the share "
    "joins the errors over samples and over draws.",
    remedy="Read model_information as a lower end, or raise the probe's draws.",
    source="collapsekit",
)
_CUTS = 20  # groups of draws for the jackknife


@dataclass(frozen=True)
class ModelInformation:
    """`model_information` per sample, and beside its mean the encoder's own `reverse_rate`."""

    limit: int | None = 1024  # rows
    draws: int = 2048  # from the prior, shared by all rows
    own_rows: int = 128  # where draws cannot be shared: each row then costs own_draws decodes
    own_draws: int = 128
    heaviest: float = 0.5  # weight of one draw from which a sample counts as saturated
    most_saturated: float = 0.05  # share of the samples
    enough: float = 1.0  # nats, from which a low reading cannot be taken for collapse
    most_values: int = 1 << 26  # in all outputs together: half a gigabyte in double precision

    name: ClassVar[str] = "model_information"
    source: ClassVar[Source] = "population"
    codes: ClassVar[tuple[Code, ...]] = (DECODER_VIEW, SATURATED)
    headlines: ClassVar[tuple[Headline, ...]] = (
        Headline("model_information", "KL(prior ‖ true posterior), by the decoder", "neither"),
        Headline("reverse_rate", "KL(prior ‖ posterior), by the encoder", "neither"),
        Headline("saturated_fraction", "Samples that saturate the decoder’s view", "neither"),
        Headline("tempered_information", "KL(prior ‖ posterior that beta asks for)", "neither"),
    )

    def observe(self, obs: Observation) -> States:
        """K decodes for the whole stream, then one matrix product a batch; or K decodes a row."""
        obs.need_steady()
        shared = obs.pairs_up
        if not shared:
            obs = obs.first(self.own_rows)
        scores, dropped = self._shared(obs) if shared else (self._own(obs), 0)
        value, heaviest, left, heaviest_left = _divergence(scores)
        saturated = heaviest >= self.heaviest
        saturated_left = (heaviest_left >= self.heaviest).to(torch.float64)
        # By its squares: torch warns of the variance of no rows, where a batch is past `own_rows`.
        apart = saturated_left - saturated_left.mean(dim=1, keepdim=True)
        own_spread = apart.square().mean(dim=1) * (saturated_left.shape[1] - 1)
        # The encoder's answer to the same question, in the same direction: of two Gaussians
        # KL(p || q) is several times KL(q || p) where q is narrow.
        reverse = divergence(obs.prior, obs.posterior, obs.noise("reverse")).total.to(value.device)
        beta = tempering(obs.door)
        tempered: States = {}
        if beta > 1:
            asked, most, left_of_it, _ = _divergence(scores / beta)
            tempered["tempered"] = Skewed.of(torch.cat([asked[:, None], left_of_it], dim=1))
            tempered["sharp"] = Moments.of((most >= self.heaviest).double())
        return {
            **tempered,
            "beta": Constant(beta),
            "rows": Rows(obs.index, model_information=value, model_information_saturated=saturated),
            "moments": Skewed.of(torch.cat([value[:, None], left], dim=1)),
            "saturated": Moments.of(torch.cat([saturated_left, own_spread[:, None]], dim=1)),
            "reverse": Skewed.of(reverse),
            "draws": Constant((scores.shape[1], shared, dropped)),
        }

    def _shared(self, obs: Observation) -> tuple[Tensor, int]:
        width = obs.output[0].numel()
        most = max(2, min(self.draws, self.most_values // max(width, 1)))
        _, outputs = obs.population.prior_outputs(most, obs.seed)
        # One draw whose output is not finite would take every sample's value with it.
        finite = torch.isfinite(flat(outputs)).all(dim=1)
        dropped = len(finite) - int(finite.sum())
        if dropped > len(finite) - 2:
            return obs.door.pairwise(outputs, obs.x), 0  # nothing to go on with: told as lost
        return obs.door.pairwise(outputs[finite] if dropped else outputs, obs.x), dropped

    def _own(self, obs: Observation) -> Tensor:
        draws = max(2, min(self.own_draws, 8 * obs.population.size))
        return obs.log_likelihoods(obs.many_prior_codes(draws, "model information")[0])

    def conclude(self, state: States) -> Result:
        """The mean, and whether it can be trusted upwards."""
        moments, (draws, shared, dropped) = state["moments"], state["draws"].value
        frame = state["rows"].frame()
        lost = len(frame) - int(moments.n[0])
        share = _share(
            int(frame["model_information_saturated"].sum()),
            len(frame),
            state["saturated"].mean if shared else np.zeros(3),
            f"samples whose true posterior few of {draws:,} prior draws hit",
        )
        saturated = share.value > self.most_saturated
        number = _number("model_information", moments, draws, shared, saturated)
        numbers: tuple[Number, ...] = ()
        if "tempered" in state:
            sharp = float(state["sharp"].mean[0]) > self.most_saturated
            asked = _number("tempered_information", state["tempered"], draws, shared, sharp)
            numbers = (replace(asked, note=f"beta = {state['beta'].value:g}; {asked.note}"),)
        encoder = mean_number(
            "reverse_rate",
            state["reverse"],
            "nats",
            "KL(p(z) || q(z | x)), by the encoder",
            least=0.0,
        )
        more = " or more" if share.value > 0 else ""
        findings = [
            DECODER_VIEW.finding(
                Severity.OK,
                "by the decoder alone KL(prior || true posterior) is "
                f"{number.digits()} nats{more} a sample{number.interval()}.",
                evidence=[Evidence(number), Evidence(encoder)],
            )
        ]
        if saturated:
            hidden = number.low < self.enough
            rest = "" if hidden else "; far from collapse all the same"
            findings.append(
                SATURATED.finding(
                    Severity.INCONCLUSIVE if hidden else Severity.OK,
                    f"for {share.value:.0%} of the samples few prior draws hit the true posterior: "
                    f"model_information reads low{rest}.",
                    evidence=[Evidence(share, self.most_saturated, "<=")],
                )
            )
        if dropped:
            findings.append(
                DECODER_VIEW.finding(
                    Severity.INCONCLUSIVE,
                    f"for {dropped:,} of {draws + dropped:,} codes drawn from the prior the "
                    "decoder's output is not finite: these draws are left out.",
                    advice="Look at what the decoder returns for codes drawn from the prior.",
                )
            )
        if lost:
            findings.append(
                DECODER_VIEW.finding(
                    Severity.INCONCLUSIVE,
                    f"for {lost:,} of {len(frame):,} samples the log-likelihood is not finite "
                    "under some draws from the prior: they are left out of the mean.",
                    samples=frame.index[~np.isfinite(frame["model_information"])],
                    advice="Look at what the decoder returns for codes drawn from the prior.",
                )
            )
        numbers = (number, encoder, share, *numbers)
        return Result(numbers, samples=frame, findings=tuple(findings))


def tempering(door: Door) -> float:
    """The KL weight that the likelihood does not hold already; 1 where none was declared.

    0.5 SSE + beta KL is declared with scale sqrt(beta), whose log-likelihood is that of beta 1.
    """
    likelihood, beta = door.likelihood, door.beta
    if beta is None:
        return 1.0
    if isinstance(likelihood, Gaussian) and not offers(door.adapter, "log_likelihood"):
        return 1.0 if math.isclose(beta, likelihood.scale**2, rel_tol=1e-6) else beta
    return beta


def _number(name: str, moments: Skewed, draws: int, shared: bool, saturated: bool) -> Number:
    """The mean over samples with the errors of both samplings, of samples and of draws."""
    value, left = float(moments.average[0]), moments.mean[1:]
    over_samples = mean_number("", moments, "nats")
    below, above = value - over_samples.low, over_samples.high - value
    if shared:  # draws of a row's own are in the spread between rows already
        over_draws = _student(left) * math.sqrt(_spread(left))
        below, above = math.hypot(below, over_draws), math.hypot(above, over_draws)
    bias = min((len(left) - 1) * float(left.mean() - value), 0.0)
    kind = "shared prior draws" if shared else "prior draws a sample"
    ends = "95 % interval, over samples and draws, upper end moved by the jackknife's bias"
    high = value - bias + above
    if saturated:
        high, ends = math.nan, "95 % lower end; no upper one, the draws miss sharp posteriors"
    told = f"{ends}; {draws:,} {kind}; in expectation a lower bound"
    n = int(moments.n[0])
    ends_at = within(value - below, value, high, 0.0, math.inf)
    return Number(name, value, *ends_at, "nats", n, told)


def _share(count: int, n: int, left: Array, note: str) -> Number:
    """The share of saturated samples with the errors of both samplings.

    Draws that all samples share saturate them together: the variance over draws (delete-a-group
    jackknife, `left`) is added to that over samples, and Wilson's interval is that of as many
    independent samples as would have this variance (Korn and Graubard 1998). What the draws do to
    each sample by itself (the last of `left`, a mean over samples) is in the spread between samples
    already.
    """
    share = count / max(n, 1)
    apart = independent(max(n, 1))
    over_samples = Z95**2 * share * (1 - share) / apart
    left, own = left[:-1], float(left[-1]) / apart
    over_draws = _student(left) ** 2 * max(_spread(left) - own, 0.0)
    alike = 1 + over_draws / over_samples if over_samples > 0 else 1.0
    return share_number(
        "saturated_fraction", count, n, f"over samples and draws; {note}", alike=alike
    )


def _spread(left: Array) -> float:
    """Jackknife variance of what was found without each group of draws."""
    return float(((left - left.mean()) ** 2).sum()) * (len(left) - 1) / len(left)


def _student(left: Array) -> float:
    return float(student.ppf(0.975, max(len(left) - 1, 1)))


def _divergence(scores: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Per row ln mean e^l - mean l and the largest weight among the draws, [B] each; and both
    again without each of `_CUTS` groups of draws, [B, G] each."""
    total = torch.logsumexp(scores, dim=1)
    groups = torch.tensor_split(scores, min(_CUTS, scores.shape[1]), dim=1)
    size = torch.tensor([g.shape[1] for g in groups], dtype=torch.float64, device=scores.device)
    each = torch.stack([torch.logsumexp(g, dim=1) for g in groups], dim=1)
    sums = torch.stack([g.sum(dim=1) for g in groups], dim=1)
    # The other groups are added up anew: taking one off the total cancels where it carries all.
    itself = torch.eye(len(groups), dtype=torch.bool, device=scores.device)
    others = torch.logsumexp(each[:, None, :].masked_fill(itself, -math.inf), dim=2)
    tops = torch.stack([g.amax(dim=1) for g in groups], dim=1)
    top = tops[:, None, :].masked_fill(itself, -math.inf).amax(dim=2)
    rest = scores.shape[1] - size
    left = others - rest.log() - (sums.sum(1, keepdim=True) - sums) / rest
    value = total - math.log(scores.shape[1]) - sums.sum(dim=1) / scores.shape[1]
    heaviest = (scores.amax(dim=1) - total).exp()
    # Jensen: never negative but for rounding.
    return value.clamp(min=0.0), heaviest, left.clamp(min=0.0), (top - others).exp()


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
    value, *_ = _divergence(torch.as_tensor(scores, dtype=torch.float64))
    return to_numpy(value)
