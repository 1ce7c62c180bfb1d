"""Modules as strangers write them: the same numbers from each, or an error that says why."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import collapsekit as ck
from collapsekit.adapters.evaluated import plain
from collapsekit.adapters.signed import absolute_scale
from collapsekit.adapters.torch_module import TorchModule
from collapsekit.errors import CollapsekitError, InputError, ModelError
from collapsekit.testing import check_adapter

X = np.random.default_rng(0).random((40, 6)).astype(np.float32)


class Base(nn.Module):
    """mean, logvar and a decoder, with weights that are the same in every subclass."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.inner = nn.Linear(6, 6)
            self.outer = nn.Linear(3, 6)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, logvar = self.inner(x).chunk(2, dim=1)
        return mean, logvar

    def draw(self, mean: Tensor, logvar: Tensor) -> Tensor:
        return mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)

    def decode(self, z: Tensor) -> Any:
        return torch.sigmoid(self.outer(z))


class Bare(Base):
    def encode(self, x: Tensor) -> Any:
        return self.heads(x)


class DrawFirst(Base):
    def encode(self, x: Tensor) -> Any:
        mean, logvar = self.heads(x)
        return self.draw(mean, logvar), mean, logvar


class DrawLast(Base):
    def encode(self, x: Tensor) -> Any:
        mean, logvar = self.heads(x)
        return mean, logvar, self.draw(mean, logvar)


class MeanTwice(Base):
    """In evaluation mode many models return the mean in the place of the draw."""

    def encode(self, x: Tensor) -> Any:
        mean, logvar = self.heads(x)
        return mean.clone(), mean, logvar


class Dictionary(Base):
    def encode(self, x: Tensor) -> Any:
        mean, logvar = self.heads(x)
        return {"z": self.draw(mean, logvar), "mu": mean, "log_var": logvar}


Answer = namedtuple("Answer", "z_mean z_log_var")


class FieldNames(Base):
    def encode(self, x: Tensor) -> Any:
        return Answer(*self.heads(x))


class Distribution(Base):
    def encode(self, x: Tensor) -> Any:
        mean, logvar = self.heads(x)
        return torch.distributions.Independent(
            torch.distributions.Normal(mean, (0.5 * logvar).exp()), 1
        )


class Diagonal:
    def __init__(self, mean: Tensor, logvar: Tensor) -> None:
        self.mean, self.logvar = mean, logvar
        self.std, self.var = torch.exp(0.5 * logvar), torch.exp(logvar)


class LatentDist(Base):
    def encode(self, x: Tensor) -> Any:
        answer = nn.Module()
        answer.latent_dist = Diagonal(*self.heads(x))  # type: ignore[assignment]
        return answer


class DistributionBeside(Base):
    def encode(self, x: Tensor) -> Any:
        mean, logvar = self.heads(x)
        q = torch.distributions.Normal(mean, (0.5 * logvar).exp())
        return q.rsample(), q


class ForwardOnly(Base):
    """No encode at all: (reconstruction, input, mean, logvar, loss)."""

    def forward(self, x: Tensor) -> Any:
        mean, logvar = self.heads(x)
        return self.decode(self.draw(mean, logvar)), x, mean, logvar, mean.sum()


class Nested(Base):
    def forward(self, x: Tensor) -> Any:
        mean, logvar = self.heads(x)
        return self.decode(mean), (mean, logvar)


class SampleThenForward(Base):
    """encode gives a draw only; forward shows the posterior."""

    def encode(self, x: Tensor) -> Any:
        return self.draw(*self.heads(x))

    def forward(self, x: Tensor) -> Any:
        mean, logvar = self.heads(x)
        return {"recon": self.decode(mean), "mean": mean, "logvar": logvar}


