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
    v = Bars(epsilon, 0.05, 0.5, 0.25).wide
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


@pytest.mark.parametrize(
    ("local", "passive", "word"),
    [
        (1, 0, "partial"),
        (2, 0, "local"),
        (1, 4, "local"),  # of what is not passive
        (1, 3, "partial"),
        (8, 0, "local"),
    ],
)
def test_one_of_many_is_partial_and_a_quarter_of_the_code_is_local(
    local: int, passive: int, word: str
) -> None:
    rng = np.random.default_rng(5)
    scale = np.full((600, 8), 0.1)
    scale[:300, :local] = 1.0
    scale[:, 8 - passive :] = 1.0
    mean = rng.standard_normal((600, 8)) * np.sqrt(np.clip(1 - scale**2, 0, None))
    code = torch.as_tensor(np.concatenate([mean, scale], axis=1))
    audit = ck.audit(
        lambda x: (x[:, :8], x[:, 8:]), code, probes=["dimension_state"], parameterisation="scale"
    )
    found = next(f for f in audit.findings if f.code == "CK103")
    assert (found.severity, found.verdict) == (Severity.WARN, word)
    assert found.message.startswith(f"{local} of 8 dimensions are used for some samples")


def test_a_good_part_is_open_where_some_of_it_are() -> None:
    # Two of eight would be local; of the second 4.8 % are at the prior, which may be 5 %.
    rng = np.random.default_rng(6)
    scale = np.full((600, 8), 0.1)
    scale[:300, 0] = scale[:29, 1] = 1.0
    mean = rng.standard_normal((600, 8)) * np.sqrt(np.clip(1 - scale**2, 0, None))
    code = torch.as_tensor(np.concatenate([mean, scale], axis=1))
    audit = ck.audit(
        lambda x: (x[:, :8], x[:, 8:]), code, probes=["dimension_state"], parameterisation="scale"
    )
    found = next(f for f in audit.findings if f.code == "CK103")
    assert (found.severity, found.verdict) == (Severity.INCONCLUSIVE, "local")
    assert "1 of 8" in found.message
    assert "2 perhaps" in found.message
