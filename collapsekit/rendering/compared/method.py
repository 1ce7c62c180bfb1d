"""How the runs were matched, and what a comparison of single runs cannot say."""

from __future__ import annotations

from collapsekit.rendering.blocks import Block, Section, Steps
from collapsekit.rendering.compared.runs import Compared


def build(compared: Compared) -> Section:
    """The section."""
    comparison = compared.comparison
    told = list(comparison.notes)
    told += [
        "One training per run: intervals cover the choice of samples, not another training. A "
        "claim about a method needs several seeds.",
        "Dimensions have no identity across trainings; they are matched by rank within their run, "
        "never by index.",
        "Means over samples are compared on the samples that both audits evaluated: the mean "
        "difference with a normal 95 % interval. Other numbers by their two intervals, taken as "
        "independent (Zou & Donner 2008).",
        "Information is known up to a bracket; where two brackets overlap the comparison says "
        "“cannot tell”, whatever the values in between.",
    ]
    likelihoods = {str(run.facts.audit.provenance.get("likelihood")) for run in compared.runs}
    if len(likelihoods) > 1:
        told.append(
            "The likelihoods differ, and with them the unit of errors in nats: those are not "
            "compared."
        )
    skipped = sorted({probe for run in compared.runs for probe in run.facts.audit.skipped})
    if skipped:
        told.append(f"Skipped in at least one audit: {', '.join(skipped[:12])}.")
    blocks: tuple[Block, ...] = (Steps(tuple(told)),)
    return Section(
        id="method",
        nav="Method and limits",
        question="How were the runs matched?",
        headline="Method and limits",
        blocks=blocks,
    )
