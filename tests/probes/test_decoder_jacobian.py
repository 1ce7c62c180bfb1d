"""The decoder's Jacobian: known matrices, exact against differences, bounds of cost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import collapsekit as ck
from collapsekit.door import Door
from collapsekit.findings import Severity
from collapsekit.probe import Tables
from collapsekit.probes.decoder_jacobian import DecoderJacobian
from collapsekit.readings.injective import Injective
from collapsekit.results import Result
from collapsekit.samples import as_samples
from tests import laws, models

Z = np.random.default_rng(0).normal(size=(40, 3))
A = torch.randn(3, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
B = torch.randn(40, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def smooth(z: Tensor) -> Tensor:
    return torch.tanh(0.3 * z @ A.to(z.dtype)) @ B.to(z.dtype)


class Model:
    """An encoder of unit posteriors and a decoder that is handed in."""

    def __init__(self, decode: Callable[[Tensor], object]) -> None:
        self.decode = decode

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, torch.full_like(x, 0.1)


def probe_of(decode: Callable[[Tensor], object], x: np.ndarray, **fields: int) -> Result:
    probe = DecoderJacobian(**fields)
    parts = laws.observations(probe, Door(Model(decode)), as_samples(x), [])
    return probe.conclude(laws.total(laws.states_of(probe, parts)))


def test_a_linear_decoder_has_its_singular_values_at_every_code() -> None:
    matrix = torch.tensor(np.random.default_rng(1).normal(size=(7, 3)) * [5.0, 1.0, 0.02])
    expected = np.linalg.svd(matrix.numpy(), compute_uv=False)
    for decode in (
        lambda z: z @ matrix.T,
        lambda z: (z.detach() @ matrix.T).numpy(),  # no derivative: central differences
    ):
        got = ck.probes.decoder_jacobian(decode, Z)
        np.testing.assert_allclose(got, np.tile(expected, (40, 1)), rtol=1e-9)
    wide = ck.probes.decoder_jacobian(lambda z: z[:, :1] * 2, Z)  # fewer outputs than codes
    np.testing.assert_allclose(wide, np.tile([2.0, 0.0, 0.0], (40, 1)), atol=1e-12)


def test_exact_derivatives_against_the_jacobians_of_torch() -> None:
    one = torch.func.vmap(torch.func.jacrev(lambda z: smooth(z[None])[0]))
    expected = torch.linalg.svdvals(one(torch.as_tensor(Z))).numpy()
    with torch.no_grad():  # as in an audit
        np.testing.assert_allclose(ck.probes.decoder_jacobian(smooth, Z), expected, rtol=1e-12)


def test_central_differences_agree_within_the_claim() -> None:
    exact = ck.probes.decoder_jacobian(smooth, Z)
    double = ck.probes.decoder_jacobian(lambda z: smooth(z.detach()), Z)
    single = ck.probes.decoder_jacobian(lambda z: smooth(z.detach().float()).numpy(), Z)
    # h^2 / 6 = 4e-6 of the third derivative; in singles 1.2e-5 of |D| besides. Here |D'''| is some
    # ten times |D'| and |D| as large as |D'|.
    assert np.abs(double - exact).max() < 1e-4 * exact.max()
    assert np.abs(single - exact).max() < 2e-4 * exact.max()


@pytest.mark.parametrize(
    "decode, method",
    [
        (smooth, "exact derivatives"),
        (lambda z: smooth(z).detach(), "central differences"),
        (lambda z: smooth(z.detach()).numpy(), "central differences"),
        # A tangent that is there and wrong: half of the way is cut off.
        (lambda z: smooth(z) + 2 * smooth(z.detach()), "central differences"),
        (torch.no_grad()(smooth), "central differences"),
        (torch.inference_mode()(smooth), "central differences"),
    ],
)
def test_the_note_says_which_way(decode: Callable[[Tensor], object], method: str) -> None:
    result = probe_of(decode, Z)
    assert all(method in number.note for number in result.numbers)
    reference = probe_of(lambda z: decode(z.clone()), Z)
    np.testing.assert_allclose(
        result.samples["decoder_reciprocal_condition"],
        reference.samples["decoder_reciprocal_condition"],
        rtol=1e-3,
    )


def test_a_cut_tangent_is_not_believed() -> None:
    whole = ck.probes.decoder_jacobian(lambda z: 3 * smooth(z), Z)
    cut = ck.probes.decoder_jacobian(lambda z: smooth(z) + 2 * smooth(z.detach()), Z)
    np.testing.assert_allclose(cut, whole, rtol=1e-3)


def test_rank_condition_and_words() -> None:
    x = np.random.default_rng(2).normal(size=(60, 4))
    scale = torch.tensor([4.0, 2.0, 1.0, 0.0], dtype=torch.float64)
    poor = probe_of(lambda z: z * scale, x)
    numbers = {n.name: n for n in poor.numbers}
    assert numbers["decoder_rank"].value == 3
    assert numbers["decoder_full_rank_fraction"].value == 0
    assert numbers["decoder_reciprocal_condition"].value == 0
    assert poor.findings[0].severity is Severity.WARN
    assert "local rank is 3 of 4" in poor.findings[0].message
    rich = probe_of(lambda z: z * (scale + 1), x)
    numbers = {n.name: n for n in rich.numbers}
    assert numbers["decoder_rank"].value == 4
    assert numbers["decoder_full_rank_fraction"].value == 1
    assert numbers["decoder_reciprocal_condition"].value == pytest.approx(0.2, rel=1e-9)
    assert rich.findings[0].severity is Severity.OK
    np.testing.assert_allclose(rich.tables["decoder_spectrum"]["median"], [5, 3, 2, 1])
    still = probe_of(lambda z: torch.zeros(len(z), 2, dtype=torch.float64), x)
    assert "does not move" in still.findings[0].message


def test_a_square_has_full_rank_away_from_0() -> None:
    values = ck.probes.decoder_jacobian(lambda z: z**2, np.array([[-1.0], [0.5], [0.0]]))
    np.testing.assert_allclose(values, [[2.0], [1.0], [0.0]], atol=1e-12)


def test_relu_network_in_single_precision_in_an_audit() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 30), nn.ReLU(), nn.Linear(30, 12))
    x = np.random.default_rng(3).normal(size=(100, 6)).astype(np.float32)
    audit = ck.audit(Model(net), x, probes=[DecoderJacobian()])
    assert audit.number("decoder_rank").n == 100
    assert "exact derivatives" in audit.summary.loc["decoder_rank", "note"]
    assert all(p.grad is None for p in net.parameters())


def test_cost_is_bounded() -> None:
    seen = []

    def decode(z: Tensor) -> Tensor:
        seen.append(len(z))
        return z[:, :400] * 1.0

    x = np.random.default_rng(4).normal(size=(64, 300))
    result = probe_of(decode, x)
    assert "on 32 random directions of 300" in result.numbers[0].note
    assert result.numbers[0].value == 32
    seen.clear()
    middling = probe_of(decode, x[:, :128])
    assert middling.numbers[0].n == 4096 // 128
    assert middling.numbers[0].value == 128
    assert max(seen) <= 64


def test_the_audit_of_a_linear_vae() -> None:
    model = models.LinearVAE((30.0, 3.0, 0.5, 0.0))
    audit = ck.audit(model, model.sample(200, 0), probes=[DecoderJacobian()])
    assert audit.number("decoder_rank").value == 3  # the fourth loading is 0
    loadings = np.sort(model.loadings.numpy())[::-1]
    np.testing.assert_allclose(audit.tables["decoder_spectrum"]["median"], loadings, atol=1e-12)


def test_a_code_that_hardly_varies_is_stepped_along_all_the_same() -> None:
    # The third code is 2 for every sample, to six digits; steps of its width are lost in single
    # precision, and a decoder that reads it would seem not to.
    class Phantom:
        def encode(self, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
            n = len(x)
            mean = np.concatenate([x.numpy()[:, :2], np.full((n, 1), 2.0)], axis=1)
            return mean, np.concatenate([np.full((n, 2), 0.1), np.full((n, 1), 1e-6)], axis=1)

        def decode(self, z: np.ndarray) -> np.ndarray:
            return np.asarray(z, dtype=np.float32)

    x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    audit = ck.audit(Phantom(), x, probes=[ck.probes.DecoderJacobian()])
    assert audit.number("decoder_rank").value == 3
    assert audit.number("decoder_reciprocal_condition").value == pytest.approx(1.0, abs=0.02)


def test_codes_at_which_the_decoder_breaks_cost_no_others() -> None:
    values = ck.probes.decoder_jacobian(torch.log, np.array([[2.0], [-1.0]]))
    assert values[0] == pytest.approx(0.5, abs=1e-4)
    assert np.isnan(values[1]).all()

    class Breaks:
        def __init__(self, above: float) -> None:
            self.above = above

        def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, torch.full_like(x, 0.1)

        def decode(self, z: Tensor) -> Tensor:
            return torch.where(z[:, :1] > self.above, torch.nan, 2 * z)

    x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    some, every = (
        ck.audit(Breaks(above), x, probes=[ck.probes.DecoderJacobian()]) for above in (1.0, -9.0)
    )
    (told,) = [f for f in some.findings if "no finite derivative" in f.message]
    assert told.severity is Severity.INCONCLUSIVE
    assert 0 < len(told.samples) < 50
    assert some.number("decoder_rank").value == 2
    assert some.number("decoder_rank").n == 100 - len(told.samples)
    assert some.samples.loc[list(told.samples), "decoder_rank"].isna().all()
    assert "decoder_rank" not in every.summary.index
    assert [f for f in every.findings if "no finite derivative at 100 of 100" in f.message]


def test_the_first_jacobian_of_a_process_imports_no_algebra_system() -> None:
    # grad_outputs= would make torch import sympy: half a second, once a process.
    program = """
