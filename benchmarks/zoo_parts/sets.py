"""The sets of the zoo: each an order of animals, every one trained by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from benchmarks.zoo_parts import blind, borderline, fresh, held, tuning
from benchmarks.zoo_parts.states import STATES, State
from benchmarks.zoo_parts.surgery import Surgery, intact
from benchmarks.zoo_parts.training import Recipe


@dataclass(frozen=True)
class Animal:
    """One model of the zoo."""

    name: str
    state: State
    recipe: Recipe
    operate: Surgery = intact


#: "tuning": what thresholds were chosen on; "fresh", "held", "blind": each fixed before it was
#: audited.
SETS = ("tuning", "fresh", "held", "blind")
#: Models near a threshold, of which more than one word is right: told apart, and no test.
APART = "borderline"

_MADE = {
    "tuning": (0, "", tuning.BASES, tuning.MADE),
    "fresh": (100_000, "fresh ", fresh.BASES, fresh.MADE),
    "held": (200_000, "held ", held.BASES, held.MADE),
    "blind": (400_000, "blind ", blind.BASES, blind.MADE),
}


def animals(which: str = "tuning") -> Iterator[Animal]:
    """All of one set, four a state at least that need no Omniglot."""
    if which == APART:
        for at, (state, (base, change, operate)) in enumerate(borderline.MADE):
            recipe = replace(held.BASES[base], seed=300_000 + at, **change)
            yield Animal(f"{APART} {at + 1}", state, recipe, operate)
        return
    first, prefix, bases, states = _MADE[which]
    for state, made in states.items():
        for at, (base, change, operate) in enumerate(made):
            seed = first + 1000 * list(states).index(state) + at
            recipe = replace(bases[base], seed=seed, **change)
            yield Animal(f"{prefix}{state} {at + 1}", STATES[state], recipe, operate)
