"""Decoder usage: counting dimensions that are read, at both ends of their errors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal

import collapsekit as ck


def test_used_dimensions_have_the_limits_of_each_usage() -> None:
    usage = np.array([1.0, 0.012, 0.008, 0.0])  # the bar is a hundredth of the largest
    number = ck.probes.DecoderUsage()._count(usage, np.array([0.0, 2e-3, 2e-3, 0.0]), 512, 4, 4)
    assert (number.low, number.value, number.high) == (1, 2, 3)
    surely = ck.probes.DecoderUsage()._count(usage, np.full(4, 1e-4), 512, 4, 4)
    assert (surely.low, surely.value, surely.high) == (2, 2, 2)


def test_bytes_do_not_wrap() -> None:
    """Outputs 128 + 20 z and 128 + z: 400 to 1 in squares, whatever holds them."""
    gains = torch.tensor([20.0, 1.0], dtype=torch.float64)

    def usage(dtype: torch.dtype) -> np.ndarray:
        return ck.probes.decoder_usage(
            lambda z: (128 + z * gains).clamp(0, 255).round().to(dtype), 2
        )

    np.testing.assert_allclose(usage(torch.uint8), usage(torch.float64), rtol=1e-12)


def test_a_decoder_that_varies_its_width_alone_is_read() -> None:
    """x ~ N(0, e^2z): the output's mean never moves."""
    z = torch.randn(300, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    idle = torch.zeros_like(z)

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        mean = torch.cat([0.9 * x[:, :1], 0 * x[:, :1]], dim=1)
        return mean, torch.tensor([0.3, 1.0], dtype=torch.float64).expand(len(x), 2)

    def decode(z: Tensor) -> Normal:
        return Normal(torch.zeros(len(z), 2, dtype=z.dtype), z[:, :1].exp().expand(-1, 2))

    audit = ck.audit((encode, decode), torch.cat([z, idle], dim=1))
    number = audit.number("used_dimensions")
    assert (number.low, number.value, number.high) == (1, 1, 1)
    finding = next(f for f in audit.findings if f.code == "CK505")
    assert "its distribution tells 1 of 2 dimensions apart" in finding.message
    assert finding.dimensions == (1,)
    assert not any(f.message.startswith("the decoder's output does not") for f in audit.findings)