import sys, torch
from collapsekit.probes import decoder_jacobian
values = decoder_jacobian(lambda z: z @ torch.diag(torch.tensor([3.0, 1.0]).double()), [[0.0, 1.0]])
assert abs(values - [[3.0, 1.0]]).max() < 1e-12, values
assert "sympy" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_thresholds_of_derivatives_are_fields_and_are_printed() -> None:
    model = models.LinearVAE((2.0, 0.5))
    probe = DecoderJacobian(trust=-1.0)  # nothing exact is believed
    audit = ck.audit(model, model.sample(40, 0), probes=[probe])
    assert audit.settings["decoder_jacobian"]["trust"] == -1.0
    assert {"step", "resolved"} <= set(audit.settings["decoder_jacobian"])
    assert "central differences" in audit.number("decoder_rank").note


def test_full_rank_on_random_directions_is_no_full_rank() -> None:
    """A linear decoder that ignores half of 512 dimensions reads every random direction."""

    def decode(z: Tensor) -> Tensor:
        return z[:, :256]

    x = np.random.default_rng(5).normal(size=(150, 512))
    result = probe_of(decode, x)
    full = {n.name: n for n in result.numbers}["decoder_full_rank_fraction"]
    assert full.value == 1.0  # of the directions
    assert full.low == 0.0  # of the decoder: the truth
    told = Tables(
        {full.name: full},
        pd.DataFrame(),
        pd.DataFrame({"round_trip_corr2": np.ones(512), "decoder_usage": np.ones(512)}),
        (),
    )
    (finding,) = Injective().read(told).findings
    assert "says nothing of the others" in finding.message
