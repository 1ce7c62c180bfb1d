"""CollapseMonitor against closed forms and against the audit, and its manners in a training."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import collapsekit as ck
from collapsekit.errors import InputError, ModelError
from collapsekit.monitors import CollapseMonitor, collapse_monitor
from tests.models import P1, Constant, LinearVAE, TinyVAE, p1, p3, p7, p10


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def told(*arrays: Any, **options: Any) -> dict[str, float]:
    monitor = CollapseMonitor(**options)
    monitor.update(*arrays)
    return monitor.compute()


# --- values ---------------------------------------------------------------------------------------


def test_collapsed_posteriors_are_nothing() -> None:
    values = told(*p10())
    onset = values.pop("onset_step")
    unmeasured = {k for k, v in values.items() if math.isnan(v)}
    assert unmeasured == {"swap_gap", "informative_fraction"}
    assert onset == 0.0
    assert [values[k] for k in set(values) - unmeasured] == pytest.approx([0.0] * 8, abs=1e-5)


def test_a_constant_posterior_off_the_prior_has_a_rate_and_no_information() -> None:
    values = told(*p3(200))
    assert values["rate"] == pytest.approx(2.318147181, abs=1e-9)
    assert values["mutual_information"] == pytest.approx(0.0, abs=1e-12)
    assert values["active_units"] == 0.0


def test_linear_gaussian_model_in_closed_form() -> None:
    n = 4096
    mean, scale = p1(n)
    values = told(mean, scale, samples=n)
    kl = ck.probes.kl(mean, scale).sum(axis=1)
    assert abs(values["rate"] - 17.645183996) < 4 * kl.std() / n**0.5
    variance = np.array(P1.lam) / (1 + np.array(P1.lam))  # A_j; standard error A_j sqrt(2 / n)
    for name, threshold in (("", 0.01), ("_0.1", 0.1)):
        clear = np.abs(variance - threshold) > 4 * variance * (2 / n) ** 0.5
        expected = int((variance > threshold).sum())
        assert abs(values[f"active_units{name}"] - expected) <= int((~clear).sum())
        assert values[f"active_fraction{name}"] == values[f"active_units{name}"] / 32
    # A lower bound, near its ceiling here.
    assert 0.9 * math.log(n) < values["mutual_information"] <= math.log(n)


def test_the_numbers_are_the_audits_on_the_same_rows() -> None:
    mean, scale = p7(300)
    values = told(mean, scale)
    assert values["rate"] == pytest.approx(ck.probes.kl(mean, scale).sum(1).mean(), rel=1e-12)
    information = ck.probes.mutual_information(mean, scale)
    assert values["mutual_information"] == pytest.approx(information.value, rel=1e-9)
    model = LinearVAE((4.0, 1.0, 0.0))
    x = model.sample(250, seed=3)
    audit = ck.audit((model.encode, model.decode), x, likelihood=("gaussian", model.scale))
    monitor = CollapseMonitor(x, likelihood=("gaussian", model.scale))
    values = monitor.check((model.encode, model.decode), 0)
    gap = audit.summary.loc["swap_gap"]
    assert values["swap_gap"] == pytest.approx(gap["value"], rel=1e-9)
    # E gap = sum of lam: (|x - W z'|^2 - |x - W z|^2) / 2 s^2 with z' independent of x.
    assert abs(values["swap_gap"] - 5.0) < 4 * (gap["high"] - gap["value"]) / 1.96
    for name in ("active_units", "mutual_information"):
        assert values[name] == pytest.approx(audit.summary.loc[name, "value"], rel=1e-9)
    assert values["informative_fraction"] == pytest.approx(2 / 3)
    assert values["fake_units"] == 0.0


def test_a_decoder_that_ignores_the_code_has_no_swap_gap() -> None:
    model = Constant()
    x = torch.rand(40, 6, dtype=torch.float64)
    values = CollapseMonitor(x).check((model.encode, model.decode), 0)
    assert values["swap_gap"] == 0.0


def test_units_that_nobody_reads_are_fake() -> None:
    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        return x, torch.full_like(x, 0.1)

    def decode(z: Tensor) -> Tensor:
        return z * torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=z.dtype)

    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)).double()
    values = CollapseMonitor(x, likelihood=("gaussian", 0.3)).check((encode, decode), 0)
    assert values["active_units"] == 4.0
    assert values["informative_fraction"] == 0.5
    assert (values["fake_units"], values["fake_fraction"]) == (2.0, 0.5)
    # Without nats the decoder's part stays open: they carry information, so they are not counted.
    values = CollapseMonitor(x).check((encode, decode), 0)
    assert math.isnan(values["informative_fraction"])
    assert values["fake_units"] == 0.0


def test_units_without_information_are_fake_whatever_the_decoder_does() -> None:
    # Var mu = 0.02, scale 1: active, and I_j = 0.5 ln 1.02 = 0.0099 nats.
    mean = np.sqrt(0.02) * np.random.default_rng(0).standard_normal((2000, 4))
    values = told(mean, np.ones_like(mean))
    assert values["active_units"] == values["fake_units"] == 4.0


@pytest.mark.parametrize("cuts", [[500], [1, 99, 400], [250, 250]])
def test_batches_may_be_cut_anywhere(cuts: list[int]) -> None:
    x = P1.sample(500, seed=1)
    mean, scale = P1.encode(x)
    monitor = CollapseMonitor(samples=200, likelihood=("gaussian", P1.scale))
    for part in torch.arange(500).split(cuts):
        monitor.update(mean[part], scale[part], x[part])
    values = monitor.compute(decode=P1.decode)
    expected = told(mean, scale, samples=200)
    for name in set(values) - {"swap_gap", "informative_fraction", "fake_units", "fake_fraction"}:
        assert values[name] == pytest.approx(expected[name], rel=1e-9, nan_ok=True)
    assert values["swap_gap"] > 0
    assert values["informative_fraction"] > 0.3


def test_declared_parameterisation_and_read_only_arrays() -> None:
    mean, scale = (a.astype(np.float32) for a in p7(100))
    mean.flags.writeable = False
    expected = told(mean, scale)
    for name, value in (("logvar", 2 * np.log(scale)), ("variance", scale**2)):
        assert told(mean, value, parameterisation=name)["rate"] == pytest.approx(
            expected["rate"], rel=1e-5
        )


def test_a_prior_of_ones_own() -> None:
    mean, scale = p7(100)
    moved = told(5 + 3 * mean, 3 * scale, prior=([5.0, 5.0], [3.0, 3.0]))
    expected = told(mean, scale)
    for name in ("rate", "active_units", "mutual_information"):
        assert moved[name] == pytest.approx(expected[name], rel=1e-5)  # a kernel in float32


def test_rows_that_are_not_finite_are_left_out() -> None:
    mean, scale = p7(100)
    broken = mean.copy()
    broken[::10] = np.nan
    kept = np.arange(100) % 10 > 0
    assert told(broken, scale)["rate"] == pytest.approx(
        told(mean[kept], scale[kept])["rate"], rel=1e-12
    )
    with pytest.raises(ModelError, match="no finite posterior"):
        told(mean * np.nan, scale)


def test_spatial_latents_of_many_dimensions() -> None:
    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.expand(-1, 5, -1, -1), torch.full((len(x), 5, 4, 4), 0.1)

    def decode(z: Tensor) -> Tensor:
        assert z.shape[1:] == (5, 4, 4)
        return z.mean(1, keepdim=True)

    x = torch.randn(100, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    values = CollapseMonitor(x, likelihood=("gaussian", 0.1)).check((encode, decode), 0)
    assert values["active_units"] == 80.0
    assert 0.0 <= values["fake_fraction"] <= 1.0  # of 64
    assert values["swap_gap"] > 0


def test_conditional_models_keep_their_condition() -> None:
    class Conditional:
        """x = z + condition, with the condition in x's last column."""

        def context(self, x: Tensor) -> Tensor:
            return x[:, 2:]

        def target(self, x: Tensor) -> Tensor:
            return x[:, :2]

        def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x[:, :2] - x[:, 2:], torch.full((len(x), 2), 1e-3)

        def decode(self, z: Tensor, condition: Tensor) -> Tensor:
            return z + condition

    z = torch.randn(80, 2, generator=torch.Generator().manual_seed(0))
    condition = (torch.arange(80) % 2 * 100.0)[:, None]
    x = torch.cat([z + condition, condition], dim=1)
    values = CollapseMonitor(x).check(Conditional(), 0)
    # Swapped within a condition: 2 dims of Var(z - z') = 2, not of 100^2.
    assert 1.0 < values["swap_gap"] < 10.0


