"""Every example runs, small, as a stranger would run it; absent libraries are told by name."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def missing(script: Path) -> list[str]:
    """Libraries that the script imports and that are not installed."""
    roots = set()
    for node in ast.walk(ast.parse(script.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            roots.add((node.module or "").partition(".")[0])
    return sorted(name for name in roots if importlib.util.find_spec(name) is None)


def test_every_example_is_told_of() -> None:
    assert {"train_plain_loop", "train_lightning", "train_pythae", "train_flax"} <= {
        path.stem for path in EXAMPLES
    }
    listed = (ROOT / "examples" / "README.md").read_text("utf-8")
    for path in EXAMPLES:
        if not path.stem.startswith("audit_"):  # those speak for themselves: one per library
            assert f"`{path.name}`" in listed, f"{path.name} is not in examples/README.md"


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(script: Path, tmp_path: Path) -> None:
    absent = missing(script)
    if absent:
        pytest.skip(f"{script.name} needs {', '.join(absent)}, not installed here")
    text = script.read_text("utf-8")
    if 'add_argument("folder"' in text:  # it needs data, which a test of its own has to make
        own = ROOT / "tests" / f"test_{script.stem}.py"
        assert own.exists(), f"{script.name} asks for a folder and has no {own.name}"
        pytest.skip(f"{script.name} asks for a folder of data; {own.name} makes one and runs it")
    done = subprocess.run(
        [sys.executable, str(script), *(["--quick"] if '"--quick"' in text else [])],
        cwd=tmp_path,  # an example may not depend on where it is started, nor leave files there
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    lacks = re.search(r"ModuleNotFoundError: No module named '(\w+)", done.stderr)
    if lacks and importlib.util.find_spec(lacks[1]) is None:  # a library that one of its own needs
        pytest.skip(f"{script.name} needs {lacks[1]}, not installed here")
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.strip(), "it printed nothing"
    assert not list(tmp_path.iterdir()), "it left files behind"
