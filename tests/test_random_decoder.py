"""A decoder that draws: it is told, never healthy, and makes no measure of its own noise."""

from __future__ import annotations

import torch
from torch import Tensor

import collapsekit as ck


def encode(x: Tensor) -> tuple[Tensor, Tensor]:
    return 0.99 * x, torch.full_like(x, 0.05)


def noise_alone(z: Tensor) -> Tensor:
    """It ignores the code."""
    return torch.randn(len(z), 2, dtype=z.dtype)


def audited() -> ck.Audit:
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return ck.audit((encode, noise_alone), x, likelihood=("gaussian", 0.5))


def test_noise_reads_no_dimension() -> None:
    audit = audited()
    assert audit.verdict.name != "healthy"
    told = next(f for f in audit.findings if f.code == "CK017")
    assert told.verdict == "inconclusive"
    withheld = {"decoder_usage", "decoder_jacobian", "decoder_folds", "mean_codes"}
    withheld |= {"model_information", "roles"}
    assert withheld <= set(audit.skipped)
    assert "the decoder is random" in audit.skipped["decoder_usage"]
    assert "used_dimensions" not in audit.summary.index
    assert not {"CK505", "CK511", "CK601"} & {f.code for f in audit.findings}


def test_the_same_numbers_whatever_the_global_seed() -> None:
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(audited().summary["value"])
        assert torch.equal(torch.get_rng_state(), before)
    assert found[0].equals(found[1])
