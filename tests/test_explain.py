"""What findings mean: every code that an audit can report is declared once and told in full."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from pathlib import Path

import pytest

from collapsekit import explain, findings, probes, readings, troubles
from collapsekit.errors import InputError

ROOT = Path(__file__).resolve().parents[1] / "collapsekit"
CODES = explain.codes()


def test_the_codes_are_those_of_every_registered_probe_and_reading_and_of_the_engine() -> None:
    declared = {code.id for code in troubles.CODES}
    for source in [*probes.REGISTERED, *readings.REGISTERED]:
        declared |= {code.id for code in source.codes}
    assert set(CODES) == declared
    assert {"CK001", "CK101", "CK602"} <= declared
    assert list(CODES) == sorted(CODES)


def test_no_file_declares_a_code_that_cannot_be_explained() -> None:
    # A probe that leaves a Code out of its `codes` would report what nobody can look up.
    written = defaultdict(set)
    for path in ROOT.rglob("*.py"):
        for number in re.findall(r'\bid="(CK\d+)"', path.read_text(encoding="utf-8")):
            written[number].add(path.name)
    assert set(written) == set(CODES)
    assert {number: files for number, files in written.items() if len(files) > 1} == {}


@pytest.mark.parametrize("code", CODES.values(), ids=lambda code: code.id)
def test_every_text_is_told(code: findings.Code) -> None:
    text = explain.describe(code)
    assert text.startswith(f"{code.id}  {code.title}\n")
    flat = " ".join(text.split())
    for part in (code.meaning, code.formula, code.remedy, code.source):
        assert " ".join(part.split()) in flat
    assert code.meaning and code.remedy and code.source  # noqa: PT018 - one statement: all are there
    assert max(map(len, text.splitlines())) <= 88


def test_an_empty_part_has_no_heading() -> None:
    code = findings.Code("CK999", "Test", "Meaning.", "", "Remedy.", "Source")
    assert "Formula" not in explain.describe(code)
    assert explain.describe(code).endswith("Source\n  Source")


@pytest.mark.parametrize("typed", ["CK101", "ck101", " CK101 "])
def test_codes_are_found_in_any_case(typed: str) -> None:
    assert explain.find(typed) is explain.find("CK101")
    assert explain.find(typed).id == "CK101"


def test_an_unknown_code_names_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(InputError) as caught:
        explain.find("CK10l")
    assert caught.value.got == "CK10l"
    assert all(number in caught.value.expected for number in CODES)
    assert "collapsekit explain CK10" in caught.value.remedy
    with pytest.raises(InputError) as caught:
        explain.find("CK999")
    assert caught.value.remedy == "collapsekit explain lists the codes with their titles"
    with pytest.raises(InputError, match="lists the codes"):
        explain.find("banana")


@pytest.mark.parametrize("name", explain.titles())
def test_every_headline_is_told_by_the_probe_that_gives_it(name: str) -> None:
    text = explain.told(f"group/{name}")
    assert text.startswith(f"{name}  {explain.titles()[name]}\n")
    assert "Measured by " in text
    assert max(map(len, text.splitlines())) <= 88


def test_a_headline_is_declared_by_one_probe() -> None:
    sources = [*probes.REGISTERED, *readings.REGISTERED]
    names = [headline.name for source in sources for headline in source.headlines]
    assert len(names) == len(set(names)) == len(explain.titles())
    for source in sources:
        # Suffixes come from a probe's stream.
        text = inspect.getsource(inspect.getmodule(type(source)) or explain)
        given = [headline.name.removesuffix("_prior") for headline in source.headlines]
        # Declared, and given: what nobody gives would be told of, and never be seen.
        assert all(text.count(name) > 1 for name in given), source


def test_the_list_has_a_line_for_each_code() -> None:
    lines = explain.listing().splitlines()
    for code in CODES.values():
        assert f"{code.id}  {code.title}" in lines
