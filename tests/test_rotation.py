"""Rotate a full-covariance code, and its decoder's input with it: the model is the same one."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

import collapsekit as ck
from collapsekit.intervals import Z95
from tests.probes.test_directions import HALF, NOISE, WHOLE, Linear, rotation

DIMS, USED, WIDE, N = 5, 3, 9, 240
AXIS_FINDINGS = {"CK502", "CK504", "CK505"}  # of the headlines of `BY_AXES`


class Bent:
    """A curved decoder, and an encoder that leaves a plane of the code at the prior."""

    def __init__(self, turn: Tensor) -> None:
        g = torch.Generator().manual_seed(3)
        self.up = torch.randn(USED, WIDE, generator=g, dtype=torch.float64)
        self.shear = torch.eye(USED, dtype=torch.float64)
        self.shear[1, 0], self.shear[2, 1] = 0.5, -0.3
        self.into = turn[:, :USED]

    def encode(self, x: Tensor) -> MultivariateNormal:
        inner = (x @ torch.linalg.pinv(self.up)).clamp(-0.95, 0.95)
        factor = self.shear * (0.15 + 0.15 * inner.abs())[:, :, None]
        inside = factor @ factor.mT - torch.eye(USED, dtype=torch.float64)
        whole = torch.eye(DIMS, dtype=torch.float64) + self.into @ inside @ self.into.T
        return MultivariateNormal(torch.asin(inner) @ self.into.T, (whole + whole.mT) / 2)

    def decode(self, z: Tensor) -> Tensor:
        return torch.sin(z @ self.into) @ self.up

    def data(self) -> Tensor:
        g = torch.Generator().manual_seed(4)
        z, noise = (torch.randn(N, k, generator=g, dtype=torch.float64) for k in (USED, WIDE))
        return torch.sin(z) @ self.up + 0.3 * noise


#: Of which no two bases give the same number, and why.
BY_AXES = {
    "passive_dimensions": "counts axes at the prior; passive_directions does not",
    "redundant_dimensions": "axes that repeat other axes; no direction of the means does",
    "used_dimensions": "counts axes that the decoder reads; unread_directions does not",
    "round_trip_r2": "mean over axes of shares of each one's variance, each cut at 0",
    "round_trip_r2_prior": "as round_trip_r2",
    "robust_round_trip_r2": "as round_trip_r2, of the lower of two in each axis",
}
#: Whose codes are drawn: the draws are not turned with the code, only their law is.
DRAWN = {
    *("aggregate_mismatch", "elbo", "fold_fraction", "fold_fraction_prior", "inference_gap"),
    *("log_likelihood_bound", "lr_residual", "model_information", "mutual_information"),
    *("reconstruction_error", "reidentification", "saturated_fraction", "swap_gap"),
    *("unread_directions", "unreliable_weights_fraction"),
    *("decoder_full_rank_fraction", "decoder_rank", "decoder_reciprocal_condition"),
}
#: The same number to rounding.
EXACT = {
    *("active_fraction", "active_units", "decoder_variance", "effective_rank", "encoder_rank"),
    *("linear_dimensions", "locally_collapsed_fraction", "passive_directions", "rate"),
    *("folded_fraction", "lower_lipschitz", "lower_lipschitz_low"),
    *("rank_drop_fraction", "reconstruction_slope", "reverse_rate", "tangent_rank"),
    "told_by_mean_fraction",
}


@functools.cache
def bent(seed: int | None) -> ck.Audit:
    turn = torch.eye(DIMS, dtype=torch.float64) if seed is None else rotation(seed, DIMS)
    model = Bent(turn)
    return ck.audit(model, model.data(), likelihood=("gaussian", 0.3))


@pytest.mark.parametrize("seed", [10, 11])
def test_every_headline_but_those_of_axes_stays(seed: int) -> None:
    along, across = bent(None).summary, bent(seed).summary
    assert set(along.index) == set(across.index) == EXACT | DRAWN | set(BY_AXES)
    ends, drawn = ["value", "low", "high"], sorted(DRAWN)
    for name in sorted(EXACT):
        one, other = (
            np.array(table.loc[name, ends], dtype=np.float64) for table in (along, across)
        )
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-9, err_msg=name)
    # An open end of a bound tells nothing of its error: the other end does.
    found = [table.loc[drawn, ends].to_numpy(dtype=np.float64) for table in (along, across)]
    error = [np.nanmax(np.abs(part[:, 1:] - part[:, :1]), axis=1) / Z95 for part in found]
    apart = np.abs(found[0][:, 0] - found[1][:, 0])
    far = apart > 3 * np.hypot(*error) + 1e-9
    assert not far.any(), np.array(drawn)[far]


@pytest.mark.parametrize("seed", [10, 11])
def test_findings_and_verdict_stay(seed: int) -> None:
    along, across = (
        {
            (f.code, f.severity, f.verdict)
            for f in audit.findings
            if f.code not in AXIS_FINDINGS and f.severity is ck.Severity.WARN
        }
        for audit in (bent(None), bent(seed))
    )
    assert along == across
    assert bent(None).verdict.name == bent(seed).verdict.name == "partial"


def test_what_is_left_out_does_depend_on_the_axes() -> None:
    """Else it would belong to the headlines that stay: by more than any error."""
    along, across = bent(None), bent(10)
    counts = ("passive_dimensions", "redundant_dimensions", "used_dimensions")
    assert [along.number(name).value for name in counts] == [2, 0, 3]
    assert [across.number(name).value for name in counts] == [0, 2, 5]


JUDGES = ("kl", "local_collapse", "dimension_state", "directions", "active_units", "effective_rank")
JUDGES += ("mutual_information", "swap_gap", "read_directions", "decoder_usage")


@pytest.mark.parametrize(("lam", "word"), [(HALF, "partial"), (WHOLE, "healthy")])
def test_any_rotation_gives_the_verdict_and_the_counts_of_the_axes(
    lam: tuple[float, ...], word: str
) -> None:
    """The variance of the means along a direction is lam / (1 + lam): 0 or far above 0.01."""
    idle = lam.count(0.0)
    for seed in range(20, 23):
        model = Linear(lam, rotation(seed))
        audit = ck.audit(model, model.data(150), likelihood=("gaussian", NOISE), probes=JUDGES)
        assert audit.verdict.name == word
        for name, value in (("active_units", len(lam) - idle), ("passive_directions", idle)):
            number = audit.number(name)
            assert (number.low, number.value, number.high) == (value, value, value)
        assert audit.dimensions["active"].all()  # every axis has a part of each direction
        told = {f.code: f.severity for f in audit.findings if f.code in ("CK102", "CK612")}
        assert set(told.values()) == {ck.Severity.OK}
