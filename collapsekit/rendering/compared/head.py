"""Which of them is collapsed, and what changed: the runs side by side."""

from __future__ import annotations

import math
from collections import Counter

from collapsekit.comparison import BETTER, SAME, WORSE
from collapsekit.rendering import wording
from collapsekit.rendering.blocks import Block, Note, Paragraph, Run, Runs, Section
from collapsekit.rendering.compared.runs import Compared, Named
from collapsekit.rendering.comparison_text import difference, unit_of
from collapsekit.rendering.sections.injectivity import survivors
from collapsekit.rendering.wording import figure, listing, spelled, tie

_TOLD = ("active_units", "locally_collapsed_fraction", "reconstruction_error", "rate")
_PHRASE = {
    "locally_collapsed_fraction": "the share of ignored samples",
    "reconstruction_error": "the reconstruction error",
    "rate": "the rate",
}


def build(compared: Compared) -> Section:
    """The head of the page."""
    runs = tuple(
        Run(
            run.name,
            run.line.swatch,
            wording.STATE.get(run.facts.audit.verdict.name, run.facts.audit.verdict.name),
            _line(run),
            run.facts.audit.verdict.severity,
        )
        for run in compared.runs
    )
    blocks: list[Block] = [Paragraph(_lead(compared)), Runs(runs)]
    blocks += [Note(note) for note in compared.comparison.notes]
    return Section(
        id="verdicts",
        nav="Verdicts",
        question=f"Comparison of {spelled(len(runs))} audits",
        headline=tie(headline(compared)),
        blocks=tuple(blocks),
    )


_IS = {
    "healthy": ("is healthy", "are healthy"),
    "partial": ("is partly collapsed", "are partly collapsed"),
    "total": ("is collapsed", "are collapsed"),
    "local": ("ignores some of its inputs", "ignore some of their inputs"),
    "near-deterministic": ("is near-deterministic", "are near-deterministic"),
    "contradictory": ("contradicts itself", "contradict themselves"),
    "inconclusive": ("is undecided", "are undecided"),
}


def headline(compared: Compared) -> str:
    """Who is what."""
    states: dict[str, list[str]] = {}
    for run in compared.runs:
        states.setdefault(run.facts.audit.verdict.name, []).append(run.name)
    if len(states) > 1 and len(compared.runs) > 3:
        parts = []
        for state, names in states.items():
            one, many = _IS.get(state, (f"is {state}", f"are {state}"))
            parts.append(f"{spelled(len(names))} {one if len(names) == 1 else many}")
        return f"Of {spelled(len(compared.runs))} audits {listing(parts)}."
    if len(states) > 1:
        parts = []
        for state, names in states.items():
            one, many = _IS.get(state, (f"is {state}", f"are {state}"))
            parts.append(f"{listing(names)} {one if len(names) == 1 else many}")
        text = "; ".join(parts)
        return f"{text[0].upper()}{text[1:]}."
    state = next(iter(states))
    who = "Both" if len(compared.runs) == 2 else f"All {spelled(len(compared.runs))}"
    told = f"{who} {_IS.get(state, ('', f'are {state}'))[1]}."
    better, worse = tally(compared)
    if better or worse:
        told += (
            f" {compared.last.name} is better in {spelled(better)} "
            f"{wording.plural(better, 'number')}, worse in {spelled(worse)}."
        )
    return told


def tally(compared: Compared) -> tuple[int, int]:
    """Numbers of the last run that are better and worse than the first's."""
    comparison = compared.comparison
    words = Counter(comparison.changes[h, compared.last.key].word for h in comparison.headlines)
    return words[BETTER], words[WORSE]


def _lead(compared: Compared) -> str:
    comparison, key = compared.comparison, compared.last.key
    parts = []
    for name in _TOLD:
        if name not in comparison.headlines:
            continue
        first, last = (comparison.number(run.key, name) for run in (compared.first, compared.last))
        change = comparison.changes[name, key]
        if first is None or last is None or not math.isfinite(change.value):
            continue
        if name == "active_units":
            parts.append(
                f"the active units go from {figure(first.value)} to {figure(last.value)} "
                f"of {compared.last.facts.d:,}"
            )
        elif change.word == SAME and first.value == last.value == 0:
            continue
        elif change.word == SAME:
            parts.append(f"{_PHRASE[name]} stays the same within noise or margin")
        else:
            unit = unit_of(comparison, name)
            kind = "" if unit in ("share", "1") else f" {wording.unit(unit)}"
            moves = "falls" if change.value < 0 else "rises"
            size, _, ends = difference(change, unit).lstrip(f"+{wording.MINUS}").partition(" (")
            bounds = f" ({ends}" if ends else ""
            parts.append(f"{_PHRASE[name]} {moves} by {size}{kind}{bounds}")
    if not parts:
        return "The audits have no headline in common."
    return f"From {compared.first.name} to {compared.last.name}, {listing(parts)}."


def _line(run: Named) -> str:
    parts = []
    active = run.facts.number("active_units")
    if active is not None:
        parts.append(f"{figure(active.value)} of {run.facts.d:,} active")
    kept = survivors(run.facts)
    if kept is not None:
        parts.append(f"{kept[0]:,} readable")
    rate = run.facts.number("rate")
    if rate is not None:
        parts.append(f"rate {wording.value(rate)[0]}")
    return ", ".join(parts)
