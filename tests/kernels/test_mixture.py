"""The mixture kernel against direct sums, closed forms, and its own laws."""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import reduce

import pytest
import torch
from torch import Tensor

from collapsekit.errors import InputError
from collapsekit.kernels import native, precision
from collapsekit.kernels.mixture import (
    MixtureColumns,
    finish,
    log_mixture_others,
    log_own,
    merge,
    prepare,
    spot_check,
    tile,
)
from collapsekit.kernels.precision import ACCEPT, FAR, LEVELS, OFFERED, choose_precision

Case = tuple[Tensor, Tensor]


@pytest.fixture(params=native.PATHS, autouse=True)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every law holds on both paths."""
    torch.set_num_threads(1)
    if request.param == "compiled" and isinstance(native.library(), str):
        pytest.skip(native.library())
    monkeypatch.setenv(native.VARIABLE, request.param)
    return str(request.param)


def narrow(path: str) -> str:
    """The level of columns that are good enough in float32."""
    return OFFERED[path][0]


class Random:
    """float64 numbers from one seed."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        unit = torch.rand(*shape, generator=self.generator, dtype=torch.float64)
        return low + (high - low) * unit


def full(value: float, *shape: int) -> Tensor:
    return torch.full(shape, value, dtype=torch.float64)


def direct(mean: Tensor, scale: Tensor, z: Tensor, own: Tensor) -> Tensor:
    """ln sum_{j != own} by torch.distributions and logsumexp: shares no line with the kernel."""
    log_prob = torch.distributions.Normal(mean, scale).log_prob(z[:, None, :]).sum(-1)
    log_prob[torch.arange(len(mean)) == own[:, None]] = -math.inf
    return torch.logsumexp(log_prob, 1)


def information(others: Tensor, own: Tensor) -> float:
    """Lower bound of the mutual information over the columns, nats."""
    return float((own - torch.logaddexp(others, own)).mean()) + math.log(len(own))


def vae(random: Random, k: int, dims: int) -> Case:
    return 0.9 * random.normal(k, dims), random.uniform(0.1, 0.6, k, dims)


def one_sharp_dimension(random: Random, k: int) -> Case:
    mean, scale = 0.01 * random.normal(k, 32), full(1.0, k, 32)
    mean[:, 0], scale[:, 0] = random.normal(k), 1e-4
    return mean, scale


def clusters(random: Random, k: int, width: float) -> Case:
    centres = 5.0 * random.normal(10, 16)
    mean = centres[torch.arange(k) % 10] + width * random.normal(k, 16)
    return mean, full(width, k, 16)


