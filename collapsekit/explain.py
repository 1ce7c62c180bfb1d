"""What a finding's code means: looked up where it is declared, told as text."""

from __future__ import annotations

import difflib
import textwrap

from collapsekit import engine, probes, readings
from collapsekit.errors import InputError
from collapsekit.findings import Code
from collapsekit.probe import Probe, Reading

_WIDTH = 88


def codes() -> dict[str, Code]:
    """Every code that an audit can report, by its id, in the order of the ids."""
    sources: list[Probe | Reading] = [*probes.REGISTERED, *readings.REGISTERED]
    declared = [*engine.CODES, *(code for source in sources for code in source.codes)]
    return {code.id: code for code in sorted(declared, key=lambda code: code.id)}


def find(code: str) -> Code:
    """The code of this id, in capitals or not.

    Raises
    ------
    InputError
        There is none; the error names those that there are.
    """
    known = codes()
    wanted = code.strip().upper()
    if wanted not in known:
        close = difflib.get_close_matches(wanted, known, n=len(known))
        # Of equally close ones that which begins alike: a slip is likelier in the last place.
        near = sorted(close, key=lambda c: c[:-1] != wanted[:-1])
        remedy = f"collapsekit explain {near[0]}: {known[near[0]].title}" if near else ""
        raise InputError(
            "no finding has this code",
            got=code,
            expected=f"one of {', '.join(known)}",
            remedy=remedy or "collapsekit explain, without a code, lists them with their titles",
        )
    return known[wanted]


def describe(code: Code) -> str:
    """Meaning, formula, remedy and source as plain text, at most 88 columns wide."""
    parts = [f"{code.id}  {code.title}"]
    told = [
        ("What it means", code.meaning),
        ("Formula", code.formula),
        ("What to do", code.remedy),
        ("Source", code.source),
    ]
    parts += [f"{head}\n{_filled(text)}" for head, text in told if text]
    return "\n\n".join(parts)


def listing() -> str:
    """Every code with its title, one a line."""
    known = codes()
    width = max(map(len, known))
    lines = [f"{code.id:<{width}}  {code.title}" for code in known.values()]
    return "\n".join([*lines, "", "collapsekit explain CODE tells what one means."])


def _filled(text: str) -> str:
    # Codes and formulas hold names with hyphens; breaking there would make them hard to search for.
    return textwrap.fill(
        text, _WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
