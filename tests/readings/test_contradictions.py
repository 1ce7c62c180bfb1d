"""What an honest code of a given rate tells by its means: the bar of a contradiction."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from collapsekit.readings.contradictions import told_by_honest
from tests import models


@pytest.mark.parametrize("lam", [0.02, 0.22, 0.5, 6.4])
def test_the_bar_is_what_a_linear_model_does(lam: float) -> None:
    """P(|1 - r c| > 2^1/2 (1 - r)) against 200,000 pairs through the linear model itself."""
    model = models.LinearVAE((lam,))
    x = model.sample(400_000, 1)
    output = model.decode(model.encode(x)[0])
    own, swapped = (x - output).square(), (x - output.flip(0)).square()
    told = float((own < 0.5 * swapped)[:200_000].double().mean())
    expected = told_by_honest(0.5 * math.log1p(lam))
    assert told == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 200_000))


def test_the_bar_rises_with_the_rate_and_starts_at_nothing() -> None:
    bars = [told_by_honest(rate) for rate in np.linspace(0, 1, 30)]
    assert bars[0] == 0
    assert np.all(np.diff(bars) > 0)
    assert bars[-1] < 1


def test_more_dimensions_at_one_rate_tell_fewer() -> None:
    rate, told = 0.16, []
    for dims in (1, 2, 8):
        lam = math.expm1(2 * rate / dims)
        model = models.LinearVAE((lam,) * dims)
        x = model.sample(40_000, 2)
        output = model.decode(model.encode(x)[0])
        own, swapped = ((x - o).square().sum(dim=1) for o in (output, output.roll(1, 0)))
        told.append(float((own < 0.5 * swapped).to(torch.float64).mean()))
    assert told[0] > told[1] > told[2]
