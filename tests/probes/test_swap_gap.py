"""Swap gap: when a decoder counts as reading the code, in nats and without a likelihood."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import collapsekit as ck


class Faint:
    """Two values a sample: noise that nobody reconstructs, and a code of strength `gain`."""

    def __init__(self, gain: float) -> None:
        self.gain = gain

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, 1:] / self.gain * 0.99, torch.full((len(x), 1), 0.1, dtype=torch.float64)

    def decode(self, z: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(z), self.gain * z], dim=1)


@pytest.mark.parametrize(
    # Another code costs about 2 gain^2 on an error of 1: 2 % or 18 %, the bar is 5 %.
    ("gain", "severity"),
    [(0.1, ck.Severity.WARN), (0.3, ck.Severity.OK)],
)
def test_without_a_likelihood_the_bar_is_a_share_of_the_error(
    gain: float, severity: ck.Severity
) -> None:
    noise = torch.randn(3000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = noise * torch.tensor([1.0, gain], dtype=torch.float64)
    probes = [p for p in ck.probes.REGISTERED if p.name in ("kl", "reconstruction", "swap_gap")]
    audit = ck.audit(Faint(gain), x, probes=probes)
    finding = next(f for f in audit.findings if f.code == "CK302")
    assert finding.severity is severity
    # Sure of its sign in either case: it is the bar that decides.
    assert audit.number("swap_gap").low > 0


@pytest.mark.parametrize(("drift", "told"), [(0.0, "does not tell whether"), (1e-4, "not read")])
def test_one_code_for_all_says_nothing_about_the_decoder(drift: float, told: str) -> None:
    """An encoder at the prior before a decoder that reads: the partner's code is the own one."""

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        return drift * x, torch.ones_like(x)

    x = 2.0 * torch.randn(300, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    audit = ck.audit(
        (encode, lambda z: 2.0 * z),
        x,
        likelihood=("gaussian", 0.5),
        probes=["kl", "swap_gap", "model_information"],
    )
    (finding,) = (f for f in audit.findings if f.code == "CK302")
    assert finding.severity is ck.Severity.WARN
    assert told in finding.message
    assert any(f.code == "CK605" and "only the inference" in f.message for f in audit.findings)