def duplicates(random: Random, k: int, width: float) -> Case:
    return random.uniform(-5, 5, k // 8, 8).repeat(8, 1), full(width, k, 8)


def two_scales(k: int) -> Case:
    return full(0.0, k, 1), torch.where(torch.arange(k)[:, None] % 2 == 0, 0.1, 1.0).double()


# KERNEL.md's table 3: the levels the rule must choose, and what there is to be right about.
F32, F64 = ("float32", "direct float32"), ("float64", "direct float64")
FULL = ("direct float64", "direct float64")
HARD: dict[str, tuple[Callable[[Random, int], Case], tuple[str, str]]] = {
    "VAE": (lambda r, k: vae(r, k, 32), F32),
    "VAE, float32 squares too coarse": (
        lambda r, k: (r.normal(k, 32), r.uniform(0.01, 0.02, k, 32)),
        ("float64", "direct float32"),
    ),
    "sharp 1e-2": (lambda r, k: (r.uniform(-5, 5, k, 8), full(1e-2, k, 8)), ("float64", "mixed")),
    "sharp 1e-3": (lambda r, k: (r.uniform(-5, 5, k, 8), full(1e-3, k, 8)), F64),
    "sharp 1e-4": (lambda r, k: (r.uniform(-5, 5, k, 8), full(1e-4, k, 8)), F64),
    "sharp 1e-9": (lambda r, k: (r.uniform(-5, 5, k, 8), full(1e-9, k, 8)), FULL),
    "one dimension 1e-4, 31 collapsed": (one_sharp_dimension, ("mixed", "mixed")),
    "clusters 1e-2": (lambda r, k: clusters(r, k, 1e-2), F64),
    "clusters 1e-3": (lambda r, k: clusters(r, k, 1e-3), F64),
    "duplicates 1e-3": (lambda r, k: duplicates(r, k, 1e-3), F64),
    "duplicates 1e-4": (lambda r, k: duplicates(r, k, 1e-4), F64),
    "duplicates 1e-8": (lambda r, k: duplicates(r, k, 1e-8), FULL),
    "means around 1000": (lambda r, k: (1000 + r.normal(k, 32), full(0.3, k, 32)), F32),
    "constant posterior off the prior": (lambda r, k: (full(2.0, k, 1), full(0.5, k, 1)), F32),
    "variance code": (lambda r, k: two_scales(k), F32),
    "collapsed": (lambda r, k: (full(0.0, k, 32), full(1.0, k, 32)), F32),
    "log-variance -104": (lambda r, k: (r.normal(k, 4), full(2.6e-23, k, 4)), FULL),
}


def promised(columns: MixtureColumns, truth: Tensor) -> Tensor:
    """The rule's promise: its bound, plus a few roundings of the result itself."""
    unit = 2.0**-24 if "float32" in columns.dtype or columns.dtype == "mixed" else 2.0**-53
    relative = unit * (4 if columns.dtype == "float32" else 8 + columns.mean.shape[1])
    further = (truth.abs() / FAR).sqrt().clamp_min(1.0) if columns.path == "compiled" else 1.0
    return columns.bound * further + relative * (1 + truth.abs())


@pytest.mark.parametrize("name", HARD)
def test_hard_cases_through_the_automatic_rule(name: str, path: str) -> None:
    build, levels = HARD[name]
    level = levels[native.PATHS.index(path)]
    random = Random(11)
    mean, scale = build(random, 512)
    noise, own = random.normal(*mean.shape), torch.arange(512)
    z = mean + scale * noise
    columns = prepare(mean, scale)
    assert columns.dtype == level

    others, truth = log_mixture_others(columns, z, own), direct(mean, scale, z, own)
    assert bool(((others - truth).abs() <= promised(columns, truth)).all())
    near = truth.abs() < 1e4  # nats; beyond that the leave-one-out value means only "far"
    assert bool(((others - truth).abs()[near] < 1e-2).all())
    assert bool(((others - truth).abs() <= 1e-5 * truth.abs().clamp_min(1e3)).all())
    exact = log_own(scale, noise)
    assert abs(information(others, exact) - information(truth, exact)) < 1e-3


def test_float32_would_fail_where_the_rule_refuses_it(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Guards the test above: its cases must be ones that float32 gets wrong.
    random = Random(11)
    mean, scale = duplicates(random, 512, 1e-3 if path == "torch" else 1e-6)
    z, own = mean + scale * random.normal(*mean.shape), torch.arange(512)
    monkeypatch.setattr(precision, "ACCEPT", math.inf)
    coarse = log_mixture_others(prepare(mean, scale), z, own)
    assert float((coarse - direct(mean, scale, z, own)).abs().max()) > 0.1


@pytest.mark.parametrize("dims", [1, 3, 32])
def test_identical_columns_have_a_closed_form(dims: int) -> None:
    random = Random(1)
    mean, scale = random.normal(1, dims), random.uniform(0.2, 2, 1, dims)
    noise = random.normal(40, dims)
    columns = prepare(mean.expand(700, dims), scale.expand(700, dims))
    result = log_mixture_others(columns, mean + scale * noise, torch.arange(40))
    expected = math.log(699) + log_own(scale.expand(40, dims), noise)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-4)


def test_log_own_is_the_posterior_density() -> None:
    random = Random(2)
    mean, scale, noise = *vae(random, 30, 5), random.normal(30, 4, 5)
    normal = torch.distributions.Normal(mean[:, None], scale[:, None])
    expected = normal.log_prob(mean[:, None] + scale[:, None] * noise).sum(-1)
    torch.testing.assert_close(log_own(scale, noise), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_own(scale, noise[:, 0]), expected[:, 0], rtol=1e-12, atol=1e-12)


def test_own_column_is_left_out_exactly_once() -> None:
    random = Random(3)
    mean, scale = vae(random, 90, 2)
    z = random.normal(60, 2)
    own = torch.randint(-1, 90, (60,), generator=random.generator)  # any column, repeats, none
    result = log_mixture_others(prepare(mean, scale), z, own)
    torch.testing.assert_close(result, direct(mean, scale, z, own), rtol=0, atol=1e-4)
    everything = log_mixture_others(prepare(mean, scale), z, torch.full_like(own, -1))
    assert bool((everything >= result).all())
    assert float((everything - result).max()) > 0.1
    assert torch.equal(everything[own < 0], result[own < 0])


def test_draws_are_rows_with_the_same_own_column() -> None:
    random = Random(4)
    mean, scale = vae(random, 300, 6)
    z, own = random.normal(20, 3, 6), torch.arange(20) * 7
    columns = prepare(mean, scale)
    result = log_mixture_others(columns, z, own)
    assert result.shape == (20, 3)
    for draw in range(3):
        one = log_mixture_others(columns, z[:, draw], own)
        torch.testing.assert_close(result[:, draw], one, rtol=1e-6, atol=1e-6)


def test_one_column_has_no_others() -> None:
    random = Random(5)
    columns = prepare(random.normal(1, 3), full(0.5, 1, 3))
    z = random.normal(2, 3)
    result = log_mixture_others(columns, z, torch.tensor([0, -1]))
    assert float(result[0]) == -math.inf
    assert math.isfinite(float(result[1]))
    # and the caller's sum with the own term is then the own term
    own = torch.tensor(-1.25, dtype=torch.float64)
    assert float(torch.logaddexp(result[0], own)) == -1.25


@pytest.mark.parametrize("shape", [(0, 4), (0, 2, 4), (5, 0, 4)])
def test_no_rows_give_an_empty_result(shape: tuple[int, ...]) -> None:
    columns = prepare(*vae(Random(6), 10, 4))
    result = log_mixture_others(
        columns, torch.empty(shape, dtype=torch.float64), torch.zeros(shape[0], dtype=torch.int64)
    )
    assert result.shape == shape[:-1]
    assert result.dtype == torch.float64


def test_no_columns_give_minus_infinity() -> None:
    columns = prepare(full(0.0, 0, 3), full(1.0, 0, 3))
    result = log_mixture_others(columns, full(0.0, 2, 3), torch.tensor([-1, -1]))
    assert result.tolist() == [-math.inf, -math.inf]


def test_rows_far_from_everything_stay_finite() -> None:
    random = Random(7)
    mean, scale = vae(random, 200, 3)
    z = torch.tensor([[1e6, 0.0, 0.0], [0.0, -1e9, 0.0]], dtype=torch.float64)
    own = torch.tensor([-1, 3])
    result = log_mixture_others(prepare(mean, scale), z, own)
    torch.testing.assert_close(result, direct(mean, scale, z, own), rtol=1e-6, atol=0)


def test_distances_beyond_float64_are_minus_infinity_not_nan() -> None:
    columns = prepare(torch.tensor([[0.0], [1.0]], dtype=torch.float64), full(1e-200, 2, 1))
    assert columns.dtype == "direct float64"
    z, own = torch.tensor([[0.5], [0.0]], dtype=torch.float64), torch.tensor([-1, -1])
    result = log_mixture_others(columns, z, own)
    assert float(result[0]) == -math.inf
    assert float(result[1]) == pytest.approx(200 * math.log(10) - 0.5 * math.log(2 * math.pi))


@pytest.mark.parametrize("factor", [1e-25, 3e-7, 1e25])
def test_rescaled_latents_shift_the_result_by_the_jacobian(factor: float, path: str) -> None:
    random = Random(8)
    mean, scale = vae(random, 300, 4)
    z, own = mean + scale * random.normal(300, 4), torch.arange(300)
    before = log_mixture_others(prepare(mean, scale), z, own)
    columns = prepare(mean * factor, scale * factor)
    assert columns.dtype == narrow(path)
    after = log_mixture_others(columns, z * factor, own)
    torch.testing.assert_close(after, before - 4 * math.log(factor), rtol=1e-6, atol=1e-4)


def test_scales_that_differ_beyond_float32_leave_float32() -> None:
    scale = full(1.0, 4, 2)
    scale[0] = 1e-17  # at the centre, so nothing cancels, but 1 / s^2 overflows
    scale[1] = 1e-150
    columns = prepare(full(0.0, 4, 2), scale)
    assert columns.dtype == "mixed"
    result = log_mixture_others(columns, full(0.0, 1, 2), torch.tensor([1]))
    expected = -2 * math.log(1e-17) - math.log(2 * math.pi)
    assert float(result[0]) == pytest.approx(expected, rel=1e-12)


def test_permutation_of_columns_and_rows_changes_nothing() -> None:
    random = Random(9)
    mean, scale = vae(random, 600, 5)
    scale[::3] *= 1e-3  # so that there are two levels, interleaved
    z, own = mean + scale * random.normal(600, 5), torch.arange(600)
    order, rows = torch.randperm(600, generator=random.generator), torch.arange(599, -1, -2)
    before = log_mixture_others(prepare(mean, scale), z, own)
    columns = prepare(mean[order], scale[order])
    assert columns.dtype == "mixed"
    after = log_mixture_others(columns, z[rows], order.argsort()[rows])
    torch.testing.assert_close(after, before[rows], rtol=1e-6, atol=1e-6)


def test_duplicating_every_column_adds_ln_2() -> None:
    random = Random(10)
    mean, scale = vae(random, 400, 8)
    z, own = random.normal(50, 8), torch.full((50,), -1)
    once = log_mixture_others(prepare(mean, scale), z, own)
    twice = log_mixture_others(prepare(mean.repeat(2, 1), scale.repeat(2, 1)), z, own)
    torch.testing.assert_close(twice, once + math.log(2), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("sharpness", "tolerance"), [(1.0, 1e-6), (1e-2, 1e-10), (1e-9, 1e-10)])
def test_any_tiling_merged_in_any_order_gives_the_same(sharpness: float, tolerance: float) -> None:
    random = Random(12)
    mean, scale = vae(random, 1300, 4)
    scale = scale * sharpness
    z, own = (mean + scale * random.normal(1300, 4))[:300], torch.arange(300)
    columns = prepare(mean, scale)
    whole = log_mixture_others(columns, z, own)
    for width, height in [(1300, 300), (77, 300), (513, 11), (1299, 299)]:
        parts = []
        for top in range(0, 300, height):
            rows = slice(top, top + height)
            states = [
                tile(columns, z[rows], own[rows], left, min(left + width, 1300))
                for left in range(0, 1300, width)
            ]
            order = torch.randperm(len(states), generator=random.generator).tolist()
            parts.append(finish(reduce(merge, [states[k] for k in order])))
        torch.testing.assert_close(torch.cat(parts), whole, rtol=tolerance, atol=tolerance)


def test_merge_is_associative_and_commutative_and_knows_empty_sums() -> None:
    random = Random(13)
    nothing = (full(-math.inf, 6), full(0.0, 6))
    states = [(300 * random.normal(6), random.uniform(1, 2, 6)) for _ in range(3)] + [nothing]
    expected = torch.logsumexp(torch.stack([finish(state) for state in states]), 0)
    for order in itertools.permutations(states):
        left = finish(reduce(merge, order))
        right = finish(merge(merge(order[0], order[1]), merge(order[2], order[3])))
        torch.testing.assert_close(left, expected, rtol=1e-14, atol=1e-12)
        torch.testing.assert_close(right, expected, rtol=1e-14, atol=1e-12)
    assert finish(merge(nothing, nothing)).tolist() == [-math.inf] * 6


def test_a_tile_that_holds_only_the_own_column_is_empty() -> None:
    columns = prepare(*vae(Random(14), 5, 3))
    position = int(columns.position[2])
    state = tile(columns, full(0.0, 1, 3), torch.tensor([2]), position, position + 1)
    assert finish(state).tolist() == [-math.inf]
    assert finish(merge(state, state)).tolist() == [-math.inf]


def test_more_blocks_than_one_span() -> None:
    # A row of blocks is merged in spans: 64 blocks of 512 columns, so 40,000 columns are two.
    random = Random(15)
    mean, scale = random.normal(40_000, 1), full(0.5, 40_000, 1)
    z, own = random.normal(8, 1), torch.arange(8) * 5000
    result = log_mixture_others(prepare(mean, scale), z, own)
    torch.testing.assert_close(result, direct(mean, scale, z, own), rtol=0, atol=1e-5)


@pytest.mark.parametrize("bits", [50.0, 150.0, 400.0, 5000.0])
def test_terms_far_above_those_of_the_first_block_count(bits: float) -> None:
    # 1,000 columns so many bits away, then near ones: the first block's reference is far too low.
    far = math.sqrt(2 * math.log(2) * bits)
    mean = torch.cat([full(far, 1000, 1), full(0.0, 500, 1)])
    scale, z = full(1.0, 1500, 1), torch.linspace(-1, 1, 20, dtype=torch.float64)[:, None]
    own = torch.full((20,), -1)
    columns = prepare(mean, scale)
    found, truth = log_mixture_others(columns, z, own), direct(mean, scale, z, own)
    torch.testing.assert_close(found, truth, rtol=0, atol=columns.bound)
    alone = log_mixture_others(prepare(mean[:1000], scale[:1000]), z, own)
    expected = direct(mean[:1000], scale[:1000], z, own)
    torch.testing.assert_close(alone, expected, rtol=1e-6, atol=1e-4)


def test_tiles_run_on_any_executor_and_merge_as_they_come() -> None:
    random = Random(24)
    mean, scale = vae(random, 900, 6)
    scale[::4] *= 1e-3
    z, own = (mean + scale * random.normal(900, 6))[:200], torch.arange(200)
    columns = prepare(mean, scale)
    with ThreadPoolExecutor(2) as pool:
        tasks = [pool.submit(tile, columns, z, own, k, k + 100) for k in range(0, 900, 100)]
        state = reduce(merge, [task.result() for task in as_completed(tasks)])
    whole = log_mixture_others(columns, z, own)
    torch.testing.assert_close(finish(state), whole, rtol=1e-6, atol=1e-6)


def test_columns_survive_pickling() -> None:
    random = Random(16)
    mean, scale = one_sharp_dimension(random, 100)
    z, own = mean + scale * random.normal(100, 32), torch.arange(100)
    columns = prepare(mean, scale)
    copy = pickle.loads(pickle.dumps(columns))
    assert isinstance(copy, MixtureColumns)
    assert torch.equal(log_mixture_others(copy, z, own), log_mixture_others(columns, z, own))


def test_inputs_are_not_changed_and_need_not_be_contiguous() -> None:
    random = Random(17)
    mean, scale = vae(random, 120, 6)
    scale[::2] *= 1e-3
    z = random.normal(40, 2, 6)
    own = torch.arange(40)
    given = [mean, scale, z, own]
    copies = [x.clone() for x in given]
    plain = log_mixture_others(prepare(mean, scale), z, own)
    assert all(torch.equal(a, b) for a, b in zip(given, copies, strict=True))

    def strided(x: Tensor) -> Tensor:
        wide = x.repeat_interleave(2, dim=-1).movedim(0, -1).contiguous().movedim(-1, 0)
        return wide[..., ::2]

    views = [strided(mean), strided(scale), strided(z), own.repeat_interleave(2)[::2]]
    assert not any(view.is_contiguous() for view in views)
    again = log_mixture_others(prepare(views[0], views[1]), views[2], views[3])
    assert torch.equal(again, plain)


def test_no_gradient_is_recorded() -> None:
    mean, scale = vae(Random(18), 20, 3)
    mean.requires_grad_()
    z = mean + scale
    assert not log_mixture_others(prepare(mean, scale), z, torch.arange(20)).requires_grad


# --- the rule and what it reports ---------------------------------------------------------------


def test_the_rule_is_four_unit_roundoffs_of_the_cancelling_terms(path: str) -> None:
    mean = torch.tensor([[-3.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
    scale = torch.tensor([[0.1, 1.0], [1e-3, 1.0]], dtype=torch.float64)
    choice = choose_precision(mean, scale, path)
    levels = {"torch": ["float32", "float64"], "compiled": ["direct float32", "direct float64"]}
    assert [LEVELS[k] for k in choice.level.tolist()] == levels[path]
    # T = 2 (3 / s)^2, and one rounding per dimension; differences lose sqrt(FAR T), or nothing
    expected = {
        "torch": [4 * 2.0**-24 * (2 * 900 + 2), 4 * 2.0**-53 * (2 * 9e6 + 2)],
        "compiled": [4 * 2.0**-24 * (math.sqrt(1000 * 2 * 900) + 2), 4 * 2.0**-53 * 2],
    }[path]
    assert choice.bound.tolist() == pytest.approx(expected, rel=1e-12)
    assert prepare(mean, scale).bound == pytest.approx(expected[0], rel=1e-12)


def test_the_rule_switches_at_its_limit(path: str) -> None:
    # T + D = ACCEPT / (4 u) exactly at the limit, or sqrt(FAR T) + D: s from T = 2 (m / s)^2
    for level in OFFERED[path][:-1]:
        most = ACCEPT / (4 * (2.0**-24 if "float32" in level else 2.0**-53)) - 1
        limit = math.sqrt(2.0 / (most**2 / FAR if path == "compiled" else most))
        mean = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
        below = choose_precision(mean, full(limit * 1.001, 2, 1), path)
        above = choose_precision(mean, full(limit * 0.999, 2, 1), path)
        assert [LEVELS[k] for k in below.level.tolist()] == [level] * 2
        assert bool((above.level > below.level).all())


def test_the_measured_error_stays_within_the_bound(path: str) -> None:
    # KERNEL.md section 2's empirical claim, on other draws: at most 0.38 of the bound there.
    random = Random(19)
    worst = 0.0
    for dims, width in itertools.product([4, 16, 64], [0.05, 0.2, 1.0]):
        mean = random.normal(256, dims)
        scale = width * random.uniform(0.5, 1, 256, dims)
        z, own = mean + scale * random.normal(256, dims), torch.arange(256)
        columns = prepare(mean, scale)
        truth = direct(mean, scale, z, own)
        error = (log_mixture_others(columns, z, own) - truth).abs()
        bound = columns.bound if path == "torch" else promised(columns, truth)
        worst = max(worst, float((error / bound).max()))
    assert 1e-3 < worst < 1.0  # not vacuous: the bound is of the error's order


def test_spot_check_reports_the_deviation_it_finds(path: str) -> None:
    random = Random(20)
    mean, scale = vae(random, 300, 8)
    z, own = mean + scale * random.normal(300, 8), torch.arange(300)
    columns = prepare(mean, scale)
    result = log_mixture_others(columns, z, own)
    good = spot_check(columns, z, own, result)
    assert (good.dtype, good.bound, good.checked_rows) == (columns.told, columns.bound, 64)
    assert columns.told == {"torch": "float32", "compiled": "direct float32, compiled"}[path]
    truth = float((result - direct(mean, scale, z, own)).abs().max())
    assert 0 < good.max_deviation <= truth * (1 + 1e-6) + 1e-12

    assert spot_check(columns, z, own, result, rows=1000).checked_rows == 300
    assert spot_check(columns, z, own, result, rows=1000).max_deviation == pytest.approx(
        truth, rel=1e-6
    )
    wrong = result.clone()
    wrong[-1] += 0.5
    assert spot_check(columns, z, own, wrong).max_deviation == pytest.approx(0.5, abs=1e-3)
    wrong[0] = -math.inf
    assert spot_check(columns, z, own, wrong).max_deviation == math.inf
    wrong[0] = math.nan
    assert spot_check(columns, z, own, wrong).max_deviation == math.inf


def test_spot_check_counts_equal_infinities_as_no_deviation() -> None:
    columns = prepare(full(0.0, 1, 2), full(1.0, 1, 2))
    z, own = full(0.0, 1, 2), torch.tensor([0])
    checked = spot_check(columns, z, own, log_mixture_others(columns, z, own))
    assert (checked.checked_rows, checked.max_deviation) == (1, 0.0)


def test_spot_check_covers_draws_mixed_levels_and_nothing() -> None:
    random = Random(21)
    mean, scale = vae(random, 64, 8)
    scale[::2] *= 1e-3
    z, own = random.normal(64, 2, 8), torch.arange(64)
    columns = prepare(mean, scale)
    checked = spot_check(columns, z, own, log_mixture_others(columns, z, own))
    assert (checked.dtype.partition(",")[0], checked.checked_rows) == ("mixed", 64)
    assert checked.max_deviation < 1e-2
    empty = spot_check(columns, z[:0], own[:0], torch.empty(0, 2, dtype=torch.float64))
    assert (empty.checked_rows, empty.max_deviation) == (0, 0.0)


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m, s: (m[:, :2], s), "shape"),
        (lambda m, s: (m[:, 0], s[:, 0]), "shape"),
        (lambda m, s: (m.float(), s.float()), "float64"),
        (lambda m, s: (m, -s), "scale is not positive"),
        (lambda m, s: (m, s * math.nan), "not finite"),
        (lambda m, s: (m / 0.0, s), "not finite"),
    ],
)
def test_components_that_are_refused(change: Callable[[Tensor, Tensor], Case], says: str) -> None:
    with pytest.raises(InputError, match=says):
        prepare(*change(*vae(Random(22), 5, 3)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda z, own: (z.float(), own), "float64"),
        (lambda z, own: (z[:, :2], own), r"\[R, 3\]"),
        (lambda z, own: (z[0], own[:1]), r"\[R, 3\]"),
        (lambda z, own: (z, own[:4]), "int64"),
        (lambda z, own: (z, own.int()), "int64"),
        (lambda z, own: (z, own + 1), r"-1 \.\. 4"),
    ],
)
def test_rows_that_are_refused(
    change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], says: str
) -> None:
    columns = prepare(*vae(Random(23), 5, 3))
    with pytest.raises(InputError, match=says):
        log_mixture_others(columns, *change(full(0.0, 5, 3), torch.arange(5)))
