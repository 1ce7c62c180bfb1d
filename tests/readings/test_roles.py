"""Every role on a model built for it."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

import collapsekit as ck
from collapsekit.probe import Tables
from collapsekit.readings import Roles as RolesReading


class Roles:
    """healthy, ignored, phantom and dead, in this order; x holds what the encoder sees."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        zeros = torch.zeros(len(x), dtype=torch.float64)
        mean = torch.stack([x[:, 0] * 0.99, x[:, 1] * 0.99, zeros, zeros], dim=1)
        scale = torch.tensor([0.1, 0.1, 1.0, 1.0], dtype=torch.float64)
        return mean, scale.expand_as(mean)

    def decode(self, z: Tensor) -> Tensor:
        return torch.stack([z[:, 0], torch.zeros_like(z[:, 0]), z[:, 2]], dim=1)


def test_roles() -> None:
    x = torch.randn(800, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    audit = ck.audit(Roles(), x, likelihood=("gaussian", 0.1))
    assert audit.dimensions["role"].tolist() == ["healthy", "ignored", "phantom", "dead"]
    assert audit.verdict.name == "partial"
    finding = next(f for f in audit.findings if f.code == "CK601")
    assert "2 of 4 dimensions are dead or ignored" in finding.message
    assert finding.dimensions == (1, 3)
    phantom = next(f for f in audit.findings if f.code == "CK611")
    assert phantom.severity is ck.Severity.WARN
    assert phantom.dimensions == (2,)


def test_entangled() -> None:
    class Folded(Roles):
        def decode(self, z: Tensor) -> Tensor:
            return torch.stack([z[:, 0].abs(), z[:, 1], z[:, 2]], dim=1)

    x = torch.randn(800, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    audit = ck.audit(Folded(), x, likelihood=("gaussian", 0.1))
    # D(z) = |z| has full local rank; only the round trip sees that it is not injective
    assert audit.dimensions["role"].iloc[0] == "entangled"


def test_a_dimension_on_the_line_is_not_settled() -> None:
    """Usage of 1.1 % of the largest, by squared gains, from 512 draws: idle or not, not known."""

    class Faint(Roles):
        def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return 0.99 * x[:, :2], torch.full((len(x), 2), 0.1, dtype=torch.float64)

        def decode(self, z: Tensor) -> Tensor:
            return z * torch.tensor([1.0, 0.011**0.5], dtype=torch.float64)

    x = torch.randn(800, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    audit = ck.audit(Faint(), x)  # without a likelihood: no nats that would settle it
    finding = next(f for f in audit.findings if f.code == "CK601")
    assert finding.severity is ck.Severity.INCONCLUSIVE
    number = finding.evidence[0].number
    assert (number.low, number.high) == (0, 1)
    assert audit.verdict.name == "inconclusive"


def test_one_sample_has_no_roles() -> None:
    audit = ck.audit(Roles(), torch.ones(1, 3, dtype=torch.float64), likelihood=("gaussian", 0.1))
    assert "roles" in audit.skipped
    assert not any(f.code == "CK601" for f in audit.findings)


def test_nats_decide_only_for_what_is_written() -> None:
    """A quiet dimension is read by its nats where the encoder sets it, else it is dead."""
    table = pd.DataFrame(
        {
            "mean_variance": [0.9, 0.5, 0.0],
            "kl": [2.0, 0.5, 0.0],
            "decoder_usage": [1.0, 1e-3, 1e-3],  # a hundredth of the largest is the bar
            "decoder_nats": [50.0, 0.05, 0.05],
            "robust_round_trip_r2": [0.9, 0.0, 0.0],
        }
    )
    tables = Tables(numbers={}, samples=pd.DataFrame(), dimensions=table, findings=())
    found = RolesReading().read(tables).dimensions
    assert found is not None
    assert found["role"].tolist() == ["healthy", "entangled", "dead"]
