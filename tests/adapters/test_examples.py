"""The examples that audit other people's models run, each where its library is installed."""

from __future__ import annotations

import importlib.util
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NEEDS = {
    "diffusers": ("diffusers",),
    "flax": ("jax", "flax"),
    "keras": ("keras",),
    "lightning": ("lightning",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "pythae": ("pythae",),
    "scvi": ("scvi", "anndata"),
    "strange_repo": (),
    "text_vae": (),
}


def test_none_is_forgotten() -> None:
    assert {p.stem.removeprefix("audit_") for p in EXAMPLES.glob("audit_*.py")} == set(NEEDS)


@pytest.mark.parametrize("name", NEEDS)
@pytest.mark.filterwarnings("ignore")  # a library may warn about itself
def test_it_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    missing = [need for need in NEEDS[name] if importlib.util.find_spec(need) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: see docs/adapters.md")
    runpy.run_path(str(EXAMPLES / f"audit_{name}.py"), run_name="__main__")
    assert "Headlines" in capsys.readouterr().out
