"""The mixture kernel at the size of a real audit: up to 40,000 posteriors of a VAE, sharp ones too.

In torch a row's reference follows the blocks it has seen, and 64 blocks of 512 columns make a span:
so it matters that there is a second span, and whether a row's nearest columns come last.
"""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from torch import Tensor

from collapsekit.kernels import native
from collapsekit.kernels.mixture import log_mixture_others, log_own, prepare

ROWS = 96
DIMS, ACTIVE = 16, 6

WIDTHS = {"usual": (0.05, 0.4), "sharp": (0.005, 0.02), "very sharp": (1e-4, 1e-3)}
SIZES = ((10_000, "nearest last"), (40_000, "as drawn"), (40_000, "nearest last"))


@cache
def case(width: str, k: int, order: str) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Means, scales, rows, their columns, and the truth by direct differences in float64."""
    generator = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    low, high = WIDTHS[width]
    mean, scale = 0.02 * normal(k, DIMS), 1 - 0.02 * normal(k, DIMS).abs()
    mean[:, :ACTIVE] = normal(k, ACTIVE)
    unit = torch.rand(k, ACTIVE, generator=generator, dtype=torch.float64)
    scale[:, :ACTIVE] = low * (high / low) ** unit
    noise = normal(k, DIMS)
    if order == "nearest last":
        # Rows are the last ones along the first axis, and so are the columns near them.
        mean = mean[mean[:, 0].argsort()]
    rows = (
        torch.linspace(0, k - 1, ROWS).long() if order == "as drawn" else torch.arange(k - ROWS, k)
    )
    z = (mean + scale * noise)[rows]
    truth = []
    for row, position in zip(z, rows.tolist(), strict=True):
        log_prob = -0.5 * ((row - mean) / scale).square().sum(1) - scale.log().sum(1)
        log_prob[position] = -math.inf
        truth.append(torch.logsumexp(log_prob, 0) - 0.5 * DIMS * math.log(2 * math.pi))
    return mean, scale, noise, rows, torch.stack(truth)


@pytest.mark.parametrize("path", native.PATHS)
@pytest.mark.parametrize(("k", "order"), SIZES)
@pytest.mark.parametrize("width", WIDTHS)
def test_many_posteriors_against_direct_sums(width: str, k: int, order: str, path: str) -> None:
    if path == "compiled" and isinstance(native.library(), str):
        pytest.skip(native.library())
    mean, scale, noise, rows, truth = case(width, k, order)
    columns = prepare(mean, scale, path)
    found = log_mixture_others(columns, (mean + scale * noise)[rows], rows)
    # What is far away is told to a share of itself; the bound is for what is near.
    far = truth.abs() * 2.0**-20
    assert ((found - truth).abs() <= columns.bound + far).all()
    # And so is what an audit reads of it: pointwise information, in nats.
    own = log_own(scale, noise)[rows]
    pointwise = own - torch.logaddexp(found, own)
    assert (pointwise - (own - torch.logaddexp(truth, own))).abs().max() < 1e-3
