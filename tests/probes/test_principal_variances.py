"""The spectrum of the data against the decoder's variance: probabilistic PCA has the answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import collapsekit as ck
from collapsekit.probes.principal_variances import _at_most, _surely, spectrum, threshold
from tests import models

# Variances of the data in sixteen directions; the last twelve are noise of variance 0.25.
LAMBDA = np.array([6.0, 3.0, 1.5, 0.8, *[0.25] * 12])


class PPCA:
    """The maximum-likelihood linear VAE of N(0, diag(LAMBDA)) at a decoder variance s^2.

    Tipping & Bishop: w_j = lambda_j - s^2 clipped at 0; its posterior is exact.
    """

    def __init__(self, variance: float, dims: int = 8) -> None:
        self.variance, self.dims = variance, dims
        self.w = torch.tensor(np.maximum(LAMBDA[:dims] - variance, 0.0))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        width = self.variance / (self.variance + self.w)
        mean = x[:, : self.dims] * self.w.sqrt() / self.variance * width
        return mean, width.sqrt().expand_as(mean)

    def decode(self, z: Tensor) -> Tensor:
        out = torch.zeros(len(z), len(LAMBDA), dtype=torch.float64)
        out[:, : self.dims] = z * self.w.sqrt()
        return out


def data(n: int = 2000, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(n, len(LAMBDA))) * np.sqrt(LAMBDA))


def surely(held: np.ndarray, excess: list[float] | None = None) -> int:
    tails = np.zeros(len(held)) if excess is None else np.array(excess)
    return _surely(held, tails, 10_000, 1.0, 0.05)


def cause(audit: ck.Audit) -> ck.Finding:
    (found,) = [f for f in audit.findings if f.code == "CK406"]
    return found


@pytest.mark.parametrize(("variance", "used"), [(0.25, 4), (1.1, 3), (2.2, 2), (9.0, 0)])
def test_the_threshold_of_probabilistic_pca(variance: float, used: int) -> None:
    model = PPCA(variance)
    assert int((model.w > 0).sum()) == used
    audit = ck.audit(model, data(), likelihood=("gaussian", math.sqrt(variance)))
    number = audit.number("linear_dimensions")
    assert number.value == used
    assert number.low == used <= number.high <= 8
    assert audit.number("decoder_variance").value == pytest.approx(variance)
    found = cause(audit)
    assert found.severity is ck.Severity.WARN
    assert f"would use {used} of 8" in found.message
    assert "explains the collapse" in found.message


def test_a_weight_of_the_kl_multiplies_the_variance() -> None:
    # trained at s^2 = 0.25 with beta 4.4: as PPCA at a variance of 1.1
    model = PPCA(1.1)
    audit = ck.audit(model, data(), likelihood=("gaussian", 0.5), beta=4.4)
    assert audit.number("decoder_variance").value == pytest.approx(1.1)
    assert audit.number("linear_dimensions").value == 3
    assert audit.provenance["beta"] == 4.4
    # 0.5 SSE + beta KL is declared with scale sqrt(beta), which holds the weight already
    assert threshold(math.sqrt(0.1), 0.1) == pytest.approx(0.1)
    assert threshold(0.5, None) == threshold(0.5, 1.0) == 0.25
    with pytest.raises(ck.InputError, match="weight of the KL"):
        ck.audit(model, data(20), beta=-1.0)


def test_a_collapse_that_the_variance_does_not_explain() -> None:
    class Stuck(PPCA):
        def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
            zeros = torch.zeros(len(x), self.dims, dtype=torch.float64)
            return zeros, torch.ones_like(zeros)

    found = cause(ck.audit(Stuck(0.25), data(), likelihood=("gaussian", 0.5)))
    assert found.severity is ck.Severity.OK
    assert "another cause" in found.message
    whole = PPCA(0.25, dims=4)  # every dimension used: nothing to explain
    found = cause(ck.audit(whole, data(), likelihood=("gaussian", 0.5)))
    assert found.severity is ck.Severity.OK
    assert "would use 4 of 4 dimensions; this one uses 4." in found.message


def test_noise_is_not_counted_at_its_level() -> None:
    # 200 replications at level 0.05, all noise exactly at the threshold: 10 false counts expected
    false = 0
    for seed in range(200):
        x = np.random.default_rng(seed).normal(size=(400, 30))
        false += ck.probes.linear_dimensions(x, 1.0) > 0
    assert false <= 20  # P(more | 0.05) < 0.001


def test_noise_is_not_counted_beside_strong_directions() -> None:
    # What leaks from six strong directions into those found after them once made 40 of 200 false.
    strong = np.array([64.0] * 6 + [1.0] * 58)
    counts = []
    for seed in range(200):
        x = np.random.default_rng(seed).normal(size=(400, 64)) * np.sqrt(strong)
        counts.append(ck.probes.linear_dimensions(x, 1.0))
    assert sum(count > 6 for count in counts) <= 20
    assert min(counts) >= 6


def test_two_directions_that_share_a_variance_count_once() -> None:
    # Both halves of one strong axis exceed the bar by themselves; there is one variance above it.
    turned = np.array([[1.0, 1.0], [1.0, -1.0]]) / math.sqrt(2)
    held = turned @ np.diag([8.0, 0.5]) @ turned.T
    assert (np.diagonal(held) > 4.0).all()
    assert surely(held) == 1
    assert surely(np.diag([8.0, 2.0, 0.5, 3.0])) == 2
    assert surely(np.diag([8.0, 2.0])) == 2
    # 10,000 rows of an excess of 20,000 are worth one normal row: a bar of 3.8 from there on
    assert surely(np.diag([8.0, 5.0, 2.0, 2.0]), [0.0, 2e4, 0.0, 0.0]) == 2
    assert surely(np.diag([8.0, 3.0, 2.0, 2.0]), [0.0, 2e4, 0.0, 0.0]) == 1
    assert surely(np.diag([8.0, 2.0, 5.0, 8.0]), [0.0, 0.0, 2e4, 0.0]) == 2


@pytest.mark.parametrize("kind", ["outliers", "rare", "student"])
def test_heavy_tails_are_not_counted_at_the_level_of_the_bar(kind: str) -> None:
    """All variances at the bar; a chi-square's level was exceeded five times over (rare: 0.27)."""
    false = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        if kind == "outliers":  # a twentieth of the rows is five times as wide
            x = rng.normal(size=(200, 20)) * np.where(rng.random((200, 1)) < 0.05, 5, 1)
            variance = 2.2
        elif kind == "rare":  # pixels that are on in 2 % of the images
            x, variance = (rng.random((200, 20)) < 0.02).astype(float), 0.02 * 0.98
        else:
            x, variance = rng.standard_t(3, size=(200, 20)), 3.0
        false += ck.probes.linear_dimensions(x, math.sqrt(variance)) > 0
    assert false <= 24  # of 200: asked for are 10; once 43 to 60


