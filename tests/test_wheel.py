"""The wheel holds all that a page needs: built, and rendered in an environment of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import collapsekit as ck
from tests import audits

ROOT = Path(__file__).resolve().parents[1]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("build", "hatchling")),
        reason="build and hatchling are not installed; the dev extra has them",
    ),
]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel in it. Its dependencies are this one's, lent by path: a .pth
    is read once, so that the sources, installed here as editable, are not among them."""
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr[-2000:]
    (wheel,) = folder.glob("*.whl")
    home = folder / "home"
    venv.create(home, with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = (
        home / "Lib" / "site-packages"
        if os.name == "nt"
        else home / "lib" / version / "site-packages"
    )
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    lent = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "lent.pth").write_text("\n".join(sorted(lent)))
    return home / ("Scripts" if os.name == "nt" else "bin") / "python"


def _run(python: Path, *arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [str(python), "-I", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_page_from_the_wheel_is_the_page_from_the_sources(python: Path, tmp_path: Path) -> None:
    found = _run(python, "-c", "import collapsekit; print(collapsekit.__file__)", folder=tmp_path)
    assert Path(found.strip()).is_relative_to(python.parents[1])
    audit = audits.made_up("local", n=60, d=6)
    audit.save(tmp_path / "made.audit")
    _run(python, "-m", "collapsekit", "render", "made.audit", "--out", "page.html", folder=tmp_path)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page == ck.load(tmp_path / "made.audit").to_html() == audit.to_html()
    assert "<script>" in page
