"""Likelihoods against torch.distributions, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import collapsekit as ck
from collapsekit.errors import InputError, ModelError
from collapsekit.likelihoods import (
    Bernoulli,
    Categorical,
    FromDistribution,
    Gaussian,
    as_likelihood,
    squared_error,
)

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(5, 2, 3, generator=GENERATOR, dtype=torch.float64)
OUT = torch.rand(5, 2, 3, generator=GENERATOR, dtype=torch.float64)
OTHER = torch.rand(5, 2, 3, generator=GENERATOR, dtype=torch.float64)


def summed(values: torch.Tensor) -> np.ndarray:
    return values.flatten(1).sum(dim=1).numpy()


def test_gaussian() -> None:
    normal = torch.distributions.Normal(OUT, 0.3)
    np.testing.assert_allclose(Gaussian(0.3).log_prob(OUT, X), summed(normal.log_prob(X)), 1e-12)
    other = torch.distributions.Normal(OTHER, 0.3)
    expected = summed(torch.distributions.kl_divergence(normal, other))
    np.testing.assert_allclose(Gaussian(0.3).divergence(OUT, OTHER), expected, 1e-12)


@pytest.mark.parametrize("logits", [False, True])
def test_bernoulli(logits: bool) -> None:
    out, other = (torch.logit(o) if logits else o for o in (OUT, OTHER))
    truth = torch.distributions.Bernoulli(probs=OUT, validate_args=False)
    likelihood = Bernoulli(logits)
    np.testing.assert_allclose(likelihood.log_prob(out, X), summed(truth.log_prob(X)), 1e-10)
    rival = torch.distributions.Bernoulli(probs=OTHER, validate_args=False)
    expected = summed(torch.distributions.kl_divergence(truth, rival))
    np.testing.assert_allclose(likelihood.divergence(out, other), expected, 1e-9)
    np.testing.assert_allclose(likelihood.mean(out), OUT, 1e-12)
    single = likelihood.log_prob(out.float(), X.float())
    assert single.dtype == torch.float64
    np.testing.assert_allclose(single, summed(truth.log_prob(X)), 1e-5)


def test_bernoulli_at_hard_outputs() -> None:
    hard = torch.tensor([[0.0, 1.0]])
    assert Bernoulli().log_prob(hard, torch.tensor([[0.0, 1.0]])).item() == 0.0
    assert Bernoulli().log_prob(hard, torch.tensor([[1.0, 0.0]])).item() == -200.0


def test_categorical() -> None:
    logits = torch.randn(4, 5, 7, generator=GENERATOR, dtype=torch.float64)
    other = torch.randn(4, 5, 7, generator=GENERATOR, dtype=torch.float64)
    x = torch.randint(0, 5, (4, 7), generator=GENERATOR)
    truth = torch.distributions.Categorical(logits=logits.movedim(1, -1))
    rival = torch.distributions.Categorical(logits=other.movedim(1, -1))
    np.testing.assert_allclose(Categorical().log_prob(logits, x), summed(truth.log_prob(x)), 1e-12)
    expected = summed(torch.distributions.kl_divergence(truth, rival))
    np.testing.assert_allclose(Categorical().divergence(logits, other), expected, 1e-12)
    assert torch.equal(Categorical().mean(logits), logits.argmax(dim=1))


def test_a_distribution_scores_itself() -> None:
    normal = torch.distributions.Normal(OUT, 0.3)
    got = FromDistribution().log_prob(normal, X)
    np.testing.assert_allclose(got, summed(normal.log_prob(X)), 1e-12)


def test_names() -> None:
    assert as_likelihood("bernoulli") == Bernoulli()
    assert as_likelihood("bernoulli_logits") == Bernoulli(logits=True)
    assert as_likelihood(("gaussian", 0.5)) == Gaussian(0.5)
    assert as_likelihood(None) is None
    assert as_likelihood(Gaussian(2.0)) == Gaussian(2.0)
    with pytest.raises(InputError, match="a Gaussian has a scale"):
        as_likelihood("gaussian")
    with pytest.raises(InputError, match="positive scale"):
        as_likelihood(("gaussian", 0.0))
    with pytest.raises(InputError, match="no such likelihood"):
        as_likelihood("poisson")


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ModelError, match="bernoulli_logits"):
        Bernoulli().log_prob(OUT - 1, X)
    with pytest.raises(InputError, match=r"data in \[0, 1\]"):
        Bernoulli().log_prob(OUT, X * 255)
    with pytest.raises(ModelError, match="data's shape"):
        Gaussian().log_prob(OUT[:, :1], X)
    with pytest.raises(ModelError, match="categorical"):
        Categorical().log_prob(OUT, X)


@pytest.mark.parametrize("kind", [torch.uint8, torch.bool, torch.float16, torch.bfloat16])
def test_narrow_types_hold_neither_squares_nor_sums(kind: torch.dtype) -> None:
    x, out = torch.zeros(2, 70_000), torch.ones(2, 70_000)
    if kind is not torch.bool:
        out *= 2
    truth = squared_error(out, x)
    assert truth[0] > 65_504  # where half precision ends
    assert torch.equal(squared_error(out.to(kind), x.to(kind)), truth)
    assert torch.equal(squared_error(x.to(kind), out.to(kind)), truth)
    if kind.is_floating_point:
        p = torch.full((2, 70_000), 0.25)
        got = Bernoulli().log_prob(p.to(kind), (x + 1).to(kind))
        np.testing.assert_allclose(got, 70_000 * np.log(0.25), rtol=1e-5)


@pytest.mark.parametrize("size", [1e20, 1e-25])
def test_squares_that_single_precision_cannot_hold(size: float) -> None:
    rng = np.random.default_rng(0)
    a, b = (torch.as_tensor(rng.normal(size=(7, 5)) * size, dtype=torch.float32) for _ in range(2))
    expected = ((a.double() - b.double()) ** 2).sum(dim=1)
    np.testing.assert_allclose(squared_error(a, b), expected, rtol=1e-6)
    scored = Gaussian(size).log_prob(a, b)
    told = torch.distributions.Normal(a.double(), size).log_prob(b.double()).sum(dim=1)
    np.testing.assert_allclose(scored, told, rtol=1e-6)


@pytest.mark.parametrize(
    ("x", "told"),
    [
        ([[0, 3]], "values from 0 to 3"),
        ([[-1, 2]], "from -1 to 2"),
        ([[0.5, 1.0]], "not all whole"),
    ],
)
def test_labels_that_are_no_classes_are_an_error(x: list[list[float]], told: str) -> None:
    labels = torch.as_tensor(x)
    for call in (Categorical().log_prob, Categorical().pairwise):
        with pytest.raises(InputError, match=told):
            call(torch.zeros(1, 3, 2), labels)
    whole = torch.tensor([[0.0, 2.0]])  # whole numbers of a floating type are classes
    assert Categorical().log_prob(torch.zeros(1, 3, 2), whole) == pytest.approx(-2 * np.log(3))


@pytest.mark.parametrize("shape", [(5,), (5, 0), (5, 0, 3)])
def test_outputs_without_classes_are_named(shape: tuple[int, ...]) -> None:
    output, law = torch.zeros(shape), Categorical()
    for call in (law.mean, law.smooth, lambda out: law.divergence(out, out)):
        with pytest.raises(ModelError, match=r"no classes(.|\n)*move the class axis"):
            call(output)


def test_samples_that_are_one_class_each() -> None:
    """Integers [N], logits [N, C]: nothing breaks off; probabilities move where classes jump."""
    weights = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    class OneClass:
        def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
            mean = torch.nn.functional.one_hot(x.long(), 5).double() @ weights
            return mean, torch.full_like(mean, 0.3)

        def decode(self, z: Tensor) -> Tensor:
            return 3 * z @ weights.T

    x = torch.randint(0, 5, (300,), generator=torch.Generator().manual_seed(1))
    audit = ck.audit(OneClass(), x, likelihood="categorical")
    assert audit.skipped == {}
    told = {f.code: f.message for f in audit.findings}
    assert "CK003" not in told
    assert "does not move" not in told["CK508"]
    # a class has no neighbours that noise could make of it
    robust, clean = (audit.number(f"{kind}round_trip_r2") for kind in ("robust_", ""))
    assert robust.value == pytest.approx(clean.value, abs=0.05)
    # Each class has one posterior mean, decoded as itself: ln of the softmax at the own logit.
    z = weights[x]
    expected = torch.log_softmax(3 * z @ weights.T, dim=1)[torch.arange(300), x]
    score = Categorical().log_prob(3 * z @ weights.T, x)
    torch.testing.assert_close(score, expected)
    pairs = Categorical().pairwise(3 * z @ weights.T, x)
    torch.testing.assert_close(pairs.diagonal(), expected)


class Smooth:
    """A likelihood of one's own that has a smooth side, of classes or not."""

    def __init__(self, **words: bool) -> None:
        vars(self).update(words)

    def log_prob(self, output: Tensor, x: Tensor) -> Tensor:
        return -squared_error(output, x)

    def mean(self, output: Tensor) -> Tensor:
        return output.round()

    def smooth(self, output: Tensor) -> Tensor:
        return output


@pytest.mark.parametrize("words", [{"classes": True}, {"classes": False}, {}])
def test_classes_are_what_the_likelihood_says(words: dict[str, bool]) -> None:
    """Noise is put on whatever is no class: its scale is a tenth of the range, here 30."""
    x = 100 * torch.rand(200, 2, generator=GENERATOR, dtype=torch.float64)

    class Scaled:
        def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x / 30, torch.full_like(x, 0.01)

        def decode(self, z: Tensor) -> Tensor:
            return 30 * z

    audit = ck.audit(Scaled(), x, likelihood=Smooth(**words), probes=["round_trip"])
    clean, robust = (audit.number(name).value for name in ("round_trip_r2", "robust_round_trip_r2"))
    if words.get("classes"):
        assert robust == clean
    else:  # 1 - (10 / 29)^2, noise against the spread of the data
        assert robust == pytest.approx(1 - 0.12, abs=0.03)
        assert clean > 0.99