# --- history, onset, warning ----------------------------------------------------------------------


def test_history_holds_every_check() -> None:
    monitor = CollapseMonitor()
    for step in (0, 100):
        monitor.update(*p7(50))
        monitor.compute(step)
    assert monitor.history["step"] == [0, 100]
    assert {len(column) for column in monitor.history.values()} == {2}
    assert next(iter(monitor.history)) == "step"
    monitor.update(*p7(50))
    monitor.compute()
    assert monitor.history["step"][-1] == 2


def test_onset_is_the_first_step_of_the_collapse_that_stays() -> None:
    monitor = CollapseMonitor()
    healthy, collapsed = p7(50), p10()
    onsets = []
    for step, arrays in enumerate([healthy, collapsed, healthy, collapsed, collapsed]):
        mean, scale = (a[:32, :2] for a in arrays)
        monitor.update(mean, scale)
        onsets.append(monitor.compute(10 * step)["onset_step"])
    assert onsets == pytest.approx([math.nan, 10.0, math.nan, 30.0, 30.0], nan_ok=True)
    assert monitor.onset == 30


def test_onset_by_either_bar() -> None:
    rate_only = CollapseMonitor(rate_bar=100.0)
    rate_only.update(*p7(50))
    rate_only.compute(7)
    assert rate_only.onset == 7
    neither = CollapseMonitor(rate_bar=1.0, active_bar=0.5)
    neither.update(*p7(50))
    neither.compute(7)
    assert neither.onset is None


