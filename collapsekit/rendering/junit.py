"""The findings as JUnit XML for a pipeline: one test case per finding."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from collapsekit.findings import Finding, Severity
from collapsekit.rendering import wording
from collapsekit.rendering.facts import Facts
from collapsekit.results import Audit

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(audit: Audit) -> str:
    """FAIL is a failure; WARN passes with its message as output; INCONCLUSIVE is skipped."""
    facts = Facts(audit)
    findings = facts.findings()
    model = wording.clean(audit.provenance.get("model") or "model", 120)
    counts = {
        "tests": len(findings),
        "failures": sum(f.severity is Severity.FAIL for f in findings),
        "skipped": sum(f.severity is Severity.INCONCLUSIVE for f in findings),
        "errors": 0,
    }
    numbers = {key: str(value) for key, value in counts.items()}
    root = ElementTree.Element("testsuites", {"name": "collapsekit", **numbers})
    suite = ElementTree.SubElement(root, "testsuite", {"name": _safe(model), **numbers})
    properties = ElementTree.SubElement(suite, "properties")
    told = [("verdict", audit.verdict.name), ("sentence", audit.verdict.sentence)]
    told += [(f"verdict of group {g}", audit.verdict.name) for g, audit in audit.groups.items()]
    for name, value in told:
        ElementTree.SubElement(properties, "property", {"name": _safe(name), "value": _safe(value)})
    seen: dict[str, int] = {}
    for finding in findings:
        _case(suite, finding, seen)
    ElementTree.indent(root)
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{body}\n'


def _case(suite: ElementTree.Element, finding: Finding, seen: dict[str, int]) -> None:
    # A code may be found twice; test names must differ or runners merge the results.
    seen[finding.code] = seen.get(finding.code, 0) + 1
    number = f" ({seen[finding.code]})" if seen[finding.code] > 1 else ""
    case = ElementTree.SubElement(
        suite,
        "testcase",
        {"classname": "collapsekit", "name": _safe(f"{finding.code} {finding.title}{number}")},
    )
    body = "\n".join(part for part in (finding.message, finding.advice) if part)
    if finding.severity is Severity.FAIL:
        failure = ElementTree.SubElement(
            case, "failure", {"message": _safe(finding.message), "type": _safe(finding.code)}
        )
        failure.text = _safe(body)
    elif finding.severity is Severity.INCONCLUSIVE:
        ElementTree.SubElement(case, "skipped", {"message": _safe(finding.message)})
    else:
        word = wording.SEVERITY[finding.severity]
        ElementTree.SubElement(case, "system-out").text = _safe(f"{word}: {body}")


def _safe(text: str) -> str:
    return _NOT_XML.sub("", text)
