"""Informative units: dimensions that carry something about the input which the decoder needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pandas as pd

from collapsekit.claims import Claim, above, count_number, every, perhaps
from collapsekit.errors import Unavailable
from collapsekit.findings import Code, Evidence, Finding, Severity
from collapsekit.kernels.marginals import ACCURACY
from collapsekit.number import Headline, Number
from collapsekit.probe import Tables
from collapsekit.results import Result
from collapsekit.streaming import GROUPS, Array

FAKE = Code(
    id="CK604",
    title="Fake units",
    meaning="A unit is fake when it is active but carries next to no information that the decoder "
    "uses: its mean moves with the input, yet knowing it tells less than a tenth of a nat, or "
    "reconstruction hardly suffers when it is replaced by another sample's. Auxiliary losses can "
    "raise activity in this way alone. Weak units of an honest model look the same one by one; "
    "their share of the rate, and whether they come back from a disturbed output too, tell the "
    "two apart.",
    formula="informative[j]: information I_j > 0.1 nat and shuffle_cost[j] > 0.1 nat of "
    "log-likelihood; fake: active and not informative. Warned about when more than a quarter of "
    "all dimensions are fake at the lower limit of their number, inconclusive when so many may be, "
    "each looked at by itself. Limits of the number: closed testing over all dimensions, by the "
    "standard errors of each.",
    remedy="Do not read the active units alone; in the latent reconstruction loss keep the "
    "gradient through the code, and give it a weight of 3 to 10 beta.",
    source="collapsekit",
)


@dataclass(frozen=True)
class Informative:
    """Columns `informative` and `fake`; headline `informative_fraction`."""

    least: float = 0.1  # nats, of information and of shuffle cost
    fake_share: float = 0.25  # of all dimensions, above which the finding warns
    comes_back: float = 0.5  # round trip r2 from which a code counts as recovered

    name: ClassVar[str] = "informative"
    codes: ClassVar[tuple[Code, ...]] = (FAKE,)
    headlines: ClassVar[tuple[Headline, ...]] = (
        Headline("informative_fraction", "Dimensions that are informative", "up"),
    )

    def read(self, tables: Tables) -> Result:
        """Join information, activity and shuffle cost."""
        if not tables.has("active", "information", "shuffle_cost"):
            raise Unavailable(
                "informative units need activity, information and a decoder",
                expected="active, information and shuffle_cost",
                remedy="hand in a decoder beside the encoder",
            )
        table = tables.dimensions
        table = table[table["shuffle_cost"].notna() & table["information"].notna()]
        if not len(table) or str(table["shuffle_cost_unit"].iloc[0]) != "nats":
            raise Unavailable(
                "informative units are counted in nats",
                expected="a likelihood",
                remedy='pass likelihood=..., for 0.5 SSE + beta KL ("gaussian", sqrt(beta))',
            )
        counted = tables.counted(len(table))
        claim = self._claim(table, len(tables.samples) - 1)
        active = table["active"].to_numpy(dtype=bool)
        fake = (~claim).among(active)
        number = _share_of(
            "informative_fraction",
            claim,
            f"of {counted}; information and shuffle cost above {self.least:g} nat",
        )
        share = _share_of("fake_fraction", fake, "active alone")
        columns = pd.DataFrame({"informative": claim.so, "fake": fake.so}, index=table.index)
        finding = self._judge(number, share, fake, table, counted)
        return Result((number,), dimensions=columns, findings=(finding,))

    def _claim(self, table: pd.DataFrame, freedom: int) -> Claim:
        def over(name: str, least_error: float, freedom: int) -> Claim:
            value, error = (table[c].to_numpy(np.float64) for c in (name, f"{name}_se"))
            error = np.maximum(error, least_error)
            return above(value, error, self.least, freedom)

        # The cost's error is a jackknife's.
        return every(
            over("information", ACCURACY, freedom),
            over("shuffle_cost", 0.0, min(freedom, GROUPS - 1)),
        )

    def _share(self, fake: Array, table: pd.DataFrame) -> str:
        told = ""
        if "kl" in table:
            kl = table["kl"].to_numpy(dtype=np.float64)
            told += f" and hold {kl[fake].sum():.2f} of {kl.sum():.2f} nats of KL together"
        if {"round_trip_r2", "robust_round_trip_r2"} <= set(table.columns):
            clean, robust = (
                table[name].to_numpy(dtype=np.float64)
                for name in ("round_trip_r2", "robust_round_trip_r2")
            )
            hidden = fake & (clean >= self.comes_back) & (robust < self.comes_back)
            if hidden.any():
                told += f"; {int(hidden.sum())} of them come back from an undisturbed output alone"
        return told

    def _judge(
        self, number: Number, share: Number, fake: Claim, table: pd.DataFrame, counted: str
    ) -> Finding:
        many, count = share.low > self.fake_share, round(number.value * len(fake.so))
        # By itself: all informative ones together might hold a few that passed by chance.
        doubtful = not many and perhaps(fake) > self.fake_share * len(fake.so)
        severity, word = Severity.WARN if many else Severity.OK, "partial" if many else None
        message = (
            f"{count} of {counted} are informative; {int(fake.so.sum())} are active "
            "without being informative"
        )
        if many:
            message += self._share(fake.so, table)
        elif doubtful:
            severity, word = Severity.INCONCLUSIVE, "partial"
        if not many and share.high > self.fake_share:
            least, most = (round(end * len(fake.so)) for end in (share.low, share.high))
            message += f", between {least} and {most} as far as these samples tell"
        return FAKE.finding(
            severity,
            f"{message}.",
            evidence=[Evidence(number), Evidence(share, self.fake_share, "<=")],
            verdict=word,
            dimensions=table.index[fake.so] if many else (),
        )


def _share_of(name: str, claim: Claim, note: str) -> Number:
    count = count_number(name, claim, "share", len(claim.so), note)
    of = len(claim.so)
    return replace(count, value=count.value / of, low=count.low / of, high=count.high / of)
