"""Dimensions used for some samples only (CK103): who is at the prior, by KL and by width."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import collapsekit as ck
from collapsekit.findings import Severity
from collapsekit.probes._states import Bars


@pytest.mark.parametrize("epsilon", [1e-4, 0.01, 0.1, 1.0])
def test_the_least_width_that_a_kl_leaves(epsilon: float) -> None:
    v = Bars(epsilon, 0.05, 0.5).wide
    assert 0 < v < 1
    assert 0.5 * (v - 1 - math.log(v)) == pytest.approx(epsilon, rel=1e-6)


def _audited(scale: np.ndarray) -> ck.Audit:
    """600 samples; means follow the width, as those of an informative posterior do."""
    noise = np.random.default_rng(4).standard_normal(600)
    mean = noise * np.sqrt(np.clip(1 - scale**2 - 0.14, 0, None))
    code = torch.as_tensor(np.stack([mean, scale], axis=1))
    return ck.audit(
        lambda x: (x[:, :1], x[:, 1:]), code, probes=["dimension_state"], parameterisation="scale"
    )


def test_samples_nearly_at_the_prior_are_at_it_by_width_too() -> None:
    # KL of N(0, 0.93^2): 0.0050 nats, below epsilon; variance 0.865, which 0.9 would not let pass
    scale = np.where(np.arange(600) < 108, 0.93, 0.08)
    found = [f for f in _audited(scale).findings if f.code == "CK103"]
    assert [(f.severity, f.verdict) for f in found] == [(Severity.WARN, "local")]


def test_one_common_width_is_weak_and_not_local() -> None:
    found = [f for f in _audited(np.full(600, 0.93)).findings if f.code == "CK103"]
    assert not found
