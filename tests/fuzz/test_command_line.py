"""Hostile arguments, configuration files and names of files: a message, a code, no traceback."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collapsekit import cli
from tests.fuzz.harness import fuzz

WORDS = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=8),
    st.sampled_from(
        ["", " ", "-", "--", "-1", "0", "1e400", "nan", "9" * 400, "a b", "a\nb", "[", "..", "~",
         "gaussian:", "gaussian:0", "gaussian:1e999", "0,0", "1,2,3", "warn", "rate>=", "rate>=1",
         "no.such:thing", "os:getcwd", "json:loads", ":", "posteriors:", "posteriors:é\n.npz"]
    ),
)  # fmt: skip
OPTIONS = (
    "--data", "--labels", "--parameterisation", "--prior", "--likelihood", "--beta", "--seed",
    "--batch", "--population", "--workers", "--on-bad-sample", "--fail-on", "--no-such-option",
)  # fmt: skip
KEYS = ("seed", "batch", "beta", "population", "fail_on", "likelihood", "unknown", "workers")
VALUES = ("3", "-1", '"x"', "[]", "{}", "1e400", "true", "2030-01-01", "nan", '"""\n"""', "=")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("command")
    mean = np.random.default_rng(0).normal(size=(12, 2))
    np.savez(made / "p.npz", mean=mean, scale=0 * mean + 0.3)
    return made


def ends(folder: Path, *words: str) -> int:
    """The code with which a command ends; anything unexpected, an internal error too, fails."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()  # bytes go out as well
    before = os.getcwd()
    os.chdir(folder)
    try:
        with (
            mock.patch.object(sys, "argv", ["collapsekit", *words]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as ended,
        ):
            cli.main()
    finally:
        os.chdir(before)
    code = int(ended.value.code or 0)
    assert code in (0, 1, 2, 3), (code, err.getvalue())
    assert "Traceback" not in err.getvalue()
    assert code != 2 or err.getvalue().strip(), words  # 3 may be an inconclusive verdict
    return code


@given(
    model=st.one_of(WORDS, st.just("posteriors:p.npz")),
    options=st.lists(st.tuples(st.sampled_from(OPTIONS), WORDS), max_size=2),
)
@fuzz(25, shrink=False)
def test_audit_with_any_words(folder: Path, model: str, options: list[tuple[str, str]]) -> None:
    workers = [value for name, value in options if name == "--workers" and len(value) < 9]
    if not any(value.strip().isdigit() for value in workers):  # no processes are started here
        ends(folder, "audit", model, *(word for pair in options for word in pair))


@given(command=st.sampled_from(["check", "render", "compare", "explain"]), words=st.lists(WORDS))
@fuzz(25, shrink=False)
def test_other_commands_with_any_words(folder: Path, command: str, words: list[str]) -> None:
    ends(folder, command, *words)


@given(entries=st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)), max_size=3))
@fuzz(15, shrink=False)
def test_configuration_with_anything_in_it(
    tmp_path_factory: pytest.TempPathFactory, folder: Path, entries: list[tuple[str, str]]
) -> None:
    here = tmp_path_factory.mktemp("configured")
    (here / "p.npz").write_bytes((folder / "p.npz").read_bytes())
    lines = "\n".join(f"{key} = {value}" for key, value in entries if key != "workers")
    (here / "collapsekit.toml").write_text(f"[audit]\n{lines}\n", encoding="utf-8")
    (here / "pyproject.toml").write_text(f"[tool.collapsekit.audit]\n{lines}\n", encoding="utf-8")
    ends(here, "audit", "posteriors:p.npz")
