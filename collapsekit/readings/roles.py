"""Encoder writes, decoder reads: one role per latent dimension."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from collapsekit.claims import (
    Claim,
    above,
    above_by_ends,
    above_share,
    any_of,
    count_number,
    every,
    known,
)
from collapsekit.errors import Unavailable
from collapsekit.findings import Code, Evidence, Finding, Severity, by_axes
from collapsekit.kernels.marginals import ACCURACY
from collapsekit.number import Headline, Number
from collapsekit.probe import Tables
from collapsekit.results import Result
from collapsekit.streaming import Array

ROLES = Code(
    id="CK601",
    title="Writes and reads",
    meaning="A latent dimension can fail on either side. healthy: the encoder writes it, the "
    "decoder reads it, and it survives the round trip. entangled: written and read, but it does "
    "not come back. ignored: written, and nobody reads it. phantom: the decoder reads what the "
    "encoder never sets, so samples vary in ways the data did not teach. dead: neither.",
    formula="writes: mean_variance > 0.01, or mean KL > 0.01 nats with information > 0.01 nats "
    "(where the KL does not split: a state other than passive; without a state, whatever is read "
    "counts as written); "
    "reads: decoder_usage at least 1 % of the largest, or, for what is written, decoder_nats at "
    "least 0.02; comes back: robust_round_trip_r2 >= 0.5. Verdict: partial where a dimension is "
    "idle by the lower limit of their number, inconclusive where one is by the upper (closed "
    "testing over all dimensions). Of Gaussian posteriors with full covariance the axes are one "
    "basis of many: told, and judged along directions (CK622, CK623). Classes have no mean and no "
    "round trip: written by KL and information alone, and `used` where read too.",
    remedy="Dead and ignored dimensions can be pruned; to make them carry something instead, add "
    "the latent reconstruction loss or lower beta.",
    source="collapsekit",
)
PHANTOM = Code(
    id="CK611",
    title="Phantom dimensions",
    meaning="The decoder reads a dimension that the encoder never sets: its posterior is the prior "
    "for every sample. Whatever it makes of that dimension is noise on reconstructions and on "
    "generated samples alike, since no data ever told it what the dimension should mean. It "
    "happens when an encoder collapses after the decoder has learnt, or lags behind it.",
    formula="role phantom: mean_variance at most 0.01 and no more than 0.01 nats of information, "
    "yet decoder_usage at least 1 % of the largest.",
    remedy="Train the encoder more (it may be lagging), or hold these dimensions at the prior's "
    "mean when decoding.",
    source="collapsekit",
)


@dataclass(frozen=True)
class Roles:
    """Column `role`: healthy, entangled, ignored, phantom or dead."""

    writes_variance: float = 0.01  # prior variances
    writes_nats: float = 0.01
    reads_share: float = 0.01  # of the largest usage; or
    reads_nats: float = 0.02  # of decoder_nats: what a KL of 0.01 nats makes in a linear model
    comes_back: float = 0.5

    name: ClassVar[str] = "roles"
    codes: ClassVar[tuple[Code, ...]] = (ROLES, PHANTOM)
    headlines: ClassVar[tuple[Headline, ...]] = (
        Headline("idle_dimensions", "Dimensions dead or ignored", "down"),
    )

    def read(self, tables: Tables) -> Result:
        """Name each dimension that was measured on both sides."""
        if not tables.has("mean_variance", "decoder_usage", "robust_round_trip_r2"):
            if (unknown := self._unknown(tables)) is not None:
                return Result(findings=(unknown,))
            if not tables.has("mean_variance") and tables.has("kl", "information", "decoder_usage"):
                return Result(findings=self._of_classes(tables))
            raise Unavailable(
                "roles need both sides of the model",
                expected="mean_variance, decoder_usage and robust_round_trip_r2",
                remedy="hand in a decoder beside the encoder",
            )
        table = tables.dimensions
        table = table[table["decoder_usage"].notna() & table["mean_variance"].notna()]
        if not len(table):
            raise Unavailable(
                "no dimension was measured on both sides",
                got=f"{len(tables.dimensions)} dimensions",
                expected="a variance of the means and a decoder_usage",
                remedy="audit at least two samples",
            )
        role, findings = self._named(table, tables)
        if {"passive_directions", "unread_directions"} & set(tables.numbers):
            findings = (by_axes(findings[0], "CK622, CK623"), *findings[1:])
        dimensions = pd.DataFrame({"role": role}, index=table.index)
        return Result(dimensions=dimensions, findings=findings)

    def _of_classes(self, tables: Tables) -> tuple[Finding, ...]:
        """Variables of classes: what is idle is told, whether the rest comes back is not known."""
        table = tables.dimensions
        table = table[table["decoder_usage"].notna() & table["information"].notna()]
        return self._named(table, tables)[1] if len(table) else ()

    def _named(self, table: pd.DataFrame, of: Tables) -> tuple[Array, tuple[Finding, ...]]:
        """Each dimension's role, and what is told about them."""
        written, read = self._sides(table, len(of.samples) - 1)
        writes, reads, counted = written.so, read.so, of.counted(len(table))
        used = np.full(len(table), "used")
        if "robust_round_trip_r2" in table:
            back = table["robust_round_trip_r2"].to_numpy(dtype=np.float64) >= self.comes_back
            used = np.where(back, "healthy", "entangled")
        role = np.select([writes & reads, writes, reads], [used, "ignored", "phantom"], "dead")
        idle = _count("idle_dimensions", "dead or ignored", ~read)
        phantom = _count("phantom_dimensions", "read and never set", every(read, ~written))
        findings = [self._judge(idle, role, table.index, counted)]
        if (role == "phantom").any():
            findings.append(_phantoms(phantom, role, table.index, counted))
        return role, tuple(findings)

    def _sides(self, table: pd.DataFrame, freedom: int) -> tuple[Claim, Claim]:
        """What is written and what is read."""

        def read_off(name: str) -> tuple[Array, Array]:
            error = table.get(f"{name}_se", pd.Series(0.0, table.index)).to_numpy(np.float64)
            return table[name].to_numpy(dtype=np.float64), error

        def over(name: str, bar: float) -> Claim:
            value, error = read_off(name)
            if f"{name}_low" in table:
                low, high = (table[f"{name}_{end}"].to_numpy(np.float64) for end in ("low", "high"))
                return above_by_ends(value, low, high, bar)
            floor = ACCURACY if name == "information" else 0.0
            return above(value, np.maximum(error, floor), bar, freedom)

        writes = []
        if "mean_variance" in table:
            writes.append(over("mean_variance", self.writes_variance))
        if "kl" in table:
            told = over("kl", self.writes_nats)
            if "information" in table:
                told = every(told, over("information", self.writes_nats))
            writes.append(told)
        elif "state" in table:
            writes.append(known((table["state"] != "passive").to_numpy()))
        written = any_of(*writes) if writes else known(np.zeros(len(table), dtype=bool))
        read = above_share(*read_off("decoder_usage"), self.reads_share)
        # A share of the largest usage depends on the largest: beside one loud dimension a quiet one
        # looks unread although the output distribution tells it apart. Nats are absolute. Only for
        # what is written: a hundredth of a nat that nobody sets is no generation noise.
        if "decoder_nats" in table:
            read = any_of(read, every(written, over("decoder_nats", self.reads_nats)))
        if "kl" not in table and "state" not in table:  # means alone do not tell that none is set
            written = any_of(written, read)
        return written, read

    def _unknown(self, tables: Tables) -> Finding | None:
        """Where neither a state nor a decoder tells what becomes of units that are not active."""
        if tables.has("state") or not tables.has("mean_variance"):
            return None
        variance = tables.dimensions["mean_variance"].to_numpy(dtype=np.float64)
        still = variance <= self.writes_variance
        if not still.any():
            return None
        return ROLES.finding(
            Severity.INCONCLUSIVE,
            f"the posterior means of {int(still.sum())} of {len(still)} dimensions do not move; "
            "whether these carry anything else was not measured: the KL does not split over "
            "dimensions, and no decoder tells what it reads.",
            advice="Hand in a decoder beside the encoder.",
            verdict="partial",
            dimensions=tables.dimensions.index[still],
        )

    def _judge(self, number: Number, role: Array, index: pd.Index, counted: str) -> Finding:
        counts = {word: int((role == word).sum()) for word in (*ROLE_WORDS, "used")}
        idle = np.isin(role, ["dead", "ignored"])
        told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        one = len(role) == 1
        message = f"{int(idle.sum())} of {counted} are dead or ignored ({told})."
        if one:
            message = f"the one dimension is {role[0]}."
        if number.low >= 1:
            severity = Severity.FAIL if number.low >= len(role) else Severity.WARN
            word = "partial"
        elif number.high >= 1:
            severity, word = Severity.INCONCLUSIVE, "partial"
            message = message[:-1] + (
                "; whether it is read is not settled."
                if one
                else f"; between {number.low:.0f} and {number.high:.0f} as far as the draws tell."
            )
        else:
            severity, word = Severity.OK, "healthy"
        return ROLES.finding(
            severity,
            message,
            evidence=[Evidence(number, 1, "<")],
            verdict=word,
            dimensions=index[idle],
        )


def _phantoms(number: Number, role: Array, index: pd.Index, counted: str) -> Finding:
    sure = number.low >= 1
    return PHANTOM.finding(
        Severity.WARN if sure else Severity.INCONCLUSIVE,
        f"the decoder reads {int(number.value)} of {counted} that the encoder never sets: they add "
        "noise to what is generated"
        + ("." if sure else ", as far as so few samples and draws tell."),
        evidence=[Evidence(number, 1, "<")],
        dimensions=index[role == "phantom"],
    )


def _count(name: str, what: str, claim: Claim) -> Number:
    return count_number(name, claim, "dimensions", len(claim.so), what)


ROLE_WORDS = ("healthy", "entangled", "ignored", "phantom", "dead")