def test_lighter_tails_leave_the_power() -> None:
    strong = np.sqrt(np.array([2.0] * 6 + [0.3] * 14))
    x = np.random.default_rng(0).standard_t(8, size=(1000, 20)) / math.sqrt(8 / 6) * strong
    assert ck.probes.linear_dimensions(x, 1.0) == 6


def test_held_out_variances_do_not_read_high() -> None:
    held, inside = [], []
    for seed in range(200):
        first, outside, _ = spectrum(data(200, seed))
        held.append(outside[0, 0])
        inside.append(first[0])
    error = np.std(held) / math.sqrt(200)
    assert np.mean(held) < 6.0 + 3 * error
    assert np.mean(inside) > np.mean(held)
    table = np.linalg.eigvalsh(np.cov(data(200).numpy().T))[::-1]
    np.testing.assert_allclose(spectrum(data(200))[0], table, rtol=1e-9)
    wide = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 100)))
    table = np.linalg.eigvalsh(np.cov(wide.numpy().T))[::-1]
    np.testing.assert_allclose(spectrum(wide)[0], table[: len(spectrum(wide)[0])], rtol=1e-9)


def test_other_likelihoods_have_no_variance_to_compare() -> None:
    module = models.TinyVAE().double()
    x = np.random.default_rng(0).random((61, 6))
    for likelihood in ("bernoulli", None):
        audit = ck.audit(module, x, likelihood=likelihood)
        assert "linear_dimensions" not in audit.summary.index
        assert "principal_variances" not in audit.skipped
        assert not [f for f in audit.findings if f.code == "CK406"]


def test_few_rows_are_not_taken_for_an_explanation() -> None:
    # Every variance is 1.1 times the decoder's, so a linear model would use all eight dimensions;
    # forty rows cannot show a single one for sure.
    class Stuck(PPCA):
        def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
            zeros = torch.zeros(len(x), self.dims, dtype=torch.float64)
            return zeros, torch.ones_like(zeros)

    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(40, len(LAMBDA))) * np.sqrt(1.1 * 0.25))
    audit = ck.audit(Stuck(0.25), x, likelihood=("gaussian", 0.5))
    number = audit.number("linear_dimensions")
    assert number.value < 8 == number.high
    assert "as far as 40 rows tell (at most 8)" in cause(audit).message
    # 12 rows show five components: that there are no more of them they cannot say
    few = ck.audit(Stuck(0.25), 3 * x[:12], likelihood=("gaussian", 0.5))
    assert few.number("linear_dimensions").high == 8


