"""What was audited, and whether to trust it: the pairs above the verdict."""

from __future__ import annotations

import re
from typing import Any

from collapsekit.rendering import wording
from collapsekit.rendering.facts import Facts
from collapsekit.rendering.wording import clean, field_value, figure


def pairs(facts: Facts) -> list[tuple[str, str]]:
    """Label and value, at most eight, each only where it is known."""
    told = facts.audit.provenance
    listed = [
        ("Model", _text(told.get("model"))),
        ("Loaded by", _text(told.get("adapter"))),
        ("Data", _data(facts)),
        ("Prior", _prior(facts)),
        ("Likelihood", _likelihood(told)),
        ("Posterior given as", _posterior(told)),
        ("Run", _run(facts)),
        ("collapsekit", _versions(told.get("versions"))),
    ]
    return [(name, value) for name, value in listed if value]


def _text(content: Any) -> str:
    return "" if content is None else field_value(content, 90)


def _data(facts: Facts) -> str:
    name = _text(facts.audit.provenance.get("data"))
    count = f"{facts.n:,} {facts.nouns(facts.n)}"
    mark = facts.audit.provenance.get("data_fingerprint")
    short = f"fingerprint {clean(mark, 90).rpartition(':')[2][:8]}" if mark else ""
    return ", ".join(part for part in (name, count, short) if part)


def _prior(facts: Facts) -> str:
    name = _text(facts.audit.provenance.get("prior")) or "not known"
    return f"{name}, {facts.d:,} {wording.plural(facts.d, 'dimension')}"


def _likelihood(told: dict[str, Any]) -> str:
    content = told.get("likelihood")
    if content is None:
        return ""
    if (
        isinstance(content, list | tuple)
        and len(content) == 2
        and isinstance(content[1], float | int)
    ):
        text = f"{clean(content[0], 40)}, scale {figure(float(content[1]))}"
    else:
        text = field_value(content, 60)
    beta = told.get("beta")
    if isinstance(beta, float | int) and not isinstance(beta, bool):
        text += f", β {wording.tick(float(beta))}"
    return f"{text}, as declared"


def _posterior(told: dict[str, Any]) -> str:
    name = told.get("parameterisation")
    if name is None:
        return ""
    words = {"logvar": "log-variance", "scale": "scale", "variance": "variance"}
    return f"mean and {words.get(str(name), clean(name, 40))}, as declared"


def _run(facts: Facts) -> str:
    run, told = facts.audit.run, facts.audit.provenance
    parts = []
    started = run.get("started")
    if started:
        # To the minute: seconds say nothing that the reader needs.
        moment = re.match(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d", str(started))
        parts.append(moment[0].replace("T", " ") if moment else clean(started, 40))
    if told.get("seed") is not None:
        parts.append(f"seed {field_value(told['seed'], 24)}")
    seconds = run.get("seconds")
    if isinstance(seconds, int | float) and seconds >= 0:
        parts.append(f"{figure(float(seconds), significant=2)}{wording.NBSP}s")
    return ", ".join(parts)


def _versions(versions: Any) -> str:
    if not isinstance(versions, dict):
        return _text(versions)
    own = [clean(versions["collapsekit"], 24)] if "collapsekit" in versions else []
    rest = [f"{clean(k, 24)} {clean(versions[k], 24)}" for k in ("torch", "numpy") if k in versions]
    return ", ".join(own + rest)


def comparison_pairs(facts: list[Facts]) -> list[tuple[str, str]]:
    """What several audits have in common; what they do not is a section of its own."""
    first = facts[0]
    prints = {str(one.audit.provenance.get("data_fingerprint")) for one in facts}
    priors = {str(one.audit.provenance.get("prior")) for one in facts}
    sizes = {one.d for one in facts}
    listed = [
        ("Data", _data(first) if len(prints) == 1 else "differs between the runs"),
        ("Prior", _text(first.audit.provenance.get("prior")) if len(priors) == 1 else "differs"),
        (
            "Dimensions",
            wording.listing([f"{size:,}" for size in sorted(sizes)]),
        ),
        ("Matched by", "sample number; rank within a run for dimensions"),
    ]
    return [(name, value) for name, value in listed if value]
