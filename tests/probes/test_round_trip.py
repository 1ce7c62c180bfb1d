"""Round trips: the mean r2 of a code whose dimensions are mostly idle."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from collapsekit.probes.round_trip import RoundTrip
from collapsekit.streaming import Constant, Grouped, Paired

GAIN = np.array([0.9, 0.6, *[0.002] * 30])  # z^ = gain * z + noise: 30 of 32 hardly come back
NOISE = np.array([0.1, 0.2, *[0.05] * 30])
TRUTH = 1 - (1 - GAIN) ** 2 - NOISE**2  # Var z = 1


def came_back(rng: np.random.Generator, z: Tensor) -> Grouped:
    back = z * torch.from_numpy(GAIN) + torch.from_numpy(rng.normal(size=z.shape) * NOISE)
    return Grouped.of(np.arange(len(z)) % 20, lambda rows: Paired.of(z[rows], back[rows]))


def test_idle_dimensions_neither_bias_nor_narrow_the_mean() -> None:
    """Each reads 1 / n too low, together a standard error: a jackknife of the clipped mean, which
    sees only part of that, covers 89 % here."""
    rng, found, times = np.random.default_rng(0), [], 200
    for _ in range(times):
        z = torch.from_numpy(rng.normal(size=(500, 32)))
        result = RoundTrip("prior").conclude({"clean": came_back(rng, z)})
        found.append(result.numbers[0])
    truth = TRUTH.clip(0).mean()
    hit = np.mean([number.low <= truth <= number.high for number in found])
    assert hit > 0.95 - 3 * math.sqrt(0.95 * 0.05 / times)
    assert all(0 <= number.low <= number.value <= number.high <= 1 for number in found)


def test_dimensions_surely_below_zero_count_as_zero() -> None:
    z = torch.from_numpy(np.random.default_rng(1).normal(size=(400, 2)))
    back = torch.stack([z[:, 0], -3.0 * z[:, 1]], dim=1)  # r2 of 1 and of -15
    both = Grouped.of(np.arange(400) % 20, lambda rows: Paired.of(z[rows], back[rows]))
    state = {"clean": both, "rounded": both, "noisy": both, "image": Constant(False)}
    number = RoundTrip().conclude(state).numbers[0]
    assert (number.value, number.low, number.high) == (0.5, 0.5, 0.5)
