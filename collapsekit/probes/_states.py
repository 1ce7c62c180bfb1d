"""Active, passive or mixed: what shares of samples make of a dimension, or of a direction."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from collapsekit.claims import count_number, share_at_least
from collapsekit.findings import Code, Evidence, Finding, Severity
from collapsekit.intervals import wilson_arrays
from collapsekit.number import Number
from collapsekit.streaming import Array, Moments


@dataclass(frozen=True)
class Bars:
    """The thresholds, as their probes have them for fields."""

    epsilon: float  # nats
    delta: float  # share of samples
    narrow: float  # prior variances
    part: float  # of what is not passive, from which local ones give the verdict

    @property
    def wide(self) -> float:
        """The least variance that a KL of epsilon leaves a Gaussian: its width alone costs that.

        The root below 1 of v - 1 - ln v = 2 epsilon, 0.816 at 0.01 nats. A bar of its own above
        that would call samples neither at the prior nor away from it.
        """
        v = math.exp(-1.0 - 2.0 * self.epsilon)  # Newton from the left: no overshoot
        for _ in range(100):
            step = (v - 1.0 - math.log(v) - 2.0 * self.epsilon) / (1.0 / v - 1.0)
            v += step
            if step < 1e-12:
                break
        return v

    def flags(self, kl: Tensor, variance: Tensor | None) -> dict[str, Moments]:
        """Shares of samples, from KL (nats) and posterior variance (the prior's is 1): [B, D].

        Without variances the KL stands for the width, in nats of entropy lost.
        """
        below = kl < self.epsilon
        if variance is None:
            wide, narrow = below, kl > -0.5 * math.log(self.narrow)
        else:
            wide, narrow = variance > self.wide, variance < self.narrow
        found = {"below": below, "wide": wide, "narrow": narrow}
        return {name: Moments.of(flag.double()) for name, flag in found.items()}


@dataclass(frozen=True)
class Shares:
    """Counts of samples of each of D dimensions, and the words that they give.

    Parameters
    ----------
    n : int
        Samples.
    below, wide, narrow : ndarray [D]
        How many have a KL below epsilon; a variance that is wide; one that is narrow.
    bars : Bars
    noun : str
        "dimension" or "direction".
    """

    n: int
    below: Array
    wide: Array
    narrow: Array
    bars: Bars
    noun: str = "dimension"

    @classmethod
    def of(cls, state: Mapping[str, Any], bars: Bars, noun: str = "dimension") -> Shares:
        """From the states of `Bars.flags`."""
        n = int(state["below"].n.max(initial=0))
        # Counts, not shares: 0.9 of 10,000 is an exact tie with 1 - delta and has to count.
        below, wide, narrow = (
            np.rint(state[name].mean * n) for name in ("below", "wide", "narrow")
        )
        return cls(n, below, wide, narrow, bars, noun)

    @cached_property
    def passive(self) -> Array:
        """At the prior for nearly every sample."""
        return _at_least(self.below, (1 - self.bars.delta) * self.n)

    @cached_property
    def _mixed(self) -> Array:
        mixed: Array = ~self.passive & (self.below > self.bars.delta * self.n + 1e-9)
        return mixed

    @cached_property
    def words(self) -> Array:
        """active, passive or mixed."""
        return np.select([self.passive, self._mixed], ["passive", "mixed"], "active")

    @cached_property
    def local(self) -> Array:
        """Mixed, wide for some samples and narrow for others."""
        least = self.bars.delta * self.n
        found: Array = self._mixed & _at_least(self.wide, least) & _at_least(self.narrow, least)
        return found

    @cached_property
    def limits(self) -> tuple[Array, Array]:
        """95 % limits of the share below epsilon, Wilson."""
        if self.n < 2:  # one sample tells of no share: Wilson's limits are a normal's
            return np.zeros(len(self.below)), np.ones(len(self.below))
        return wilson_arrays(self.below, self.n)

    def number(self, name: str) -> Number:
        """How many are passive."""
        return count_number(
            name,
            share_at_least(self.below, self.n, 1 - self.bars.delta),
            "dimensions",
            self.n,
            f"share of samples with KL < {self.bars.epsilon:g} nats at least "
            f"{1 - self.bars.delta:g}",
        )

    @property
    def columns(self) -> pd.DataFrame:
        """`state`, `local`, `share_below_epsilon`."""
        return pd.DataFrame(
            {
                "state": self.words,
                "local": self.local,
                "share_below_epsilon": self.below / max(self.n, 1),
            },
            index=pd.RangeIndex(len(self.below), name=self.noun),
        )

    def judge_passive(self, code: Code, number: Number) -> Finding:
        """Whether one is passive, by their number."""
        of = f"of {len(self.passive)} {self.noun}s"
        if number.low >= 1:
            severity, verdict = Severity.WARN, "partial"
            message = (
                f"{int(number.value)} {of} equal the prior for at least "
                f"{1 - self.bars.delta:.0%} of the samples."
            )
        elif number.high >= 1:
            severity, verdict = Severity.INCONCLUSIVE, "partial"
            message = (
                f"{int(number.value)} {of} look passive, {number.high:.0f} perhaps; "
                f"{number.n:,} samples do not settle it."
            )
        else:
            severity, verdict = Severity.OK, "healthy"
            message = f"none {of} is passive."
            if len(self.passive) == 1:
                message = f"the one {self.noun} is not passive."
        return code.finding(
            severity,
            message,
            evidence=[Evidence(number, 1, "<")],
            verdict=verdict,
            dimensions=np.flatnonzero(self.passive),
        )

    def judge_local(self, code: Code) -> Finding | None:
        """Whether one is used for some samples only, surely or perhaps; None where none is.

        The word is theirs where they are a good part of the code; one of many is partial collapse.
        """
        low, high = self.limits
        parts = [wilson_arrays(part, self.n) for part in (self.wide, self.narrow)]
        # Sure of both parts, by Wilson's lower limits, before it is worth a verdict.
        sure = self.local & np.all([least >= self.bars.delta for least, _ in parts], axis=0)
        perhaps = (low < 1 - self.bars.delta) & (high > self.bars.delta)
        perhaps &= np.all([most >= self.bars.delta for _, most in parts], axis=0)
        if not (self.local | perhaps).any():
            return None
        told = (
            f"{int(self.local.sum())} of {len(self.local)} {self.noun}s are used for some samples "
            "and equal the prior for others"
        )
        most = int((self.local | perhaps).sum())
        good = max(self.bars.part * int((~self.passive).sum()), 1)
        settled = sure.sum() >= good or (sure.any() and most < good)
        if not settled:
            told += f", {most} perhaps; {self.n:,} samples do not settle it"
        return code.finding(
            Severity.WARN if settled else Severity.INCONCLUSIVE,
            f"{told}.",
            verdict="local" if most >= good else "partial",
            dimensions=np.flatnonzero(self.local if self.local.any() else perhaps),
        )


def _at_least(count: Array, bar: float) -> Array:
    reached: Array = count >= bar - 1e-9
    return reached
