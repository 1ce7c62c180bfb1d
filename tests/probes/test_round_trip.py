"""Round trips: the mean r2 of a code whose dimensions are mostly idle."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import collapsekit as ck
from collapsekit.door import Door
from collapsekit.population import Population
from collapsekit.posteriors import DiagonalGaussian
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


def test_the_robust_value_is_the_lower_one_of_each_dimension() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(400, 2, generator=generator, dtype=torch.float64)
    other = torch.randn(400, 2, generator=generator, dtype=torch.float64)
    group = np.arange(400) % 20

    def state(error: list[float]) -> Grouped:
        back: Tensor = z + other * torch.tensor(error, dtype=torch.float64)
        return Grouped.of(group, lambda rows: Paired.of(z[rows], back[rows]))

    states = {
        "clean": state([0.1, 0.1]),
        "rounded": state([0.2, 0.8]),  # 1 - 0.04 and 1 - 0.64
        "noisy": state([0.6, 0.3]),  # 1 - 0.36 and 1 - 0.09
        "image": Constant(True),
    }
    result = RoundTrip().conclude(states)
    assert result.dimensions is not None
    robust = result.dimensions["robust_round_trip_r2"].to_numpy()
    np.testing.assert_allclose(robust, [0.64, 0.36], atol=4 * 0.64 * np.sqrt(4 / 400))
    number = next(n for n in result.numbers if n.name == "robust_round_trip_r2")
    np.testing.assert_allclose(number.value, robust.mean())


PROFILE = torch.linspace(0.5, 1.5, 8, dtype=torch.float64)
UNITS = torch.tensor([1000.0, 1.0], dtype=torch.float64)


def series(z: Tensor) -> Tensor:
    """[N, 8, 2]: each feature is its own code times a profile in time, in its own unit."""
    return z.to(torch.float64)[:, None, :] * PROFILE[:, None] * UNITS


def read(x: Tensor) -> tuple[Tensor, Tensor]:
    mean = torch.einsum("ntf,t->nf", x.to(torch.float64) / UNITS, PROFILE) / (PROFILE @ PROFILE)
    return mean, torch.full_like(mean, 0.05)


def test_features_of_a_series_have_a_range_each_as_those_of_a_vector() -> None:
    x = series(torch.from_numpy(np.random.default_rng(2).normal(size=(600, 2))))
    models: dict[str, tuple[Any, Any]] = {
        "series": (read, series),
        "vector": (lambda flat: read(flat.reshape(-1, 8, 2)), lambda z: series(z).flatten(1)),
    }
    data = {"series": x, "vector": x.flatten(1)}
    found = {name: ck.audit(models[name], data[name], probes=[RoundTrip()]) for name in models}
    numbers = [audit.number("robust_round_trip_r2").value for audit in found.values()]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-9)
    assert numbers[0] > 0.9  # noise of a tenth of each feature's range hides neither
    assert all("CK503" not in [f.code for f in audit.findings] for audit in found.values())


@pytest.mark.parametrize(
    "shape, low, high, images",
    [
        ((3, 8, 8), -9.0, 9.0, True),
        ((28, 28), 0.0, 1.0, True),
        ((28, 28), -3.0, 3.0, False),  # a series of 28 features
        ((28, 2), 0.0, 1.0, False),
        ((28,), 0.0, 1.0, False),
    ],
)
def test_what_counts_as_an_image(
    shape: tuple[int, ...], low: float, high: float, images: bool
) -> None:
    x = torch.from_numpy(np.random.default_rng(0).uniform(low, high, size=(20, *shape)))
    posterior = DiagonalGaussian(torch.zeros(20, 1), torch.ones(20, 1))
    population = Population(Door(None), np.arange(20), posterior, lambda rows: x[rows], 20)
    assert population.images is images
    assert population.value_range[0].numel() == (1 if images else math.prod(shape))


def test_noise_does_not_wrap_bytes() -> None:
    """Outputs near 0, as bytes and as numbers: a little noise below 0 is 0, not 255."""
    x = torch.randn(400, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pixels = (2 + x * torch.tensor([1.0, 40.0], dtype=torch.float64)).clamp(0, 255).round()

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x[:, :1].to(torch.float64) / 40
        return mean, torch.full_like(mean, 0.05)

    def found(dtype: torch.dtype) -> float:
        def decode(z: Tensor) -> Tensor:
            return torch.cat([40 * z, z], dim=1).clamp(0, 255).round().to(dtype)

        audit = ck.audit((encode, decode), pixels.to(dtype), probes=[ck.probes.RoundTrip()])
        return audit.number("robust_round_trip_r2").value

    # rounding to whole bytes is all that sets the two apart
    assert found(torch.uint8) == pytest.approx(found(torch.float64), abs=0.1)


def test_it_warns_about_the_mean_and_its_interval_not_about_a_count() -> None:
    """Six dimensions come back for 45 % each, four whole: 0.67 on average, though fewer survive."""
    gain = torch.tensor([1.0] * 4 + [1 - 0.55**0.5] * 6, dtype=torch.float64)

    def encode(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * gain, torch.full_like(x, 1e-3)

    def finding(many: int) -> ck.Finding:
        x = torch.randn(600, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        probe = ck.probes.RoundTrip(noise=0.0)
        # decoded codes are encoded with a gain each: r2 = 1 - (1 - gain)^2
        model = (encode, lambda z: z / torch.where(torch.arange(10) < many, gain, 1.0))
        audit = ck.audit(model, x, likelihood=("gaussian", 1.0), probes=[probe])
        return next(f for f in audit.findings if f.code == "CK502")

    assert finding(10).severity is ck.Severity.OK  # all come back
    few = finding(4)  # 0.4 + 0.6 * 0.45
    number = few.evidence[1].number
    assert number.value == pytest.approx(0.67, abs=0.01)
    assert few.message.startswith("4 of 10 dimensions survive")
    assert few.severity is ck.Severity.OK
