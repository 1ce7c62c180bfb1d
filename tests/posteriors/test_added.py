"""What one dimension adds to a KL, against the difference of two KLs that torch knows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from collapsekit.posteriors import DiagonalGaussian, FullGaussian, added

N, DIMS = 7, 4


def gaussian(rows: int, seed: int) -> FullGaussian:
    g = torch.Generator().manual_seed(seed)
    root = torch.randn(rows, DIMS, DIMS, generator=g, dtype=torch.float64)
    covariance = root @ root.mT + torch.eye(DIMS, dtype=torch.float64)
    mean = torch.randn(rows, DIMS, generator=g, dtype=torch.float64)
    return FullGaussian(mean, torch.linalg.cholesky(covariance))


def torch_kl(q: FullGaussian, p: FullGaussian, dims: list[int]) -> Tensor:
    def marginal(family: FullGaussian) -> MultivariateNormal:
        covariance = family.cholesky @ family.cholesky.mT
        return MultivariateNormal(family.mean[:, dims], covariance[:, dims][:, :, dims])

    return kl_divergence(marginal(q), marginal(p))


@pytest.mark.parametrize("rows", [1, N])
@pytest.mark.parametrize("product", ["neither", "posterior", "prior"])
def test_added_is_the_kl_less_that_of_the_rest(rows: int, product: str) -> None:
    q, p = gaussian(N, 0), gaussian(rows, 1)
    diagonal = {"posterior": q, "prior": p}.get(product)
    given: dict[str, DiagonalGaussian | FullGaussian] = {"posterior": q, "prior": p}
    if diagonal is not None:
        plain = DiagonalGaussian(diagonal.mean, diagonal.scale)
        given[product] = plain
        same = FullGaussian(plain.mean, torch.diag_embed(plain.scale))
        q, p = (same, p) if product == "posterior" else (q, same)
    found = added(given["posterior"], given["prior"])
    assert found is not None
    everything = list(range(DIMS))
    whole = torch_kl(q, p, everything)
    for j in everything:
        rest = torch_kl(q, p, [k for k in everything if k != j])
        torch.testing.assert_close(found[:, j], whole - rest, rtol=1e-9, atol=1e-11)


def test_nothing_is_added_at_the_prior() -> None:
    prior = gaussian(1, 2)
    found = added(prior, prior)
    assert found is not None
    torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-12)
