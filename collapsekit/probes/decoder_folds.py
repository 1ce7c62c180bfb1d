"""Folds of the decoder: two codes far apart, one output. What no Jacobian can see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch

from collapsekit.findings import Code, Evidence, Severity
from collapsekit.intervals import share_number
from collapsekit.likelihoods import flat
from collapsekit.number import Headline
from collapsekit.observation import Observation, Source
from collapsekit.probe import States
from collapsekit.probes._derivatives import RESOLVED, STEP, Slopes, at_codes, code_width
from collapsekit.results import Result
from collapsekit.streaming import Array, Moments, Rows, to_numpy

FOLD = Code(
    id="CK509",
    title="Two codes, one output",
    meaning="A decoder can move with every direction of the code everywhere and still give one "
    "output for two codes: D(z) = z^2 at 1 and at -1. Here such a second code was found: the "
    "encoder reads another code from D(z), its output is nearly the same, and on the straight way "
    "between the two the output would have moved far if it had gone on as it began at z. Only "
    "folds that the encoder jumps over are found: a share of 0 proves nothing.",
    formula="z^ = E(D(z)), z drawn from the posteriors (or from the prior: fold_fraction_prior). "
    "Folded: |D(z^) - D(z)| at most 10 % of |J(z) (z^ - z)|, and this at least a quarter of the "
    "root mean square distance between the outputs of two codes, what rounding can feign taken off "
    "it. Headline: their share, Wilson interval.",
    remedy="Codes cannot be told from outputs along a fold: the latent reconstruction loss "
    "penalises exactly this.",
    source="collapsekit; Song, Kim, Lee 2025, arXiv 2508.12530 for the round trip",
)


@dataclass(frozen=True)
class DecoderFolds:
    """`fold_fraction`: codes whose round trip ends at another code of the same output."""

    source: Source = "prior"
    limit: int | None = 512
    returns: float = 0.1  # of the way that the derivative foretold
    way: float = 0.25  # foretold, in root mean square distances between outputs
    tolerated: float = 0.05  # share of folded codes above which the finding warns
    step: float = STEP  # of central differences, in standard deviations of a code dimension
    resolved: float = RESOLVED  # least of these deviations, of the code's root mean square

    codes: ClassVar[tuple[Code, ...]] = (FOLD,)

    @property
    def name(self) -> str:
        """One probe for each stream."""
        return "decoder_folds" if self.source == "population" else f"decoder_folds_{self.source}"

    @property
    def headlines(self) -> tuple[Headline, ...]:
        """Of its stream."""
        if self.source == "prior":
            return (
                Headline(
                    "fold_fraction_prior", "Prior draws with a second code of one output", "down"
                ),
            )
        return (
            Headline("fold_fraction", "Codes of the data with a second code of one output", "down"),
        )

    def observe(self, obs: Observation) -> States:
        """One encode, one decode, and a derivative by two decodes a row."""
        obs.need_steady()
        obs.prior.need_coordinates()
        back = obs.z_recoded.to(obs.z.device)
        known = torch.isfinite(back).all(dim=1)
        back = torch.where(known[:, None], back, obs.z)
        start = flat(obs.door.smooth(obs.output)).to(torch.float64)
        end = flat(obs.door.smooth(obs.decode(back))).to(torch.float64)
        width, way = code_width(obs, 1000, self.resolved), back - obs.z
        slopes = Slopes(obs, width, self.step)
        # Of a decoder that hardly moves, differences over a small step are rounding alone.
        foretold = slopes.central(way).norm(dim=1) - slopes.rounding(way)
        return {
            "rows": Rows(
                obs.index,
                moved=to_numpy((end - start).norm(dim=1)),
                foretold=to_numpy(foretold.clamp(min=0.0)),
                known=to_numpy(known),
            ),
            "outputs": Moments.of(start),
        }

    def conclude(self, state: States) -> Result:
        """Who is folded, once the outputs' spread is known."""
        rows: Rows = state["rows"]
        moved, foretold, known = (rows.column(name) for name in ("moved", "foretold", "known"))
        # The mean squared distance between two outputs is twice their variance.
        spread = float(np.sqrt(2 * np.nansum(state["outputs"].variance)))
        folded: Array = known & (foretold > 0) & (foretold >= self.way * spread)
        folded &= moved <= self.returns * foretold
        n = int(known.sum())
        of_data = self.source == "population"
        suffix, stream = ("", "the data's") if of_data else ("_prior", "the prior's")
        samples = self._columns(rows, folded, known) if of_data else None
        share = share_number(
            f"fold_fraction{suffix}", int(folded.sum()), n, "folds that the encoder jumps over"
        )
        severity = Severity.WARN if share.low > self.tolerated else Severity.OK
        lost = len(rows) - n
        finding = FOLD.finding(
            severity if n else Severity.INCONCLUSIVE,
            f"{share.value:.1%} of {n:,} of {stream} codes have a second code, far away, with "
            "the same output." + (f" {lost:,} codes could not be encoded again." * (lost > 0)),
            evidence=[Evidence(share, self.tolerated, "<=")],
            samples=rows.index[folded] if of_data else (),
        )
        return Result(numbers=(share,), samples=samples, findings=(finding,))

    def _columns(self, rows: Rows, folded: Array, known: Array) -> pd.DataFrame:
        column = pd.array(folded, dtype="boolean")
        column[~known] = pd.NA
        return pd.DataFrame({"folded": column}, index=pd.Index(rows.index, name="sample"))


def decoder_folds(encode: Any, decode: Any, z: Any) -> Array:
    """Codes whose round trip ends at another code that has the same output.

    Parameters
    ----------
    encode : callable
        From outputs to codes [N, D]: the posterior mean.
    decode : callable
        From codes [N, D] (float64 tensor) to outputs.
    z : array [N, D]
        Where.

    Returns
    -------
    ndarray, bool [N]
    """
    obs = at_codes(decode, z, encode)
    probe = DecoderFolds("population", limit=None)
    table = probe.conclude(probe.observe(obs)).samples
    assert table is not None
    return table["folded"].to_numpy(dtype=bool, na_value=False)
