"""Entries of an audit's file, and texts: written whole or not at all, read with suspicion."""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from collapsekit.errors import FileError
from collapsekit.sample_table import SampleTable

SAMPLES = "samples.parquet"
#: The table that goes with per-sample rows in a file: those of the population.
SUBSET = "sample_subset"


def dump_json(data: object) -> str:
    """Strict JSON, stable order, NaN as null."""
    return json.dumps(_clean(data), indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file whole or not at all.

    Raises
    ------
    FileError
        It cannot be written.
    """
    target = Path(path)
    partial = target.with_name(target.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise FileError(
            f"{target} could not be written",
            got=f"{type(error).__name__}: {error.strerror}",
            expected="a folder that exists, is writable and has room",
            remedy="choose another path",
        ) from error


def plain(value: Any) -> Any:
    """A cell as JSON holds it: no NumPy scalar, and None for what is not finite."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _clean(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {str(k): _clean(v) for k, v in data.items()}
    if isinstance(data, list | tuple):
        return [_clean(v) for v in data]
    if isinstance(data, np.ndarray):
        return _clean(data.tolist())
    return plain(data)


def put(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Add an entry."""
    # A fixed date: two equal audits are equal files.
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.compress_type = zipfile.ZIP_DEFLATED if name.endswith(".json") else zipfile.ZIP_STORED
    archive.writestr(info, content)


_LARGEST_ENTRY = 4 << 30
_LARGEST_HEAD = 64 << 20
_MOST_CELLS = 1 << 31  # of a table: repeated values take no room in a file, but do in memory
#: Whatever a file that is no whole audit can make zip, JSON, parquet and NumPy raise.
DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
    MemoryError,
    OverflowError,
    IndexError,
    AssertionError,
    EOFError,
    NotImplementedError,
    zlib.error,
    zipfile.BadZipFile,
)


def refuse_bombs(path: object, entries: list[zipfile.ZipInfo]) -> None:
    """Only the head is ever compressed, so nothing else can grow while it is read."""
    for entry in entries:
        head = entry.filename == "audit.json"
        most = _LARGEST_HEAD if head else _LARGEST_ENTRY
        if entry.file_size > most or (entry.compress_type != zipfile.ZIP_STORED and not head):
            raise FileError(
                f"{path} holds an entry that no audit has",
                got=f"{entry.filename[:80]!r}, {entry.file_size:,} bytes once unpacked, from "
                f"{entry.compress_size:,}",
                expected=f"at most {most:,} bytes" + ("" if head else ", not compressed"),
                remedy="do not open this file; it was not written by Audit.save",
            )


def put_samples(archive: zipfile.ZipFile, samples: pd.DataFrame | SampleTable) -> None:
    """Add the per-sample table, or copy it from where it lies."""
    if not isinstance(samples, SampleTable):
        put(archive, SAMPLES, parquet(samples))
        return
    info = zipfile.ZipInfo(SAMPLES, (1980, 1, 1, 0, 0, 0))
    with archive.open(info, "w", force_zip64=True) as target:
        samples.copy_to(target)


def read_samples(
    archive: zipfile.ZipFile, path: str | os.PathLike[str] | io.BytesIO
) -> pd.DataFrame | SampleTable:
    """The per-sample table; of a large audit the place where it lies."""
    if isinstance(path, io.BytesIO) or f"tables/{SUBSET}.parquet" not in archive.namelist():
        return frame(archive.read(SAMPLES))
    table = SampleTable(Path(path), SAMPLES)
    len(table)  # a damaged file is told now, not when somebody asks for the column
    return table


def parquet(table: pd.DataFrame) -> bytes:
    """A table as the bytes of a parquet file."""
    buffer = io.BytesIO()
    # An index that is a range is kept as its ends, beside columns; without any it is its own.
    index = None if len(table.columns) else True
    table.to_parquet(buffer, engine="pyarrow", compression="zstd", index=index)
    return buffer.getvalue()


def frame(content: bytes) -> pd.DataFrame:
    """A table from the bytes of a parquet file; ValueError for one that is far too large."""
    from pyarrow.parquet import read_metadata

    metadata = read_metadata(io.BytesIO(content))
    if metadata.num_rows * max(metadata.num_columns, 1) > _MOST_CELLS:
        raise ValueError(f"a table of {metadata.num_rows:,} rows")
    # One thread: nothing of Arrow then outlives the call, whenever the interpreter ends.
    return pd.read_parquet(io.BytesIO(content), engine="pyarrow", use_threads=False)


def npy(array: np.ndarray) -> bytes:
    """An array as the bytes of an npy file; never a pickle."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
