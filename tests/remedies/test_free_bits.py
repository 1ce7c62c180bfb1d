"""Free bits: value and gradient above and below the floor."""

from __future__ import annotations

import pytest
import torch

from collapsekit.errors import InputError
from collapsekit.remedies import floored_kl


def test_value_and_gradient_by_hand() -> None:
    # Batch means: 0.05 below the floor of 0.1, 0.1 on it, 2.0 above.
    kl = torch.tensor([[0.02, 0.1, 1.0], [0.08, 0.1, 3.0]], dtype=torch.float64, requires_grad=True)
    loss = floored_kl(kl, 0.1)
    loss.backward()
    assert loss.item() == pytest.approx(0.1 + 0.1 + 2.0, abs=1e-15)
    assert kl.grad is not None
    assert kl.grad[:, 0].tolist() == [0.0, 0.0]  # nothing pulls it to the prior
    assert kl.grad[:, 2].tolist() == [0.5, 0.5]


def test_the_floor_is_on_the_mean_over_the_batch_not_on_samples() -> None:
    kl = torch.tensor([[0.0], [0.4]])
    assert floored_kl(kl, 0.1).item() == pytest.approx(0.2)  # mean(max) would give 0.25


def test_no_floor_is_the_rate() -> None:
    kl = torch.rand(8, 2, 3, 3)
    assert floored_kl(kl, 0.0).item() == pytest.approx(kl.flatten(1).sum(1).mean().item(), rel=1e-6)


def test_refusals() -> None:
    for floor in (-0.1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="floor cannot be used"):
            floored_kl(torch.ones(2, 2), floor)
    with pytest.raises(InputError, match=r"no sample or no dimension[\s\S]*before it is summed"):
        floored_kl(torch.ones(4))
    with pytest.raises(InputError, match="no sample or no dimension"):
        floored_kl(torch.ones(0, 4))