def test_rows_that_cannot_show_as_many_directions_explain_nothing() -> None:
    """White noise of four times the bar in 60 directions: a linear model would use all 60."""

    class Half(PPCA):
        def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
            mean = torch.cat([0.9 * x[:, :50], 0 * x[:, 50:]], dim=1)
            return mean, torch.where(torch.arange(60) < 50, 0.4, 1.0).double().expand_as(mean)

        def decode(self, z: Tensor) -> Tensor:
            return z

    x = np.random.default_rng(0).normal(size=(100, 60))
    audit = ck.audit(Half(0.25), x, likelihood=("gaussian", 0.5))
    number = audit.number("linear_dimensions")
    assert number.value <= 50 < number.high == 60
    assert cause(audit).severity is ck.Severity.INCONCLUSIVE
    assert "is not settled, for 100 rows cannot show 60 directions" in cause(audit).message


def test_no_idle_unit_is_none_to_explain() -> None:
    """Collapsed for half of the samples, in every dimension: all units are active."""

    class Local(PPCA):
        def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
            on = (torch.arange(len(x)) % 2 == 0)[:, None]
            mean = torch.where(on, x[:, :3], 0.0)
            return mean, torch.where(on, 0.1, 1.0).double().expand_as(mean)

        def decode(self, z: Tensor) -> Tensor:
            return torch.nn.functional.pad(z, (0, 13))

    audit = ck.audit(Local(1.1), data(600), likelihood=("gaussian", 1.7), batch=600)
    assert audit.verdict.name == "local"
    assert audit.number("active_units").value == 3
    assert cause(audit).severity is ck.Severity.OK
    assert "idle" not in cause(audit).message
    assert "explains" not in cause(audit).message


def test_the_upper_end_covers_what_a_few_rows_hide() -> None:
    # All eight exceed the bar by a hair, and half of the sample's variances read below it.
    rng = np.random.default_rng(0)
    for n in (40, 200, 1000):
        x = torch.from_numpy(rng.normal(size=(n, 8)) * np.sqrt(1.01))
        inside, *_ = spectrum(x)
        assert (inside > 1.0).sum() < 8
        assert _at_most(inside, n, 1.0, 0.05) == 8
    # and it is not everything: half of these lie far below
    x = torch.from_numpy(rng.normal(size=(1000, 8)) * np.sqrt([2.0] * 4 + [0.3] * 4))
    assert _at_most(spectrum(x)[0], 1000, 1.0, 0.05) == 4


def test_a_collapse_that_the_variance_explains_in_part() -> None:
    class Half(PPCA):  # uses two of the four dimensions that the linear optimum uses
        def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
            mean, scale = super().encode(x)
            idle = torch.arange(self.dims) >= 2
            return mean.masked_fill(idle, 0.0), scale.masked_fill(idle, 1.0)

    found = cause(ck.audit(Half(0.25), data(), likelihood=("gaussian", 0.5)))
    assert found.severity is ck.Severity.OK
    assert "at most 4 of the 6 idle dimensions; at least 2 have another cause" in found.message


def test_what_a_condition_explains_is_no_variance_for_the_code() -> None:
    """x = c + noise of the decoder's own variance: nothing is left for a code to tell, and the
    variance between conditions does not say that something else made it idle."""

    class Given:
        likelihood = ("gaussian", 0.5)

        def context(self, batch: dict[str, Tensor]) -> Tensor:
            return batch["c"]

        def target(self, batch: dict[str, Tensor]) -> Tensor:
            return batch["x"]

        def encode(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            still = torch.zeros(len(batch["x"]), 2, dtype=torch.float64)
            return still, still + 1

        def decode(self, z: Tensor, c: Tensor) -> Tensor:
            return c[:, None] + 0 * z

    rng = np.random.default_rng(0)
    c = 3.0 * (rng.integers(0, 3, size=400) - 1)
    x = c[:, None] + 0.5 * rng.normal(size=(400, 2))
    audit = ck.audit(Given(), {"x": x, "c": c})
    assert "what the condition explains" in audit.skipped["principal_variances"]
    assert not [f for f in audit.findings if f.code == "CK406"]
