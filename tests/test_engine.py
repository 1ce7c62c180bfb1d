"""The engine: any cut, bad rows, failures, restored state, provenance."""

from __future__ import annotations

import os
import pickle
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import collapsekit as ck
from collapsekit.engine import run
from collapsekit.errors import InputError, ModelError
from collapsekit.number import Headline
from collapsekit.observation import Observation
from collapsekit.probe import States
from collapsekit.probes import KL, REGISTERED
from collapsekit.results import Audit, Result
from collapsekit.samples import as_samples
from tests import models

LINEAR = models.LinearVAE((30.0, 3.0, 0.5, 0.0))
GAUSSIAN = ("gaussian", 0.5)


def same(a: Audit, b: Audit, rtol: float = 1e-9) -> None:
    for name in ("summary", "samples", "dimensions"):
        left, right = getattr(a, name), getattr(b, name)
        left, right = (t.drop(columns="note", errors="ignore") for t in (left, right))
        pd.testing.assert_frame_equal(left, right, rtol=rtol, atol=1e-9)
    assert a.verdict.name == b.verdict.name
    assert [f.code for f in a.findings] == [f.code for f in b.findings]


@pytest.fixture(scope="module")
def linear() -> Audit:
    return ck.audit(LINEAR, LINEAR.sample(300, 0), likelihood=GAUSSIAN)


@pytest.mark.parametrize("batch", [1, 7, 299])
def test_any_batch_cut_gives_the_same_audit(linear: Audit, batch: int) -> None:
    same(linear, ck.audit(LINEAR, LINEAR.sample(300, 0), likelihood=GAUSSIAN, batch=batch))


def test_any_thread_count_gives_the_same_audit(linear: Audit) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2 if before == 1 else 1)
        again = ck.audit(LINEAR, LINEAR.sample(300, 0), likelihood=GAUSSIAN)
    finally:
        torch.set_num_threads(before)
    same(linear, again)


def test_the_same_seed_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    files = []
    for name in "ab":
        audit = ck.audit(LINEAR, LINEAR.sample(60, 0), likelihood=GAUSSIAN)
        files.append(audit.save(tmp_path / name).read_bytes())
    assert files[0] == files[1]


def test_another_seed_gives_other_draws(linear: Audit) -> None:
    other = ck.audit(LINEAR, LINEAR.sample(300, 0), likelihood=GAUSSIAN, seed=1)
    assert other.number("rate").value == linear.number("rate").value
    assert other.number("swap_gap").value != linear.number("swap_gap").value
    assert abs(other.number("swap_gap").value - linear.number("swap_gap").value) < 50


def test_the_contract_of_names(linear: Audit) -> None:
    assert {
        "kl_total",
        "active_dims",
        "collapsed_fraction",
        "locally_collapsed",
        "pointwise_information",
        "reidentification",
        "swap_gap",
        "reconstruction_error",
    } <= set(linear.samples.columns)
    assert {
        "kl",
        "mean_variance",
        "signal_fraction",
        "active",
        "state",
        "decoder_usage",
        "round_trip_r2",
        "round_trip_r2_prior",
        "round_trip_corr2",
        "robust_round_trip_r2",
        "role",
    } <= set(linear.dimensions.columns)
    assert {
        "rate",
        "active_units",
        "active_fraction",
        "effective_rank",
        "locally_collapsed_fraction",
        "mutual_information",
        "reidentification",
        "swap_gap",
        "collision_fraction",
        "round_trip_r2",
        "robust_round_trip_r2",
    } <= set(linear.summary.index)
    assert list(linear.summary.columns) == ["value", "low", "high", "unit", "n", "note"]
    assert len(linear.samples) == 300
    assert len(linear.dimensions) == 4
    assert not linear.skipped


def test_every_number_has_unit_n_and_interval(linear: Audit) -> None:
    table = linear.summary
    assert (table["unit"].str.len() > 0).all()
    assert (table["n"] > 0).all()
    known = table["value"].notna()
    assert (table["low"] <= table["value"])[known].all()
    assert (table["high"] >= table["value"])[known].all()


