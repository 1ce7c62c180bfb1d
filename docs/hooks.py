"""Pages made from the code while the documentation is built, so that they cannot fall behind it.

A marker ``<!-- made: NAME -->`` in a page is replaced by what `MADE[NAME]` returns; a page is added
for every probe and for every example; pages that lie in docs/ and are not listed in mkdocs.yml, a
library's or a remedy's, are listed under "More".
"""

from __future__ import annotations

import ast
import dataclasses
import html
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from collapsekit import cli, explain, probes
from collapsekit.findings import VERDICTS, Code
from collapsekit.rendering.wording import STATE

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
_MARKER = re.compile(r"<!-- made: ([\w-]+) -->")
_FIELD = re.compile(r"^    (\w+): [^=\n]+ = ([^#\n]+?)(?:  # (.*))?$", re.M)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each probe and for each example, and list everything."""
    from mkdocs.structure.files import File  # here: the tests make the pages without mkdocs

    made: dict[str, dict[str, str]] = {"Probes": {}, "Tutorials": {}}
    for name, text in probe_pages().items():
        made["Probes"][f"probes/{name}.md"] = text
    for name, text in tutorial_pages().items():
        made["Tutorials"][f"tutorials/{name}.md"] = text
    nav: list[Any] = list(config.nav or [])
    others = sorted(
        file.src_uri for file in files.documentation_pages() if file.src_uri not in _listed(nav)
    )
    for section, pages in made.items():
        for path, text in pages.items():
            files.append(File.generated(config, path, content=text))
        if pages:
            nav.append({section: list(pages)})
    if others:
        nav.append({"More": others})
    config.nav = nav
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what is made from the code."""
    return _MARKER.sub(lambda found: MADE[found[1]](), markdown)


def _listed(nav: Any) -> set[str]:
    if isinstance(nav, str):
        return {nav}
    parts = nav.values() if isinstance(nav, dict) else nav
    return {path for part in parts for path in _listed(part)}


# -- findings and glossary -------------------------------------------------------------------------


def findings() -> str:
    """Every code, in full."""
    return "\n\n".join(_finding(code) for code in explain.codes().values())


def _finding(code: Code) -> str:
    parts = [f"## {code.id} {_text(code.title)} {{ #{code.id.lower()} }}", _text(code.meaning)]
    if code.formula:
        parts.append(f"**Formula.** {_text(code.formula)}")
    parts += [f"**What to do.** {_text(code.remedy)}", f"**Source.** {_text(code.source)}"]
    return "\n\n".join(parts)


def findings_list() -> str:
    """Codes and titles, with links."""
    rows = ["| Code | Title |", "|---|---|"]
    rows += [
        f"| [{code.id}](#{code.id.lower()}) | {_text(code.title)} |"
        for code in explain.codes().values()
    ]
    return "\n".join(rows)


def glossary() -> str:
    """The codes' titles in alphabetical order, with what they mean."""
    ordered = sorted(explain.codes().values(), key=lambda code: code.title.lower())
    return "\n\n".join(
        f"{_text(code.title)}\n:   {_text(code.meaning)} [{code.id}](findings.md#{code.id.lower()})"
        for code in ordered
    )


def headlines() -> str:
    """Names in `audit.summary` beside what a report calls them."""
    rows = ["| In `audit.summary` | In a report |", "|---|---|"]
    rows += [f"| `{name}` | {words} |" for name, words in explain.titles().items()]
    return "\n".join(rows)


def verdicts() -> str:
    """The verdict words, in the order in which they win."""
    rows = ["| `audit.verdict.name` | In a report |", "|---|---|"]
    return "\n".join([*rows, *(f"| `{name}` | {STATE[name]} |" for name in VERDICTS)])


def _text(text: str) -> str:
    """Plain text as Markdown shows it: stars, underscores and brackets of a formula are its own."""
    return re.sub(r"([\\`*_{}\[\]|])", r"\\\1", html.escape(text, quote=False))


# -- probes ----------------------------------------------------------------------------------------


def probe_pages() -> dict[str, str]:
    """Module name to page; a module whose probe is registered twice has one page."""
    pages = {}
    for probe in probes.REGISTERED:
        module = sys.modules[type(probe).__module__]
        pages[module.__name__.rpartition(".")[2]] = _probe(type(probe), module)
    return pages


