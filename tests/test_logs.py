"""Records have fields, lines are JSON, and a library says nothing unasked."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import collapsekit as ck
from collapsekit.errors import FileError
from collapsekit.logs import LOGGER, JsonLines, event, json_lines
from tests import models
from tests.fuzz.harness import FEW


def test_an_audit_tells_its_stages_findings_and_end(caplog: pytest.LogCaptureFixture) -> None:
    model = models.LinearVAE((20.0, 1.0))
    x = model.sample(50, 0)
    x[7] = math.nan
    with caplog.at_level(logging.INFO, "collapsekit"):
        audit = ck.audit(model, x, probes=FEW)
    records = [record.__dict__ for record in caplog.records]
    stages = [r["stage"] for r in records if r["event"] == "stage"]
    assert stages == list(audit.run["timings"])
    begun = [r["stage"] for r in records if r["event"] == "begin"]
    assert begun == stages
    order = [(r["event"], r["stage"]) for r in records if "stage" in r]
    assert order == [(e, s) for s in stages for e in ("begin", "stage")]  # told as it happens
    assert {r["code"] for r in records if r["event"] == "finding"} == {
        finding.code for finding in audit.findings
    }
    lost = [r for r in records if r["event"] == "finding" and r["code"] == "CK001"]
    assert lost[0]["sample_numbers"] == (7,)
    assert lost[0]["levelno"] == logging.WARNING
    assert (records[-1]["event"], records[-1]["verdict"]) == ("end", audit.verdict.name)


def test_nothing_is_said_unasked() -> None:
    code = "import logging; from collapsekit.logs import event; event('x', 'heard', logging.ERROR)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_lines_are_strict_json(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    level = LOGGER.level
    with json_lines(str(path)):
        event("x", "two\nlines", value=math.nan, array=np.float32(1), where=Path("a"), many=(1, 2))
        try:
            raise ValueError("because")
        except ValueError:
            LOGGER.exception("failed")
    event("later", "is not written")
    assert LOGGER.level == level
    assert [type(handler) for handler in LOGGER.handlers] == [logging.NullHandler]
    first, second = (
        json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()
    )
    assert first["event"] == "x"
    assert first["message"] == "two\nlines"
    assert first["value"] is None
    assert first["many"] == [1, 2]
    assert first["time"].endswith("+00:00")
    assert "ValueError: because" in second["error"]


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"log[\s\S]*got:[\s\S]*expected:[\s\S]*do:"):  # noqa: SIM117
        with json_lines(str(tmp_path / "missing" / "log.jsonl")):
            pass


def test_the_formatter_alone() -> None:
    record = logging.LogRecord("a", logging.WARNING, "f.py", 1, "n = %d", (3,), None)
    line = json.loads(JsonLines().format(record))
    assert {k: line[k] for k in ("level", "logger", "message")} == {
        "level": "warning", "logger": "a", "message": "n = 3",
    }  # fmt: skip
