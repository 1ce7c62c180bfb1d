"""Directions of a code whose axes mean nothing by themselves, and the state of each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from collapsekit.findings import Code
from collapsekit.intervals import Z95
from collapsekit.number import Headline
from collapsekit.observation import Observation, Source
from collapsekit.posteriors import kl_matrix, turns, whitened
from collapsekit.probe import States, measure
from collapsekit.probes._states import Bars, Shares
from collapsekit.results import Result
from collapsekit.streaming import Array, Constant, Moments

DIRECTIONS = Code(
    id="CK622",
    title="Directions of the code",
    meaning="Under a Gaussian prior, a code with full-covariance posteriors has no axes of its "
    "own: rotate it, and the decoder's input with it, and the model is the same. Whether a "
    "dimension is passive then depends on the basis, and a code that is idle in half of its "
    "directions may look idle on no axis. So the verdict reads the directions in which the code "
    "spends its KL: the rate splits over them, and their states do not depend on the rotation.",
    formula="in units in which the prior is N(0, I): K_i = (m_i m_i' + C_i - I - ln C_i) / 2, "
    "whose trace is the KL of sample i; directions u_j: eigenvectors of the mean of ln(1 + K_i / "
    "epsilon); kl[i, j] = u_j' K_i u_j, which adds up to the KL and is 0 only where the "
    "coordinate along u_j is N(0, 1) and independent of the rest. passive: kl[i, j] < epsilon for "
    "at least 1 - delta of the samples; local: mixed, and u_j' C_i u_j above 0.82 for at least "
    "delta of them and below 0.5 for as many; epsilon = 0.01 nats, delta = 0.05. Verdicts where "
    "the Wilson limits agree, inconclusive where they hold the bar; local ones give theirs from a "
    "quarter of what is not passive on, fewer are partial collapse.",
    remedy="A smaller code loses nothing where directions are passive; if you need them, lower "
    "beta or add the latent reconstruction loss.",
    source="collapsekit; the states are those of Lucas et al. 2019, arXiv 1911.02469",
)


@dataclass(frozen=True)
class Directions:
    """`passive_directions`, and the table `directions`: for full-covariance codes.

    Silent for any other code: there the axes, or no directions at all, are given.
    """

    epsilon: float = 0.01  # nats
    delta: float = 0.05  # share of samples
    narrow: float = 0.5  # prior variances
    part: float = 0.25  # of what is not passive, from which local ones give the verdict
    limit: int | None = 2048  # rows
    work: int = 1 << 31  # rows times cubed dimensions: fewer rows of very large codes
    fewest: int = 128  # rows, whatever the work

    name: ClassVar[str] = "directions"
    source: ClassVar[Source] = "population"
    codes: ClassVar[tuple[Code, ...]] = (DIRECTIONS,)
    headlines: ClassVar[tuple[Headline, ...]] = (
        Headline("passive_directions", "Directions equal to the prior", "down"),
    )

    @property
    def _bars(self) -> Bars:
        return Bars(self.epsilon, self.delta, self.narrow, self.part)

    def observe(self, obs: Observation) -> States:
        """KL and variances along the directions of the whole population."""
        prior = obs.population.priors(np.arange(1))
        if not turns(obs.posterior, prior):
            return {"turns": Constant(False)}
        dims = obs.posterior.dims
        rows = max(self.fewest, self.work // dims**3)
        if self.limit is not None:
            rows = min(rows, self.limit)
        basis = obs.population.head(rows).directions(self.epsilon)
        obs = obs.first(rows)
        mean, covariance = whitened(obs.posterior, obs.prior)
        kl = _along(kl_matrix(mean, covariance), basis)
        width = _along(covariance, basis)
        return {
            "turns": Constant(True),
            **self._bars.flags(kl, width),
            "kl": Moments.of(kl),
            "mean": Moments.of(mean @ basis),
            "width": Moments.of(width),
        }

    def conclude(self, state: States) -> Result:
        """States of the directions, the one of the largest KL first."""
        if not state["turns"].value:
            return Result()
        order = np.argsort(-state["kl"].mean, kind="stable")
        state = {name: _sorted(part, order) for name, part in state.items() if name != "turns"}
        shares = Shares.of(state, self._bars, "direction")
        # No KL is negative; rounding leaves some 1e-18 of either sign where one is 0.
        kl, error = state["kl"].mean.clip(0.0), Z95 * state["kl"].standard_error
        low, high = shares.limits
        table = shares.columns
        table = table.assign(
            kl=kl,
            kl_low=np.maximum(kl - error, 0.0),
            kl_high=kl + error,
            mean_variance=state["mean"].variance,
            width=state["width"].mean,
            share_low=low,
            share_high=high,
        )
        number = shares.number("passive_directions")
        found = (shares.judge_passive(DIRECTIONS, number), shares.judge_local(DIRECTIONS))
        return Result(
            numbers=(number,),
            # Directions are no dimensions: their numbers would be read as axes.
            findings=tuple(replace(f, dimensions=()) for f in found if f is not None),
            tables={"directions": table.reset_index()},
        )


def _along(matrices: Tensor, basis: Tensor) -> Tensor:
    """u'M u of each matrix [B, D, D] for each column u of a basis [D, D]: [B, D]."""
    found: Tensor = (basis * (matrices @ basis)).sum(dim=1)
    return found


def _sorted(part: Moments, order: Array) -> Moments:
    return Moments(part.n[order], part.mean[order], part.squares[order])


def directions(
    mean: Any, covariance: Any, *, epsilon: float = 0.01, prior: Any = None
) -> pd.DataFrame:
    """Directions of a code of full-covariance Gaussian posteriors under a Gaussian prior.

    Parameters
    ----------
    mean : array [N, D]
    covariance : array [N, D, D]
    epsilon : float
        Nats, below which a sample is at the prior along a direction.
    prior : optional

    Returns
    -------
    DataFrame
        A row per direction, by falling KL: `state`, `local`, `share_below_epsilon`, `kl` in nats
        with its 95 % limits, `mean_variance` and `width`: variance of the means and mean variance
        of the posteriors along it, in the prior's.
    """
    mean, covariance = (
        torch.from_numpy(np.array(part, dtype=np.float64)) for part in (mean, covariance)
    )
    obs = Observation.of_arrays(
        mean, covariance, prior=prior, family=lambda given: MultivariateNormal(*given)
    )
    return measure(Directions(epsilon=epsilon, limit=None), obs).tables["directions"]
