"""Encoder collisions: different inputs whose posteriors overlap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from collapsekit.errors import Unavailable
from collapsekit.findings import Code, Evidence, Severity
from collapsekit.intervals import share_number
from collapsekit.number import Number
from collapsekit.observation import Observation, Source
from collapsekit.population import Population
from collapsekit.posteriors import DiagonalGaussian
from collapsekit.probe import States, measure
from collapsekit.results import Result
from collapsekit.streaming import Array, Constant, Rows, Top, to_numpy

COLLISION = Code(
    id="CK501",
    title="Encoder collisions",
    meaning="Two inputs collide when their posteriors overlap so much that a code drawn from one "
    "could as well have come from the other, although the inputs differ by more than "
    "neighbouring inputs usually do. Broad posteriors make many samples collide even in a model "
    "that works, so read the share beside the information.",
    formula="Bhattacharyya coefficient of the posteriors at least 0.5, and Euclidean distance of "
    "the inputs above the median distance to the nearest other input. Candidates: nearest means "
    "in posterior widths. The share depends on how many samples were compared (n).",
    remedy="Look at the pairs: if they matter, the code is too coarse; lower beta or enlarge it.",
    source="collapsekit; Bhattacharyya 1943 for the coefficient",
)


@dataclass(frozen=True)
class Collisions:
    """`collides` per sample, `collision_fraction`, and the pairs that lie furthest apart."""

    limit: int | None = 3_000  # compared among each other: the cost is their square
    overlap: float = 0.5
    neighbours: int = 10
    shown: int = 12
    tolerated: float = 0.9  # share of samples in a collision above which the finding warns

    name: ClassVar[str] = "collisions"
    source: ClassVar[Source] = "population"
    codes: ClassVar[tuple[Code, ...]] = (COLLISION,)

    def observe(self, obs: Observation) -> States:
        """Overlap and input distance of each row's nearest codes."""
        crowd = obs.population.head(self.limit)
        if crowd.size < 2:
            raise Unavailable("one sample cannot collide", expected="two samples at least")
        posterior, targets = crowd.posterior, crowd.targets
        rows = torch.as_tensor(obs.rows)
        near = crowd.nearest("codes", self.neighbours)[obs.rows]
        overlap = to_numpy(_overlap(posterior, rows, torch.as_tensor(near)))
        distance = to_numpy(_distance(targets, rows, torch.as_tensor(near)))
        partner = crowd.index[near]
        apart = np.where(overlap >= self.overlap, distance, -np.inf)
        best = apart.argmax(axis=1)
        at = np.arange(len(rows))
        both = torch.stack([targets[rows], targets[torch.as_tensor(near[at, best])]], dim=1)
        shape = tuple(obs.door.target(obs.x).shape[1:])
        return {
            "rows": Rows(
                obs.index,
                overlap=overlap,
                distance=distance,
                nearest=_nearest_positive(crowd, obs.rows),
            ),
            "pairs": Top(
                # Each pair is met from both ends; keep twice what is shown.
                2 * self.shown,
                apart[at, best],
                obs.index,
                partner=partner[at, best],
                overlap=overlap[at, best],
                inputs=both.reshape(len(rows), 2, *shape),
            ),
            "shape": Constant(shape),
        }

    def conclude(self, state: States) -> Result:
        """Who collides, once the data's own spacing is known."""
        rows: Rows = state["rows"]
        spacing = rows.column("nearest")
        typical = float(np.nanmedian(spacing)) if np.isfinite(spacing).any() else math.nan
        far = rows.column("distance") > typical
        collides: Array = np.any((rows.column("overlap") >= self.overlap) & far, axis=1)
        n = len(collides)
        share = share_number(
            "collision_fraction",
            int(collides.sum()),
            n,
            f"overlap at least {self.overlap:g}, inputs further apart than {typical:.4g}; {n:,} "
            "samples compared with each other",
        )
        samples = pd.DataFrame({"collides": collides}, index=pd.Index(rows.index, name="sample"))
        table, pictures = self._pairs(state["pairs"], typical)
        finding = COLLISION.finding(
            Severity.WARN if share.low > self.tolerated else Severity.OK,
            f"{share.value:.1%} of {n:,} samples share a code with a different input "
            f"({share.low:.1%} to {share.high:.1%}).",
            evidence=[Evidence(share, self.tolerated, "<=")],
            samples=samples.index[collides],
        )
        return Result(
            numbers=(share,),
            samples=samples,
            findings=(finding,),
            tables={"collisions": table},
            arrays={"collision_inputs": pictures},
        )

    def _pairs(self, pairs: Top, typical: float) -> tuple[pd.DataFrame, Array]:
        keep: list[int] = []
        seen: set[frozenset[int]] = set()
        for at, (a, b) in enumerate(zip(pairs.index, pairs.columns["partner"], strict=True)):
            pair = frozenset((int(a), int(b)))
            if pairs.score[at] > typical and pair not in seen and len(keep) < self.shown:
                seen.add(pair)
                keep.append(at)
        table = pd.DataFrame(
            {
                "sample": pairs.index[keep],
                "partner": pairs.columns["partner"][keep],
                "overlap": pairs.columns["overlap"][keep],
                "distance": pairs.score[keep],
            }
        )
        return table, pairs.columns["inputs"][keep]


def _overlap(posterior: DiagonalGaussian, rows: Tensor, near: Tensor) -> Tensor:
    """Bhattacharyya coefficients [B, m] of rows with their candidates, closed form."""
    mean, variance = posterior.mean, posterior.scale**2
    total = variance[rows][:, None] + variance[near]
    gap = (mean[rows][:, None] - mean[near]) ** 2 / (4 * total)
    width = 0.5 * torch.log(2 * posterior.scale[rows][:, None] * posterior.scale[near] / total)
    return torch.exp((width - gap).sum(dim=2))


def _distance(targets: Tensor, rows: Tensor, near: Tensor) -> Tensor:
    # A candidate at a time: [B, m, P] of images would be the largest array of the audit.
    parts = [(targets[rows] - targets[column]).norm(dim=1) for column in near.T]
    return torch.stack(parts, dim=1).to(torch.float64)


def _nearest_positive(crowd: Population, rows: Array) -> Array:
    """Distance to the nearest different input; duplicates (distance 0) do not count."""
    # scikit-learn's expanded squares leave rounding dust where inputs are equal: recompute.
    near = crowd.nearest("inputs", 8)[rows]
    exact = to_numpy(_distance(crowd.targets, torch.as_tensor(rows), torch.as_tensor(near)))
    exact[exact == 0] = np.inf
    smallest: Array = exact.min(axis=1)
    return np.where(np.isfinite(smallest), smallest, np.nan)


def collisions(mean: Any, scale: Any, x: Any, *, overlap: float = 0.5) -> Number:
    """Share of samples whose posterior overlaps that of a different input.

    Parameters
    ----------
    mean, scale : array [N, D]
    x : array [N, ...]
        The inputs.
    overlap : float
        Bhattacharyya coefficient from which two posteriors collide.

    Returns
    -------
    Number
        A share with its Wilson interval.
    """
    obs = Observation.of_arrays(mean, scale, x=x)
    return measure(Collisions(limit=None, overlap=overlap), obs).numbers[0]
