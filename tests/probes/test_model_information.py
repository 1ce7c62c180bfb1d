"""The decoder's view against linear models, where it is known exactly."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import torch
from torch import Tensor

import collapsekit as ck
from collapsekit.intervals import wilson
from collapsekit.likelihoods import Bernoulli, Categorical, Gaussian
from collapsekit.probes.model_information import _spread
from tests import models


def test_pairwise_is_log_prob_of_every_pair() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(5, 2, 3, generator=rng, dtype=torch.float64)
    out = torch.rand(4, 2, 3, generator=rng, dtype=torch.float64)
    classes = torch.randn(4, 5, 2, 3, generator=rng, dtype=torch.float64)
    labels = torch.randint(0, 5, (5, 2, 3), generator=rng)
    got = Categorical().pairwise(classes, labels)
    expected = torch.stack(
        [Categorical().log_prob(o.expand(5, 5, 2, 3), labels) for o in classes], dim=1
    )
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    for likelihood, outputs in (
        (Gaussian(0.3), out),
        (Bernoulli(), out),
        (Bernoulli(logits=True), torch.logit(out)),
    ):
        got = likelihood.pairwise(outputs, x)
        expected = torch.stack(
            [likelihood.log_prob(o.expand(5, 2, 3).contiguous(), x) for o in outputs], dim=1
        )
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


def test_linear_models_have_it_in_closed_form() -> None:
    model = models.LinearVAE((1.0, 0.5, 0.2, 0.0))
    x = model.sample(1500, 0)
    audit = ck.audit(model, x, likelihood=("gaussian", 0.5))
    mean, scale = model.encode(x)
    exact = 0.5 * ((1 + mean**2) / scale**2 - 1 + 2 * scale.log()).sum(dim=1).numpy()
    rows = audit.samples["model_information"].dropna().astype(float)
    assert len(rows) == 1024
    got, exact = rows.to_numpy(), exact[rows.index]
    assert np.corrcoef(got, exact)[0, 1] > 0.98
    # sampling error of 2,048 shared draws: the mean of l_ik has that of its spread over draws
    assert got.mean() == pytest.approx(exact.mean(), rel=0.1)
    assert (got >= 0).all()


def test_the_plain_function() -> None:
    scores = np.random.default_rng(0).normal(size=(6, 50))
    expected = scipy.special.logsumexp(scores, axis=1) - np.log(50) - scores.mean(axis=1)
    np.testing.assert_allclose(ck.probes.model_information(scores), expected)
    assert (ck.probes.model_information(np.ones((3, 9))) == 0).all()


def truth(model: models.LinearVAE) -> float:
    """E KL(p(z) || p(z | x)) over the model's own samples."""
    lam, v = np.array(model.lam), model.widths.numpy()
    return float(0.5 * ((1 + lam * v) / v - 1 + np.log(v)).sum())


class Seeing(models.LinearVAE):
    """A decoder that scores a code itself, as teacher-forced ones do."""

    decode = None  # type: ignore[assignment]

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return Gaussian(self.scale).log_prob(models.LinearVAE.decode(self, z), x)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [models.LinearVAE, Seeing])
def test_the_interval_covers_the_closed_form(kind: type[models.LinearVAE]) -> None:
    model, likelihood = kind((4.0, 1.0, 0.0)), ("gaussian", 0.5)
    probes, hits, errors = [ck.probes.ModelInformation(draws=512)], 0, []
    for seed in range(40):
        x = models.LinearVAE(model.lam).sample(200, 50 + seed)
        declared = None if kind is Seeing else likelihood
        audit = ck.audit(model, x, likelihood=declared, probes=probes, seed=seed)
        number = audit.number("model_information")
        hits += number.low <= truth(model) <= number.high
        errors.append(number.value - truth(model))
        assert number.n == (128 if kind is Seeing else 200)
        assert "lower bound" in number.note
    assert hits >= 34  # 38 of 40 expected; 33 or fewer have a chance of 1 in 70 at 95 %
    # a lower bound in expectation
    assert np.mean(errors) < 2 * np.std(errors) / np.sqrt(40)


