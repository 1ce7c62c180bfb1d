"""Local rank of the encoder: in how many of the data's own directions its code moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from collapsekit.findings import Code, Evidence, Severity
from collapsekit.intervals import quantile_number, share_number
from collapsekit.number import Headline
from collapsekit.observation import Observation, Source
from collapsekit.population import Population
from collapsekit.probe import States, measure
from collapsekit.probes._neighbours import NEIGHBOURS, crowd_of
from collapsekit.results import Result
from collapsekit.streaming import Array, Constant, Rows, to_numpy

ENCODER_RANK = Code(
    id="CK507",
    title="Directions of the data that the encoder keeps",
    meaning="Around a sample the data vary in the directions of its neighbours. The encoder's "
    "Jacobian along these says in how many of them the code moves: its local rank. It cannot "
    "exceed the number of latent dimensions in use. Samples at which it is half of what it is "
    "elsewhere, or less, lie on a fold or on a flat spot of the encoder.",
    formula="Least squares J of (E(x_k) - E(x_i)) / sigma_i on x_k - x_i over the 10 nearest "
    "inputs, restricted to the directions in which these differ (singular values at least 10 % of "
    "their largest: tangent_rank); encoder_rank[i] = singular values of J at least 5 % of the "
    "median over samples of the largest. Headlines: medians (order-statistic intervals); share of "
    "samples at most half the median rank (Wilson).",
    remedy="A rank below the tangent's is what compression costs; a rank that falls in places is "
    "a fold: look at those samples.",
    source="collapsekit; local tangents from neighbours as in Kambhatla and Leen 1997",
)


@dataclass(frozen=True)
class EncoderRank:
    """`encoder_rank` per sample beside `tangent_rank`, their medians, `rank_drop_fraction`."""

    limit: int | None = 2_000
    neighbours: int = NEIGHBOURS
    tangent: float = 0.1  # of the largest singular value: a direction of the data
    moves: float = 0.05  # of the typical largest singular value: a direction of the code
    drop: float = 0.5  # of the median rank, at which a sample lies on a fold
    tolerated: float = 0.05  # share of such samples above which the finding warns

    name: ClassVar[str] = "encoder_rank"
    source: ClassVar[Source] = "population"
    codes: ClassVar[tuple[Code, ...]] = (ENCODER_RANK,)
    headlines: ClassVar[tuple[Headline, ...]] = (
        Headline("encoder_rank", "Directions of the data that the encoder keeps", "neither"),
        Headline("tangent_rank", "Directions in which neighbours differ", "neither"),
        Headline("rank_drop_fraction", "Samples where the encoder loses directions", "down"),
    )

    def observe(self, obs: Observation) -> States:
        """Singular values of the encoder's Jacobian along each row's own neighbours."""
        crowd = crowd_of(obs, self.limit)
        near = torch.as_tensor(crowd.nearest("inputs", self.neighbours)[obs.rows])
        values, directions = _along_neighbours(crowd, torch.as_tensor(obs.rows), near, self.tangent)
        return {
            "rows": Rows(obs.index, values=to_numpy(values), tangent=to_numpy(directions)),
            "widths": Constant((obs.posterior.dims, crowd.targets.shape[1])),
        }

    def conclude(self, state: States) -> Result:
        """Ranks, once the typical largest singular value is known."""
        rows: Rows = state["rows"]
        values, tangent = rows.column("values"), rows.column("tangent")
        known = tangent > 0
        n = int(known.sum())
        typical = float(np.median(values[known, 0])) if n else np.nan
        rank = ((values >= self.moves * typical) & (values > 0)).sum(axis=1)
        note = f"{values.shape[1]} nearest of {len(rows):,} samples"
        most = values.shape[1]  # neighbours there are
        encoder, data = (
            quantile_number(name, found[known], 0.5, "dimensions", note, most=end)
            for name, found, end in (
                ("encoder_rank", rank, min(most, *state["widths"].value)),
                ("tangent_rank", tangent, min(most, state["widths"].value[1])),
            )
        )
        low: Array = known & (rank <= self.drop * encoder.value)
        share = share_number(
            "rank_drop_fraction",
            int(low.sum()),
            n,
            f"local rank at most {self.drop:g} of the median; {note}",
        )
        index = pd.Index(rows.index, name="sample")
        samples = pd.DataFrame(
            {
                "encoder_rank": pd.array(np.where(known, rank, 0), dtype="Int64"),
                "tangent_rank": pd.array(tangent, dtype="Int64"),
            },
            index=index,
        )
        samples.loc[~known, "encoder_rank"] = pd.NA
        warns = share.low > self.tolerated or encoder.value == 0
        finding = ENCODER_RANK.finding(
            (Severity.WARN if warns else Severity.OK) if n else Severity.INCONCLUSIVE,
            self._message(encoder.value, data.value, share.value, len(rows), n),
            evidence=[Evidence(encoder), Evidence(data), Evidence(share, self.tolerated, "<=")],
            samples=index[low],
        )
        return Result(numbers=(encoder, data, share), samples=samples, findings=(finding,))

    def _message(self, encoder: float, data: float, share: float, rows: int, n: int) -> str:
        if not n:
            return (
                f"every one of {rows:,} samples equals its {self.neighbours} nearest, or is no "
                "finite number of widths away."
            )
        if not encoder:
            return "around the median sample the encoder's mean does not move at all."
        told = (
            f"around the median sample the code moves in {encoder:.0f} of the {data:.0f} "
            f"directions in which neighbours differ; at {share:.1%} of {n:,} samples in half of "
            "that or less."
        )
        left = rows - n
        return told + (f" {left:,} samples that equal all their nearest are left out." * (left > 0))


def _along_neighbours(
    crowd: Population, rows: Tensor, near: Tensor, tangent: float
) -> tuple[Tensor, Tensor]:
    """Singular values [B, m], descending and padded with 0, and tangent ranks [B].

    All in m x m Gram matrices: with dX = U S V' the differences of the inputs and dM those of the
    codes, the Jacobian restricted to the tangent has the singular values of S^-1 U' dM.
    """
    targets = crowd.targets
    here, width = crowd.posterior.mean[rows], crowd.posterior.scale[rows]
    moved = (crowd.posterior.mean[near] - here[:, None]) / width[:, None]
    # In parts, and a product at a time: differences of images are the largest array of the audit.
    step = max(1, 4_000_000 // max(near.shape[1] * targets.shape[1], 1))
    grams = []
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        apart = (targets[near[part]] - targets[rows[part]][:, None]).to(torch.float64)
        grams.append(apart @ apart.mT)
    squares, u = torch.linalg.eigh(torch.cat(grams).to(moved.device))
    kept = (squares > 0) & (squares >= tangent**2 * squares[:, -1:])
    whitened = torch.where(kept, squares.clamp(min=1e-300).rsqrt(), 0.0)[:, None, :] * u
    image = whitened.mT @ moved
    # Codes may lie more widths apart than a number can say: such a row tells no rank.
    finite = torch.isfinite(image).all(dim=(1, 2))
    image = torch.where(finite[:, None, None], image, 0.0)
    values = torch.linalg.svdvals(image) if image.shape[2] < image.shape[1] else _root(image)
    padded = torch.zeros(len(rows), near.shape[1], dtype=torch.float64, device=values.device)
    padded[:, : values.shape[1]] = values
    return padded, kept.sum(dim=1) * finite


def _root(image: Tensor) -> Tensor:
    """Singular values of wide matrices by their Gram matrices, descending."""
    squares = torch.linalg.eigvalsh(image @ image.mT)
    values: Tensor = squares.clamp(min=0.0).sqrt().flip(1)
    return values


def encoder_rank(mean: Any, scale: Any, x: Any, *, neighbours: int = NEIGHBOURS) -> Array:
    """Local rank of the encoder's mean at each sample, along its nearest neighbours.

    Parameters
    ----------
    mean, scale : array [N, D]
    x : array [N, ...]
        The inputs.
    neighbours : int
        Differences from which the Jacobian is estimated; the rank cannot exceed them.

    Returns
    -------
    ndarray, float64 [N]
        NaN where a sample equals all its neighbours.
    """
    obs = Observation.of_arrays(mean, scale, x=x)
    table = measure(EncoderRank(limit=None, neighbours=neighbours), obs).samples
    assert table is not None
    return table["encoder_rank"].to_numpy(dtype=np.float64, na_value=np.nan)
