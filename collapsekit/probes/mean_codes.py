"""Mean codes: whether a sample's own posterior mean, without noise, gives the sample back, and
whether outputs move from sample to sample as the samples do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from collapsekit.findings import Code
from collapsekit.intervals import jackknife_number, share_number
from collapsekit.likelihoods import squared_error
from collapsekit.number import Headline, Number
from collapsekit.observation import Observation, Source
from collapsekit.probe import States
from collapsekit.results import Result
from collapsekit.streaming import Counts, Grouped, Moments, block_groups


@dataclass(frozen=True)
class MeanCodes:
    """`told_by_mean_fraction`: samples whose own mean halves the error of another's.

    `reconstruction_slope`: E[|x - D(m')|^2 - |x - D(m)|^2] / E|D(m') - D(m)|^2 over pairs, m the
    own mean and m' the partner's. Squares cancel: it is the slope of the regression of samples on
    their outputs. 1 where D(m) = E[x | m], 0 where outputs have nothing to do with the samples,
    -1 where they are turned round.

    Codes drawn from a declared posterior can never tell more than its KL allows, however the model
    draws its own. Its means can: they show what the decoder makes of a code without that noise.
    """

    limit: int | None = 512  # rows; each costs two decodes
    factor: float = 0.5  # of the other's error
    moves: float = 0.05  # of the own error, by which outputs have to move for a slope

    name: ClassVar[str] = "mean_codes"
    source: ClassVar[Source] = "population"
    codes: ClassVar[tuple[Code, ...]] = ()
    headlines: ClassVar[tuple[Headline, ...]] = (
        Headline(
            "told_by_mean_fraction", "Samples given back from their posterior mean", "neither"
        ),
        Headline("reconstruction_slope", "Slope of samples on their reconstructions", "neither"),
    )

    def observe(self, obs: Observation) -> States:
        """Squared errors in data space, from the row's own mean and from its partner's."""
        # A direction or a category has no noise-free middle that fades as the width grows.
        obs.need_steady()
        obs.posterior.need_coordinates()
        x, mean, other = obs.door.target(obs.x), obs.posterior.mean, obs.mean_partner
        alone = other.isnan().any(dim=1)
        first, second = (
            obs.door.mean(obs.decode(z)) for z in (mean, torch.where(alone[:, None], mean, other))
        )
        own, swapped = (squared_error(output, x.to(output.device)) for output in (first, second))
        moved = squared_error(first, second)
        scored = ~alone.to(own.device) & own.isfinite() & swapped.isfinite()
        told = scored & (own < self.factor * swapped)
        states: States = {"counts": Counts(np.array([int(scored.sum()), int(told.sum())]))}
        if obs.door.deepest:  # codes of lower groups that follow move the output by themselves
            pairs = torch.stack([swapped - own, moved, own], dim=1)
            pairs[~scored] = torch.nan
            # Each sample stands in two pairs, as input and as partner: neighbours go together.
            states["pairs"] = Grouped.of(
                block_groups(obs.population.place[obs.rows], obs.population.size),
                lambda rows: Moments.of(pairs[rows]),
            )
        return states

    def conclude(self, state: States) -> Result:
        """A share with its interval; a sample stands in two pairs, so n counts half."""
        n, told = (int(value) for value in state["counts"].values)
        note = f"squared error at the own mean below {self.factor:g} of that at another's"
        share = share_number("told_by_mean_fraction", told, n, note, alike=2)
        pairs: Grouped | None = state.get("pairs")
        if pairs is None:
            return Result((share,))
        _, moved, own = pairs.whole.average
        # An output that hardly moves against what it misses has a slope that says nothing.
        if not moved > self.moves * own:
            return Result((share,))
        found = pairs.jackknife(lambda part: part.average[0] / part.average[1])
        note = "of samples on their outputs, at the means; 1 where decoder and encoder match"
        slope = jackknife_number("reconstruction_slope", found, "1", n, note)
        return Result((share, slope))


def mean_codes(own: Any, swapped: Any, *, factor: float = 0.5) -> Number:
    """Share of samples that their own posterior mean tells from another's.

    Parameters
    ----------
    own, swapped : array [N]
        Squared errors of the samples decoded from their own mean, and from another's.
    factor : float
        A sample is told where own < factor swapped.

    Returns
    -------
    Number
        A share; Wilson interval of N / 2, since a sample stands in two pairs.
    """
    first, second = (np.asarray(a, dtype=np.float64) for a in (own, swapped))
    told = int((first < factor * second).sum())
    return share_number("told_by_mean_fraction", told, len(first), alike=2)
