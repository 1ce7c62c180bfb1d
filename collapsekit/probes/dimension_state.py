"""State of each dimension: active, passive or mixed over samples, and whether mixed means local."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pandas as pd
from torch import Tensor

from collapsekit.errors import Unavailable
from collapsekit.findings import Code, by_axes
from collapsekit.number import Headline
from collapsekit.observation import Observation, Source
from collapsekit.posteriors import turns
from collapsekit.probe import States, measure
from collapsekit.probes._states import Bars, Shares
from collapsekit.results import Result
from collapsekit.streaming import Constant

PASSIVE = Code(
    id="CK102",
    title="Passive dimensions",
    meaning="A dimension is passive when its posterior equals the prior for nearly every sample: "
    "the (epsilon, delta)-collapse of Lucas et al. It can be pruned without loss.",
    formula="share of samples with kl[i, j] < epsilon at least 1 - delta; epsilon = 0.01 nats, "
    "delta = 0.05. Active: that share is at most delta. Mixed: in between. Of Gaussians that are "
    "no product, kl[i, j] is what dimension j adds to the KL of the others; a prior without a "
    "closed form stands as the Gaussian of its means and variances. Of Gaussians with full "
    "covariance the axes are one basis of many: told, and judged along directions (CK622).",
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
    formula="mixed, and the shares of samples whose sigma^2 is above the least that a KL of "
    "epsilon leaves (v - 1 - ln v = 2 epsilon, 0.82 of the prior's) and below 0.5 are both at "
    "least delta; a verdict where both lower Wilson limits are, inconclusive where both upper ones "
    "are and it may be mixed. It is local collapse where they are a quarter at least of what is "
    "not passive, partial where they are fewer. Classes have no width: their KL stands for it, "
    "below epsilon and above 0.35 nat, what halving a Gaussian's variance takes from its entropy.",
    remedy="Look at which samples they are (column active_dims, the gallery, the labels).",
    source="collapsekit; idea of Song, Kim, Lee 2025, arXiv 2508.12530",
)


@dataclass(frozen=True)
class DimensionState:
    """Column `state` ("active", "mixed", "passive") and `local`; counts of each."""

    epsilon: float = 0.01  # nats
    delta: float = 0.05  # share of samples
    narrow: float = 0.5  # prior variances
    part: float = 0.25  # of what is not passive, from which local ones give the verdict

    name: ClassVar[str] = "dimension_state"
    source: ClassVar[Source] = "data"
    limit: ClassVar[int | None] = None
    codes: ClassVar[tuple[Code, ...]] = (PASSIVE, LOCAL_DIMENSIONS)
    headlines: ClassVar[tuple[Headline, ...]] = (
        Headline("passive_dimensions", "Dimensions equal to the prior", "down"),
    )

    @property
    def _bars(self) -> Bars:
        return Bars(self.epsilon, self.delta, self.narrow, self.part)

    def observe(self, obs: Observation) -> States:
        """Shares of samples below epsilon, wide and narrow, per dimension."""
        flags = self._bars.flags(obs.kl_added, self._variance(obs))
        return {**flags, "turns": Constant(turns(obs.posterior, obs.prior))}

    def _variance(self, obs: Observation) -> Tensor | None:
        """In units of the prior's; None where codes have no width: classes."""
        try:
            return obs.standard_width**2
        except Unavailable:
            return None

    def conclude(self, state: States) -> Result:
        """States, and findings on passive and local dimensions."""
        shares = Shares.of(state, self._bars)
        number = shares.number("passive_dimensions")
        found = (shares.judge_passive(PASSIVE, number), shares.judge_local(LOCAL_DIMENSIONS))
        findings = [finding for finding in found if finding is not None]
        if state["turns"].value:  # axes are one basis of many: CK622 judges directions
            findings = [by_axes(finding, "CK622") for finding in findings]
            number = replace(number, note=f"{number.note}; along the axes, one basis of many")
        return Result(numbers=(number,), dimensions=shares.columns, findings=tuple(findings))


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
