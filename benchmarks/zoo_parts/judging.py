"""Audits of the zoo against its labels: right, inconclusive or wrong, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.distributions import MultivariateNormal

import collapsekit as ck
from benchmarks.zoo_parts.images import Images
from benchmarks.zoo_parts.sets import Animal
from benchmarks.zoo_parts.states import STATES, State
from benchmarks.zoo_parts.surgery import Model
from benchmarks.zoo_parts.training import Recipe
from collapsekit.errors import InputError
from collapsekit.findings import VERDICTS, Severity

SKIPPED = ("gallery", "traversals", "latent_view", "collisions", "kl_distribution")


def audited(model: Model, recipe: Recipe, width: float | None, images: Images) -> ck.Audit:
    """What a user would be told."""

    def encode(x: Tensor) -> Any:
        mean, scale = model.encode(x)
        return MultivariateNormal(mean, scale_tril=scale) if scale.dim() == 3 else (mean, scale)

    return ck.audit(
        (encode, model.decode),
        images.audited,
        likelihood="bernoulli_logits" if width is None else ("gaussian", width),
        # sqrt(beta) is the width of the outputs whose KL weight is 1.
        beta=1.0 if recipe.likelihood == "gaussian" else recipe.beta,
        probes=[p for p in ck.probes.REGISTERED if p.name not in SKIPPED],
    )


def told(animal: Animal, audit: ck.Audit) -> dict[str, Any]:
    """The audit's judgement of one animal, ready for the record."""
    raised = {f.code: f.message for f in audit.findings if f.severity >= Severity.WARN}
    state = animal.state
    missed = [code for code in state.findings if not _raised(code, raised)]
    false = [code for code in state.silent if code in raised]
    verdict = audit.verdict.name
    if verdict not in state.words:
        outcome = "inconclusive" if verdict == "inconclusive" else "wrong"
    else:
        outcome = "incomplete" if missed or false else "right"
    deciding = [f for f in audit.findings if f.code in audit.verdict.codes]
    return {
        "state": state.name,
        "words": list(state.words),
        "verdict": verdict,
        "outcome": outcome,
        "missed": missed,
        "false": false,
        "raised": raised,
        "evidence": [f"{f.code} {f.message}" for f in deciding],
        "numbers": {name: [n["value"], n["low"], n["high"]] for name, n in _numbers(audit).items()},
    }


def _numbers(audit: ck.Audit) -> dict[str, dict[str, float]]:
    wanted = (
        *("rate", "mutual_information", "active_fraction", "passive_dimensions", "swap_gap"),
        *("locally_collapsed_fraction", "effective_rank", "informative_fraction"),
        *("dimensionwise_kl", "model_information", "round_trip_r2", "robust_round_trip_r2"),
    )
    found = {}
    for name in wanted:
        try:
            number = audit.number(name)
        except InputError:  # not a headline of this family
            continue
        found[name] = {"value": number.value, "low": number.low, "high": number.high}
    return found


def _raised(wanted: str, raised: Mapping[str, str]) -> bool:
    code, _, word = wanted.partition(":")
    return code in raised and word in raised[code]


def confusion(records: Sequence[Mapping[str, Any]]) -> str:
    """Verdicts by state, a Markdown table."""
    lines = [_row(["state", *VERDICTS, "right"]), _row(["---"] * (len(VERDICTS) + 2))]
    for state in STATES.values():
        mine = [r for r in records if r["state"] == state.name]
        if mine:
            counts = [sum(r["verdict"] == word for r in mine) for word in VERDICTS]
            right = sum(r["outcome"] == "right" for r in mine)
            cells = [_cell(c, w, state) for c, w in zip(counts, VERDICTS, strict=True)]
            lines.append(_row([state.name, *cells, f"{right} of {len(mine)}"]))
    return "\n".join(lines)


def listed(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Models that share no state, a row each: what is true, the right words, the verdict."""
    lines = [_row(["model", "right words", "verdict", ""]), _row(["---"] * 4)]
    for record in records.values():
        words = ", ".join(record["words"])
        outcome = "" if record["outcome"] == "right" else record["outcome"]
        lines.append(_row([record["state"], words, record["verdict"], outcome]))
    return "\n".join(lines)


def _cell(count: int, word: str, state: State) -> str:
    if not count:
        return ""
    return f"**{count}**" if word in state.words else str(count)


def score(records: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Counts of outcomes."""
    outcomes = [r["outcome"] for r in records]
    words = ("right", "incomplete", "inconclusive", "wrong")
    return {"models": len(outcomes), **{w: outcomes.count(w) for w in words}}


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
