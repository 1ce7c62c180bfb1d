"""Kills, damage and full disks: finished shards are kept, and the tables come out the same."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import collapsekit as ck
from collapsekit import checkpoint as module
from collapsekit import spool
from collapsekit.checkpoint import Checkpoint, _dumped, _loaded
from collapsekit.errors import FileError, InputError
from collapsekit.posteriors import DiagonalGaussian
from collapsekit.probes import REGISTERED
from collapsekit.results import Audit
from collapsekit.shards import Lost, Outcome
from collapsekit.subset import KeyedSubset
from tests import models
from tests.test_engine import same

LINEAR = models.LinearVAE((30.0, 3.0, 0.5, 0.0))
GAUSSIAN = ("gaussian", 0.5)
N = 300
SOME = [p for p in REGISTERED if p.name in ("kl", "local_collapse", "active_units", "swap_gap")]


def audited(folder: Path | None = None, model: object = LINEAR, **options: Any) -> Audit:
    given: dict[str, Any] = {"likelihood": GAUSSIAN, "batch": 10, "shards": 6, "probes": SOME}
    given |= options
    data = given.pop("data", LINEAR.sample(N, 0))
    return ck.audit(model, data, checkpoint=folder, **given)


class Stops(models.LinearVAE):
    """Presses Ctrl-C after some encoded batches."""

    left = 10**9

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        Stops.left -= 1
        if Stops.left < 0:
            raise KeyboardInterrupt
        return super().encode(x)


def states(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.state"))


@pytest.fixture(autouse=True)
def again() -> None:
    Stops.left = 10**9


def test_ctrl_c_leaves_a_folder_to_go_on_from(tmp_path: Path) -> None:
    model = Stops(LINEAR.lam)
    whole = audited(None, model)
    Stops.left = 20
    with pytest.raises(KeyboardInterrupt) as caught:
        audited(tmp_path, model)
    assert f"--resume {tmp_path}" in caught.value.__notes__[0]
    done = states(tmp_path)
    assert 1 <= len(done) < 6
    Stops.left = 3 + 10 * (6 - len(done)) + 10  # no more than the rehearsal and what is missing
    resumed = audited(tmp_path, model)
    same(whole, resumed, rtol=0)
    assert resumed.provenance["passes"] == whole.provenance["passes"]
    # Everything is there now: the model is rehearsed and not called again.
    Stops.left = 4
    same(whole, audited(tmp_path, model), rtol=0)


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("after", [0, 2])
def test_passes_of_products_are_counted_once(before: int, after: int, tmp_path: Path) -> None:
    """They are made again where a shard is left; the passes are those of an unbroken run."""
    given: dict[str, Any] = {"probes": ["kl", "decoder_usage", "round_trip", "model_information"]}

    def on(workers: int, folder: Path | None) -> Audit:
        if not workers:
            return audited(folder, **given)
        with ThreadPoolExecutor(workers) as executor:
            return audited(folder, executor=executor, **given)

    whole = on(0, None)
    assert on(before, tmp_path).provenance == whole.provenance
    some = [name for name in states(tmp_path) if name.startswith("population")]
    (tmp_path / some[-1]).unlink()
    resumed = on(after, tmp_path)
    same(whole, resumed, rtol=0)
    assert resumed.provenance == whole.provenance
    # Nothing is left to be made: what was made is known all the same.
    assert on(after, tmp_path).provenance == whole.provenance


def test_every_probe_comes_back_bit_for_bit(tmp_path: Path) -> None:
    whole = audited(None, probes=None)
    first = audited(tmp_path, probes=None)
    second = audited(tmp_path, probes=None)
    for other in (first, second):
        same(whole, other, rtol=0)
        for name, array in whole.arrays.items():
            np.testing.assert_array_equal(array, other.arrays[name])
    assert not [f for f in second.findings if f.code == "CK013"]


class LaplaceCodes(models.LinearVAE):
    def encode(self, x: Tensor) -> torch.distributions.Laplace:  # type: ignore[override]
        return torch.distributions.Laplace(*super().encode(x))


def test_posteriors_of_another_family_come_back(tmp_path: Path) -> None:
    model = LaplaceCodes(LINEAR.lam)
    first = audited(tmp_path, model)
    second = audited(tmp_path, model)
    same(first, second, rtol=0)
    assert not [f for f in second.findings if f.code == "CK013"]


def test_data_that_come_one_way_go_on_too(tmp_path: Path) -> None:
    parts = list(LINEAR.sample(N, 0).split(35))
    model = Stops(LINEAR.lam)
    options: dict[str, Any] = {"shards": None, "batch": 2, "data": parts_of(parts)}
    whole = audited(None, model, **options)
    Stops.left = 80
    with pytest.raises(KeyboardInterrupt):
        audited(tmp_path, model, **options)
    assert states(tmp_path)
    Stops.left = 10**9
    same(whole, audited(tmp_path, model, **options), rtol=0)


class parts_of:
    def __init__(self, parts: list[Tensor]) -> None:
        self.parts = parts

    def __iter__(self) -> Any:
        return iter(self.parts)


@pytest.mark.parametrize("kind", ["state", "parquet"])
@pytest.mark.parametrize("threads", [0, 2])
def test_a_truncated_shard_is_computed_again_and_told(
    tmp_path: Path, kind: str, threads: int
) -> None:
    whole = audited(tmp_path)
    victim = tmp_path / f"data-000002.{kind}"
    victim.write_bytes(victim.read_bytes()[:-100])
    # Later shards are there before this one is computed elsewhere; it is summed in its place.
    with ThreadPoolExecutor(threads) if threads else nullcontext() as executor:
        resumed = audited(tmp_path, executor=executor)
    same_tables(whole, resumed)
    told = [f for f in resumed.findings if f.code == "CK013"]
    assert len(told) == 1
    assert "data-000002.state" in told[0].message
    assert not [f for f in audited(tmp_path).findings if f.code == "CK013"]  # it is whole again


def same_tables(a: Audit, b: Audit) -> None:
    for name in ("summary", "samples", "dimensions"):
        assert getattr(a, name).equals(getattr(b, name)), name


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"seed": 1}, "seed: 0, now 1"),
        ({"data": LINEAR.sample(N, 1)}, "data_fingerprint"),
        ({"data": LINEAR.sample(N - 1, 0)}, "n: 300, now 299"),
        ({"model": models.LinearVAE((30.0, 3.0, 0.4, 0.0))}, "the encoder's answer"),
        ({"likelihood": ("gaussian", 0.4)}, "likelihood"),
        ({"probes": SOME[:2]}, "probes"),
        ({"batch": 20}, "batch: 10, now 20"),
        ({"on_bad_sample": "skip"}, "on_bad_sample"),
    ],
)
def test_another_audit_is_refused(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    audited(tmp_path)
    with pytest.raises(InputError, match="shards of another audit") as caught:
        audited(tmp_path, **change)
    assert word in str(caught.value)


def test_weights_tell_two_modules_apart(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((40, 6))
    module_a, module_b = models.TinyVAE().double(), models.TinyVAE().double()
    ck.audit(module_a, x, checkpoint=tmp_path, probes=SOME)
    with torch.no_grad():
        module_b.outer.bias += 1  # the decoder alone differs
    with pytest.raises(InputError, match="weights"):
        ck.audit(module_b, x, checkpoint=tmp_path, probes=SOME)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="is no checkpoint and is not empty"):
        audited(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_two_audits_cannot_share_a_folder(tmp_path: Path) -> None:
    held = Checkpoint(tmp_path, {}, {}, [])
    with pytest.raises(FileError, match="in use"):
        audited(tmp_path)
    held.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_told_before_the_work(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FileError, match="checkpoint folder cannot be used") as caught:
        audited(tmp_path / "inside")
    assert "nothing was computed yet" in str(caught.value)
    tmp_path.chmod(0o700)


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="checkpoint folder cannot be used"):
        audited(tmp_path / "file")


def test_a_full_disk_keeps_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = audited()
    real, written = spool.os.fsync, []

    def full(handle: int) -> None:
        written.append(handle)
        if len(written) > 6:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(spool.os, "fsync", full)
    with pytest.raises(FileError, match="No space left on device"):
        audited(tmp_path)
    monkeypatch.setattr(spool.os, "fsync", real)
    assert len(states(tmp_path)) == 2
    assert not list(tmp_path.glob("*.partial"))
    same(whole, audited(tmp_path), rtol=0)


def test_states_survive_and_nothing_else_is_unpickled() -> None:
    posterior = DiagonalGaussian(torch.randn(5, 2).double(), torch.rand(5, 2).double() + 0.1)
    subset = KeyedSubset(0, 3, np.arange(5), posterior, torch.rand(5, 3))
    outcome = Outcome(count=5, subset=subset, lost=Lost.of("why", np.arange(2)))
    found = _loaded(_dumped(outcome), frozenset())
    assert found.count == 5
    assert found.subset is not None
    assert found.subset.members() == subset.members()
    assert found.lost.counts == {"why": 2}


class Evil:
    def __init__(self, call: Any, *given: Any) -> None:
        self.call, self.given = call, given

    def __reduce__(self) -> Any:
        return self.call, self.given


@pytest.mark.parametrize(
    "evil",
    [
        Evil(os.system, "echo broken into"),
        Evil(eval, "1 + 1"),
        Evil(__import__, "antigravity"),
        Evil(subprocess.Popen, "ls"),
        Evil(torch.load, "x"),
        Evil(np.load, "x"),
        Evil(module._digest, Path("x")),
    ],
    ids=lambda e: getattr(e.call, "__name__", "x"),
)
def test_a_strangers_state_file_runs_nothing(evil: Evil, tmp_path: Path) -> None:
    body = pickle.dumps(evil, protocol=5)
    with pytest.raises(pickle.UnpicklingError, match="is no state"):
        _loaded(body, frozenset({"collapsekit.probes.kl"}))
    # And in its place among the shards: damaged, computed again.
    import hashlib

    whole = audited(tmp_path)
    victim = tmp_path / "data-000002.state"
    with victim.open("rb") as file:
        head = json.loads(file.readline())
    head["state"] = hashlib.sha256(body).hexdigest()
    victim.write_bytes(json.dumps(head).encode() + b"\n" + body)
    resumed = audited(tmp_path)
    same_tables(whole, resumed)
    assert [f for f in resumed.findings if f.code == "CK013"]


def test_dotted_names_reach_nothing() -> None:
    stream = io.BytesIO(
        pickle.PROTO + b"\x04" + pickle.SHORT_BINUNICODE + b"\x15collapsekit.streaming"
        + pickle.SHORT_BINUNICODE + b"\x07np.load" + pickle.STACK_GLOBAL + pickle.STOP
    )  # fmt: skip
    with pytest.raises(pickle.UnpicklingError, match="is no state"):
        module._Unpickler(stream, frozenset()).load()


KILLED = (
    "kl",
    "local_collapse",
    "active_units",
    "reconstruction",
    "swap_gap",
    "round_trip",
    "effective_rank",
    "mutual_information",
)


def _audit_and_save(folder: Path, out: Path) -> None:
    torch.set_num_threads(1)
    audit = ck.audit(
        LINEAR,
        LINEAR.sample(6_000, 0),
        likelihood=GAUSSIAN,
        batch=50,
        shards=40,
        population=1_000,
        probes=[p for p in REGISTERED if p.name in KILLED],
        checkpoint=folder,
    )
    audit.save(out)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_twenty_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 at random moments: the audit that ends at last has the tables of an unbroken one."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    fork = multiprocessing.get_context("fork")  # what is imported is imported: a kill hits the work

    def begin(name: str) -> Any:
        given = (tmp_path / name, tmp_path / f"{name}.audit")
        running = fork.Process(target=_audit_and_save, args=given)
        running.start()
        return running

    unbroken = begin("unbroken")
    unbroken.join(600)
    assert unbroken.exitcode == 0
    whole = ck.load(tmp_path / "unbroken.audit")
    draw = random.Random(0)
    rounds, done = 0, []
    while len(done) < 20:
        rounds += 1
        folder, out = tmp_path / f"round-{rounds}", tmp_path / f"round-{rounds}.audit"
        while not out.exists():
            running = begin(folder.name)
            more = len(states(folder)) + draw.randrange(1, 12)
            while len(done) < 20 and running.is_alive():
                if len(states(folder)) >= more:
                    time.sleep(draw.uniform(0.0, 0.05))  # in a file, between two, in the work
                    os.kill(running.pid, signal.SIGKILL)
                    done.append(len(states(folder)))
                    break
                time.sleep(0.002)
            running.join(600)
            assert running.exitcode in (0, -signal.SIGKILL)
        resumed = ck.load(out)
        same_tables(whole, resumed)
        for key, table in whole.tables.items():
            assert table.equals(resumed.tables[key]), key
        assert resumed.provenance == whole.provenance
        assert not [f for f in resumed.findings if f.code == "CK013"]
    assert len(set(done)) > 5  # they fell at different moments
    print(f"20 kills in {rounds} audits, with {done} shards finished")
