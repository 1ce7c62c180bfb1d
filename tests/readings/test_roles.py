"""Every role on a model built for it."""

from __future__ import annotations

import torch
from torch import Tensor

import collapsekit as ck


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
