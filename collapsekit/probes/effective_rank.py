"""Effective rank of the posterior means: how many independent axes they really span."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import Any, ClassVar

import numpy as np

from collapsekit.errors import Unavailable
from collapsekit.findings import Code, Evidence, Severity
from collapsekit.intervals import jackknife_number
from collapsekit.number import Number
from collapsekit.observation import Observation, Source
from collapsekit.probe import States, measure
from collapsekit.results import Result
from collapsekit.streaming import Array, Comoments, Constant, Grouped, keyed_groups

RANK = Code(
    id="CK202",
    title="Effective rank",
    meaning="Two dimensions that always move together are counted twice among the active units. "
    "The participation ratio of the covariance of the posterior means counts independent axes "
    "instead. It is 0 where the means do not move at all, which is no collapse yet: a code may "
    "live in the widths.",
    formula="(tr C)^2 / tr(C^2), C = Cov_i(mu_i) in units of the prior; 0 where C = 0. The "
    "interval is a delete-a-group jackknife over samples.",
    remedy="Redundant axes can be merged; see the total correlation for how much they share.",
    source="participation ratio; Roy & Vetterli 2007 for effective rank in general",
)


@dataclass(frozen=True)
class EffectiveRank:
    """Participation ratio of Cov(mu), headline `effective_rank`."""

    most_dimensions: int = 1024  # beyond, the covariance matrix itself is too large to be cheap

    name: ClassVar[str] = "effective_rank"
    source: ClassVar[Source] = "population"
    limit: ClassVar[int | None] = None
    codes: ClassVar[tuple[Code, ...]] = (RANK,)

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
        mean = obs.standard_mean
        return {
            "means": Grouped.of(keyed_groups(obs.index), lambda rows: Comoments.of(mean[rows])),
            "dims": Constant(posterior.dims),
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
            "effective_rank", groups.jackknife(_participation), "dimensions", n
        )
        finding = RANK.finding(
            Severity.OK,
            f"the posterior means span {number.digits()} independent axes of "
            f"{state['dims'].value}.",
            evidence=[Evidence(number)],
        )
        return Result(numbers=(number,), findings=(finding,))


def _participation(moments: Comoments) -> Array:
    products, spread = moments.products, float(np.trace(moments.products))
    # Means that do not move leave rounding dust behind, whose shape would look like one axis.
    dust = moments.n * (8 * np.finfo(np.float64).eps) ** 2 * float((moments.mean**2).sum())
    if spread <= dust:
        return np.array(0.0)
    return np.array(spread**2 / float((products**2).sum()))


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