def test_save_and_load(linear: Audit, tmp_path: Path) -> None:
    back = ck.load(linear.save(tmp_path / "linear.audit"))
    same(linear, back, rtol=0)
    assert back.verdict == linear.verdict
    assert str(back.findings) == str(linear.findings)
    assert back.provenance == linear.provenance
    assert back.settings == linear.settings
    for name, array in linear.arrays.items():
        np.testing.assert_array_equal(array, back.arrays[name])


def test_the_population_is_a_uniform_subset() -> None:
    audit = ck.audit(LINEAR, LINEAR.sample(300, 0), likelihood=GAUSSIAN, population=50)
    assert audit.provenance["population"] == 50
    assert audit.samples["swap_gap"].notna().sum() == 50
    assert audit.samples["swap_gap"].dtype == "Float64"
    assert audit.samples["kl_total"].notna().all()
    assert any(f.code == "CK007" for f in audit.findings)
    other = ck.audit(LINEAR, LINEAR.sample(300, 0), likelihood=GAUSSIAN, population=50, batch=7)
    same(audit, other)


def test_an_encoder_alone_is_audited_as_far_as_it_goes() -> None:
    audit = ck.audit(LINEAR.encode, LINEAR.sample(100, 0))
    assert audit.number("mutual_information").known
    assert "swap_gap" in audit.skipped
    assert "no decode" in audit.skipped["swap_gap"]
    assert any(f.code == "CK002" for f in audit.findings)


def test_rows_that_are_not_finite_leave_with_a_finding() -> None:
    x = LINEAR.sample(100, 0)
    x[[3, 70]] = torch.nan
    audit = ck.audit(LINEAR, x, likelihood=GAUSSIAN)
    lost = next(f for f in audit.findings if f.code == "CK001")
    assert lost.samples == (3, 70)
    assert audit.samples["kl_total"].isna().to_numpy().nonzero()[0].tolist() == [3, 70]
    assert audit.number("rate").n == 98
    assert np.isfinite(audit.number("rate").value)


class FailsLate(models.LinearVAE):
    """Encodes, and decodes until it meets its 380th code."""

    def decode(self, z: Tensor) -> Tensor:
        Counter.seen += len(z)
        if Counter.seen > 380:
            raise ValueError("the decoder is tired")
        return super().decode(z)


class Counter:
    seen = 0


def test_a_probe_that_breaks_off_keeps_what_it_saw() -> None:
    Counter.seen = 0
    model = FailsLate(LINEAR.lam)
    audit = ck.audit(model, LINEAR.sample(300, 0), likelihood=GAUSSIAN, batch=20)
    broken = [f for f in audit.findings if f.code == "CK003"]
    assert any("reconstruction" in f.message and "tired" in f.message for f in broken)
    error = audit.number("reconstruction_error")
    assert 0 < error.n < 300
    assert audit.number("rate").n == 300  # the encoder's side lost nothing


class EncoderFails(models.LinearVAE):
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if bool((x == 777).any()):
            raise ValueError("cannot encode this")
        return super().encode(x)


def test_a_batch_that_cannot_be_encoded_is_told_and_left() -> None:
    x = LINEAR.sample(100, 0)
    x[95] = 777
    audit = ck.audit(EncoderFails(LINEAR.lam), x, likelihood=GAUSSIAN, batch=10)
    lost = next(f for f in audit.findings if f.code == "CK001")
    assert lost.samples == (95,)  # alone, whatever the batch
    assert "cannot encode this" in lost.message
    assert audit.number("rate").n == 99


class OutOfMemory(models.LinearVAE):
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if len(x) > 16:
            raise torch.OutOfMemoryError("out of memory")
        return super().encode(x)

    def decode(self, z: Tensor) -> Tensor:
        if len(z) > 16:
            raise MemoryError
        return super().decode(z)


def test_batches_shrink_when_memory_runs_out(linear: Audit) -> None:
    audit = ck.audit(OutOfMemory(LINEAR.lam), LINEAR.sample(300, 0), likelihood=GAUSSIAN)
    same(linear, audit)


def test_bad_rows_may_come_first() -> None:
    x = LINEAR.sample(100, 0)
    x[:3] = torch.nan
    audit = ck.audit(LINEAR, x, likelihood=GAUSSIAN)
    assert next(f for f in audit.findings if f.code == "CK001").samples == (0, 1, 2)
    again = ck.audit(LINEAR, x, likelihood=GAUSSIAN, batch=10)
    same(audit, again)


