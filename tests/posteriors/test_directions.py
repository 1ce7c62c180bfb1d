"""The KL as a matrix: its trace is the KL, and along a direction what the code spends there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from collapsekit.noise import Noise
from collapsekit.posteriors import (
    DiagonalGaussian,
    FullGaussian,
    directions,
    divergence,
    kl_matrix,
    standard_normal,
    turns,
    whitened,
)
from tests.posteriors.test_added import DIMS, N, gaussian

EYE = torch.eye(DIMS, dtype=torch.float64)


def rotation(seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(DIMS, DIMS, generator=g, dtype=torch.float64))[0]


@pytest.mark.parametrize("prior", [standard_normal(DIMS), gaussian(1, 1), gaussian(N, 2)])
def test_the_trace_is_the_kl(prior: DiagonalGaussian | FullGaussian) -> None:
    q = gaussian(N, 0)
    found = kl_matrix(*whitened(q, prior))
    by_torch = kl_divergence(
        MultivariateNormal(q.mean, scale_tril=q.cholesky),
        MultivariateNormal(prior.mean, scale_tril=getattr(prior, "cholesky", EYE[None])),
    )
    torch.testing.assert_close(torch.einsum("bdd->b", found), by_torch)
    torch.testing.assert_close(found, found.mT)
    assert float(torch.linalg.eigvalsh(found).min()) > -1e-12


def test_it_turns_with_the_code() -> None:
    q, turn = gaussian(N, 0), rotation(3)
    mean, covariance = whitened(q, standard_normal(DIMS))
    turned = kl_matrix(mean @ turn.T, turn @ covariance @ turn.T)
    torch.testing.assert_close(turned, turn @ kl_matrix(mean, covariance) @ turn.T)


def test_of_a_product_it_is_the_kl_of_each_dimension() -> None:
    g = torch.Generator().manual_seed(4)
    mean = torch.randn(N, DIMS, generator=g, dtype=torch.float64)
    scale = torch.rand(N, DIMS, generator=g, dtype=torch.float64) + 1e-3
    scale[:, 0] = 1 + 1e-9 * scale[:, 0]  # where 1 would swallow the difference
    each = DiagonalGaussian(mean, scale).kl(standard_normal(DIMS))
    found = kl_matrix(mean, torch.diag_embed(scale**2))
    torch.testing.assert_close(found.diagonal(dim1=1, dim2=2), each)


def test_along_a_direction_it_is_no_less_than_the_kl_of_that_coordinate() -> None:
    q, u = gaussian(500, 5), rotation(6)[0]
    mean, covariance = whitened(q, standard_normal(DIMS))
    along = torch.einsum("d,bde,e->b", u, kl_matrix(mean, covariance), u)
    variance = torch.einsum("d,bde,e->b", u, covariance, u)
    alone = DiagonalGaussian((mean @ u)[:, None], variance.sqrt()[:, None])
    assert bool((along >= alone.kl(standard_normal(1))[:, 0] - 1e-12).all())


def test_it_is_nothing_along_what_is_idle_alone() -> None:
    turn = rotation(7)
    covariance = EYE.repeat(3, 1, 1)
    covariance[:, 0, 1] = covariance[:, 1, 0] = 0.9  # both marginals are the prior's: not idle
    found = turn.T @ kl_matrix(torch.zeros(3, DIMS).double(), turn @ covariance @ turn.T) @ turn
    truth = torch.zeros(DIMS, DIMS).double()
    # -ln C / 2 of [[1, r], [r, 1]], eigenvalues 1 + r and 1 - r
    truth[:2, :2] = -0.25 * (
        torch.log(torch.tensor(1.9)) * torch.ones(2, 2)
        + torch.log(torch.tensor(0.1)) * torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    )
    truth[:2, :2] += 0.5 * torch.tensor([[0.0, 0.9], [0.9, 0.0]])
    torch.testing.assert_close(found, truth.expand_as(found), rtol=1e-6, atol=1e-6)


def test_a_few_samples_do_not_turn_what_others_leave_idle() -> None:
    """0.2 nat on the first axis for all, and 5 nats on the second for one in 25: equal means."""
    kl = torch.zeros(100, 2, 2).double()
    kl[:, 0, 0] = 0.2
    kl[:4, 1, 1] = 5.0
    kl[:4, 0, 1] = kl[:4, 1, 0] = 0.5
    plain = torch.linalg.eigh(kl.sum(dim=0))[1]
    found = torch.linalg.eigh(directions(kl, 0.01))[1]
    assert float(plain.abs().min()) > 0.6  # halfway between the axes
    assert float(found.abs().max(dim=0).values.min()) > 0.99


def test_which_codes_have_axes_of_their_own() -> None:
    full, product = gaussian(N, 0), standard_normal(DIMS)
    assert turns(full, product)
    assert turns(full, gaussian(1, 1))
    assert not turns(product, product)
    assert not turns(product, gaussian(1, 1))
    total = divergence(full, product, Noise(0, "kl", torch.arange(N))).total
    torch.testing.assert_close(total, torch.einsum("bdd->b", kl_matrix(*whitened(full, product))))
