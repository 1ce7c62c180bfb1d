"""The LR loss's benchmarks: what they measure, how they choose, what they hold themselves to."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import sklearn.datasets
import torch

from benchmarks import lr_loss, lr_step
from benchmarks.lr import data, measuring, running, settings, table, training

REPORTS = Path(__file__).resolve().parents[1] / "reports" / "lr"
SMALL = replace(settings.BENCHMARKS["B3"], epochs=1, grid=(1.0, 3.0))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def digits() -> data.Data:
    return data.digits(Path())


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", settings.BENCHMARKS)
def test_every_benchmark_can_be_held_to_its_bars(name) -> None:
    bench = settings.BENCHMARKS[name]
    assert bench.weight in bench.grid  # LR.md's value is always a candidate
    assert list(bench.grid) == sorted(bench.grid)
    assert set(bench.methods) <= set(get_args(training.Method))
    assert bench.methods[:3] == settings.CORE  # the sigma-only control stands beside LR everywhere
    for bar in bench.bars:
        assert bar.method in (*bench.methods, settings.RATIO)
        assert bar.relation in ("<=", ">=")


def test_the_issues_bars_are_all_there() -> None:
    bars = {
        (name, bar.method, bar.column, bar.relation): bar.limit
        for name, bench in settings.BENCHMARKS.items()
        for bar in bench.bars
    }
    ratio = settings.RATIO
    assert bars["B1", "vanilla", "AU", "<="] == 0.20
    assert bars["B1", "lr", "AU", ">="] == 0.90
    assert bars["B1", "lr", "AU.1", ">="] == 0.60
    assert bars["B1", "lr", "good", ">="] == 0.70
    assert bars["B1", ratio, "rec", "<="] == 1.05
    assert bars["B1", "detached", "CK604", ">="] == 1.0
    assert bars["B1", "lr", "CK604", "<="] == 0.0
    assert bars["B2", "vanilla", "AU", "<="] == 0.30
    assert bars["B2", "lr", "AU", ">="] == 0.95
    assert bars["B2", "lr", "good", ">="] == 0.90
    assert bars["B2", ratio, "rec", "<="] == 1.0
    assert bars["B3", "vanilla", "AU.1", "<="] == 0.20
    assert bars["B3", "lr", "AU.1", ">="] == 0.70
    assert bars["B3", ratio, "rec", "<="] == 1.05
    assert bars["B4", "vanilla", "KL<1", ">="] == 0.5
    assert bars["B4", "lr", "KL<1", "<="] == 0.05
    assert all(bars[name, ratio, "step", "<="] == 1.5 for name in settings.BENCHMARKS)


# --- data -----------------------------------------------------------------------------------------


def written(folder: Path, count: int) -> None:
    """Images that are all one grey value, their own number modulo 251."""
    for part in ("train", "test"):
        grey = (np.arange(count) % 251).astype(np.uint8)
        images = np.broadcast_to(grey[:, None, None], (count, 28, 28))
        np.savez(folder / f"mnist_{part}.npz", images=images, labels=np.arange(count) % 10)


def test_official_parts_do_not_overlap(tmp_path) -> None:
    written(tmp_path, 2_100)
    found = data._official(tmp_path, "mnist", "unused", 50, pool=2)
    assert len(found.train) == len(found.fit) == 50
    assert len(found.validation) == 2_000
    assert len(found.test) == 2_000
    assert found.train.x.shape == (50, 14 * 14)
    number = (found.validation.x[:, 0] * 255).round().long()
    assert number[0] == 50  # the row after the last training image
    assert (found.test.x[0, 0] * 255).round() == 100  # the last 2,000 of 2,100
    assert found.test.y[0] == 100 % 10


def test_small_data_validate_on_training_images_only(digits) -> None:
    assert torch.equal(torch.cat([digits.fit.x, digits.validation.x]), digits.train.x)
    assert (len(digits.fit), len(digits.validation), len(digits.test)) == (1149, 288, 360)


def test_omniglot_is_shuffled_once_and_split(tmp_path) -> None:
    count = 3_900
    images = np.broadcast_to(
        (np.arange(count) % 251).astype(np.uint8)[:, None, None], (count, 28, 28)
    )
    np.savez(tmp_path / "omniglot_small.npz", images=images, labels=np.arange(count))
    found = data.omniglot(tmp_path)
    assert len(found.train) == 3_872
    assert sorted([*found.train.y, *found.test.y]) == list(range(count))
    assert not np.array_equal(found.train.y, np.sort(found.train.y))
    grey = (found.train.x[:, 0] * 255).round().long().numpy()
    assert np.array_equal(grey, found.train.y % 251)  # labels moved with their images
    assert np.array_equal(data.omniglot(tmp_path).train.y, found.train.y)


def test_openml_is_asked_where_the_files_are_not(tmp_path, monkeypatch) -> None:
    asked = {}

    class Bunch:
        data = np.repeat(np.arange(70_000)[:, None] % 251, 784, axis=1).astype(np.uint8)
        target = np.array([str(i % 10) for i in range(70_000)], dtype=object)

    def fetch(name, **options):
        asked.update(options, name=name)
        return Bunch

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    found = data.mnist(tmp_path)
    assert asked["name"] == "mnist_784"
    assert asked["version"] == 1
    assert len(found.train) == 8_000
    assert found.test.y[-1] == 69_999 % 10
    assert found.test.y.dtype == np.int64
    assert found.test.x[0, 0] == pytest.approx(68_000 % 251 / 255)


def test_no_files_and_no_network_is_told_and_skipped(tmp_path, monkeypatch, capsys) -> None:
    def fetch(name, **options):
        raise OSError("no route")

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    with pytest.raises(data.NotThere, match="is not in --data, and OpenML does not have it"):
        data.omniglot(tmp_path)
    assert lr_loss.main(["B1", "--data", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert "B1 skipped: Fashion-MNIST is not in --data" in told.err
    assert "skipped" in json.loads(told.out)["B1"]
    assert str(tmp_path) not in told.out


def test_unknown_benchmark_is_refused(capsys) -> None:
    with pytest.raises(SystemExit):
        lr_loss.main(["B9"])
    assert "B9 is not one of B1, B2, B3, B4, MNIST2, MNIST1" in capsys.readouterr().err


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", get_args(training.Method))
def test_every_method_takes_a_step_and_two_runs_agree(method, digits) -> None:
    def weights() -> torch.Tensor:
        model = running.trainer(SMALL, method, 3.0, digits.fit, seed=5)
        start = torch.cat([p.detach().flatten() for p in model.vae.parameters()])
        for _ in range(2):
            model.advance()
        end = torch.cat([p.detach().flatten() for p in model.vae.parameters()])
        assert bool((start != end).any())
        assert bool(end.isfinite().all())
        return end

    state = torch.get_rng_state()
    assert torch.equal(weights(), weights())
    assert torch.equal(torch.get_rng_state(), state)


def test_methods_differ_in_what_they_are_named_for(digits) -> None:
    kl = torch.full((128, 32), 0.25)

    def rate(method: training.Method, step: int) -> float:
        model = running.trainer(SMALL, method, 3.0, digits.fit, seed=0)
        model.step = step
        return float(model._rate(kl))

    whole = SMALL.beta * 32 * 0.25
    steps = SMALL.epochs * (len(digits.fit) // settings.BATCH)
    assert rate("vanilla", 0) == pytest.approx(whole)
    assert rate("half beta", 0) == pytest.approx(whole / 2)
    assert rate("annealing", 0) == 0.0
    assert rate("annealing", steps // 4) == pytest.approx(whole * (steps // 4) / (steps // 2))
    assert rate("cyclical", 0) == 0.0
    kl = torch.full((128, 32), 0.01)
    assert rate("free bits", 0) == pytest.approx(SMALL.beta * 32 * 0.1)
    # The negative control is never tuned, the LR loss takes the weight that was chosen.
    assert running.trainer(SMALL, "detached", 3.0, digits.fit, 0).lr.alpha == SMALL.beta
    assert running.trainer(SMALL, "lr", 3.0, digits.fit, 0).lr.alpha == pytest.approx(0.3)


# --- measuring ------------------------------------------------------------------------------------


def test_information_of_separate_and_of_equal_posteriors() -> None:
    n, draws = 50, torch.Generator().manual_seed(0)
    mean = torch.stack([100.0 * torch.arange(n), torch.zeros(n)], dim=1)
    scale = torch.ones(n, 2)
    z = mean + torch.randn(n, 2, generator=draws)
    total, per_unit = measuring.information(mean, scale, z)
    assert total == pytest.approx(math.log(n), abs=1e-5)  # every code tells its sample
    assert per_unit[0] == pytest.approx(math.log(n), abs=1e-5)
    assert per_unit[1] == pytest.approx(0.0, abs=1e-5)  # no code tells anything


def test_the_audit_measures_the_same_by_other_code(digits) -> None:
    model = running.trainer(replace(SMALL, epochs=8), "lr", 3.0, digits.fit, seed=0)
    model.run()
    row = measuring.measure(model.vae, digits.test.x, model.beta)
    audit = measuring.audited(model.vae, digits.test, model.beta)
    assert audit.number("active_fraction").value == row["AU"]
    assert audit.number("rate").value == pytest.approx(row["KL"], rel=1e-5)
    assert audit.number("locally_collapsed_fraction").value == row["KL<1"]
    # One draw a sample against four: within four of the audit's standard errors.
    nats = audit.number("reconstruction_error")
    constant = 0.5 * 64 * math.log(2 * math.pi * model.beta)
    error = (nats.high - nats.low) / 3.92
    assert nats.value == pytest.approx(row["rec"] / model.beta + constant, abs=4 * error)
    prior = audit.number("round_trip_r2_prior")
    assert prior.value == pytest.approx(row["rt"], abs=0.05)
    assert row["obj"] == pytest.approx(row["rec"] + model.beta * row["KL"])
    assert row["fake"] == pytest.approx(row["AU"] - row["good"], abs=1 / 32 + 1e-9)
    assert set(measuring.columns(audit)) == {"audit good", "CK604"}
    assert measuring.told(audit)["verdict"] == audit.verdict.name


# --- choosing and judging -------------------------------------------------------------------------


def row(good: float, rec: float) -> dict[str, float]:
    return {"good": good, "rec": rec}


@pytest.mark.parametrize(
    "tried, most, chosen",
    [
        ({"vanilla": row(0.1, 1.0), "1": row(0.5, 1.0), "3": row(0.9, 1.04)}, 1.05, 3.0),
        ({"vanilla": row(0.1, 1.0), "1": row(0.5, 1.0), "3": row(0.9, 1.06)}, 1.05, 1.0),
        ({"vanilla": row(0.1, 1.0), "0.5": row(0.5, 0.9), "10": row(0.5, 0.8)}, 1.0, 0.5),
        ({"vanilla": row(0.1, 1.0), "1": row(0.5, 1.2), "3": row(0.9, 1.1)}, 1.0, 3.0),
    ],
    ids=["most informative", "too dear", "a tie: the smallest", "none: the least error"],
)
def test_the_rule_of_choice(tried, most, chosen) -> None:
    assert running.decide(tried, most) == chosen


def test_bars_are_judged_by_the_worst_seed_or_the_ratio() -> None:
    rows = {"lr": {21: {"AU": 0.95}, 22: {"AU": 0.85}}, "vanilla": {21: {"AU": 0.1}}}
    least = running.judge(settings.Bar("AU", "lr", ">=", 0.9), rows, {})
    assert (least["value"], least["met"]) == (0.85, False)
    most = running.judge(settings.Bar("AU", "lr", "<=", 0.96), rows, {})
    assert (most["value"], most["met"]) == (0.95, True)
    ratio = running.judge(settings.Bar("rec", settings.RATIO, "<=", 1.0), rows, {"rec": 1.0})
    assert (ratio["value"], ratio["met"]) == (1.0, True)


# --- end to end -----------------------------------------------------------------------------------


def test_a_benchmark_from_grid_to_record_page_and_table(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(settings.BENCHMARKS, "B3", replace(SMALL, methods=("vanilla", "lr")))
    code = lr_loss.main(["B3", "--seeds", "31", "32", "--out", str(tmp_path)])
    record = json.loads((tmp_path / "B3.json").read_text("utf-8"))
    # One epoch keeps no promise; the exit code says so.
    assert code == int(not all(bar["met"] for bar in record["bars"]))
    assert record["seeds"] == [31, 32]
    assert set(record["choice"]["tried"]) == {"vanilla", "1", "3"}
    assert record["choice"]["weight"] in (1.0, 3.0)
    assert set(record["rows"]) == {"vanilla", "lr"}
    assert set(record["rows"]["lr"]["31"]) == {*table.COLUMNS, "cpu"}
    assert record["setting"]["train"] == 1437
    assert (tmp_path / "B3.html").stat().st_size > 10_000
    told = table.tables(tmp_path)
    assert told.startswith("### B3: digits 8 x 8 (offline)")
    assert "Validation: vanilla: good" in told
    assert "| lr AU.1 >= 0.7 |" in told
    for file in tmp_path.iterdir():
        assert str(tmp_path) not in file.read_text("utf-8")


@pytest.mark.skipif(not REPORTS.is_dir(), reason="reports/ is not part of this copy")
def test_the_reports_readme_shows_the_records_as_they_are() -> None:
    text = (REPORTS / "README.md").read_text("utf-8")
    assert table.tables(REPORTS) in text


# --- step time ------------------------------------------------------------------------------------


def test_step_benchmark_times_what_it_says() -> None:
    found = lr_step.measure(repeats=2, block=1)
    assert found["adam"] in lr_step.ADAMS
    vanilla = {}
    for layout, figures in found["layouts"].items():
        least, median = figures["least"], figures["median"]
        vanilla[layout] = least["vanilla"]
        assert least["extra"] == pytest.approx(least["lr"] - least["vanilla"])
        assert all(least[name] > 0 for name in ("vanilla", "lr", "products", "sums", "maps"))
        assert all(least[name] <= median[name] for name in ("vanilla", "lr", "products"))
    # The bars are held against the fastest vanilla step there is, not against a convenient one.
    assert found["judged"] == min(vanilla, key=lambda layout: vanilla[layout])


def test_products_are_those_of_one_forward_and_backward() -> None:
    call = lr_step.products()
    call()
    layers = call.__closure__[0].cell_contents
    assert [tuple(layer.weight.shape) for layer in layers] == [(512, 784), (256, 512), (32, 256)]
    for layer in layers:
        x = layer.input.clone().requires_grad_()
        weight = layer.weight.clone().requires_grad_()
        y = torch.nn.functional.linear(x, weight)
        y.backward(layer.gradient)
        torch.testing.assert_close(layer.output, y.detach())
        torch.testing.assert_close(layer.by_weight, weight.grad)
        torch.testing.assert_close(layer.by_input, x.grad)


def test_both_layouts_are_the_same_layer() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        linear = torch.nn.Linear(7, 3)
        torch.manual_seed(0)
        straight = lr_step.Straight(7, 3)
    x = torch.rand(5, 7)
    torch.testing.assert_close(linear(x), straight(x))


def test_derived_figures() -> None:
    ms = {"vanilla": 8.0, "lr": 11.5, "bare": 11.4, "vanilla + products": 11.0, "products": 2.5}
    found = lr_step.derived(ms)
    assert found["extra"] == 3.5
    assert found["module"] == pytest.approx(0.1)
    assert found["extra / products"] == pytest.approx(1.4)
    assert found["extra / products in a step"] == pytest.approx(3.5 / 3.0)
    assert found["lr / vanilla"] == pytest.approx(11.5 / 8.0)
