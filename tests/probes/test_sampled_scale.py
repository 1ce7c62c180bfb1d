"""A sampler that draws what is declared passes at its level; the published bug does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch import distributions as D

import collapsekit as ck

Law = Callable[[Tensor], D.Distribution]
PROBES = [ck.probes.SampledScale()]


class VAE(nn.Module):
    """An encoder that is fixed by its weights, a sampler to be overridden."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.inner, self.outer = nn.Linear(6, 6), nn.Linear(3, 6)

    def encode(self, x: Tensor) -> dict[str, Tensor]:
        mean, logvar = self.inner(x).chunk(2, dim=1)
        return {"mean": mean, "logvar": logvar - 1.0}

    def decode(self, z: Tensor) -> Tensor:
        return self.outer(z)

    def reparameterize(self, mean: Tensor, logvar: Tensor) -> Tensor:
        return mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)

    def forward(self, x: Tensor) -> Tensor:
        code = self.encode(x)
        return self.decode(self.reparameterize(code["mean"], code["logvar"]))


class LogvarAsScale(VAE):
    """The published bug: mean + logvar * eps, with the KL computed from exp(logvar)."""

    def reparameterize(self, mean: Tensor, logvar: Tensor) -> Tensor:
        return mean + logvar * torch.randn_like(mean)


class OnlyWhileTraining(VAE):
    """Returns the mean in evaluation mode, as many do."""

    def reparameterize(self, mean: Tensor, logvar: Tensor) -> Tensor:
        return super().reparameterize(mean, logvar) if self.training else mean


class HandedAScale(VAE):
    """Its sampler takes a standard deviation: calling it with the log-variance would be wrong."""

    def reparameterize(self, mean: Tensor, std: Tensor) -> Tensor:
        return mean + std * torch.randn_like(mean)

    def forward(self, x: Tensor) -> Tensor:
        code = self.encode(x)
        return self.decode(self.reparameterize(code["mean"], (0.5 * code["logvar"]).exp()))


class Shifted(VAE):
    def reparameterize(self, mean: Tensor, logvar: Tensor) -> Tensor:
        return super().reparameterize(mean, logvar) + 0.5


class Cancelling(VAE):
    """Too wide for half of the samples, too narrow for the other: dimension by dimension right."""

    def reparameterize(self, mean: Tensor, logvar: Tensor) -> Tensor:
        half = torch.arange(len(mean)) % 2 == 0
        factor = torch.where(half, 1.3, (2 - 1.3**2) ** 0.5)[:, None]
        return mean + factor * torch.exp(0.5 * logvar) * torch.randn_like(mean)


def data(n: int = 300) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 6)).astype(np.float32)


def told(model: object, seed: int = 0, **more: object) -> tuple[ck.Audit, ck.Finding]:
    audit = ck.audit(model, data(), probes=PROBES, seed=seed, **more)  # type: ignore[arg-type]
    (found,) = [f for f in audit.findings if f.code == "CK409"]
    return audit, found


@pytest.mark.parametrize("kind", [LogvarAsScale, Shifted, Cancelling])
def test_another_sampler_is_flagged(kind: type[VAE]) -> None:
    audit, found = told(kind())
    assert found.severity is ck.Severity.FAIL
    assert audit.verdict.name == "contradictory"


@pytest.mark.parametrize("kind", [VAE, OnlyWhileTraining, HandedAScale])
def test_an_honest_sampler_is_not(kind: type[VAE]) -> None:
    model = kind()
    audit, found = told(model)
    assert found.severity is ck.Severity.OK
    assert "have the declared means and widths" in found.message
    ratio = audit.number("sampled_scale_ratio")
    assert ratio.n == 256
    assert abs(ratio.value - 1) < 4 * (ratio.high - ratio.low) / 3.92
    assert "sampled_scale_ratio" in audit.dimensions
    assert model.training  # as it was found
    assert "reparameterize" not in vars(model)


def test_a_known_factor_is_measured() -> None:
    class Wide(VAE):
        def reparameterize(self, mean: Tensor, logvar: Tensor) -> Tensor:
            return mean + 1.5 * torch.exp(0.5 * logvar) * torch.randn_like(mean)

    ratio = told(Wide())[0].number("sampled_scale_ratio")
    assert abs(ratio.value - 1.5) < 4 * (ratio.high - ratio.low) / 3.92


