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
from collapsekit.number import Headline, Number
from collapsekit.observation import Observation, Source
from collapsekit.population import Population
from collapsekit.posteriors import DiagonalGaussian, Family
from collapsekit.probe import States, measure
from collapsekit.probes._neighbours import crowd_of, input_distance
from collapsekit.results import Result
from collapsekit.streaming import Array, Constant, Rows, Top, to_numpy

COLLISION = Code(
    id="CK501",
    title="Encoder collisions",
    meaning="Two inputs collide when one code cannot tell them apart although they are no more "
    "alike than two inputs picked at random. Similar inputs may share a code: that is what "
    "compression does. Unrelated inputs share one only where the encoder merges them, or where "
    "the code carries so little that it cannot do otherwise; the finding says how many samples "
    "the rate can tell apart.",
    formula="Bhattacharyya coefficient of the posteriors at least 0.98, and Euclidean distance of "
    "the inputs at least the median distance of random pairs. At 0.98 whoever guesses from one "
    "code which of the two it came from errs at least 40 % of the time: (1 - sqrt(1 - 0.98^2)) / "
    "2. Each sample is held against the 10 nearest means in posterior widths and 10 random others "
    "of those compared. The share grows with the number compared: see collision_by_compared.",
    remedy="Look at the pairs: if they matter, the code is too coarse; lower beta or enlarge it.",
    source="collapsekit; bounds on the error of telling two apart: Kailath 1967",
)


