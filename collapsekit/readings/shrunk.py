"""Variance-shrunk dimensions: KL that is paid for every sample alike and tells nothing."""

from __future__ import annotations

from dataclasses import dataclass
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
from collapsekit.streaming import Array

SHRUNK = Code(
    id="CK610",
    title="KL without information",
    meaning="A dimension can have a KL without saying anything: its posterior is narrower than the "
    "prior, or beside it, in the same way for every sample. Penalties on the posterior's width "
    "(the latent reconstruction loss acts as one) make such dimensions, free bits and committed "
    "rates do too. They count as used wherever usage is read off the KL.",
    formula="shrunk[j]: mean KL_j > 0.1 nat, information I_j < 0.1 nat and below a quarter of the "
    "KL. Warned about where one is at the lower limit of their number (closed testing over all "
    "dimensions), inconclusive where one may be, looked at by itself; by their standard errors.",
    remedy="Count informative dimensions instead of those with a KL. If the dimension is to carry "
    "something, lower beta or strengthen the decoder's use of it; a width penalty alone does not.",
    source="collapsekit; KL_j = I_j + KL(q^_j || p_j), Chen et al. 2018, arXiv 1802.04942",
)


@dataclass(frozen=True)
class Shrunk:
    """Column `shrunk`: dimensions whose KL is paid by every sample alike."""

    least: float = 0.1  # nats: of KL to be looked at, of information to be cleared
    most: float = 0.25  # share of the KL that may be information

    name: ClassVar[str] = "shrunk"
    codes: ClassVar[tuple[Code, ...]] = (SHRUNK,)
    headlines: ClassVar[tuple[Headline, ...]] = ()

    def read(self, tables: Tables) -> Result:
        """Hold each dimension's information against its KL."""
        if not tables.has("kl", "information"):
            raise Unavailable(
                "KL without information needs both",
                expected="kl and information per dimension",
                remedy="audit at least two samples",
            )
        table = tables.dimensions
        table = table[table["information"].notna() & table["kl"].notna()]
        if not len(table):
            raise Unavailable("no dimension has both a KL and an information")
        shrunk = self._claim(table, len(tables.samples) - 1)
        found = shrunk.so
        number = count_number(
            "shrunk_dimensions",
            shrunk,
            "dimensions",
            len(table),
            f"KL above {self.least:g} nat, information below it and below {self.most:.0%} of the "
            "KL",
        )
        judged = self._judge(number, shrunk, table, len(tables.samples))
        columns = pd.DataFrame({"shrunk": found}, index=table.index)
        return Result(dimensions=columns, findings=(judged,))

    def _claim(self, table: pd.DataFrame, freedom: int) -> Claim:
        def read(name: str) -> Array:
            values: Array = table[name].to_numpy(dtype=np.float64)
            return values

        kl, kl_error, information = read("kl"), read("kl_se"), read("information")
        error = np.maximum(read("information_se"), ACCURACY)
        # Below both bars is below the lower one. Information and KL are of the same samples: their
        # errors add up at worst.
        share = self.most * kl < self.least
        error = error + np.where(share, self.most * kl_error, 0.0)
        bar = np.where(share, self.most * kl, self.least)
        return every(
            above(kl, kl_error, self.least, freedom), ~above(information, error, bar, freedom)
        )

    def _judge(self, number: Number, claim: Claim, table: pd.DataFrame, samples: int) -> Finding:
        found, many, some = claim.so, number.low >= 1, perhaps(claim) >= 1
        severity, word = Severity.WARN if many else Severity.OK, "partial" if many else None
        if some and not many:
            severity, word = Severity.INCONCLUSIVE, "partial"
        spent = float(table["kl"].to_numpy(dtype=np.float64)[found].sum())
        told = f"{int(number.value)} of {len(found)} dimensions spend {spent:.2f} nats of KL and "
        if many:
            message = f"{told}tell nothing: they are narrow for every sample alike."
        elif some:
            message = (
                f"{told}seem to tell nothing, {number.high:.0f} perhaps; {samples:,} samples do "
                "not settle it."
            )
        else:
            message = "every KL is matched by information."
            if number.high >= 1:
                message = "every KL, looked at by itself, is matched by information."
        return SHRUNK.finding(
            severity,
            message,
            evidence=[Evidence(number, 1, "<")],
            verdict=word,
            dimensions=table.index[found],
        )