def test_fake_units_are_warned_about_once_and_only_when_they_stay() -> None:
    mean = np.sqrt(0.02) * np.random.default_rng(0).standard_normal((500, 4))
    monitor = CollapseMonitor()
    for step in range(2):
        monitor.update(mean, np.ones_like(mean))
        monitor.compute(step)
    assert not monitor.shows_fake_units
    monitor.update(mean, np.ones_like(mean))
    with pytest.warns(UserWarning, match=r"4 latent units are active without.*CK604"):
        monitor.compute(2)
    assert monitor.shows_fake_units
    monitor.update(mean, np.ones_like(mean))
    monitor.compute(3)  # no second word


# --- manners --------------------------------------------------------------------------------------


def test_a_check_leaves_the_training_alone() -> None:
    model = TinyVAE().train()
    model.dropout.eval()  # a frozen part stays frozen
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    x = torch.rand(50, 6)
    before, state = x.clone(), torch.get_rng_state()
    monitor = CollapseMonitor(x, likelihood="bernoulli")
    first = monitor.check(model, 0)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, before)
    assert model.training
    assert model.inner.training
    assert not model.dropout.training
    assert torch.is_grad_enabled()
    assert all(bool((p.grad == 1).all()) for p in model.parameters() if p.grad is not None)
    assert monitor.check(model, 1) == pytest.approx(
        first, nan_ok=True
    )  # evaluation mode, own noise


class Stream(torch.utils.data.IterableDataset[Tensor]):
    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.x)


def test_the_same_rows_are_chosen_however_the_data_come() -> None:
    model = LinearVAE((4.0, 1.0, 0.1))
    x = model.sample(700, seed=5)
    values = [
        CollapseMonitor(data, samples=100).check((model.encode, model.decode), 0)
        for data in (
            x.numpy(),
            torch.utils.data.TensorDataset(x),
            torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=33),
            Stream(x),
        )
    ]
    for other in values[1:]:
        assert other == pytest.approx(values[0], rel=1e-9, nan_ok=True)
    whole = CollapseMonitor(x, samples=700).check((model.encode, model.decode), 0)
    assert whole["rate"] != values[0]["rate"]


def test_checks_stay_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now": 100.0}
    monkeypatch.setattr(collapse_monitor.time, "perf_counter", lambda: clock["now"])
    model = LinearVAE((4.0, 1.0))
    monitor = CollapseMonitor(model.sample(20, seed=0), budget=0.02)

    def encode(x: Tensor) -> Any:
        clock["now"] += 0.5  # seconds a check
        return model.encode(x)

    checks = []
    for epoch in range(100):
        clock["now"] += 1.0
        if monitor.due():
            monitor.check((encode, model.decode), epoch)
            checks.append(epoch)
    # The first is free; then so that 0.5 s a check stay within 2 % of the seconds trained.
    assert checks == [0, 49, 74, 99]
    monitor.budget = None
    assert monitor.due()


def test_it_pickles() -> None:
    model = LinearVAE((4.0, 1.0))
    monitor = CollapseMonitor(model.sample(20, seed=0))
    first = monitor.check((model.encode, model.decode), 0)
    twin = pickle.loads(pickle.dumps(monitor))
    assert isinstance(twin, CollapseMonitor)
    assert repr(twin.history) == repr(monitor.history)
    assert twin.check((model.encode, model.decode), 0) == pytest.approx(first, nan_ok=True)


def test_refusals() -> None:
    with pytest.raises(InputError, match=r"no batch since the last compute"):
        CollapseMonitor().compute()
    with pytest.raises(InputError, match=r"no data to look[\s\S]*CollapseMonitor\(data=val\)"):
        CollapseMonitor().check(TinyVAE(), 0)
    with pytest.raises(InputError, match="no model"):
        CollapseMonitor(torch.rand(4, 6)).check(3, 0)
    for wrong in ({"samples": 1}, {"budget": 0.0}, {"budget": 2.0}):
        with pytest.raises(InputError, match="monitor cannot work"):
            CollapseMonitor(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no such parameterisation"):
        CollapseMonitor(parameterisation="std")
