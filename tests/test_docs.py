"""The documentation: what it is made from, and that it speaks of what there is."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

import collapsekit as ck
from collapsekit import cli, explain, probes
from collapsekit.rendering.wording import STATE

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
OWN = ("index", "questions", "findings", "glossary", "gate", "logged-kl", "figures", "api")
PAGES = {name: (DOCS / f"{name}.md").read_text(encoding="utf-8") for name in OWN}
PAGES["command-line"] = (DOCS / "command-line.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_marker_is_filled_and_nothing_is_made_in_vain(hooks: ModuleType) -> None:
    markers = [name for text in PAGES.values() for name in re.findall(r"<!-- made: ([\w-]+)", text)]
    assert sorted(markers) == sorted(hooks.MADE)
    for name, make in hooks.MADE.items():
        assert make().strip(), name


def test_every_code_is_told_and_every_link_to_one_leads_there(hooks: ModuleType) -> None:
    anchors = re.findall(r"\{ #(ck\d+) \}", hooks.findings())
    assert anchors == [code.lower() for code in explain.codes()]
    for name, text in PAGES.items():
        for code, anchor in re.findall(r"\[(CK\d+)\]\(findings\.md#(ck\d+)\)", text):
            assert anchor == code.lower()
            assert anchor in anchors, f"{name}.md links to {code}"
    terms = hooks.glossary()
    assert all(f"[{code}](findings.md#{code.lower()})" in terms for code in explain.codes())


def test_texts_keep_their_stars_and_angles(hooks: ModuleType) -> None:
    assert hooks._text("a*b_c <NA> [B, 1] | {x}") == (r"a\*b\_c &lt;NA&gt; \[B, 1\] \| \{x\}")
    assert hooks._docstring("`a_b` and c_d") == r"`a_b` and c\_d"


def test_every_probe_has_its_page_with_thresholds_and_functions(hooks: ModuleType) -> None:
    pages = hooks.probe_pages()
    assert {type(probe).__module__.rpartition(".")[2] for probe in probes.REGISTERED} == set(pages)
    for probe in probes.REGISTERED:
        page = pages[type(probe).__module__.rpartition(".")[2]]
        for code in probe.codes:
            assert f"../findings.md#{code.id.lower()}" in page
        fields: Any = dataclasses.fields(probe)  # type: ignore[arg-type]
        for field in fields:
            assert f"| `{field.name}` |" in page, f"{type(probe).__name__}.{field.name}"
    functions = [name for name in probes.__all__ if name.islower()]
    told = "\n".join(pages.values())
    assert all(re.search(rf"^::: [\w.]+\.{name}$", told, re.M) for name in functions)


def test_every_example_is_a_tutorial(hooks: ModuleType) -> None:
    pages = hooks.tutorial_pages()
    assert set(pages) == {path.stem for path in (ROOT / "examples").glob("*.py")}
    for name, page in pages.items():
        code = re.findall(r"```python\n(.*?)\n```", page, re.S)[-1]
        assert code in (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")


def test_the_questions_are_fourteen_and_name_what_a_report_has() -> None:
    text = " ".join(PAGES["questions"].split())
    numbers = re.findall(r"^## (\d+)\. ", PAGES["questions"], re.M)
    assert numbers == [str(k) for k in range(1, 15)]
    sections = "\n".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "collapsekit" / "rendering" / "sections").glob("*.py")
    )
    asked = set(re.findall(r'question="([^"]+)"', sections))
    quoted = set(re.findall(r"\*([A-Z][^*]+\?)\*", text))
    assert len(quoted) >= 6
    assert quoted <= asked
    headings = set(re.findall(r'(?:nav|headline|Subheading)(?:=|\()"([^"]+)"', sections))
    for name in ("Findings", "Remedy", "Method and limits", "What this audit could not see"):
        assert name in text
        assert name in headings
    for state in ("The measures contradict each other", "Near-deterministic"):
        assert state in text
        assert state in STATE.values()


COMMANDS: Any = typer.main.get_command(cli.app)


@pytest.mark.parametrize("name", PAGES)
def test_commands_and_options_exist(name: str) -> None:
    lines = re.findall(r"^\s*(collapsekit [^\n#]+)", PAGES[name], re.M)
    lines += re.findall(r"`(collapsekit [^`]+)`", PAGES[name])
    for line in lines:
        _, command, *words = shlex.split(line)
        assert command in COMMANDS.commands, line
        known = {word for p in COMMANDS.commands[command].params for word in p.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


@pytest.mark.parametrize("name", PAGES)
def test_python_names_exist_and_blocks_are_python(name: str) -> None:
    for path in re.findall(r"\bck\.([\w.]*\w)", PAGES[name]):
        found: Any = ck
        for part in path.split("."):
            found = getattr(found, part)
    for path in re.findall(r"^::: collapsekit\.([\w.]+)$", PAGES[name], re.M):
        module, _, member = path.rpartition(".")
        assert hasattr(importlib.import_module(f"collapsekit.{module}"), member), path
    for block in re.findall(r"```python\n(.*?)```", PAGES[name], re.S):
        compile(block, name, "exec")


def test_headlines_in_checks_exist() -> None:
    for text in PAGES.values():
        for headline in re.findall(r"['\"](\w+)[<>]=?[\d.]+['\"]", text):
            assert headline in explain.titles(), headline


def test_the_examples_of_options_in_a_file_are_taken(tmp_path: Path) -> None:
    from collapsekit.cli import config

    (block,) = re.findall(r"```toml\n(.*?)```", PAGES["gate"], re.S)
    (tmp_path / "pyproject.toml").write_text(block, "utf-8")
    found = config.defaults(tmp_path, {}, cli._commands())
    assert set(found) == {"check", "audit"}


def test_every_figure_is_told() -> None:
    from collapsekit.plotting import Plots

    methods = [name for name in vars(Plots) if not name.startswith("_")]
    told = re.findall(r"^\| `(\w+)` \|", PAGES["figures"], re.M)
    assert told == methods


def test_it_builds_strictly(tmp_path: Path) -> None:
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed here; make docs builds in an environment of its own")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
