"""Aggregated marginals against direct sums and closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from collapsekit.errors import InputError
from collapsekit.kernels import marginals
from collapsekit.kernels.marginals import log_marginals

Case = tuple[Tensor, Tensor]
CLAIM = 1e-4  # nats, what the docstring promises


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def full(value: float, *shape: int) -> Tensor:
    return torch.full(shape, value, dtype=torch.float64)


def direct(mean: Tensor, scale: Tensor, z: Tensor) -> Tensor:
    """By torch.distributions and logsumexp, a dimension at a time."""
    found = torch.empty_like(z)
    for d in range(z.shape[1]):
        log_prob = torch.distributions.Normal(mean[:, d], scale[:, d]).log_prob(z[:, d, None])
        found[:, d] = torch.logsumexp(log_prob, 1) - math.log(len(mean))
    return found


def every(k: int, *of: int) -> Tensor:
    """[k, 1] mask: index modulo 20 is one of ``of``."""
    return torch.isin(torch.arange(k) % 20, torch.tensor(of))[:, None]


def spikes(k: int, width: float) -> Case:
    mean = full(0.0, k, 1).masked_fill(every(k, 0), 3.0).masked_fill(every(k, 1), -3.0)
    return mean, full(1.0, k, 1).masked_fill(every(k, 0, 1), width)


def lone_spike(g: torch.Generator, k: int) -> Case:
    scale = full(0.3, k, 1)
    scale[0] = 1e-5
    return normal(g, k, 1), scale


def half(k: int, narrow: float) -> Tensor:
    return torch.where(torch.arange(k)[:, None] % 2 == 0, narrow, 1.0).double()


CASES: dict[str, Callable[[torch.Generator, int], Case]] = {
    "VAE 0.3": lambda g, k: (0.95 * normal(g, k, 1), full(0.3, k, 1)),
    "VAE 0.05": lambda g, k: (normal(g, k, 1), full(0.05, k, 1)),
    "VAE 0.01": lambda g, k: (normal(g, k, 1), full(0.01, k, 1)),
    "sharp 1e-4": lambda g, k: (normal(g, k, 1), full(1e-4, k, 1)),
    "collapsed": lambda g, k: (0.01 * normal(g, k, 1), 1 + 0.03 * uniform(g, k, 1)),
    "constant": lambda g, k: (full(0.0, k, 1), full(1.0, k, 1)),  # P10
    "constant, far, narrow": lambda g, k: (full(1000.0, k, 1), full(1e-3, k, 1)),
    "half 0.1, half 1, one mean": lambda g, k: (full(0.0, k, 1), half(k, 0.1)),  # P4
    "half 0.01, half 1, one mean": lambda g, k: (full(0.0, k, 1), half(k, 0.01)),
    "half 0.01, half 1": lambda g, k: (normal(g, k, 1), half(k, 0.01)),
    "scales over four decades": lambda g, k: (normal(g, k, 1), 1e-4 * 1e4 ** uniform(g, k, 1)),
    "P5": lambda g, k: spikes(k, 0.1),
    "P5 with needles": lambda g, k: spikes(k, 1e-3),
    "one needle": lone_spike,
    "two clusters": lambda g, k: (
        5 - 10 * (torch.arange(k)[:, None] % 2).double(),
        full(0.05, k, 1),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_error_against_direct_sums(name: str) -> None:
    g = torch.Generator().manual_seed(5)
    mean, scale = CASES[name](g, 400)
    own = mean.repeat(3, 1) + scale.repeat(3, 1) * normal(g, 1200, 1)
    # Rows of other makers too: they fall into gaps, where the density turns within a cell.
    foreign = mean.mean() + 1.5 * normal(g, 800, 1)
    for z in (own, foreign):
        truth = direct(mean, scale, z)
        error = (log_marginals(mean, scale, z) - truth).abs()
        assert float((error - 1e-12 * truth.abs()).max()) <= CLAIM


def test_the_grid_is_used_and_saves_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without this the test above could pass by evaluating everything directly.
    seen = []
    sums = marginals._sums

    def spy(octaves: list[marginals._Octave], x: Tensor, *, slopes: bool) -> tuple[Tensor, Tensor]:
        seen.append((len(x), slopes))
        return sums(octaves, x, slopes=slopes)

    monkeypatch.setattr(marginals, "_sums", spy)
    g = torch.Generator().manual_seed(6)
    mean, scale = normal(g, 100, 1), full(0.3, 100, 1)
    log_marginals(mean, scale, mean.repeat(50, 1) + 0.3 * normal(g, 5000, 1))
    (points, slopes), *rest = seen
    assert slopes
    assert points < 200
    assert sum(count for count, _ in rest) < 50  # the few rows of cells that failed their check


def test_cells_that_miss_in_the_middle_are_computed_directly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    g = torch.Generator().manual_seed(7)
    mean, scale = 5 - 10 * (torch.arange(64)[:, None] % 2).double(), full(0.5, 64, 1)
    z = 0.2 * normal(g, 500, 1)  # at the crossing, 10 scales from both: ln q turns within 0.05
    truth = direct(mean, scale, z)
    assert float((log_marginals(mean, scale, z) - truth).abs().max()) < 0.3 * CLAIM
    monkeypatch.setattr(marginals, "TOLERANCE", math.inf)
    assert float((log_marginals(mean, scale, z) - truth).abs().max()) > CLAIM


def test_a_turn_anywhere_in_a_cell_is_seen() -> None:
    # Two components cross 3.3 scales from both; a check of the middle alone misses some by 6e-4.
    scale = full(0.3, 2, 1)
    for shift in torch.linspace(0, 0.125, 33)[:-1].tolist():  # over one cell
        mean = torch.tensor([[shift - 1.0], [shift + 1.0]], dtype=torch.float64)
        z = shift + torch.linspace(-0.6, 0.6, 600, dtype=torch.float64)[:, None]
        error = (log_marginals(mean, scale, z) - direct(mean, scale, z)).abs()
        assert float(error.max()) <= CLAIM


def test_components_out_of_reach_count_where_they_are_many() -> None:
    # At 9.2 scales from 1000 components and at 8.9 from a single one, the former weigh more.
    scale = full(1.999, 1001, 1)  # nearly an octave's upper end: reach is no wider than 9 scales
    mean = full(0.0, 1001, 1)
    mean[0] = (9.2 + 8.9) * 1.999
    z = full(9.2 * 1.999, 1, 1)
    truth = direct(mean, scale, z)
    assert float((direct(mean[:1], scale[:1], z) - math.log(1001) - truth).abs()) > 1.0
    assert float((log_marginals(mean, scale, z) - truth).abs()) <= CLAIM


def test_one_component_is_its_own_density() -> None:
    z = torch.linspace(-60, 60, 700, dtype=torch.float64)[:, None]  # far beyond exp's range too
    result = log_marginals(full(0.5, 1, 1), full(0.7, 1, 1), z)
    expected = -0.5 * ((z - 0.5) / 0.7) ** 2 - math.log(0.7) - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=CLAIM)


def test_a_product_aggregate_adds_up_to_the_joint() -> None:
    # All posteriors equal: the marginals' sum is the joint log density.
    g = torch.Generator().manual_seed(8)
    mean, scale = normal(g, 1, 5).expand(50, 5), (0.2 + uniform(g, 1, 5)).expand(50, 5)
    z = mean + scale * normal(g, 50, 5)
    joint = torch.distributions.Normal(mean, scale).log_prob(z).sum(1)
    torch.testing.assert_close(log_marginals(mean, scale, z).sum(1), joint, rtol=0, atol=CLAIM)


def test_the_aggregate_of_a_linear_gaussian_model_is_its_prior() -> None:
    # sigma^2 = 0.1 and means N(0, 0.9) make N(0, 1): E_z[ln q(z) - ln p(z)] = KL -> 0 (K = 4000;
    # the bias of a finite K is about half the components in reach over K, below 0.01 nats).
    g = torch.Generator().manual_seed(9)
    mean, scale = math.sqrt(0.9) * normal(g, 4000, 1), full(math.sqrt(0.1), 4000, 1)
    z = mean + scale * normal(g, 4000, 1)
    gap = log_marginals(mean, scale, z) - torch.distributions.Normal(0.0, 1.0).log_prob(z)
    assert abs(float(gap.mean())) < 0.01


def test_dimensions_do_not_see_each_other_or_the_order_of_rows_and_components() -> None:
    g = torch.Generator().manual_seed(10)
    mean, scale = normal(g, 300, 19), 0.02 * 50 ** uniform(g, 300, 19)
    z = mean + scale * normal(g, 300, 19)
    whole = log_marginals(mean, scale, z)
    for d in (0, 15, 16, 18):  # on both sides of a block of dimensions
        one = slice(d, d + 1)
        assert torch.equal(log_marginals(mean[:, one], scale[:, one], z[:, one]), whole[:, one])
    order, rows = torch.randperm(300, generator=g), torch.randperm(300, generator=g)
    mixed = log_marginals(mean[order], scale[order], z[rows])
    torch.testing.assert_close(mixed, whole[rows], rtol=0, atol=1e-9)


def test_repeating_every_component_changes_nothing() -> None:
    g = torch.Generator().manual_seed(11)
    mean, scale, z = normal(g, 200, 2), 0.1 + uniform(g, 200, 2), normal(g, 300, 2)
    twice = log_marginals(mean.repeat(2, 1), scale.repeat(2, 1), z)
    torch.testing.assert_close(twice, log_marginals(mean, scale, z), rtol=0, atol=1e-9)


def test_empty_inputs() -> None:
    assert log_marginals(full(0.0, 4, 3), full(1.0, 4, 3), full(0.0, 0, 3)).shape == (0, 3)
    none = log_marginals(full(0.0, 0, 1), full(1.0, 0, 1), full(0.0, 2, 1))
    assert none.tolist() == [[-math.inf], [-math.inf]]


def test_inputs_are_not_changed_and_need_not_be_contiguous() -> None:
    g = torch.Generator().manual_seed(12)
    given = [normal(g, 3, 50), 0.1 + uniform(g, 3, 50), normal(g, 3, 200)]
    copies = [x.clone() for x in given]
    result = log_marginals(*(x.T for x in given))
    assert all(torch.equal(a, b) for a, b in zip(given, copies, strict=True))
    assert torch.equal(log_marginals(*(x.T.contiguous() for x in given)), result)


def test_what_is_refused() -> None:
    mean, scale, z = full(0.0, 4, 3), full(1.0, 4, 3), full(0.0, 2, 3)
    with pytest.raises(InputError, match=r"\[R, 3\]"):
        log_marginals(mean, scale, z[:, :2])
    with pytest.raises(InputError, match="float64"):
        log_marginals(mean, scale, z.float())
    with pytest.raises(InputError, match="not positive"):
        log_marginals(mean, scale * 0, z)
