"""The audit in a terminal: verdict, findings, headlines. Plain text, no colour codes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from collapsekit.rendering import wording
from collapsekit.rendering.facts import Facts
from collapsekit.rendering.sections import groups, verdict
from collapsekit.results import Audit

WIDTH = 88


def render(audit: Audit) -> str:
    """Verdict, findings, summary and what was skipped, at most `WIDTH` columns wide."""
    facts = Facts(audit)
    state = wording.STATE.get(audit.verdict.name, audit.verdict.name)
    parts = [state.upper(), _wrap(verdict.lead(facts)), _origin(facts)]
    told = _groups(facts)
    if told:
        parts.append(told)
    findings = _findings(facts)
    if findings:
        parts.append(findings)
    summary = _summary(facts)
    if summary:
        parts.append(summary)
    if audit.skipped:
        lines = [
            _wrap(f"{wording.clean(probe, 60)}: {wording.clean(reason, 200)}", "  ", "    ")
            for probe, reason in sorted(audit.skipped.items())
        ]
        parts.append("\n".join(["Not measured", *lines]))
    return "\n\n".join(part for part in parts if part).replace(wording.NBSP, " ")


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Rows as aligned columns, two spaces apart; `right` names the columns set flush right."""
    if not rows:
        return ""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if k in right else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"  {'  '.join(cells)}".rstrip())
    return "\n".join(lines)


def _wrap(text: str, first: str = "", rest: str = "") -> str:
    return textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=rest)


def _origin(facts: Facts) -> str:
    told = facts.audit.provenance
    parts = [wording.clean(told[key], 60) for key in ("model", "data") if told.get(key) is not None]
    parts.append(f"{facts.n:,} {wording.plural(facts.n, 'sample')}")
    parts.append(f"{facts.d:,} {wording.plural(facts.d, 'dimension')}")
    if told.get("prior") is not None:
        parts.append(f"prior {wording.field_value(told['prior'], 40)}")
    if told.get("seed") is not None:
        parts.append(f"seed {wording.field_value(told['seed'], 20)}")
    return _wrap(" · ".join(parts))


def _groups(facts: Facts) -> str:
    shown, note = groups.shown(facts)
    if not shown:
        return ""
    rows = [
        # Six columns: what is worst of a group stands among the findings, in full.
        (wording.middle(cells[0], 24), cells[1], *cells[3:7])
        for cells in (groups.COLUMNS, *(group.cells() for group in shown))
    ]
    parts = [_wrap(groups.headline(facts)), table(rows, right=(2, 3, 4, 5))]
    return "\n".join([*parts, *([_wrap(note)] if note else [])])


def _findings(facts: Facts) -> str:
    findings = facts.findings()
    if not findings:
        return ""
    code = max(len(wording.clean(finding.code, 12)) for finding in findings)
    lines = ["Findings"]
    for finding in findings:
        word = wording.SEVERITY[finding.severity]
        mark = f"  {word:<12}  {wording.clean(finding.code, 12):<{code}}  "
        lines.append(_wrap(wording.prose(finding.message, 400), mark, " " * len(mark)))
    return "\n".join(lines)


def _summary(facts: Facts) -> str:
    rows = []
    for name in facts.audit.summary.index:
        number = facts.number(str(name))
        if number is None:
            rows.append((wording.clean(name, 40), "not measured", "", ""))
            continue
        text, unit = wording.value(number)
        ends = wording.interval(number)
        if not ends and math.isfinite(number.low):
            ends = f"from {wording.figure(number.low)}"
        told = f"[{ends}]" if ends else ""
        rows.append((wording.clean(name, 40), text, unit, told))
    return f"Headlines\n{table(rows, right=(1,))}" if rows else ""
