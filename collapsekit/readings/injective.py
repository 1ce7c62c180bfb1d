"""Is the decoder injective: what the Jacobian sees nearby, the round trip far away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from collapsekit.errors import Unavailable
from collapsekit.findings import Code, Evidence, Finding, Severity
from collapsekit.number import Headline, Number
from collapsekit.probe import Tables
from collapsekit.results import Result
from collapsekit.streaming import Array

INJECTIVE = Code(
    id="CK511",
    title="Injective nearby, and far away",
    meaning="A Jacobian of full rank says that codes close to each other give different outputs; "
    "it says nothing of codes far apart. The round trip does. Where the Jacobian is full and codes "
    "still do not come back, the decoder is locally injective and globally not (D(z) = z^2 gives "
    "one output at 1 and at -1), or the encoder does not undo it.",
    formula="nearby: decoder_full_rank_fraction at least 0.9, Wilson interval included (35 codes "
    "at least, which more than 117 dimensions do not get, and more than 256 only along random "
    "directions; then it is not settled). Far away: "
    "fold_fraction, of the data's codes or the prior's, above 0.05, interval included: globally "
    "not injective; or round_trip_corr2, of either, below 0.5 in dimensions that "
    "the decoder reads (decoder_usage at least 1 % of the largest): does not come back.",
    remedy="The latent reconstruction loss trains codes to come back; longer training of the "
    "encoder alone tells a fold from an encoder that lags.",
    source="collapsekit; Wang, Blei, Cunningham 2021, arXiv 2301.00537",
)


@dataclass(frozen=True)
class Injective:
    """Compares `decoder_full_rank_fraction` with `fold_fraction` and the round trip."""

    local: float = 0.9  # share of codes with a Jacobian of full rank
    folds: float = 0.05  # share of codes with a second code of the same output
    back: float = 0.5  # squared correlation from which a dimension comes back
    reads_share: float = 0.01  # of the largest usage

    name: ClassVar[str] = "injective"
    codes: ClassVar[tuple[Code, ...]] = (INJECTIVE,)
    headlines: ClassVar[tuple[Headline, ...]] = ()

    def read(self, tables: Tables) -> Result:
        """Local rank against what comes back."""
        full = tables.numbers.get("decoder_full_rank_fraction")
        if full is None or not tables.has("round_trip_corr2", "decoder_usage"):
            raise Unavailable(
                "injectivity needs the Jacobian and the round trip",
                expected="decoder_full_rank_fraction, round_trip_corr2 and decoder_usage",
                remedy="hand in a decoder beside the encoder",
            )
        return Result(findings=(self._judge(full, tables),))

    def _judge(self, full: Number, tables: Tables) -> Finding:
        found = (tables.numbers.get(f"fold_fraction{stream}") for stream in ("", "_prior"))
        told = [number for number in found if number is not None and number.known]
        folds = max(told, key=lambda number: number.low, default=None)
        lost = self._lost(tables)
        evidence = [Evidence(full)]
        if folds is not None:
            evidence.append(Evidence(folds, self.folds, "<="))
        nearby = full.low >= self.local
        if folds is not None and folds.low > self.folds:
            source = "prior draws" if folds.name.endswith("_prior") else "codes of the data"
            where = "locally injective, globally not" if nearby else "not injective"
            return INJECTIVE.finding(
                Severity.WARN,
                f"the decoder is {where}: its Jacobian has full rank at {full.value:.1%} of the "
                f"codes, yet {folds.value:.1%} of {source} share their output with a code far "
                "away.",
                evidence=evidence,
                dimensions=lost,
            )
        if full.high >= self.local and len(lost):
            return INJECTIVE.finding(
                Severity.WARN,
                f"locally injective, globally not shown to be: the Jacobian has full rank at "
                f"{full.value:.1%} of {full.n:,} codes, yet {len(lost)} dimensions that the "
                "decoder reads do not come back. Either it gives one output for codes far apart, "
                "or the encoder does not undo it.",
                evidence=evidence,
                dimensions=lost,
            )
        if nearby:
            words = (
                "nothing contradicts a decoder that is injective on these codes: full rank "
                "nearby, and what it reads comes back."
            )
        elif full.high < self.local:
            words = (
                "the Jacobian's rank already shows what the decoder does not read; no fold was "
                "seen beyond that."
            )
        else:
            why = "too few to say whether it nearly always has"
            if full.low == 0 < full.value:  # a lower end that no count has: not all were measured
                why = "along a few random directions, which says nothing of the others"
            words = (
                f"the Jacobian has full rank at {full.value:.1%} of {full.n:,} codes, {why}; no "
                "fold was seen."
            )
        return INJECTIVE.finding(Severity.OK, words, evidence=evidence)

    def _lost(self, tables: Tables) -> Array:
        """Dimensions that are read and do not come back."""
        table = tables.dimensions
        usage = table["decoder_usage"].to_numpy(dtype=np.float64, na_value=np.nan)
        streams = [c for c in ("round_trip_corr2", "round_trip_corr2_prior") if c in table]
        corr2 = table[streams].to_numpy(dtype=np.float64, na_value=np.nan)
        read = (usage > 0) & (usage >= self.reads_share * np.nanmax(usage, initial=0.0))
        lost: Array = table.index.to_numpy()[read & (corr2 < self.back).any(axis=1)]
        return lost
