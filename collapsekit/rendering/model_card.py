"""The audit for a model card: YAML front matter (``model-index``) and a Markdown section.

Written by hand to the documented fields; needs no library. Every string is set in JSON quotes,
which YAML reads as they are, so that no name can add a field.
"""

from __future__ import annotations

import json

from collapsekit.rendering import markdown, wording
from collapsekit.rendering.facts import Facts
from collapsekit.results import Audit


def render(audit: Audit) -> str:
    """Front matter with the headlines as metrics, then the audit as Markdown."""
    facts = Facts(audit)
    model = wording.clean(audit.provenance.get("model") or "model", 120)
    data = wording.clean(audit.provenance.get("data") or "data", 120)
    lines = [
        "---",
        "tags:",
        "- vae",
        "- collapsekit",
        "model-index:",
        f"- name: {_quoted(model)}",
        "  results:",
        "  - task:",
        "      type: other",
        '      name: "Posterior collapse audit"',
        "    dataset:",
        f"      name: {_quoted(data)}",
        f"      type: {_quoted(data)}",
        "    metrics:",
        "    - type: verdict",
        f"      value: {_quoted(audit.verdict.name)}",
    ]
    for name in audit.summary.index[:64]:
        number = facts.number(str(name))
        if number is None:
            continue
        title = facts.title(str(name))
        unit = wording.unit(number.unit)
        lines += [
            f"    - type: {_quoted(wording.clean(name, 60))}",
            f"      value: {_real(number.value)}",
            f"      name: {_quoted(f'{title} ({unit})' if unit else title)}",
        ]
    lines.append("---")
    return "\n".join(lines) + "\n\n" + markdown.render(audit)


def _real(value: float) -> str:
    """Six digits; YAML 1.1 reads 1e-05 as a text, and 1.0e-05 as a number."""
    text = repr(float(f"{value:.6g}"))
    return text if "." in text else text.replace("e", ".0e")


def _quoted(text: str) -> str:
    return json.dumps(wording.clean(text, 160), ensure_ascii=False)
