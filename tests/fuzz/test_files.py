"""Files that are damaged, hostile or not what they say: an error that names the file, no crash."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import collapsekit as ck
from collapsekit.errors import FileError, InputError
from collapsekit.samples import as_samples
from collapsekit.sources.trees import leaves
from tests import models
from tests.fuzz.harness import FEW, explained, fuzz, named_errors

X = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
Y = np.arange(40) % 3


def _bytes(write: Callable[[io.BytesIO], Any]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def _table() -> pa.Table:
    return pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(X.reshape(-1)), 6), "y": Y})


WHOLE: dict[str, bytes] = {
    ".npy": _bytes(lambda b: np.save(b, X)),
    ".npz": _bytes(lambda b: np.savez(b, x=X, labels=Y)),
    ".packed.npz": _bytes(lambda b: np.savez_compressed(b, x=X, labels=Y)),
    ".parquet": _bytes(lambda b: pq.write_table(_table(), b, row_group_size=7)),
    ".pt": _bytes(lambda b: torch.save({"x": torch.from_numpy(X), "y": torch.from_numpy(Y)}, b)),
    ".old.pt": _bytes(
        lambda b: torch.save(torch.from_numpy(X), b, _use_new_zipfile_serialization=False)
    ),
}


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file with some of its bytes gone, changed, doubled or put elsewhere."""
    raw = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(raw) - 1, 0)))
        match draw(st.sampled_from(["cut", "flip", "zero", "insert", "drop", "number", "end"])):
            case "cut":
                del raw[at:]
            case "flip" if raw:
                raw[at] ^= draw(st.integers(1, 255))
            case "zero":
                raw[at : at + 64] = bytes(len(raw[at : at + 64]))
            case "insert":
                raw[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "drop":
                del raw[at : at + draw(st.integers(1, 16))]
            case "number":
                raw[at : at + 4] = struct.pack("<I", draw(st.sampled_from([0, 2**31, 2**32 - 1])))
            case "end" if raw:  # where zip and parquet keep their directories
                raw[-draw(st.integers(1, min(80, len(raw)))) :] = draw(st.binary(max_size=8))
    return bytes(raw)


def read(path: Path) -> None:
    """Everything that an audit does with a source."""
    samples = as_samples(path)
    rows = 0
    for batch in samples.batches(9):
        rows += len(batch.index) + len(batch.failed)  # what cannot be read is named, not dropped
        for _, leaf in leaves(batch.x):
            assert len(leaf) == len(batch.index)
    assert rows == samples.size
    if samples.random_access:
        samples.take(np.array([0, rows - 1]))


@pytest.mark.parametrize("kind", WHOLE)
@given(data=st.data())
@fuzz(40)
def test_damaged_data(tmp_path_factory: pytest.TempPathFactory, kind: str, data: Any) -> None:
    path = tmp_path_factory.getbasetemp() / f"damaged{kind}"
    path.write_bytes(data.draw(damaged(WHOLE[kind])))
    with named_errors():
        read(path)


@pytest.mark.parametrize("kind", WHOLE)
@given(content=st.binary(max_size=64))
@fuzz(15)
def test_any_bytes_under_any_suffix(
    tmp_path_factory: pytest.TempPathFactory, kind: str, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / f"bytes{kind}"
    path.write_bytes(WHOLE[kind][:4] + content)
    with named_errors() as errors:
        read(path)
    assert errors


@given(
    shape=st.lists(st.integers(-3, 2**40), max_size=4),
    descr=st.sampled_from(
        ["<f4", ">f8", "|O", "|V0", "|S0", "<U3", "(2,)<f4", "|b1", "junk", "<f2"]
    ),
    fortran=st.sampled_from([True, False, 3]),
    length=st.integers(0, 200),
)
@fuzz(60)
def test_headers_that_promise_anything(
    tmp_path_factory: pytest.TempPathFactory, shape: Any, descr: str, fortran: Any, length: int
) -> None:
    header = repr({"descr": descr, "fortran_order": fortran, "shape": tuple(shape)}) + "\n"
    raw = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(length)
    path = tmp_path_factory.getbasetemp() / "header.npy"
    path.write_bytes(raw)
    with named_errors():
        read(path)
    with zipfile.ZipFile(path.with_suffix(".npz"), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", raw)
    with named_errors():
        read(path.with_suffix(".npz"))


NAMES = st.one_of(
    st.text(st.characters(exclude_characters="/"), max_size=12),
    st.sampled_from(
        ["", ".", "..", "~", "~nobody/x.npy", "a\0b.npy", "x" * 5000, "[", "**", "a[1].npy", "x:y",
         ".npy", "x.npz:", "x.npz:..", "x.npy\n", "\ud800.npy", "-", "http://x/y.npy", "?.npy"]
    ),
)  # fmt: skip


@given(name=NAMES)
@fuzz(60)
def test_names_of_files_that_are_not_there(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "empty"
    folder.mkdir(exist_ok=True)
    with named_errors() as errors:
        as_samples(f"{folder}/{name}")
    assert errors
    with named_errors() as errors:
        ck.load(f"{folder}/{name}")
    assert errors


def test_names_with_the_signs_of_patterns(tmp_path: Path) -> None:
    np.save(tmp_path / "a[1].npy", X)
    assert as_samples(tmp_path / "a[1].npy").size == 40


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".parquet", ".pt", ".audit"])
def test_pipes_devices_and_loops_are_not_waited_for(tmp_path: Path, suffix: str) -> None:
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"device{suffix}").symlink_to("/dev/zero")
    (tmp_path / f"loop{suffix}").symlink_to(tmp_path / f"loop{suffix}")
    (tmp_path / f"gone{suffix}").symlink_to(tmp_path / "nowhere")
    (tmp_path / f"folder{suffix}").mkdir()
    opened: Callable[[Path], Any] = ck.load if suffix == ".audit" else as_samples
    for name in ("pipe", "device", "loop", "gone", "folder"):
        with named_errors() as errors:
            opened(tmp_path / f"{name}{suffix}")
        assert errors, name


def test_a_link_to_a_file_is_that_file(tmp_path: Path) -> None:
    np.save(tmp_path / "real.npy", X)
    (tmp_path / "link.npy").symlink_to(tmp_path / "real.npy")
    assert as_samples(tmp_path / "link.npy").size == 40


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


def test_pickles_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    evil = np.array([Evil()] * 3, dtype=object)
    np.save("a.npy", evil, allow_pickle=True)
    np.savez("b.npz", x=evil)
    np.savez("c.npz", mean=evil, scale=evil)
    torch.save([Evil()], "d.pt")
    Path("e.npy").write_bytes(pickle.dumps(Evil()))
    Path("f.npz").write_bytes(pickle.dumps(Evil()))
    Path("g.audit").write_bytes(pickle.dumps(Evil()))
    for name in ("a.npy", "b.npz", "d.pt", "e.npy", "f.npz"):
        with pytest.raises(InputError, match=r"pickled[\s\S]*do:"):
            as_samples(name)
    with pytest.raises(FileError):
        ck.audit("posteriors:c.npz")
    with pytest.raises(FileError):
        ck.load("g.audit")
    assert not Path("executed").exists()


# --- audit files ----------------------------------------------------------------------------------


class Saved(bytes):
    """The bytes of an audit, told in a word: hypothesis prints the arguments of what fails."""

    def __repr__(self) -> str:
        return f"an audit of {len(self):,} bytes"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    model = models.LinearVAE((20.0, 1.0))
    audit = ck.audit(model, model.sample(30, 0), likelihood=("gaussian", 0.5), probes=FEW)
    explained(audit)
    return Saved(audit.save(tmp_path_factory.mktemp("audit") / "a.audit").read_bytes())


@given(data=st.data())
@fuzz(60)
def test_damaged_audits(tmp_path_factory: pytest.TempPathFactory, saved: bytes, data: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.audit"
    path.write_bytes(data.draw(damaged(saved)))
    with named_errors():
        audit = ck.load(path)
        assert str(audit)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def rewritten(saved: bytes, path: Path, entries: dict[str, bytes | None]) -> None:
    """The audit with some of its entries replaced, added or (None) taken out."""
    with zipfile.ZipFile(io.BytesIO(saved)) as old, zipfile.ZipFile(path, "w") as new:
        for name in [*old.namelist(), *(set(entries) - set(old.namelist()))]:
            content = entries[name] if name in entries else old.read(name)
            if content is not None:
                new.writestr(name, content)


@given(data=st.data(), value=JSON)
@fuzz(60)
def test_heads_with_anything_in_them(
    tmp_path_factory: pytest.TempPathFactory, saved: bytes, data: Any, value: Any
) -> None:
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        head = json.loads(archive.read("audit.json"))
    inside: Any = head
    for _ in range(data.draw(st.integers(1, 4))):
        keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        if not isinstance(inside[key], dict | list) or data.draw(st.booleans()):
            inside[key] = value
            break
        inside = inside[key]
    path = tmp_path_factory.getbasetemp() / "head.audit"
    rewritten(saved, path, {"audit.json": json.dumps(head).encode()})
    with named_errors():
        audit = ck.load(path)
        assert str(audit)
        assert audit.to_json()


@pytest.mark.parametrize(
    "name",
    ["../../escape.parquet", "/etc/escape", "tables/../../escape.parquet", "arrays/../x.npy",
     "tables/a\\..\\b.parquet", "tables/.parquet", "tables//x.parquet",
     "tables/" + "x" * 3000 + ".parquet"],
)  # fmt: skip
def test_entries_that_point_elsewhere_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: bytes, name: str
) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        table = archive.read("dimensions.parquet")
    rewritten(saved, inner / "x.audit", {name: table})
    before = sorted(tmp_path.rglob("*"))
    with named_errors():
        audit = ck.load("x.audit")
        audit.save("again.audit")
        (inner / "again.audit").unlink()
    assert sorted(tmp_path.rglob("*")) == before


def test_bombs_are_refused_before_they_are_unpacked(tmp_path: Path, saved: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "b.audit", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(3):
            archive.writestr(f"tables/t{i}.parquet", bytes(10 << 20))
    with pytest.raises(FileError, match=r"got:[\s\S]*expected:[\s\S]*do:"):
        ck.load(tmp_path / "b.audit")
    rewritten(saved, tmp_path / "j.audit", {"audit.json": b"[" * 200_000})
    with pytest.raises(FileError, match=r"expected:[\s\S]*do:"):
        ck.load(tmp_path / "j.audit")
    rewritten(saved, tmp_path / "l.audit", {"audit.json": b'"' + b"x" * (65 << 20) + b'"'})
    with pytest.raises(FileError, match=r"got:[\s\S]*expected:[\s\S]*do:"):
        ck.load(tmp_path / "l.audit")


@pytest.mark.parametrize("schema", ["collapsekit-audit/2", "collapsekit-audit/0", "", None, 1, []])
def test_other_schemas_are_named(tmp_path: Path, saved: bytes, schema: Any) -> None:
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        head = json.loads(archive.read("audit.json"))
    head["schema"] = schema
    rewritten(saved, tmp_path / "s.audit", {"audit.json": json.dumps(head).encode()})
    with pytest.raises(FileError, match=r"another schema[\s\S]*got:[\s\S]*collapsekit-audit/1"):
        ck.load(tmp_path / "s.audit")


def test_parts_that_are_missing_are_named(tmp_path: Path, saved: bytes) -> None:
    for name in ("audit.json", "samples.parquet", "dimensions.parquet"):
        rewritten(saved, tmp_path / "m.audit", {name: None})
        with pytest.raises(FileError, match=rf"{name}[\s\S]*do:"):
            ck.load(tmp_path / "m.audit")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("verdict", "name"), []),
        (("verdict", "name"), "splendid"),
        (("verdict", "sentence"), None),
        (("verdict", "codes"), "CK301"),
        (("verdict", "codes"), [3]),
        (("findings", 0, "message"), 3),
        (("findings", 0, "verdict"), {}),
        (("findings", 0, "samples"), [0.5]),
        (("findings", 0, "more"), "x"),
        (("summary", 0, "value"), "3"),
        (("summary", 0, "value"), True),
        (("summary", 0, "n"), -1),
        (("summary", 0, "unit"), None),
        (("skipped",), {"kl": ["no reason"]}),
        (("settings",), {"kl": 3}),
        (("provenance",), []),
        (("provenance", "n"), float("nan")),
        (("provenance", "n"), float("inf")),
        (("provenance", "n"), 10**400),
        (("run",), None),
        (("titles",), {"rate": 3}),
        (("better",), {"rate": "sideways"}),
        (("better",), {"rate": ["up"]}),
    ],
    ids=str,
)
def test_heads_of_another_kind_are_named(
    tmp_path: Path, saved: bytes, place: tuple[Any, ...], value: Any
) -> None:
    """What a report would stumble over is told when the file is read."""
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        head = json.loads(archive.read("audit.json"))
    inside = head
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    rewritten(saved, tmp_path / "k.audit", {"audit.json": json.dumps(head).encode()})
    with pytest.raises(FileError, match=r"not a readable audit[\s\S]*got:[\s\S]*do:"):
        ck.load(tmp_path / "k.audit")
