"""The formats for terminals, notebooks, pipelines and pull requests."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import collapsekit as ck
from collapsekit.findings import Severity
from collapsekit.rendering import card, data, junit, markdown, model_card, text
from collapsekit.results import Audit
from tests import audits
from tests.rendering.test_page import NASTY, VARIANTS

ALL = [VARIANTS[name] for name in VARIANTS if name not in ("300 dimensions", "latent image")]


@pytest.mark.parametrize("make", ALL)
def test_every_format_renders_every_audit(make: object) -> None:
    audit = make()  # type: ignore[operator]
    for module in (text, markdown, card, model_card):
        written = module.render(audit)
        assert written.strip()
        assert "nan" not in written.replace("near-deterministic", "").split()
        assert "<NA>" not in written
        written.encode("utf-8")


# -- terminal ----------------------------------------------------------------------------------


def test_text_is_narrow_and_says_the_verdict_first() -> None:
    written = text.render(audits.made_up())
    lines = written.splitlines()
    assert lines[0] == "PARTIAL COLLAPSE"
    assert max(map(len, lines)) <= 96
    assert "\xa0" not in written
    assert "CK201" in written
    assert "active_units" in written


def test_text_tells_what_was_skipped() -> None:
    written = text.render(audits.made_up(decoder=False))
    assert "Not measured" in written
    assert "round_trip: the adapter has no decode(z)" in written


def test_text_cannot_move_the_cursor() -> None:
    written = text.render(audits.hostile(audits.made_up(n=40, d=4), "a\x1b[2J\rb\nc"))
    assert "\x1b" not in written
    assert "\r" not in written


def test_a_table_aligns() -> None:
    assert text.table([("a", "1"), ("bb", "10")], right=(1,)) == "  a    1\n  bb  10"
    assert text.table([]) == ""


# -- notebook ----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", ALL)
def test_the_card_is_small_and_runs_nothing(make: object) -> None:
    written = card.render(make())  # type: ignore[operator]
    assert len(written.encode()) < 30_000
    assert "<script" not in written
    assert "http" not in written


def test_the_card_escapes() -> None:
    written = card.render(audits.hostile(audits.made_up(n=40, d=4), NASTY))
    assert NASTY not in written
    assert "<img" not in written
    assert len(written.encode()) < 30_000


# -- JSON --------------------------------------------------------------------------------------


def test_json_is_strict_and_complete() -> None:
    audit = audits.with_gaps(audits.made_up())
    content = json.loads(data.render(audit), parse_constant=lambda word: pytest.fail(word))
    assert content["verdict"]["name"] == "partial"
    assert content["dimensions_total"] == len(content["dimensions"]) == 32
    assert content["samples_total"] == 400
    assert content["dimensions"][1]["decoder_usage"] is None
    assert content["dimensions"][0]["decoder_usage"] == audit.dimensions["decoder_usage"][0]
    assert content["dimensions"][0]["active"] in (True, False)
    assert [row["dimension"] for row in content["dimensions"]] == list(range(32))


def test_json_writes_no_infinity() -> None:
    audit = audits.made_up(n=40, d=4)
    audit.dimensions.loc[0, "kl"] = math.inf
    audit.dimensions.loc[1, "kl"] = math.nan
    content = json.loads(data.render(audit), parse_constant=lambda word: pytest.fail(word))
    assert content["dimensions"][0]["kl"] is None
    assert content["dimensions"][1]["kl"] is None


# -- JUnit -------------------------------------------------------------------------------------


def _suite(audit: Audit) -> ElementTree.Element:
    suite = ElementTree.fromstring(junit.render(audit)).find("testsuite")
    assert suite is not None
    return suite


def test_junit_maps_severities() -> None:
    audit = audits.made_up("inconclusive")
    suite = _suite(audit)
    cases = suite.findall("testcase")
    assert len(cases) == len(audit.findings) == int(suite.get("tests", ""))
    by_severity = {
        Severity.FAIL: "failure",
        Severity.WARN: "system-out",
        Severity.INCONCLUSIVE: "skipped",
        Severity.OK: "system-out",
    }
    ordered = sorted(audit.findings, key=lambda f: -f.severity)
    for case, finding in zip(cases, ordered, strict=True):
        assert [child.tag for child in case] == [by_severity[finding.severity]]
        assert finding.code in case.get("name", "")
    assert int(suite.get("failures", "")) == sum(f.severity is Severity.FAIL for f in ordered)
    assert int(suite.get("skipped", "")) == 1


def test_junit_names_differ() -> None:
    audit = audits.made_up()
    twice = replace(audit, findings=(*audit.findings, *audit.findings))
    names = [case.get("name") for case in _suite(twice).findall("testcase")]
    assert len(set(names)) == len(names)


def test_junit_is_xml_whatever_the_findings_say() -> None:
    for text_ in (NASTY, "]]>", "a\x00\x08b\ud800", "\ufffe"):
        audit = audits.made_up(n=40, d=4)
        findings = tuple(replace(f, message=text_, title=text_) for f in audit.findings)
        verdict = replace(audit.verdict, sentence=text_)
        told = replace(audit, findings=findings, verdict=verdict)
        ElementTree.fromstring(junit.render(told).encode())


# -- Markdown ----------------------------------------------------------------------------------


def test_markdown_rows_have_their_columns_whatever_the_names() -> None:
    written = markdown.render(
        audits.hostile(audits.made_up(n=40, d=4), "a|b`c`\n# d <b>e</b> [f](g)")
    )
    for line in written.splitlines():
        if line.startswith("|"):
            bare = line.replace("\\|", "")
            assert bare.count("|") == 6
    assert "<b>" not in written
    assert "[f](g)" not in written


def test_markdown_has_verdict_findings_and_headlines() -> None:
    written = markdown.render(audits.made_up())
    assert written.startswith("## Partial collapse: 17 of 32 dimensions are dead.")
    assert "✖ Fail | CK201" in written
    assert "| active\\_units | 15 |" in written


def test_a_model_card_has_front_matter_that_no_name_can_leave() -> None:
    written = model_card.render(audits.hostile(audits.made_up(n=40, d=4), 'x"\n---\nlicense: mit'))
    front = written.split("---\n")[1]
    assert "license: mit" not in front.splitlines()
    for line in front.splitlines():
        key, _, value = line.partition(": ")
        if key.strip() in ("name", "- name", "- type") and value.startswith('"'):
            json.loads(value)


# -- imports -----------------------------------------------------------------------------------


def test_a_terminal_a_notebook_and_a_pipeline_need_no_matplotlib(tmp_path: Path) -> None:
    saved = audits.made_up(n=30, d=3).save(tmp_path / "some.audit")
    program = """
import sys
import collapsekit as ck
from collapsekit.rendering import card, data, junit, markdown, model_card, plots, text
audit = ck.load(sys.argv[1])
for module in (card, data, junit, markdown, model_card, text):
    module.render(audit)
plots.Plots(audit).names
assert "matplotlib" not in sys.modules, "matplotlib"
assert "torch" not in sys.modules, "torch"
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(saved)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_terminal_tells_the_end_that_an_open_interval_has() -> None:
    x = np.random.default_rng(0).normal(size=(7, 2))
    audit = ck.audit(
        (lambda x: (0.8 * x.double(), 0 * x.double() + 0.4), lambda z: z),
        x,
        likelihood=("gaussian", 0.5),
        probes=["kl", "inference_gap"],
    )
    lines = {line.split()[0]: line for line in str(audit).splitlines() if line.startswith("  ")}
    assert not np.isfinite(audit.number("inference_gap").high)
    assert "[from " in lines["inference_gap"]
