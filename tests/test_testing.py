"""The conformance kit finds planted faults, each by its own message, and passes what is right."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from collapsekit.errors import InputError
from collapsekit.testing import AdapterFault, check_adapter
from tests import models
from tests.families import MODELS, data
from tests.test_groups import Ladder

X = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)


class Good:
    """An adapter without a fault."""

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
            self.back = nn.Linear(2, 6)

    @contextmanager
    def session(self) -> Iterator[None]:
        was = self.net.training
        self.net.eval()
        try:
            yield
        finally:
            self.net.train(was)

    def encode(self, x: Tensor) -> Any:
        mean, logvar = self.net(x).chunk(2, dim=1)
        return mean, (0.5 * logvar).exp()

    def decode(self, z: Tensor) -> Any:
        return self.back(z)


def test_what_is_right_passes() -> None:
    check_adapter(Good(), X)
    check_adapter(models.TinyVAE(), X)
    check_adapter(models.Constant(), X)
    check_adapter((lambda x: (x[:, :2], np.full((len(x), 2), 0.5)),), X)


class NoRow(Good):
    def encode(self, x: Tensor) -> Any:
        mean, scale = super().encode(x)
        return mean[:-1], scale[:-1]


class SignedScale(Good):
    def encode(self, x: Tensor) -> Any:
        mean, scale = super().encode(x)
        return mean, torch.where(x[:, :2] > 0, scale, -scale)


class Infinite(Good):
    def encode(self, x: Tensor) -> Any:
        mean, scale = super().encode(x)
        return torch.where(x[:, :2] > 1.2, torch.nan, mean), scale


class Noisy(Good):
    def encode(self, x: Tensor) -> Any:
        mean, scale = super().encode(x)
        return mean + 0.1 * torch.randn(mean.shape, generator=GENERATOR), scale


GENERATOR = torch.Generator().manual_seed(0)


class BatchStatistics(Good):
    def encode(self, x: Tensor) -> Any:
        mean, scale = super().encode(x)
        return mean - mean.mean(dim=0), scale


class Squeezed(Good):
    def encode(self, x: Tensor) -> Any:
        mean, scale = super().encode(x)
        return mean.squeeze(0), scale.squeeze(0)


class Writes(Good):
    def encode(self, x: Tensor) -> Any:
        return super().encode(x.mul_(0.5))


class Reuses(Good):
    kept: dict[int, Tensor] = {}  # noqa: RUF012

    def encode(self, x: Tensor) -> Any:
        mean, scale = super().encode(x)
        kept = self.kept.setdefault(len(x), torch.empty_like(mean))
        return kept.copy_(mean), scale


class Integers(Good):
    def encode(self, x: Tensor) -> Any:
        mean, scale = super().encode(x)
        return mean.round().long(), scale.ceil()


class NoGrad(Good):
    def encode(self, x: Tensor) -> Any:
        torch.set_grad_enabled(False)
        return super().encode(x)


class TrainsOn(Good):
    @contextmanager
    def session(self) -> Iterator[None]:
        self.net.eval()
        yield


class Running(Good):
    def encode(self, x: Tensor) -> Any:
        self.net[1].running_mean.add_(1.0)
        answer = super().encode(x)
        return answer[0] * 0, answer[1] * 0 + 1.0


class Global(Good):
    def encode(self, x: Tensor) -> Any:
        torch.rand(1)
        return super().encode(x)


class PythonsRandom(Good):
    def decode(self, z: Tensor) -> Any:
        random.random()
        return super().decode(z)


class Retyped(Good):
    @contextmanager
    def session(self) -> Iterator[None]:
        with super().session():
            yield
        self.back.double()


class Swallows(Good):
    @contextmanager
    def session(self) -> Iterator[None]:
        with super().session(), suppress(Exception):
            yield


class WrongCode(Good):
    def decode(self, z: Tensor) -> Any:
        return super().decode(torch.cat([z, z], dim=1))


class RandomDecoder(Good):
    def decode(self, z: Tensor) -> Any:
        return super().decode(z) + torch.randn(len(z), 6, generator=GENERATOR)


class MixesCodes(Good):
    def decode(self, z: Tensor) -> Any:
        return super().decode(z - z.mean(dim=0))


class WritesCodes(Good):
    def decode(self, z: Tensor) -> Any:
        return super().decode(z.detach().clamp_(-0.01, 0.01))


class OtherShape(Good):
    def decode(self, z: Tensor) -> Any:
        return super().decode(z)[:, :5]


class ShortContext(Good):
    def context(self, x: Tensor) -> Tensor:
        return x[:1]

    def decode(self, z: Tensor, context: Any = None) -> Any:
        return super().decode(z)


class BadLikelihood(Good):
    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return -(x**2)


class BadPrior(Good):
    prior = (np.zeros(3), np.ones(3))


class OneString(Good):
    notes = "a sentence"
    description = 3


FAULTS = {
    NoRow: "encode: no posterior",
    SignedScale: "positive scale:",
    Infinite: "finite:",
    Noisy: "determinism: two calls of encode",
    BatchStatistics: "batch independence: row 0",
    Squeezed: "batch of one: encode",
    Writes: "aliasing: encode wrote into its input",
    Reuses: "aliasing: a later call of encode overwrote",
    Integers: "type: the means are torch.int64",
    NoGrad: "gradient mode: encode left it switched",
    TrainsOn: "training flags: 4 modules",
    Running: "parameters: weights or buffers were changed",
    Global: "random state: torch's",
    PythonsRandom: "random state: Python's",
    Retyped: "device: parameters were left",
    Swallows: "session: it swallows",
    WrongCode: "decode: it does not take codes of encode's shape (2,)",
    RandomDecoder: "determinism: two calls of decode",
    MixesCodes: "batch independence: decode's",
    WritesCodes: "aliasing: decode wrote into the codes",
    OtherShape: "target: decode returns (8, 5) where the data are (8, 6)",
    ShortContext: "context: 1 rows for 8 samples",
    BadLikelihood: "log_likelihood:",
    BadPrior: "prior: it cannot be used",
    OneString: "notes: they have to be a tuple",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_found_by_its_own_message(fault: type[Good]) -> None:
    state, grad = torch.get_rng_state(), torch.is_grad_enabled()
    with pytest.raises(AdapterFault) as caught:
        check_adapter(fault(), X)
    message = FAULTS[fault]
    assert message in str(caught.value)
    # Its own: no other class's message stands for it.
    others = [text for other, text in FAULTS.items() if other is not fault]
    assert not any(text in str(caught.value) for text in others), str(caught.value)
    assert torch.is_grad_enabled() == grad
    assert torch.equal(torch.get_rng_state(), state)


def test_faults_are_told_together() -> None:
    class Two(OneString, WritesCodes):
        pass

    with pytest.raises(AdapterFault, match="3 fault") as caught:
        check_adapter(Two(), X)
    assert "aliasing: decode" in str(caught.value)
    assert "description" in str(caught.value)


def test_one_sample_is_too_few() -> None:
    with pytest.raises(InputError, match="compares rows"):
        check_adapter(Good(), X[:1])


@pytest.mark.parametrize("family", MODELS)
def test_every_family_that_the_door_takes_passes(family: str) -> None:
    check_adapter(MODELS[family][0], data(8))


class FullCovariance(Good):
    def encode(self, x: Tensor) -> Any:
        mean, scale = super().encode(x)
        factor = torch.diag_embed(scale)
        factor[:, 1, 0] = 0.1
        return torch.distributions.MultivariateNormal(mean, scale_tril=factor, validate_args=False)


class NoisyFactor(FullCovariance):
    """Its means are the same from call to call: only the covariance is not."""

    def encode(self, x: Tensor) -> Any:
        found = super().encode(x)
        noise = 0.05 * torch.rand(len(x), 1, 1, generator=GENERATOR)
        factor = found.scale_tril * (1 + noise)
        return torch.distributions.MultivariateNormal(found.loc, scale_tril=factor)


class BatchClasses(Good):
    def encode(self, x: Tensor) -> Any:
        logits = torch.stack([x[:, :2], x[:, 2:4]], dim=1)
        return torch.distributions.OneHotCategorical(logits=logits - logits.mean(dim=0))

    def decode(self, z: Tensor) -> Any:
        return torch.cat([z.flatten(1), z[:, 0]], dim=1)


class NotFinite(FullCovariance):
    def encode(self, x: Tensor) -> Any:
        found = super().encode(x)
        loc = torch.where(x[:, :2] > 1.2, torch.nan, found.loc)
        return torch.distributions.MultivariateNormal(
            loc, scale_tril=found.scale_tril, validate_args=False
        )

    def decode(self, z: Tensor) -> Any:
        return self.back(torch.nan_to_num(z))


class ReusesClasses(BatchClasses):
    kept: dict[int, Tensor] = {}  # noqa: RUF012

    def encode(self, x: Tensor) -> Any:
        logits = torch.log_softmax(torch.stack([x[:, :2], x[:, 2:4]], dim=1), dim=-1)
        kept = self.kept.setdefault(len(x), torch.empty_like(logits))
        kept.copy_(logits)
        found = torch.distributions.OneHotCategorical(logits=logits)
        found._categorical.logits = kept
        return found


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (NoisyFactor, "determinism: two calls of encode"),
        (BatchClasses, "batch independence: row 0"),
        (NotFinite, "finite: the posterior has a parameter that is NaN or infinite in rows"),
        (ReusesClasses, "aliasing: a later call of encode overwrote"),
    ],
)
def test_faults_of_other_families_are_found(fault: type[Good], message: str) -> None:
    with pytest.raises(AdapterFault, match="1 fault") as caught:
        check_adapter(fault(), X)
    assert message in str(caught.value)


def test_full_covariance_passes() -> None:
    check_adapter(FullCovariance(), X)


def test_a_hierarchical_model_is_an_error_by_name() -> None:
    with pytest.raises(InputError, match="models with one code"):
        check_adapter(Ladder(), Ladder().sample(8))