class FeaturesThenForward(Base):
    """The encoder submodule gives features; forward adds the heads."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Identity()

    def forward(self, x: Tensor) -> Any:
        mean, logvar = self.heads(self.encoder(x))
        return self.decode(mean), mean, logvar


SHAPES = [
    *(Bare, DrawFirst, DrawLast, MeanTwice, Dictionary, FieldNames, Distribution, LatentDist),
    *(DistributionBeside, ForwardOnly, Nested, SampleThenForward, FeaturesThenForward),
]


@pytest.mark.parametrize("kind", SHAPES, ids=lambda kind: kind.__name__)
def test_every_shape_in_the_wild_gives_the_same_posterior(kind: type[Base]) -> None:
    module = kind()
    check_adapter(module, X, parameterisation="logvar")
    audit = ck.audit(module, X, parameterisation="logvar", likelihood="bernoulli")
    with torch.no_grad():
        mean, logvar = Bare().heads(torch.from_numpy(X))
    expected = ck.probes.kl(mean, (0.5 * logvar).exp()).sum(axis=1)
    np.testing.assert_allclose(audit.samples["kl_total"], expected, rtol=1e-5)
    assert "swap_gap" in audit.summary.index
    assert module.training


def test_a_reading_that_is_not_plain_is_told() -> None:
    notes = ck.audit(ForwardOnly(), X, parameterisation="logvar").provenance["notes"]
    assert any("read from forward: places 2 and 3" in note for note in notes), notes
    assert any("by their names" in n for n in ck.audit(Dictionary(), X).provenance["notes"])


def test_a_name_is_a_declaration_and_can_be_overruled() -> None:
    class LogStd(Base):
        """A log standard deviation that is called logvar."""

        def encode(self, x: Tensor) -> Any:
            mean, logvar = self.heads(x)
            return {"mu": mean, "logvar": 0.5 * logvar}

    named = ck.audit(Dictionary(), X).number("rate").value
    assert ck.audit(LogStd(), X).number("rate").value != pytest.approx(named)
    mended = TorchModule(LogStd(), parameterisation="log_scale")
    assert ck.audit(mended, X).number("rate").value == pytest.approx(named)
    with pytest.raises(InputError, match="parameterisation"):
        TorchModule(LogStd(), parameterisation="sd")


# --- errors that give the readings ----------------------------------------------------------------


class SampleOnly(Base):
    def encode(self, x: Tensor) -> Any:
        return self.draw(*self.heads(x))


class Concatenated(Base):
    def encode(self, x: Tensor) -> Any:
        return self.inner(x)


class SampleAndLogvar(Base):
    def encode(self, x: Tensor) -> Any:
        mean, logvar = self.heads(x)
        return self.draw(mean, logvar), logvar


class ThreeAlike(Base):
    def encode(self, x: Tensor) -> Any:
        mean, logvar = self.heads(x)
        return mean, logvar, mean * logvar


class Two(Base):
    def encode(self, x: Tensor) -> Any:
        mean, logvar = self.heads(x)
        q = torch.distributions.Normal(mean, (0.5 * logvar).exp())
        return q, torch.distributions.Normal(torch.zeros_like(mean), 1.0)


class Contradicting(Base):
    def encode(self, x: Tensor) -> Any:
        mean, logvar = self.heads(x)
        return {"mean": mean, "logvar": logvar, "var": torch.exp(0.5 * logvar)}


class OtherFields(Base):
    def encode(self, x: Tensor) -> Any:
        return {"codes": self.heads(x)[0]}


class TwoOutputs(Bare):
    def decode(self, z: Tensor) -> Any:
        return super().decode(z), torch.ones(len(z), 6)


@pytest.mark.parametrize(
    "kind, texts",
    [
        (SampleOnly, ["one array", "a draw or a mean"]),
        (Concatenated, ["one array", "3 means followed by 3 scales", "twice its dimensions"]),
        (SampleAndLogvar, ["returns a draw", "place 0 changes"]),
        (ThreeAlike, ["more than one way", "mean at 0, scale at 1; or mean at 1, scale at 2"]),
        (Two, ["2 members are posteriors", "may be the prior"]),
        (Contradicting, ["logvar and var contradict"]),
        (OtherFields, ["no fields that name a posterior", "codes"]),
        (TwoOutputs, ["several things", "likelihoods in nats", "of the first alone"]),
    ],
)
def test_what_can_be_read_in_two_ways_is_an_error_with_both(
    kind: type[Base], texts: list[str]
) -> None:
    with pytest.raises(CollapsekitError) as caught:
        ck.audit(kind(), X, parameterisation="logvar")
    for text in texts:
        assert text in str(caught.value)


def test_signed_scale_heads() -> None:
    class Signed(Base):
        def encode(self, x: Tensor) -> Any:
            mean, s = self.heads(x - 0.5)
            return mean, s

    with torch.no_grad():
        mean, s = Signed().encode(torch.from_numpy(X))
    assert 0 < (s < 0).float().mean() < 1
    audit = ck.audit(absolute_scale(Signed()), X)
    np.testing.assert_allclose(
        audit.samples["kl_total"], ck.probes.kl(mean, s.abs()).sum(axis=1), rtol=1e-5
    )
    assert any("absolute value" in f.message for f in audit.findings)
    check_adapter(absolute_scale(Signed()), X)
    with pytest.raises(ModelError, match="logvar") as caught:
        ck.audit(Signed(), X[(s < 0).any(dim=1).numpy()])
    assert "absolute_scale" in str(caught.value)


def test_hard_wired_cuda_is_named_with_its_line() -> None:
    class Wired(Bare):
        def encode(self, x: Tensor) -> Any:
            return super().encode(x.cuda())

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU: the call works")
    with pytest.raises(ModelError, match="on a device by itself") as caught:
        ck.audit(Wired(), X)
    assert "x.cuda()" in str(caught.value)


def test_one_channel_in_channels_last_reaches_a_view() -> None:
    class Flattens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3, padding=1)

        def encode(self, x: Tensor) -> Any:
            h = self.conv(x).view(len(x), -1)
            return h[:, :3], torch.nn.functional.softplus(h[:, 3:6])

    images = np.random.default_rng(0).random((10, 4, 4, 1)).astype(np.float32)
    trap = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    trap = trap.as_strided(trap.shape, (16, 1, 4, 1))  # contiguous and channels-last at once
    assert trap.is_contiguous()
    assert trap.is_contiguous(memory_format=torch.channels_last)
    assert len(ck.audit(Flattens(), trap).samples) == 10
    check_adapter(Flattens(), trap)
    assert plain(trap).stride() == (16, 16, 4, 1)
    straight = torch.rand(2, 3, 4, 4)
    assert plain(straight) is straight  # nothing is copied without need


class Conditional(nn.Module):
    """encode(x, c), decode(z, c)."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.inner = nn.Linear(8, 4)
            self.outer = nn.Linear(4, 6)

    def encode(self, x: Tensor, c: Tensor) -> Any:
        mean, logvar = self.inner(torch.cat([x, c], dim=1)).chunk(2, dim=1)
        return {"mean": mean, "logvar": logvar}

    def decode(self, z: Tensor, c: Tensor) -> Any:
        return torch.sigmoid(self.outer(torch.cat([z, c], dim=1)))


