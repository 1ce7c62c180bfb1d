"""The audit as Markdown: for a pull request, an issue, a model card."""

from __future__ import annotations

import re

from collapsekit.findings import Severity
from collapsekit.rendering import wording
from collapsekit.rendering.facts import Facts
from collapsekit.rendering.sections import findings as findings_section
from collapsekit.rendering.sections import groups as groups_section
from collapsekit.rendering.sections import verdict as verdict_section
from collapsekit.results import Audit

_SPECIAL = re.compile(r"([\\`*_\[\]|~#])")
_MARK = {
    Severity.FAIL: "✖ Fail",
    Severity.WARN: "▲ Warning",
    Severity.INCONCLUSIVE: "? Inconclusive",
    Severity.OK: "✔ OK",
}


def render(audit: Audit) -> str:
    """Verdict, findings, headlines and what was skipped; every name is escaped."""
    facts = Facts(audit)
    state = wording.STATE.get(audit.verdict.name, audit.verdict.name)
    parts = [
        f"## {escape(state)}: {escape(verdict_section.headline(facts))}",
        escape(verdict_section.lead(facts)),
        _origin(facts),
    ]
    groups = _groups(facts)
    if groups:
        parts.append(groups)
    rows = [findings_section.row(finding) for finding in facts.findings()]
    if rows:
        lines = [
            f"### {escape(findings_section.headline(facts.findings()))}",
            "",
            "| Result | Code | What was found | Threshold | What to do |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {_MARK[row.severity]} | {escape(row.code)} | {escape(row.message)} | "
            f"{escape(row.threshold)} | {escape(row.advice)} |"
            for row in rows
        ]
        parts.append("\n".join(lines))
    summary = _summary(facts)
    if summary:
        parts.append(summary)
    if audit.skipped:
        lines = ["### Not measured", ""]
        lines += [
            f"- {escape(wording.clean(probe, 60))}: {escape(wording.clean(reason, 300))}"
            for probe, reason in sorted(audit.skipped.items())
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(part for part in parts if part).replace(wording.NBSP, " ") + "\n"


def escape(text: str) -> str:
    """Text that Markdown, and the HTML inside Markdown, show as it is."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", text)


def _origin(facts: Facts) -> str:
    told = facts.audit.provenance
    parts = [
        f"{name} {escape(wording.field_value(told[key], 80))}"
        for key, name in (
            ("model", "Model"),
            ("data", "data"),
            ("prior", "prior"),
            ("seed", "seed"),
        )
        if told.get(key) is not None
    ]
    parts.append(f"{facts.n:,} {wording.plural(facts.n, 'sample')}")
    parts.append(f"{facts.d:,} {wording.plural(facts.d, 'dimension')}")
    return f"{', '.join(parts)}."


def _groups(facts: Facts) -> str:
    groups, note = groups_section.shown(facts)
    if not groups:
        return ""
    lines = [
        f"### {escape(groups_section.headline(facts))}",
        "",
        f"| {' | '.join(groups_section.COLUMNS)} |",
        "|---|---|--:|--:|--:|--:|--:|---|",
    ]
    lines += [f"| {' | '.join(map(escape, group.cells()))} |" for group in groups]
    lines += ["", note] if note else []
    return "\n".join(lines)


def _summary(facts: Facts) -> str:
    lines = ["| Headline | Value | Interval | Unit | n |", "|---|--:|--:|---|--:|"]
    for name in facts.audit.summary.index:
        number = facts.number(str(name))
        if number is None:
            lines.append(f"| {escape(wording.clean(name, 60))} | not measured | | | |")
            continue
        text, unit = wording.value(number)
        lines.append(
            f"| {escape(wording.clean(name, 60))} | {text} | {wording.interval(number)} | "
            f"{escape(unit)} | {number.n:,} |"
        )
    return "\n".join(lines) if len(lines) > 2 else ""
