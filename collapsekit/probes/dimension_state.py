"""State of each dimension: active, passive or mixed over samples, and whether mixed means local."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch

from collapsekit.findings import Code, Evidence, Finding, Severity
from collapsekit.intervals import wilson_arrays
from collapsekit.number import Number
from collapsekit.observation import Observation, Source
from collapsekit.probe import States, measure
from collapsekit.results import Result
from collapsekit.streaming import Array, Moments

PASSIVE = Code(
    id="CK102",
    title="Passive dimensions",
    meaning="A dimension is passive when its posterior equals the prior for nearly every sample: "
    "the (epsilon, delta)-collapse of Lucas et al. It can be pruned without loss.",
    formula="share of samples with kl[i, j] < epsilon at least 1 - delta; epsilon = 0.01 nats, "
    "delta = 0.05. Active: that share is at most delta. Mixed: in between. Of Gaussians that are "
    "no product, kl[i, j] is what dimension j adds to the KL of the others; a prior without a "
    "closed form stands as the Gaussian of its means and variances.",
    remedy="If you need these dimensions, lower beta or add the latent reconstruction loss; "
    "otherwise use a smaller code.",
    source="Lucas et al. 2019, arXiv 1911.02469; Rolinek et al. 2019; Bonheme & Grzes 2021",
)
LOCAL_DIMENSIONS = Code(
    id="CK103",
    title="Dimensions used for some samples only",
    meaning="A mixed dimension is locally collapsed when the posterior keeps the prior's width "
    "on part of the data and is narrow on another part. A mixed dimension of one common width is "
    "merely weak.",
    formula="mixed, and the shares of samples with sigma^2 > 0.9 and with sigma^2 < 0.5 of the "
    "prior's are both at least delta; a verdict where both lower Wilson limits are, inconclusive "
    "where both upper ones are and it may be mixed.",
    remedy="Look at which samples they are (column active_dims, the gallery, the labels).",
    source="collapsekit; idea of Song, Kim, Lee 2025, arXiv 2508.12530",
)


@dataclass(frozen=True)
class DimensionState:
    """Column `state` ("active", "mixed", "passive") and `local`; counts of each."""

    epsilon: float = 0.01  # nats
    delta: float = 0.05  # share of samples
    wide: float = 0.9  # prior variances
    narrow: float = 0.5

    name: ClassVar[str] = "dimension_state"
    source: ClassVar[Source] = "data"
    limit: ClassVar[int | None] = None
    codes: ClassVar[tuple[Code, ...]] = (PASSIVE, LOCAL_DIMENSIONS)

    def observe(self, obs: Observation) -> States:
        """Shares of samples below epsilon, wide and narrow, per dimension."""
        width = obs.standard_width**2
        flags = {"below": obs.kl_added < self.epsilon, "wide": width > self.wide}
        flags["narrow"] = width < self.narrow
        return {name: Moments.of(flag.to(torch.float64)) for name, flag in flags.items()}

    def conclude(self, state: States) -> Result:
        """States, and findings on passive and local dimensions."""
        n = int(state["below"].n.max(initial=0))
        # Counts, not shares: 0.9 of 10,000 is an exact tie with 1 - delta and has to count.
        below, wide, narrow = (
            np.rint(state[name].mean * n) for name in ("below", "wide", "narrow")
        )
        passive = _at_least(below, (1 - self.delta) * n)
        active = (below <= self.delta * n + 1e-9) & ~passive
        mixed = ~passive & ~active
        local = mixed & _at_least(wide, self.delta * n) & _at_least(narrow, self.delta * n)
        words = np.select([passive, active], ["passive", "active"], "mixed")
        low, high = wilson_arrays(below, n)
        if n < 2:  # one sample tells of no share: Wilson's limits are a normal's
            low, high = np.zeros(len(below)), np.ones(len(below))
        number = Number(
            "passive_dimensions",
            float(passive.sum()),
            float((low >= 1 - self.delta).sum()),
            float((high >= 1 - self.delta).sum()),
            "dimensions",
            n,
            f"share of samples with KL < {self.epsilon:g} nats at least {1 - self.delta:g}; 95 % "
            "limits, Wilson in each dimension",
        )
        dimensions = pd.DataFrame(
            {"state": words, "local": local, "share_below_epsilon": below / max(n, 1)},
            index=pd.RangeIndex(len(words), name="dimension"),
        )
        findings = [self._judge_passive(number, passive)]
        parts = [wilson_arrays(part, n) for part in (wide, narrow)]
        sure = local & np.all([least >= self.delta for least, _ in parts], axis=0)
        perhaps = (low < 1 - self.delta) & (high > self.delta)
        perhaps &= np.all([most >= self.delta for _, most in parts], axis=0)
        if (local | perhaps).any():
            findings.append(self._judge_local(local, sure, perhaps, n))
        return Result(numbers=(number,), dimensions=dimensions, findings=tuple(findings))

    def _judge_local(self, local: Array, sure: Array, perhaps: Array, n: int) -> Finding:
        """Sure of both parts, by Wilson's lower limits, before it is worth a verdict."""
        told = (
            f"{int(local.sum())} of {len(local)} dimensions are used for some samples and equal "
            "the prior for others"
        )
        if sure.any():
            severity = Severity.WARN
        else:
            severity = Severity.INCONCLUSIVE
            told += f", {int((local | perhaps).sum())} perhaps; {n:,} samples do not settle it"
        return LOCAL_DIMENSIONS.finding(
            severity,
            f"{told}.",
            verdict="local",
            dimensions=np.flatnonzero(local if local.any() else perhaps),
        )

    def _judge_passive(self, number: Number, passive: Array) -> Finding:
        of = f"of {len(passive)} dimensions"
        if number.low >= 1:
            severity, verdict = Severity.WARN, "partial"
            message = (
                f"{int(number.value)} {of} equal the prior for at least {1 - self.delta:.0%} of "
                "the samples."
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
            if len(passive) == 1:
                message = "the one dimension is not passive."
        return PASSIVE.finding(
            severity,
            message,
            evidence=[Evidence(number, 1, "<")],
            verdict=verdict,
            dimensions=np.flatnonzero(passive),
        )


def _at_least(count: Array, bar: float) -> Array:
    reached: Array = count >= bar - 1e-9
    return reached


def dimension_state(
    mean: Any, scale: Any, *, epsilon: float = 0.01, delta: float = 0.05, prior: Any = None
) -> pd.DataFrame:
    """State of each latent dimension over samples.

    Parameters
    ----------
    mean, scale : array [N, D]
    epsilon : float
        Nats.
    delta : float
        Share of samples.
    prior : optional

    Returns
    -------
    DataFrame
        Per dimension: `state` ("active", "mixed", "passive"), `local`, `share_below_epsilon`.
    """
    obs = Observation.of_arrays(mean, scale, prior=prior)
    table = measure(DimensionState(epsilon=epsilon, delta=delta), obs).dimensions
    assert table is not None
    return table
