"""The audit in a notebook: a card of a few kilobytes, without a script."""

from __future__ import annotations

from collapsekit.findings import Severity
from collapsekit.rendering import wording
from collapsekit.rendering.blocks import Tiles
from collapsekit.rendering.environment import environment
from collapsekit.rendering.facts import Facts
from collapsekit.rendering.sections import findings, verdict
from collapsekit.rendering.theme import COLOURS, FONT_STACK
from collapsekit.results import Audit

MOST_FINDINGS = 8


def render(audit: Audit) -> str:
    """State, headline, six numbers and the worst findings."""
    facts = Facts(audit)
    section = verdict.build(facts)
    tiles = next(block.tiles for block in section.blocks if isinstance(block, Tiles))
    rows = [findings.row(finding) for finding in facts.findings()]
    bad = [row for row in rows if row.severity is not Severity.OK]
    shown = (bad or rows)[:MOST_FINDINGS]
    return (
        environment()
        .get_template("card.html")
        .render(
            colours=COLOURS,
            fonts=FONT_STACK,
            severity=audit.verdict.severity,
            state=section.question,
            headline=section.headline,
            lead=wording.shorten(verdict.lead(facts), 300),
            tiles=tiles,
            rows=shown,
            more=len(rows) - len(shown),
            skipped=len(audit.skipped),
        )
    )
