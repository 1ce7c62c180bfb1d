"""Any executor gives the audit of one process; what fails is tried twice and then told."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import collapsekit as ck
from collapsekit import pool, troubles
from collapsekit.errors import InputError
from collapsekit.executors import LocalProcesses
from collapsekit.jobs import Job
from collapsekit.parcels import MappedFile, packed, shippable
from collapsekit.pool import _Order
from collapsekit.results import Audit
from collapsekit.shards import Work, block_shards, blocks, shard_rows
from tests import models
from tests.test_engine import same

LINEAR = models.LinearVAE((30.0, 3.0, 0.5, 0.0))
GAUSSIAN = ("gaussian", 0.5)
N = 300


def audited(executor: Executor | None = None, model: object = LINEAR, **options: object) -> Audit:
    given: dict[str, object] = {"likelihood": GAUSSIAN, "batch": 10, "shards": 6, **options}
    data = given.pop("data", LINEAR.sample(N, 0))
    return ck.audit(model, data, executor=executor, **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def alone() -> Audit:
    return audited()


@pytest.fixture(scope="module")
def forked() -> Iterator[Executor]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as processes:
        processes.submit(os.getpid).result()  # begun before any audit: nothing is inherited
        yield processes


def same_and_all(a: Audit, b: Audit) -> None:
    """Equal to the last bit: one process and many compute the same shards and sum them alike."""
    same(a, b, rtol=0)
    assert a.summary["note"].tolist() == b.summary["note"].tolist()
    assert a.tables.keys() == b.tables.keys()
    for name, array in a.arrays.items():
        np.testing.assert_array_equal(array, b.arrays[name])
    assert a.provenance == b.provenance


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_every_probe_says_the_same_on_processes(alone: Audit, forked: Executor) -> None:
    other = audited(forked)
    assert not other.skipped.keys() - alone.skipped.keys()
    same_and_all(alone, other)


def test_and_on_threads(alone: Audit) -> None:
    with ThreadPoolExecutor(3) as threads:
        same_and_all(alone, audited(threads))


@pytest.mark.slow
def test_and_on_spawned_processes_that_open_a_spec_and_a_path(alone: Audit, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", LINEAR.sample(N, 0).numpy())
    given = {"data": str(tmp_path / "x.npy")}
    spec = "tests.test_executors:linear"
    executor = LocalProcesses(2)
    try:
        other = audited(executor, spec, **given)
    finally:
        executor.shutdown()
    same(audited(None, spec, **given), other, rtol=0)
    same(alone, other)


def linear() -> models.LinearVAE:
    return LINEAR


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_data_that_come_one_way_travel_with_the_task(alone: Audit, forked: Executor) -> None:
    parts = list(LINEAR.sample(N, 0).split(35))
    data = OneWay(parts)
    same_and_all(audited(None, data=data, shards=None), audited(forked, data=data, shards=None))
    same(alone, audited(forked, data=data, shards=None))


class OneWay:
    def __init__(self, parts: list[Tensor]) -> None:
        self.parts = parts

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.parts)


@dataclass(frozen=True)
class Crashes(models.LinearVAE):
    """Ends the process at a certain sample, but never the audit's own."""

    home: int = field(default_factory=os.getpid)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if os.getpid() != self.home and bool((x == 777).any()):
            os._exit(3)
        return super().encode(x)


class Reads(list[Tensor]):
    """Samples for whose number 170 a worker lacks the memory."""

    home = os.getpid()

    def __getitem__(self, i):  # type: ignore[no-untyped-def, override]
        if i == 170 and os.getpid() != self.home:
            raise MemoryError("no memory is left")
        return super().__getitem__(i)


