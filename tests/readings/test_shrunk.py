"""KL that every sample pays alike, on posteriors built for it."""

from __future__ import annotations

import numpy as np

import collapsekit as ck


def audited(mean: np.ndarray, scale: np.ndarray) -> ck.Audit:
    return ck.audit(lambda x: (x["mean"], x["scale"]), {"mean": mean, "scale": scale})


def told(audit: ck.Audit) -> list[ck.Finding]:
    return [f for f in audit.findings if f.code == "CK610"]


def test_a_weak_honest_dimension_is_not_shrunk() -> None:
    # lam = 0.25: KL = I = 0.11 nat, the aggregate is the prior
    mean = np.random.default_rng(0).normal(0, np.sqrt(0.2), (3000, 1))
    audit = audited(mean, np.full_like(mean, np.sqrt(0.8)))
    assert audit.dimensions["kl"].iloc[0] > 0.1
    assert not audit.dimensions["shrunk"].iloc[0]
    assert told(audit)[0].severity is ck.Severity.OK


def test_a_code_in_the_widths_is_not_shrunk() -> None:
    scale = np.where(np.arange(1000) % 2 == 0, 0.1, 1.0)[:, None]
    audit = audited(np.zeros_like(scale), scale)  # I = 0.43, KL = 0.90
    assert not audit.dimensions["shrunk"].any()


def test_narrow_for_all_is_shrunk_and_partial() -> None:
    rng = np.random.default_rng(0)
    mean = np.stack([rng.normal(0, np.sqrt(0.91), 1000), np.zeros(1000)], axis=1)
    audit = audited(mean, np.tile([0.3, 0.5], (1000, 1)))
    assert audit.dimensions["shrunk"].tolist() == [False, True]
    assert audit.verdict.name == "partial"
    assert "CK610" in audit.verdict.codes
    # KL of N(0, 0.25): (0.25 - 1 + ln 4) / 2 = 0.318
    assert "1 of 2 dimensions spend 0.32 nats" in told(audit)[0].message


def test_on_the_line_is_not_settled() -> None:
    """KL of 0.102 nat without information, in 40 samples of unequal KL: 0.1 is within its error."""
    rng = np.random.default_rng(0)
    scale = np.exp(rng.normal(np.log(0.70), 0.05, (40, 1)))
    audit = audited(np.zeros_like(scale), scale)
    assert told(audit)[0].severity is ck.Severity.INCONCLUSIVE
    assert "seem to tell nothing" in told(audit)[0].message


def test_too_wide_for_all_is_settled_by_a_few_hundred_samples() -> None:
    """Width 1.75, 0.47 nat: one draw a sample alone leaves the information within 0.1 of 0."""
    audit = audited(np.zeros((700, 2)), np.tile([1.75, 1.0], (700, 1)))
    assert audit.dimensions["shrunk"].tolist() == [True, False]
    finding = told(audit)[0]
    assert finding.severity is ck.Severity.WARN
    number = finding.evidence[0].number
    assert (number.low, number.value, number.high) == (1, 1, 1)
