"""Equal audits are equal files; another cut, order of threads or way in differs by rounding."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import collapsekit as ck
from tests import models
from tests.fuzz.harness import FEW

MODEL = models.LinearVAE((20.0, 3.0, 1.0, 0.0))
X = MODEL.sample(300, 0)


def close(one: ck.Audit, other: ck.Audit) -> None:
    """Within 1e-9 in every number of every table."""
    pairs = [(one.summary, other.summary), (one.samples, other.samples)]
    pairs.append((one.dimensions, other.dimensions))
    for ours, theirs in pairs:
        pd.testing.assert_frame_equal(ours, theirs, rtol=1e-9, atol=1e-12)
    assert one.verdict.name == other.verdict.name


def entries(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_equal_audits_are_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    for name in ("a", "b"):
        torch.manual_seed(len(name) + ord(name))  # what others drew from it does not matter
        np.random.seed(ord(name))
        ck.audit(MODEL, X, likelihood=("gaussian", 0.5), probes=FEW).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_without_a_fixed_date_only_the_run_block_differs(tmp_path: Path) -> None:
    audits = [ck.audit(MODEL, X, likelihood=("gaussian", 0.5), probes=FEW) for _ in range(2)]
    paths = [audit.save(tmp_path / f"{i}") for i, audit in enumerate(audits)]
    one, other = (entries(path) for path in paths)
    assert {name for name in one if one[name] != other[name]} <= {"audit.json"}
    heads = [audit.head() for audit in audits]
    assert {key for key in heads[0] if heads[0][key] != heads[1][key]} <= {"run"}


@pytest.mark.parametrize("batch", [1, 7, 300])
def test_other_cuts_differ_by_rounding(batch: int) -> None:
    close(ck.audit(MODEL, X, probes=FEW), ck.audit(MODEL, X, probes=FEW, batch=batch))


def test_other_thread_counts_differ_by_rounding() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = ck.audit(MODEL, X, probes=FEW)
        torch.set_num_threads(2)
        two = ck.audit(MODEL, X, probes=FEW)
    finally:
        torch.set_num_threads(before)
    close(one, two)
    assert (one.run["threads"], two.run["threads"]) == (1, 2)


def test_every_way_in_gives_the_same(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X.numpy())
    (tmp_path / "d").mkdir()
    for i, part in enumerate(X.split(70)):
        np.save(tmp_path / "d" / f"{i}.npy", part.numpy())
    plain = ck.audit(MODEL, X, probes=FEW)
    for data in (tmp_path / "x.npy", tmp_path / "d", lambda: X.split(11)):
        other = ck.audit(MODEL, data, probes=FEW)
        close(plain, other)
        assert other.provenance["data_fingerprint"] == plain.provenance["data_fingerprint"]


PROGRAM = """
import sys
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
import collapsekit as ck
from collapsekit.samples import as_samples
table = pa.table({"a": np.arange(5000.0), "b": np.arange(5000.0)})
pq.write_table(table, sys.argv[1] + "/x.parquet")
encode = lambda x: (x.float(), x.float() * 0 + 0.5)
audit = ck.audit(encode, sys.argv[1] + "/x.parquet", probes=[p for p in ck.probes.REGISTERED][:1])
audit.save(sys.argv[1] + "/x.audit")
next(as_samples(sys.argv[1] + "/x.parquet").batches(10))  # a cursor that is still open at the end
ck.load(sys.argv[1] + "/x.audit")
"""


def test_the_interpreter_ends_in_peace_after_reading_parquet(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
