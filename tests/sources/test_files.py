"""Files of every kind give the rows that were written, a batch at a time, and travel as paths."""

from __future__ import annotations

import itertools
import os
import pickle
import resource
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from collapsekit.errors import InputError
from collapsekit.samples import Samples, as_samples, concatenate
from collapsekit.sources.disk import HeldArray, RawArray

N = 23
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3, 4)).astype(np.float32)
Y = np.arange(N) % 5
WORDS = np.array([f"class {y}" for y in Y])
CUTS = (0, 4, 4, 15, N)  # one shard is empty


def lists(array: np.ndarray) -> pa.Array:
    """Nested lists of numbers."""
    flat = pa.array(array.reshape(-1))
    for side in array.shape[:0:-1]:
        flat = pa.FixedSizeListArray.from_arrays(flat, side)
    return flat


def write_npy(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    np.save(path.with_suffix(".npy"), x)


def write_fortran(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    np.save(path.with_suffix(".npy"), np.asfortranarray(x))


def write_big_endian(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    np.save(path.with_suffix(".npy"), x.astype(">f4"))


def write_npz(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    np.savez(path.with_suffix(".npz"), x=x, labels=y)


def write_compressed(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    np.savez_compressed(path.with_suffix(".npz"), x=x, labels=y)


def write_pt(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    torch.save({"x": torch.from_numpy(x), "y": torch.from_numpy(y)}, path.with_suffix(".pt"))


def write_parquet(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    table = pa.table({"id": pa.array([f"{i}.png" for i in y]), "x": lists(x), "label": y})
    pq.write_table(table, path.with_suffix(".parquet"), row_group_size=5)


KINDS: dict[str, Callable[[Path, np.ndarray, np.ndarray], None]] = {
    "npy": write_npy,
    "fortran": write_fortran,
    "big endian": write_big_endian,
    "npz": write_npz,
    "compressed npz": write_compressed,
    "pt": write_pt,
    "parquet": write_parquet,
}


def only(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def rows(samples: Samples, size: int, *stretch: int) -> tuple[np.ndarray, np.ndarray | None]:
    parts = list(samples.batches(size, *stretch))
    x = concatenate([part.x for part in parts])
    assert isinstance(x, torch.Tensor)
    labels = [part.labels for part in parts if part.labels is not None]
    return x.numpy(), np.concatenate(labels) if labels else None


def holds(samples: Samples) -> None:
    """Every cut, every stretch and every choice of rows gives what was written."""
    assert samples.size == N
    for size in (1, 4, 7, N + 1):
        x, y = rows(samples, size)
        np.testing.assert_array_equal(x, X)
        if y is not None:
            np.testing.assert_array_equal(y, Y)
    np.testing.assert_array_equal(rows(samples, 3, 2, 17)[0], X[2:17])
    some = np.array([22, 0, 7, 7, 8, 3])
    taken = samples.take(some)
    assert isinstance(taken, torch.Tensor)
    np.testing.assert_array_equal(taken.numpy(), X[some])
    assert len(samples.take(np.empty(0, int))) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_one_file(tmp_path: Path, kind: str) -> None:
    KINDS[kind](tmp_path / "d", X, Y)
    samples = as_samples(only(tmp_path))
    holds(samples)
    sent = pickle.dumps(samples)
    assert len(sent) < 400
    holds(pickle.loads(sent))
    assert ("npy" in kind or "endian" in kind or kind == "fortran") == (rows(samples, N)[1] is None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pattern", [False, True])
def test_shards_are_one(tmp_path: Path, kind: str, pattern: bool) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    for i, (low, high) in enumerate(itertools.pairwise(CUTS)):
        # Natural order: 9 comes before 10.
        KINDS[kind](folder / f"part-{i + 8}", X[low:high], Y[low:high])
    samples = as_samples(folder / "part-*" if pattern else folder)
    holds(samples)
    assert "(4 files)" in samples.description
    sent = pickle.dumps(samples)
    assert len(sent) < 400
    holds(pickle.loads(sent))


def test_labels_beside_shards(tmp_path: Path) -> None:
    np.save(tmp_path / "x-1.npy", X[:10])
    np.save(tmp_path / "x-2.npy", X[10:])
    np.save(tmp_path / "labels.npy", WORDS)
    samples = as_samples(tmp_path)
    holds_x, found = rows(samples, 6)
    np.testing.assert_array_equal(holds_x, X)
    np.testing.assert_array_equal(found, WORDS)


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", X)
    np.save(tmp_path / "b.npy", X[:, :2])
    with pytest.raises(InputError, match=r"b.npy does not fit[\s\S]*\[23, 2, 4\][\s\S]*do:"):
        as_samples(tmp_path)
    torch.save(torch.from_numpy(X), tmp_path / "c.pt")
    with pytest.raises(InputError, match=r"several kinds[\s\S]*\.npy, \.pt[\s\S]*\*\.npy"):
        as_samples(tmp_path)
    (tmp_path / "d.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"images and arrays[\s\S]*do:"):
        as_samples(tmp_path)
    with pytest.raises(InputError, match=r"no file fits this pattern[\s\S]*z\*"):
        as_samples(tmp_path / "z*.npy")


def test_a_pickle_whose_file_changed_says_so(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    sent = pickle.dumps(as_samples(tmp_path / "x.npy"))
    np.save(tmp_path / "x.npy", X[:5])
    with pytest.raises(InputError, match=r"another file here[\s\S]*5 samples[\s\S]*23"):
        pickle.loads(sent)


def test_a_file_that_shrinks_while_it_is_read_loses_its_end_and_does_not_crash(
    tmp_path: Path,
) -> None:
    np.save(tmp_path / "x.npy", X)
    batches = as_samples(tmp_path / "x.npy").batches(5)
    next(batches)
    os.truncate(tmp_path / "x.npy", 300)
    parts = list(batches)
    lost = {number: why for part in parts for number, why in part.failed.items()}
    read = [number for part in parts for number in part.index.tolist()]
    assert sorted([*read, *lost]) == list(range(5, len(X)))
    assert len(X) - 1 in lost
    assert all("changed while it was being read" in why for why in lost.values())


@pytest.mark.parametrize("view", [slice(None), slice(3, 20)])
def test_a_memory_map_travels_as_a_path(tmp_path: Path, view: slice) -> None:
    np.save(tmp_path / "x.npy", X)
    samples = as_samples(np.load(tmp_path / "x.npy", mmap_mode="r")[view], labels=Y[view])
    np.testing.assert_array_equal(rows(samples, 4)[0], X[view])
    assert len(pickle.dumps(samples)) < 1500
    np.testing.assert_array_equal(rows(pickle.loads(pickle.dumps(samples)), 4)[0], X[view])


def test_a_memory_map_that_is_no_plain_stretch_stays_what_it_is(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="c")
    mapped[0] = 7.0  # never written to the file
    assert float(rows(as_samples(mapped), N)[0][0, 0, 0]) == 7.0
    turned = np.load(tmp_path / "x.npy", mmap_mode="r")[::-1]
    np.testing.assert_array_equal(rows(as_samples(turned), 4)[0], X[::-1])


def test_where_the_values_of_a_file_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "stored.npz", x=X)
    np.savez_compressed(tmp_path / "packed.npz", x=X)
    stored = as_samples(tmp_path / "stored.npz")
    packed = as_samples(tmp_path / "packed.npz")
    assert isinstance(stored._stores, RawArray)  # type: ignore[attr-defined]
    assert isinstance(packed._stores, HeldArray)  # type: ignore[attr-defined]


def test_an_array_that_is_too_large_to_unpack_is_refused(tmp_path: Path) -> None:
    import zipfile

    header = tmp_path / "h.npy"
    np.lib.format.open_memmap(header, mode="w+", dtype="f4", shape=(4, 2))
    raw = header.read_bytes()[:128].replace(b"(4, 2), }", b"(%d, 2)}" % 10**13)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", raw.ljust(128) + bytes(64))
    with pytest.raises(InputError, match=r"bomb.npz"):
        as_samples(tmp_path / "bomb.npz")


# --- parquet --------------------------------------------------------------------------------------


def table(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=6)
    return path


def test_number_columns_stand_side_by_side(tmp_path: Path) -> None:
    a, b = RNG.normal(size=N), np.arange(N)
    path = table(tmp_path / "t.parquet", a=a, b=b, y=pa.array(WORDS).dictionary_encode())
    samples = as_samples(path)
    x, y = rows(samples, 4)
    np.testing.assert_array_equal(x, np.stack([a, b], axis=1))
    np.testing.assert_array_equal(y, WORDS)
    x, _ = rows(as_samples(f"{path}:b"), 4)
    np.testing.assert_array_equal(x, b[:, None])
    assert x.dtype == np.int64
    with pytest.raises(InputError, match=r"no column called 'c'[\s\S]*a, b, y[\s\S]*do:"):
        as_samples(f"{path}:c")
    with pytest.raises(InputError, match=r"no columns that a model[\s\S]*y \(text\)"):
        as_samples(f"{path}:a,y")


def test_columns_that_are_left_out_are_told(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", x=lists(X), name=pa.array(WORDS), weight=np.ones(N))
    samples = as_samples(path)
    np.testing.assert_array_equal(rows(samples, 4)[0], X)
    assert samples.notes == ("the columns name, weight were left out",)


def test_two_list_columns_are_a_mapping(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", feature=lists(X), condition=lists(X[:, 0]))
    batch = next(as_samples(path).batches(N))
    np.testing.assert_array_equal(batch.x["feature"], X)  # type: ignore[index, call-overload]
    np.testing.assert_array_equal(batch.x["condition"], X[:, 0])  # type: ignore[index, call-overload]


def test_missing_values(tmp_path: Path) -> None:
    gaps = [[1.0, 2.0], None, [3.0, None]]
    x, _ = rows(as_samples(table(tmp_path / "f.parquet", x=pa.array(gaps))), 2)
    np.testing.assert_array_equal(x, [[1, 2], [np.nan, np.nan], [3, np.nan]])
    path = table(tmp_path / "i.parquet", x=pa.array([1, None, 3]))
    with pytest.raises(InputError, match=r"column 'x' of i.parquet has missing[\s\S]*int64"):
        rows(as_samples(path), 2)


def test_ragged_lists_name_the_row(tmp_path: Path) -> None:
    path = table(tmp_path / "r.parquet", x=pa.array([[1.0, 2.0]] * 8 + [[1.0]]))
    with pytest.raises(InputError, match=r"ragged[\s\S]*1 values at row 8[\s\S]*2, as in"):
        rows(as_samples(path), 3)


def test_a_damaged_page_is_named(tmp_path: Path) -> None:
    path = table(tmp_path / "d.parquet", x=lists(RNG.normal(size=(500, 40))))
    raw = bytearray(path.read_bytes())
    raw[2000:40000] = bytes(38000)
    path.write_bytes(bytes(raw))
    with pytest.raises(InputError, match=r"d.parquet cannot be read as a .parquet file"):
        rows(as_samples(path), 64)


# --- memory ---------------------------------------------------------------------------------------

READ = """
import resource, sys
import numpy as np
from collapsekit.samples import as_samples
samples = as_samples(sys.argv[1])
total, peak = 0.0, lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
for i, batch in enumerate(samples.batches(512)):
    total += float(batch.x.sum())
    if i == 20:
        before = peak()
if samples.random_access:
    samples.take(np.arange(0, samples.size, samples.size // 500))
print(total, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["npy", "fortran", "npz", "parquet", "shards"])
def test_reading_holds_no_more_than_a_few_batches(tmp_path: Path, kind: str) -> None:
    """100 MB are read; what the process holds at most grows by less than 8 MB."""
    x = np.arange(400_000 * 64, dtype=np.float32).reshape(-1, 64) % 7
    path = tmp_path / "d"
    match kind:
        case "npy":
            np.save(path := tmp_path / "d.npy", x)
        case "fortran":
            np.save(path := tmp_path / "d.npy", np.asfortranarray(x))
        case "npz":
            np.savez(path := tmp_path / "d.npz", x=x)
        case "parquet":  # one row group, as large as the file
            options: dict[str, Any] = {"row_group_size": len(x), "compression": "none"}
            pq.write_table(pa.table({"x": lists(x)}), path := tmp_path / "d.parquet", **options)
        case "shards":
            path.mkdir()
            for i, part in enumerate(np.array_split(x, 40)):
                np.save(path / f"{i}.npy", part)
    code = textwrap.dedent(READ)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(path)],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    total, grown = (float(word) for word in done.stdout.split())
    assert total == pytest.approx(float(x.sum(dtype=np.float64)), rel=1e-6)
    assert grown < 8.0
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 0