@dataclass(frozen=True)
class Collisions:
    """`collides` per sample, `collision_fraction`, and the pairs that lie furthest apart.

    Thresholds as calibrated by ``benchmarks/collisions_calibration.py`` on four data sets: trained
    encoders of 2.5 nats or more lie at 0.07 at most, but for Omniglot in two dimensions (0.18),
    where unlike images do share codes. The same ones with inputs merged in pairs lie at 0.5 or
    more, with 30 % of them merged at 0.14 or more, constant ones at 1. Signs that are lost in many
    dimensions leave codes distinct and are no collision. At an overlap of 0.5 and the distance of
    nearest neighbours nearly every sample of a sound encoder collides.
    """

    limit: int | None = 3_000  # compared among each other: the cost is their square
    overlap: float = 0.98  # Bhattacharyya coefficient: guessing from one code errs 40 % at least
    neighbours: int = 10
    others: int = 10  # random ones: where everything overlaps, the nearest codes are alike anyway
    sizes: tuple[int, ...] = (300, 1_000)  # fewer samples compared, told beside the headline
    shown: int = 12
    tolerated: float = 0.1  # share of samples in a collision above which the finding warns

    name: ClassVar[str] = "collisions"
    source: ClassVar[Source] = "population"
    codes: ClassVar[tuple[Code, ...]] = (COLLISION,)
    headlines: ClassVar[tuple[Headline, ...]] = (
        Headline("collision_fraction", "Samples that share a code with an unrelated one", "down"),
    )

    def observe(self, obs: Observation) -> States:
        """Overlap and input distance of each row's nearest codes, and of random others."""
        crowd = crowd_of(obs, self.limit)
        rows, others = torch.as_tensor(obs.rows), min(self.others, crowd.size - 1)
        candidates = torch.as_tensor(self._candidates(crowd, obs.rows))
        overlap, distance = self._compare(crowd, rows, candidates)
        best = distance.argmax(dim=1)
        at = torch.arange(len(rows))
        partner = candidates[at, best]
        both = torch.stack([crowd.targets[rows], crowd.targets[partner]], dim=1)
        shape = tuple(obs.door.target(obs.x).shape[1:])
        return {
            "rows": Rows(
                obs.index,
                apart=distance[at, best],
                random=input_distance(crowd.targets, rows, candidates[:, -others:]),
            ),
            "pairs": Top(
                # Each pair is met from both ends; keep twice what is shown.
                2 * self.shown,
                distance[at, best],
                obs.index,
                partner=crowd.index[to_numpy(partner)],
                overlap=overlap[at, best],
                inputs=both.reshape(len(rows), 2, *shape),
            ),
            "rate": Constant(crowd.rate[0]),
            **{
                f"of {size}": self._among(crowd.head(size), obs)
                for size in self.sizes
                if 2 <= size < crowd.size
            },
        }

    def _candidates(self, crowd: Population, rows: Array) -> Array:
        """Nearest codes, then the next in hash order: a random sample of the others."""
        near = crowd.nearest("codes", self.neighbours)[rows]
        steps = np.arange(1, min(self.others, crowd.size - 1) + 1)
        return np.concatenate([near, (rows[:, None] + steps) % crowd.size], axis=1)

    def _compare(
        self, crowd: Population, rows: Tensor, candidates: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Overlaps [B, m], and distances of the inputs where these reach the bar, else -inf."""
        overlap = _overlap(crowd.posterior, rows, candidates).cpu()
        distance = torch.full(overlap.shape, -math.inf, dtype=torch.float64)
        row, column = torch.nonzero(overlap >= self.overlap, as_tuple=True)
        for part in torch.arange(len(row)).split(4096):  # images: a few at a time
            at, to = rows[row[part]], candidates[row[part], column[part]]
            apart = crowd.targets[at] - crowd.targets[to]
            far = torch.linalg.vector_norm(apart, dim=1, dtype=torch.float64)
            distance[row[part], column[part]] = far.to(distance)
        return overlap, distance

    def _among(self, crowd: Population, obs: Observation) -> Rows:
        """Of the rows among the first few, the largest distance at which each overlaps."""
        inside = obs.rows < crowd.size
        rows = torch.as_tensor(obs.rows[inside])
        candidates = torch.as_tensor(self._candidates(crowd, obs.rows[inside]))
        _, distance = self._compare(crowd, rows, candidates)
        return Rows(to_numpy(obs.index)[inside], apart=distance.amax(dim=1))

    def conclude(self, state: States) -> Result:
        """Who collides, once the data's own spread is known."""
        rows: Rows = state["rows"]
        apart, random = rows.column("apart"), rows.column("random")
        n, rate = len(apart), state["rate"].value
        if not (random > 0).any():
            return _all_alike(n)
        # Distances of random pairs; equal inputs are no pair.
        typical = float(np.median(random[random > 0]))
        collides: Array = apart >= typical
        note = f"overlap at least {self.overlap:g}, inputs at least {typical:.4g} apart"
        share = share_number(
            "collision_fraction",
            int(collides.sum()),
            n,
            f"{note}; {n:,} samples compared with each other",
            alike=2,  # whoever collides does so in company
        )
        fewer = [int(name[3:]) for name in state if name.startswith("of ")]
        by_size = [
            share_number("collision_fraction", int((near >= typical).sum()), len(near), note, 2)
            for near in (state[f"of {size}"].column("apart") for size in sorted(fewer))
        ]
        compared = pd.DataFrame(
            [(x.n, x.value, x.low, x.high) for x in (*by_size, share)],
            columns=["compared", "share", "low", "high"],
        )
        samples = pd.DataFrame({"collides": collides}, index=pd.Index(rows.index, name="sample"))
        table, pictures = self._pairs(state["pairs"], typical)
        warns = share.low > self.tolerated
        finding = COLLISION.finding(
            Severity.WARN if warns else Severity.OK,
            f"{share.value:.1%} of {n:,} samples share a code with an unrelated input "
            f"({share.low:.1%} to {share.high:.1%})." + _allowed(rate, n) * warns,
            evidence=[Evidence(share, self.tolerated, "<=")],
            samples=samples.index[collides],
        )
        return Result(
            numbers=(share,),
            samples=samples,
            findings=(finding,),
            tables={"collisions": table, "collision_by_compared": compared},
            arrays={"collision_inputs": pictures},
        )

    def _pairs(self, pairs: Top, typical: float) -> tuple[pd.DataFrame, Array]:
        keep: list[int] = []
        seen: set[frozenset[int]] = set()
        for at, (a, b) in enumerate(zip(pairs.index, pairs.columns["partner"], strict=True)):
            pair = frozenset((int(a), int(b)))
            if pairs.score[at] >= typical and pair not in seen and len(keep) < self.shown:
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


def _all_alike(n: int) -> Result:
    nothing = Number(
        "collision_fraction", math.nan, math.nan, math.nan, "share", n, "no unlike pair"
    )
    return Result(
        findings=(
            COLLISION.finding(
                Severity.INCONCLUSIVE,
                f"the {n:,} inputs that were compared are all equal: no two of them are unrelated, "
                "so none can be seen to share a code with one that is.",
                evidence=[Evidence(nothing)],
                advice="Audit on data that differ.",
            ),
        )
    )


def _overlap(posterior: Family, rows: Tensor, near: Tensor) -> Tensor:
    """Bhattacharyya coefficients [B, m] of rows with their candidates, closed form."""
    if not isinstance(posterior, DiagonalGaussian):
        raise Unavailable(
            "the overlap of these posteriors has no closed form here",
            got=posterior.describe(),
            expected="a diagonal Gaussian posterior",
        )
    mean, variance = posterior.mean, posterior.scale**2
    total = variance[rows][:, None] + variance[near]
    gap = (mean[rows][:, None] - mean[near]) ** 2 / (4 * total)
    width = 0.5 * torch.log(2 * posterior.scale[rows][:, None] * posterior.scale[near] / total)
    return torch.exp((width - gap).sum(dim=2))


def _allowed(rate: float, n: int) -> str:
    """What the rate alone makes inevitable: e^R codes can be told apart."""
    if math.exp(min(rate, 700.0)) >= n:
        return ""
    cells = max(math.exp(rate), 1.0)
    told = f"some {cells:,.0f} samples" if cells >= 1.5 else "hardly two samples"
    return (
        f" A rate of {rate:.3g} nats tells {told} apart, fewer than were compared: some sharing is "
        "forced."
    )


def collisions(mean: Any, scale: Any, x: Any, *, overlap: float = 0.98) -> Number:
    """Share of samples whose posterior overlaps that of an unrelated input.

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
