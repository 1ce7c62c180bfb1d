"""Channels of a spatial latent: what each writes, and what the decoder reads of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from collapsekit.claims import above_share, count_number
from collapsekit.findings import Code, Evidence, Finding, Severity
from collapsekit.number import Headline, Number
from collapsekit.probe import Tables
from collapsekit.results import Result
from collapsekit.streaming import Array

CHANNELS = Code(
    id="CK621",
    title="Channels",
    meaning="A spatial latent has thousands of dimensions that share a few channels. Beyond 64 "
    "dimensions the decoder is asked channel by channel: all positions of one are redrawn, or "
    "exchanged, at once. A channel that is written and not read wastes its rate.",
    formula="kl: summed over the channel's positions; active_share: of its positions; "
    "decoder_usage, shuffle_cost: all positions at once; round_trip_r2: mean over positions. "
    "Read: usage at least 1 % of the largest channel's. Warned about where a channel with an "
    "active position is surely not read, inconclusive where one is not surely read.",
    remedy="Look at the map of the KL over positions; train with fewer channels, or find out what "
    "the decoder takes instead.",
    source="collapsekit",
)
_MEANS = ("round_trip_r2", "robust_round_trip_r2")
_WHOLE = ("decoder_usage", "decoder_usage_se", "shuffle_cost", "shuffle_cost_se")


@dataclass(frozen=True)
class Channels:
    """Table `channels`, array `kl_by_position` [C, H, W]; headline `read_channels`."""

    reads: float = 0.01  # of the largest usage

    name: ClassVar[str] = "channels"
    codes: ClassVar[tuple[Code, ...]] = (CHANNELS,)
    headlines: ClassVar[tuple[Headline, ...]] = ()

    def read(self, tables: Tables) -> Result:
        """Gather the dimensions of each channel; nothing where the latent is a vector."""
        if not tables.has("channel"):
            return Result()
        table = tables.dimensions
        groups = table.groupby("channel", sort=True)
        columns: dict[str, pd.Series] = {"positions": groups.size()}
        if tables.has("kl"):
            columns["kl"] = groups["kl"].sum()
        if tables.has("active"):
            columns["active_share"] = groups["active"].mean()
        for name in _MEANS:
            if tables.has(name):
                columns[name] = groups[name].mean()
        for name in _WHOLE:
            if tables.has(f"channel_{name}"):
                columns[name] = groups[f"channel_{name}"].first()
        found = pd.DataFrame(columns)
        arrays = {}
        if tables.has("kl"):
            places = [c for c in ("channel", "row", "column") if c in table]
            shape = tuple(int(table[c].max()) + 1 for c in places)
            arrays["kl_by_position"] = table["kl"].to_numpy(dtype=np.float64).reshape(shape)
        numbers: tuple[Number, ...] = ()
        findings: tuple[Finding, ...] = ()
        if {"decoder_usage", "active_share"} <= set(found):
            number, finding = self._judge(found)
            numbers, findings = (number,), (finding,)
        return Result(
            numbers=numbers,
            findings=findings,
            tables={"channels": found.reset_index()},
            arrays=arrays,
        )

    def _judge(self, found: pd.DataFrame) -> tuple[Number, Finding]:
        usage = found["decoder_usage"].to_numpy(dtype=np.float64)
        error = found["decoder_usage_se"].to_numpy(dtype=np.float64)
        read = above_share(usage, error, self.reads)
        of, dims = len(found), int(found["positions"].sum())
        note = f"on {of} channels of {dims:,} dimensions, all positions at once; usage at least "
        note += f"{self.reads:.0%} of the largest"
        number = count_number("read_channels", read, "channels", of, note)
        written: Array = found["active_share"].to_numpy(dtype=np.float64) > 0
        unread = (~read).among(written)
        ignored, settled = unread.so, count_number("", unread, "channels", of, "")
        told = ", ".join(str(c) for c in found.index[ignored])
        message = f"the decoder reads {number.value:.0f} of {of} channels"
        message += f"; written and not read: {told}." if ignored.any() else "."
        severity = Severity.WARN if settled.low >= 1 else Severity.OK
        if settled.high >= 1 > settled.low:
            severity = Severity.INCONCLUSIVE
            message = f"{message[:-1]}; whether all that are written are read is not settled."
        finding = CHANNELS.finding(
            severity,
            message,
            evidence=[Evidence(number, of, ">=")],
            verdict=None if severity is Severity.OK else "partial",
        )
        return number, finding