class Dataset(torch.utils.data.Dataset[Tensor]):
    def __init__(self) -> None:
        self.rows = Reads(LINEAR.sample(N, 0))

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> Tensor:
        return self.rows[i]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_shard_that_fails_twice_is_told_and_costs_no_other(forked: Executor) -> None:
    audit = audited(forked, data=Dataset())
    lost = next(f for f in audit.findings if f.code == "CK010")
    assert "150 to 199" in lost.message
    assert "no memory is left" in lost.message
    assert lost.verdict == "inconclusive"  # a sixth of the data
    missing = audit.samples["kl_total"].isna().to_numpy().nonzero()[0]
    assert missing.tolist() == list(range(150, 200))
    assert audit.number("rate").n == 250


class Loses(ThreadPoolExecutor):
    """Has no memory for the first shard of a stream, however often it is tried."""

    def __init__(self, stream: str) -> None:
        super().__init__(2)
        self.stream = stream

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def, override]
        job = args[0].job
        lost = isinstance(job, Job) and job.number == 0 and job.stream == self.stream
        return super().submit(_fail) if lost else super().submit(fn, *args, **kwargs)


@dataclass(frozen=True)
class Samples(models.LinearVAE):
    """With a sampler of its own."""

    def sample_posterior(self, x: Tensor) -> Tensor:
        mean, scale = self.encode(x)
        return mean + scale * torch.randn_like(mean)


@pytest.mark.parametrize("stream", ["population", "prior"])
def test_a_first_shard_that_is_lost_breaks_no_probe(stream: str) -> None:
    """Some probes look at the first rows alone: they have nothing to say then, and say so.

    Of draws from the prior one shard is all, so the readings that need them are left out by name.
    """
    model = Samples((30.0, 3.0, 0.5, 0.0))
    whole = audited(model=model)
    audit = audited(Loses(stream), model=model)
    codes = {f.code for f in audit.findings}
    assert "CK010" in codes
    assert [f.message for f in audit.findings if f.code == troubles.BROKEN.id] == []
    if stream == "prior":
        assert {"decoder_usage" in why for why in audit.skipped.values()} == {True}
    else:
        assert audit.skipped == whole.skipped
        assert set(audit.arrays) == set(whole.arrays)
        assert "were lost" in next(f.message for f in audit.findings if f.code == "CK409")


class Flaky(ThreadPoolExecutor):
    """Fails every third job, the first time it is tried."""

    def __init__(self) -> None:
        super().__init__(2)
        self.seen: set[str] = set()
        self.failed = 0

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def, override]
        job = repr(args[0].job)
        new = job not in self.seen
        self.seen.add(job)
        if new and len(self.seen) % 3 == 0:
            self.failed += 1
            return super().submit(_fail)
        return super().submit(fn, *args, **kwargs)


def _fail() -> None:
    raise MemoryError("this worker is out of memory")


def test_a_failure_is_tried_again(alone: Audit) -> None:
    flaky = Flaky()
    same_and_all(alone, audited(flaky))
    assert flaky.failed > 2


@pytest.mark.slow
def test_our_own_pool_survives_a_worker_that_dies() -> None:
    x = LINEAR.sample(N, 0)
    x[170] = 777
    processes = LocalProcesses(2)
    try:
        audit = audited(processes, Crashes(LINEAR.lam), data=x)
    finally:
        processes.shutdown()
    lost = [f for f in audit.findings if f.code == "CK010"]
    assert lost
    assert "150 to 199" in lost[0].message
    assert audit.number("rate").n >= 100  # what was out beside it may be lost with the pool


