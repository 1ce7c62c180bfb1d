"""The doctor says what can be seen and assumed, and finds a model that contradicts itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import collapsekit as ck
from collapsekit.doctor import inspect
from collapsekit.errors import InputError
from tests import models
from tests.families import MODELS, Model, data, full, mixture
from tests.test_groups import Ladder

X = np.random.default_rng(0).random((80, 6)).astype(np.float32)


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.inner = nn.Linear(6, 6)
            self.outer = nn.Linear(3, 6)

    def encode(self, x: Tensor) -> Any:
        mean, second = self.inner(x).chunk(2, dim=1)
        return mean, second

    def decode(self, z: Tensor) -> Any:
        return torch.sigmoid(self.outer(z))


class Right(Base):
    def reparameterize(self, mean: Tensor, logvar: Tensor) -> Tensor:
        return mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)


class ForgotHalf(Base):
    """exp(logvar) instead of exp(logvar / 2): the KL is computed from another width."""

    def reparametrize(self, mean: Tensor, logvar: Tensor) -> Tensor:
        return mean + torch.exp(logvar) * torch.randn_like(mean)


class TimesLogvar(Base):
    """ECOSYSTEM 3: mean + logvar * eps."""

    def reparameterize(self, mean: Tensor, logvar: Tensor) -> Tensor:
        return mean + logvar * torch.randn_like(mean)


class FromForward(Base):
    """The sampler takes a standard deviation, which forward makes from the log-variance."""

    def sample(self, mean: Tensor, std: Tensor) -> Tensor:
        return mean + std * torch.randn_like(std)

    def forward(self, x: Tensor) -> Any:
        mean, logvar = self.encode(x)
        return self.decode(self.sample(mean, torch.exp(0.5 * logvar)))


class OnlyWhenTraining(Base):
    def reparameterize(self, mean: Tensor, logvar: Tensor) -> Tensor:
        if not self.training:
            return mean
        return mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)


class SamplesN(Base):
    """sample(n) draws from the prior: no sampler of the posterior."""

    def sample(self, n: int) -> Tensor:
        return self.decode(torch.randn(n, 3))  # type: ignore[no-any-return]


class VarIsStd(Base):
    """A distribution of one's own, whose var holds a standard deviation."""

    def encode(self, x: Tensor) -> Any:
        mean, second = super().encode(x)
        return Own(mean, torch.exp(second))


class Own:
    def __init__(self, mean: Tensor, var: Tensor) -> None:
        self.mean, self.var = mean, var

    def sample(self) -> Tensor:
        return self.mean + self.var * torch.randn_like(self.mean)


class DrawsBeside(Base):
    def encode(self, x: Tensor) -> Any:
        mean, logvar = super().encode(x)
        return mean + torch.exp(logvar) * torch.randn_like(mean), mean, logvar


@pytest.mark.parametrize("kind", [Right, FromForward, OnlyWhenTraining])
def test_a_right_sampler_is_no_contradiction(kind: type[Base]) -> None:
    found = inspect(kind(), X, parameterisation="logvar")
    assert not found.faults, found
    sampler = next(line for line in found.capabilities if line.piece == "sampler")
    assert "of the declared standard deviation" in sampler.found


@pytest.mark.parametrize(
    "kind, texts",
    [
        (ForgotHalf, ["reparametrize draws with another width", 'parameterisation="log_scale"']),
        (TimesLogvar, ["another width", "multiplies its noise with what it calls a log-variance"]),
        (VarIsStd, ["distribution's sample draws with another width", 'parameterisation="scale"']),
        (DrawsBeside, ["own draw draws with another width", 'parameterisation="log_scale"']),
    ],
)
def test_declared_and_sampled_width_are_compared(kind: type[Base], texts: list[str]) -> None:
    module = kind()
    found = inspect(module, X, parameterisation="logvar")
    assert len(found.faults) == 1, found
    for text in texts:
        assert text in found.faults[0]
    assert module.training
    assert "reparameterize" not in vars(module)


def test_a_model_without_a_sampler() -> None:
    for module in (Base(), SamplesN()):
        found = inspect(module, X, parameterisation="logvar")
        assert not found.faults
        assert "none that could be called" in str(found)


def test_a_signed_second_output_gives_both_readings_and_their_kl() -> None:
    found = inspect(Base(), X)
    assert any("is negative, so it is no scale" in text for text in found.faults)
    fault = next(text for text in found.faults if "is negative" in text)
    assert 'parameterisation="logvar": KL' in fault
    assert "absolute_scale: KL" in fault
    assert [line.piece for line in found.readings] == ["scale", "variance", "logvar", "log_scale"]


def test_readings_have_their_kl() -> None:
    mean, scale = torch.full((80, 2), 1.0), torch.full((80, 2), 0.5)
    found = inspect(lambda x: (mean[: len(x)], scale[: len(x)]), X)
    # KL(N(1, s^2) || N(0, 1)) = (1 + s^2 - 1) / 2 - ln s, two dimensions
    told = {line.piece: line.found for line in found.readings}
    assert f"KL {2 * (0.125 + np.log(2)):.4g} nats a sample  <- this" in told["scale"]
    assert f"KL {2 * (0.25 + 0.5 * np.log(2)):.4g} nats" in told["variance"]


