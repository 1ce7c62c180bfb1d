"""Encoders and decoders that do not belong together, and decoders that cannot be called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import collapsekit as ck
from collapsekit.errors import InputError
from collapsekit.probes import REGISTERED, MeanCodes
from collapsekit.rendering.facts import Facts
from collapsekit.rendering.sections.verdict import headline

WAYS = torch.linalg.qr(
    torch.randn(20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
)[0]
AXES, OTHERS = WAYS[:4], WAYS[4:8]  # orthonormal, and orthogonal to each other
SOME = [
    p
    for p in REGISTERED
    if p.name in ("kl", "active_units", "swap_gap", "mean_codes", "mutual_information")
]


@dataclass
class Pair:
    """x = z AXES + noise is encoded well, and decoded in some way."""

    output: Callable[[Tensor], Tensor]

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x @ AXES.T
        return mean, torch.full_like(mean, 0.05)

    def decode(self, z: Tensor) -> Tensor:
        return self.output(z)


def samples(n: int = 500) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return z @ AXES + 0.05 * torch.randn(n, 20, generator=generator, dtype=torch.float64)


def finding(audit: ck.Audit, code: str) -> ck.Finding:
    return next(f for f in audit.findings if f.code == code)


@pytest.mark.parametrize("likelihood", [None, ("gaussian", 0.3)])
def test_a_negated_decoder_is_a_contradiction(likelihood: Any) -> None:
    audit = ck.audit(Pair(lambda z: -z @ AXES), samples(), likelihood=likelihood, probes=SOME)
    assert audit.verdict.name == "contradictory"
    assert set(audit.verdict.codes) == {"CK302", "CK602"}
    assert finding(audit, "CK302").severity is ck.Severity.FAIL
    assert "own code reconstructs worse than another's" in audit.verdict.sentence
    assert audit.number("swap_gap").high < 0
    assert audit.number("reconstruction_slope").value == pytest.approx(-1, abs=0.05)
    assert "own codes reconstruct worse" in headline(Facts(audit))


@pytest.mark.parametrize("likelihood", [None, ("gaussian", 0.3)])
@pytest.mark.parametrize(
    "output",
    [lambda z: z[:, [1, 2, 3, 0]] @ AXES, lambda z: z @ OTHERS],
    ids=["permuted", "of another model"],
)
def test_outputs_that_do_not_follow_the_samples(output: Any, likelihood: Any) -> None:
    """E[D(z) x] = 0: the own code gains nothing and costs nothing, so the swap gap sees nothing."""
    audit = ck.audit(Pair(output), samples(), likelihood=likelihood, probes=SOME)
    slope = audit.number("reconstruction_slope")
    assert abs(slope.value) < 2 * (slope.high - slope.low)  # four standard errors
    assert audit.verdict.name == "contradictory"
    assert audit.verdict.codes == ("CK602",)
    assert "not as the samples do" in headline(Facts(audit))


@pytest.mark.parametrize("gain", [0.5, 1.0, 2.0])
def test_the_slope_is_that_of_the_regression(gain: float) -> None:
    """x = z AXES + noise and D(m) = gain m AXES: samples lie on outputs with slope 1 / gain."""
    audit = ck.audit(Pair(lambda z: gain * z @ AXES), samples(), probes=SOME)
    slope = audit.number("reconstruction_slope")
    assert slope.value == pytest.approx(1 / gain, abs=0.05)
    assert audit.verdict.name == "healthy"
    assert finding(audit, "CK602").severity is ck.Severity.OK


def test_an_output_that_does_not_move_has_no_slope() -> None:
    audit = ck.audit(Pair(lambda z: 1e-3 * z @ AXES), samples(), probes=[MeanCodes()])
    assert "reconstruction_slope" not in audit.summary.index


def test_no_gap_by_chance_is_a_contradiction() -> None:
    """A decoder that hardly reads has gaps around 0, on either side: its low half is no proof."""
    for seed in range(20):
        audit = ck.audit(
            Pair(lambda z: 0.01 * z @ OTHERS),
            samples(100),
            likelihood=("gaussian", 0.3),
            probes=[p for p in SOME if p.name == "swap_gap"],
            seed=seed,
        )
        assert finding(audit, "CK302").severity is ck.Severity.WARN


class Forced(nn.Module):
    """decode(z, x) is fed the input."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 4)
        self.outer = nn.Linear(8, 6)

    def encode(self, x: Tensor) -> Any:
        mean, logvar = self.inner(x).chunk(2, dim=1)
        return {"mean": mean, "logvar": logvar}

    def decode(self, z: Tensor, x: Tensor) -> Any:
        return self.outer(torch.cat([z, x], dim=1))


def test_a_decoder_that_lacks_its_second_argument_asks_for_it() -> None:
    with pytest.raises(InputError, match="takes more than a code") as caught:
        ck.audit(Forced(), torch.rand(40, 6))
    for word in ("decode(z, x)", "log_likelihood(x, z)", "audit_text_vae.py"):
        assert word in str(caught.value)
    assert "data=" not in str(caught.value)  # the input is there already

    class Condition(Forced):
        def decode(self, z: Tensor, c: Tensor) -> Any:
            return super().decode(z, c)

    with pytest.raises(InputError) as caught:
        ck.audit(Condition(), torch.rand(40, 6))
    assert '{"x": inputs, "c": condition}' in str(caught.value)
    assert "--data FILE.npz:x,c" in str(caught.value)


def test_a_likelihood_of_the_models_own_does_without_it() -> None:
    class Scored(Forced):
        def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
            return -(self.decode(z, x) - x).square().sum(dim=1)

    audit = ck.audit(Scored(), torch.rand(40, 6))
    assert "swap_gap" in audit.summary.index
    assert "takes more than a code" in audit.skipped["decoder_usage"]


def test_a_decoder_that_fails_on_every_call_is_never_healthy() -> None:
    def fails(z: Tensor) -> Tensor:
        raise TypeError("cannot decode this")

    audit = ck.audit(Pair(fails), samples(), probes=SOME)
    assert audit.verdict.name == "inconclusive"
    assert "CK018" in audit.verdict.codes
    assert "cannot decode this" in finding(audit, "CK018").message


def test_a_verdict_on_the_encoder_alone_says_so() -> None:
    def fails(z: Tensor) -> Tensor:
        raise TypeError("cannot decode this")

    class Idle(Pair):
        def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return torch.zeros(len(x), 4), torch.ones(len(x), 4)

    audit = ck.audit(Idle(fails), samples(), probes=SOME)
    assert audit.verdict.name == "total"
    assert "total is said of the encoder alone" in audit.verdict.sentence


def test_a_prior_of_the_models_own_is_described() -> None:
    some = [p for p in REGISTERED if p.name == "kl"]

    def prior_of(prior: Any) -> str:
        return str(
            ck.audit(Pair(lambda z: z @ AXES), samples(), prior=prior, probes=some).provenance[
                "prior"
            ]
        )

    assert prior_of(None) == prior_of((0.0, 1.0)) == "N(0, I)"
    assert prior_of((1.5, 2.0)).startswith("given: diagonal Gaussian, means 1.5")
