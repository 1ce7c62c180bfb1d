"""Gaussians of low rank plus a diagonal, however far the two lie apart."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor
from torch import distributions as D

import collapsekit as ck
from collapsekit.noise import Noise
from collapsekit.posteriors import FullGaussian, cholesky_of, divergence, standard_normal
from collapsekit.posteriors.draws import draw
from collapsekit.priors import read_prior
from collapsekit.probes import REGISTERED
from collapsekit.readers import read_posterior
from tests.families import GAUSSIAN, SPLIT

N, DIMS = 7, 3


def random(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(sum(shape)).normal(size=shape))


def low_rank(width: float, size: float = 1.0, rank: int = 1) -> D.LowRankMultivariateNormal:
    factor = size * random(N, DIMS, rank)
    return D.LowRankMultivariateNormal(
        random(N, DIMS), factor, (width * (1 + random(N, DIMS).abs())).square()
    )


def exactly(law: D.LowRankMultivariateNormal, row: int) -> mpmath.matrix:
    """The Cholesky factor of one row's covariance, in 200 digits."""
    with mpmath.workdps(200):
        factor = mpmath.matrix(law.cov_factor[row].tolist())
        return mpmath.cholesky(factor * factor.T + mpmath.diag(law.cov_diag[row].tolist()))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("width", [1e-30, 1e-9, 1.0, 1e30])
def test_the_factor_against_two_hundred_digits(width: float, rank: int) -> None:
    law = low_rank(width, rank=rank)
    ours = cholesky_of(law)
    for row in range(N):
        truth = np.array(exactly(law, row).tolist(), dtype=np.float64)
        np.testing.assert_allclose(ours[row], truth, rtol=1e-9 if rank > 1 else 1e-14)


def test_scales_may_be_anything_and_move_nothing_but_the_scale() -> None:
    plain = cholesky_of(low_rank(1e-3))
    for scale in (2.0**-400, 2.0**400):
        assert torch.equal(cholesky_of(low_rank(1e-3 * scale, scale)), plain * scale)


def test_what_was_given_is_left_alone() -> None:
    law = D.LowRankMultivariateNormal(random(1, 1), random(1, 1, 1), random(1, 1).abs())
    before = law.cov_factor.clone()
    cholesky_of(law)
    assert torch.equal(law.cov_factor, before)


def test_a_factor_of_nothing_is_the_diagonal() -> None:
    ours = cholesky_of(low_rank(0.5, 0.0, rank=2))
    torch.testing.assert_close(
        ours, torch.diag_embed(low_rank(0.5).cov_diag.sqrt()), rtol=1e-15, atol=0
    )


@pytest.mark.parametrize("width", [1e-30, 1.0, 1e30])
def test_the_divergence_against_its_closed_form(width: float) -> None:
    law = low_rank(width)
    found = divergence(
        read_posterior(law, N, "scale").posterior, standard_normal(DIMS), Noise(0, "kl", None)
    )
    assert found.error is None
    square, variance = law.cov_factor[:, :, 0].square(), law.cov_diag
    # ln det (v + w w') = sum ln v + ln(1 + sum w^2 / v)
    log_det = variance.log().sum(dim=1) + torch.log1p((square / variance).sum(dim=1))
    truth = 0.5 * ((square + variance + law.loc.square() - 1).sum(dim=1) - log_det)
    torch.testing.assert_close(found.total, truth, rtol=1e-12, atol=0)


def test_it_is_read_as_a_gaussian_with_a_covariance_wherever_it_stands() -> None:
    law = low_rank(0.3, rank=2)
    posterior = read_posterior(law, N, "scale").posterior
    assert isinstance(posterior, FullGaussian)
    z, log_density = posterior.draw(Noise(0, "posterior", torch.arange(N)))
    torch.testing.assert_close(log_density, law.log_prob(z), rtol=1e-9, atol=1e-9)

    single = D.LowRankMultivariateNormal(law.loc[0], law.cov_factor[0], law.cov_diag[0])
    prior = read_prior(single, posterior, (DIMS,))
    assert isinstance(prior, FullGaussian)
    torch.testing.assert_close(prior.log_prob(z), single.log_prob(z), rtol=1e-9, atol=1e-9)

    # One factor for all rows, with one diagonal or many, and as the base of something else.
    shared = D.LowRankMultivariateNormal(law.loc, law.cov_factor[0], law.cov_diag[0])
    assert cholesky_of(shared).shape == (N, DIMS, DIMS)
    shared = D.LowRankMultivariateNormal(law.loc, law.cov_factor[0], law.cov_diag)
    torch.testing.assert_close(
        cholesky_of(shared), torch.linalg.cholesky(shared.covariance_matrix), rtol=1e-12, atol=1e-12
    )
    moved = D.TransformedDistribution(single, [D.AffineTransform(1.0, 2.0)])
    codes = draw(moved, Noise(0, "prior", torch.arange(5000)))
    error = (codes.std(dim=0) / 5000**0.5).numpy()
    assert (abs((codes.mean(dim=0) - 1 - 2 * single.loc).numpy()) < 4 * error).all()


class Model:
    """Codes of low rank, or of a factor, whose width is given beside means of size 1."""

    def __init__(self, kind: str, width: float) -> None:
        self.kind, self.width = kind, width

    def encode(self, x: Tensor) -> D.Distribution:
        mean = x[:, :2] + x[:, 1:]
        if self.kind == "low rank":
            variance = torch.full_like(mean, self.width**2)
            return D.LowRankMultivariateNormal(mean, 0.1 * mean[:, :, None], variance)
        factor = self.width * torch.tensor([[1.0, 0.0], [0.3, 1.0]], dtype=x.dtype)
        return D.MultivariateNormal(mean, scale_tril=factor.expand(len(x), 2, 2))

    def decode(self, z: Tensor) -> Tensor:
        return torch.cat([z, z[:, :1]], dim=1)


@pytest.mark.parametrize("kind", ["low rank", "factor"])
@pytest.mark.parametrize("width", [1e-30, 1e30])
def test_audits_measure_what_they_measure_of_any_covariance(kind: str, width: float) -> None:
    model, x = Model(kind, width), random(40, 3)
    audit = ck.audit(model, x, likelihood=("gaussian", 0.5))
    probes = {probe.name for probe in REGISTERED}
    assert set(audit.skipped) & probes == SPLIT | GAUSSIAN
    assert not [finding for finding in audit.findings if finding.code == "CK003"]
    with mpmath.workdps(200):
        law = model.encode(x)
        truth = 0
        for row in range(40):
            if isinstance(law, D.LowRankMultivariateNormal):
                factor = exactly(law, row)
            else:
                factor = mpmath.matrix(law.scale_tril[row].tolist())
            trace = sum(value**2 for value in factor) + float(law.loc[row].square().sum())
            truth += (trace - 2) / 2 - sum(mpmath.log(factor[j, j]) for j in range(2))
    assert audit.number("rate").value == pytest.approx(float(truth / 40), rel=1e-12)
