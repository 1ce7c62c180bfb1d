"""Where results go: formats by name or by a file's suffix, stdout, files."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from collapsekit.archive import write_text
from collapsekit.cli.gate import say
from collapsekit.errors import InputError
from collapsekit.results import Audit

if TYPE_CHECKING:
    from collapsekit.comparison import Comparison

#: Format to the module of `collapsekit.rendering` that makes it.
FORMATS = {"text": "text", "html": "page", "md": "markdown", "json": "data", "junit": "junit"}
#: What a file's suffix asks for; "audit" is the audit itself, to be loaded again.
SUFFIXES = {
    ".audit": "audit",
    ".html": "html",
    ".json": "json",
    ".md": "md",
    ".txt": "text",
    ".xml": "junit",
}
STDOUT = "-"


def checked(word: str, allowed: tuple[str, ...] = tuple(FORMATS)) -> str:
    """A format's name.

    Raises
    ------
    InputError
        There is no such format.
    """
    if word not in allowed:
        raise InputError(
            "no such format",
            got=word,
            expected=f"one of {', '.join(allowed)}",
            remedy="pass one of these words to --format",
        )
    return word


def target(path: str) -> str:
    """The format of a file to be written, from its suffix; checked before the work begins.

    Raises
    ------
    InputError
        The suffix says nothing, or the folder does not exist.
    """
    file = Path(path)
    if file.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"the suffix of {path} does not say what to write",
            got=f"suffix {file.suffix!r}",
            expected=f"one of {', '.join(SUFFIXES)}",
            remedy="--out report.html, --out model.audit; or name a --format",
        )
    in_folder(path)
    return SUFFIXES[file.suffix.lower()]


def comparison_target(path: str) -> None:
    """Refuse what a comparison cannot be written to.

    Raises
    ------
    InputError
        The suffix is neither that of a page nor of text, or the folder does not exist.
    """
    if path == STDOUT:
        return
    if Path(path).suffix.lower() not in (".html", ".txt"):
        raise InputError(
            f"a comparison is not written as {path}",
            got=f"suffix {Path(path).suffix!r}",
            expected=".html, a page, or .txt; - is the page on stdout",
            remedy="--out compare.html; collapsekit render FILE --out FILE.json gives the numbers "
            "of one audit",
        )
    in_folder(path)


def write_comparison(comparison: Comparison, path: str) -> None:
    """Write a comparison to a file, as its suffix says, or its page to stdout."""
    if path == STDOUT:
        emit(comparison.to_html())
        return
    if Path(path).suffix.lower() == ".txt":
        write_text(path, f"{comparison}\n")
    else:
        comparison.to_html(path)
    say(f"wrote {path}")


def in_folder(path: str) -> None:
    """Refuse a path whose folder does not exist.

    Raises
    ------
    InputError
        It does not.
    """
    folder = Path(path).parent
    if not folder.is_dir():
        raise InputError(
            f"there is no folder for {path}",
            got=str(folder),
            expected="a folder that exists",
            remedy=f"mkdir -p {folder}",
        )


def rendered(audit: Audit, kind: str) -> str:
    """The audit in one of `FORMATS`."""
    text: str = importlib.import_module(f"collapsekit.rendering.{FORMATS[kind]}").render(audit)
    return text


def write(audit: Audit, path: str, kind: str) -> None:
    """Write the audit to a file, or to stdout where the path is ``-``."""
    if path == STDOUT:
        emit(rendered(audit, kind))
        return
    if kind == "audit":
        audit.save(path)
    else:
        write_text(path, rendered(audit, kind))
    say(f"wrote {path}")


def emit(text: str) -> None:
    """The result, on stdout, in UTF-8 whatever the locale; a reader may leave early."""
    try:
        typer.echo(text.rstrip("\n").encode("utf-8"))
    except BrokenPipeError:
        # `| head` has seen enough. What is left, the interpreter's last flush too, goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
