"""The command line: exit codes, streams, files. What is measured is tested elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch

import collapsekit as ck
from collapsekit import cli
from collapsekit.cli import config, options, output
from collapsekit.demo import Setting, digits, train
from collapsekit.errors import FileError, InputError, ModelError, Unavailable
from collapsekit.findings import Finding, Severity, fold
from collapsekit.number import Number
from collapsekit.rendering.wording import STATE
from collapsekit.results import Audit
from collapsekit.tables import summary_table
from tests.audits import made_up
from tests.models import LinearVAE
from tests.test_engine import same
from tests.test_executors import linear

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The console script in this process."""

    def ran(*words: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["collapsekit", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        return Ran(int(ended.value.code or 0), told.out, told.err)

    return ran


def in_a_new_process(*words: object, cwd: Path, before: str = "", **variables: str) -> Ran:
    code = f"{before}\nfrom collapsekit.cli import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        check=False,
        timeout=120,
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def finding(severity: str, word: str | None = None, code: str = "CK101") -> Finding:
    level = Severity.of(severity)
    return Finding(code, level, "Title", f"a {severity} was found.", "Do this.", verdict=word)


def audit_of(*findings: Finding) -> Audit:
    return replace(
        made_up("healthy", n=40, d=4, pictures="none"), findings=findings, verdict=fold(findings)
    )


GOOD = finding("ok", "healthy")
WARNED = finding("warn", "partial")
FAILED = finding("fail", "total")
UNSURE = finding("inconclusive", None, "CK002")  # an inconclusive finding, and no more
UNDECIDED = finding("inconclusive", "inconclusive", "CK006")  # an inconclusive verdict


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    def save(*findings: Finding, name: str = "a.audit") -> Path:
        return audit_of(*findings).save(tmp_path / name)

    return save


# -- check ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "findings, words, code",
    [
        ([GOOD], [], 0),
        ([GOOD], ["--fail-on", "inconclusive"], 0),
        ([GOOD, UNSURE], [], 0),
        ([GOOD, UNSURE], ["--fail-on", "warn"], 0),
        ([GOOD, UNSURE], ["--fail-on", "inconclusive"], 1),
        ([WARNED], [], 0),
        ([WARNED], ["--fail-on", "fail"], 0),
        ([WARNED], ["--fail-on", "warn"], 1),
        ([FAILED], [], 1),
        ([FAILED], ["--fail-on", "warn"], 1),
        ([UNDECIDED], [], 3),
        ([UNDECIDED], ["--allow-inconclusive"], 0),
        ([UNDECIDED, finding("warn")], [], 3),
        ([UNDECIDED, finding("warn")], ["--fail-on", "warn"], 1),
        ([UNDECIDED, finding("fail")], ["--allow-inconclusive"], 1),
        ([], [], 3),  # no probe ran: nothing to be healthy about
        ([], ["--allow-inconclusive"], 0),
    ],
)
@pytest.mark.parametrize("form", ["text", "json", "junit"])
def test_check_exits_as_promised(
    run: Run, saved: Any, findings: list[Finding], words: list[str], code: int, form: str
) -> None:
    done = run("check", saved(*findings), "--format", form, *words)
    assert (done.code, done.err) == (code, "")
    outcome = {0: "PASS", 1: "FAIL", 3: "INCONCLUSIVE"}[code]
    if form == "text":
        assert done.out.startswith(f"{outcome}  ")
    elif form == "json":
        told = json.loads(done.out)
        assert (told["exit_code"], told["outcome"]) == (code, outcome.lower())
    else:
        suite = ElementTree.fromstring(done.out)
        assert (int(suite.get("failures", "0")) > 0) == (code == 1)


def test_check_tells_what_reached_the_bar_and_nothing_else(run: Run, saved: Any) -> None:
    path = saved(WARNED, UNSURE, GOOD)
    told = run("check", path, "--fail-on", "warn").out
    assert "verdict partial, 1 finding at or above warn" in told
    assert "warn          CK101  a warn was found." in told
    assert "collapsekit explain CK101" in told
    assert "CK002" not in told
    data = json.loads(run("check", path, "--fail-on", "warn", "--format", "json").out)
    assert data["schema"] == "collapsekit-check/1"
    assert data["fail_on"] == "warn"
    assert data["verdict"]["name"] == "partial"
    assert [f["code"] for f in data["findings"]] == ["CK101"]


def test_check_marks_in_junit_what_reached_the_bar(run: Run, saved: Any) -> None:
    path = saved(WARNED, UNSURE, GOOD)
    counts = {}
    for bar in ("fail", "warn", "inconclusive"):
        suite = ElementTree.fromstring(
            run("check", path, "--fail-on", bar, "--format", "junit").out
        )
        counts[bar] = (suite.get("tests"), suite.get("failures"), suite.get("skipped"))
    assert counts == {
        "fail": ("3", "0", "1"),
        "warn": ("3", "1", "1"),
        "inconclusive": ("3", "2", "0"),
    }


@pytest.mark.parametrize(
    "words", [["--fail-on", "never"], ["--format", "html"], ["--fail-on"], ["--unknown"]]
)
def test_check_refuses_what_it_does_not_know(run: Run, saved: Any, words: list[str]) -> None:
    done = run("check", saved(GOOD), *words)
    assert (done.code, done.out) == (2, "")
    assert done.err


# -- check: headlines and baselines -------------------------------------------------------------


def held(tmp_path: Path, value: float, half: float, name: str, **provenance: object) -> Path:
    audit = audit_of(GOOD)
    number = Number("active_fraction", value, value - half, value + half, "share", 40)
    told = {**audit.provenance, **provenance}
    return replace(audit, summary=summary_table([number]), provenance=told).save(tmp_path / name)


PASSING, MISSING, UNDECIDABLE = (f"active_fraction{end}" for end in (">=0.8", ">0.99", ">=0.9"))


@pytest.mark.parametrize(
    "asked, words, code",
    [
        ([PASSING], [], 0),
        ([MISSING], [], 1),
        ([MISSING], ["--allow-inconclusive"], 1),
        ([UNDECIDABLE], [], 3),
        ([UNDECIDABLE], ["--allow-inconclusive"], 0),
        ([PASSING, UNDECIDABLE], [], 3),
        ([UNDECIDABLE, MISSING], [], 1),
        (["round_trip_r2>=0.5"], [], 3),  # not measured in this audit
        (["active_fractoin>=0.8"], [], 2),
        (["active_fraction=0.8"], [], 2),
    ],
)
@pytest.mark.parametrize("form", ["text", "md", "json", "junit"])
def test_check_holds_headlines_to_thresholds(
    run: Run, tmp_path: Path, asked: list[str], words: list[str], code: int, form: str
) -> None:
    path = held(tmp_path, 0.9, 0.05, "a.audit")
    options_ = [word for one in asked for word in ("--check", one)]
    done = run("check", path, *options_, *words, "--format", form)
    assert done.code == code
    assert bool(done.err) == (code == 2)
    if code == 2:
        assert done.out == ""
    elif form == "text":
        assert all(one in done.out for one in asked)
        assert ("--allow-inconclusive is given" in done.out) == (code == 3)
    elif form == "md":
        outcome = {0: "✔ Pass", 1: "✖ Fail", 3: "? Inconclusive"}[code]
        assert done.out.startswith(f"### {outcome}: ")
        rows = [line for line in done.out.splitlines() if line.startswith("| ")]
        assert len(rows) == len(asked) + 1  # and the heading
    elif form == "json":
        told = json.loads(done.out)
        assert (told["schema"], told["exit_code"]) == ("collapsekit-check/1", code)
        assert [one["name"] for one in told["checks"]] == asked
        assert {tuple(one) for one in told["checks"]} == {("message", "name", "outcome")}
    else:
        root = ElementTree.fromstring(done.out)
        suites = root.findall("testsuite")
        assert [suite.get("name") for suite in suites][1:] == ["checks"]
        assert [case.get("name") for case in suites[1]] == asked
        for count in ("tests", "failures", "skipped"):
            assert int(root.get(count, "-1")) == sum(int(s.get(count, "-1")) for s in suites)
        assert (int(root.get("failures", "0")) > 0) == (code == 1)


def test_the_json_of_a_check_has_these_fields_and_no_others(run: Run, tmp_path: Path) -> None:
    # Part of the schema's name: a field that goes, or changes its meaning, makes it /2.
    path = held(tmp_path, 0.9, 0.05, "a.audit")
    told = json.loads(run("check", path, "--format", "json", "--baseline", path).out)
    assert set(told) == {
        "schema", "file", "outcome", "exit_code", "fail_on", "verdict", "findings", "checks",
        "baseline", "notes",
    }  # fmt: skip


def test_check_against_a_baseline(run: Run, tmp_path: Path) -> None:
    good = held(tmp_path, 0.9, 0.01, "good.audit")
    bad = held(tmp_path, 0.5, 0.01, "bad.audit")
    other = held(tmp_path, 0.5, 0.01, "other.audit", data_fingerprint="another")
    prior = held(tmp_path, 0.5, 0.01, "prior.audit", prior="N(0, 2)")
    assert run("check", good, "--baseline", good).code == 0
    assert run("check", good, "--baseline", bad).code == 0
    worse = run("check", bad, "--baseline", good)
    assert worse.code == 1
    flat = " ".join(worse.out.split())
    assert "active_fraction is 0.500 [0.490, 0.510], in the baseline 0.900 [0.890, 0.910]" in flat
    assert "change -0.400 [-0.414, -0.386]: worse beyond noise and margin" in flat
    for unlike, what in ((other, "different data"), (prior, "different priors")):
        refused = run("check", bad, "--baseline", unlike)
        assert (refused.code, refused.out) == (2, "")
        assert what in refused.err
        assert "--force" not in refused.err
    assert run("check", bad, "--baseline", tmp_path / "none.audit").code == 2


def test_hostile_names_stay_in_their_cells(run: Run, tmp_path: Path) -> None:
    text = 'x|y`z`\n# <img src=x onerror=alert(1)> ]]>"'
    path = audit_of(finding("fail", "total", text), replace(FAILED, message=text)).save(
        tmp_path / "a.audit"
    )
    told = run("check", path, "--format", "md").out
    assert "<img" not in told
    for line in told.splitlines():
        if line.startswith("|"):
            assert line.replace("\\|", "").count("|") == 4
    xml = run("check", path, "--check", "rate>0", "--format", "junit").out
    ElementTree.fromstring(xml)


# -- options from the environment and from a file ------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: Any) -> Path:
    """A folder with an audit that warns: exit 1 from --fail-on warn on, else 0."""
    saved(WARNED)
    monkeypatch.chdir(tmp_path)
    return tmp_path


OWN, PROJECT = "collapsekit.toml", "pyproject.toml"


@pytest.mark.parametrize(
    "name, text",
    [
        (PROJECT, '[tool.collapsekit.check]\nfail-on = "warn"'),
        (PROJECT, '[tool.collapsekit.check]\nfail_on = "warn"'),
        (OWN, '[check]\nfail-on = "warn"'),
    ],
)
def test_flags_win_over_the_environment_and_that_over_the_file(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    assert run("check", "a.audit").code == 0
    (project / name).write_text(text)
    assert run("check", "a.audit").code == 1
    monkeypatch.setenv("COLLAPSEKIT_CHECK_FAIL_ON", "fail")
    assert run("check", "a.audit").code == 0
    assert run("check", "a.audit", "--fail-on", "warn").code == 1
    assert run("--version").code == 0


def test_the_environment_needs_no_file(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLLAPSEKIT_CHECK_FAIL_ON", "warn")
    monkeypatch.setenv("COLLAPSEKIT_CHECK_FORMAT", "json")
    monkeypatch.setenv("COLLAPSEKIT_CHECK_CHECK", "rate>=0 rate>=1e-9")
    monkeypatch.setenv("COLLAPSEKIT_EXPLAIN_LOSS_KL_WEIGHT", "0.3")
    done = run("check", "a.audit")
    told = json.loads(done.out)
    assert (done.code, told["fail_on"], len(told["checks"])) == (1, "warn", 2)
    assert (
        "KL weight 0.3" in run("explain-loss", "a.audit", "--logged-kl", "7.8", "--values", 1).out
    )


def test_flags_are_set_by_the_environment_too(
    run: Run, saved: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(UNDECIDED)
    for value, code in (("1", 0), ("true", 0), ("0", 3), ("", 3)):
        monkeypatch.setenv("COLLAPSEKIT_CHECK_ALLOW_INCONCLUSIVE", value)
        assert run("check", path).code == code


def test_lists_flags_and_numbers_of_a_file_arrive(run: Run, here: Path) -> None:
    (here / OWN).write_text(
        '[audit]\nseed = 7\nout = ["a.audit", "a.md"]\nallow-inconclusive = true\n'
        '[check]\ncheck = ["rate>=0.1", "active_units>=1"]\nformat = "json"\n'
        "[explain-loss]\nkl-weight = 0.5\n"
    )
    assert run("audit", "posteriors:one.npz").code == 0
    assert run("audit", "posteriors:healthy.npz").code == 0
    assert ck.load("a.audit").provenance["seed"] == 7
    assert Path("a.md").exists()
    told = json.loads(run("check", "a.audit").out)
    assert [one["name"] for one in told["checks"]] == ["rate>=0.1", "active_units>=1"]
    assert (
        "KL weight 0.5"
        in run(
            "explain-loss",
            "a.audit",
            "--logged-kl",
            f"{ck.load('a.audit').number('rate').value:.3f}",
        ).out
    )


def test_the_nearest_file_counts_as_far_as_the_repository(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = project / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    (project / PROJECT).write_text('[tool.collapsekit.check]\nfail-on = "warn"')
    assert run("check", "../a.audit").code == 1
    (inner / PROJECT).write_text("[tool.other]\nx = 1")  # says nothing about us: look further
    assert run("check", "../a.audit").code == 1
    (inner / OWN).write_text('[check]\nfail-on = "fail"')
    assert run("check", "../a.audit").code == 0
    (inner / OWN).unlink()
    (inner / ".git").mkdir()
    assert run("check", "../a.audit").code == 0


@pytest.mark.parametrize(
    "text, why",
    [
        ("[check", "cannot be read"),
        ("[chek]\nx = 1", "there is no command called 'chek'"),
        ('[check]\nfail = "warn"', "[check] there is no option called 'fail'"),
        ('fail-on = "warn"', "there is no command called 'fail-on'"),
        ("check = 3", "options stand in a table for each command"),
        ("[check]\nbaseline = {a = 1}", "no plain value"),
        ('[check]\nfile = "a.audit"', "no option called 'file'"),  # an argument is typed
        ("[audit]\ntrust-code = true", "no option called 'trust-code'"),
    ],
)
def test_a_file_that_says_nonsense_is_a_usage_error(
    run: Run, project: Path, text: str, why: str
) -> None:
    (project / OWN).write_text(text)
    done = run("check", "a.audit")
    assert (done.code, done.out) == (2, "")
    assert why in done.err
    assert "expected:" in done.err
    assert "Traceback" not in done.err


def test_a_value_of_the_wrong_kind_is_a_usage_error(run: Run, here: Path) -> None:
    (here / OWN).write_text('[audit]\nseed = "many"')
    done = run("audit", "posteriors:healthy.npz")
    assert (done.code, done.out) == (2, "")
    assert "--seed" in done.err


def test_trust_is_typed(tmp_path: Path) -> None:
    (tmp_path / OWN).write_text("[audit]\ntrust-code = true")
    names = {"trust-code": "trust_code", "seed": "seed"}
    known = {"audit": {name: config.Option(parameter) for name, parameter in names.items()}}
    with pytest.raises(InputError, match="no option called 'trust-code'"):
        config.defaults(tmp_path, {}, known)
    (tmp_path / OWN).write_text("[audit]\nseed = 3")
    environment = {"COLLAPSEKIT_AUDIT_TRUST_CODE": "1"}
    assert config.defaults(tmp_path, environment, known) == {"audit": {"seed": 3}}


# -- explain-loss --------------------------------------------------------------------------------


def test_explain_loss_names_the_reduction_and_the_beta(run: Run, here: Path) -> None:
    run("audit", "posteriors:healthy.npz", "--out", "a.audit")
    rate = ck.load("a.audit").number("rate").value
    words = ["explain-loss", "a.audit", "--kl-weight", "0.3", "--logged-kl"]
    mean = run(*words, f"{rate / 3:.4f}")
    assert (mean.code, mean.err) == (0, "")
    flat = " ".join(mean.out.split())
    assert "It is: mean over dimensions and samples" in flat
    assert "Effective beta 0.1 (KL weight 0.3 times 0.3333)" in flat
    none = run(*words, f"{50 * rate:.4f}")
    assert none.code == 0
    assert "No known reduction matches" in none.out
    pixels = run(*words, f"{rate / 784:.6f}", "--values", "784")
    assert "mean over the input's values" in " ".join(pixels.out.split())
    wrong = run(*words, "ten")
    assert (wrong.code, wrong.out) == (2, "")
    assert "the logged KL is not a number" in wrong.err
    assert run("explain-loss", "a.audit").code == 2


# -- render --------------------------------------------------------------------------------------

OPENINGS = {
    "text": "PARTIAL COLLAPSE",
    "html": "<!doctype html>",
    "md": "#",
    "json": "{",
    "junit": "<?xml",
}


@pytest.fixture(scope="module")
def partial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    audit = made_up("partial", n=60, d=6, side=8)
    return audit.save(tmp_path_factory.mktemp("saved") / "partial.audit")


@pytest.mark.parametrize("form", OPENINGS)
def test_render_writes_every_format_to_stdout_and_to_a_file(
    run: Run, partial: Path, tmp_path: Path, form: str
) -> None:
    printed = run("render", partial, "--format", form)
    assert (printed.code, printed.err) == (0, "")
    assert printed.out.lower().startswith(OPENINGS[form].lower())
    assert run("render", partial, "--format", form, "--out", "-").out == printed.out
    target = tmp_path / "report"
    written = run("render", partial, "--format", form, "--out", target)
    assert (written.code, written.out) == (0, "")
    assert f"wrote {target}" in written.err
    assert target.read_text("utf-8").rstrip("\n") == printed.out.rstrip("\n")


@pytest.mark.parametrize(
    "suffix, form",
    [("html", "html"), ("md", "md"), ("json", "json"), ("xml", "junit"), ("txt", "text")],
)
def test_the_suffix_decides_where_no_format_is_named(
    run: Run, partial: Path, tmp_path: Path, suffix: str, form: str
) -> None:
    target = tmp_path / f"report.{suffix}"
    assert run("render", partial, "--out", target).code == 0
    assert target.read_text("utf-8").lower().startswith(OPENINGS[form].lower())


def test_render_prints_text_by_default(run: Run, partial: Path) -> None:
    assert run("render", partial).out == run("render", partial, "--format", "text").out


def test_a_rendered_audit_is_what_python_writes(run: Run, partial: Path) -> None:
    told = json.loads(run("render", partial, "--format", "json").out)
    assert told == json.loads(ck.load(partial).to_json())


@pytest.mark.parametrize("command", ["render", "check"])
@pytest.mark.parametrize("damage", ["missing", "no zip", "half"])
def test_files_that_are_no_audits_are_usage_errors(
    run: Run, partial: Path, tmp_path: Path, command: str, damage: str
) -> None:
    path = tmp_path / "b.audit"
    if damage == "no zip":
        path.write_text("hello")
    elif damage == "half":
        path.write_bytes(partial.read_bytes()[:2000])
    done = run(command, path)
    assert (done.code, done.out) == (2, "")
    assert "b.audit" in done.err
    assert "expected:" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "words, why",
    [
        (["--format", "pdf"], "no such format"),
        (["--out", "report.pdf"], "suffix"),
        (["--out", "nowhere/report.html"], "mkdir -p nowhere"),
        (["--out", "nowhere/report", "--format", "html"], "mkdir -p nowhere"),
    ],
)
def test_render_refuses_what_it_cannot_write(
    run: Run, partial: Path, words: list[str], why: str
) -> None:
    done = run("render", partial, *words)
    assert (done.code, done.out) == (2, "")
    assert why in done.err


NO_TORCH = "import sys; sys.modules['torch'] = None  # an import of it raises from now on"
REPEATEDLY = """
import json, sys
from collapsekit.cli import main
codes = []
for words in json.loads(sys.argv[1]):
    sys.argv[1:] = words
    try:
        main()
    except SystemExit as ended:
        codes.append(ended.code)
print(codes, sys.modules.get("torch"), file=sys.stderr)
"""


@pytest.mark.parametrize("before", ["", NO_TORCH], ids=["installed", "absent"])
def test_render_and_check_need_no_torch(partial: Path, tmp_path: Path, before: str) -> None:
    commands = [["render", str(partial), "--format", form] for form in OPENINGS]
    commands += [
        ["check", str(partial), "--format", form] for form in ("text", "md", "json", "junit")
    ]
    commands.append(["explain-loss", str(partial), "--logged-kl", "1"])
    done = subprocess.run(
        [sys.executable, "-c", before + REPEATEDLY, json.dumps(commands)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "[0, 0, 0, 0, 0, 1, 1, 1, 1, 0] None\n"
    assert "PARTIAL COLLAPSE" in done.stdout


def test_audit_would_notice_the_absence_of_torch(partial: Path, tmp_path: Path) -> None:
    # The control of the test above: what needs torch does fail this way.
    ran = in_a_new_process("explain", "CK101", cwd=tmp_path, before=NO_TORCH)
    assert ran.code == 4
    assert "torch" in ran.err


def test_a_report_is_utf8_in_any_locale(partial: Path, tmp_path: Path) -> None:
    ran = in_a_new_process(
        "render", partial, cwd=tmp_path, PYTHONIOENCODING="latin-1", PYTHONUTF8="0"
    )
    assert ran.code == 0
    assert "·" in ran.out


def test_a_reader_may_leave_early(partial: Path, tmp_path: Path) -> None:
    code = "from collapsekit.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "render", str(partial), "--format", "html"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        told = process.stderr.read().decode()
        assert (process.wait(timeout=60), told) == (0, "")


# -- audit ---------------------------------------------------------------------------------------

MODEL = """
import os, signal, sys, time
import torch
from torch import nn


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(6)[:, :2] * 2)

    def encode(self, x):
        print("chatter of the model")
        mean = x @ self.weight
        return mean, torch.full_like(mean, 0.3)

    def decode(self, z):
        return z @ self.weight.T / 4


class LogVariance(VAE):
    def encode(self, x):
        mean, scale = super().encode(x)
        return mean, 2 * scale.log()


class NotFinite(VAE):
    def encode(self, x):
        mean, scale = super().encode(x)
        return mean * float("nan"), scale


class Raising(VAE):
    def encode(self, x):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


class Interrupted(VAE):
    def encode(self, x):
        # A shell starts its background jobs with the signal ignored, and theirs inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.kill(os.getpid(), signal.SIGINT)
        while True:  # not pause(): another thread may get the signal, and nothing would wake it
            time.sleep(0.01)


def without_weights():
    open("weights.pt")


def leaving():
    sys.exit(1)


def number():
    return 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a model, data and files of posteriors, and the current one."""
    rng = np.random.default_rng(0)
    (tmp_path / "tiny_model.py").write_text(MODEL)
    np.save(tmp_path / "x.npy", rng.normal(size=(120, 6)).astype(np.float32))
    np.save(tmp_path / "labels.npy", np.repeat([3, 5, 9], 40))
    mean, scale = rng.normal(size=(120, 3)), np.full((120, 3), 0.2)
    np.savez(tmp_path / "healthy.npz", mean=mean, scale=scale)
    np.savez(tmp_path / "collapsed.npz", mean=0 * mean, scale=0 * mean + 1)
    np.savez(tmp_path / "one.npz", mean=mean[:1], scale=scale[:1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # where a model spec adds the folder
    monkeypatch.delitem(sys.modules, "tiny_model", raising=False)
    yield tmp_path
    sys.modules.pop("tiny_model", None)


def test_audit_prints_the_result_and_writes_what_the_suffixes_say(run: Run, here: Path) -> None:
    names = ["a.html", "a.audit", "a.json", "a.md", "a.txt", "a.xml"]
    outs = [word for name in names for word in ("--out", name)]
    done = run("audit", "tiny_model:VAE", "--data", "x.npy", *outs)
    assert done.code == 0
    assert done.err.splitlines()[-6:] == [f"wrote {name}" for name in names]
    assert "Findings" in done.out
    assert "chatter" not in done.out  # stdout is the result's
    assert "chatter" in done.err
    audit = ck.load("a.audit")
    assert audit.provenance["n"] == 120
    assert done.out.strip() == str(audit).strip()
    assert json.loads(Path("a.json").read_text("utf-8"))["verdict"]["name"] == audit.verdict.name
    assert Path("a.html").read_text("utf-8").lower().startswith("<!doctype html>")
    assert Path("a.md").read_text("utf-8") == audit.to_markdown()
    assert int(ElementTree.parse("a.xml").getroot().get("tests", "0")) == len(audit.findings)


def test_stdout_is_one_json_document_even_when_the_model_talks(run: Run, here: Path) -> None:
    done = run("audit", "tiny_model:VAE", "--data", "x.npy", "--format", "json", "--out", "-")
    assert json.loads(done.out)["provenance"]["n"] == 120


def test_what_was_declared_arrives(run: Run, here: Path) -> None:
    done = run(
        "audit", "tiny_model:LogVariance", "--data", "x.npy", "--labels", "labels.npy",
        "--likelihood", "gaussian:0.5", "--parameterisation", "logvar", "--prior", "0.5,2",
        "--beta", "0.25", "--seed", "7", "--batch", "50", "--population", "100", "--device", "cpu",
        "--out", "a.audit",
    )  # fmt: skip
    assert done.code == 0, done.err
    audit = ck.load("a.audit")
    told = audit.provenance
    assert (told["beta"], told["seed"], told["population"]) == (0.25, 7, 100)
    assert told["parameterisation"] == "logvar"
    assert "0.5" in str(told["likelihood"])
    assert list(audit.samples["label"]) == [3] * 40 + [5] * 40 + [9] * 40
    # KL of N(m, 0.3^2) from N(0.5, 2^2), by hand.
    mean = 2 * np.load("x.npy")[:, :2].astype(np.float64)
    kl = np.log(2 / 0.3) + (0.3**2 + (mean - 0.5) ** 2) / (2 * 2**2) - 0.5
    assert audit.number("rate").value == pytest.approx(kl.sum(1).mean(), rel=1e-5)
    assert told["command"] == (
        "collapsekit audit tiny_model:LogVariance --data x.npy --labels labels.npy "
        "--likelihood gaussian:0.5 --parameterisation logvar --prior 0.5,2 --beta 0.25 --seed 7 "
        "--batch 50 --population 100 --device cpu"
    )


def test_equal_commands_write_equal_bytes_wherever_they_write_to(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    first = run("audit", "posteriors:healthy.npz", "--out", "a.audit", "--format", "json")
    again = run("audit", "posteriors:healthy.npz", "--out", "b.audit", "--format", "json")
    other = run("audit", "posteriors:healthy.npz", "--seed", "1", "--format", "json")
    assert first.out == again.out
    assert Path("a.audit").read_bytes() == Path("b.audit").read_bytes()
    assert other.out != first.out


@pytest.mark.parametrize(
    "model, words, code",
    [
        ("healthy", [], 0),
        ("healthy", ["--fail-on", "fail"], 0),
        ("collapsed", [], 0),  # whatever it finds
        ("collapsed", ["--fail-on", "fail"], 1),
        ("one", [], 3),
        ("one", ["--allow-inconclusive"], 0),
        ("one", ["--fail-on", "inconclusive"], 1),  # a finding is the stronger statement
        ("one", ["--fail-on", "inconclusive", "--allow-inconclusive"], 1),
    ],
)
def test_audit_exits_as_promised(
    run: Run, here: Path, model: str, words: list[str], code: int
) -> None:
    done = run("audit", f"posteriors:{model}.npz", "--out", "a.audit", *words)
    assert done.code == code
    assert done.out  # the result is printed and written whatever the exit code
    verdict = {"healthy": "healthy", "collapsed": "total", "one": "inconclusive"}[model]
    assert ck.load("a.audit").verdict.name == verdict


USAGE = [
    (["audit", "tiny_model:VAE"], "--data FILE"),
    (["audit", "tiny_model:VAE", "--data", "none.npy"], "none.npy"),
    (["audit", "tiny_model:nothing", "--data", "x.npy"], "has no nothing"),
    (["audit", "no_such_module:VAE", "--data", "x.npy"], "no_such_module"),
    (["audit", "tiny_model:number", "--data", "x.npy"], "no model"),
    (["audit", "model.pt", "--data", "x.npy"], "model.pt"),
    (["audit", "posteriors:none.npz"], "none.npz"),
    (["audit", "posteriors:healthy.npz", "--data", "x.npy"], "brings its own data"),
    (["audit", "posteriors:healthy.npz", "--labels", "labels.npy"], "brings its own data"),
    (["audit", "tiny_model:VAE", "--data", "x.npy", "--likelihood", "gaussian"], "gaussian:SCALE"),
    (
        ["audit", "tiny_model:VAE", "--data", "x.npy", "--likelihood", "gaussian:-1"],
        "positive scale",
    ),
    (["audit", "tiny_model:VAE", "--data", "x.npy", "--likelihood", "poisson"], "bernoulli_logits"),
    (["audit", "tiny_model:VAE", "--data", "x.npy", "--likelihood", "bernoulli"], "[0, 1]"),
    (["audit", "tiny_model:VAE", "--data", "x.npy", "--parameterisation", "std"], "log_scale"),
    (["audit", "tiny_model:VAE", "--data", "x.npy", "--prior", "0"], "MEAN,SCALE"),
    (["audit", "tiny_model:VAE", "--data", "x.npy", "--prior", "0,-1"], "positive"),
    (["audit", "tiny_model:VAE", "--data", "x.npy", "--labels", "none.txt"], "none.txt"),
    (["audit", "tiny_model:VAE", "--data", "x.npy", "--batch", "0"], "positive"),
    (["audit", "tiny_model:VAE", "--data", "x.npy", "--batch", "many"], "--batch"),
    (["audit", "tiny_model:VAE", "--data", "x.npy", "--device", "abacus"], "abacus"),
    (["audit", "tiny_model:VAE", "--data", "x.npy", "--out", "a.pdf"], ".html"),
    (["audit", "tiny_model:VAE", "--data", "x.npy", "--out", "no/a.html"], "mkdir -p no"),
    (["audit", "tiny_model:VAE", "--data", "x.npy", "--format", "pdf"], "no such format"),
    (
        ["audit", "tiny_model:VAE", "--data", "x.npy", "--fail-on", "bad"],
        "inconclusive, warn, fail",
    ),
    (["audit", "tiny_model:VAE", "--nonsense"], "--nonsense"),
    (["audit"], "MODEL"),
    (["nonsense"], "nonsense"),
    (["explain", "CK000"], "CK001"),
    (["compare", "x.npy"], "two audits or more"),
    (["compare", "x=none.audit", "y=none.audit"], "none.audit"),
    (["demo", "--fail-on", "bad"], "inconclusive, warn, fail"),
    (["demo", "--out", "x.npy"], "the folder x.npy cannot be made"),
]


@pytest.mark.parametrize("words, why", USAGE, ids=[" ".join(words) for words, _ in USAGE])
def test_usage_errors_exit_2_and_say_why(run: Run, here: Path, words: list[str], why: str) -> None:
    done = run(*words)
    assert (done.code, done.out) == (2, "")
    assert why in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "model, why",
    [
        ("NotFinite", "means are not finite"),
        ("without_weights", "weights.pt"),
        ("leaving", "sys.exit(1)"),
    ],
)
def test_a_model_that_cannot_be_audited_exits_3(run: Run, here: Path, model: str, why: str) -> None:
    done = run("audit", f"tiny_model:{model}", "--data", "x.npy", "--allow-inconclusive")
    assert (done.code, done.out) == (3, "")
    assert why in done.err
    assert "do:" in done.err
    assert "Traceback" not in done.err


def test_an_encoder_that_raises_exits_3(run: Run, here: Path) -> None:
    done = run("audit", "tiny_model:Raising", "--data", "x.npy")
    assert "mat1 and mat2" in done.err
    assert done.code == 3


@pytest.mark.parametrize(
    "error, code, why",
    [
        (
            InputError("wrong", got="a", expected="b", remedy="c"),
            2,
            "error: wrong\n  got:      a\n",
        ),
        (FileError("torn", got="half"), 2, "error: torn\n  got:      half\n"),
        (ModelError("no posterior"), 3, "error: no posterior\n"),
        (Unavailable("no decode"), 3, "error: no decode\n"),
        (ZeroDivisionError("division by zero"), 4, "internal error: ZeroDivisionError"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
@pytest.mark.parametrize("debug", [False, True])
def test_errors_become_a_message_and_a_code(
    run: Run,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    why: str,
    debug: bool,
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("collapsekit.engine.audit", fails)
    monkeypatch.setenv("COLLAPSEKIT_DEBUG", "1" if debug else "0")
    done = run("audit", "posteriors:healthy.npz", "--allow-inconclusive")
    assert (done.code, done.out) == (code, "")
    assert why in done.err
    assert ("Traceback" in done.err) == (debug and isinstance(error, Exception))


def test_an_interrupt_ends_quietly_with_130(here: Path) -> None:
    ran = in_a_new_process("audit", "tiny_model:Interrupted", "--data", "x.npy", cwd=here)
    assert (ran.code, ran.out, ran.err) == (130, "", "interrupted\n")


def test_streams_of_a_real_process(here: Path) -> None:
    ran = in_a_new_process(
        "audit", "posteriors:healthy.npz", "--format", "json", "--out", "a.audit", cwd=here
    )
    assert ran.code == 0
    assert json.loads(ran.out)["verdict"]["name"] == "healthy"
    assert ran.err == "wrote a.audit\n"  # no progress bar: stderr is no terminal
    assert "\x1b" not in ran.out + ran.err


# -- what options mean ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, meaning",
    [
        (None, None),
        ("bernoulli", "bernoulli"),
        ("bernoulli_logits", "bernoulli_logits"),
        ("gaussian:1.41421356", ("gaussian", 1.41421356)),
        ("gaussian:1e-1", ("gaussian", 0.1)),
    ],
)
def test_likelihoods_are_read(text: str | None, meaning: object) -> None:
    assert options.likelihood(text) == meaning


@pytest.mark.parametrize("text", ["gaussian", "gaussian:", "gaussian:sqrt(2)", "gaussian:1,2"])
def test_a_gaussian_wants_a_number(text: str) -> None:
    with pytest.raises(InputError, match="gaussian:SCALE") as caught:
        options.likelihood(text)
    assert caught.value.got == text


@pytest.mark.parametrize("text", ["1", "1,2,3", "a,b", ""])
def test_a_prior_is_two_numbers(text: str) -> None:
    assert options.prior("-1.5, 2") == (-1.5, 2.0)
    assert options.prior(None) is None
    with pytest.raises(InputError, match="MEAN,SCALE"):
        options.prior(text)


def test_labels_are_read_from_arrays_and_from_text(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(3))
    (tmp_path / "a.txt").write_text("eins\nzwei\ndrei\n", "utf-8")
    assert options.labels(None) is None
    assert options.labels(str(tmp_path / "a.npy"))[:].tolist() == [0, 1, 2]
    assert options.labels(str(tmp_path / "a.txt")).tolist() == ["eins", "zwei", "drei"]


def test_labels_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(FileError, match="labels"):
        options.labels(str(tmp_path / "a.npy"))


def test_names_of_audits(tmp_path: Path) -> None:
    odd = tmp_path / "beta=2.audit"
    odd.touch()
    named = options.named(["van=runs/a.audit", "runs/b.audit", str(odd)])
    assert named == {"van": Path("runs/a.audit"), "b": Path("runs/b.audit"), "beta=2": odd}
    with pytest.raises(InputError, match="two audits are called 'a'"):
        options.named(["x/a.audit", "y/a.audit"])
    with pytest.raises(InputError, match="two audits or more"):
        options.named(["x/a.audit"])


def test_every_suffix_and_format_has_its_renderer() -> None:
    assert set(output.SUFFIXES.values()) == {*output.FORMATS, "audit"}


# -- compare -------------------------------------------------------------------------------------


def test_compare_writes_one_page_with_every_name(run: Run, tmp_path: Path) -> None:
    a = made_up("partial", n=60, d=6, seed=0, side=8).save(tmp_path / "a.audit")
    b = made_up("healthy", n=60, d=6, seed=0, side=8).save(tmp_path / "b.audit")
    page = tmp_path / "both.html"
    done = run("compare", f"vanilla={a}", b, "--out", page)
    assert done.code == 0, done.err
    assert f"wrote {page}" in done.err
    text = page.read_text("utf-8")
    assert text.lower().startswith("<!doctype html>")
    assert "vanilla" in text
    for told in ("vanilla", "partial", "healthy"):
        assert told in done.out.lower()
    printed = run("compare", f"vanilla={a}", b, "--out", "-")
    assert (printed.code, printed.err) == (0, "")
    assert printed.out.strip() == text.strip()


def test_compare_of_different_data_wants_force(run: Run, tmp_path: Path) -> None:
    a = made_up("partial", n=60, d=6, side=8)
    b = replace(a, provenance={**a.provenance, "data_fingerprint": "other"})
    words = ["compare", a.save(tmp_path / "a.audit"), b.save(tmp_path / "b.audit")]
    words += ["--out", tmp_path / "c.html"]
    refused = run(*words)
    assert (refused.code, refused.out) == (2, "")
    assert "--force" in refused.err
    assert not (tmp_path / "c.html").exists()
    assert run(*words, "--force").code == 0


def test_compare_writes_what_the_suffix_says_or_refuses(run: Run, tmp_path: Path) -> None:
    files = [made_up(n=60, d=6).save(tmp_path / f"{name}.audit") for name in "ab"]
    page, text = tmp_path / "c.html", tmp_path / "c.txt"
    done = run("compare", *files, "--out", page, "--out", text)
    assert done.code == 0, done.err
    assert page.read_text("utf-8").lower().startswith("<!doctype html>")
    assert text.read_text("utf-8").strip() == done.out.strip()
    refused = run("compare", *files, "--out", tmp_path / "cmp.json")
    assert refused.code == 2
    assert "suffix '.json'" in refused.err
    assert not (tmp_path / "cmp.json").exists()


# -- what a shell is told is said in a shell's words --------------------------------------------


def test_errors_are_in_the_words_of_a_shell(run: Run, tmp_path: Path) -> None:
    likelihood = run("audit", "tiny:VAE", "--data", "x.npy", "--likelihood", "gaus:0.3")
    assert likelihood.code == 2
    assert "gaussian:SCALE" in likelihood.err
    page = tmp_path / "vae.html"
    page.write_text("<!doctype html>")
    checked = run("check", page)
    assert checked.code == 2
    assert "BadZipFile" not in checked.err
    assert "audit --out FILE.audit" in checked.err
    looked = run("doctor", f"{__name__}:Conditional")
    assert looked.code == 2
    assert "--data FILE" in looked.err
    for told in (likelihood, checked, looked):
        assert "data=" not in told.err
        assert '("gaussian"' not in told.err


class Conditional(torch.nn.Module):
    """encode(x, c), decode(z, c)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = torch.nn.Linear(6, 4), torch.nn.Linear(4, 4)

    def encode(self, x: torch.Tensor, c: torch.Tensor) -> dict[str, torch.Tensor]:
        mean, logvar = self.inner(torch.cat([x, c], dim=1)).chunk(2, dim=1)
        return {"mean": mean, "logvar": logvar}

    def decode(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.outer(torch.cat([z, c], dim=1)))


def test_a_conditional_model_takes_two_arrays_of_one_file(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.random((40, 4), dtype=np.float32)
    c = np.eye(2, dtype=np.float32)[np.arange(40) % 2]
    np.savez(tmp_path / "both.npz", x=x, c=c, labels=np.arange(40))
    spec = f"{__name__}:Conditional"
    alone = run("audit", spec, "--data", f"{tmp_path / 'both.npz'}:x")
    assert alone.code == 2
    assert "--data FILE.npz:x,c" in alone.err
    audit = tmp_path / "a.audit"
    done = run("audit", spec, "--data", f"{tmp_path / 'both.npz'}:x,c", "--out", audit)
    assert audit.exists(), done.err
    table = ck.load(audit).samples
    assert table["label"].tolist() == list(range(40))
    assert table["swap_gap"].notna().all()
    assert run("audit", spec, "--data", f"{tmp_path / 'both.npz'}:x,d").code == 2


def test_explain_tells_headlines(run: Run) -> None:
    assert "Rate: KL per sample" in run("explain", "rate").out
    unknown = run("explain", "CK999")
    assert unknown.code == 2
    assert "CK509:" not in unknown.err


# -- demo ----------------------------------------------------------------------------------------

QUICK = Setting(epochs=2)


@pytest.fixture(scope="module")
def quick() -> dict[str, Audit]:
    from collapsekit.cli import demo_report

    return demo_report.audits(3, QUICK)


def test_the_demo_says_what_it_found(quick: dict[str, Audit]) -> None:
    from collapsekit.cli import demo_report

    text = demo_report.text(quick, Path("somewhere"))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    for name, audit in quick.items():
        assert f"{name}: {STATE[audit.verdict.name].upper()}." in text
        deciding = next(f for f in audit.findings if f.code in audit.verdict.codes)
        assert deciding.message[1:] in " ".join(text.split())
    row = next(line for line in lines if "active units, at threshold 0.01" in line)
    for audit in quick.values():
        count = int(audit.number("active_units").value)
        assert f"{count} of 32 ({count / 32:.2f})" in row
    assert "somewhere/compare.html" in text
    # After two epochs nothing is repaired yet, and the text does not claim it.
    flat = " ".join(text.split())
    assert "at most 0.20 in vanilla and of at least 0.70 in LR" in flat
    assert "which is NOT as expected" in flat


def test_the_demo_converts_nats_to_squared_errors(quick: dict[str, Audit]) -> None:
    from collapsekit.cli import demo_report

    images, _, held_out, _ = digits()
    vae = train(images, repaired=False, seed=3, setting=QUICK)
    # Without a likelihood an audit measures squared errors, from the same draws of the same seed.
    direct = ck.audit(vae, held_out, seed=3).number("reconstruction_error")
    assert direct.unit == "squared error"
    assert demo_report.squared_error(quick["vanilla"]) == pytest.approx(direct.value, rel=1e-5)


def test_the_demo_counts_units_above_a_threshold(quick: dict[str, Audit]) -> None:
    from collapsekit.cli import demo_report

    variances = pd.DataFrame({"mean_variance": [0.0, 0.005, 0.015, 0.1, 0.11]})
    audit = replace(quick["LR"], dimensions=variances)
    assert [demo_report.active(audit, threshold) for threshold in (0.01, 0.1)] == [3, 1]


@pytest.mark.slow
def test_the_demo_runs_and_shows_what_it_promises(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "report"
    done = run("demo", "--out", folder)
    assert done.code == 0, done.err
    assert "as expected" in done.out
    assert "NOT" not in done.out
    names = ["compare.html", "lr.audit", "lr.html", "vanilla.audit", "vanilla.html"]
    assert sorted(path.name for path in folder.iterdir()) == names
    for name in names:
        assert str(folder / name) in done.out
    vanilla, repaired = ck.load(folder / "vanilla.audit"), ck.load(folder / "lr.audit")
    assert (vanilla.dimensions["mean_variance"] > 0.1).mean() <= 0.20
    assert (repaired.dimensions["mean_variance"] > 0.1).mean() >= 0.70
    assert "vanilla: PARTIAL COLLAPSE." in done.out
    assert "LR: HEALTHY." in done.out
    assert (vanilla.verdict.name, repaired.verdict.name) == ("partial", "healthy")


# -- the rest ------------------------------------------------------------------------------------


def test_explain_tells_one_and_lists_all(run: Run) -> None:
    one, every = run("explain", "ck201"), run("explain")
    assert (one.code, every.code) == (0, 0)
    assert one.out.startswith("CK201  Active units")
    assert "arXiv 1509.00519" in one.out
    assert "CK201  Active units\n" in every.out


def test_help_shows_the_exit_codes_in_plain_text(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    done = run("--help")
    assert done.code == 0
    assert "3 the audit could not" in " ".join(done.out.split())
    assert "\x1b" not in done.out
    for command in ("demo", "audit", "compare", "render", "check", "explain", "explain-loss"):
        assert f"\n  {command} " in done.out
        assert run(command, "--help").code == 0


def test_the_module_runs_as_the_script_does(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "collapsekit", "--version"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout == f"collapsekit {ck.__version__}\n"


# --- again ----------------------------------------------------------------------------------------


def test_like_runs_an_audit_again(run: Run, here: Path) -> None:
    first = run(
        "audit", "tiny_model:LogVariance", "--data", "x.npy", "--parameterisation", "logvar",
        "--seed", "7", "--population", "100", "--out", "a.audit",
    )  # fmt: skip
    assert first.code == 0, first.err
    again = run("audit", "--like", "a.audit", "--out", "b.audit", "--format", "json")
    assert again.code == 0, again.err
    assert "like a.audit: the same model, data, settings and versions" in again.err
    one, two = ck.load("a.audit"), ck.load("b.audit")
    assert one.provenance == two.provenance
    pd.testing.assert_frame_equal(one.samples, two.samples, rtol=0, atol=0)


def test_like_tells_what_differs(run: Run, here: Path) -> None:
    run(
        "audit", "tiny_model:LogVariance", "--data", "x.npy", "--parameterisation", "logvar",
        "--out", "a.audit",
    )  # fmt: skip
    assert ck.load("a.audit").provenance["seed"] == 0
    np.save("other.npy", np.load("x.npy")[:60])
    again = run("audit", "--like", "a.audit", "--data", "other.npy", "--seed", "3")
    assert again.code in (0, 3), again.err
    told = again.err.partition("like a.audit, but for")[2]
    assert "the number of samples: 120 then, 60 now" in told
    assert "the data's fingerprint" in told
    assert "the seed: 0 then, 3 now" in told
    assert "parameterisation" not in told


def test_like_recalls_a_prior_or_says_that_it_cannot(run: Run, here: Path) -> None:
    x = np.load("x.npy")

    def made(prior: object) -> None:
        encode = torch.nn.Flatten()
        ck.audit(lambda x: (encode(x)[:, :2], 1 + 0 * encode(x)[:, :2]), x, prior=prior).save(
            "p.audit"
        )

    made((0.5, 2.0))
    again = run(
        "audit", "tiny_model:LogVariance", "--data", "x.npy", "--like", "p.audit",
        "--parameterisation", "logvar", "--out", "q.audit",
    )  # fmt: skip
    assert again.code in (0, 3), again.err
    assert "--prior 0.5,2.0" in ck.load("q.audit").provenance["command"]
    made(([0.0, 0.5], [1.0, 2.0]))
    refused = run(
        "audit",
        "tiny_model:LogVariance",
        "--data",
        "x.npy",
        "--like",
        "p.audit",
        "--parameterisation",
        "logvar",
    )
    assert refused.code == 2
    assert "the prior of the earlier audit cannot be recalled" in refused.err


def test_like_keeps_the_thresholds_of_then(run: Run, here: Path) -> None:
    run("audit", "posteriors:healthy.npz", "--out", "a.audit")
    old = ck.load("a.audit")
    old.settings["active_units"]["threshold"] = 0.5
    old.provenance["versions"]["collapsekit"] = "0.0.1"
    old.save("old.audit")
    again = run("audit", "--like", "old.audit", "--out", "b.audit")
    assert ck.load("b.audit").settings["active_units"]["threshold"] == 0.5
    assert "collapsekit: 0.0.1 then" in again.err
    assert "the settings of" not in again.err


def test_like_of_an_audit_made_in_python_needs_model_and_data(run: Run, here: Path) -> None:
    x = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    ck.audit(lambda x: (x, x * 0 - 1), x, parameterisation="log_scale", seed=5).save("p.audit")
    np.savez("q.npz", mean=x, scale=np.ones_like(x))
    done = run("audit", "posteriors:q.npz", "--like", "p.audit", "--out", "q.audit")
    assert done.code in (0, 3), done.err  # posteriors alone decide little
    assert ck.load("q.audit").provenance["seed"] == 5
    assert run("audit", "--like", "p.audit").code == 2
    assert run("audit", "--like", "gone.audit").code == 2


def test_the_log_as_lines_of_json(run: Run, here: Path) -> None:
    done = run("audit", "posteriors:healthy.npz", "--log-json", "log.jsonl")
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
    assert {line["event"] for line in lines} >= {"stage", "finding", "end"}


# -- audit: several processes, and going on -------------------------------------------------------


@pytest.fixture
def spread(tmp_path: Path) -> tuple[str, ...]:
    """A tiny model and data that make three shards."""
    np.save(tmp_path / "x.npy", linear().sample(700, 0).numpy())
    words = ("--data", str(tmp_path / "x.npy"), "--likelihood", "gaussian:0.5", "--batch", "10")
    return ("audit", "tests.test_executors:linear", *words)


@pytest.mark.slow
def test_two_workers_say_what_one_process_says(
    run: Run, tmp_path: Path, spread: tuple[str, ...]
) -> None:
    alone = run(*spread, "--out", tmp_path / "a.audit")
    shared = run(*spread, "--out", tmp_path / "b.audit", "--workers", "2")
    assert (shared.code, shared.out) == (alone.code, alone.out.replace("a.audit", "b.audit"))
    same(ck.load(tmp_path / "a.audit"), ck.load(tmp_path / "b.audit"), rtol=0)


@pytest.mark.slow
def test_resume_goes_on_after_ctrl_c(
    run: Run, tmp_path: Path, spread: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shards"
    assert run(*spread, "--out", tmp_path / "a.audit").code == 0
    encode, calls = LinearVAE.encode, []

    def stopping(self: LinearVAE, x: Any) -> Any:
        calls.append(len(x))
        if len(calls) == 50:
            raise KeyboardInterrupt
        return encode(self, x)

    monkeypatch.setattr(LinearVAE, "encode", stopping)
    stopped = run(*spread, "--out", tmp_path / "b.audit", "--resume", folder)
    assert stopped.code == 130
    assert f"--resume {folder}" in stopped.err
    assert not (tmp_path / "b.audit").exists()
    done = sorted(path.name for path in folder.glob("data-*.state"))
    assert done  # whole shards from the first on, and not all of them
    assert done == [f"data-{number:06d}.state" for number in range(len(done))]
    assert not list(folder.glob("prior-*.state"))
    assert run(*spread, "--out", tmp_path / "b.audit", "--resume", folder).code == 0
    same(ck.load(tmp_path / "a.audit"), ck.load(tmp_path / "b.audit"), rtol=0)
