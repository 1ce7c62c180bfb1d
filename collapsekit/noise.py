"""Noise that is a pure function of (seed, stream, index): no state, no global generator touched.

A sample's noise is the same in whatever batch, shard, process or order the sample is met, so every
random estimate is independent of how the data were cut. The generator is SplitMix64 used as a
counter (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators").
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64: torch has no unsigned arithmetic
_MIX_A = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_B = -7723592293110705685  # 0x94D049BB133111EB


def _shift(x: Tensor, bits: int) -> Tensor:
    # torch's >> is arithmetic on int64; the mask makes it logical.
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _MIX_A
    x = (x ^ _shift(x, 27)) * _MIX_B
    return x ^ _shift(x, 31)


def _start(seed: int, stream: str) -> int:
    digest = hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def hash_index(seed: int, stream: str, index: Tensor) -> Tensor:
    """Hash sample numbers to uniform int64 keys.

    Parameters
    ----------
    seed, stream : int, str
    index : Tensor, int64 [B]

    Returns
    -------
    Tensor, int64 [B]
    """
    return _mix(_mix(index * _GOLDEN + _start(seed, stream)))


@dataclass(frozen=True)
class Noise:
    """The noise of some samples in one named stream.

    Parameters
    ----------
    seed : int
    stream : str
        Streams are independent of each other; name one for each use.
    index : Tensor, int64 [B]
        Sample or draw numbers.
    """

    seed: int
    stream: str
    index: Tensor

    def bits(self, count: int) -> Tensor:
        """64 random bits, `count` words a row: int64 [B, count]."""
        rows = hash_index(self.seed, self.stream, self.index)
        counter = torch.arange(1, count + 1, device=rows.device) * _GOLDEN
        return _mix(rows[:, None] + counter)

    def uniform(self, count: int) -> Tensor:
        """Uniforms in the open interval (0, 1), 53 bits each: float64 [B, count]."""
        return (_shift(self.bits(count), 11).to(torch.float64) + 0.5) * 2.0**-53

    def normal(self, count: int) -> Tensor:
        """Standard normals by Box and Muller: float64 [B, count]."""
        half = (count + 1) // 2
        uniform = self.uniform(2 * half)
        radius = uniform[:, :half].log_().mul_(-2.0).sqrt_()
        angle = uniform[:, half:] * (2.0 * math.pi)
        return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :count]
