"""Claims about each of some things (a dimension is passive, say), and of how many they hold.

Counts of dimensions have their intervals from here, but for the active and the redundant ones. A
claim carries two chances a thing: of a measurement that speaks for it as much, were it not so, and
the reverse. Claims combine: all of several hold surely where each does (intersection-union test,
Berger 1982), and surely not where one does not, with Bonferroni's price for having looked at
several.

The ends of the count come from closed testing with Simes' test: so many hold at least as no set of
larger size may consist of things of which it does not hold. The 2.5 % for each end are those of the
count, whatever the number of things looked at. Limits thing by thing have no such count: of 64
things just short of their bar one passes by chance in four of five audits. Nor has the Poisson
binomial distribution of chances that each thing is beyond: that counts the scatter of a measurement
as if it were the things'.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import betainc
from scipy.stats import t as student

from collapsekit.independent import independent
from collapsekit.number import Z95, Number
from collapsekit.streaming import Array

LEVEL = 0.025
"""Of each end of a count."""


@dataclass(frozen=True)
class Claim:
    """What holds of each of D things, as measured, and how surely.

    Parameters
    ----------
    so : ndarray, bool [D]
    if_not : ndarray [D]
        Chance of a measurement that speaks for it at least as much, were it not so.
    if_so : ndarray [D]
        Chance of one that speaks against it at least as much, were it so.
    """

    so: Array
    if_not: Array
    if_so: Array

    def __invert__(self) -> Claim:
        return Claim(~self.so, self.if_so, self.if_not)

    def among(self, those: Array) -> Claim:
        """The same of `those` (bool [D]) alone: of no other."""
        return Claim(
            self.so & those, np.where(those, self.if_not, 1.0), np.where(those, self.if_so, 0.0)
        )


def known(so: Array) -> Claim:
    """Told, not measured."""
    return Claim(so, np.where(so, 0.0, 1.0), np.where(so, 1.0, 0.0))


def above(value: Array, error: Array, bar: float | Array, freedom: float = np.inf) -> Claim:
    """value > bar, by a standard error with so many degrees of freedom: Student's t.

    Where the error is not known (NaN), nothing is sure.
    """
    ratio = (value - bar) / np.maximum(error, 1e-12)
    chances = (tail(ratio, max(freedom, 1.0)) for tail in (student.sf, student.cdf))
    return Claim(value > bar, *(np.where(np.isnan(ratio), 1.0, chance) for chance in chances))


def above_share(value: Array, error: Array, share: float) -> Claim:
    """value >= `share` of the largest value, whose error is the bar's; of no thing where it is 0.

    The two errors add up at worst, whatever their correlation; that the largest of several alike
    is too large by chance lies within.
    """
    top = int(np.argmax(value)) if len(value) else 0
    if not len(value) or value[top] <= 0:
        return known(np.zeros(len(value), dtype=bool))
    over = value - share * value[top]
    # A value without an error that stands on the bar is there: the rounding is the error's floor.
    error = np.nan_to_num(error)
    return replace(above(over, error + share * error[top], 0.0), so=over >= 0)


def above_by_ends(value: Array, low: Array, high: Array, bar: float) -> Claim:
    """value > bar, by a 95 % interval: the error is that of the side on which the bar lies."""
    side = np.where(value > bar, value - low, high - value)
    return above(value, side / Z95, bar)


def share_at_least(count: Array, n: int, share: float) -> Claim:
    """A share of at least `share`, by `count` [D] of n samples: the binomial distribution."""
    rows = independent(n)
    held = np.asarray(count, dtype=np.float64) * (rows / max(n, 1))
    rest = np.maximum(rows - held, 0.0)
    # P(X >= held) and P(X <= held) of a binomial count, for numbers that need not be whole.
    many = np.where(held > 0, betainc(np.maximum(held, 1e-9), rest + 1, share), 1.0)
    few = np.where(rest > 0, betainc(np.maximum(rest, 1e-9), held + 1, 1 - share), 1.0)
    return Claim(np.asarray(count) >= share * n - 1e-9, many, few)


BEYOND_DOUBT = 1e-9
"""Chance below which a claim holds for sure."""


def every(*claims: Claim) -> Claim:
    """All of them hold.

    Against it speaks the one that speaks against it most, among those of which any may fail
    (Bonferroni): one that holds beyond doubt is not among them.
    """
    if_not = np.array([c.if_not for c in claims])
    open_to_doubt = np.maximum((if_not > BEYOND_DOUBT).sum(axis=0), 1)
    return Claim(
        np.all([c.so for c in claims], axis=0),
        if_not.max(axis=0),
        np.minimum(open_to_doubt * np.min([c.if_so for c in claims], axis=0), 1.0),
    )


def any_of(*claims: Claim) -> Claim:
    """At least one of them holds."""
    return ~every(*(~claim for claim in claims))


def count_number(name: str, claim: Claim, unit: str, n: int, note: str) -> Number:
    """Of how many the claim holds, with its 95 % interval by closed testing."""
    value = int(claim.so.sum())
    low, high = least(claim.if_not), len(claim.so) - least(claim.if_so)
    told = f"{note}; 95 % interval, closed testing (Simes) over all {len(claim.so)}"
    return Number(name, value, min(low, value), max(high, value), unit, n, told)


def perhaps(claim: Claim) -> int:
    """Of how many it may hold, each looked at by itself.

    None of them: as sure as one look, however many there are, since all have to be ruled out
    (Berger 1982, "Multiparameter hypothesis testing"). The number is no limit of how many it holds.
    """
    return int((claim.if_so > LEVEL).sum())


def least(chance: Array) -> int:
    """Of how many things it holds at least, by the chance of each if it were not so.

    The largest set of things of which it may not hold is the largest that Simes' test keeps (1986);
    the others are the count (Goeman, Meijer, Krebs & Solari 2019, "Simultaneous control of all
    false discovery proportions"). Simes' test asks for chances that are independent or positively
    dependent. Things that speak against the claim themselves cannot raise it, but would dilute the
    test; they are set aside, and the chance of the others doubles (Ellis, Pecanka & Goeman 2020,
    "Gaining power in multiple testing of interval hypotheses via conditionalization").
    """
    left = np.sort(2.0 * chance[chance <= 0.5])
    for size in range(len(left), 0, -1):
        if np.all(left[-size:] > LEVEL * np.arange(1, size + 1) / size):
            return len(left) - size
    return len(left)
