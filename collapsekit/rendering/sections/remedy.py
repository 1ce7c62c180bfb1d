"""What to try first: the findings' advice in order, and a snippet with this audit's numbers."""

from __future__ import annotations

import math

from collapsekit.findings import Severity
from collapsekit.rendering import wording
from collapsekit.rendering.blocks import Block, Code, Paragraph, Section, Steps
from collapsekit.rendering.facts import Facts

REPAIRED_BY_LR = ("total", "local", "partial")


def build(facts: Facts) -> Section | None:
    """The section, where there is something to do."""
    verdict = facts.audit.verdict.name
    steps = advice(facts)
    if verdict == "healthy" and not steps:
        return None
    blocks: list[Block] = []
    if verdict in REPAIRED_BY_LR:
        blocks.append(Paragraph(_why(verdict)))
        blocks.append(Code(snippet(facts)))
    if steps:
        blocks.append(Steps(tuple(steps)))
    if not blocks:
        return None
    return Section(
        id="remedy",
        nav="Remedy",
        question="What to try first?",
        headline=_headline(verdict),
        blocks=tuple(blocks),
    )


def _headline(verdict: str) -> str:
    return {
        "total": "Lower β or warm it up; then add the latent reconstruction loss.",
        "local": "Add the latent reconstruction loss, or warm up the KL.",
        "partial": "Add the latent reconstruction loss if all dimensions should be used.",
        "near-deterministic": "Raise β: the prior is not met.",
        "contradictory": "Find the bug before tuning anything.",
        "inconclusive": "Give the audit more to see.",
        "healthy": "Nothing to repair; a few things to watch.",
    }.get(verdict, "What the findings advise.")


def _why(verdict: str) -> str:
    text = (
        "The latent reconstruction loss asks the encoder to read back the code that the decoder "
        "was given, so a code that nobody reads becomes expensive. It costs one more encoder pass "
        "per step and a worse ELBO, and the aggregate moves away from the prior."
    )
    if verdict == "total":
        text += " From a code this empty it starts best after a few epochs with a small KL weight."
    if verdict == "partial":
        text += (
            " If information or reconstruction is all that is wanted, lowering β is the cheaper "
            "way; the empty dimensions can then be pruned."
        )
    return text


def advice(facts: Facts) -> list[str]:
    """What the findings advise, worst first, each piece of advice once."""
    told: dict[str, list[str]] = {}
    for finding in facts.findings():
        if finding.severity is Severity.OK or not finding.advice.strip():
            continue
        text = wording.prose(finding.advice, 600)
        told.setdefault(text, []).append(wording.clean(finding.code, 12))
    return [f"{', '.join(dict.fromkeys(codes))}: {text}" for text, codes in told.items()][:8]


def beta(facts: Facts) -> float | None:
    """The KL weight: as given, or the variance of a Gaussian likelihood, which plays its part."""
    given = facts.audit.provenance.get("beta")
    if isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given):
        return float(given)
    likelihood = facts.audit.provenance.get("likelihood")
    if (
        isinstance(likelihood, list | tuple)
        and len(likelihood) == 2
        and likelihood[0] == "gaussian"
    ):
        scale = likelihood[1]
        if isinstance(scale, int | float) and math.isfinite(scale) and scale > 0:
            return float(scale) ** 2
    return None


def snippet(facts: Facts) -> str:
    """The training step with the loss added; `beta` filled in where it is known."""
    weight = beta(facts)
    known = (
        f"beta = {weight:g}" if weight is not None else "beta = ...   # the weight of your KL term"
    )
    logvar = facts.audit.provenance.get("parameterisation") == "logvar"
    encode = (
        ["mean, log_variance = vae.encode(x)", "scale = (0.5 * log_variance).exp()"]
        if logvar
        else ["mean, scale = vae.encode(x)"]
    )
    lines = [
        "import collapsekit as ck",
        "",
        known,
        "lr = ck.remedies.LatentReconstruction(",
        "    weight=5, beta=beta, warmup_steps=steps // 4, noise=0.1",
        ")",
        "",
        *encode,
        "z = mean + scale * torch.randn_like(scale)",
        "x_hat = vae.decode(z)",
        "loss = negative_log_likelihood(x_hat, x) + beta * kl(mean, scale)",
        "loss = loss + lr(z, vae.encode(lr.perturb(x_hat))[0], step)   # x_hat is reused",
    ]
    return "\n".join(lines)
