"""What `collapsekit check` prints: the gate's outcome, for people and for pipelines."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, replace
from xml.etree import ElementTree

from collapsekit.archive import dump_json
from collapsekit.cli.gate import Status
from collapsekit.findings import Severity
from collapsekit.gate import Judged, Outcome, Ruling
from collapsekit.head import finding_data
from collapsekit.rendering import junit, wording
from collapsekit.rendering.markdown import escape
from collapsekit.results import Audit

SCHEMA = "collapsekit-check/1"
FORMATS = ("text", "md", "json", "junit")
_WORDS = {Status.RAN: "PASS", Status.FOUND: "FAIL", Status.UNDECIDED: "INCONCLUSIVE"}
_MARKS = {"PASS": "✔ Pass", "FAIL": "✖ Fail", "INCONCLUSIVE": "? Inconclusive"}
_WIDTH = 88
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def status(ruling: Ruling, allow_inconclusive: bool) -> Status:
    """The exit code of a gate."""
    if ruling.outcome is Outcome.FAIL:
        return Status.FOUND
    if ruling.outcome is Outcome.INCONCLUSIVE and not allow_inconclusive:
        return Status.UNDECIDED
    return Status.RAN


def report(form: str, audit: Audit, name: str, ruling: Ruling, ended: Status) -> str:
    """The outcome of a gate.

    Parameters
    ----------
    form : {"text", "md", "json", "junit"}
    audit : Audit
    name : str
        Of its file, as it was given.
    ruling : Ruling
    ended : Status
        The exit code, which `status` made of the ruling.
    """
    if form == "json":
        return _json(audit, name, ruling, ended)
    if form == "junit":
        return _junit(audit, ruling)
    if form == "md":
        return _markdown(audit, name, ruling, ended)
    return _text(audit, name, ruling, ended)


def _text(audit: Audit, name: str, ruling: Ruling, ended: Status) -> str:
    parts = [f"{_WORDS[ended]}  {name}: verdict {audit.verdict.name}, {_counts(ruling)}"]
    parts.append(_filled(audit.verdict.sentence, ""))
    for finding in ruling.findings:
        parts.append(_filled(finding.message, f"{finding.severity.word:<12}  {finding.code}  "))
    for judged in _shown(ruling):
        parts.append(_filled(f"{judged.name}: {judged.message}", f"{judged.outcome:<12}  "))
    parts += [_filled(note, "note          ") for note in ruling.notes]
    if ended is Status.UNDECIDED:
        what = "An inconclusive verdict" if ruling.undecided else "An inconclusive check"
        parts.append(f"{what} fails a gate unless --allow-inconclusive is given.")
    if ruling.findings:
        code = ruling.findings[0].code
        parts.append(f"collapsekit explain {code} tells what it means and what to do.")
    return "\n".join(parts)


def _counts(ruling: Ruling) -> str:
    count = len(ruling.findings)
    parts = [
        f"{count or 'no'} finding{'' if count == 1 else 's'} at or above {ruling.fail_on.word}"
    ]
    if ruling.checks:
        parts.append(f"{_passed(ruling.checks)} of {len(ruling.checks)} checks passed")
    if ruling.baseline:
        passed = _passed(ruling.baseline)
        parts.append(f"{passed} of {len(ruling.baseline)} headlines no worse than the baseline's")
    return ", ".join(parts)


def _passed(judged: Sequence[Judged]) -> int:
    return sum(one.outcome is Outcome.PASS for one in judged)


def _shown(ruling: Ruling) -> list[Judged]:
    """Every check asked for; of the baseline's headlines those that did not pass, worst first."""
    missed = [one for one in ruling.baseline if one.outcome is not Outcome.PASS]
    missed.sort(key=lambda one: one.outcome is not Outcome.FAIL)
    return [*ruling.checks, *missed]


def _filled(text: str, lead: str) -> str:
    # An empty lead is the verdict's sentence: it stands under the first line, indented.
    lead = f"  {lead}"
    return textwrap.fill(text, _WIDTH, initial_indent=lead, subsequent_indent=" " * len(lead))


def _markdown(audit: Audit, name: str, ruling: Ruling, ended: Status) -> str:
    """A comment for a pull request."""
    word = _WORDS[ended]
    parts = [
        f"### {_MARKS[word]}: {_cell(wording.STATE.get(audit.verdict.name, audit.verdict.name))}",
        f"{_cell(name)}: {_cell(_counts(ruling))}.",
        _cell(wording.prose(audit.verdict.sentence, 600)),
    ]
    rows = [
        (_MARKS[one.outcome.upper()], _cell(one.name), _cell(one.message)) for one in _shown(ruling)
    ]
    rows += [
        (wording.SEVERITY[finding.severity], _cell(finding.code), _cell(finding.message))
        for finding in ruling.findings
    ]
    if rows:
        lines = ["| Result | Check | What was found |", "|---|---|---|"]
        parts.append("\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]))
    parts += [_cell(note) for note in ruling.notes]
    return "\n\n".join(parts).replace(wording.NBSP, " ") + "\n"


def _cell(text: str) -> str:
    return escape(wording.clean(text, 600))


def _json(audit: Audit, name: str, ruling: Ruling, ended: Status) -> str:
    return dump_json(
        {
            "schema": SCHEMA,
            "file": name,
            "outcome": _WORDS[ended].lower(),
            "exit_code": int(ended),
            "fail_on": ruling.fail_on.word,
            "verdict": {"name": audit.verdict.name, "sentence": audit.verdict.sentence},
            "findings": [finding_data(finding) for finding in ruling.findings],
            "checks": [asdict(judged) for judged in ruling.checks],
            "baseline": [asdict(judged) for judged in ruling.baseline],
            "notes": list(ruling.notes),
        }
    )


def _junit(audit: Audit, ruling: Ruling) -> str:
    # The renderer marks failures as failures; with a lower bar, what reaches it fails as well.
    raised = [
        replace(finding, severity=Severity.FAIL) if finding.severity >= ruling.fail_on else finding
        for finding in audit.findings
    ]
    written = junit.render(replace(audit, findings=tuple(raised)))
    if not ruling.judged:
        return written
    root = ElementTree.fromstring(written.encode())
    counts = {
        "tests": len(ruling.judged),
        "failures": sum(judged.outcome is Outcome.FAIL for judged in ruling.judged),
        "skipped": sum(judged.outcome is Outcome.INCONCLUSIVE for judged in ruling.judged),
        "errors": 0,
    }
    suite = ElementTree.SubElement(
        root, "testsuite", {"name": "checks", **{key: str(n) for key, n in counts.items()}}
    )
    for key, n in counts.items():
        root.set(key, str(int(root.get(key, "0")) + n))
    for judged in ruling.judged:
        _case(suite, judged)
    ElementTree.indent(root)
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{body}\n'


def _case(suite: ElementTree.Element, judged: Judged) -> None:
    message = _NOT_XML.sub("", judged.message)
    case = ElementTree.SubElement(
        suite, "testcase", {"classname": "collapsekit.checks", "name": judged.name}
    )
    if judged.outcome is Outcome.FAIL:
        kind = {"message": message, "type": judged.name}
        ElementTree.SubElement(case, "failure", kind).text = message
    elif judged.outcome is Outcome.INCONCLUSIVE:
        ElementTree.SubElement(case, "skipped", {"message": message})
    else:
        ElementTree.SubElement(case, "system-out").text = message
