"""One model said in two ways, or changed in a way that changes nothing: the audits agree.

What is exact (closed forms, and whatever uses the same noise) agrees to rounding; what was drawn
anew, within the intervals of both.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch import distributions as D

import collapsekit as ck
from collapsekit.results import Audit
from tests.fuzz.cases import ALL as EVERY
from tests.fuzz.harness import fuzz

P = 4
#: Those whose headlines are compared, and what they are judged by.
ALL = tuple(
    probe
    for probe in EVERY
    if probe.name
    in (
        "kl", "dimension_state", "local_collapse", "active_units", "effective_rank",
        "mutual_information", "information_budget", "reconstruction", "model_information",
        "swap_gap", "collisions", "round_trip",
    )
)  # fmt: skip
GAUSSIAN = ("gaussian", 0.5)


@dataclasses.dataclass(frozen=True)
class Linear:
    """mean = A x, widths exp(b + c x): what a small linear encoder can be, and its decoder."""

    seed: int
    d: int
    n: int
    dead: int  # dimensions at the prior
    strength: float

    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        g = torch.Generator().manual_seed(self.seed)
        live = (torch.arange(self.d) >= self.dead).double()
        a = self.strength * torch.randn(self.d, P, generator=g, dtype=torch.float64)
        b = torch.rand(self.d, generator=g, dtype=torch.float64) * -2
        c = 0.2 * torch.randn(self.d, P, generator=g, dtype=torch.float64)
        w = torch.randn(self.d, P, generator=g, dtype=torch.float64)
        return a * live[:, None], b * live, c * live[:, None], w * live[:, None]

    def data(self) -> Tensor:
        g = torch.Generator().manual_seed(self.seed + 1)
        return torch.randn(self.n, P, generator=g, dtype=torch.float64)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b, c, _ = self.parts()
        return x.double() @ a.T, (b + x.double() @ c.T).exp()

    def decode(self, z: Tensor) -> Tensor:
        return torch.as_tensor(z).double() @ self.parts()[3]


models = st.builds(
    Linear,
    seed=st.integers(0, 10**6),
    d=st.integers(1, 5),
    n=st.integers(12, 40),
    dead=st.integers(0, 3),
    strength=st.sampled_from([0.02, 0.3, 1.0, 3.0]),
)


def audited(encode: Any, decode: Any, x: Any, **given: Any) -> Audit:
    return ck.audit((encode, decode), x, **{"likelihood": GAUSSIAN, "probes": ALL, **given})


#: In closed form: no draw enters.
EXACT = (
    "rate", "passive_dimensions", "locally_collapsed_fraction", "active_units", "active_fraction",
    "redundant_dimensions",
)  # fmt: skip
#: Drawn: these have to lie in each other's reach.
DRAWN = (
    "reconstruction_error", "elbo", "dimensionwise_kl", "total_correlation", "swap_gap",
    "reverse_rate", "mutual_information",
)  # fmt: skip


def agree(a: Audit, b: Audit, names: Any, rel: float) -> None:
    for name in names:
        if name not in a.summary.index:
            assert name not in b.summary.index, name
            continue
        left, right = a.number(name), b.number(name)
        for part in ("value", "low", "high"):
            ours, theirs = getattr(left, part), getattr(right, part)
            assert ours == pytest.approx(theirs, rel=rel, abs=rel, nan_ok=True), (name, part)


def reach(a: Audit, b: Audit) -> None:
    """Drawn numbers: the distance of two is at most three times the half-widths together."""
    for name in set(DRAWN) & set(a.summary.index) & set(b.summary.index):
        left, right = a.number(name), b.number(name)
        widths = [h - lo for h, lo in ((left.high, left.low), (right.high, right.low))]
        if any(map(math.isnan, (left.value, right.value, *widths))):
            continue
        assert abs(left.value - right.value) <= 1.5 * sum(widths) + 1e-6, (name, left, right)


def never_opposite(a: Audit, b: Audit) -> None:
    """Two audits of one code: of two settled words none contradicts the other."""
    words = {a.verdict.name, b.verdict.name} - {"inconclusive"}
    assert words != {"healthy", "total"}, (a.verdict, b.verdict)


@given(model=models, pick=st.randoms(use_true_random=False))
@fuzz(3, shrink=False)
def test_rows_in_another_order(model: Linear, pick: Any) -> None:
    order = list(range(model.n))
    pick.shuffle(order)
    a = audited(model.encode, model.decode, model.data())
    b = audited(model.encode, model.decode, model.data()[order])
    agree(a, b, ("rate", *EXACT[1:3]), 1e-9)  # bootstrap ends are keyed on the row
    for name in ("kl_total", "active_dims"):
        ours = a.samples[name].to_numpy(dtype=np.float64)[order]
        np.testing.assert_allclose(ours, b.samples[name].to_numpy(dtype=np.float64), rtol=1e-9)
    reach(a, b)
    never_opposite(a, b)


@given(model=models, pick=st.randoms(use_true_random=False))
@fuzz(3, shrink=False)
def test_dimensions_in_another_order(model: Linear, pick: Any) -> None:
    order = list(range(model.d))
    pick.shuffle(order)
    back = [order.index(j) for j in range(model.d)]

    def turned(x: Tensor) -> tuple[Tensor, Tensor]:
        mean, scale = model.encode(x)
        return mean[:, order], scale[:, order]

    a = audited(model.encode, model.decode, model.data())
    b = audited(turned, lambda z: model.decode(z[:, back]), model.data())
    agree(a, b, EXACT, 1e-9)
    for name in ("kl", "mean_variance", "state"):
        ours, theirs = a.dimensions[name].iloc[order], b.dimensions[name]
        if name == "state":
            assert ours.tolist() == theirs.tolist()
        else:
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    reach(a, b)
    never_opposite(a, b)


@given(
    model=models,
    scale=st.sampled_from([1e-12, 1e-3, 0.5, 7.0, 1e6, 1e12]),
    shift=st.sampled_from([0.0, 0.25, -3.0]),
)
@fuzz(3, shrink=False)
def test_codes_and_prior_moved_alike(model: Linear, scale: float, shift: float) -> None:
    """The same noise, in other units: everything agrees, verdict and all."""

    def moved(x: Tensor) -> tuple[Tensor, Tensor]:
        mean, width = model.encode(x)
        return (mean + shift) * scale, width * scale

    prior = (torch.full((model.d,), shift * scale), torch.full((model.d,), scale))
    prior = tuple(part.double() for part in prior)  # type: ignore[assignment]
    a = audited(model.encode, model.decode, model.data())
    b = audited(moved, lambda z: model.decode(z / scale - shift), model.data(), prior=prior)
    agree(a, b, (*EXACT, *DRAWN, "effective_rank", "collision_fraction", "round_trip_r2"), 1e-5)
    assert a.verdict.name == b.verdict.name


SAID: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "list": lambda mean, scale: [mean, scale],
    "Normal": D.Normal,
    "Independent": lambda mean, scale: D.Independent(D.Normal(mean, scale), 1),
    "NumPy": lambda mean, scale: (mean.numpy(), scale.numpy()),
    "with a gradient": lambda mean, scale: (mean.clone().requires_grad_() * 1, scale),
}


@given(model=models, said=st.sampled_from(sorted(SAID)), batch=st.integers(1, 45))
@fuzz(3, shrink=False)
def test_one_posterior_said_in_other_words(model: Linear, said: str, batch: int) -> None:
    a = audited(model.encode, model.decode, model.data())
    b = audited(lambda x: SAID[said](*model.encode(x)), model.decode, model.data(), batch=batch)
    agree(a, b, a.summary.index, 1e-6)
    assert a.verdict.name == b.verdict.name


@given(model=models, kind=st.sampled_from(["logvar", "variance", "log_scale"]))
@fuzz(3, shrink=False)
def test_one_width_in_other_terms(model: Linear, kind: str) -> None:
    terms = {"logvar": lambda s: 2 * s.log(), "variance": torch.square, "log_scale": torch.log}

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        mean, scale = model.encode(x)
        return mean, terms[kind](scale)

    a = audited(model.encode, model.decode, model.data())
    b = audited(encode, model.decode, model.data(), parameterisation=kind)
    agree(a, b, (*EXACT, *DRAWN), 1e-6)
    assert a.verdict.name == b.verdict.name


PRIORS: dict[str, Callable[[int], Any]] = {
    "pair": lambda d: (torch.zeros(d).double(), torch.ones(d).double()),
    "numbers": lambda d: (0.0, 1.0),
    "Normal": lambda d: D.Normal(torch.zeros(d).double(), 1.0),
    "MultivariateNormal": lambda d: D.MultivariateNormal(
        torch.zeros(d).double(), torch.eye(d).double()
    ),
}


@given(model=models, prior=st.sampled_from(sorted(PRIORS)))
@fuzz(3, shrink=False)
def test_the_standard_prior_in_other_words(model: Linear, prior: str) -> None:
    a = audited(model.encode, model.decode, model.data())
    b = audited(model.encode, model.decode, model.data(), prior=PRIORS[prior](model.d))
    agree(a, b, ("rate", "locally_collapsed_fraction"), 1e-9)
    reach(a, b)
    never_opposite(a, b)


@given(model=models, said=st.sampled_from(["Normal", "own"]))
@fuzz(3, shrink=False)
def test_one_likelihood_in_other_words(model: Linear, said: str) -> None:
    class Said:
        encode = staticmethod(model.encode)

        @staticmethod
        def decode(z: Tensor) -> Any:
            out = model.decode(z)
            return D.Normal(out, 0.5) if said == "Normal" else out

    adapter: Any = Said()
    if said == "own":
        adapter.log_likelihood = lambda x, z: (
            D.Normal(model.decode(z), 0.5).log_prob(x.double()).sum(dim=1)
        )
    a = audited(model.encode, model.decode, model.data())
    b = ck.audit(adapter, model.data(), probes=ALL)
    agree(a, b, ("reconstruction_error", "elbo", "swap_gap", "rate"), 1e-6)
    never_opposite(a, b)


@given(model=models)
@fuzz(3, shrink=False)
def test_one_more_dimension_that_nobody_uses(model: Linear) -> None:
    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        mean, scale = model.encode(x)
        more = torch.zeros(len(mean), 1, dtype=mean.dtype)
        return torch.cat([mean, more], dim=1), torch.cat([scale, more + 1], dim=1)

    a = audited(model.encode, model.decode, model.data())
    b = audited(encode, lambda z: model.decode(z[:, :-1]), model.data())
    agree(a, b, ("rate", "locally_collapsed_fraction", "active_units"), 1e-9)
    idle = [audit.number("passive_dimensions").value for audit in (a, b)]
    assert idle[1] == idle[0] + 1
    assert b.verdict.name != "healthy"
