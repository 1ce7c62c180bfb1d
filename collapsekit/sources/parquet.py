"""Columns of parquet files, read a few thousand rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from collapsekit.errors import InputError
from collapsekit.sources.disk import DiskArray, Runs, shrunk
from collapsekit.sources.labels import ALONE, LABELS
from collapsekit.sources.numpy_files import damaged

CHUNK = 4096  # rows decoded at once
_BUFFER = 1 << 20  # bytes of a compressed column that are read ahead


@dataclass
class ParquetArray(DiskArray):
    """One list column [N, ...], or number columns side by side [N, C], or labels [N].

    Rows come by a cursor that goes forward: a pass reads every page once and holds one chunk,
    however large the file's row groups are. Rows far apart cost a row group each.

    Parameters
    ----------
    path : Path
    columns : tuple of str
    dtype, shape
    side_by_side : bool
        Whether the columns hold numbers and stand as the columns of a matrix.
    """

    path: Path
    columns: tuple[str, ...]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    side_by_side: bool = False
    random_access = False
    _chunks: Iterator[np.ndarray] | None = field(default=None, repr=False)
    _chunk: np.ndarray | None = field(default=None, repr=False)
    _first: int = field(default=0, repr=False)  # row number of the chunk's first row

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_chunks": None, "_chunk": None, "_first": 0}

    def read(self, runs: Runs) -> np.ndarray:
        """These rows."""
        found = []
        for start, stop in runs:
            while start < stop:
                chunk = self._at(start)
                low = start - self._first
                part = chunk[low : low + stop - start]
                found.append(part)
                start += len(part)
        return np.concatenate(found)

    def _at(self, row: int) -> np.ndarray:
        """The chunk that holds `row`, by going on or by starting again at its row group."""
        chunk = self._chunk
        if chunk is not None and self._first <= row < self._first + len(chunk):
            return chunk
        ahead = chunk is not None and self._first <= row <= self._first + 4 * CHUNK
        if not ahead or self._chunks is None:
            self._open(row)
        assert self._chunks is not None
        while True:
            self._first += 0 if self._chunk is None else len(self._chunk)
            self._chunk = next(self._chunks, None)
            if self._chunk is None:
                self._chunks = None
                raise shrunk(self.path, f"no row {row}")
            if row < self._first + len(self._chunk):
                return self._chunk

    def _open(self, row: int) -> None:
        with _telling(self.path):
            file = _file(self.path)
            counts = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
        ends = np.cumsum(counts)
        group = int(np.searchsorted(ends, row, side="right"))
        self._chunk, self._first = None, int(ends[group - 1]) if group else 0
        self._chunks = self._decoded(file, list(range(group, len(counts))))

    def _decoded(self, file: Any, groups: list[int]) -> Iterator[np.ndarray]:
        row = self._first
        with file, _telling(self.path):
            # One thread: reading then does not outlive the interpreter, and the cores are the
            # model's.
            for batch in file.iter_batches(
                CHUNK, row_groups=groups, columns=list(self.columns), use_threads=False
            ):
                parts = [self._values(batch.column(name), name, row) for name in self.columns]
                chunk = np.stack(parts, axis=1) if self.side_by_side else parts[0]
                row += len(chunk)
                if len(chunk):
                    yield chunk

    def _values(self, column: Any, name: str, first: int) -> np.ndarray:
        """A column of one chunk, [B] or [B, ...]; missing numbers are NaN where NaN exists."""
        column = _decoded(column)
        if self.dtype.kind == "U":
            return np.array(["" if word is None else word for word in column.to_pylist()], str)
        present = None
        for side in () if self.side_by_side else self.shape[1:]:
            valid = column.is_valid().to_numpy(zero_copy_only=False)
            lengths = column.value_lengths().drop_null().to_numpy(zero_copy_only=False)
            if (lengths != side).any():
                wrong = first + int(np.flatnonzero(valid)[np.flatnonzero(lengths != side)[0]])
                raise InputError(
                    f"the column {name!r} of {self.path.name} is ragged",
                    got=f"{lengths[lengths != side][0]} values at row {wrong:,}",
                    expected=f"{side}, as in the first row",
                    remedy="pad or crop the lists, as the model was trained on them",
                )
            if not valid.all():
                if present is not None or not valid.size:
                    raise self._missing(name, first)
                present = valid
            column = _decoded(column.flatten())
        if (column.null_count or present is not None) and self.dtype.kind != "f":
            raise self._missing(name, first)
        flat = column.to_numpy(zero_copy_only=False)
        inner = () if self.side_by_side else self.shape[1:]
        values: np.ndarray = flat.astype(self.dtype, copy=False).reshape(-1, *inner)
        if present is not None:
            whole = np.full((len(present), *inner), np.nan, self.dtype)
            whole[present] = values
            values = whole
        return values

    def _missing(self, name: str, first: int) -> InputError:
        return InputError(
            f"the column {name!r} of {self.path.name} has missing values",
            got=f"null between rows {first:,} and {first + CHUNK:,}, in a column of {self.dtype}",
            expected="a value in every row, or floating-point numbers, where NaN stands for null",
            remedy="fill the gaps, or drop these rows",
        )


def parquet(path: Path, wanted: str = "") -> tuple[Any, DiskArray | None, list[str]]:
    """(columns that hold the data, labels or None, notes) of a parquet file.

    Parameters
    ----------
    path : Path
    wanted : str
        Column names, comma-separated; "" leaves the choice to the rules below.

    Notes
    -----
    Labels are the column label, labels, y or target. Of the rest, list columns are the data, each
    [N, P], or nested [N, H, W]; where there is none, the number columns are, side by side [N, C].
    What is neither is left out, and told.

    Raises
    ------
    InputError
        No such column; nothing that holds numbers; damage.
    """
    path = path.absolute()
    with _telling(path), _file(path) as file:
        rows = file.metadata.num_rows
        schema = file.schema_arrow
        names = [n for n in schema.names if not n.startswith("__index_level_")]
        kinds = {n: _kind(schema.field(n).type) for n in names}
        asked = [n.strip() for n in wanted.split(",")] if wanted else []
        for n in asked:
            if n not in names:
                raise InputError(
                    f"{path.name} has no column called {n!r}",
                    got=n,
                    expected=f"one of {', '.join(names)[:200]}",
                    remedy=f"name one of them, as in {path.name}:{names[0]}" if names else "",
                )
        label = next((n for n in LABELS if n in names and n not in asked), None)
        if label is not None and kinds[label] not in ("number", "text"):
            label = None
        rest = asked or [n for n in names if n != label]
        lists = [n for n in rest if kinds[n] == "list"]
        numbers = [n for n in rest if kinds[n] == "number"]
        known = [n for n in lists if n.lower() in ALONE]
        lists = known if len(known) == 1 and not asked else lists
        used = lists or numbers
        if not used or (asked and set(used) != set(asked)):
            raise InputError(
                f"{path.name} holds no columns that a model could be fed",
                got=", ".join(f"{n} ({kinds[n]})" for n in rest[:8]) or "no columns",
                expected="list columns of numbers, or number columns",
                remedy="write the data as numbers; FILE.parquet:NAME,NAME picks columns",
            )
        left = [n for n in rest if n not in used]
        told = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
        notes = [f"the columns {told} were left out"] if left else []
        found: dict[str, ParquetArray] = {}
        for n in lists:
            inner, dtype = _looked(file, n, rows)
            found[n] = ParquetArray(path, (n,), dtype, (rows, *inner))
        if not lists:
            dtype = np.result_type(*(_dtype(schema.field(n).type) for n in numbers))
            shape = (rows, len(numbers))
            found["x"] = ParquetArray(path, tuple(numbers), dtype, shape, side_by_side=True)
        labels = None
        if label is not None:
            dtype = np.dtype(str) if kinds[label] == "text" else _dtype(schema.field(label).type)
            labels = ParquetArray(path, (label,), dtype, (rows,))
    return next(iter(found.values())) if len(found) == 1 else found, labels, notes


def _file(path: Path) -> Any:
    import pyarrow.parquet as pq  # 0.1 s, for those who read parquet

    return pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)


def _decoded(column: Any) -> Any:
    """The values of a column that is stored as a dictionary or as an extension of another type."""
    column = getattr(column, "storage", column)
    return column.dictionary_decode() if hasattr(column, "dictionary_decode") else column


def _plain(kind: Any) -> Any:
    kind = getattr(kind, "storage_type", kind)
    return kind.value_type if hasattr(kind, "index_type") else kind


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _kind(kind: Any) -> str:
    """What a column holds: "number", "text", "list" of numbers, or its Arrow type."""
    from pyarrow import types

    kind = _plain(kind)
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind):
        return "number"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "text"
    if _is_list(kind) and _kind(kind.value_type) in ("number", "list"):
        return "list"
    return str(kind)


def _dtype(kind: Any) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(_plain(kind).to_pandas_dtype())
    return dtype


def _looked(file: Any, name: str, rows: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """(shape, dtype) of a row of a list column, from the first row that is there."""
    kind = _plain(file.schema_arrow.field(name).type)
    column = None
    for batch in file.iter_batches(1, columns=[name], use_threads=False) if rows else ():
        column = _decoded(batch.column(name))
        if not column.null_count:
            break
    sides = []
    while _is_list(kind):
        if column is not None and len(column) and not column.null_count:
            sides.append(int(column.value_lengths()[0].as_py()))
            column = _decoded(column.flatten())
        else:
            sides.append(0)
        kind = _plain(kind.value_type)
    return tuple(sides), _dtype(kind)


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Turns what Arrow raises about a damaged file into an error that names the file."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, NotImplementedError, EOFError) as error:
        raise damaged(path, error) from error