def _probe(kind: type[Any], module: Any) -> str:
    name = module.__name__.rpartition(".")[2]
    title, _, rest = inspect.cleandoc(module.__doc__ or name).partition("\n\n")
    parts = [f"# {name.replace('_', ' ').capitalize()}", _docstring(title), _docstring(rest)]
    if kind.codes:
        linked = [f"[{c.id} {_text(c.title)}](../findings.md#{c.id.lower()})" for c in kind.codes]
        parts.append(f"**Findings.** {'; '.join(linked)}")
    parts.append(f"**Gives.** {_docstring(inspect.cleandoc(kind.__doc__ or ''))}")
    if fields := _fields(kind):
        parts += ["## Thresholds", f"Fields of `{kind.__name__}`, printed in every report.", fields]
    functions = [
        member
        for member in probes.__all__
        if inspect.isfunction(found := getattr(probes, member))
        and found.__module__ == module.__name__
    ]
    if functions:
        parts.append("## As a plain function of arrays")
        parts += [f"::: {module.__name__}.{member}" for member in functions]
    return "\n\n".join(part for part in parts if part) + "\n"


def _fields(kind: type[Any]) -> str:
    found = _FIELD.findall(inspect.getsource(kind).partition("    def ")[0])
    rows = [
        f"| `{name}` | `{value.strip()}` | {_text(comment)} |"
        for name, value, comment in found
        if name in {field.name for field in dataclasses.fields(kind)}
    ]
    return "\n".join(["| Field | Default | |", "|---|---|---|", *rows]) if rows else ""


def _docstring(text: str) -> str:
    """A docstring's prose: its code spans stay, and nothing else is markup."""
    parts = re.split(r"(``[^`]+``|`[^`]+`)", text)
    return "".join(
        part
        if part.startswith("`")
        else re.sub(r"([*_\[\]|])", r"\\\1", html.escape(part, quote=False))
        for part in parts
    )


# -- tutorials -------------------------------------------------------------------------------------


def tutorial_pages() -> dict[str, str]:
    """The examples: what each says of itself, and its code."""
    pages = {}
    for path in sorted((ROOT / "examples").glob("*.py")):
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        told = ast.get_docstring(tree)
        if told is None:
            continue
        title, _, rest = told.partition("\n\n")
        body = "\n".join(source.splitlines()[tree.body[0].end_lineno :]).strip("\n")
        head = path.stem.replace("_", " ").capitalize()
        parts = [f"# {head}", _docstring(title), _indented(rest), f"`examples/{path.name}`:"]
        parts.append(f"```python\n{body}\n```")
        pages[path.stem] = "\n\n".join(part for part in parts if part) + "\n"
    return pages


def _indented(text: str) -> str:
    """Paragraphs of a docstring; a command, indented or not, is set as code."""
    done = []
    for part in text.split("\n\n"):
        if part.startswith(("    ", "pip install")):
            done.append(f"```\n{inspect.cleandoc(part)}\n```")
        else:
            done.append(_docstring(part))
    return "\n\n".join(done)


# -- command line ----------------------------------------------------------------------------------


def commands() -> str:
    """Every command with its options, as ``--help`` tells them."""
    group: Any = typer.main.get_command(cli.app)
    parts = []
    for name, command in group.commands.items():
        help_text = _docstring(inspect.cleandoc(command.help or ""))
        parts += [f"## collapsekit {name}", help_text]
        rows = ["| | |", "|---|---|"]
        rows += [_option(p) for p in command.params if getattr(p, "name", "") != "help"]
        if len(rows) > 2:
            parts.append("\n".join(rows))
    return "\n\n".join(
        [*parts, "## Exit codes", _text(cli.EXIT_CODES.removeprefix("Exit codes: "))]
    )


def _option(parameter: Any) -> str:
    words = [word for word in parameter.opts if word.startswith("--")]
    metavar = parameter.metavar or parameter.name.upper()
    flag = getattr(parameter, "is_flag", False)
    spelled = words[0] + ("" if flag else f" {metavar}") if words else metavar
    return f"| `{spelled}` | {_text(parameter.help or '')} |"


MADE: dict[str, Callable[[], str]] = {
    "findings": findings,
    "findings-list": findings_list,
    "glossary": glossary,
    "headlines": headlines,
    "verdicts": verdicts,
    "commands": commands,
}
