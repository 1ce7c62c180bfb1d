"""Two codes, one output: squares fold, lines do not."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

import collapsekit as ck
from collapsekit.findings import Severity
from tests import models


class Square:
    """D(z) = z^2, undone by the positive root: D(1) = D(-1), full local rank but at 0."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x.double().clamp(min=0).sqrt()
        return mean, torch.full_like(mean, 0.05)

    def decode(self, z: Tensor) -> Tensor:
        return z**2


def squares(n: int) -> Tensor:
    normal = torch.randn(n, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return normal**2


def test_the_share_that_a_square_folds() -> None:
    # z < 0 comes back as -z: the derivative foretells 4 z^2, nothing moves. It counts from a
    # quarter of the outputs' distance, sqrt(2 Var z^2) = 2: z < -1 / (2 sqrt 2).
    z = np.random.default_rng(0).normal(size=(20_000, 1))
    folded = ck.probes.decoder_folds(torch.sqrt, torch.square, z)
    bar = 1 / (2 * np.sqrt(2))
    assert (z[folded] < 0).all()
    exact = scipy.stats.norm.cdf(-bar)
    assert folded.mean() == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / len(z)))


def test_injective_decoders_do_not_fold() -> None:
    z = np.random.default_rng(1).normal(size=(500, 3))
    for decode, encode in [
        (lambda z: 3 * z, lambda x: x / 3),
        (lambda z: 3 * z, lambda x: -x),  # an encoder that is wrong folds nothing
        (torch.sinh, torch.asinh),
        (lambda z: z * 0 + 1.0, lambda x: x),  # nor a decoder that does not move
    ]:
        assert not ck.probes.decoder_folds(encode, decode, z).any()


def test_a_square_is_locally_injective_and_globally_not() -> None:
    audit = ck.audit(Square(), squares(1500))
    assert audit.number("decoder_full_rank_fraction").value == 1.0
    assert audit.number("fold_fraction").value < 0.02  # the data's codes are the positive ones
    assert audit.number("fold_fraction_prior").low > 0.25
    # Blind in the data's codes, the round trip sees it from the prior: corr(|z|, z) = 0.
    assert audit.dimensions.loc[0, "round_trip_corr2"] > 0.95
    assert audit.dimensions.loc[0, "round_trip_corr2_prior"] < 0.02
    (finding,) = [f for f in audit.findings if f.code == "CK511"]
    assert finding.severity is Severity.WARN
    assert "locally injective, globally not" in finding.message
    assert "35" in finding.message or "36" in finding.message or "37" in finding.message


def test_a_linear_vae_is_not_accused() -> None:
    model = models.LinearVAE((30.0, 3.0, 0.5))
    audit = ck.audit(model, model.sample(600, 0))
    assert audit.number("fold_fraction").value == 0
    assert audit.number("fold_fraction_prior").value == 0
    (finding,) = [f for f in audit.findings if f.code == "CK511"]
    assert finding.severity is Severity.OK


def test_rounding_is_no_fold() -> None:
    # Single precision at 0.37 moves in steps of 3e-8: a decoder that hardly reads its code jumps by
    # one or two of them at random, and over the small step of a derivative that looks steep.
    weight = np.random.default_rng(1).normal(size=(2, 20)).astype(np.float32)

    def decode(z: Tensor) -> np.ndarray:
        return np.float32(0.37) + np.tanh(np.asarray(z, np.float32) @ weight * np.float32(1e-7))

    def encode(x: Tensor) -> Tensor:
        return torch.from_numpy(np.random.default_rng(3).normal(size=(len(x), 2)))

    z = np.random.default_rng(0).normal(size=(400, 2))
    assert not ck.probes.decoder_folds(encode, decode, z).any()
