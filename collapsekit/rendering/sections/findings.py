"""What failed, how badly, and what to do: one row per finding, worst first."""

from __future__ import annotations

import re
from collections import Counter

from collapsekit.findings import KEPT_INDICES, Evidence, Finding, Severity
from collapsekit.rendering import wording
from collapsekit.rendering.blocks import (
    Block,
    FindingRow,
    FindingRows,
    Fold,
    Note,
    Paragraph,
    Section,
)
from collapsekit.rendering.facts import Facts

_FOLD_FROM = 12  # OK rows are folded away once the table is longer than a screen


def build(facts: Facts) -> Section:
    """The findings' section; an audit without any says so."""
    findings = facts.findings()
    rows = [row(finding) for finding in findings]
    blocks: tuple[Block, ...]
    open_rows = [r for r in rows if r.severity is not Severity.OK]
    fine = [r for r in rows if r.severity is Severity.OK]
    if not rows:
        blocks = (Paragraph("No probe reported anything; see what was skipped, and why, below."),)
    elif len(rows) > _FOLD_FROM and open_rows and fine:
        name = f"{wording.counted(len(fine), 'check', capital=True)} passed"
        blocks = (
            FindingRows(tuple(open_rows)),
            Fold(name, (FindingRows(tuple(fine)),)),
        )
    else:
        blocks = (FindingRows(tuple(rows)),)
    if rows:
        code = open_rows[0].code if open_rows else rows[0].code
        blocks = (
            *blocks,
            Note(f"collapsekit explain {code} prints what a code means and where it is from."),
        )
    return Section(
        id="findings",
        nav="Findings",
        question="What failed, how badly, and what to do?",
        headline=headline(findings),
        blocks=blocks,
    )


def headline(findings: list[Finding]) -> str:
    """``Three checks fail, two warn, three pass.``"""
    counts = Counter(finding.severity for finding in findings)
    told = (
        (Severity.FAIL, "fails", "fail"),
        (Severity.WARN, "warns", "warn"),
        (Severity.INCONCLUSIVE, "decides nothing", "decide nothing"),
        (Severity.OK, "passes", "pass"),
    )
    if not findings:
        return "No check ran."
    if len(counts) == 1 and counts[Severity.OK]:
        n = counts[Severity.OK]
        if n == 1:
            return "The one check passes."
        return f"{'Both' if n == 2 else 'All ' + wording.spelled(n)} checks pass."
    parts: list[str] = []
    for severity, one, many in told:
        n = counts[severity]
        if not n:
            continue
        word = wording.verb(n, one, many)
        if parts:
            parts.append(f"{wording.spelled(n)} {word}")
        else:
            parts.append(f"{wording.counted(n, 'check', capital=True)} {word}")
    return f"{', '.join(parts)}."


def row(finding: Finding) -> FindingRow:
    """A finding as strings."""
    return FindingRow(
        severity=finding.severity,
        code=wording.clean(finding.code, 12),
        title=wording.clean(finding.title, 90),
        message=wording.prose(finding.message, 600),
        measured=measured(finding),
        threshold=threshold(finding.evidence),
        where=where(finding),
        advice=wording.prose(finding.advice, 400),
    )


_INTERVAL = re.compile(r"\d[^ ]* (?:%\s)?to \d|\[|between \d")


def measured(finding: Finding) -> str:
    """Intervals of the judged numbers, unless the message tells them already."""
    if _INTERVAL.search(finding.message):
        return ""
    parts = []
    for item in finding.evidence[:2]:
        number = item.number
        ends = wording.interval(number)
        if ends and item.threshold is not None and number.low < number.high:
            share = f"{wording.NBSP}%" if number.unit == "share" else ""
            parts.append(f"{ends}{share}")
    return f"Interval {' and '.join(parts)}" if parts else ""


def threshold(evidence: tuple[Evidence, ...]) -> str:
    """What a finding was held against: ``≥ 80 %``; empty where it was only told."""
    parts = []
    for item in evidence:
        if item.threshold is None:
            continue
        sign = wording.relation_sign(wording.clean(item.relation, 4))
        text = wording.in_unit(item.threshold, item.number.unit)
        parts.append(f"{sign}{wording.NBSP}{text}" if sign else text)
    return ", ".join(dict.fromkeys(parts[:3]))


def where(finding: Finding) -> str:
    """Which dimensions and samples, as far as a row has room."""
    parts = []
    if finding.dimensions:
        parts.append(_indices("Dimension", finding.dimensions, 8))
    if finding.samples:
        parts.append(_indices("Sample", finding.samples, 6))
    return "; ".join(parts)


def _indices(noun: str, indices: tuple[int, ...], shown: int) -> str:
    numbers = [str(k) for k in indices]
    if len(numbers) >= KEPT_INDICES:  # the finding kept no more: how many there are it says itself
        return f"{noun}s {', '.join(numbers[:shown])} and more"
    return f"{wording.plural(len(numbers), noun)} {wording.listing(numbers, limit=shown)}"
