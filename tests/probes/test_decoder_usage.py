"""Decoder usage: counting dimensions that are read, at both ends of their errors."""

from __future__ import annotations

import numpy as np

import collapsekit as ck


def test_used_dimensions_have_the_limits_of_each_usage() -> None:
    usage = np.array([1.0, 0.012, 0.008, 0.0])  # the bar is a hundredth of the largest
    number = ck.probes.DecoderUsage()._count(usage, np.array([0.0, 2e-3, 2e-3, 0.0]), 512, 4, 4)
    assert (number.low, number.value, number.high) == (1, 2, 3)
    surely = ck.probes.DecoderUsage()._count(usage, np.full(4, 1e-4), 512, 4, 4)
    assert (surely.low, surely.value, surely.high) == (2, 2, 2)