CONDITION = np.eye(2, dtype=np.float32)[np.arange(40) % 2]


@pytest.mark.parametrize("data", [{"x": X, "c": CONDITION}, {"image": X, "label_map": CONDITION}])
def test_conditional_modules_take_their_condition_from_the_data(data: Any) -> None:
    module = Conditional()
    check_adapter(module, data)
    audit = ck.audit(module, data)
    with torch.no_grad():
        out = module.encode(torch.from_numpy(X), torch.from_numpy(CONDITION))
    expected = ck.probes.kl(out["mean"], (0.5 * out["logvar"]).exp()).sum(axis=1)
    np.testing.assert_allclose(audit.samples["kl_total"], expected, rtol=1e-5)
    assert {"swap_gap", "round_trip_r2"} <= {*audit.summary.index, *audit.dimensions.columns}


def test_a_condition_that_is_missing_is_asked_for() -> None:
    with pytest.raises(InputError, match="takes a condition") as caught:
        ck.audit(Conditional(), X)
    assert '"c": condition' in str(caught.value)


def test_an_optional_condition_may_be_left_out() -> None:
    class Optional(Base):
        def encode(self, x: Tensor, c: Tensor | None = None) -> Any:
            mean, logvar = self.heads(x if c is None else x + c)
            return {"mean": mean, "logvar": logvar}

    check_adapter(Optional(), X)
    plain_rate = ck.audit(Optional(), X).number("rate").value
    assert plain_rate == pytest.approx(ck.audit(Dictionary(), X).number("rate").value)
    with_c = ck.audit(Optional(), {"x": X, "c": np.ones((40, 1), np.float32)})
    assert with_c.number("rate").value != pytest.approx(plain_rate)
