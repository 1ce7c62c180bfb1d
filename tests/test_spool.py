"""Per-sample columns on disk: the same table as in memory, and memory that stays flat."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import collapsekit as ck
from collapsekit import heap, spool
from collapsekit.errors import FileError
from collapsekit.probes import REGISTERED
from collapsekit.results import Audit, held_samples
from collapsekit.sample_table import SampleTable
from collapsekit.spool import Spool, SpooledRows
from collapsekit.streaming import Rows
from tests import models
from tests.test_engine import same

LINEAR = models.LinearVAE((30.0, 3.0, 0.5, 0.0))
GAUSSIAN = ("gaussian", 0.5)
N = 400
PROBES = ("kl", "reconstruction", "local_collapse", "active_units", "swap_gap", "kl_distribution")


def audited(labels: object = None) -> Audit:
    x = LINEAR.sample(N, 0)
    x[[3, 77]] = np.nan
    return ck.audit(
        LINEAR,
        x,
        labels=labels,
        likelihood=GAUSSIAN,
        batch=10,
        shards=5,
        population=100,
        probes=[p for p in REGISTERED if p.name in PROBES],
    )


@pytest.mark.parametrize("labels", [None, np.arange(N) % 3, np.array(["a", "bc"] * (N // 2))])
def test_on_disk_or_in_memory_the_table_is_the_same(
    labels: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    memory = audited(labels)
    assert isinstance(held_samples(memory), pd.DataFrame)
    monkeypatch.setattr(spool, "IN_MEMORY", 150)
    disk = audited(labels)
    assert isinstance(held_samples(disk), SampleTable)
    same(memory, disk, rtol=0)
    pd.testing.assert_frame_equal(memory.samples, disk.samples)
    assert disk.sample_count == N
    subset = disk.some_samples
    assert len(subset) == 100
    pd.testing.assert_frame_equal(
        subset, memory.samples.loc[subset.index], check_dtype=False, check_index_type=False
    )
    again = ck.load(disk.save(tmp_path / "a.audit"))
    assert isinstance(held_samples(again), SampleTable)
    pd.testing.assert_frame_equal(again.samples, memory.samples)
    pd.testing.assert_frame_equal(again.some_samples, subset, check_dtype=False)
    assert len(again.to_html()) == len(disk.to_html())
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(disk)).samples, memory.samples)


def test_rows_on_disk_answer_as_rows_do(tmp_path: Path) -> None:
    on_disk = Spool(tmp_path)
    whole: Rows | None = None
    for number, index in enumerate((np.array([0, 2, 3]), np.array([5, 7]))):
        rows = Rows(index, a=index * 0.5, b=index > 2, c=np.where(index == 2, np.nan, 1.0))
        on_disk.add(number, number * 4, 4, {"probe/rows": rows})
        whole = rows if whole is None else whole + rows
    assert whole is not None
    found = on_disk.rows("probe/rows")
    assert isinstance(found, SpooledRows)
    assert found.names == whole.names
    assert len(found) == len(whole) == 5
    assert found.index.tolist() == whole.index.tolist()
    pd.testing.assert_frame_equal(found.frame(), whole.frame())
    pd.testing.assert_frame_equal(found.table("b").frame(), whole.frame("b"))
    pd.testing.assert_frame_equal(found.at(np.array([1, 2, 7])), whole.frame().loc[[2, 7]])
    assert on_disk.rows("probe/other") is None


def test_another_c_library_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY", 150)
    with_it = audited()
    monkeypatch.setattr(heap, "_trim", None)
    same(with_it, audited(), rtol=0)


def test_a_comparison_reads_only_the_columns_that_it_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    audits = {"a": audited()}
    in_memory = ck.compare({**audits, "b": audits["a"]})
    monkeypatch.setattr(spool, "IN_MEMORY", 150)
    on_disk = audited()
    whole, read = SampleTable.frame, []

    def frame(table: SampleTable, *names: str) -> pd.DataFrame:
        read.append(names)
        return whole(table, *names)

    monkeypatch.setattr(SampleTable, "frame", frame)
    compared = ck.compare({"a": on_disk, "b": on_disk})
    pd.testing.assert_frame_equal(compared.table, in_memory.table)
    assert ("kl_total",) in read
    assert {len(names) for names in read} == {1}
    assert on_disk.columns_of_samples("kl_total", "nothing") is None


def test_the_temporary_folder_goes_with_the_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY", 100)
    audit = audited()
    table = held_samples(audit)
    assert isinstance(table, SampleTable)
    folder = table.path.parent
    assert [path.name for path in folder.iterdir()] == ["samples.parquet"]
    del audit, table
    assert not folder.exists()


def test_a_table_that_is_gone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY", 100)
    audit = audited()
    table = held_samples(audit)
    assert isinstance(table, SampleTable)
    table.path.unlink()
    with pytest.raises(FileError, match="per-sample table of this audit is gone"):
        _ = audit.samples


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool, "IN_MEMORY", 100)
    monkeypatch.setattr(spool.pq, "write_table", full)
    with pytest.raises(FileError, match="No space left on device") as caught:
        audited()
    assert "checkpoint=DIR" in str(caught.value)
