"""The labelled states: how each is made and checked, and what the audit has to say of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from benchmarks.zoo_parts import fresh, surgery
from benchmarks.zoo_parts.facts import Facts
from benchmarks.zoo_parts.surgery import Surgery, intact
from benchmarks.zoo_parts.training import Recipe

#: Settings in which a small code is used to the last dimension: where the tuning set begins.
BASES = (
    Recipe("digits", "mlp", "gaussian", 4, 0.02, 60, 0),
    Recipe("digits", "conv", "bernoulli", 3, 0.2, 50, 0),
    Recipe("fashion", "mlp", "gaussian", 4, 0.03, 20, 0),
    Recipe("fashion", "conv", "bernoulli", 4, 0.2, 15, 0),
    Recipe("omniglot", "mlp", "bernoulli", 2, 0.2, 16, 0),
    Recipe("omniglot", "conv", "gaussian", 3, 0.02, 12, 0),
)

#: Findings about units: none of them may be raised where every unit is in order.
UNITS = ("CK604", "CK610", "CK611", "CK612")


@dataclass(frozen=True)
class State:
    """One known condition.

    Attributes
    ----------
    words : tuple of str
        Verdicts that are right.
    findings : tuple of str
        Codes that have to warn or fail; "CK605:inference" wants the word in its message too.
    silent : tuple of str
        Codes that must not warn.
    """

    name: str
    words: tuple[str, ...]
    true: Callable[[Facts], bool]
    findings: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Animal:
    """One model of the zoo."""

    name: str
    state: State
    recipe: Recipe
    operate: Surgery = intact


def _used(facts: Facts) -> bool:
    return bool((facts.cost > 0.5).all() and (facts.trace > 0.3).all())


def _idle(facts: Facts) -> bool:
    """Some dimensions are idle: holding them fixed costs nothing; others are not."""
    idle = (facts.cost < 0.05) & (facts.kl.mean(0) < 0.05)
    free = facts.pruned - facts.error < 0.3  # nats
    return bool(len(idle) > int(idle.sum()) >= 0.25 * len(idle) and free)


def _pale_at_prior(facts: Facts) -> bool:
    """The KL of one part of the samples is a tenth of the others', in half of the code or all."""
    low = facts.kl.sum(dim=1) < 0.1 * facts.kl.sum(dim=1).median()
    by_ink = facts.kl[facts.pale].mean(0) < 0.1 * facts.kl[~facts.pale].mean(0)
    return bool(0.1 < float(low.float().mean()) < 0.9 or by_ink.sum() >= by_ink.numel() // 2)


def _fake(facts: Facts) -> bool:
    """Two in five dimensions move at 0.1 nat or less, and holding all of them costs below 5 %."""
    fake = (facts.mean.var(dim=0) > 0.02) & (facts.kl.mean(0) < 0.1) & (facts.cost < 0.2)
    return bool(fake.float().mean() >= 0.4 and facts.pruned < 1.05 * facts.error)


def _shrunk(facts: Facts) -> bool:
    """A fifth of the dimensions at least is narrow for all and says nothing; others are used."""
    narrow = (facts.kl.mean(0) > 0.13) & (facts.trace < 0.1) & (facts.scale.log().std(0) < 0.1)
    return bool(narrow.float().mean() >= 0.2 and (facts.cost > 0.5).any())


def _off_prior(facts: Facts) -> bool:
    spread = facts.mean.var(dim=0) + facts.scale.square().mean(dim=0)
    off = (facts.mean.mean(dim=0).abs() > 1) | (spread > 3) | (spread < 0.3)
    return bool(off.all()) and _used(facts)


def _phantom(facts: Facts) -> bool:
    unset = facts.kl.mean(0) < 1e-6
    return bool(unset.any() and not unset.all() and (facts.read[unset] > 0.5).all())


def _independent_axes(facts: Facts) -> int:
    eigenvalues = torch.linalg.eigvalsh(facts.mean.double().T.cov())
    return int((eigenvalues > 1e-6 * eigenvalues.max()).sum())


STATES = {
    s.name: s
    for s in (
        State("healthy", ("healthy",), _used, silent=UNITS),
        State("partial", ("partial",), _idle),
        State("local", ("local",), _pale_at_prior),
        State(
            "total by decoder",
            ("total",),
            lambda f: f.moves < 0.5 and float(f.kl.sum(1).mean()) < 0.05,
            ("CK605:model",),
        ),
        State(
            "lagging encoder",
            ("total",),
            lambda f: f.moves > 1 and float(f.kl.sum(1).mean()) < 0.05,
            ("CK605:inference",),
        ),
        State(
            "constant posterior",
            ("total",),
            lambda f: bool((f.mean.std(0) == 0).all()) and float(f.kl.sum(1).mean()) > 0.3,
            ("CK401",),
        ),
        State("fake units", ("partial",), _fake, ("CK604",)),
        State("variance-shrunk", ("partial",), _shrunk, ("CK610",)),
        State(
            "near-deterministic",
            ("near-deterministic",),
            lambda f: bool((1 - f.trace < 1e-3).all()),
            ("CK603",),
        ),
        State("prior mismatch", ("healthy",), _off_prior, ("CK403",), UNITS),
        State("phantom dimensions", ("partial", "healthy"), _phantom, ("CK611",)),
        State(
            "duplicated axes",
            ("healthy",),
            lambda f: 2 * _independent_axes(f) <= f.mean.shape[1] and bool((f.cost > 0.1).all()),
            ("CK612",),
        ),
    )
}


#: "tuning": what thresholds were chosen on; "fresh": fixed before any of it was audited.
SETS = ("tuning", "fresh")


def animals(which: str = "tuning") -> Iterator[Animal]:
    """All of one set, five a state at least; the first four of each need no Omniglot."""
    bases, states = (BASES, _MADE) if which == "tuning" else (fresh.BASES, fresh.MADE)
    first, prefix = (0, "") if which == "tuning" else (100_000, "fresh ")
    for state, made in states.items():
        for at, (base, change, operate) in enumerate(made):
            seed = first + 1000 * list(states).index(state) + at
            recipe = replace(bases[base], seed=seed, **change)
            yield Animal(f"{prefix}{state} {at + 1}", STATES[state], recipe, operate)


_Made = tuple[int, dict[str, object], Surgery]


def _by(operations: list[Surgery]) -> list[_Made]:
    return [(base, {}, operate) for base, operate in enumerate(operations)]


_WIDE: dict[str, object] = {"latent": 20}
_MADE: dict[str, list[_Made]] = {
    "healthy": [
        (0, {}, intact),
        # One dimension of little more than a nat: weak, and not collapsed for anybody.
        (0, {"latent": 1, "beta": 0.3}, intact),
        (1, {}, intact),
        (2, {}, intact),
        (3, {}, intact),
        (3, {"latent": 1, "beta": 8.0}, intact),
        (4, {}, intact),
        (5, {}, intact),
    ],
    "partial": [
        (0, {**_WIDE, "beta": 0.1}, intact),
        (1, {**_WIDE, "beta": 1.0}, intact),
        (2, {**_WIDE, "beta": 0.2}, intact),
        (3, {**_WIDE, "beta": 1.0}, intact),
        (4, {}, surgery.extended(2, 1.0)),
        (5, {}, surgery.extended(3, 1.0)),
    ],
    "local": [
        (0, {"method": "pale ignored"}, intact),
        (1, {}, surgery.gated(0.3)),
        (2, {}, surgery.gated(0.5, slice(0, 2))),
        (3, {"method": "pale ignored"}, intact),
        (2, {"method": "pale halved"}, intact),
        (5, {}, surgery.gated(0.6)),
    ],
    "total by decoder": [
        (0, {"method": "deaf"}, intact),
        (1, {"beta": 200.0}, intact),
        (2, {"beta": 50.0}, intact),
        (3, {"method": "deaf", "beta": 1.0}, intact),
        (4, {"beta": 200.0}, intact),
        (5, {"method": "deaf"}, intact),
    ],
    "lagging encoder": _by(
        [
            surgery.lagging(0.0),
            surgery.lagging(0.03),
            surgery.lagging(0.02),
            surgery.lagging(0.0),
            surgery.lagging(0.02),
            surgery.lagging(0.0),
        ]
    ),
    "constant posterior": [
        (0, {}, surgery.constant(1.5, 0.5)),
        (1, {"method": "deaf"}, surgery.constant(0.0, 0.4)),
        (2, {}, surgery.constant(0.8, 1.0)),
        (3, {"method": "deaf"}, surgery.constant(2.0, 0.3)),
        (4, {}, surgery.constant(1.0, 0.7)),
        (5, {"method": "deaf"}, surgery.constant(1.0, 2.0)),
    ],
    "fake units": [
        (0, {"latent": 16, "beta": 0.1, "method": "floored", "strength": 0.05}, intact),
        (1, {}, surgery.whispered(4)),
        (2, {"latent": 24, "beta": 0.2, "method": "detached", "strength": 1.0}, intact),
        (2, {"latent": 16, "beta": 0.2, "method": "detached", "strength": 1.0}, intact),
        (4, {}, surgery.whispered(5)),
        (5, {}, surgery.whispered(4)),
    ],
    "variance-shrunk": [
        (0, {"latent": 20, "beta": 0.2, "method": "narrowed", "strength": 0.6}, intact),
        (1, {}, surgery.extended(2, 0.5)),
        (2, {"latent": 20, "beta": 0.5, "method": "narrowed", "strength": 0.6}, intact),
        (3, {}, surgery.extended(3, 0.3)),
        (4, {"latent": 20, "beta": 1.0, "method": "narrowed", "strength": 0.6}, intact),
        (5, {"latent": 4}, surgery.extended(2, 0.6)),
    ],
    "near-deterministic": [
        (0, {"method": "exact", "strength": 1e-3}, intact),
        (1, {"method": "exact", "strength": 1e-2}, surgery.narrowed(0.1)),
        (2, {"method": "exact", "strength": 1e-3}, intact),
        (3, {"beta": 1e-6}, intact),
        (4, {"method": "exact", "strength": 1e-2}, surgery.moved(0.1)),
        (5, {"beta": 1e-6}, surgery.narrowed(0.1)),
    ],
    "prior mismatch": [
        (0, {}, surgery.moved(3.0)),
        (1, {}, surgery.moved(1.0, 2.0)),
        (2, {}, surgery.moved(0.3)),
        (3, {}, surgery.moved(2.0, 1.0)),
        (4, {}, surgery.moved(0.25, 1.5)),
        (5, {}, surgery.moved(2.5)),
    ],
    "phantom dimensions": _by(
        [
            surgery.muted(1),
            surgery.muted(1),
            surgery.muted(2),
            surgery.muted(2),
            surgery.muted(1),
            surgery.muted(2),
        ]
    ),
    "duplicated axes": [
        (0, {}, surgery.doubled),
        (1, {"latent": 6, "method": "rank"}, intact),
        (2, {}, surgery.doubled),
        (3, {"latent": 6, "method": "rank"}, intact),
        (4, {}, surgery.doubled),
        (5, {"latent": 8, "method": "rank"}, intact),
    ],
}
