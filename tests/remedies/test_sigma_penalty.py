"""The sigma-only control: value, gradient, and the width at which it settles."""

from __future__ import annotations

import pytest
import torch

from collapsekit.errors import InputError
from collapsekit.remedies import scale_penalty


def test_value_and_gradient_by_hand() -> None:
    scale = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    loss = scale_penalty(scale, 0.5)
    loss.backward()
    assert loss.item() == 0.5 * (1 + 4 + 9 + 16) / 2
    assert scale.grad is not None
    assert scale.grad.tolist() == [[0.5, 1.0], [1.5, 2.0]]  # 0.5 * 2 s / 2


def test_an_ignored_dimension_settles_where_the_docstring_says() -> None:
    # beta KL(N(0, v) || N(0, 1)) + weight v is least at v = beta / (beta + 2 weight).
    beta, weight = 0.1, 1.0
    scale = torch.tensor([[(beta / (beta + 2 * weight)) ** 0.5]], dtype=torch.float64)
    scale.requires_grad_()
    kl = 0.5 * (scale.square() - 1 - scale.square().log()).sum()
    (beta * kl + scale_penalty(scale, weight)).backward()
    assert scale.grad is not None
    assert abs(scale.grad.item()) < 1e-14


def test_it_is_the_round_trip_loss_of_a_perfect_encoder_seen_through_the_noise() -> None:
    # LR with z_hat = mean: E (z - mean)^2 = scale^2.
    scale = torch.rand(1, 3, dtype=torch.float64).expand(50_000, 3)
    noise = torch.randn(scale.shape, generator=torch.Generator().manual_seed(0), dtype=scale.dtype)
    squares = (scale * noise).square().sum(1)
    error = float(squares.std() / len(squares) ** 0.5)
    assert abs(float(squares.mean()) - float(scale_penalty(scale))) < 4 * error


def test_refusals() -> None:
    for shape in ((3,), (0, 3)):
        with pytest.raises(InputError, match=r"scale has no sample[\s\S]*\(0\.5 \* logvar\)"):
            scale_penalty(torch.ones(shape))
