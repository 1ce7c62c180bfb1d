"""Codes of classes: which variables are idle, by KL, information and the decoder alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch import distributions as D

import collapsekit as ck
from collapsekit.findings import Severity

CLASSES, NOISE = 5, 0.3


class Classes:
    """Four variables of five classes, encoded by the exact posterior of x = one-hot + noise.

    `sure` scales the logits of each: 0 leaves a variable at the uniform prior. `read` are the
    variables that the decoder passes on.
    """

    likelihood = ("gaussian", NOISE)

    def __init__(self, sure: tuple[float, ...], read: tuple[float, ...], relaxed: bool = False):
        self.sure, self.read = (torch.tensor(v, dtype=torch.float64) for v in (sure, read))
        self.relaxed = relaxed

    def encode(self, x: Tensor) -> D.Distribution:
        logits = self.sure[:, None] * x.double().reshape(-1, 4, CLASSES) / NOISE**2
        if self.relaxed:
            return D.RelaxedOneHotCategorical(torch.tensor(0.5), logits=logits)
        return D.OneHotCategorical(logits=logits)

    def decode(self, z: Tensor) -> Tensor:
        return (z.double() * self.read[:, None]).flatten(1)


def data(n: int = 600) -> np.ndarray:
    rng = np.random.default_rng(0)
    one_hot = np.eye(CLASSES)[rng.integers(0, CLASSES, size=(n, 4))].reshape(n, -1)
    return one_hot + NOISE * rng.normal(size=one_hot.shape)


def found(audit: ck.Audit, code: str) -> ck.Finding:
    return next(f for f in audit.findings if f.code == code)


@pytest.mark.parametrize("relaxed", [False, True])
def test_variables_that_nobody_writes_are_passive_and_dead(relaxed: bool, tmp_path: Path) -> None:
    audit = ck.audit(Classes((1, 1, 0, 0), (1, 1, 0, 0), relaxed), data())
    assert audit.verdict.name == "partial"
    assert audit.dimensions["state"].tolist() == ["active", "active", "passive", "passive"]
    passive = audit.number("passive_dimensions")
    assert (passive.value, passive.low, passive.high) == (2, 2, 2)
    idle = found(audit, "CK601")
    assert idle.severity is Severity.WARN
    assert "2 of 4 dimensions are dead or ignored (2 dead, 2 used)" in idle.message
    assert idle.dimensions == (2, 3)
    audit.to_html(tmp_path / "classes.html")


def test_variables_that_nobody_reads_are_ignored() -> None:
    audit = ck.audit(Classes((1, 1, 1, 1), (1, 1, 0, 0)), data())
    assert audit.verdict.name == "partial"
    assert audit.dimensions["state"].tolist() == ["active"] * 4
    assert "(2 ignored, 2 used)" in found(audit, "CK601").message


def test_variables_that_the_decoder_alone_uses_are_phantoms() -> None:
    audit = ck.audit(Classes((1, 1, 0, 0), (1, 1, 1, 1)), data())
    assert found(audit, "CK611").dimensions == (2, 3)


def test_a_working_code_of_classes_is_healthy() -> None:
    audit = ck.audit(Classes((1, 1, 1, 1), (1, 1, 1, 1)), data())
    assert audit.verdict.name == "healthy"
    assert "0 of 4 dimensions are dead or ignored" in found(audit, "CK601").message


def test_a_variable_used_for_some_samples_is_local() -> None:
    class Half(Classes):
        def encode(self, x: Tensor) -> D.Distribution:
            on = (x.double()[:, :1] > 0.5).double()  # a fifth: the first class of the first one
            own = self.sure[:, None] * x.double().reshape(-1, 4, CLASSES) / NOISE**2
            keep = torch.cat([torch.ones_like(on).expand(-1, 3), on], dim=1)
            return D.OneHotCategorical(logits=own * keep[:, :, None])

    audit = ck.audit(Half((1, 1, 1, 1), (1, 1, 1, 1)), data())
    assert audit.dimensions["state"].tolist() == ["active"] * 3 + ["mixed"]
    assert audit.dimensions["local"].tolist() == [False] * 3 + [True]
    assert found(audit, "CK103").verdict == "local"


def test_a_variable_that_is_weak_for_all_is_not_local() -> None:
    # Logits of +-0.29: KL 0.0104 nats; of +-0.27: 0.0090. None of them is sure of anything.
    logits = torch.where(torch.arange(400) % 2 == 0, 0.29, 0.27).double()[:, None]
    sign = torch.where(torch.arange(400) % 4 < 2, 1.0, -1.0).double()[:, None]
    audit = ck.audit(
        lambda x: D.Bernoulli(logits=x), (logits * sign).numpy(), probes=["dimension_state"]
    )
    assert audit.dimensions["state"].tolist() == ["mixed"]
    assert audit.dimensions["local"].tolist() == [False]
    assert not [f for f in audit.findings if f.code == "CK103"]
