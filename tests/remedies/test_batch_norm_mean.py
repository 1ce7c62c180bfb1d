"""BN-VAE: the variance it forces, in closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from collapsekit.errors import InputError
from collapsekit.remedies import BatchNormMean


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_variance_over_the_batch_is_gamma_squared() -> None:
    layer = BatchNormMean(3, gamma=0.5).double()
    mean = normal(64, 3) * torch.tensor([1e-2, 1.0, 30.0]) + torch.tensor([5.0, 0.0, -2.0])
    raw = mean.var(0, correction=0)
    out = layer(mean)
    assert torch.allclose(out.mean(0), torch.zeros(3).double(), atol=1e-12)
    assert torch.allclose(out.var(0, correction=0), 0.25 * raw / (raw + 1e-5), rtol=1e-10)


def test_the_rate_cannot_fall_below_its_promise() -> None:
    # Of all scales, scale = 1 costs least: 0.5 mean^2 is left of the KL.
    out = BatchNormMean(8, gamma=0.7).double()(normal(256, 8))
    rate = (0.5 * out.detach().square()).sum(1).mean()
    assert float(rate) == pytest.approx(8 * 0.7**2 / 2, rel=1e-4)  # 1e-5 of the raw variance


def test_gamma_is_fixed_and_the_shift_is_learnt() -> None:
    layer = BatchNormMean(3)
    assert [name for name, _ in layer.named_parameters()] == ["shift"]
    layer(normal(8, 3).float()).sum().backward()
    assert layer.shift.grad is not None
    assert layer.shift.grad.tolist() == [8.0] * 3


def test_evaluation_uses_running_statistics() -> None:
    layer = BatchNormMean(2, gamma=0.5).double()
    batch = normal(512, 2) * 3 + 1
    for _ in range(400):  # momentum 0.1: 0.9^400 of the start is left
        layer(batch)
    layer.eval()
    running = 0.5 * (batch - batch.mean(0)) / (batch.var(0) + 1e-5).sqrt()
    assert torch.allclose(layer(batch), running, atol=1e-10)
    assert layer(batch[:1]).shape == (1, 2)  # one sample is enough here


def test_spatial_latents_are_normalised_by_channel() -> None:
    mean = normal(8, 3, 4, 4)
    out = BatchNormMean(3, gamma=0.5).double()(mean)
    assert out.shape == mean.shape
    by_channel = out.transpose(0, 1).flatten(1)
    assert torch.allclose(by_channel.var(1, correction=0), torch.full((3,), 0.25).double(), 1e-4)


def test_synchronised_batch_norm_finds_it() -> None:
    layer = nn.SyncBatchNorm.convert_sync_batchnorm(BatchNormMean(3))
    assert isinstance(layer.norm, nn.SyncBatchNorm)


def test_refusals() -> None:
    for wrong in ((0, 0.5), (3, 0.0), (3, float("nan"))):
        with pytest.raises(InputError, match="arguments cannot be used"):
            BatchNormMean(*wrong)
    layer = BatchNormMean(3)
    for shape in ((1, 3), (8, 4), (8,), (0, 3)):
        with pytest.raises(InputError, match=r"cannot be normalised[\s\S]*two values"):
            layer(torch.ones(shape))
