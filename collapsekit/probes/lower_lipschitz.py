"""Lower Lipschitz constant of the encoder: how close the codes of different inputs come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch

from collapsekit.findings import Code, Evidence, Severity
from collapsekit.intervals import quantile_number, share_number
from collapsekit.number import Headline
from collapsekit.observation import Observation, Source
from collapsekit.probe import States, measure
from collapsekit.probes._neighbours import NEIGHBOURS, code_distance, crowd_of, input_distance
from collapsekit.results import Result
from collapsekit.streaming import Array, Rows, to_numpy

LIPSCHITZ = Code(
    id="CK506",
    title="Encoder folds",
    meaning="Neighbouring inputs should get neighbouring but different codes. Where the encoder "
    "moves a sample's code hardly at all on the way to one of its nearest neighbours, it folds or "
    "flattens the data there: it gives up a direction in which the data differ. With one or two "
    "dimensions in use some folding cannot be avoided.",
    formula="lower_lipschitz[i] = min over the 10 nearest other inputs of |E(x_i) - E(x_k)| in the "
    "pair's posterior widths (of full covariances in units of their mean) / |x_i - x_k|; equal "
    "inputs are left out. Folded: lower_lipschitz[i] at most 5 % of the median over samples of the "
    "same ratio's median over neighbours. Headlines: median and 5 % quantile (order-statistic "
    "intervals), share folded (Wilson). The ratios depend on how densely the samples lie (n).",
    remedy="If what is folded together matters, the code is too coarse: lower beta, or add the "
    "latent reconstruction loss.",
    source="collapsekit; lower Lipschitz (bi-Lipschitz) condition for injectivity: Wang, Blei, "
    "Cunningham 2021, arXiv 2301.00537",
)


@dataclass(frozen=True)
class LowerLipschitz:
    """`lower_lipschitz` per sample, its median and low quantile, `folded_fraction`."""

    limit: int | None = 2_000  # compared among each other: the cost is their square
    neighbours: int = NEIGHBOURS
    low: float = 0.05  # the low quantile that is told beside the median
    fold: float = 0.05  # of the typical ratio, from which a sample is folded
    tolerated: float = 0.05  # share of folded samples above which the finding warns

    name: ClassVar[str] = "lower_lipschitz"
    source: ClassVar[Source] = "population"
    codes: ClassVar[tuple[Code, ...]] = (LIPSCHITZ,)
    headlines: ClassVar[tuple[Headline, ...]] = (
        Headline(
            "lower_lipschitz", "Least movement of the code between neighbours, median", "neither"
        ),
        Headline(
            "lower_lipschitz_low",
            "Least movement of the code between neighbours, lowest 5 %",
            "neither",
        ),
        Headline("folded_fraction", "Samples that the encoder folds on a neighbour", "down"),
    )

    def observe(self, obs: Observation) -> States:
        """Smallest and middle ratio of code distance to input distance over the neighbours."""
        crowd = crowd_of(obs, self.limit)
        rows = torch.as_tensor(obs.rows)
        near = torch.as_tensor(crowd.nearest("inputs", self.neighbours)[obs.rows])
        apart = to_numpy(input_distance(crowd.targets, rows, near))
        moved = to_numpy(code_distance(crowd.posterior, rows, near))
        ratio = np.where(apart > 0, moved / np.where(apart > 0, apart, 1.0), np.inf)
        ratio.sort(axis=1)
        different = np.isfinite(ratio).sum(axis=1)
        middle = ratio[np.arange(len(rows)), np.maximum(different - 1, 0) // 2]
        alone = different == 0
        return {
            "rows": Rows(
                obs.index,
                smallest=np.where(alone, np.nan, ratio[:, 0]),
                middle=np.where(alone, np.nan, middle),
            )
        }

    def conclude(self, state: States) -> Result:
        """Quantiles over samples, and who is folded."""
        rows: Rows = state["rows"]
        smallest, middle = rows.column("smallest"), rows.column("middle")
        known = np.isfinite(smallest)
        n, unit = int(known.sum()), "widths per input unit"
        note = f"{self.neighbours} nearest of {len(rows):,} samples"
        # The smallest ratio is a pair's, and often that of both its ends.
        median = quantile_number("lower_lipschitz", smallest[known], 0.5, unit, note, alike=2)
        low = quantile_number(
            "lower_lipschitz_low",
            smallest[known],
            self.low,
            unit,
            f"{self.low:.0%} quantile",
            alike=2,
        )
        typical = float(np.median(middle[known])) if n else np.nan
        folded: Array = known & (smallest <= self.fold * typical)
        share = share_number(
            "folded_fraction",
            int(folded.sum()),
            n,
            f"ratio at most {self.fold:.0%} of the typical {typical:.4g}; {note}",
            alike=2,
        )
        samples = pd.DataFrame(
            {"lower_lipschitz": smallest}, index=pd.Index(rows.index, name="sample")
        )
        finding = LIPSCHITZ.finding(
            self._severity(share.low, n),
            self._message(share.value, n, len(rows), typical),
            evidence=[Evidence(share, self.tolerated, "<="), Evidence(median), Evidence(low)],
            samples=samples.index[folded],
        )
        return Result(numbers=(median, low, share), samples=samples, findings=(finding,))

    def _severity(self, low: float, n: int) -> Severity:
        if not n:
            return Severity.INCONCLUSIVE
        return Severity.WARN if low > self.tolerated else Severity.OK

    def _message(self, share: float, n: int, rows: int, typical: float) -> str:
        if not n:
            return (
                f"every one of {rows:,} samples equals its {self.neighbours} nearest: there is no "
                "distance to measure folding by."
            )
        told = (
            "the encoder gives neighbouring inputs one and the same mean: it is constant."
            if typical == 0
            else f"the encoder folds {share:.1%} of {n:,} samples on a neighbour (moves by less "
            f"than {self.fold:.0%} of what is typical)."
        )
        left = rows - n
        return told + (f" {left:,} samples that equal all their nearest are left out." * (left > 0))


def lower_lipschitz(mean: Any, scale: Any, x: Any, *, neighbours: int = NEIGHBOURS) -> Array:
    """Smallest ratio of code distance to input distance over each sample's nearest neighbours.

    Parameters
    ----------
    mean, scale : array [N, D]
    x : array [N, ...]
        The inputs.
    neighbours : int
        How many of the nearest other inputs are looked at.

    Returns
    -------
    ndarray, float64 [N]
        Posterior widths per unit of input distance; NaN where a sample equals all its neighbours.
    """
    obs = Observation.of_arrays(mean, scale, x=x)
    table = measure(LowerLipschitz(limit=None, neighbours=neighbours), obs).samples
    assert table is not None
    return table["lower_lipschitz"].to_numpy()
