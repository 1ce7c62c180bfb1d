"""Which side is short: what the decoder would allow, what better posteriors would buy, and why."""

from __future__ import annotations

import math

from collapsekit.number import Number
from collapsekit.rendering import wording
from collapsekit.rendering.blocks import Block, Column, Fold, Paragraph, Section, Table
from collapsekit.rendering.facts import Facts
from collapsekit.rendering.wording import figure, quantity, sentences, tie

NAMES = (
    "model_information",
    "tempered_information",
    "reverse_rate",
    "saturated_fraction",
    "elbo",
    "log_likelihood_bound",
    "inference_gap",
    "unreliable_weights_fraction",
    "linear_dimensions",
    "sampled_scale_ratio",
)
_COMPONENTS = 16


def build(facts: Facts) -> Section | None:
    """The section, where the decoder's view or the inference gap was measured."""
    numbers = [n for n in map(facts.number, NAMES) if n is not None]
    if not any(n.name in ("model_information", "inference_gap") for n in numbers):
        return None
    blocks: list[Block] = [Paragraph(_text(facts)), _table(facts, numbers)]
    spectrum = facts.audit.tables.get("principal_variances")
    if spectrum is not None and len(spectrum):
        rows = [
            (
                str(int(row["component"]) + 1),
                figure(float(row["variance"])),
                figure(float(row["variance_held_out"])),
                figure(float(row["decoder_variance"])),
            )
            for _, row in spectrum.head(_COMPONENTS).iterrows()
        ]
        names = ("Component", "Variance", "Held out", "Decoder’s")
        table = Table(
            "Principal variances of the data against the decoder’s",
            tuple(Column(name, numeric=k > 0) for k, name in enumerate(names)),
            rows,
            note=wording.showing(len(rows), len(spectrum), "component"),
            tight=True,
        )
        blocks.append(Fold("Data: principal variances", (table,)))
    return Section(
        id="decoder",
        nav="Decoder",
        question="Is it the encoder or the decoder that falls short?",
        headline=tie(_headline(facts)),
        blocks=tuple(blocks),
    )


def _headline(facts: Facts) -> str:
    side = next((f for f in facts.findings() if f.code == "CK605" and f.severity > 1), None)
    if side is not None:
        text = wording.prose(side.message, 240)
        return text[:1].upper() + text[1:]
    gap = facts.number("inference_gap")
    if gap is not None:
        more = "" if math.isfinite(gap.high) else " or more"
        return f"Better posteriors under the same decoder would buy {quantity(gap)}{more}."
    model = facts.number("model_information")
    assert model is not None
    return f"By the decoder alone, KL(prior ‖ true posterior) is {quantity(model)} a sample."


def _text(facts: Facts) -> str:
    parts = [
        "The true posterior of a sample follows from the decoder and the prior alone. Where it is "
        "the prior, the decoder ignores the code and no encoder can help; where it is not and the "
        "encoder stays at the prior, only the inference is collapsed."
    ]
    parts += [
        f"{wording.prose(f.message, 400)[:1].upper()}{wording.prose(f.message, 400)[1:]}"
        for f in facts.findings()
        if f.code in ("CK406", "CK408", "CK409")
    ]
    return sentences(*parts)


def _table(facts: Facts, numbers: list[Number]) -> Table:
    rows = [
        (
            facts.title(n.name),
            quantity(n),
            wording.interval(n) or _one_end(n),
            f"{n.n:,}",
        )
        for n in numbers
    ]
    return Table(
        "The decoder’s view",
        (Column("Measure", numeric=False), Column("Value"), Column("95 % interval"), Column("n")),
        rows,
    )


def _one_end(number: Number) -> str:
    return f"from {figure(number.low)}" if math.isfinite(number.low) else wording.UNKNOWN
