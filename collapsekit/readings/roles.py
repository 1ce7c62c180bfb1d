"""Encoder writes, decoder reads: one role per latent dimension."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from collapsekit.errors import Unavailable
from collapsekit.findings import Code, Evidence, Finding, Severity
from collapsekit.number import Number
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
    formula="writes: mean_variance > 0.01, or mean KL > 0.01 nats with information > 0.01 nats; "
    "reads: decoder_usage at least 1 % of the largest, or, for what is written, decoder_nats at "
    "least 0.02; comes back: robust_round_trip_r2 >= 0.5.",
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

    def read(self, tables: Tables) -> Result:
        """Name each dimension that was measured on both sides."""
        if not tables.has("mean_variance", "kl", "decoder_usage", "robust_round_trip_r2"):
            raise Unavailable(
                "roles need both sides of the model",
                expected="mean_variance, kl, decoder_usage and robust_round_trip_r2",
                remedy="hand in a decoder beside the encoder",
            )
        table = tables.dimensions
        table = table[table["decoder_usage"].notna() & table["mean_variance"].notna()]
        columns = {
            name: table[name].to_numpy(dtype=np.float64)
            for name in table.columns
            if name
            in ("mean_variance", "kl", "decoder_usage", "robust_round_trip_r2", "information")
        }
        informed = columns.get("information", columns["kl"]) > self.writes_nats
        writes = (columns["mean_variance"] > self.writes_variance) | (
            (columns["kl"] > self.writes_nats) & informed
        )
        usage = columns["decoder_usage"]
        reads = (usage > 0) & (usage >= self.reads_share * usage.max(initial=0.0))
        reads |= writes & self._told(table)
        back = columns["robust_round_trip_r2"] >= self.comes_back
        role = np.select(
            [writes & reads & back, writes & reads, writes, reads],
            ["healthy", "entangled", "ignored", "phantom"],
            "dead",
        )
        dimensions = pd.DataFrame({"role": role}, index=table.index)
        findings = (self._judge(role, table.index), *_phantoms(role, table.index))
        return Result(dimensions=dimensions, findings=findings)

    def _told(self, table: pd.DataFrame) -> Array:
        # A share of the largest usage depends on the largest: beside one loud dimension a quiet one
        # looks unread although the output distribution tells it apart. Nats are absolute. Only for
        # what is written: a hundredth of a nat that nobody sets is no generation noise.
        if "decoder_nats" not in table:
            return np.zeros(len(table), dtype=bool)
        told: Array = table["decoder_nats"].to_numpy(dtype=np.float64) >= self.reads_nats
        return told

    def _judge(self, role: Array, index: pd.Index) -> Finding:
        counts = {word: int((role == word).sum()) for word in ROLE_WORDS}
        idle = np.isin(role, ["dead", "ignored"])
        told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        number = Number(
            "idle_dimensions",
            float(idle.sum()),
            np.nan,
            np.nan,
            "dimensions",
            len(role),
            "dead or ignored; a count over dimensions, no interval",
        )
        severity = Severity.WARN if idle.any() else Severity.OK
        if idle.all():
            severity = Severity.FAIL
        return ROLES.finding(
            severity,
            f"{int(idle.sum())} of {len(role)} dimensions are dead or ignored ({told}).",
            evidence=[Evidence(number, 1, "<")],
            verdict="partial" if idle.any() else "healthy",
            dimensions=index[idle],
        )


def _phantoms(role: Array, index: pd.Index) -> list[Finding]:
    phantom = role == "phantom"
    if not phantom.any():
        return []
    number = Number(
        "phantom_dimensions",
        float(phantom.sum()),
        np.nan,
        np.nan,
        "dimensions",
        len(role),
        "read and never set; a count over dimensions, no interval",
    )
    return [
        PHANTOM.finding(
            Severity.WARN,
            f"the decoder reads {int(phantom.sum())} of {len(role)} dimensions that the encoder "
            "never sets: they add noise to what is generated.",
            evidence=[Evidence(number, 1, "<")],
            dimensions=index[phantom],
        )
    ]


ROLE_WORDS = ("healthy", "entangled", "ignored", "phantom", "dead")
