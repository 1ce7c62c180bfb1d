"""Fake units where the samples settle it, and where they do not."""

from __future__ import annotations

import pytest

import collapsekit as ck
from tests import models

PROBES = [
    p
    for p in ck.probes.REGISTERED
    if p.name in ("kl", "active_units", "mutual_information", "information_budget", "shuffle_cost")
]


@pytest.mark.parametrize(
    ("lam", "n", "severity"),
    [
        (0.03, 3000, ck.Severity.WARN),  # I = 0.015 nat
        (0.22, 300, ck.Severity.INCONCLUSIVE),  # 0.099, on the line of 0.1
        (0.6, 3000, ck.Severity.OK),  # 0.235
    ],
)
def test_a_weak_unit(lam: float, n: int, severity: ck.Severity) -> None:
    model = models.LinearVAE((30.0, lam))
    audit = ck.audit(model, model.sample(n, 0), likelihood=("gaussian", 0.5), probes=PROBES)
    finding = next(f for f in audit.findings if f.code == "CK604")
    assert finding.severity is severity
    share = finding.evidence[1].number
    assert (share.low > 0.25) == (severity is ck.Severity.WARN)
    assert (share.high > 0.25) == (severity is not ck.Severity.OK)


def test_of_a_wide_code_the_measured_dimensions_are_told_as_such() -> None:
    model = models.LinearVAE((30.0, *[0.0] * 69))
    audit = ck.audit(model, model.sample(200, 0), likelihood=("gaussian", 0.5))
    told = {f.code: f.message for f in audit.findings}
    assert told["CK604"].startswith("1 of 64 measured dimensions (of 70) are informative")
    assert told["CK601"].startswith("63 of 64 measured dimensions (of 70) are dead or ignored")