def test_whole_batches_of_bad_rows_may_come_first(linear: Audit) -> None:
    x = LINEAR.sample(300, 0)
    bad = torch.cat([torch.full((25, x.shape[1]), torch.nan), x])
    audit = ck.audit(LINEAR, bad, likelihood=GAUSSIAN, batch=10)
    assert next(f for f in audit.findings if f.code == "CK001").samples == tuple(range(25))
    assert audit.number("rate").value == pytest.approx(linear.number("rate").value, rel=1e-9)
    with pytest.raises(ModelError, match="not finite"):  # the search has an end
        ck.audit(LINEAR, torch.full((300, x.shape[1]), torch.nan), batch=10)


@pytest.mark.parametrize("batch", [8, 64])
def test_an_encoder_may_raise_on_the_first_rows(batch: int) -> None:
    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        if bool((x == 777).any()):
            raise ArithmeticError("a row of 777")
        return LINEAR.encode(x)

    x = LINEAR.sample(60, 0)
    x[:20] = 777
    audit = ck.audit(encode, x, batch=batch)
    assert next(f for f in audit.findings if f.code == "CK001").samples == tuple(range(20))
    assert audit.number("rate").n == 40


def test_a_shape_that_changes_late_loses_nothing_before_it() -> None:
    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        mean, scale = LINEAR.encode(x)
        return (mean[:, :2], scale[:, :2]) if bool((x == 777).any()) else (mean, scale)

    x = LINEAR.sample(50, 0)
    x[49] = 777
    audit = ck.audit(encode, x, batch=16)
    lost = next(f for f in audit.findings if f.code == "CK001")
    assert lost.samples == (49,)
    assert "latent shape changed" in lost.message


def test_one_sample() -> None:
    audit = ck.audit(LINEAR, LINEAR.sample(1, 0), likelihood=GAUSSIAN)
    assert audit.verdict.name == "inconclusive"
    assert any(f.code == "CK006" and "not defined" in f.message for f in audit.findings)
    assert np.isfinite(audit.number("rate").value)
    assert audit.dimensions["mean_variance"].isna().all()


def test_constant_data() -> None:
    audit = ck.audit(LINEAR, torch.ones(80, 4), likelihood=GAUSSIAN)  # 73 show that most are so
    assert audit.number("mutual_information").high < 1e-6
    assert audit.number("effective_rank").value == 0


def test_a_decoder_that_ignores_the_code() -> None:
    audit = ck.audit(models.Constant(), torch.rand(200, 6).double(), likelihood="bernoulli")
    assert audit.verdict.name == "total"
    assert (audit.dimensions["decoder_usage"] == 0).all()
    assert (audit.dimensions["role"] == "dead").all()
    assert audit.number("swap_gap").value == 0


