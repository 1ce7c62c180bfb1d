"""Readings: judgements over several probes' finished columns. One file each, registered here."""

from __future__ import annotations

from collapsekit.probe import Reading
from collapsekit.readings.channels import Channels
from collapsekit.readings.collapsed_side import CollapsedSide
from collapsekit.readings.contradictions import Contradictions
from collapsekit.readings.decoder_variance import DecoderVariance
from collapsekit.readings.informative import Informative
from collapsekit.readings.injective import Injective
from collapsekit.readings.near_deterministic import NearDeterministic
from collapsekit.readings.roles import Roles
from collapsekit.readings.shrunk import Shrunk

#: Read in this order, after every probe has concluded.
REGISTERED: tuple[Reading, ...] = (
    Roles(),
    Channels(),
    Informative(),
    Shrunk(),
    CollapsedSide(),
    Contradictions(),
    NearDeterministic(),
    Injective(),
    DecoderVariance(),  # last: it asks whether anything has collapsed
)

__all__ = [
    "REGISTERED",
    "Channels",
    "CollapsedSide",
    "Contradictions",
    "DecoderVariance",
    "Informative",
    "Injective",
    "NearDeterministic",
    "Roles",
    "Shrunk",
]
