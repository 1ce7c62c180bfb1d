"""Samples told by their posterior mean, on codes whose outputs are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import collapsekit as ck
from collapsekit.probes import MeanCodes, mean_codes


class Clusters:
    """Two clusters, told apart by the mean alone; posteriors as wide as the prior."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return 1e-3 * x.sign(), torch.ones_like(x)

    def decode(self, z: Tensor) -> Tensor:
        return 5 * z.sign()


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_pairs_of_different_clusters_are_told(share: float) -> None:
    n = 4_000
    x = torch.where(torch.arange(n)[:, None] < share * n, -5.0, 5.0).double()
    audit = ck.audit(Clusters(), x, probes=[MeanCodes(limit=None)])
    number = audit.number("told_by_mean_fraction")
    # 2 p (1 - p) of the pairs; sd of n / 2 independent ones at most
    expected = 2 * share * (1 - share)
    assert number.value == pytest.approx(expected, abs=4 * (0.25 / (n / 2)) ** 0.5)
    assert number.low < expected < number.high
    assert number.n == n


def test_noise_does_not_enter_and_a_deaf_decoder_tells_nobody() -> None:
    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for gain, told in ((1.0, 1.0), (0.0, 0.0)):
        audit = ck.audit(
            (lambda x: (x, torch.full_like(x, 9.0)), lambda z, gain=gain: gain * z),
            x,
            probes=[MeanCodes()],
        )
        assert audit.number("told_by_mean_fraction").value == told


def test_the_plain_function() -> None:
    number = mean_codes([1.0, 1.0, 1.0, 0.0], [3.0, 2.0, 1.0, 0.0])
    assert number.value == 0.25  # 1 < 1.5; 1 = 1; 1 > 0.5; 0 = 0
    assert np.isfinite([number.low, number.high]).all()


def test_a_category_has_no_mean_to_decode() -> None:
    audit = ck.audit(
        (
            lambda x: torch.distributions.Categorical(logits=x),
            lambda z: z.to(torch.float64),
        ),
        torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
        probes=[MeanCodes()],
    )
    assert "mean_codes" in audit.skipped