class OtherWidth:
    """Declares the prior's width; its decoder lives with codes that hardly leave their mean."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return 0.05 * x, torch.ones_like(x)

    def decode(self, z: Tensor) -> Tensor:
        return 20.0 * z


@pytest.mark.parametrize("likelihood", [None, ("gaussian", 0.1)])
def test_a_contradiction_is_the_verdict(likelihood: Any) -> None:
    x = torch.randn(2_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    probes = [p for p in REGISTERED if p.name in ("kl", "active_units", "mean_codes")]
    audit = ck.audit(OtherWidth(), x, likelihood=likelihood, probes=probes)
    assert audit.number("rate").high < 0.1
    assert audit.number("told_by_mean_fraction").value == 1
    assert audit.verdict.name == "contradictory"


@pytest.mark.parametrize("loading", [5.0, 10.0])
@pytest.mark.parametrize("share", [0.03, 0.1])
def test_a_lagging_encoder_is_no_contradiction(loading: float, share: float) -> None:
    """Its gap is (2 R)^1/2 times the model information, thousands of times its rate R."""

    class Lagging:
        def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return share * x / loading, torch.ones_like(x)

        def decode(self, z: Tensor) -> Tensor:
            return loading * z

    generator = torch.Generator().manual_seed(0)
    z, noise = (torch.randn(2_000, 1, generator=generator, dtype=torch.float64) for _ in range(2))
    audit = ck.audit(Lagging(), loading * z + 0.5 * noise, likelihood=("gaussian", 0.5))
    assert audit.number("swap_gap").low > 100 * audit.number("rate").value
    assert audit.verdict.name == "total"
    assert any(f.code == "CK605" and "only the inference" in f.message for f in audit.findings)


def test_active_units_that_nobody_reads_are_no_contradiction() -> None:
    """A variance of 0.05 is active, and tells 0.03 nat: the information decides."""

    class Deaf:
        def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return 0.22 * x, torch.full_like(x, 0.975)

        def decode(self, z: Tensor) -> Tensor:
            return 0.0 * z

    x = torch.randn(2_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    audit = ck.audit(Deaf(), x, likelihood=GAUSSIAN)
    assert audit.number("active_units").low == 1
    assert audit.verdict.name == "total"


@pytest.mark.parametrize("likelihood", [None, GAUSSIAN])
def test_a_weak_model_is_not_contradictory(likelihood: Any) -> None:
    weak = models.LinearVAE((0.15,))  # rate 0.07 nats, consistent
    audit = ck.audit(weak, weak.sample(4_000, 0), likelihood=likelihood)
    assert audit.verdict.name == "total"


def test_a_handful_of_samples_decides_nothing() -> None:
    for n in (1, 2, 3, 9):
        audit = ck.audit(LINEAR, LINEAR.sample(n, 0), likelihood=GAUSSIAN)
        assert audit.verdict.name == "inconclusive"
        audit.assert_ok(fail_on="fail")


def test_losing_many_samples_is_not_healthy() -> None:
    model = models.LinearVAE((30.0, 20.0))
    x = model.sample(400, 0)
    assert ck.audit(model, x, likelihood=GAUSSIAN).verdict.name == "healthy"
    x[::4] = torch.nan
    assert ck.audit(model, x, likelihood=GAUSSIAN).verdict.name == "inconclusive"


def test_batch_norm_in_training_mode_is_seen_or_switched_off() -> None:
    class Owner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(6).double()

        def look(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.norm(x)[:, :2], torch.ones(len(x), 2)

    x = np.random.default_rng(0).random((50, 6))
    owner = Owner()
    audit = ck.audit(owner.look, x)
    assert int(owner.norm.num_batches_tracked) == 0
    assert owner.training
    assert not any(f.code == "CK008" for f in audit.findings)

    def centred(x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :2] - x[:, :2].mean(dim=0), torch.ones(len(x), 2)

    assert any(f.code == "CK008" for f in ck.audit(centred, x).findings)


class Classes:
    """Conditional, with one class of a single sample; the condition is the last column."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :2], torch.full((len(x), 2), 0.3, dtype=torch.float64)

    def context(self, x: Tensor) -> Tensor:
        return x[:, 2:]

    def decode(self, z: Tensor, context: Tensor) -> Tensor:
        return torch.cat([z, context], dim=1)


@pytest.mark.parametrize("batch", [1, 16])
def test_a_sample_without_partner_changes_nothing_for_the_others(batch: int) -> None:
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:, 2] = torch.arange(200) % 3
    x[77, 2] = 9
    whole = ck.audit(Classes(), x, likelihood=GAUSSIAN)
    assert whole.number("swap_gap").n == 199
    assert whole.samples["swap_gap"].isna().to_numpy().nonzero()[0].tolist() == [77]
    same(whole, ck.audit(Classes(), x, likelihood=GAUSSIAN, batch=batch))


def test_global_state_is_as_before() -> None:
    module = models.TinyVAE()
    module.train()
    module.dropout.eval()
    np.random.seed(3)
    random.seed(3)
    torch.manual_seed(3)
    states = (random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state())  # type: ignore[union-attr]
    audit = ck.audit(module, np.random.default_rng(0).random((40, 6)), likelihood="bernoulli")
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert module.training
    assert not module.dropout.training
    assert torch.is_grad_enabled()
    assert all(p.requires_grad for p in module.parameters())
    assert any("training mode" in f.message for f in audit.findings)


class Random(nn.Module):
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.randn(len(x), 2), torch.ones(len(x), 2)


def test_a_random_encoder_is_told() -> None:
    audit = ck.audit(Random().encode, torch.rand(20, 3))
    assert any(f.code == "CK005" for f in audit.findings)


