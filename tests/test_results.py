"""Audits as plain data: files, tables, errors."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import collapsekit as ck
from collapsekit.errors import CollapsekitError, FileError, InputError, ModelError, Unavailable
from collapsekit.number import Number
from collapsekit.results import Audit
from collapsekit.tables import as_number, joined, summary_table
from tests import models


@pytest.fixture(scope="module")
def audit() -> Audit:
    model = models.LinearVAE((20.0, 1.0))
    return ck.audit(model, model.sample(50, 0), likelihood=("gaussian", 0.5))


def test_a_line_for_the_prompt_and_a_page_for_print(audit: Audit) -> None:
    line = (
        f"<Audit: {audit.verdict.name}; 50 samples, 2 dimensions, {len(audit.findings)} findings>"
    )
    assert repr(audit) == line
    assert "Findings" in str(audit)


def test_the_file_holds_no_pickle_and_strict_json(audit: Audit, tmp_path: Path) -> None:
    path = audit.save(tmp_path / "a.audit")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        head = json.loads(archive.read("audit.json"), parse_constant=lambda c: pytest.fail(c))
    assert {Path(n).suffix for n in names} == {".json", ".parquet", ".npy"}
    assert head["schema"] == "collapsekit-audit/1"
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("kind", ["text", "truncated", "no head", "schema", "object array"])
def test_files_that_are_no_audit(audit: Audit, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.audit"
    whole = audit.save(tmp_path / "a.audit")
    if kind == "text":
        path.write_text("hello")
    elif kind == "truncated":
        path.write_bytes(whole.read_bytes()[:2000])
    else:
        with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                content = old.read(name)
                if name == "audit.json" and kind == "no head":
                    continue
                if name == "audit.json" and kind == "schema":
                    content = content.replace(b"collapsekit-audit/1", b"collapsekit-audit/9")
                new.writestr(name, content)
            if kind == "object array":
                evil = tmp_path / "evil.npy"
                np.save(evil, np.array([{}], dtype=object), allow_pickle=True)
                new.write(evil, "arrays/evil.npy")
    with pytest.raises(FileError) as caught:
        ck.load(path)
    assert "expected:" in str(caught.value)


def test_a_missing_file() -> None:
    with pytest.raises(FileError, match="no such audit file"):
        ck.load("nowhere.audit")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(audit: Audit, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FileError, match="could not be saved"):
        audit.save(tmp_path / "a.audit")


def test_a_folder_that_is_not_there_loses_nothing(audit: Audit, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="could not be saved"):
        audit.save(tmp_path / "missing" / "a.audit")
    with pytest.raises(FileError, match="could not be written"):
        audit.to_html(tmp_path / "missing" / "a.html")
    assert len(audit.samples) == 50


def test_numbers_by_name(audit: Audit) -> None:
    assert audit.number("rate").unit == "nats"
    with pytest.raises(InputError, match="no headline called 'rat'"):
        audit.number("rat")


def test_columns_with_gaps_turn_nullable() -> None:
    index = pd.RangeIndex(3, name="sample")
    whole = pd.DataFrame({"a": [1.0, 2.0, 3.0]}, index=index)
    gaps = pd.DataFrame(
        {"b": [1.5, 2.5], "c": [1, 2], "d": [True, False], "e": ["x", "y"]},
        index=pd.Index([0, 2], name="sample"),
    )
    table = joined([whole, None, gaps], index)
    assert table["a"].dtype == np.float64
    assert [str(table[c].dtype) for c in "bcd"] == ["Float64", "Int64", "boolean"]
    assert table.loc[1, ["b", "c", "d", "e"]].isna().all()
    assert "<NA>" in repr(table)


def test_summary_rows_and_back() -> None:
    number = Number("rate", 2.5, 2.4, np.nan, "nats", 10, "note")
    table = summary_table([number])
    back = as_number({"name": "rate", **table.loc["rate"].to_dict()})
    assert (back.name, back.value, back.unit, back.n) == ("rate", 2.5, "nats", 10)
    assert np.isnan(back.high)
    assert list(summary_table([]).columns) == ["value", "low", "high", "unit", "n", "note"]


@pytest.mark.parametrize("kind", [CollapsekitError, InputError, ModelError, Unavailable, FileError])
def test_errors_say_got_expected_do_and_survive_pickling(kind: type[CollapsekitError]) -> None:
    error = kind("this is wrong", got="A", expected="B", remedy="do C")
    assert str(error) == "this is wrong\n  got:      A\n  expected: B\n  do:       do C"
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (
            Number("rate", 2.512345, 2.41, 2.61, "nats", 10),
            "rate = 2.51 nats [2.41, 2.61] (n = 10)",
        ),
        (Number("k", 9.0, 9.0, 9.0, "dimensions", 10), "k = 9 dimensions [9, 9] (n = 10)"),
        (Number("k", 9.0, 8.0, 11.0, "dimensions", 10), "k = 9 dimensions [8, 11] (n = 10)"),
        (Number("x", np.nan, np.nan, np.nan, "nats", 0), "x: not measured"),
        (Number("s", 0.5, np.nan, np.nan, "1", 3), "s = 0.500 (n = 3)"),
    ],
)
def test_numbers_print_no_more_digits_than_they_have(number: Number, text: str) -> None:
    assert str(number) == text
