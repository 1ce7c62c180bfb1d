"""``import collapsekit`` stays light, and its lazy names are the ones it announces."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import collapsekit

ROOT = Path(__file__).resolve().parents[1]
HEAVY = [
    "torch", "numpy", "scipy", "sklearn", "pandas", "matplotlib", "seaborn", "pyarrow", "jinja2",
    "typer", "rich", "tqdm", "PIL", "jax", "tensorflow", "keras", "lightning",
]  # fmt: skip


def _in_a_new_interpreter(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_brings_no_framework() -> None:
    told = json.loads(
        _in_a_new_interpreter(
            "import sys, time, json\n"
            "start = time.perf_counter()\n"
            "import collapsekit\n"
            "took = time.perf_counter() - start\n"
            f"print(json.dumps([took, [m for m in {HEAVY!r} if m in sys.modules]]))"
        )
    )
    print(f"import collapsekit: {told[0]:.3f} s")  # shown by -s; a busy machine may not judge it
    assert told[1] == []


def test_errors_can_be_caught_without_a_framework() -> None:
    out = _in_a_new_interpreter(
        "import sys\n"
        "import collapsekit as ck\n"
        "ck.InputError, ck.CollapseError, ck.Unavailable\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert out.strip() == "[]"


@pytest.mark.parametrize("name", collapsekit.__all__)
def test_every_announced_name_arrives(name: str) -> None:
    home = collapsekit._HOME.get(name, name)
    if name != "__version__" and importlib.util.find_spec(f"collapsekit.{home}") is None:
        pytest.fail(f"{name} is announced, but there is no collapsekit.{home}")
    assert getattr(collapsekit, name) is not None
    assert name in dir(collapsekit)


def test_no_module_hides_behind_a_public_function() -> None:
    # `import collapsekit.audit` would replace the function by the module of the same name.
    modules = {path.stem for path in (ROOT / "collapsekit").glob("*.py")}
    assert not modules & set(collapsekit.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'collapsekit' has no attribute 'audti'"):
        collapsekit.audti  # noqa: B018
