"""Local posterior collapse: samples whose posterior says next to nothing about them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from collapsekit.errors import Unavailable
from collapsekit.findings import KEPT_INDICES, Code, Evidence, Severity
from collapsekit.intervals import share_number, wilson_arrays
from collapsekit.number import Headline, Number
from collapsekit.observation import Observation, Source
from collapsekit.posteriors import Categorical, Family, least_variance
from collapsekit.probe import States, measure
from collapsekit.results import Result
from collapsekit.streaming import Array, Constant, Counts, Moments, Rows, Top, to_numpy

LOCAL = Code(
    id="CK301",
    title="Locally collapsed samples",
    meaning="Collapse is a property of a data point, not only of a model: at some inputs the "
    "posterior is the prior though elsewhere it is not. A sample is locally collapsed when its "
    "whole code carries less than one nat. A small or a weak code that works can carry that little "
    "too; its widths then are alike for every sample. So the verdict counts those samples alone "
    "whose posterior is wide in every direction, and asks for others that are narrow somewhere.",
    formula="locally_collapsed[i] = (sum_j KL_ij < 1 nat, or a tenth of the entropy of a discrete "
    "prior where that is less), with a Wilson interval on its share; the curve shows the share "
    "below every threshold from 0.01 to 10 nats. Verdict, where posteriors have widths, by lower "
    "Wilson limits: total if 95 % are locally collapsed with a variance > 0.9 of the prior's in "
    "every direction (the smallest eigenvalue of the covariance in the prior's units); local if "
    "5 % are with a variance > 0.5 in every direction and 5 % of all samples are narrower than "
    "that in some, or 5 % are with > 0.9 in every direction and 5 % of all below 0.75 in some; no "
    "word where 5 % are wide and neither holds: the code is weak for every sample alike. A KL from "
    "draws counts where it is below the bar by two of its own standard errors; those within two of "
    "the bar are told, and in the interval's upper end; the curve's limits move every such KL by "
    "two.",
    remedy="Look at who they are (labels, gallery). Latent reconstruction empties this count "
    "reliably; KL annealing and longer training often do too.",
    source="Song, Kim, Lee 2025, arXiv 2508.12530; the 1 nat bar is collapsekit's",
)


THRESHOLDS = np.logspace(-2, 1, 61)  # nats, of the curve


@dataclass(frozen=True)
class LocalCollapse:
    """`active_dims`, `collapsed_fraction`, `locally_collapsed`, `prior_matched` per sample."""

    bar: float = 1.0  # nats in a sample's whole code; for discrete codes at most
    entropy_share: float = 0.1  # of the prior's entropy
    epsilon: float = 0.01  # nats in one dimension
    sure: float = 2.0  # standard errors of a sample's KL from draws, by which it is below a bar
    wide: float = 0.5  # prior variances, in every direction, for the verdict to count a sample
    at_prior: float = 0.9  # the same for total collapse: weak codes that work are narrower
    apart: float = 0.75  # below which a sample stands out from those above `at_prior`
    local_share: float = 0.05
    total_share: float = 0.95

    name: ClassVar[str] = "local_collapse"
    source: ClassVar[Source] = "data"
    limit: ClassVar[int | None] = None
    codes: ClassVar[tuple[Code, ...]] = (LOCAL,)
    headlines: ClassVar[tuple[Headline, ...]] = (
        Headline("locally_collapsed_fraction", "Samples locally collapsed", "down"),
    )

    def observe(self, obs: Observation) -> States:
        """What each sample's code carries."""
        bar, told = self._bars(obs.prior)
        error = obs.divergence.error
        slack = 0.0 if error is None else self.sure * error
        collapsed = obs.kl_total + slack < bar
        perhaps = to_numpy((obs.kl_total - slack < bar) & ~collapsed)
        columns = {"locally_collapsed": collapsed}
        each = obs.divergence.each
        if each is None:  # one whole: it matches the prior or it does not
            columns["prior_matched"] = obs.kl_total + slack < self.epsilon
        else:
            active = (each >= self.epsilon).sum(dim=1)
            share = active.to(torch.float64) / obs.posterior.dims
            columns["active_dims"] = active
            columns["collapsed_fraction"] = 1.0 - share
            columns["prior_matched"] = active == 0
        total, index = to_numpy(obs.kl_total), to_numpy(obs.index)
        flags = to_numpy(collapsed)
        width = self._narrowest(obs)
        parts = [~(flags | perhaps)] * 2  # a discrete code, say: its KL alone has to tell
        if width is not None:
            parts = [width <= self.wide, width <= self.apart]
        for who in (flags, perhaps):
            parts += [who, who, who] if width is None else self._wide(who, width)
        counted = [len(total), *(int(part.sum()) for part in parts)]
        # Counts and the first few, not the rows: they do not grow with the data.
        off = to_numpy(torch.zeros_like(obs.kl_total) + slack)
        return {
            "rows": Rows(obs.index, **columns),
            "bar": Constant(told),
            "counts": Counts(np.array(counted)),
            "below": Counts(np.stack([_passed(total + side * off) for side in (0, 1, -1)])),
            "drawn": Constant(error is not None),
            "noise": Moments.of(off**2),
            "first": Top(KEPT_INDICES, np.where(flags, -index.astype(np.float64), np.nan), index),
        }

    def _narrowest(self, obs: Observation) -> Array | None:
        """Variance of each row's narrowest direction, in the prior's; None without widths."""
        try:
            return to_numpy(least_variance(obs.posterior, obs.prior))
        except Unavailable:
            return None

    def _wide(self, who: Array, width: Array) -> list[Array]:
        return [who, who & (width > self.wide), who & (width > self.at_prior)]

    def _bars(self, prior: Family) -> tuple[Tensor | float, float]:
        """Each row's bar, and the one to tell: discrete codes cannot hold a nat of slack."""
        if not isinstance(prior, Categorical):
            return self.bar, self.bar
        bars = (self.entropy_share * prior.entropy.sum(dim=1)).clamp(max=self.bar)
        return bars, float(bars[0]) if prior.rows == 1 else self.bar

    def _judge(
        self, wide: Number, prior: Number, narrow: Number, apart: Number
    ) -> tuple[Severity, str | None]:
        if prior.low >= self.total_share:
            return Severity.FAIL, "total"
        pairs = (wide, narrow), (prior, apart)
        if any(min(few.low, others.low) >= self.local_share for few, others in pairs):
            return Severity.FAIL, "local"
        if prior.high >= self.total_share:
            return Severity.INCONCLUSIVE, "total"
        if any(min(few.high, others.high) >= self.local_share for few, others in pairs):
            return Severity.INCONCLUSIVE, "local"
        if wide.low >= self.local_share:
            return Severity.WARN, None
        if wide.high >= self.local_share:  # weak everywhere or for few: neither is a word
            return Severity.INCONCLUSIVE, None
        return Severity.OK, "healthy"

    def conclude(self, state: States) -> Result:
        """The share of locally collapsed samples and its curve over thresholds."""
        bar = state["bar"].value
        n, narrow, apart, *rest = (int(value) for value in state["counts"].values)
        (count, wide, prior), (perhaps, more_wide, more_prior) = rest[:3], rest[3:]
        note = f"KL of a sample below {bar:.3g} nat"
        if state["drawn"].value:
            noise = math.sqrt(float(state["noise"].mean[0])) / self.sure
            note += f"; a sample's KL is known from draws to {noise:.2g} nats (root mean square)"
        if perhaps:
            note += f"; {perhaps / n:.1%} are within their draws' error of it: in the upper end"
        share = share_number("locally_collapsed_fraction", count, n, note, perhaps=perhaps)
        judged = share_number(
            "wide_fraction",
            wide,
            n,
            f"of those, sigma^2 above {self.wide:g} of the prior's in every direction",
            perhaps=more_wide,
        )
        told = f"{count:,} of {n:,} samples carry less than {bar:.3g} nat"
        limits = f"{share.value:.1%}; 95 % interval {share.low:.1%} to {share.high:.1%}"
        if perhaps:
            limits += f", with {perhaps / n:.1%} that the draws do not settle"
        if judged.value < share.value:
            limits += f"; {judged.value:.1%} of all are wide in every direction"
        at_prior = share_number("", prior, n, perhaps=more_prior)
        severity, verdict = self._judge(
            judged, at_prior, *(share_number("", k, n) for k in (narrow, apart))
        )
        if severity is Severity.WARN:
            limits += "; the code is weak for every sample alike, and equals the prior for few"
        finding = LOCAL.finding(
            severity,
            f"{told} ({limits}).",
            # Where all of them are wide, the share that is shown is the one that is judged.
            evidence=[Evidence(share, self.local_share, "<")]
            if wide == count
            else [Evidence(share), Evidence(judged, self.local_share, "<")],
            verdict=verdict,
            samples=state["first"].index,
        )
        return Result(
            numbers=(share,),
            samples=state["rows"].table(),
            findings=(finding,),
            tables={"local_collapse_curve": _curve(state["below"].values, n)},
        )


def _passed(total: Array) -> Array:
    """How many totals lie between each two thresholds, below the first, beyond the last."""
    place = np.searchsorted(THRESHOLDS, total, side="right")
    return np.bincount(place, minlength=len(THRESHOLDS) + 1)


def _curve(counts: Array, n: int) -> pd.DataFrame:
    """Shares below each threshold; noise of draws spreads them, so the limits hold it as well."""
    count, sure, perhaps = np.cumsum(counts, axis=1)[:, : len(THRESHOLDS)]
    low, high = wilson_arrays(sure, n)[0], wilson_arrays(perhaps, n)[1]
    return pd.DataFrame({"threshold": THRESHOLDS, "share": count / n, "low": low, "high": high})


def local_collapse(mean: Any, scale: Any, *, bar: float = 1.0, prior: Any = None) -> Number:
    """Share of samples whose whole code carries less than `bar` nats.

    Parameters
    ----------
    mean, scale : array [N, D]
    bar : float
        Nats.
    prior : optional

    Returns
    -------
    Number
        A share with its Wilson interval.
    """
    obs = Observation.of_arrays(mean, scale, prior=prior)
    return measure(LocalCollapse(bar=bar), obs).numbers[0]
