"""Dimensions in fixed point: integers do what the bound says, for the worst rows too."""

from __future__ import annotations

import math
import pickle
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from collapsekit.kernels import native
from collapsekit.kernels.fixed import FEWEST, LARGEST, Fixed, choose_fixed
from collapsekit.kernels.mixture import finish, log_mixture_others, merge, prepare, tile
from collapsekit.kernels.precision import ACCEPT, LOG2E

WIDTH = 16


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def collapsed(k: int, dims: int, active: int = 0, spread: float = 0.02) -> tuple[Tensor, Tensor]:
    """Means and scales; all dimensions but the first ``active`` are collapsed."""
    mean, scale = spread * normal(1, k, dims), 1 - spread * normal(2, k, dims).abs()
    mean[:, :active] = normal(3, k, active)
    scale[:, :active] = 0.2 + 0.05 * normal(4, k, active).abs()
    return mean, scale


def chosen(mean: Tensor, scale: Tensor) -> tuple[Fixed, Tensor, Tensor]:
    """Fixed point of all dimensions, and the rates and shifts that it was chosen by."""
    rate = math.sqrt(0.5 * LOG2E) / scale
    shift = mean * rate
    halves = (0, 96), (96, len(mean))
    fixed = choose_fixed(
        lambda last: ((rate[a:b, -last:], shift[a:b, -last:]) for a, b in halves),
        (rate[::3], shift[::3]),
        WIDTH,
    )
    assert fixed is not None
    assert fixed.dims == mean.shape[1]
    return fixed, rate, shift


def halves(packed: Tensor) -> Tensor:
    """The two 16-bit integers of each, int64 [..., 2 n]."""
    packed = packed.long()
    low = (packed + 2**15) % 2**16 - 2**15
    return torch.cat([low, packed >> 16], -1)


def worst_rows(fixed: Fixed, directions: Tensor) -> Tensor:
    """Rows x on the edge of what fits whose factors [x / X, (x / X)^2] lean to the directions."""
    n = fixed.dims
    x = directions[:, :n].sign() * fixed.reach
    for _ in range(60):  # shrink each row until it fits
        fits = fixed.features(x)[2]
        x = torch.where(fits[:, None], x, x * 0.97)
    assert bool(fixed.features(x)[2].all())
    return x


def test_no_row_that_fits_is_further_off_than_the_bound_nor_overflows() -> None:
    mean, scale = collapsed(200, 24)
    fixed, rate, shift = chosen(mean, scale)
    assert fixed.bound <= ACCEPT / 2
    columns = fixed.weights.transpose(1, 2).reshape(-1, 25)[:200]
    weights, lift = halves(columns[:, 1:]), columns[:, 0].long()
    x = torch.cat([
        mean + scale * normal(5, 200, 24),
        worst_rows(fixed, weights[:50].double()),
        worst_rows(fixed, -weights[:50].double()),
    ])  # fmt: skip
    packed, common, fits = fixed.features(x)
    assert bool(fits.all())
    sums = lift + halves(packed) @ weights.T
    assert int(sums.min()) >= 0
    assert int(sums.max()) < 2**31
    assert int(weights.abs().max()) <= LARGEST
    bits = (sums - lift).double() * fixed.unit + common[:, None] + shift.square().sum(1)
    truth = (x[:, None] * rate - shift).square().sum(-1)
    off = float((bits - truth).abs().max()) / LOG2E
    assert fixed.bound / 300 < off <= fixed.bound  # not vacuous


def test_it_is_chosen_where_columns_hardly_differ_and_only_there() -> None:
    if not native.fast_integers():
        pytest.skip("no fast integers here")

    def dims(mean: Tensor, scale: Tensor) -> int:
        fixed = prepare(mean, scale, "compiled").groups[0].fixed
        return 0 if fixed is None else fixed.dims

    assert dims(*collapsed(300, 24)) == 24
    assert dims(*collapsed(300, 24, active=6)) == 18
    assert dims(*collapsed(300, 24, active=24)) == 0
    assert dims(*collapsed(300, FEWEST - 1)) == 0
    # One column apart that no sample of every other column holds.
    mean, scale = collapsed(3000, 24)
    mean[1] = 3.0
    assert dims(mean, scale) == 0


@pytest.fixture
def _integers() -> None:
    if isinstance(native.library(), str) or not native.fast_integers():
        pytest.skip("no compiled kernel with fast integers here")
    torch.set_num_threads(1)


def direct(mean: Tensor, scale: Tensor, z: Tensor, own: Tensor) -> Tensor:
    log_prob = torch.distributions.Normal(mean, scale).log_prob(z[:, None, :]).sum(-1)
    log_prob[torch.arange(len(mean)) == own[:, None]] = -math.inf
    return torch.logsumexp(log_prob, 1)


@pytest.mark.usefixtures("_integers")
@pytest.mark.parametrize(
    ("active", "spread"), [(0, 0.02), (0, 0.0), (0, 1e-160), (1, 0.01), (6, 0.02), (6, 1e-4)]
)
def test_a_mixture_with_collapsed_dimensions(active: int, spread: float) -> None:
    mean, scale = collapsed(999, 30, active, spread)
    z, own = (mean + scale * normal(6, 999, 30))[:211], torch.arange(211)
    own[::7] = -1
    columns = prepare(mean, scale, "compiled")
    assert columns.groups[0].fixed is not None
    found, truth = log_mixture_others(columns, z, own), direct(mean, scale, z, own)
    assert float((found - truth).abs().max()) <= min(columns.bound, 1e-3)
    # any cut, and any rows beside a row
    cuts = [0, 5, 333, 334, 999]
    parts = [tile(columns, z, own, a, b) for a, b in pairwise(cuts)]
    state = parts[0]
    for part in parts[1:]:
        state = merge(state, part)
    torch.testing.assert_close(finish(state), found, rtol=1e-6, atol=1e-6)
    for some in ([210, 3, 77, 4, 5], [9], [9, 8], list(range(64)), list(range(100, 211))):
        assert torch.equal(log_mixture_others(columns, z[some], own[some]), found[some])


@pytest.mark.usefixtures("_integers")
@pytest.mark.parametrize("far", [8.0, 40.0, 1e5, 1e200])
def test_rows_beyond_the_reach_are_right_and_leave_others_alone(far: float) -> None:
    mean, scale = collapsed(500, 16, active=2)
    columns = prepare(mean, scale, "compiled")
    z, own = (mean + scale * normal(7, 500, 16))[:80], torch.arange(80)
    before = log_mixture_others(columns, z, own)
    z[[3, 70], 9] = torch.tensor([far, -far], dtype=torch.float64)
    after = log_mixture_others(columns, z, own)
    inside = torch.ones(80, dtype=torch.bool)
    inside[[3, 70]] = False
    assert torch.equal(after[inside], before[inside])
    torch.testing.assert_close(
        after[~inside], direct(mean, scale, z, own)[~inside], rtol=1e-6, atol=0
    )


@pytest.mark.usefixtures("_integers")
def test_columns_that_are_sent_where_there_is_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    mean, scale = collapsed(300, 20, active=3)
    z, own = (mean + scale * normal(8, 300, 20))[:50], torch.arange(50)
    sent = pickle.loads(pickle.dumps(prepare(mean, scale, "compiled")))
    monkeypatch.setattr(native, "_loaded", "no C++ compiler")
    found = log_mixture_others(sent, z, own)
    torch.testing.assert_close(found, direct(mean, scale, z, own), rtol=1e-9, atol=1e-9)
