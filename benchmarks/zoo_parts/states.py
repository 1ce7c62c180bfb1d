"""The labelled states: how each is checked, and what the audit has to say of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.zoo_parts.facts import Facts

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


def _used(facts: Facts) -> bool:
    """Every dimension follows the data and is missed; 98 % of the samples use the code."""
    narrow = (facts.kl.sum(dim=1) > 0.3) | (facts.scale < 0.8).any(dim=1)
    dims = (facts.cost > 0.5) & (facts.trace > 0.3)
    return bool(dims.all() and narrow.float().mean() > 0.98)


def _idle(facts: Facts) -> bool:
    """Some dimensions are idle: holding them fixed costs nothing; others are not."""
    idle = (facts.cost < 0.05) & (facts.kl.mean(0) < 0.05)
    free = facts.pruned - facts.error < 0.3  # nats
    return bool(len(idle) > int(idle.sum()) >= 1 and free)


def _part_at_prior(facts: Facts) -> bool:
    """The KL of one part of the samples is a tenth of the others', in half of the code or all."""
    low = facts.kl.sum(dim=1) < 0.1 * facts.kl.sum(dim=1).median()
    by_ink = facts.kl[facts.pale].mean(0) < 0.1 * facts.kl[~facts.pale].mean(0)
    idle = ((facts.kl < 0.1) & (facts.scale > 0.8)).float().mean(dim=0)
    split = (idle > 0.1) & (idle < 0.9) & (facts.kl.quantile(0.95, dim=0) > 1.0)
    half = facts.kl.shape[1] // 2
    whole = 0.1 < float(low.float().mean()) < 0.9
    return bool(whole or by_ink.sum() >= half or split.sum() >= half)


def _fake(facts: Facts) -> bool:
    """Two in five dimensions move at 0.1 nat or less, and holding all of them costs below 5 %."""
    fake = (facts.mean.var(dim=0) > 0.02) & (facts.kl.mean(0) < 0.1) & (facts.cost < 0.2)
    return bool(fake.float().mean() >= 0.4 and facts.pruned < 1.05 * facts.error)


def _shrunk(facts: Facts) -> bool:
    """A fifth of the dimensions at least is narrow for all and says nothing; others are used."""
    narrow = (facts.kl.mean(0) > 0.13) & (facts.trace < 0.1) & (facts.scale.log().std(0) < 0.1)
    return bool(narrow.float().mean() >= 0.2 and (facts.cost > 0.5).any())


def _off_prior(facts: Facts) -> bool:
    """All codes together are a nat from the prior at least, and every dimension is used."""
    return bool(facts.apart.sum() > 1) and _used(facts)


def _exact(facts: Facts) -> bool:
    """Widths below a thousandth of the codes' variance."""
    return bool((1 - facts.trace < 1e-3).all())


def _constant(facts: Facts) -> bool:
    """Means vary by less than a hundredth of the widths; 0.3 nat from the prior."""
    still = facts.mean.std(dim=0) < 0.01 * facts.scale.mean(dim=0)
    return bool(still.all() and facts.kl.sum(dim=1).mean() > 0.3)


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
        State("local", ("local",), _part_at_prior),
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
            _constant,
            ("CK401",),
        ),
        State("fake units", ("partial",), _fake, ("CK604",)),
        State("variance-shrunk", ("partial",), _shrunk, ("CK610",)),
        State(
            "near-deterministic",
            ("near-deterministic",),
            _exact,
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
