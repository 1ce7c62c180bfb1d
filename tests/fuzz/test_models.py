"""Models that misbehave on some samples, some batches or always: noticed, or harmless."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import collapsekit as ck
from tests.fuzz.harness import FEW, explained, fuzz, lost, named_errors

N, P, D = 24, 3, 2
GENERATOR = torch.Generator().manual_seed(0)
W = torch.randn(D, P, generator=GENERATOR)
X = torch.randn(N, P, generator=GENERATOR)
X[:, 0] = torch.arange(N) / N  # by which a model knows a sample

Fault = Callable[[torch.Tensor, torch.Tensor], Any]


def mark(x: torch.Tensor) -> torch.Tensor:
    """The number of each sample."""
    return torch.round(x[:, 0] * N).long()


@dataclass
class Model:
    """A linear VAE with a fault: `encoded` and `decoded` may change what it returns."""

    encoded: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], Any]
    decoded: Callable[[torch.Tensor, torch.Tensor], Any]
    calls: int = 0

    def encode(self, x: torch.Tensor) -> Any:
        self.calls += 1
        mean = x @ W.T
        return self.encoded(x, mean, torch.full_like(mean, 0.5))

    def decode(self, z: torch.Tensor) -> Any:
        return self.decoded(z, z @ W.to(z.dtype))


def fine(x: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor) -> Any:
    return mean, scale


def fine_too(z: torch.Tensor, out: torch.Tensor) -> Any:
    return out


BAD = (float("nan"), float("inf"), -float("inf"), 1e300)


@given(
    rows=st.sets(st.integers(0, N - 1), max_size=N),
    value=st.sampled_from([*BAD[:3], 0.0, -1.0]),
    where=st.sampled_from(["mean", "scale"]),
    batch=st.integers(1, N),
)
@fuzz(5)
def test_bad_posteriors_of_some_rows(rows: set[int], value: float, where: str, batch: int) -> None:
    """Exactly these samples are named, and the others are measured as without them."""

    def encoded(x: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor) -> Any:
        bad = torch.isin(mark(x), torch.tensor(sorted(rows), dtype=torch.long))
        target = mean if where == "mean" else scale
        target[bad] = value
        return mean, scale

    harmless = where == "mean" and np.isfinite(value)
    with named_errors() as errors:
        audit = ck.audit(Model(encoded, fine_too), X, probes=FEW, batch=batch)
        explained(audit)
        assert lost(audit) == (set() if harmless else rows)
        kl = audit.samples["kl_total"]
        assert set(np.flatnonzero(kl.isna())) == (set() if harmless else rows)
        if not harmless and 0 < len(rows) < N - 1:
            keep = [i for i in range(N) if i not in rows]
            alone = ck.audit(Model(fine, fine_too), X[keep], probes=FEW)
            ours, theirs = audit.number("rate"), alone.number("rate")
            assert ours.value == pytest.approx(theirs.value, rel=1e-9)
            assert ours.n == len(keep)
    first = set(range(batch))  # on which the model is tried
    assert bool(errors) == (not harmless and first <= rows)


@given(rows=st.sets(st.integers(0, N - 1), min_size=1, max_size=5), batch=st.integers(1, N))
@fuzz(8)
def test_exceptions_of_some_rows(rows: set[int], batch: int) -> None:
    def encoded(x: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor) -> Any:
        if torch.isin(mark(x), torch.tensor(sorted(rows))).any():
            raise ZeroDivisionError("one of those")
        return mean, scale

    with named_errors() as errors:
        audit = ck.audit(Model(encoded, fine_too), X, probes=FEW, batch=batch)
        explained(audit)
        assert lost(audit) == rows
    # The first samples are rehearsed on; a model that fails there has no way to begin.
    assert not errors or 0 in rows or 1 in rows


@dataclass
class Odd:
    """Kinds of outputs that are no posterior, or one in an odd form."""

    name: str
    make: Callable[[torch.Tensor, torch.Tensor], Any]


ODD_POSTERIORS = [
    Odd("nothing", lambda mean, scale: None),
    Odd("a number", lambda mean, scale: 3.0),
    Odd("a string", lambda mean, scale: "posterior"),
    Odd("the mean alone", lambda mean, scale: mean),
    Odd("three things", lambda mean, scale: (mean, scale, scale)),
    Odd("no things", lambda mean, scale: ()),
    Odd("one row less", lambda mean, scale: (mean[:-1], scale[:-1])),
    Odd("one row more", lambda mean, scale: (torch.cat([mean, mean[:1]]), scale)),
    Odd("two shapes", lambda mean, scale: (mean, scale[:, :1])),
    Odd("no dimensions", lambda mean, scale: (mean[:, :0], scale[:, :0])),
    Odd("rows summed", lambda mean, scale: (mean.sum(), scale.sum())),
    Odd("turned", lambda mean, scale: (mean.T, scale.T)),
    Odd("complex", lambda mean, scale: (mean + 1j, scale)),
    Odd("integers", lambda mean, scale: (mean.long(), scale.long() + 1)),
    Odd("bools", lambda mean, scale: (mean > 0, scale > 0)),
    Odd("half", lambda mean, scale: (mean.half(), scale.half())),
    Odd("bfloat16", lambda mean, scale: (mean.bfloat16(), scale.bfloat16())),
    Odd("double", lambda mean, scale: (mean.double(), scale.double())),
    Odd("with a gradient", lambda mean, scale: (mean.requires_grad_() * 1, scale)),
    Odd("NumPy", lambda mean, scale: (mean.numpy(), scale.numpy())),
    Odd("big endian", lambda mean, scale: (mean.numpy().astype(">f8"), scale.numpy())),
    Odd("turned NumPy", lambda mean, scale: (mean.numpy()[:, ::-1], scale.numpy())),
    Odd("lists", lambda mean, scale: (mean.tolist(), scale.tolist())),
    Odd("objects", lambda mean, scale: (np.array([None] * len(mean)), scale)),
    Odd("strings", lambda mean, scale: (np.array(["a"] * len(mean)), scale)),
    Odd("sparse", lambda mean, scale: (mean.to_sparse(), scale)),
    Odd("meta", lambda mean, scale: (mean.to("meta"), scale.to("meta"))),
    Odd("a mapping", lambda mean, scale: {"mean": mean, "scale": scale}),
    Odd("a named mean", lambda mean, scale: type("Q", (), {"mean": mean, "stddev": scale})()),
    Odd("a Normal", lambda mean, scale: torch.distributions.Normal(mean, scale)),
    Odd("a Laplace", lambda mean, scale: torch.distributions.Laplace(mean, scale)),
    Odd("four axes", lambda mean, scale: (mean[:, :, None, None], scale[:, :, None, None])),
    Odd("one constant scale", lambda mean, scale: (mean, torch.ones(D))),
    Odd("a shared view", lambda mean, scale: (mean, torch.ones(1, 1).expand_as(mean))),
    Odd("tiny scales", lambda mean, scale: (mean, scale * 1e-44)),
    Odd("huge scales", lambda mean, scale: (mean, scale.double() * 1e300)),
    Odd("huge means", lambda mean, scale: (mean.double() * 1e200, scale)),
    Odd("constant", lambda mean, scale: (torch.zeros_like(mean), torch.ones_like(scale))),
]
#: What has no rows of numbers in it: these must be refused.
NEVER = {
    "nothing", "a number", "a string", "three things", "no things", "one row less",
    "one row more", "two shapes", "no dimensions", "rows summed", "turned", "complex", "objects",
    "strings", "sparse", "meta", "one constant scale", "a mapping", "the mean alone",
}  # fmt: skip


@pytest.mark.parametrize("odd", ODD_POSTERIORS, ids=lambda odd: odd.name)
def test_odd_posteriors(odd: Odd) -> None:
    def encoded(x: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor) -> Any:
        return odd.make(mean, scale)

    with named_errors() as errors:
        explained(ck.audit(Model(encoded, fine_too), X, probes=FEW))
    assert bool(errors) == (odd.name in NEVER)


ODD_OUTPUTS = [
    Odd("nothing", lambda z, out: None),
    Odd("a string", lambda z, out: "x"),
    Odd("two things", lambda z, out: (out, out)),
    Odd("one row less", lambda z, out: out[:-1]),
    Odd("no rows", lambda z, out: out.sum()),
    Odd("one value less", lambda z, out: out[:, :-1]),
    Odd("other axes", lambda z, out: out[:, :, None]),
    Odd("complex", lambda z, out: out + 1j),
    Odd("NaN", lambda z, out: out * float("nan")),
    Odd("one NaN", lambda z, out: torch.where(z[:, :1] > 1, float("nan"), out)),
    Odd("infinite", lambda z, out: torch.where(z[:, :1] > 0, float("inf"), out)),
    Odd("huge", lambda z, out: out.double() * 1e300),
    Odd("half", lambda z, out: out.half()),
    Odd("integers", lambda z, out: out.long()),
    Odd("with a gradient", lambda z, out: out.requires_grad_() * 1),
    Odd("NumPy", lambda z, out: out.numpy()),
    Odd("constant", lambda z, out: torch.zeros_like(out)),
    Odd("random", lambda z, out: torch.randn_like(out)),
    Odd("sparse", lambda z, out: out.to_sparse()),
    Odd("raises", lambda z, out: 1 / 0),
    Odd("raises on some", lambda z, out: out if (z < 2).all() else 1 / 0),
    Odd("a Normal", lambda z, out: torch.distributions.Normal(out, 1.0)),
    Odd("a broken Normal", lambda z, out: torch.distributions.Normal(out, -1.0)),
]


@pytest.mark.parametrize("likelihood", [None, ("gaussian", 0.5), "bernoulli", "bernoulli_logits"])
@pytest.mark.parametrize("odd", ODD_OUTPUTS, ids=lambda odd: odd.name)
def test_odd_reconstructions(odd: Odd, likelihood: Any) -> None:
    """The decoder's faults cost what needs the decoder; the encoder's numbers stay."""

    def decoded(z: torch.Tensor, out: torch.Tensor) -> Any:
        return odd.make(z, out)

    with named_errors() as errors:
        audit = ck.audit(Model(fine, decoded), X, probes=FEW, likelihood=likelihood)
        explained(audit)
        assert audit.number("rate").n == N
        assert not audit.samples["kl_total"].isna().any()
    if errors:  # what was declared does not fit what comes out: every number would be wrong
        assert odd.name in {
            "one value less", "other axes", "complex", "two things", "one row less", "no rows",
        } or likelihood in ("bernoulli", "bernoulli_logits"), str(errors[0])  # fmt: skip


def test_models_that_write_to_their_input_see_the_data_each_time() -> None:
    def encoded(x: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor) -> Any:
        x.fill_(float("nan"))
        return mean, scale

    before = X.clone()
    audit = ck.audit(Model(encoded, fine_too), X, probes=FEW)
    plain = ck.audit(Model(fine, fine_too), X, probes=FEW)
    torch.testing.assert_close(before, X, rtol=0, atol=0)
    assert audit.number("rate").value == pytest.approx(plain.number("rate").value, rel=1e-12)
    ours, theirs = (a.number("reconstruction_error") for a in (audit, plain))
    assert ours.value == pytest.approx(theirs.value, rel=1e-9), [f.message for f in audit.findings]


def test_models_that_write_to_their_codes() -> None:
    def decoded(z: torch.Tensor, out: torch.Tensor) -> Any:
        z.zero_()
        return out

    audit = ck.audit(Model(fine, decoded), X, probes=FEW)
    plain = ck.audit(Model(fine, fine_too), X, probes=FEW)
    for name in audit.summary.index:
        ours, theirs = audit.number(name), plain.number(name)
        assert ours.value == pytest.approx(theirs.value, rel=1e-9, nan_ok=True), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_models_that_return_one_buffer_again_and_again(dtype: torch.dtype) -> None:
    """As captured graphs do: what was returned changes with the next call."""
    means, outputs = torch.empty(N, D, dtype=dtype), torch.empty(N, P, dtype=dtype)

    def encoded(x: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor) -> Any:
        return means[: len(x)].copy_(mean), scale

    def decoded(z: torch.Tensor, out: torch.Tensor) -> Any:
        return outputs[: len(z)].copy_(out)

    audit = ck.audit(Model(encoded, decoded), X, batch=5)
    plain = ck.audit(Model(fine, fine_too), X, batch=5)
    # In double precision the encoder, a single-precision net, refuses the outputs: no round trip.
    shared = [name for name in plain.summary.index if name in audit.summary.index]
    assert {"rate", "reconstruction_error", "swap_gap", "decoder_rank"} <= set(shared)
    for name in shared:
        ours, theirs = audit.number(name), plain.number(name)
        assert ours.value == pytest.approx(theirs.value, rel=1e-4, abs=1e-6, nan_ok=True), name


def test_a_random_encoder_is_told() -> None:
    def encoded(x: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor) -> Any:
        return mean + torch.randn_like(mean), scale

    audit = ck.audit(Model(encoded, fine_too), X, probes=FEW)
    assert "CK005" in {f.code for f in audit.findings}


def test_a_model_that_counts_its_calls_and_fails_late() -> None:
    """Outputs go bad for good after some batches: what came before stays."""
    model = Model(fine, fine_too)

    def encoded(x: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor) -> Any:
        if model.calls > 8:
            raise RuntimeError("the device is gone")
        return mean, scale

    model.encoded = encoded
    with named_errors() as errors:
        audit = ck.audit(model, X, probes=FEW, batch=4)
        explained(audit)
        assert 0 < len(lost(audit)) < N
    assert not errors


@pytest.mark.slow
def test_sample_70001() -> None:
    """One bad sample far into the data is named, and costs only itself."""
    x = torch.zeros(70_100, P)
    x[:, 1] = torch.linspace(-1, 1, len(x))
    x[70_001, 2] = 1.0

    def encoded(x: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor) -> Any:
        return torch.where(x[:, 2:] == 1.0, float("nan"), mean), scale

    audit = ck.audit(Model(encoded, fine_too), x, probes=FEW[:2], population=500)
    assert lost(audit) == {70_001}
    assert audit.number("rate").n == 70_099
    assert audit.samples["kl_total"].isna().sum() == 1


def test_wrong_shapes_on_the_last_batch() -> None:
    """The last batch is shorter, and the model cannot take it: its samples are named."""

    def encoded(x: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor) -> Any:
        return (mean[:, :1], scale[:, :1]) if (mark(x) >= 20).any() else (mean, scale)

    audit = ck.audit(Model(encoded, fine_too), X, probes=FEW, batch=5)
    assert lost(audit) == {20, 21, 22, 23}
    assert audit.number("rate").n == 20
    explained(audit)
