"""Descriptions: equal for equal things, in every process, and different for different ones."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

import collapsekit as ck
from collapsekit.comparison import INCOMPARABLE, SAME, compare
from collapsekit.described import described
from collapsekit.gate import Outcome, rule
from collapsekit.likelihoods import Gaussian

Tensor = torch.Tensor


class Normal:
    """A likelihood of one's own."""

    def __init__(self, scale: Any) -> None:
        self.scale = scale

    def log_prob(self, output: Tensor, x: Tensor) -> Tensor:
        normal = torch.distributions.Normal(output, self.scale)
        return normal.log_prob(x).sum(dim=1).double()

    def mean(self, output: Tensor) -> Tensor:
        return output


class Halved(Normal):
    def log_prob(self, output: Tensor, x: Tensor) -> Tensor:
        return 0.5 * super().log_prob(output, x)


class Model:
    """Scores its input by itself."""

    scale = 0.1

    def __init__(self, gain: float = 1.0) -> None:
        self.weights = torch.full((2,), gain, dtype=torch.float64)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return 0.99 * x, torch.full_like(x, 0.1)

    def decode(self, z: Tensor) -> Tensor:
        return z * self.weights

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return torch.distributions.Normal(self.decode(z), self.scale).log_prob(x).sum(dim=1)


class Other(Model):
    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return 0.1 * super().log_likelihood(x, z)


class Wider(Model):
    scale = 0.2


def scaled(scale: float) -> Any:
    return lambda value: value * scale


def test_equal_things_have_equal_descriptions_and_others_do_not() -> None:
    equal = [
        (Normal(0.1), Normal(0.1)),
        (Normal(torch.ones(3)), Normal(torch.ones(3))),
        (scaled(0.5), scaled(0.5)),
        (Model().log_likelihood, Model(gain=2.0).log_likelihood),  # another training
    ]
    for a, b in equal:
        assert described(a) == described(b)
        assert "0x" not in described(a)
    different = [
        *(Normal(s) for s in (0.1, 0.2, torch.ones(3), torch.zeros(3), scaled(1.0), scaled(2.0))),
        Halved(0.1),
        scaled(0.5),
        scaled(0.6),
        Gaussian(0.1),
        Gaussian(0.2),
        *(kind().log_likelihood for kind in (Model, Other, Wider)),
    ]
    assert len({described(thing) for thing in different}) == len(different)


def test_what_refers_to_itself_ends() -> None:
    ring = Normal(0.1)
    ring.scale = [ring, {"self": ring}]
    assert described(ring) == described(ring)


@pytest.mark.parametrize("seed", ["1", "2"])
def test_another_process_says_the_same(seed: str) -> None:
    code = (
        "from tests.test_described import *; "
        "print(described(Normal({'a', 'b', 'c'})), described(Model().log_likelihood))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": seed, "PYTHONPATH": ".", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    here = f"{described(Normal({'a', 'b', 'c'}))} {described(Model().log_likelihood)}"
    assert done.stdout.strip() == here


def test_audits_under_one_likelihood_are_comparable_and_under_two_are_not() -> None:
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kept = [p for p in ck.probes.REGISTERED if p.name in ("kl", "reconstruction", "swap_gap")]
    plain = (Model().encode, Model().decode)

    def word(*settings: tuple[Any, Any]) -> str:
        pair = [ck.audit(model, x, likelihood=given, probes=kept) for model, given in settings]
        if settings[0] == settings[1]:
            assert rule(pair[1], baseline=pair[0]).outcome is Outcome.PASS
        return compare(dict(zip("ab", pair, strict=True))).changes["elbo", "b"].word

    assert word((plain, Normal(0.1)), (plain, Normal(0.1))) == SAME
    assert word((plain, Normal(0.1)), (plain, Normal(0.2))) == INCOMPARABLE
    assert word((Model(), None), (Model(), None)) == SAME
    assert word((Model(), None), (Other(), None)) == INCOMPARABLE
