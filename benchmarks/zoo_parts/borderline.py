"""Models near a threshold: more than one word is right of each, "inconclusive" always.

Bases and images are the held set's. Told apart from the sets and counted in no score: here a word
is wrong only where it names what the model is surely not.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.zoo_parts import surgery
from benchmarks.zoo_parts.facts import Facts
from benchmarks.zoo_parts.states import State
from benchmarks.zoo_parts.surgery import Made, intact

Measure = Callable[[Facts], float]


def _rate(facts: Facts) -> float:
    return float(facts.kl.sum(dim=1).mean())


def _at_prior(facts: Facts) -> float:
    """Share of the samples within 0.05 nat of the prior."""
    return float((facts.kl.sum(dim=1) < 0.05).float().mean())


def _width(facts: Facts) -> float:
    """Posterior variance over that of the codes, the middle dimension's."""
    return float((1 - facts.trace).median())


def _apart(facts: Facts) -> float:
    return float(facts.apart.sum())


def _near(
    name: str, words: str, low: float, value: Measure, high: float, made: Made
) -> tuple[State, Made]:
    """`value` between `low` and `high` is what makes more than one of `words` right."""
    state = State(name, (*words.split(), "inconclusive"), lambda facts: low < value(facts) < high)
    return state, made


MADE: list[tuple[State, Made]] = [
    _near(
        "5 % of the samples at the prior",
        *("local healthy", 0.03, _at_prior, 0.07),
        (1, {}, surgery.gated(0.05)),
    ),
    _near(
        "95 % of the samples at the prior",
        *("local total", 0.93, _at_prior, 0.97),
        (2, {}, surgery.gated(0.95)),
    ),
    _near(
        "half of the samples near the prior",
        *("local healthy", 0.5, lambda f: float(f.kl.sum(1).quantile(0.25)), 1.5),
        (7, {}, surgery.gated_by(surgery.contrast, 0.5, 0.75)),
    ),
    _near(
        "a rate of a tenth of a nat",
        *("total healthy contradictory", 0.05, _rate, 0.2),
        (7, {"latent": 1, "beta": 0.1}, surgery.lagging(0.22)),
    ),
    _near(
        "an encoder a sixth of its way from the prior",
        *("total contradictory", 0.1, _rate, 0.5),
        (0, {}, surgery.lagging(0.16)),
    ),
    _near(
        "widths of a thousandth of the variance",
        *("near-deterministic healthy", 7e-4, _width, 1.4e-3),
        (2, {"method": "exact", "strength": 0.05}, intact),
    ),
    _near(
        "sharp codes near the prior",
        *("near-deterministic healthy", 0.0, _apart, 0.5),
        (7, {"beta": 0.02}, surgery.narrowed(0.02)),
    ),
    _near(
        "one faint unit of four",
        *("partial healthy", 0.01, lambda f: float(f.kl.mean(0).min()), 0.1),
        (3, {}, surgery.whispered(1)),
    ),
    _near(
        "one dimension of a tenth of a nat",
        *("partial healthy", 0.06, lambda f: float(f.kl.mean(0).min()), 0.16),
        (7, {}, surgery.lagging(0.15, slice(0, 1))),
    ),
    _near(
        "a phantom that is hardly read",
        *("partial healthy", 0.03, lambda f: float(f.read.min()), 0.3),
        (8, {}, surgery.unset(0.003)),
    ),
]
