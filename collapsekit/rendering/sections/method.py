"""How each number was computed, with which settings, and what this audit could not see."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from collapsekit.rendering import wording
from collapsekit.rendering.blocks import (
    Block,
    Column,
    Definition,
    Definitions,
    Fold,
    Formula,
    Section,
    Steps,
    Subheading,
    Table,
)
from collapsekit.rendering.facts import Facts
from collapsekit.rendering.wording import percent, tick


def build(facts: Facts) -> Section:
    """The section; it exists for every audit."""
    blocks: list[Block] = []
    items = definitions(facts)
    if items:
        blocks.append(Definitions(tuple(items)))
    settings = _settings(facts)
    if settings is not None:
        blocks.append(Fold("Settings of every probe", (settings,)))
    blocks.append(Subheading("What this audit could not see"))
    blocks.append(Steps(tuple(limits(facts))))
    return Section(
        id="method",
        nav="Method and limits",
        question="How was each number computed?",
        headline="Method and limits",
        blocks=tuple(blocks),
    )


def definitions(facts: Facts) -> list[Definition]:
    """The definitions of what this report shows, with the thresholds that were in force."""
    d, s = facts.per_dimension, facts.per_sample
    found: list[Definition] = []
    if d("kl") is not None or s("kl_total") is not None:
        found.append(
            Definition(
                "KL per sample and dimension",
                "in nats, float64. Rate: the sum over dimensions, the mean over samples. Other "
                "priors than N(0, 1) are standardised first, or estimated by draws.",
                _KL,
            )
        )
    if d("mean_variance") is not None:
        found.append(
            Definition(
                "Active unit",
                "Variance over samples of the posterior mean above "
                f"{tick(facts.active_bar)} of the prior’s (Burda 2016, "
                "arXiv 1509.00519).",
            )
        )
    if facts.words("state") is not None:
        delta = facts.delta
        found.append(
            Definition(
                "Active, mixed, passive",
                f"Share of samples whose KL in the dimension is below ε = {tick(facts.epsilon)} "
                f"nats: at most {percent(delta)}, between, at least {percent(1 - delta)} (Lucas "
                "2019, arXiv 1911.02469).",
            )
        )
    if s("locally_collapsed") is not None or facts.number("locally_collapsed_fraction") is not None:
        found.append(
            Definition(
                "Local collapse",
                f"KL of one sample, all dimensions together, below "
                f"{wording.in_unit(facts.local_bar, 'nats')} (after Song, Kim, Lee 2025, arXiv "
                "2508.12530). Share with a Wilson interval.",
            )
        )
    if facts.number("mutual_information") is not None:
        found.append(
            Definition(
                "Information",
                "between a lower bound (own posterior in the mixture) and an upper one (left out); "
                "the lower cannot exceed ln N (Poole 2019, arXiv 1905.06922).",
                _INFORMATION,
            )
        )
    if facts.number("dimensionwise_kl") is not None:
        found.append(Definition("Budget of the rate", "(Chen 2018, arXiv 1802.04942).", _BUDGET))
    if facts.number("model_information") is not None:
        found.append(
            Definition(
                "Seen from the decoder",
                "How far the true posterior p(z | x) is from the prior, by the likelihood of x "
                "under draws from the prior; reads low for sharp posteriors. 0 is collapse of the "
                "model, not of its encoder.",
            )
        )
    if d("decoder_usage") is not None:
        found.append(
            Definition(
                "Reads",
                "Total-effect Sobol index of the dimension on the decoder’s output (Jansen 1999). "
                "0: the output does not move when the dimension is redrawn.",
            )
        )
    if facts.number("swap_gap") is not None:
        found.append(
            Definition(
                "Swap gap",
                "Reconstruction error with another sample’s code minus that with the own. Needs "
                "no prior; 0 where the decoder ignores the code.",
            )
        )
    if facts.number("collision_fraction") is not None:
        found.append(
            Definition(
                "Collision",
                f"Two samples whose posteriors overlap (Bhattacharyya) by at least "
                f"{tick(facts.overlap_bar)} while the inputs are no more alike than two "
                "picked at random.",
            )
        )
    if facts.number("encoder_rank") is not None:
        found.append(
            Definition(
                "Local rank of the encoder",
                "Directions of a sample’s nearest neighbours along which its code moves, by least "
                "squares of the codes’ differences on the inputs’.",
            )
        )
    if facts.number("decoder_rank") is not None:
        share = percent(facts.setting("decoder_jacobian.reads", default=0.1))
        found.append(
            Definition(
                "Local rank of the decoder",
                f"Singular values of its Jacobian at a code that are at least {share} of the "
                "largest (Wang 2021, arXiv 2301.00537). Full rank everywhere does not make it "
                "injective: folds are looked for by the round trip.",
            )
        )
    if d("round_trip_r2") is not None or d("round_trip_r2_prior") is not None:
        found.append(
            Definition(
                "Round trip",
                "z decoded and encoded again. Robust: the lower of two, after rounding to 8 bits "
                "and after noise of a tenth of the data’s range.",
                _ROUND_TRIP,
            )
        )
    return found


def limits(facts: Facts) -> list[str]:
    """What was skipped and why, what the adapter noted, and what no single audit can see."""
    told = [
        f"{wording.clean(probe, 60)}: {wording.clean(reason, 400)}"
        for probe, reason in sorted(facts.audit.skipped.items())
    ]
    notes = facts.audit.provenance.get("notes")
    if isinstance(notes, str):
        notes = [notes]
    if isinstance(notes, list | tuple):
        told += [wording.clean(note, 400) for note in notes[:12] if str(note).strip()]
    if facts.audit.provenance.get("likelihood") is not None:
        told.append("The likelihood was declared, not measured: errors in nats depend on it.")
    told.append(
        "One set of weights: intervals cover the choice of samples and the draws, not another "
        "training run."
    )
    return told


def _settings(facts: Facts) -> Table | None:
    rows = []
    settings: dict[str, Any] = dict(facts.audit.settings)
    for probe in sorted(settings):
        fields = settings[probe]
        if not isinstance(fields, dict):
            continue
        told = ", ".join(
            f"{wording.clean(name, 40)} = {wording.field_value(value, 60)}"
            for name, value in sorted(fields.items())
        )
        rows.append((wording.clean(probe, 60), wording.clean(told, 400)))
    if not rows:
        return None
    return Table(
        "Settings of every probe",
        (Column("Probe", numeric=False), Column("Fields", numeric=False)),
        rows[:64],
        tight=True,
    )


def _math(body: str) -> Formula:
    return Formula(Markup(f"<math>{body}</math>"))


_SQUARE = "<msup><mi>{}</mi><mn>2</mn></msup>"
_MU2, _SIGMA2 = _SQUARE.format("μ"), _SQUARE.format("σ")
_KL = _math(
    f"<mfrac><mn>1</mn><mn>2</mn></mfrac><mo>(</mo>{_MU2}<mo>+</mo>{_SIGMA2}<mo>−</mo>"
    f"<mn>1</mn><mo>−</mo><mi>ln</mi>{_SIGMA2}<mo>)</mo>"
)
_Q = "<msub><mi>q</mi><mi>i</mi></msub><mo>(</mo><mi>z</mi><mo>)</mo>"
_QHAT = "<mover><mi>q</mi><mo>^</mo></mover><mo>(</mo><mi>z</mi><mo>)</mo>"
_INFORMATION = _math(
    f"<mi>I</mi><mo>=</mo><mi>E</mi><mo>[</mo><mi>ln</mi>{_Q}<mo>−</mo><mi>ln</mi>{_QHAT}<mo>]</mo>"
)
_BUDGET = _math(
    "<mi>R</mi><mo>=</mo><mi>I</mi><mo>+</mo><mi>TC</mi><mo>+</mo>"
    "<msub><mo>∑</mo><mi>j</mi></msub><mi>KL</mi><mo>(</mo>"
    "<msub><mover><mi>q</mi><mo>^</mo></mover><mi>j</mi></msub><mo>∥</mo>"
    "<msub><mi>p</mi><mi>j</mi></msub><mo>)</mo>"
)
_ZHAT = "<mover><mi>z</mi><mo>^</mo></mover>"
_ROUND_TRIP = _math(
    f"<msup><mi>R</mi><mn>2</mn></msup><mo>=</mo><mn>1</mn><mo>−</mo><mi>E</mi><mo>(</mo>{_ZHAT}"
    f"<mo>−</mo><mi>z</mi><msup><mo>)</mo><mn>2</mn></msup><mo>/</mo><mi>Var</mi><mi>z</mi>"
)
