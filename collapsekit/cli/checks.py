"""What `collapsekit check` prints: the gate's outcome, for people and for pipelines."""

from __future__ import annotations

import textwrap
from dataclasses import replace

from collapsekit.cli.gate import Status, at_or_above
from collapsekit.findings import Severity
from collapsekit.rendering import junit
from collapsekit.results import Audit, dump_json, finding_data

SCHEMA = "collapsekit-check/1"
_WORDS = {Status.RAN: "PASS", Status.FOUND: "FAIL", Status.UNDECIDED: "INCONCLUSIVE"}
_WIDTH = 88


def report(form: str, audit: Audit, name: str, bar: Severity, status: Status) -> str:
    """The outcome of a gate.

    Parameters
    ----------
    form : {"text", "json", "junit"}
    audit : Audit
    name : str
        Of its file, as it was given.
    bar : Severity
    status : Status
        What `gate.judge` said.
    """
    if form == "json":
        return _json(audit, name, bar, status)
    if form == "junit":
        return _junit(audit, bar)
    return _text(audit, name, bar, status)


def _text(audit: Audit, name: str, bar: Severity, status: Status) -> str:
    bad = at_or_above(audit, bar)
    count = f"{len(bad) or 'no'} finding{'' if len(bad) == 1 else 's'} at or above {bar.word}"
    parts = [f"{_WORDS[status]}  {name}: verdict {audit.verdict.name}, {count}"]
    parts.append(_filled(audit.verdict.sentence, ""))
    for finding in bad:
        parts.append(_filled(finding.message, f"{finding.severity.word:<12}  {finding.code}  "))
    if status is Status.UNDECIDED:
        parts.append("An inconclusive verdict fails a gate unless --allow-inconclusive is given.")
    if bad:
        parts.append(f"collapsekit explain {bad[0].code} tells what it means and what to do.")
    return "\n".join(parts)


def _filled(text: str, lead: str) -> str:
    # An empty lead is the verdict's sentence: it stands under the first line, indented.
    lead = f"  {lead}"
    return textwrap.fill(text, _WIDTH, initial_indent=lead, subsequent_indent=" " * len(lead))


def _json(audit: Audit, name: str, bar: Severity, status: Status) -> str:
    return dump_json(
        {
            "schema": SCHEMA,
            "file": name,
            "outcome": _WORDS[status].lower(),
            "exit_code": int(status),
            "fail_on": bar.word,
            "verdict": {"name": audit.verdict.name, "sentence": audit.verdict.sentence},
            "findings": [finding_data(finding) for finding in at_or_above(audit, bar)],
        }
    )


def _junit(audit: Audit, bar: Severity) -> str:
    # The renderer marks failures as failures; with a lower bar, what reaches it fails as well.
    judged = [
        replace(finding, severity=Severity.FAIL) if finding.severity >= bar else finding
        for finding in audit.findings
    ]
    return junit.render(replace(audit, findings=tuple(judged)))
