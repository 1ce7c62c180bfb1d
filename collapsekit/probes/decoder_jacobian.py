"""The decoder's Jacobian: in how many directions the output moves with the code, and how evenly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from collapsekit.findings import Code, Evidence, Finding, Severity
from collapsekit.intervals import quantile_number, share_number
from collapsekit.noise import Noise
from collapsekit.number import Headline, Number
from collapsekit.observation import Observation, Source
from collapsekit.probe import States
from collapsekit.probes._derivatives import RESOLVED, STEP, Slopes, at_codes, code_width
from collapsekit.results import Result
from collapsekit.streaming import Array, Constant, Rows, to_numpy

DECODER_RANK = Code(
    id="CK508",
    title="Directions of the code that the decoder reads",
    meaning="The singular values of the decoder's Jacobian at a code say how far the output moves "
    "along each direction of the code. A local rank below the number of dimensions means that "
    "there are directions the decoder does not read, or hardly: codes that differ along them give "
    "one output. "
    "Full rank everywhere does not make the decoder injective: see the round trip and the folds.",
    formula="J = dD/dz in prior standard deviations, at codes drawn from the posteriors, in data "
    "space. decoder_rank[i] = singular values at least 10 % of the largest at that code "
    "(1 % of its variance); decoder_reciprocal_condition[i] = smallest / largest. "
    "Headlines: medians (order-statistic intervals), share of codes with full rank (Wilson). All "
    "dimensions up to 256; beyond, J on 32 random orthonormal directions: full rank on these is "
    "none on all. Exact derivatives where torch gives them and they agree with central "
    "differences, else these; the note says which.",
    remedy="Prune the directions that nobody reads, or make the decoder read them: the latent "
    "reconstruction loss, or a lower beta.",
    source="Wang, Blei, Cunningham 2021, arXiv 2301.00537; Kumar and Poole 2020, arXiv 2002.00041",
)


@dataclass(frozen=True)
class DecoderJacobian:
    """`decoder_rank` and `decoder_reciprocal_condition` per sample, medians, full-rank share."""

    limit: int | None = 128  # codes
    budget: int = 4096  # codes times directions: fewer codes where there are many dimensions
    whole: int = 256  # dimensions up to which every one is a direction
    projections: int = 32  # random directions beyond
    reads: float = 0.1  # of the largest singular value: 1 % of its variance, as decoder_usage
    step: float = STEP  # of central differences, in standard deviations of a code dimension
    resolved: float = RESOLVED  # least of these deviations, of the code's root mean square
    trust: float = 0.1  # of a derivative, between exact and by differences: else the latter

    name: ClassVar[str] = "decoder_jacobian"
    source: ClassVar[Source] = "population"
    codes: ClassVar[tuple[Code, ...]] = (DECODER_RANK,)
    headlines: ClassVar[tuple[Headline, ...]] = (
        Headline("decoder_rank", "Directions of the code that the decoder reads", "up"),
        Headline(
            "decoder_reciprocal_condition",
            "Smallest over largest effect of a code direction",
            "neither",
        ),
        Headline(
            "decoder_full_rank_fraction", "Codes at which the decoder reads every direction", "up"
        ),
    )

    def observe(self, obs: Observation) -> States:
        """Singular values of the Jacobian at each row's code."""
        obs.need_steady()
        obs.posterior.need_coordinates()
        dims = obs.posterior.dims
        directions = self._directions(obs)
        # By place in the population, so that no cut matters.
        count = int((obs.rows < max(1, self.budget // len(directions))).sum())
        width = code_width(obs, 1000, self.resolved)
        rows = _rows_at_once(obs, len(directions))
        values, exact = [np.zeros((0, len(directions)))], [np.zeros(0, dtype=bool)]
        for start in range(0, count, rows):
            part = _rows_of(obs, start, min(start + rows, count))
            slopes = Slopes(part, width, self.step, self.trust)
            values.append(to_numpy(_singular_values(slopes, directions)))
            exact.append(to_numpy(slopes.believed))
        return {
            "rows": Rows(
                obs.index[:count], values=np.concatenate(values), exact=np.concatenate(exact)
            ),
            "dims": Constant((dims, len(directions))),
        }

    def _directions(self, obs: Observation) -> Tensor:
        prior, dims = obs.population.prior_scale, obs.posterior.dims
        if dims <= self.whole:
            return torch.diag(prior)
        index = torch.arange(dims, device=prior.device)
        normal = Noise(obs.seed, "projections", index).normal(self.projections)
        basis: Tensor = torch.linalg.qr(normal)[0].T * prior
        return basis

    def conclude(self, state: States) -> Result:
        """Ranks and conditions over the codes."""
        rows: Rows = state["rows"]
        dims, directions = state["dims"].value
        values, exact, index = rows.column("values"), rows.column("exact"), rows.index
        known = ~np.isnan(values[:, 0])  # a row is NaN as a whole
        broken = self._broken(index[~known], len(known))
        if not known.any():
            return Result(findings=broken)
        values, exact, index = values[known], exact[known], index[known]
        largest = values[:, 0]
        rank: Array = ((values >= self.reads * largest[:, None]) & (values > 0)).sum(axis=1)
        even = values[:, -1] / np.where(largest > 0, largest, 1.0)
        n, full = len(rank), min(directions, dims)
        note = _method(exact) + (
            "" if full == dims else f"; on {directions} random directions of {dims:,}"
        )
        median = quantile_number("decoder_rank", rank, 0.5, "dimensions", note, most=full)
        condition = quantile_number("decoder_reciprocal_condition", even, 0.5, "1", note, most=1.0)
        share = share_number("decoder_full_rank_fraction", int((rank == full).sum()), n, note)
        if full < dims:  # what it reads of 32 random directions says nothing of the rest
            share = replace(share, low=0.0, note=f"{share.note}, so an upper limit for all of them")
        samples = pd.DataFrame(
            {"decoder_rank": pd.array(rank, dtype="Int64"), "decoder_reciprocal_condition": even},
            index=pd.Index(index, name="sample"),
        )
        low, middle, high = np.quantile(values, [0.05, 0.5, 0.95], axis=0)
        spectrum = pd.DataFrame(
            {"direction": np.arange(1, full + 1), "low": low, "median": middle, "high": high}
        )
        finding = DECODER_RANK.finding(
            Severity.WARN if median.high < full else Severity.OK,
            self._message(median, condition, share, full, dims),
            evidence=[Evidence(median, full, ">="), Evidence(share), Evidence(condition)],
            samples=samples.index[rank < full],
        )
        return Result(
            numbers=(median, condition, share),
            samples=samples,
            findings=(finding, *broken),
            tables={"decoder_spectrum": spectrum},
        )

    def _broken(self, samples: Array, codes: int) -> tuple[Finding, ...]:
        if not len(samples):
            return ()
        told = f"the decoder has no finite derivative at {len(samples):,} of {codes:,} codes"
        advice = "Look at what the decoder returns for these samples' codes, and close to them."
        return (
            DECODER_RANK.finding(
                Severity.INCONCLUSIVE,
                f"{told}: they are left out of its ranks.",
                samples=samples,
                advice=advice,
            ),
        )

    def _message(
        self, median: Number, condition: Number, share: Number, full: int, dims: int
    ) -> str:
        of = f"{full} dimensions" if full == dims else f"{full} random directions (of {dims:,})"
        if median.value == 0:
            return (
                "the mean (or the likeliest class) of the decoder's output does not move with the "
                "code at all."
            )
        if median.value == full:
            even = f"1 : {1 / condition.value:,.0f}" if condition.value else "without bound"
            return (
                f"the decoder reads all {of} at {share.value:.1%} of {median.n:,} codes (smallest "
                f"to largest effect {even})."
            )
        missed = full - median.value
        return (
            f"the decoder's local rank is {median.value:.0f} of {of}: {missed:.0f} "
            f"{'direction' if missed == 1 else 'directions'} it reads with less than "
            f"{self.reads:.0%} of the largest effect, or not."
        )


def _rows_at_once(obs: Observation, directions: int) -> int:
    """Rows whose Jacobians fit 64 MB."""
    outputs = obs.reconstruction[0].numel()
    return max(1, (64 << 20) // (8 * max(outputs * directions, 1)))


def _rows_of(obs: Observation, start: int, stop: int) -> Observation:
    return Observation(
        obs.door,
        obs.source,
        to_numpy(obs.index[start:stop]),
        posterior=obs.posterior.take(slice(start, stop)),
        seed=obs.seed,
        population=obs.population,
        rows=obs.rows[start:stop],
    )


def _method(exact: Array) -> str:
    if exact.all() and len(exact):
        return "exact derivatives"
    if not exact.any():
        return "central differences (no exact derivatives that agree with them)"
    return f"exact derivatives at {int(exact.sum())} of {len(exact)} codes, else differences"


def _singular_values(slopes: Slopes, directions: Tensor) -> Tensor:
    """Singular values of the Jacobian on K directions at each row: [B, K], descending.

    NaN where a derivative is not finite.
    """
    columns = torch.stack(list(slopes.along(directions)), dim=2)
    finite = torch.isfinite(columns).all(dim=(1, 2))
    values = torch.linalg.svdvals(torch.where(finite[:, None, None], columns, 0.0))
    padded = torch.zeros(len(columns), len(directions), dtype=values.dtype, device=values.device)
    padded[:, : values.shape[1]] = values  # fewer outputs than directions: the rest is 0
    return torch.where(finite[:, None], padded, torch.nan)


def decoder_jacobian(decode: Callable[[Any], Any], z: Any) -> Array:
    """Singular values of a decoder's Jacobian at given codes.

    Parameters
    ----------
    decode : callable
        From codes [B, D] (float64 tensor) to outputs [B, ...]; rows independent of each other.
    z : array [N, D]
        Where. Steps of central differences, if they are needed, are 0.5 % of the codes' spread.

    Returns
    -------
    ndarray, float64 [N, D]
        Descending, in outputs per unit of the code; NaN where a derivative is not finite.
    """
    obs = at_codes(decode, z)
    spread = obs.posterior.mean.std(dim=0, correction=0)
    unit = torch.where(spread > 0, spread, 1.0)
    return to_numpy(_singular_values(Slopes(obs, unit), torch.eye(len(unit)).double()))
