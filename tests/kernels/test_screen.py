"""The screen in 16-bit integers: it never leaves a pair that counts, and no bit depends on it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from collapsekit.kernels import native
from collapsekit.kernels.mixture import MixtureColumns, log_mixture_others, prepare
from collapsekit.kernels.precision import LOG2E
from collapsekit.kernels.screen import FEWEST, choose_screen


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def code(k: int, dims: int, width: float) -> tuple[Tensor, Tensor, Tensor]:
    mean = normal(1, k, dims)
    scale = width * torch.exp(0.5 * normal(2, k, dims))
    return mean, scale, mean + scale * normal(3, k, dims)


def halves(packed: Tensor) -> Tensor:
    """The two 16-bit integers of each, int64 [..., 2 n]."""
    packed = packed.long()
    low = (packed + 2**15) % 2**16 - 2**15
    return torch.cat([low, packed >> 16], -1)


@pytest.mark.parametrize("dims", [12, 33, 128])
@pytest.mark.parametrize("width", [0.2, 1e-4])
def test_it_is_a_lower_bound_but_for_the_slack_and_close_to_it(dims: int, width: float) -> None:
    mean, scale, z = code(160, dims, width)
    constant = scale.log().sum(1) * LOG2E
    constant -= constant.min()
    screen = choose_screen(mean, scale, constant, torch.arange(dims), 31.0, 16)
    assert screen is not None
    # near rows and far ones, and some beyond all columns
    z = torch.cat([z, mean[:20], 3 * mean[20:40], mean[40:50] + 1e4])
    weights = screen.weights.transpose(1, 2).reshape(160, -1)
    mu, rate = halves(weights[:, 1::2]), halves(weights[:, 2::2])
    steps = halves(screen.features(z))
    apart = steps[:, None] - mu
    assert int(apart.abs().max()) < 2**15  # processors would wrap it around
    t = (apart * rate + 2**14) >> 15
    sums = weights[:, 0].long() + t.square().sum(-1)
    assert int(sums.max()) < 2**31
    told = sums.double() * screen.unit**2
    square = (((z[:, None] - mean) / scale).square() * (0.5 * LOG2E)).sum(-1)
    most = constant + (square.sqrt() + screen.slack).square()
    assert bool((told <= most * (1 + 1e-12)).all())
    whole = steps.abs().amax(1, keepdim=True) < int(steps.abs().max())  # no row is moved inwards
    assert float(whole[:160].double().mean()) > 0.5
    least = constant + (square.sqrt() - screen.slack).clamp_min(0).square() - screen.unit**2
    assert bool((told >= least * (1 - 1e-12))[whole[:, 0]].all())


@pytest.fixture
def _integers() -> None:
    if isinstance(native.library(), str) or not native.fast_integers():
        pytest.skip("no compiled kernel with fast integers here")
    torch.set_num_threads(1)


def without(columns: MixtureColumns) -> MixtureColumns:
    groups = tuple(dataclasses.replace(group, screen=None) for group in columns.groups)
    return dataclasses.replace(columns, groups=groups)


@pytest.mark.usefixtures("_integers")
@pytest.mark.parametrize("level", ["direct float32", "direct float64"])
@pytest.mark.parametrize("dims", [FEWEST, 24, 37])
def test_no_bit_of_a_result_depends_on_it(dims: int, level: str) -> None:
    mean, scale, z = code(1900, dims, 0.15 if level == "direct float32" else 1e-4)
    mean[1000:1040] = mean[:40] + 0.5 * scale[:40]  # some that are near
    columns = prepare(mean, scale, "compiled")
    assert columns.dtype == level
    assert columns.groups[0].screen is not None
    rows = torch.cat([z[:203], 5 * z[:5], z[:5] + 1e3, normal(4, 20, dims)])
    own = torch.cat([torch.arange(203), torch.full((30,), -1)])
    found = log_mixture_others(columns, rows, own)
    assert torch.equal(found, log_mixture_others(without(columns), rows, own))
    log_prob = torch.distributions.Normal(mean, scale).log_prob(rows[:, None]).sum(-1)
    log_prob[torch.arange(1900) == own[:, None]] = -math.inf
    truth = torch.logsumexp(log_prob, 1)
    torch.testing.assert_close(found, truth, rtol=2e-6, atol=columns.bound)


@pytest.mark.usefixtures("_integers")
def test_nor_does_one_beside_fixed_point() -> None:
    mean, scale, _ = code(1900, 128, 0.15)
    mean[:, 32:] *= 0.02
    scale[:, 32:] = 0.99
    mean[1000:1040] = mean[:40] + 0.5 * scale[:40] * (torch.arange(128) < 32)  # some near ones
    columns = prepare(mean, scale, "compiled")
    assert [bool(g.fixed and g.screen) for g in columns.groups] == [True]
    rows, own = mean[:203] + scale[:203] * normal(5, 203, 128), torch.arange(203)
    found = log_mixture_others(columns, rows, own)
    assert torch.equal(found, log_mixture_others(without(columns), rows, own))
    log_prob = torch.distributions.Normal(mean, scale).log_prob(rows[:, None]).sum(-1)
    log_prob[torch.arange(1900) == own[:, None]] = -math.inf
    torch.testing.assert_close(found, torch.logsumexp(log_prob, 1), rtol=2e-6, atol=1e-3)


@pytest.mark.usefixtures("_integers")
def test_it_is_taken_where_most_pairs_are_far_apart() -> None:
    def taken(mean: Tensor, scale: Tensor) -> bool:
        return any(group.screen is not None for group in prepare(mean, scale, "compiled").groups)

    mean, scale, _ = code(2000, 32, 0.15)
    assert taken(mean, scale)
    assert not taken(mean, torch.ones_like(scale))
    assert not taken(0.01 * mean, torch.ones_like(scale))
    assert not taken(mean[:, : FEWEST - 1], scale[:, : FEWEST - 1])
    # Beside fixed point by what is left in float: of 128 collapsed dimensions some are, and no pair
    # is far; of 32 that tell columns apart all are.
    _, _, noise = code(2000, 128, 1.0)
    assert not taken(0.02 * noise, torch.full_like(noise, 0.99))
    noise[:, :32], width = mean, torch.full_like(noise, 0.99)
    width[:, :32] = scale
    noise[:, 32:] *= 0.02
    groups = prepare(noise, width, "compiled").groups
    assert [bool(g.fixed and g.screen) for g in groups] == [True]


@pytest.mark.usefixtures("_integers")
def test_a_screen_that_leaves_near_columns_out_is_noticed_when_the_library_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def greedy(*given: Any) -> Any:
        screen = choose_screen(*given)
        assert screen is not None
        return dataclasses.replace(screen, slack=0.0, unit=8 * screen.unit)

    found = native.library()
    assert not isinstance(found, str)
    native._check_screen(found)
    monkeypatch.setattr(native, "choose_screen", greedy)
    with pytest.raises(native._Absent, match="other results"):
        native._check_screen(found)
