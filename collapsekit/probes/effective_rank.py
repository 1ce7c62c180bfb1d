"""Effective rank of the posterior means: how many independent axes they really span."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from math import nan
from typing import Any, ClassVar

import numpy as np
import torch

from collapsekit.errors import Unavailable
from collapsekit.findings import Code, Evidence, Finding, Severity, by_axes
from collapsekit.independent import independent
from collapsekit.intervals import Z95, half_width, jackknife_number
from collapsekit.number import Headline, Number
from collapsekit.observation import Observation, Source
from collapsekit.posteriors import turns, whitened_mean
from collapsekit.probe import States, measure
from collapsekit.results import Result
from collapsekit.streaming import (
    Array,
    Comoments,
    Constant,
    Grouped,
    Jackknife,
    keyed_groups,
)

RANK = Code(
    id="CK202",
    title="Effective rank",
    meaning="Two dimensions that always move together are counted twice among the active units. "
    "The participation ratio of the covariance of the posterior means counts independent axes "
    "instead. It is 0 where the means do not move at all, which is no collapse yet: a code may "
    "live in the widths.",
    formula="(tr C)^2 / tr(C^2), C = Cov_i(mu_i) in units of the prior; 0 where C = 0. Both traces "
    "by their unbiased estimates: the covariance of n samples alone has D / n too much in "
    "tr(C^2) for each unit of (tr C)^2 / D. The interval is a delete-a-group jackknife over "
    "samples, symmetric in the root of D - value.",
    remedy="Redundant axes can be merged; see the total correlation for how much they share.",
    source="participation ratio; Himeno & Yamada 2014, J. Multivariate Anal. 130 (the traces); "
    "Roy & Vetterli 2007 for effective rank in general",
)
REDUNDANT = Code(
    id="CK612",
    title="Redundant dimensions",
    meaning="Some active dimensions only repeat what others say: their means are, almost exactly, "
    "a linear combination of the other means. Each of them is active and informative when looked "
    "at alone, so counts of active units and the sum of the information per dimension are too "
    "high.",
    formula="eigenvalues of the correlation matrix of the means of all active dimensions "
    "(mean_variance > 0.01 of the prior's) below 0.05 (1 - sqrt(d / n))^2, d active dimensions, n "
    "samples: that many directions carry less than 5 % of a dimension's variance; not determined "
    "where n <= d. Limits: each eigenvalue moved by 1.96 of its standard errors, sqrt(2 / n) of "
    "its value. Of Gaussian posteriors with full covariance the axes are one basis of many, and "
    "no direction of the means repeats another: told, and activity counted along directions "
    "(CK201).",
    remedy="Read the effective rank and the total correlation instead of the active units; a "
    "smaller code would do.",
    source="collapsekit; Anderson 1963 for the eigenvalues' errors, Marchenko & Pastur 1967 for "
    "their bias",
)


@dataclass(frozen=True)
class EffectiveRank:
    """Participation ratio of Cov(mu), headline `effective_rank`; `redundant_dimensions`."""

    most_dimensions: int = 1024  # beyond, the covariance matrix itself is too large to be cheap
    active: float = 0.01  # prior variances, from which a dimension is looked at for redundancy
    repeated: float = 0.05  # of a dimension's variance, below which a direction adds nothing

    name: ClassVar[str] = "effective_rank"
    source: ClassVar[Source] = "population"
    limit: ClassVar[int | None] = None
    codes: ClassVar[tuple[Code, ...]] = (RANK, REDUNDANT)
    headlines: ClassVar[tuple[Headline, ...]] = (
        Headline("effective_rank", "Effective rank of the codes", "up"),
        Headline("redundant_dimensions", "Active dimensions that repeat others", "down"),
    )

    def observe(self, obs: Observation) -> States:
        """Comoments of the means, in groups for the jackknife."""
        posterior = obs.posterior
        if posterior.dims > self.most_dimensions:
            raise Unavailable(
                "the covariance of the means is too large",
                got=f"{posterior.dims} dimensions",
                expected=f"at most {self.most_dimensions}",
                remedy="raise EffectiveRank(most_dimensions=...) if the memory is there",
            )
        turning = turns(posterior, obs.prior)
        mean = whitened_mean(posterior, obs.prior) if turning else obs.standard_mean
        # The squared length beside the means: from its comoments come fourth moments.
        mean = torch.cat([mean, mean.square().sum(dim=1, keepdim=True)], dim=1)
        return {
            "means": Grouped.of(keyed_groups(obs.index), lambda rows: Comoments.of(mean[rows])),
            "dims": Constant(posterior.dims),
            "turns": Constant(turning),
        }

    def conclude(self, state: States) -> Result:
        """The ratio with its jackknife interval."""
        groups: Grouped = state["means"]
        n = groups.whole.n
        if n < 2:
            return Result(
                numbers=(Number("effective_rank", nan, nan, nan, "dimensions", n, "one sample"),)
            )
        number = jackknife_number(
            "effective_rank",
            _below(groups.jackknife(_participation), state["dims"].value),
            "dimensions",
            n,
            "of an unbiased estimate of both traces, on the scale of the root of what D lies above",
            least=0.0,
            most=state["dims"].value,
        )
        finding = RANK.finding(
            Severity.OK,
            f"the posterior means span {number.digits()} independent axes of "
            f"{state['dims'].value}.",
            evidence=[Evidence(number)],
        )
        redundant, repeats = self._redundant(groups.whole)
        if state["turns"].value:  # axes are one basis of many: CK201 counts directions
            repeats = [by_axes(told, "CK201") for told in repeats]
            redundant = replace(
                redundant, note=f"{redundant.note}; along the axes, one basis of many"
            )
        return Result(numbers=(number, redundant), findings=(finding, *repeats))

    def _redundant(self, moments: Comoments) -> tuple[Number, list[Finding]]:
        covariance, n = moments.covariance[:-1, :-1], int(independent(moments.n))
        active = np.flatnonzero(np.diag(covariance) > self.active)
        d = len(active)
        if d > 1 and n <= d:
            return _undetermined(d, n, moments.n)
        values: Array = np.zeros(0)
        if d > 1:
            spread = np.sqrt(np.diag(covariance)[active])
            values = np.linalg.eigvalsh(
                covariance[np.ix_(active, active)] / np.outer(spread, spread)
            )
        # Of d independent axes the smallest eigenvalue that n samples show is this far below 1.
        bar = self.repeated * (1 - math.sqrt(min(d / max(n, 1), 1.0))) ** 2
        error = Z95 * math.sqrt(2 / max(n, 1))
        value, low, high = (
            float((values * (1 + move) < bar).sum()) for move in (0.0, error, -error)
        )
        number = Number(
            "redundant_dimensions",
            value,
            low,
            high,
            "dimensions",
            moments.n,
            f"of {d} active ones; directions with less than {self.repeated:.0%} of a dimension's "
            "variance; limits: each eigenvalue moved by 1.96 standard errors",
        )
        if low < 1:
            return number, []
        return number, [
            REDUNDANT.finding(
                Severity.WARN,
                f"{int(value)} of {d} active dimensions repeat what the others say: their means "
                f"span {d - int(value)} independent direction{'' if d - value == 1 else 's'}.",
                evidence=[Evidence(number, 1, "<")],
                dimensions=active,
            )
        ]


def _undetermined(d: int, n: int, rows: int) -> tuple[Number, list[Finding]]:
    why = f"not determined: {n} samples span at most {n - 1} directions, of {d} active dimensions"
    number = Number("redundant_dimensions", nan, 0.0, d - 1.0, "dimensions", rows, why)
    told = REDUNDANT.finding(
        Severity.INCONCLUSIVE,
        f"whether dimensions repeat one another is {why}.",
        evidence=[Evidence(number, 1, "<")],
        advice="Audit more samples than there are dimensions.",
    )
    return number, [told]


def _below(found: Jackknife, most: float) -> Jackknife:
    """The jackknife whose interval is symmetric in sqrt(most - value), not in the value.

    Near D the ratio falls with the square of how unequal the axes are: its estimates are skewed,
    and a symmetric interval misses on one side (6 % at 1.9 of 2). Both ends move down by the
    square of the root's own half width.
    """
    half = float(half_width(found))
    gap = most - float(found.value - found.bias)
    if not half > 0:
        return found
    return replace(found, bias=found.bias + half**2 / (4 * max(gap, half / 2)))


def _participation(moments: Comoments) -> Array:
    """(tr C)^2 / tr(C^2) by unbiased estimates of both, from comoments of (x, |x|^2)."""
    n, centre, products = moments.n, moments.mean[:-1], moments.products[:-1, :-1]
    spread = float(np.trace(products))
    # Means that do not move leave rounding dust behind, whose shape would look like one axis.
    dust = n * (8 * np.finfo(np.float64).eps) ** 2 * float((centre**2).sum())
    if spread <= dust:
        return np.array(0.0)
    squared = float((products**2).sum())
    if n < 4:  # fourth moments need four
        return np.array(spread**2 / squared)
    # |x - centre|^2 is |x|^2 - 2 centre x + const: the sum of its squares, from comoments.
    cross = moments.products[:-1, -1]
    fourth = float(moments.products[-1, -1] - 4 * centre @ cross + 4 * centre @ products @ centre)
    fourth += spread**2 / n
    # Himeno & Yamada 2014, with S = products / (n - 1); a factor that both share is left out.
    total2, trace2 = spread**2 / (n - 1), squared / (n - 1)
    above = 2 * trace2 + (n**2 - 3 * n + 1) * total2 - n * fourth
    below = (n - 1) * (n - 2) * trace2 + total2 - n * fourth
    if below <= 0:  # too few samples to tell tr(C^2) from noise
        return np.array(float(len(centre)))
    return np.array(above / below)


def effective_rank(mean: Any) -> Number:
    """Participation ratio of the covariance of posterior means.

    Parameters
    ----------
    mean : array [N, D]
        In units of the prior's scale.

    Returns
    -------
    Number
        Dimensions, between 0 (the means do not move) and D.
    """
    mean = np.asarray(mean, dtype=np.float64)
    return measure(EffectiveRank(), Observation.of_arrays(mean, np.ones_like(mean))).numbers[0]
