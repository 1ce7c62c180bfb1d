"""Copies in the data are told, and show no more information than the distinct samples do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import collapsekit as ck

DISTINCT, TIMES, DIMS, WIDTH = 200, 5, 2, 0.05
TRUTH = -DIMS * math.log(WIDTH)  # means N(0, 1 - WIDTH^2): the aggregate is N(0, I)


def samples() -> Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randn(DISTINCT, DIMS, generator=g, dtype=torch.float64)


def encode(x: Tensor) -> tuple[Tensor, Tensor]:
    return x * (1 - WIDTH**2) ** 0.5, torch.full_like(x, WIDTH)


def audited(x: Tensor, encode: Any = encode) -> ck.Audit:
    probes = [ck.probes.KL(), ck.probes.MutualInformation(), ck.probes.InformationBudget()]
    return ck.audit(encode, x, probes=probes)


def test_copies_do_not_narrow_the_information() -> None:
    audit = audited(samples().repeat(TIMES, 1))
    information = audit.number("mutual_information")
    assert information.low <= math.log(DISTINCT)
    assert information.low < TRUTH < information.high
    codes = {f.code: f for f in audit.findings}
    assert "200 distinct samples can show at most 5.30 nats" in codes["CK402"].message
    told = codes["CK014"].message
    assert "800 of 1,000 samples are copies" in told
    assert "200 independent ones" in told
    assert "a factor of 2.24" in told  # sqrt(5)


def test_unequal_copies_count_as_kish_has_it() -> None:
    x = torch.cat([samples(), samples()[:1].repeat(50, 1)])
    told = next(f for f in audited(x).findings if f.code == "CK014").message
    effective = 250**2 / (199 + 51**2)
    assert f"{effective:.0f} independent ones" in told


@pytest.mark.parametrize("collapsed", [True, False])
def test_distinct_samples_are_no_copies(collapsed: bool) -> None:
    """Nor are they where every posterior is the prior."""

    def constant(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(x), torch.ones_like(x)

    audit = audited(samples(), constant if collapsed else encode)
    assert not [f for f in audit.findings if f.code == "CK014"]


def test_copies_under_a_constant_posterior_are() -> None:
    x = samples().repeat(2, 1)
    audit = audited(x, lambda x: (torch.zeros_like(x), torch.ones_like(x)))
    assert [f for f in audit.findings if f.code == "CK014"]


def test_data_of_few_values_are_their_own_law() -> None:
    x = samples()[:4].repeat(100, 1)
    audit = audited(x)
    assert not [f for f in audit.findings if f.code == "CK014"]
    information = audit.number("mutual_information")
    assert information.high - information.low < 0.1
    assert information.low <= math.log(4) <= information.high + 1e-9


def test_single_precision_makes_copies_no_others() -> None:
    """An encoder whose rounding depends on the place in the batch."""
    weights = np.random.default_rng(0).normal(size=(DIMS, DIMS)).astype(np.float32)

    def single(x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x.float() @ torch.from_numpy(weights) + 1e-7 * torch.rand(len(x), DIMS)
        return mean, torch.full_like(mean, WIDTH)

    told = [f for f in audited(samples().repeat(2, 1), single).findings if f.code == "CK014"]
    assert "200 of 400" in told[0].message