def test_sharp_posteriors_are_told_and_leave_no_upper_end() -> None:
    sharp = models.LinearVAE((4e4, 4e4))
    audit = ck.audit(
        sharp,
        sharp.sample(300, 0),
        likelihood=("gaussian", 0.5),
        probes=[ck.probes.ModelInformation()],
    )
    number = audit.number("model_information")
    assert number.low < truth(sharp)
    assert np.isnan(number.high)
    assert "no upper one" in number.note
    assert audit.number("saturated_fraction").value > 0.5
    found = [f for f in audit.findings if f.code == "CK405"]
    # far from collapse all the same: nothing is undecided
    assert [f.severity for f in found] == [ck.Severity.OK]


def test_a_small_reading_that_is_saturated_is_inconclusive() -> None:
    sharp = models.LinearVAE((4e4, 4e4))
    probe = ck.probes.ModelInformation(enough=1e9)
    audit = ck.audit(sharp, sharp.sample(300, 0), likelihood=("gaussian", 0.5), probes=[probe])
    found = [f for f in audit.findings if f.code == "CK405"]
    assert [f.severity for f in found] == [ck.Severity.INCONCLUSIVE]


class Lagging(models.LinearVAE):
    """A strong decoder and an encoder frozen at the prior."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        zeros = torch.zeros(len(x), len(self.lam), dtype=torch.float64)
        return zeros, torch.ones_like(zeros)


def side(audit: ck.Audit) -> str:
    return " ".join(f.message for f in audit.findings if f.code == "CK605")


def test_inference_collapse_and_model_collapse_are_told_apart() -> None:
    strong = Lagging((20.0, 5.0))
    audit = ck.audit(strong, strong.sample(500, 0), likelihood=("gaussian", 0.5))
    assert audit.verdict.name == "total"
    assert "only the inference is collapsed" in side(audit)
    dead = Lagging((0.0, 0.0))
    audit = ck.audit(dead, dead.sample(500, 0), likelihood=("gaussian", 0.5))
    assert audit.number("model_information").value == pytest.approx(0, abs=1e-9)
    assert "model itself is collapsed" in side(audit)
    healthy = models.LinearVAE((20.0, 5.0))
    audit = ck.audit(healthy, healthy.sample(500, 0), likelihood=("gaussian", 0.5))
    assert side(audit) == ""


class Tempered(models.LinearVAE):
    """The same decoder, encoded by what a training with KL weight `beta` ends at.

    q is p(z) p(x | z)^(1 / beta): variance 1 / (1 + lam / beta). The data have the variance
    w^2 + beta s^2 for which w is the decoder's optimum at this weight.
    """

    beta = 10.0

    @property
    def widths(self) -> Tensor:
        return 1 / (1 + torch.tensor(self.lam, dtype=torch.float64) / self.beta)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.widths * self.loadings * x.double() / (self.beta * self.scale**2)
        return mean, self.widths.sqrt().expand_as(mean)

    def sample(self, n: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(n, len(self.lam), generator=generator, dtype=torch.float64)
        return noise * (self.loadings**2 + self.beta * self.scale**2).sqrt()


def test_an_encoder_at_the_optimum_of_its_beta_does_not_lag() -> None:
    """Training it more changes nothing: beta keeps the code weak."""
    model = Tempered((5.0,))
    x = model.sample(1500, 0)
    audit = ck.audit(model, x, likelihood=("gaussian", 0.5), beta=model.beta)
    assert audit.number("rate").high < 1
    assert "the weight of the KL keeps the code weak" in side(audit)
    (finding,) = (f for f in audit.findings if f.code == "CK605")
    assert finding.advice.startswith("Lower beta")
    # The posterior that beta asks for is the encoder's: KL(p || q) by hand.
    mean, scale = model.encode(x)
    exact = float((0.5 * ((1 + mean**2) / scale**2 - 1) + scale.log()).sum(dim=1).mean())
    for name in ("tempered_information", "reverse_rate"):
        number = audit.number(name)
        assert number.low < exact < number.high, name
    assert "beta = 10" in audit.number("tempered_information").note


def test_an_encoder_behind_what_its_beta_asks_for_lags() -> None:
    strong = Lagging((200.0, 50.0))
    x = strong.sample(500, 0)
    audit = ck.audit(strong, x, likelihood=("gaussian", 0.5), beta=4.0)
    assert "only the inference is collapsed" in side(audit)


@pytest.mark.parametrize("beta", [None, 0.25, 0.5, 1.0])
def test_a_beta_that_the_likelihood_holds_or_that_is_small_tempers_nothing(
    beta: float | None,
) -> None:
    model = models.LinearVAE((5.0,), scale=0.5)
    audit = ck.audit(model, model.sample(100, 0), likelihood=("gaussian", 0.5), beta=beta)
    assert "tempered_information" not in audit.summary.index


def test_the_two_collapses_are_told_apart_by_a_decoder_that_sees_the_input() -> None:
    for lam, told in (((20.0, 5.0), "only the inference"), ((0.0, 0.0), "model itself")):

        class Both(Lagging, Seeing):
            pass

        audit = ck.audit(Both(lam), models.LinearVAE(lam).sample(400, 0))
        assert audit.verdict.name == "total"
        assert told in side(audit)


def test_it_needs_a_likelihood() -> None:
    model = models.LinearVAE((1.0,))
    audit = ck.audit(model, model.sample(50, 0))
    assert "no likelihood" in audit.skipped["model_information"]


def test_a_consistent_weak_model_is_no_inference_collapse() -> None:
    # rate 0.65 nats in one dimension: the reverse divergence is three times that, on both sides
    weak = models.LinearVAE((2.67,))
    audit = ck.audit(weak, weak.sample(2000, 0), likelihood=("gaussian", 0.5))
    assert audit.number("rate").value < 1
    assert audit.number("model_information").value > 1
    v = 1 / 3.67
    expected = 0.5 * ((1 + 2.67 * v) / v - 1 + np.log(v))
    reverse = audit.number("reverse_rate")
    assert abs(reverse.value - expected) < 4 * (reverse.high - reverse.low) / 3.92
    assert side(audit) == ""


def test_draws_saturate_samples_together() -> None:
    """The share's interval knows that all samples met the same draws; Wilson's alone does not."""
    sharp = models.LinearVAE((30.0, 30.0))
    probe, found = ck.probes.ModelInformation(draws=128), []
    for seed in range(60):
        audit = ck.audit(
            sharp,
            sharp.sample(400, seed),
            likelihood=("gaussian", 0.5),
            probes=[probe],
            seed=seed,
        )
        found.append(audit.number("saturated_fraction"))
    truth = np.mean([number.value for number in found])
    assert 0.1 < truth < 0.9
    hit = np.mean([number.low <= truth <= number.high for number in found])
    assert hit > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 60)
    alone = [wilson(round(number.value * number.n), number.n) for number in found]
    assert np.mean([low <= truth <= high for low, high in alone]) < 0.9


def test_a_draw_whose_output_is_not_finite_costs_itself_alone() -> None:
    class Breaks(models.LinearVAE):
        """Decodes codes far out in the first dimension, 2.3 % of the prior's, to nothing."""

        def decode(self, z: torch.Tensor) -> torch.Tensor:
            out = super().decode(z)
            return torch.where(z[:, :1] > 2.0, torch.nan, out)

    lam = (2.0, 0.5)
    x = models.LinearVAE(lam).sample(300, 0)
    x = x[x.abs().amax(dim=1) < 1.5]  # whose own codes are not there
    probes = [ck.probes.ModelInformation()]
    whole, broken = (
        ck.audit(kind(lam), x, likelihood=("gaussian", 0.5), probes=probes)
        for kind in (models.LinearVAE, Breaks)
    )
    told, number = (a.number("model_information") for a in (whole, broken))
    assert number.known
    assert number.n == told.n
    finding = next(f for f in broken.findings if "drawn from the prior" in f.message)
    assert "of 2,048 codes drawn from the prior" in finding.message
    dropped = int(finding.message.split("for ")[1].split(" of")[0])
    assert abs(dropped - 2048 * 0.02275) < 4 * np.sqrt(2048 * 0.02275)
    # What is left is the prior cut at two standard deviations: hardly another average.
    assert number.value == pytest.approx(told.value, rel=0.2)


def test_the_spread_over_draws_is_the_jackknife_of_a_mean() -> None:
    draws = np.random.default_rng(3).exponential(size=20)
    left = (draws.sum() - draws) / 19  # the mean without each
    np.testing.assert_allclose(_spread(left), draws.var(ddof=1) / 20)