def test_an_encoder_that_cannot_be_sent_is_told(
    forked: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cloudpickle", None)
    with pytest.raises(InputError, match="cannot be sent to worker processes") as caught:
        audited(forked, lambda x: LINEAR.encode(x))
    assert "package.module:factory" in str(caught.value)


class Other(models.LinearVAE):
    """A factory's model that is another one in every process."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, scale = super().encode(x)
        return mean + (os.getpid() % 1000) / 10, scale


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_factory_that_builds_another_model_is_told(forked: Executor) -> None:
    with pytest.raises(ck.ModelError, match="another model than the audit"):
        audited(forked, Other(LINEAR.lam))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("why", ["no room for a file", "a machine that does not see it"])
def test_what_no_file_brings_is_sent(
    why: str, alone: Audit, forked: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def filed(self: pool.Pool, key: str) -> bool:
        self._files[key] = "/nowhere/" + key
        return why != "no room for a file"

    monkeypatch.setattr(pool.Pool, "_filed", filed)
    same_and_all(alone, audited(forked))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_nothing_is_left_in_the_temporary_folder(
    forked: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seen: list[Path] = []
    written = Path.write_bytes

    def spied(self: Path, content: bytes) -> int:
        seen.append(self)
        return written(self, content)

    monkeypatch.setattr(Path, "write_bytes", spied)
    audited(forked)
    assert len(seen) == 3  # the recipe, the population, its products
    assert {path.parent.parent for path in seen} == {tmp_path}
    assert not list(tmp_path.iterdir())


@dataclass(frozen=True)
class Counts(models.LinearVAE):
    """Notes each decode of draws that all samples share, and each process that made one."""

    notes: str = ""

    def decode(self, z: Tensor) -> Tensor:
        with open(self.notes, "a", encoding="utf-8") as file:
            file.write(f"{os.getpid()} {len(z)}\n")
        return super().decode(z)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_the_populations_products_are_made_once(forked: Executor, tmp_path: Path) -> None:
    """As many passes in two processes as in one: no worker repeats what another has made."""
    passes = []
    for executor in (None, forked):
        notes = tmp_path / f"{executor is None}"
        audit = audited(executor, Counts(LINEAR.lam, notes=str(notes)), batch=64)
        assert audit.provenance["passes"]["shared prior: decode"] == 2048
        lines = [line.split() for line in notes.read_text().splitlines()]
        home = str(os.getpid())
        # In this process also the rehearsal decodes.
        passes.append(sum(int(rows) for who, rows in lines if executor is None or who != home))
    rehearsed = passes[0] - passes[1]
    assert 0 < rehearsed < 1_000


def test_a_task_is_a_few_hundred_bytes() -> None:
    job = Job("data", 3, 100, 200, 10, skip=frozenset({"a probe"}), bound=1 << 60)
    assert len(pickle.dumps(_Order("recipe-" + "f" * 32, "", "", job, 1))) < 600


def test_a_memory_map_travels_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.arange(200_000.0).reshape(-1, 4))
    mapped = np.load(path, mmap_mode="r")
    sent = shippable(mapped)
    assert isinstance(sent, MappedFile)
    assert len(packed(sent)) < 1_000
    np.testing.assert_array_equal(np.asarray(pickle.loads(packed(sent))), mapped)
    part = mapped[10:]
    assert shippable(part) is part  # its file says something else
    array = np.zeros(3)
    assert shippable(array) is array


@pytest.mark.parametrize(
    "samples, batch, rows",
    [
        (300, 512, 512),  # one batch
        (6_000, 512, 512),  # twelve
        (60_000, 512, 4_096),  # 15 shards of 8 batches
        (1_000_000, 512, 16_384),  # 32 batches each
        (100_000_000, 512, 24_576),  # no more than 4,096 shards
        (None, 100, 3_200),
    ],
)
def test_data_are_cut_into_enough_shards_to_share_out(
    samples: int | None, batch: int, rows: int
) -> None:
    assert shard_rows(batch, samples, None) == rows


def test_rows_that_many_probes_look_at_make_shorter_shards() -> None:
    @dataclass(frozen=True)
    class Looks:
        name: str
        limit: int | None
        source: str = "population"

    probes = [Looks("all", None), *(Looks(str(k), 1_024) for k in range(9))]
    work = Work(None, probes, 0, 1, False, "finding")  # type: ignore[arg-type]
    cut = block_shards(work, "population", blocks(work, "population", 10_000, 256))
    lengths = [part[-1][1] - part[0][0] for part in cut]
    assert sum(lengths) == 10_000
    assert lengths[:4] == [256] * 4  # ten probes look at these
    assert set(lengths[4:-1]) == {2_048}
