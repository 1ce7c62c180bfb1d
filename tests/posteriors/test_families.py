"""Families: densities, draws and divergences, each against a second way to the same number."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor
from torch import distributions as D

from collapsekit.noise import Noise
from collapsekit.posteriors import (
    Categorical,
    Density,
    DiagonalGaussian,
    Family,
    FullGaussian,
    GaussianMixture,
    TorchRows,
    UniformSphere,
    VonMisesFisher,
    divergence,
    standard_normal,
)
from collapsekit.posteriors.base import joined

N = 23
RNG = np.random.default_rng(0)


def random(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(sum(shape)).normal(size=shape))


def full() -> FullGaussian:
    root = torch.tril(0.3 * random(N, 3, 3)) + torch.eye(3, dtype=torch.float64)
    factor = torch.linalg.cholesky(root @ root.transpose(1, 2))
    return FullGaussian(random(N, 3), factor)


def mixture(dims: int = 1, rows: int = N) -> GaussianMixture:
    weights = torch.log_softmax(random(rows, 3), dim=1)
    return GaussianMixture(weights, 2 * random(rows, 3, dims), 0.3 + random(rows, 3, dims).abs())


def sphere(dims: int = 3) -> VonMisesFisher:
    direction = random(N, dims)
    kappa = torch.linspace(0, 60, N, dtype=torch.float64)[:, None]
    return VonMisesFisher(direction / direction.norm(dim=1, keepdim=True), kappa)


FAMILIES: dict[str, Family] = {
    "diagonal": DiagonalGaussian(random(N, 2), random(N, 2).abs() + 0.1),
    "full": full(),
    "mixture": mixture(2),
    "sphere": sphere(),
    "uniform sphere": UniformSphere(torch.eye(4, dtype=torch.float64)[:1].expand(N, 4)),
    "categorical": Categorical(torch.log_softmax(random(N, 2, 5), dim=2)),
    "laplace": TorchRows.of(D.Laplace(random(N, 2), random(N, 2).abs() + 0.1)),
    "gamma": TorchRows.of(D.Independent(D.Gamma(random(N, 2).abs() + 1, random(N, 2).abs()), 1)),
    "log-normal": TorchRows.of(D.Independent(D.LogNormal(random(N, 2), random(N, 2).abs()), 1)),
    "mixture of laplaces": TorchRows.of(
        D.MixtureSameFamily(
            D.Categorical(logits=random(N, 3)),
            D.Independent(D.Laplace(random(N, 3, 2), random(N, 3, 2).abs() + 0.1), 1),
        )
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_draw_depends_on_nothing_but_its_own_number(name: str) -> None:
    family = FAMILIES[name]
    index = torch.arange(100, 100 + N)
    before = torch.get_rng_state()
    z, log_density = family.draw(Noise(3, "posterior", index))
    assert torch.equal(before, torch.get_rng_state())
    torch.testing.assert_close(log_density, family.log_prob(z), rtol=1e-9, atol=1e-9)
    some = torch.tensor([17, 2, 11])
    again, _ = family.take(some).draw(Noise(3, "posterior", index[some]))
    assert torch.equal(again, z[some])
    other, _ = family.draw(Noise(4, "posterior", index))
    assert not torch.equal(other, z)


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_are_taken_joined_and_shipped(name: str) -> None:
    family = FAMILIES[name]
    back = joined([family.take(slice(0, 9)), family.take(torch.arange(9, N))])
    assert back.same(family)
    assert pickle.loads(pickle.dumps(family)).same(family)
    assert not family.take(slice(0, N - 1)).same(family)
    z, _ = family.draw(Noise(0, "z", torch.arange(N)))
    np.testing.assert_allclose(family.log_pairs(z).diagonal(), family.log_prob(z), 1e-9, 1e-9)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_mixture_of_the_others(name: str) -> None:
    family = FAMILIES[name]
    z, _ = family.draw(Noise(0, "z", torch.arange(N)))
    own = torch.arange(N)
    columns = [family.take(torch.full((N,), k)).log_prob(z) for k in range(N)]
    pairs = torch.stack(columns, dim=1).exp().numpy()
    np.fill_diagonal(pairs, 0.0)
    np.testing.assert_allclose(family.log_others(z, own), np.log(pairs.sum(axis=1)), 1e-9)


@pytest.mark.parametrize("name", [n for n in FAMILIES if n != "categorical"])
def test_moments_against_draws(name: str) -> None:
    family = FAMILIES[name].take(torch.zeros(4_000, dtype=torch.int64))
    z, _ = family.draw(Noise(1, "moments", torch.arange(4_000)))
    error = z.std(dim=0) / math.sqrt(len(z))
    assert bool(((z.mean(dim=0) - family.mean[0]).abs() < 5 * error + 1e-12).all())
    square = (z - family.mean).square()
    error = square.std(dim=0) / math.sqrt(len(z))
    assert bool(((square.mean(dim=0) - family.scale[0] ** 2).abs() < 5 * error + 1e-12).all())


# -- full covariance -----------------------------------------------------------------------------


def test_full_covariance_against_scipy() -> None:
    q = full()
    z = random(N, 3)
    covariance = (q.cholesky @ q.cholesky.transpose(1, 2)).numpy()
    scipy = [
        stats.multivariate_normal(m, c).logpdf(x)
        for m, c, x in zip(q.mean.numpy(), covariance, z.numpy(), strict=True)
    ]
    np.testing.assert_allclose(q.log_prob(z), scipy, rtol=1e-12)


@pytest.mark.parametrize("prior", ["diagonal", "full"])
def test_kl_of_full_covariances_by_determinants_and_by_torch(prior: str) -> None:
    q = full()
    one = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)
    p: Family = DiagonalGaussian(one, one.abs())
    factor = torch.diag(one[0].abs())
    if prior == "full":
        p = FullGaussian(one, full().cholesky[:1])
        factor = p.cholesky[0]
    found = divergence(q, p, Noise(0, "kl", torch.arange(N)))
    assert found.error is None
    assert found.each is None
    target = (factor @ factor.T).numpy()
    for i in range(N):
        cov = (q.cholesky[i] @ q.cholesky[i].T).numpy()
        gap = (one[0] - q.mean[i]).numpy()
        by_hand = 0.5 * (
            np.trace(np.linalg.solve(target, cov))
            + gap @ np.linalg.solve(target, gap)
            - 3
            + np.linalg.slogdet(target)[1]
            - np.linalg.slogdet(cov)[1]
        )
        assert found.total[i] == pytest.approx(by_hand, rel=1e-11)
    torches = D.kl_divergence(
        D.MultivariateNormal(q.mean, scale_tril=q.cholesky),
        D.MultivariateNormal(one[0], scale_tril=factor),
    )
    torch.testing.assert_close(found.total, torches, rtol=1e-10, atol=1e-10)


def test_a_diagonal_posterior_under_a_correlated_prior() -> None:
    q = DiagonalGaussian(random(N, 3), random(N, 3).abs() + 0.1)
    p = FullGaussian(torch.zeros(1, 3, dtype=torch.float64), full().cholesky[:1])
    found = divergence(q, p, Noise(0, "kl", torch.arange(N)))
    torches = D.kl_divergence(
        D.MultivariateNormal(q.mean, scale_tril=torch.diag_embed(q.scale)),
        D.MultivariateNormal(p.mean[0], scale_tril=p.cholesky[0]),
    )
    torch.testing.assert_close(found.total, torches, rtol=1e-10, atol=1e-10)
    assert found.each is None


def test_kl_near_collapse_keeps_its_digits() -> None:
    tiny = 1e-9
    factor = torch.eye(2, dtype=torch.float64)[None].clone()
    factor[0, 0, 0] += tiny
    factor[0, 1, 0] = tiny
    q = FullGaussian(torch.zeros(1, 2, dtype=torch.float64), factor)
    found = divergence(q, standard_normal(2), Noise(0, "kl", torch.arange(1)))
    # 0.5 (r^2 - 1 - ln r^2) = e^2 + O(e^3) on the diagonal, e^2 / 2 below it.
    assert float(found.total) == pytest.approx(1.5 * tiny**2, rel=1e-6)


# -- Monte Carlo against quadrature --------------------------------------------------------------


def expected_kl(q: Family, p: Family, low: float = -30.0, high: float = 30.0) -> float:
    """KL of one-dimensional densities by the trapezoid rule."""
    grid = torch.linspace(low, high, 600_001, dtype=torch.float64)[:, None]
    log_q, log_p = q.log_prob(grid), p.log_prob(grid)
    value = torch.where(log_q > -700, log_q.exp() * (log_q - log_p), 0.0)
    return float(torch.trapezoid(value, grid[:, 0]))


def check_monte_carlo(q: Family, p: Family, truth: float) -> None:
    """Many samples with one posterior: mean within 4 SE, and the SE of each sample is honest."""
    many = 4000
    rows = q.take(torch.zeros(many, dtype=torch.int64))
    found = divergence(rows, p, Noise(7, "kl", torch.arange(many)))
    assert found.error is not None
    error = float(found.total.std()) / math.sqrt(many)
    assert error < 0.05 * truth
    assert abs(float(found.total.mean()) - truth) < 4 * error
    told = float(found.error.square().mean().sqrt()) / math.sqrt(many)
    assert told == pytest.approx(error, rel=0.15)


@pytest.mark.parametrize("which", ["mixture posterior", "VampPrior", "flow prior"])
def test_monte_carlo_kl_against_quadrature(which: str) -> None:
    if which == "mixture posterior":
        q: Family = mixture(1, 1)
        p: Family = standard_normal(1)
    elif which == "VampPrior":
        q = DiagonalGaussian(*(torch.tensor([[v]], dtype=torch.float64) for v in (0.4, 0.7)))
        p = mixture(1, 1)
    else:
        q = DiagonalGaussian(*(torch.tensor([[v]], dtype=torch.float64) for v in (0.4, 0.7)))
        one = torch.ones(1, dtype=torch.float64)
        base = D.Independent(D.Normal(0 * one, one), 1)
        flow = D.TransformedDistribution(base, [_Sinh()])
        p = Density(flow, torch.zeros(1, 1, dtype=torch.float64), (1,))
    truth = expected_kl(q, p)
    assert truth > 0.05
    check_monte_carlo(q, p, truth)


class _Sinh(D.Transform):
    """z = sinh(u): a flow that is no Gaussian, with a known inverse and slope."""

    domain = codomain = D.constraints.independent(D.constraints.real, 1)
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        return torch.sinh(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return torch.asinh(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.log(torch.cosh(x)).sum(dim=-1)


def test_vamp_prior_in_two_dimensions_against_a_grid() -> None:
    q = DiagonalGaussian(*(torch.tensor([v], dtype=torch.float64) for v in ([0.4, -1], [0.7, 0.5])))
    p = mixture(2, 1)
    axis = torch.linspace(-8, 8, 801, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    log_q = q.log_prob(grid)
    value = (log_q.exp() * (log_q - p.log_prob(grid))).reshape(801, 801)
    truth = float(torch.trapezoid(torch.trapezoid(value, axis, dim=1), axis))
    check_monte_carlo(q, p, truth)


def test_an_affine_flow_is_the_gaussian() -> None:
    mean = torch.tensor([1.0, -2.0], dtype=torch.float64)
    scale = torch.tensor([0.5, 3.0], dtype=torch.float64)
    base = D.Independent(D.Normal(torch.zeros(2, dtype=torch.float64), torch.ones(2).double()), 1)
    flow = D.TransformedDistribution(base, [D.transforms.AffineTransform(mean, scale, event_dim=1)])
    p = Density(flow, torch.zeros(1, 2, dtype=torch.float64), (2,))
    gaussian = DiagonalGaussian(mean[None], scale[None])
    noise = Noise(0, "prior", torch.arange(50))
    z, log_density = p.draw(noise)
    same, same_density = gaussian.draw(noise)
    torch.testing.assert_close(z, same, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(log_density, same_density, rtol=1e-12, atol=1e-12)
    assert torch.allclose(p.mean, gaussian.mean, atol=0.1)  # from draws: no closed form is asked
    assert torch.allclose(p.scale, gaussian.scale, rtol=0.03)


def test_an_object_with_log_prob_and_sample_is_drawn_row_by_row() -> None:
    class Prior:
        def log_prob(self, z: Tensor) -> Tensor:
            return D.Normal(0.0, 2.0).log_prob(z).sum(dim=1)

        def sample(self, shape: tuple[int, ...]) -> Tensor:
            return 2.0 * torch.randn(*shape, 2, dtype=torch.float64)

    p = Density(Prior(), torch.zeros(1, 2, dtype=torch.float64), (2,))
    before = torch.get_rng_state()
    z, _ = p.draw(Noise(0, "prior", torch.arange(30)))
    assert torch.equal(before, torch.get_rng_state())
    again, _ = p.draw(Noise(0, "prior", torch.arange(10, 20)))
    assert torch.equal(z[10:20], again)
    assert len(torch.unique(z)) == 60
    assert torch.allclose(p.scale, torch.full((1, 2), 2.0).double(), rtol=0.03)


def test_torchs_own_closed_forms_are_used_and_split() -> None:
    location, width = random(N, 2), random(N, 2).abs() + 0.1
    q = TorchRows.of(D.Laplace(location, width))
    prior = D.Laplace(torch.zeros(2).double(), torch.ones(2).double())
    p = Density(prior, torch.zeros(1, 2, dtype=torch.float64), (2,))
    found = divergence(q, p, Noise(0, "kl", torch.arange(N)))
    assert found.error is None
    assert found.each is not None
    # Meyer 2021: b exp(-|m|/b) + |m| - 1 - ln b for Laplace(m, b) against Laplace(0, 1).
    m = location.abs()
    by_hand = width * torch.exp(-m / width) + m - 1 - width.log()
    torch.testing.assert_close(found.each, by_hand, rtol=1e-10, atol=1e-10)


# -- the sphere ----------------------------------------------------------------------------------


def test_von_mises_fisher_in_three_dimensions_in_closed_form() -> None:
    q = sphere(3)
    kappa = q.concentration[1:, 0].numpy()
    by_hand = np.log(kappa / np.sinh(kappa)) + kappa / np.tanh(kappa) - 1
    np.testing.assert_allclose(q.rate[1:], by_hand, rtol=1e-10, atol=1e-10)
    assert float(q.rate[0]) == pytest.approx(0.0, abs=1e-12)
    scipy = stats.vonmises_fisher(q.direction[9].numpy(), kappa[8])
    z, _ = q.draw(Noise(0, "z", torch.arange(N)))
    np.testing.assert_allclose(q.take(torch.full((N,), 9)).log_prob(z), scipy.logpdf(z.numpy()))


@pytest.mark.parametrize("dims", [2, 5, 40])
@pytest.mark.parametrize("kappa", [1e-4, 0.5, 7.0, 300.0])
def test_von_mises_fisher_kl_by_quadrature_over_the_cosine(dims: int, kappa: float) -> None:
    direction = torch.eye(dims, dtype=torch.float64)[:1]
    q = VonMisesFisher(direction, torch.tensor([[kappa]], dtype=torch.float64))
    p = UniformSphere(direction)
    found = divergence(q, p, Noise(0, "kl", torch.arange(1)))

    # The angle t has density proportional to exp(kappa cos t) sin(t)^(D - 2).
    def weight(t: float) -> float:
        return math.exp(kappa * (math.cos(t) - 1)) * math.sin(t) ** (dims - 2)

    def at(f: object, **more: object) -> float:
        return integrate.quad(f, 0, math.pi, epsabs=0, epsrel=1e-11, limit=500, **more)[0]

    peak = {"points": [math.sqrt(dims / (kappa + dims)), 0.05, 0.3]}
    whole = at(weight, **peak)
    mean = at(lambda t: weight(t) * (math.cos(t) - 1), **peak) / whole
    uniform = at(lambda t: math.sin(t) ** (dims - 2))
    by_hand = kappa * mean - math.log(whole / uniform)
    assert float(found.total) == pytest.approx(by_hand, rel=1e-7, abs=1e-10)


@pytest.mark.parametrize("dims", [2, 3, 30])
def test_von_mises_fisher_draws(dims: int) -> None:
    for kappa in (0.0, 2.0, 500.0):
        direction = torch.eye(dims, dtype=torch.float64)[1:2].expand(8000, dims)
        q = VonMisesFisher(direction, torch.full((8000, 1), kappa, dtype=torch.float64))
        z, _ = q.draw(Noise(0, "z", torch.arange(8000)))
        np.testing.assert_allclose(z.norm(dim=1), 1.0, rtol=1e-12)
        error = z.std(dim=0) / math.sqrt(8000)
        assert bool(((z.mean(dim=0) - q.mean[0]).abs() < 4.5 * error).all())


# -- discrete codes ------------------------------------------------------------------------------


def test_categorical_kl_and_entropy_against_scipy() -> None:
    q = FAMILIES["categorical"]
    assert isinstance(q, Categorical)
    prior = np.array([0.1, 0.2, 0.3, 0.25, 0.15])
    p = Categorical(torch.from_numpy(np.log(prior)).expand(1, 2, 5))
    found = divergence(q, p, Noise(0, "kl", torch.arange(N)))
    np.testing.assert_allclose(found.each, stats.entropy(q.log_p.exp(), prior, axis=2), 1e-12)
    np.testing.assert_allclose(q.entropy, stats.entropy(q.log_p.exp(), axis=2), 1e-12)


def test_classes_are_drawn_as_often_as_they_should_be() -> None:
    p = np.array([0.5, 0.0, 0.3, 0.2])
    rows = Categorical(torch.from_numpy(p).log().expand(10_000, 1, 4))
    z, log_p = rows.draw(Noise(0, "z", torch.arange(10_000)))
    counts = np.bincount(z[:, 0].long().numpy(), minlength=4)
    assert counts[1] == 0
    assert stats.chisquare(counts[p > 0], 10_000 * p[p > 0]).pvalue > 1e-3
    np.testing.assert_allclose(log_p, np.log(p[z[:, 0].long().numpy()]))