class Adapter:
    """An adapter that shows its sampler, drawing from NumPy's generator."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :2].double(), torch.full((len(x), 2), 0.3, dtype=torch.float64)

    def sample_posterior(self, x: Tensor) -> np.ndarray:
        mean, scale = (a.numpy() for a in self.encode(x))
        return np.asarray(np.random.normal(mean, self.factor * scale))


def test_false_alarms_over_200_seeds_and_power() -> None:
    alarms = hits = covered = 0
    for seed in range(200):
        audit, found = told(Adapter(), seed)
        alarms += found.severity is not ck.Severity.OK
        ratio = audit.number("sampled_scale_ratio")
        covered += ratio.low <= 1 <= ratio.high
        hits += told(Adapter(1.25), seed)[1].severity is ck.Severity.FAIL if seed < 20 else 0
    assert alarms <= 2  # level 0.001: more than 2 of 200 have a chance of 0.001
    assert hits == 20
    assert covered >= 180  # 190 expected; fewer than 180 have a chance of 0.001


def test_the_global_generators_are_left_alone_and_draws_repeat() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    one, two = (told(model)[0] for model in (VAE(), VAE()))
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert one.number("sampled_scale_ratio") == two.number("sampled_scale_ratio")


def test_what_cannot_be_checked_is_told() -> None:
    _, found = told((lambda x: (x[:, :2], torch.ones(len(x), 2)), None))
    assert found.severity is ck.Severity.OK
    assert "shows no sampler" in found.message

    class Broken(VAE):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyError("labels")

    assert "forward pass failed: KeyError" in told(Broken())[1].message

    class Elsewhere(VAE):
        def forward(self, x: Tensor) -> Tensor:
            code = self.encode(x)
            return self.decode(self.reparameterize(code["mean"] + 3, code["logvar"]))

    assert "not called on the declared means" in told(Elsewhere())[1].message

    class Mean(VAE):
        def reparameterize(self, mean: Tensor, logvar: Tensor) -> Tensor:
            return mean

    assert "returned the mean" in told(Mean())[1].message


def test_the_plain_function() -> None:
    rng = np.random.default_rng(0)
    mean, scale = rng.normal(size=(500, 2)), np.full((500, 2), 0.2)
    z = mean[:, None] + 2 * scale[:, None] * rng.normal(size=(500, 4, 2))
    number = ck.probes.sampled_scale(z, mean, scale)
    assert number.low < 2 < number.high


def test_draws_that_are_not_finite_are_no_agreement() -> None:
    class Overflows(VAE):
        def reparameterize(self, mean: Tensor, logvar: Tensor) -> Tensor:
            z = super().reparameterize(mean, logvar)
            return torch.where(mean > 1.0, torch.nan, z)

    audit, found = told(Overflows())
    assert found.severity is ck.Severity.FAIL
    assert "not finite" in found.message
    assert 0 < len(found.samples) < 256
    assert audit.verdict.name == "contradictory"


def test_an_honest_sampler_that_single_precision_rounds() -> None:
    class NearlyDeterministic:
        """Codes of some hundreds, widths below the distance of neighbouring floats there."""

        def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
            mean = 100 * x[:, :2].float()
            return mean, torch.full_like(mean, 2e-6)

        def sample_posterior(self, x: Tensor) -> Tensor:
            mean, scale = self.encode(x)
            return mean + scale * torch.randn_like(mean)

    audit, found = told(NearlyDeterministic())
    assert found.severity is ck.Severity.OK
    assert "too coarse" in found.message
    assert audit.verdict.name != "contradictory"


class Declares:
    """Its posterior is the law that `law` makes of the means; it draws from that, or from `own`."""

    def __init__(self, law: Law, own: Law | None = None) -> None:
        self.law, self.own = law, own or law

    def encode(self, x: Tensor) -> D.Distribution:
        return self.law(x[:, :3].double())

    def sample_posterior(self, x: Tensor) -> Tensor:
        return self.own(x[:, :3].double()).sample()


def full(mean: Tensor, diagonal: bool = False) -> D.Distribution:
    factor = torch.tensor([[1.0, 0, 0], [0.8, 0.6, 0], [0.9, 0.3, 0.316]], dtype=torch.float64)
    if diagonal:
        factor = torch.diag(factor.square().sum(dim=1).sqrt())
    return D.MultivariateNormal(mean, scale_tril=factor.expand(len(mean), 3, 3))


def two_hills(mean: Tensor, apart: float = 1.0) -> D.Distribution:
    means = torch.stack([mean - apart, mean + apart], dim=1)
    which = D.Categorical(torch.ones(len(mean), 2, dtype=torch.float64))
    return D.MixtureSameFamily(which, D.Independent(D.Normal(means, 0.3), 1))


def skewed(mean: Tensor, width: float = 0.5) -> D.Distribution:
    return D.Independent(D.LogNormal(mean, torch.full_like(mean, width)), 1)


@pytest.mark.parametrize("law", [full, two_hills, skewed])
def test_laws_that_are_no_product_of_normals_raise_no_false_alarm(law: Law) -> None:
    """Their residuals are correlated, or not normal, and honest all the same."""
    for seed in range(3):  # at level 0.001 an alarm among these 9 has a chance of 0.01
        assert told(Declares(law), seed)[1].severity is ck.Severity.OK


@pytest.mark.parametrize(
    ("law", "own"),
    [
        (full, lambda mean: full(mean, diagonal=True)),  # marginals right, correlation lost
        (two_hills, lambda mean: two_hills(mean, 1.5)),
        (skewed, lambda mean: skewed(mean, 0.7)),
    ],
)
def test_another_law_than_the_declared_is_flagged(law: Law, own: Law) -> None:
    for seed in range(2):
        assert told(Declares(law, own), seed)[0].verdict.name == "contradictory"
