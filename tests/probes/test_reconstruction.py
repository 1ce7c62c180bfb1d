"""The declared Gaussian scale against what reconstructions miss by."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import collapsekit as ck
from collapsekit.findings import Severity
from collapsekit.probes.reconstruction import Reconstruction

MAP = torch.randn(2, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
BACK = torch.linalg.pinv(MAP)
NOISE = 0.1


def audited(scale: float, beta: float | None = None) -> ck.Audit:
    z, e = (np.random.default_rng(s).normal(size=(500, d)) for s, d in ((0, 2), (1, 20)))
    x = torch.from_numpy(z) @ MAP + NOISE * torch.from_numpy(e)

    def encode(rows: Tensor) -> Any:
        return rows @ BACK, torch.full((len(rows), 2), 1e-3, dtype=torch.float64)

    model = (encode, lambda code: code @ MAP)
    given = ("gaussian", scale)
    return ck.audit(model, x, likelihood=given, beta=beta, probes=[Reconstruction()])


@pytest.mark.parametrize(
    "scale, beta, severity",
    [
        (0.1, None, Severity.OK),
        (0.05, None, Severity.OK),  # a factor of 4 in variance
        (0.01, None, Severity.WARN),  # 90 times the declared variance
        (0.01, 1e-4, Severity.OK),  # sqrt(beta): a weight, whatever the residual
        (0.01, 1.0, Severity.WARN),
        (1.0, None, Severity.OK),  # 0.009: as models of a large beta have it
        (10.0, None, Severity.WARN),  # 0.00009
        (10.0, 100.0, Severity.OK),
    ],
)
def test_a_scale_of_another_order_is_told(
    scale: float, beta: float | None, severity: Severity
) -> None:
    finding = next(f for f in audited(scale, beta).findings if f.code == "CK015")
    assert finding.severity is severity
    ratio = finding.evidence[0].number
    # Two of twenty directions are fitted exactly; the code's width adds next to nothing.
    assert ratio.low < 0.9 * NOISE**2 / scale**2 * 1.01
    assert ratio.high > 0.9 * NOISE**2 / scale**2
    assert f"n = {500:,}" in finding.message
    assert math.isfinite(ratio.value)


def test_no_other_likelihood_has_a_scale_to_hold_against() -> None:
    x = torch.rand(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = (lambda rows: (rows, 0.1 * torch.ones_like(rows)), torch.sigmoid)
    for given in ("bernoulli", None):
        audit = ck.audit(model, x, likelihood=given, probes=[Reconstruction()])
        assert "CK015" not in [f.code for f in audit.findings]
