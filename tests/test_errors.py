"""Every error that is raised says what was got, what was expected and what to do."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import pytest

import collapsekit
from collapsekit.errors import FileError, InputError, ModelError, Unavailable

PACKAGE = Path(collapsekit.__file__).parent
RAISED = {"InputError", "ModelError", "FileError", "BadSample"}


def raised() -> list[tuple[str, ast.Call]]:
    """Every place that makes such an error, from the source."""
    return [
        (f"{path.relative_to(PACKAGE)}:{node.lineno}", node)
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in RAISED
    ]


def test_each_says_got_expected_and_what_to_do() -> None:
    calls = raised()
    assert len(calls) > 150
    bare = [
        place
        for place, call in calls
        if not {"got", "expected", "remedy"} <= {keyword.arg for keyword in call.keywords}
    ]
    assert bare == []


@pytest.mark.parametrize("kind", [InputError, ModelError, FileError, Unavailable])
def test_they_read_so_and_survive_a_process(kind: type[InputError]) -> None:
    error = kind("what is wrong", got="this", expected="that", remedy="do so")
    told = "what is wrong\n  got:      this\n  expected: that\n  do:       do so"
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == told
