"""A decoder or a likelihood that returns infinities or NaN: told, and never taken for collapse."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

import collapsekit as ck
from tests import models

LAM = (8.0, 2.0)
PROBES = [
    ck.probes.KL(),
    ck.probes.Reconstruction(),
    ck.probes.SwapGap(),
    ck.probes.ShuffleCost(),
    ck.probes.ModelInformation(),
    ck.probes.InferenceGap(),
]


class Forbids(models.LinearVAE):
    """Gives inputs above a threshold the likelihood 0 under every code."""

    above: float = -math.inf

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        error = ((x - self.decode(z)) ** 2).sum(dim=1)
        return torch.where(x[:, 0] > self.above, -torch.inf, -2.0 * error)


class ForbidsSome(Forbids):
    above: float = 1.0


class BreaksFarOut(models.LinearVAE):
    """Its decoder overflows at codes that the prior draws and the posteriors do not."""

    def decode(self, z: Tensor) -> Tensor:
        return torch.where(z[:, :1] > 3.0, torch.nan, super().decode(z))


def data(n: int = 200) -> Tensor:
    return models.LinearVAE(LAM).sample(n, 3).clamp(-2.0, 2.0)


def told(audit: ck.Audit, code: str, words: str) -> ck.Finding:
    (found,) = [f for f in audit.findings if f.code == code and words in f.message]
    return found


def test_likelihoods_of_zero_for_some() -> None:
    x = data()
    audit = ck.audit(ForbidsSome(LAM), x, probes=PROBES)
    who = np.flatnonzero(x[:, 0].numpy() > 1.0)
    assert 0 < len(who) < len(x)
    found = told(audit, "CK012", "reconstruction_error")
    assert found.samples == tuple(who)
    assert found.severity is ck.Severity.WARN
    assert audit.number("reconstruction_error").n == len(x) - len(who)
    assert audit.verdict.name == "inconclusive"  # more than one in twenty cannot be judged
    told(audit, "CK404", "not finite")
    told(audit, "CK408", "not finite")


def test_likelihoods_of_zero_for_all_are_no_collapse() -> None:
    audit = ck.audit(Forbids(LAM), data(), probes=PROBES)
    for name in (
        "reconstruction_error",
        "elbo",
        "swap_gap",
        "model_information",
        "log_likelihood_bound",
        "inference_gap",
    ):
        number = audit.number(name)
        assert math.isnan(number.value), name
        assert number.n == 0
    assert audit.dimensions["shuffle_cost"].isna().all()
    assert not [f for f in audit.findings if "does not read the code" in f.message]
    assert len(told(audit, "CK012", "reconstruction_error").samples) == 200
    assert audit.verdict.name == "inconclusive"
    # the weights of samples without a likelihood are not reliable
    assert audit.number("unreliable_weights_fraction").value == 1.0


def test_a_decoder_that_breaks_at_codes_of_the_prior() -> None:
    audit = ck.audit(BreaksFarOut(LAM), data(), probes=PROBES, likelihood=("gaussian", 0.5))
    # Its draws from the prior are left out, and nothing else is.
    assert audit.number("model_information").known
    assert audit.number("model_information").n == 200
    assert "these draws are left out" in told(audit, "CK404", "not finite").message
    assert audit.number("reconstruction_error").n >= 195


def test_a_rate_whose_exponential_overflows() -> None:
    class Far(models.LinearVAE):
        """Means a hundred times the prior's: thousands of nats."""

        def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
            mean, scale = super().encode(x)
            return 100 * mean, scale

        def decode(self, z: Tensor) -> Tensor:
            return super().decode(z / 100)

    audit = ck.audit(Far(LAM), data(100))  # squared errors: the gap is held against e^(2 rate)
    assert audit.number("rate").value > 355  # e^(2 rate) is no double
    assert not [f for f in audit.findings if f.code == "CK003"]