def test_what_is_missing_and_what_it_costs() -> None:
    found = str(inspect(lambda x: (x[:, :2], 0.5 + 0 * x[:, :2]), X))
    assert "decode" in found
    assert "swap gap, round trip" in found
    assert "prior=(mean, scale)" in found


def test_outputs_and_likelihood_are_held_against_each_other() -> None:
    assert 'likelihood="bernoulli"' in str(inspect(models.TinyVAE(), X))
    found = inspect(models.TinyVAE(), 2 * X - 1, likelihood="bernoulli")
    assert any("needs data in 0 to 1" in text for text in found.faults)


def test_a_random_encoder_and_a_failing_decoder() -> None:
    generator = torch.Generator().manual_seed(0)

    def encode(x: Tensor) -> Any:
        return x + torch.randn(x.shape, generator=generator), torch.ones_like(x)

    def decode(z: Tensor) -> Any:
        raise ValueError("no such width")

    faults = inspect((encode, decode), X).faults
    assert any("different means" in text for text in faults)
    assert any("no such width" in text for text in faults)


def test_without_data() -> None:
    with pytest.raises(InputError, match="no data to look"):
        inspect(models.TinyVAE())


def test_the_command_line(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from collapsekit.cli import app

    mean, scale = np.zeros((20, 2)), np.full((20, 2), 0.5)
    np.savez(tmp_path / "a.npz", mean=mean, scale=scale)
    np.savez(tmp_path / "b.npz", mean=mean, scale=np.where(np.arange(40).reshape(20, 2), 0.5, -1))
    right = CliRunner().invoke(app, ["doctor", f"posteriors:{tmp_path / 'a.npz'}"])
    assert right.exit_code == 0, right.output
    assert "Contradictions: none found" in right.output
    wrong = CliRunner().invoke(app, ["doctor", f"posteriors:{tmp_path / 'b.npz'}"])
    assert wrong.exit_code == 1
    assert "is negative, so it is no scale" in wrong.output
    trust = CliRunner().invoke(app, ["doctor", "scvi:nowhere", "--trust-code"])
    assert trust.exit_code == 2


@pytest.mark.parametrize("family", MODELS)
def test_every_family_that_the_door_takes_is_looked_at(family: str) -> None:
    found = inspect(MODELS[family][0], data(40))
    assert not found.faults, found
    pieces = [line.piece for line in found.assumptions]
    assert "posterior" in pieces or "second output" in pieces
    assert any(line.piece == "decode" and "fails" not in line.found for line in found.capabilities)


class Wide(Model):
    """Draws twice as wide as it declares."""

    def sample_posterior(self, x: Tensor) -> Tensor:
        q = self.encode(x)
        return q.mean + 2 * (q.sample() - q.mean)


class True_(Model):
    def sample_posterior(self, x: Tensor) -> Tensor:
        return self.encode(x).sample()  # type: ignore[no-any-return]


@pytest.mark.parametrize("posterior", [full, mixture])
def test_the_sampler_of_another_family_is_compared(posterior: Any) -> None:
    right, wrong = (inspect(kind(posterior), data(64)) for kind in (True_, Wide))
    assert not right.faults, right
    told = next(line.found for line in right.capabilities if line.piece == "sampler")
    assert "of the declared standard deviation" in told
    assert len(wrong.faults) == 1, wrong
    assert "sample_posterior draws with another width" in wrong.faults[0]
    low, high = re.findall(r"spread ([0-9.]+) to ([0-9.]+)", wrong.faults[0])[0]
    assert 1.9 < float(low) <= float(high) < 2.1  # 4,096 draws: a standard error of 0.01


def test_kl_of_a_family_is_its_closed_form() -> None:
    x = data(64)
    told = next(line for line in inspect(Model(full), x).assumptions if line.piece == "posterior")
    q = full(torch.as_tensor(x[:, :2]))
    p = torch.distributions.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    kl = float(torch.distributions.kl_divergence(q, p).mean())
    assert f"Gaussian with full covariance, KL {kl:.4g} nats" in told.found


def test_a_torch_module_may_return_any_family() -> None:
    class Covariant(Base):
        def encode(self, x: Tensor) -> Any:
            mean, second = super().encode(x)
            factor = torch.diag_embed(torch.exp(second))
            return torch.distributions.MultivariateNormal(mean, scale_tril=factor)

    found = inspect(Covariant(), X)
    assert not found.faults, found
    assert "torch distribution, MultivariateNormal" in str(found)
    audit = ck.audit(Covariant(), X, probes=[ck.probes.KL()])
    assert audit.number("rate").value > 0


def test_a_hierarchical_model_is_looked_at_group_by_group() -> None:
    found = inspect(Ladder(), Ladder().sample(50))
    assert not found.faults, found
    pieces = [line.piece for line in found.capabilities]
    assert {"z1: encode", "z1: generate", "z2: encode", "z2: generate"} <= set(pieces)

    class Broken(Ladder):
        def generate(self, draw: Any, n: int, context: Any) -> Tensor:
            draw("z1", self.above(n))
            raise ValueError("no such layer")

    faults = inspect(Broken(), Ladder().sample(50)).faults
    assert any("no such layer" in text for text in faults)
