"""Near-deterministic encoders, below and above the dimensions that are measured one by one."""

from __future__ import annotations

import numpy as np
import pytest

import collapsekit as ck


@pytest.mark.parametrize("dims", [8, 300])
@pytest.mark.parametrize(("width", "word"), [(1e-3, "near-deterministic"), (0.3, "healthy")])
def test_narrow_posteriors_far_from_the_prior(dims: int, width: float, word: str) -> None:
    rng = np.random.default_rng(0)
    # one code is uniform in [0, 1], as the values of images are; the other matches N(0, I)
    mean = rng.random((400, dims)) if width < 0.1 else rng.normal(size=(400, dims)) * np.sqrt(0.91)
    both = {"mean": mean, "scale": np.full_like(mean, width)}
    probes = [p for p in ck.probes.REGISTERED if p.name != "kl_distribution"]
    audit = ck.audit(lambda x: (x["mean"], x["scale"]), both, probes=probes)
    assert audit.verdict.name == word


def test_one_wide_dimension_among_narrow_ones_does_not_hide_them() -> None:
    mean = np.random.default_rng(1).random((400, 8))
    scale = np.full_like(mean, 1e-3)
    mean[:, 0], scale[:, 0] = 0.0, 1.0  # idle: its whole variance is width
    both = {"mean": mean, "scale": scale}
    probes = [p for p in ck.probes.REGISTERED if p.name != "kl_distribution"]
    audit = ck.audit(lambda x: (x["mean"], x["scale"]), both, probes=probes)
    finding = next(f for f in audit.findings if f.code == "CK603")
    assert finding.severity is ck.Severity.WARN


def test_a_mismatch_on_the_line_is_not_settled() -> None:
    """Three codes of variance 0.42: (0.42 - 1 - ln 0.42) / 2 = 0.14 nat each, the bar is 0.5."""
    mean = 0.65 * np.random.default_rng(0).normal(size=(1000, 3))
    both = {"mean": mean, "scale": np.full_like(mean, 0.018)}
    audit = ck.audit(lambda x: (x["mean"], x["scale"]), both)
    mismatch = audit.number("dimensionwise_kl")
    assert mismatch.low < 0.5 < mismatch.high
    finding = next(f for f in audit.findings if f.code == "CK603")
    assert finding.severity is ck.Severity.INCONCLUSIVE
    assert audit.verdict.name == "inconclusive"
