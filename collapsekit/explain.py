"""What a finding's code means, or a headline's name: looked up where it is declared, as text."""

from __future__ import annotations

import difflib
import inspect
import textwrap

from collapsekit import engine, probes, readings
from collapsekit.errors import InputError
from collapsekit.findings import Code
from collapsekit.number import Better
from collapsekit.probe import Probe, Reading

_WIDTH = 88


def _sources() -> list[Probe | Reading]:
    return [*probes.REGISTERED, *readings.REGISTERED]


def titles() -> dict[str, str]:
    """Every headline that an audit can have, by its name: what a report calls it."""
    return {h.name: h.title for source in _sources() for h in source.headlines}


def codes() -> dict[str, Code]:
    """Every code that an audit can report, by its id, in the order of the ids."""
    declared = [*engine.CODES, *(code for source in _sources() for code in source.codes)]
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
        # One letter off at most: a further code would be another finding altogether.
        close = difflib.get_close_matches(wanted, known, n=len(known), cutoff=0.8)
        # Of equally close ones that which begins alike: a slip is likelier in the last place.
        near = sorted(close, key=lambda c: c[:-1] != wanted[:-1])
        near += difflib.get_close_matches(code.strip().lower(), titles(), n=1)
        meant = {**titles(), **{c.id: c.title for c in known.values()}}
        raise InputError(
            "no finding has this code, and no headline this name",
            got=code,
            expected=f"one of {', '.join(known)}; or a headline of audit.summary, such as rate",
            remedy=f"did you mean {meant[near[0]]}? collapsekit explain {near[0]}"
            if near
            else "collapsekit explain lists the codes with their titles",
        )
    return known[wanted]


def told(word: str) -> str:
    """A code or a headline, as plain text; of a group's headline the part after the group's name.

    Raises
    ------
    InputError
        It is neither.
    """
    name = word.strip().rpartition("/")[2].lower()
    return headline(name) if name in titles() else describe(find(word))


_WAYS: dict[Better, str] = {
    "up": "; more is better",
    "down": "; less is better",
    "neither": "",
}


def headline(name: str) -> str:
    """What a headline of `audit.summary` measures: its label, its probe, the findings about it."""
    source = next(s for s in _sources() if name in [h.name for h in s.headlines])
    about = inspect.cleandoc(type(source).__doc__ or "").split("\n\n")
    better = next(h.better for h in source.headlines if h.name == name)
    parts = [f"{name}  {titles()[name]}", f"Measured by {source.name}{_WAYS[better]}"]
    parts[-1] += "".join(f"\n{_filled(paragraph)}" for paragraph in about)
    parts += [
        f"{code.id}  {code.title}\n{_filled(code.meaning)}\n{_filled(f'Formula: {code.formula}')}"
        for code in source.codes
    ]
    return "\n\n".join(parts)


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
    rest = "collapsekit explain CODE tells what one means; a headline's name, such as rate, too."
    return "\n".join([*lines, "", rest])


def _filled(text: str) -> str:
    # Codes and formulas hold names with hyphens; breaking there would make them hard to search for.
    return textwrap.fill(
        text, _WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