def test_a_random_decoder_is_told(linear: Audit) -> None:
    def noisy(z: Tensor) -> Tensor:
        return LINEAR.decode(z) + torch.randn(len(z), 1)

    audit = ck.audit((LINEAR.encode, noisy), LINEAR.sample(50, 0))
    assert any(f.code == "CK017" for f in audit.findings)
    assert not any(f.code == "CK017" for f in linear.findings)


def test_time_is_told_by_probe(linear: Audit) -> None:
    told = linear.run["probes"]
    assert {p.name for p in REGISTERED if p.name in told} == set(told)
    assert told["kl"]["stream"] == "data"
    spent = sum(entry["observe"] + entry["conclude"] for entry in told.values())
    assert spent > 0


def test_settings_are_recorded() -> None:
    audit = ck.audit(LINEAR, LINEAR.sample(50, 0), batch=20, population=30, prior=(0.5, 2.0))
    told = audit.provenance
    assert (told["batch"], told["population_limit"], told["device"]) == (20, 30, "cpu")
    dims = told["dimensions"]
    assert told["prior_declared"] == {"mean": [0.5] * dims, "scale": [2.0] * dims}


def test_labels_are_carried_through() -> None:
    labels = np.arange(300) % 3
    audit = ck.audit(LINEAR, LINEAR.sample(300, 0), labels=labels, likelihood=GAUSSIAN)
    assert audit.samples["label"].tolist() == labels.tolist()


def test_a_given_prior() -> None:
    mean, scale = np.full(4, 1.0), np.full(4, 2.0)
    x = LINEAR.sample(100, 0)
    audit = ck.audit(LINEAR.encode, x, prior=(mean, scale))
    q = torch.distributions.Normal(*LINEAR.encode(x))
    p = torch.distributions.Normal(torch.tensor(mean), torch.tensor(scale))
    expected = torch.distributions.kl_divergence(q, p).mean(dim=0)
    np.testing.assert_allclose(audit.dimensions["kl"], expected, rtol=1e-9)
    assert "given" in audit.provenance["prior"]
    with pytest.raises(InputError, match="prior does not have the code's dimensions"):
        ck.audit(LINEAR.encode, x, prior=(np.zeros(3), np.ones(3)))


@pytest.mark.parametrize(
    ("name", "transform"),
    [
        ("logvar", lambda s: 2 * s.log()),
        ("variance", lambda s: s**2),
        ("log_scale", lambda s: s.log()),
    ],
)
def test_parameterisations(linear: Audit, name: str, transform: Any) -> None:
    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        mean, scale = LINEAR.encode(x)
        return mean, transform(scale)

    audit = ck.audit(
        (encode, LINEAR.decode), LINEAR.sample(300, 0), likelihood=GAUSSIAN, parameterisation=name
    )
    assert audit.number("rate").value == pytest.approx(linear.number("rate").value, rel=1e-9)
    if name == "logvar":
        with pytest.raises(ModelError, match='parameterisation="logvar"'):
            ck.audit(lambda x: (LINEAR.encode(x)[0], -torch.ones(len(x), 4)), torch.rand(9, 4))


