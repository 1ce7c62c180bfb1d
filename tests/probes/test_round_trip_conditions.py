"""What a condition tells of a code comes back without the decoder, and is no round trip."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import collapsekit as ck
from tests.test_groups import Ladder

SCALE = 0.5
LOADINGS = torch.tensor([1.0, 0.6], dtype=torch.float64)
WIDTHS = 1 / (1 + LOADINGS**2 / SCALE**2)  # posterior variances
PROBES = ("round_trip", "round_trip_prior")


def data(n: int = 800, conditions: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    c = 3.0 * (rng.integers(0, conditions, size=n) - 1)
    x = c[:, None] + rng.normal(size=(n, 2)) * LOADINGS.numpy() + SCALE * rng.normal(size=(n, 2))
    return {"x": x, "c": c}


class Given:
    """x = c + W z + noise, encoded by its exact posterior under N(0, I)."""

    likelihood = ("gaussian", SCALE)

    def context(self, batch: Any) -> Tensor:
        return batch["c"]

    def target(self, batch: Any) -> Tensor:
        return batch["x"]

    def as_input(self, output: Tensor, c: Tensor) -> Any:
        return {"x": output, "c": c}

    def encode(self, batch: Any) -> tuple[Tensor, Tensor]:
        mean = WIDTHS * LOADINGS / SCALE**2 * (batch["x"].double() - batch["c"][:, None])
        return mean, WIDTHS.sqrt().expand_as(mean)

    def decode(self, z: Tensor, c: Tensor) -> Tensor:
        return c[:, None] + z * LOADINGS


class Moved(Given):
    """The same in other coordinates: the prior is N(5 c, 4)."""

    def prior(self, c: Tensor) -> tuple[Tensor, Tensor]:
        mean = 5 * c[:, None].expand(-1, 2)
        return mean, torch.full_like(mean, 2.0)

    def encode(self, batch: Any) -> tuple[Tensor, Tensor]:
        mean, scale = super().encode(batch)
        return 5 * batch["c"][:, None] + 2 * mean, 2 * scale

    def decode(self, z: Tensor, c: Tensor) -> Tensor:
        return super().decode((z - 5 * c[:, None]) / 2, c)


class Unread(Moved):
    """The posterior is the condition's prior, and the decoder reads the condition alone."""

    def encode(self, batch: Any) -> tuple[Tensor, Tensor]:
        return self.prior(batch["c"])

    def decode(self, z: Tensor, c: Tensor) -> Tensor:
        return c[:, None] + 0 * z


class Repeats(Given):
    """Under N(0, I), a code that repeats the condition, and a decoder that does not read it."""

    def encode(self, batch: Any) -> tuple[Tensor, Tensor]:
        mean = 0.4 * batch["c"][:, None].expand(-1, 2)
        return mean, torch.full_like(mean, 0.2)

    def decode(self, z: Tensor, c: Tensor) -> Tensor:
        return c[:, None] + 0 * z


@pytest.mark.parametrize("model", [Given(), Moved()])
def test_the_round_trip_of_a_conditional_model_in_closed_form(model: Given) -> None:
    # z^ = (1 - v) z: r2 = 1 - v^2 along each dimension, whatever the coordinates.
    truth = 1 - (WIDTHS**2).numpy()
    audit = ck.audit(model, data(), probes=PROBES)
    np.testing.assert_allclose(audit.dimensions["round_trip_r2"], truth, rtol=0.01)
    np.testing.assert_allclose(audit.dimensions["round_trip_r2_prior"], truth, rtol=0.01)


def test_the_residual_is_one_of_codes_as_they_are() -> None:
    given, moved = (ck.audit(m, data(), probes=PROBES) for m in (Given(), Moved()))
    assert given.number("lr_residual").value == pytest.approx(float((WIDTHS**2).sum()), rel=0.15)
    # Codes twice as wide: four times the residual.
    twice = 4 * given.number("lr_residual").value
    assert moved.number("lr_residual").value == pytest.approx(twice, rel=1e-6)


@pytest.mark.parametrize("model", [Unread(), Repeats()])
def test_a_code_that_the_decoder_does_not_read_does_not_come_back(model: Given) -> None:
    audit = ck.audit(model, data(), probes=PROBES)
    for name in ("round_trip_r2", "robust_round_trip_r2"):
        assert audit.number(name).value == pytest.approx(0.0, abs=0.01), name
    assert (audit.dimensions["round_trip_corr2"] < 0.02).all()


def test_conditions_that_few_samples_share_leave_codes_as_they_are() -> None:
    audit = ck.audit(Repeats(), data(40, conditions=20), probes=PROBES)
    number = audit.number("round_trip_r2")
    assert number.value > 0.9
    assert "what the condition alone tells of a code counts as come back" in number.note


def test_what_the_groups_above_tell_is_no_round_trip_of_a_group() -> None:
    class Repeating:
        """z2 repeats its prior given z1, and the decoder reads z1 alone."""

        likelihood = ("gaussian", SCALE)

        def above(self, n: int) -> tuple[Tensor, Tensor]:
            return torch.zeros(n, 2, dtype=torch.float64), torch.ones(n, 2, dtype=torch.float64)

        def below(self, z1: Tensor) -> tuple[Tensor, Tensor]:
            return 3 * z1, torch.full_like(z1, 0.3)

        def encode(self, x: Tensor, draw: Any) -> None:
            mean = WIDTHS * LOADINGS / SCALE**2 * x.double()
            z1 = draw("z1", (mean, WIDTHS.sqrt().expand_as(mean)), self.above(len(x)))
            draw("z2", self.below(z1), self.below(z1))

        def generate(self, draw: Any, n: int, context: Any) -> Tensor:
            z1 = draw("z1", self.above(n))
            draw("z2", self.below(z1))
            return z1 * LOADINGS

    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2)) * LOADINGS.numpy() + SCALE * rng.normal(size=(600, 2))
    audit = ck.audit(Repeating(), x, probes=PROBES)
    assert audit.number("z2/round_trip_r2").value == pytest.approx(0.0, abs=0.01)
    truth = float((1 - WIDTHS**2).mean())
    assert audit.number("z1/round_trip_r2").value == pytest.approx(truth, rel=0.01)


def test_the_round_trip_of_a_lower_group_in_closed_form() -> None:
    """Under the codes above it, z2 comes back as (1 - v) of it, v its variance in the prior's."""
    model = Ladder()
    audit = ck.audit(model, model.sample(800), probes=PROBES)
    truth = 1 - ((model.t**2 * model.precision) ** -2.0).numpy()
    found = audit.groups["z2"].dimensions
    np.testing.assert_allclose(found["round_trip_r2"], truth, rtol=0.02)
    np.testing.assert_allclose(found["round_trip_r2_prior"], truth, rtol=0.02)