@pytest.mark.parametrize(
    ("encode", "words"),
    [
        (lambda x: torch.zeros(len(x), 2), "no posterior"),
        (
            lambda x: (torch.zeros(len(x), 2), torch.ones(len(x), 3)),
            "not a posterior for every row",
        ),
        (lambda x: (torch.zeros(3, 2), torch.ones(3, 2)), "not a posterior for every row"),
        (lambda x: (torch.full((len(x), 2), torch.nan), torch.ones(len(x), 2)), "not finite"),
        (lambda x: (torch.zeros(len(x), 2), torch.zeros(len(x), 2)), "usable scale"),
    ],
)
def test_unusable_encoders_are_named(encode: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        ck.audit(encode, torch.rand(10, 3))
    assert "got:" in str(caught.value)
    assert "expected:" in str(caught.value)


def test_logits_where_probabilities_were_declared() -> None:
    with pytest.raises(ModelError, match="bernoulli_logits"):
        ck.audit(
            (lambda x: (x[:, :2] * 0, x[:, :2] * 0 + 1), lambda z: torch.full((len(z), 6), -3.0)),
            torch.rand(20, 6),
            likelihood="bernoulli",
        )


def test_a_decoder_of_another_shape_skips_what_compares() -> None:
    with pytest.raises(ModelError, match="does not have the data's shape"):
        ck.audit((LINEAR.encode, lambda z: z[:, :2]), LINEAR.sample(30, 0))


def test_no_data_and_bad_arguments() -> None:
    with pytest.raises(InputError, match="no data"):
        ck.audit(LINEAR)
    with pytest.raises(InputError, match="batch must be a positive"):
        ck.audit(LINEAR, LINEAR.sample(5, 0), batch=0)
    with pytest.raises(InputError, match="likelihood"):
        ck.audit(LINEAR, LINEAR.sample(5, 0), likelihood="gaussian")
    with pytest.raises(InputError, match="parameterisation"):
        ck.audit(LINEAR, LINEAR.sample(5, 0), parameterisation="std")


def test_assert_ok(linear: Audit) -> None:
    with pytest.raises(ck.CollapseError, match="verdict"):
        linear.assert_ok(fail_on="warn")
    with pytest.raises(InputError, match="severity"):
        linear.assert_ok(fail_on="bad")
    healthy = ck.audit(
        models.LinearVAE((30.0, 20.0)), models.LinearVAE((30.0, 20.0)).sample(900, 0)
    )
    healthy.assert_ok(fail_on="fail")


@dataclass(frozen=True)
class Largest:
    """A probe of somebody else's: the largest mean."""

    name: ClassVar[str] = "largest"
    source: ClassVar[Any] = "data"
    limit: ClassVar[int | None] = None
    codes: ClassVar[tuple[Any, ...]] = ()
    headlines: ClassVar[tuple[Headline, ...]] = (Headline("largest", "Largest mean", "down"),)

    def observe(self, obs: Observation) -> States:
        from collapsekit.streaming import Top

        size = obs.posterior.mean.abs().amax(dim=1)
        return {"top": Top(1, size, obs.index)}

    def conclude(self, state: States) -> Result:
        from collapsekit.number import Number

        value = float(state["top"].score[0])
        return Result(numbers=(Number("largest", value, value, value, "1", 1),))


def test_a_probe_from_outside() -> None:
    x = LINEAR.sample(100, 0)
    audit = run(LINEAR, as_samples(x), [KL(), Largest()])
    assert audit.titles["largest"] == "Largest mean"
    assert audit.better["largest"] == "down"
    assert "Largest mean" in audit.to_model_card()
    assert audit.number("largest").value == pytest.approx(float(LINEAR.encode(x)[0].abs().max()))
    with pytest.raises(InputError, match="one name"):
        run(LINEAR, as_samples(x), [KL(), KL()])


def test_a_generator_of_batches_has_its_population_stored(linear: Audit) -> None:
    class Stream(torch.utils.data.IterableDataset[Tensor]):
        def __iter__(self) -> Any:
            return iter(LINEAR.sample(300, 0))

    audit = ck.audit(LINEAR, Stream(), likelihood=GAUSSIAN)
    same(linear, audit)


def test_probes_pickle_with_their_fields() -> None:
    for probe in REGISTERED:
        assert pickle.loads(pickle.dumps(probe)) == probe


def test_progress_is_quiet_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    os.environ.pop("CI", None)
    ck.audit(LINEAR, LINEAR.sample(30, 0), likelihood=GAUSSIAN)
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""


def test_probes_go_by_name_and_strangers_are_refused() -> None:
    x = LINEAR.sample(40, 0)
    named = ck.audit(LINEAR, x, probes=["kl"])
    assert named.number("rate").value == ck.audit(LINEAR, x, probes=[KL()]).number("rate").value
    for wrong in (["kll"], [KL], [3]):
        with pytest.raises(InputError, match="no probe"):
            ck.audit(LINEAR, x, probes=wrong)
    with pytest.raises(InputError, match="did you mean 'kl'"):
        ck.audit(LINEAR, x, probes=["kll"])


def test_whole_numbers_of_any_type() -> None:
    x = LINEAR.sample(40, 0)
    audit = ck.audit(LINEAR, x, probes=["kl"], seed=np.int64(1), batch=np.int64(8))
    assert audit.provenance["seed"] == 1
    assert audit.provenance["batch"] == 8
    for wrong in ({"seed": 1.5}, {"batch": 0}, {"population": "many"}):
        with pytest.raises(InputError, match="whole number"):
            ck.audit(LINEAR, x, probes=["kl"], **wrong)
