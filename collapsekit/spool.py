"""The spool: per-sample columns of the data stream, in memory while they are few, on disk beyond.

These columns grow with the data, and nothing else in a pass does. So a shard's columns are written
to a parquet file when the shard is done, and the probes find in their state what reads them again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from collapsekit import sample_table
from collapsekit.errors import FileError
from collapsekit.heap import give_back
from collapsekit.probe import States
from collapsekit.sample_table import SampleTable, masked
from collapsekit.shards import Outcome
from collapsekit.streaming import Array, Rows, merged
from collapsekit.tables import nullable

#: Samples up to which everything stays in memory.
IN_MEMORY = 100_000
LABELS = "labels/rows"
_KEY = b"collapsekit"
#: How a shard's columns are written: they are read once or twice and then go, so quickly.
_PASSING: dict[str, Any] = {
    "compression": "lz4",
    "use_dictionary": False,
    "write_statistics": False,
}


@dataclass(frozen=True)
class Piece:
    """The columns of the samples start .. stop - 1: in memory, or in a file; neither if lost."""

    number: int
    start: int
    stop: int
    rows: dict[str, Rows]
    path: Path | None = None
    columns: dict[str, Column] = field(default_factory=dict)  # of the file, by their full names


class _Temporary:
    """A folder that goes when nobody holds this any more, or at the end of the process."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="collapsekit-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


class Spool:
    """Columns per sample, shard by shard.

    Parameters
    ----------
    folder : Path or None
        Where every shard is written; None for memory first and then a temporary folder, which goes
        when nobody reads it any more.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._owner: _Temporary | None = None
        self._pieces: list[Piece] = []
        self.count = 0
        self.on_disk = folder is not None

    def add(self, number: int, start: int, count: int, rows: dict[str, Rows]) -> Path | None:
        """Take in a shard's columns; returns the file that they were written to, if they were."""
        self._take(Piece(number, start, start + count, rows))
        if not self.on_disk and self.count > IN_MEMORY:
            self.on_disk = True
            self._pieces = [self._written(piece) for piece in self._pieces]
        elif self.on_disk:
            self._pieces[-1] = self._written(self._pieces[-1])
        give_back()
        return self._pieces[-1].path

    def found(self, number: int, start: int, count: int, path: Path | None) -> None:
        """Take in the file of a shard that was finished before."""
        columns: dict[str, Column] = {}
        if path is not None:
            told = json.loads(pq.read_schema(path).metadata[_KEY])
            columns = {
                name: Column(np.dtype(kind), n, odd) for name, (kind, n, odd) in told.items()
            }
        self._take(Piece(number, start, start + count, {}, path, columns))

    def _take(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self.count = piece.stop

    def rows(self, key: str) -> Rows | SpooledRows | None:
        """The columns of ``probe/state`` over all samples; None if there are none."""
        if not self.on_disk:
            parts = [piece.rows[key] for piece in self._pieces if key in piece.rows]
            return merged(parts) if parts else None
        columns = {
            name.removeprefix(f"{key}/"): column
            for name, column in self._columns().items()
            if name.startswith(f"{key}/")
        }
        return SpooledRows(self, key, columns) if columns else None

    def restore(self, states: dict[str, States]) -> dict[str, States]:
        """States with the columns back in their places."""
        keys: set[str] = set()
        for piece in self._pieces:
            keys |= piece.rows.keys()
        if self.on_disk:
            keys = {name.rpartition("/")[0] for name in self._columns()}
        whole = {name: dict(state) for name, state in states.items()}
        for key in sorted(keys - {LABELS}):
            name, _, state = key.partition("/")
            found = self.rows(key)
            if found is not None:
                whole.setdefault(name, {})[state] = found
        return whole

    def files(self) -> Iterator[Piece]:
        """The pieces, in order."""
        yield from self._pieces

    def table(self, frames: Sequence[pd.DataFrame | SpooledRows | None]) -> SampleTable:
        """All columns in one file: spooled ones, and those that were measured on a subset."""
        template = pd.DataFrame(
            {name: kind for frame in frames for name, kind in _kinds(frame, self.count)},
            index=pd.RangeIndex(0, name="sample"),
        )
        path = self.folder / "samples.parquet"
        partial = path.with_name("samples.partial")
        pieces = {piece.start: piece for piece in self._pieces}
        held = [
            frame if frame is None or isinstance(frame, SpooledRows) else _Sparse(frame)
            for frame in frames
        ]

        def columns(start: int, stop: int) -> dict[str, pa.Array]:
            found: dict[str, pa.Array] = {}
            for frame in held:
                if isinstance(frame, SpooledRows):
                    found |= {n: _known(a) for n, a in frame.arrays(pieces[start]).items()}
                elif frame is not None:
                    found |= frame.arrays(start, stop)
            return found

        stretches = [(piece.start, piece.stop) for piece in self._pieces]
        with writing(partial):
            sample_table.write(partial, template, self.count, stretches, columns)
            partial.replace(path)
        if self._owner is not None:  # the shards have said all they had to say
            for piece in self._pieces:
                if piece.path is not None:
                    piece.path.unlink()
        return SampleTable(path, owner=self._owner)

    @property
    def folder(self) -> Path:
        """Where files lie; made when it is first needed."""
        if self._folder is None:
            self._owner = _Temporary()
            self._folder = self._owner.path
        return self._folder

    def _written(self, piece: Piece) -> Piece:
        arrays: dict[str, pa.Array] = {}
        columns: dict[str, Column] = {}
        length = piece.stop - piece.start
        for key, rows in piece.rows.items():
            at = rows.index - piece.start
            for name in rows.names:
                values = rows.column(name)
                odd = values.dtype.kind == "f" and not bool(np.isfinite(values).all())
                if odd:  # an infinite cell is no measurement: empty, as in memory
                    values = np.where(np.isfinite(values), values, values.dtype.type(np.nan))
                arrays[f"{key}/{name}"] = masked(values, at, length)
                columns[f"{key}/{name}"] = Column(values.dtype, len(values), odd)
        told = {name: (c.dtype.str, c.count, c.odd) for name, c in columns.items()}
        table = pa.table(arrays).replace_schema_metadata({_KEY: json.dumps(told).encode()})
        path = self.folder / f"data-{piece.number:06d}.parquet"
        with writing(path):
            atomically(path, lambda partial: pq.write_table(table, partial, **_PASSING))
        return replace(piece, rows={}, path=path, columns=columns)

    def _columns(self) -> dict[str, Column]:
        total: dict[str, Column] = {}
        for piece in self._pieces:
            for name, column in piece.columns.items():
                total[name] = total[name] + column if name in total else column
        return total


@dataclass(frozen=True)
class Column:
    """What is known of a column without reading it: its type, its cells, whether one is NaN."""

    dtype: np.dtype[Any]
    count: int
    odd: bool

    def __add__(self, other: Column) -> Column:
        kind = np.promote_types(self.dtype, other.dtype)
        return Column(kind, self.count + other.count, self.odd or other.odd)


class SpooledRows:
    """Rows that lie on disk: as `streaming.Rows` to whoever reads them."""

    flat = True

    def __init__(self, spool: Spool, key: str, columns: dict[str, Column]) -> None:
        self._spool, self._key, self.columns = spool, key, columns
        self._last: tuple[Array, pd.DataFrame] | None = None

    def __len__(self) -> int:
        return max((column.count for column in self.columns.values()), default=0)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        return tuple(self.columns)

    @property
    def index(self) -> Array:
        """Sample numbers, ascending: int64 [n]."""
        parts = [np.zeros(0, dtype=np.int64)]
        for piece in self._spool.files():
            valid = self._read(piece, self.names[:1])[self.names[0]].is_valid()
            parts.append(piece.start + np.flatnonzero(valid.to_numpy(zero_copy_only=False)))
        return np.concatenate(parts)

    def column(self, name: str) -> Array:
        """One column in ascending sample number."""
        return np.concatenate(
            [_values(self._read(p, (name,))[name], self.columns[name]) for p in self._spool.files()]
        )

    def frame(self, *names: str) -> pd.DataFrame:
        """The columns `names` in memory, indexed by sample."""
        return pd.DataFrame(
            {name: self.column(name) for name in names or self.names},
            index=pd.Index(self.index, name="sample"),
        )

    def table(self, *names: str) -> SpooledRows:
        """The columns `names`, where they are."""
        return SpooledRows(
            self._spool, self._key, {n: self.columns[n] for n in names or self.names}
        )

    def at(self, index: Array) -> pd.DataFrame:
        """The rows of these sample numbers, ascending, as far as they are known.

        The last answer is kept: every reading asks for the same.
        """
        if self._last is None or not np.array_equal(self._last[0], index):
            self._last = index, self._at(index)
        return self._last[1]

    def _at(self, index: Array) -> pd.DataFrame:
        parts: list[pd.DataFrame] = []
        for piece in self._spool.files():
            wanted = index[(index >= piece.start) & (index < piece.stop)]
            arrays = self.arrays(piece)
            at = pa.array(wanted - piece.start)
            taken = {name: arrays[name].take(at) for name in self.names}
            valid = taken[self.names[0]].is_valid().to_numpy(zero_copy_only=False)
            parts.append(
                pd.DataFrame(
                    {name: _values(taken[name], self.columns[name]) for name in self.names},
                    index=pd.Index(wanted[valid], name="sample"),
                )
            )
            give_back()
        return pd.concat(parts)

    def arrays(self, piece: Piece) -> dict[str, pa.Array]:
        """The columns over a piece, null where a sample is missing."""
        return self._read(piece, self.names)

    def _read(self, piece: Piece, names: Sequence[str]) -> dict[str, pa.Array]:
        wanted = [f"{self._key}/{name}" for name in names]
        if piece.path is not None:
            with pq.ParquetFile(piece.path) as file:
                there = [key for key in wanted if key in piece.columns]
                table = file.read(columns=there, use_threads=False)
        return {
            name: table[key].combine_chunks()
            if key in piece.columns
            else pa.nulls(piece.stop - piece.start, pa.from_numpy_dtype(self.columns[name].dtype))
            for name, key in zip(names, wanted, strict=True)
        }


def _values(array: pa.Array, column: Column) -> Array:
    known = array.drop_null()
    if column.dtype.kind == "U":
        return np.asarray(known.to_pylist(), dtype=column.dtype)
    values: Array = known.to_numpy(zero_copy_only=False)
    return values.astype(column.dtype, copy=False)


def _known(array: pa.Array) -> pa.Array:
    if not pa.types.is_floating(array.type):
        return array
    return pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)


def _kinds(frame: pd.DataFrame | SpooledRows | None, count: int) -> Iterator[tuple[str, pd.Series]]:
    """Names and types of a frame's columns in a table of `count` samples, as `joined` has them."""
    if frame is None:
        return
    if isinstance(frame, SpooledRows):
        for name, column in frame.columns.items():
            kind = pd.Series(np.zeros(0, dtype=column.dtype))
            yield name, nullable(kind) if column.count < count or column.odd else kind
        return
    for name in frame.columns:
        series = frame[name]
        whole = len(series) == count and not (series.dtype.kind == "f" and series.isna().any())
        yield str(name), (series if whole else nullable(series)).iloc[:0].reset_index(drop=True)


class _Sparse:
    """Columns that were measured on some samples, spread over stretches of all."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._index = frame.index.to_numpy()
        self._batch = pa.RecordBatch.from_pydict(
            {str(name): pa.array(frame[name], from_pandas=True) for name in frame.columns}
        )

    def arrays(self, start: int, stop: int) -> dict[str, pa.Array]:
        """The columns over the samples start .. stop - 1, null where one was not measured."""
        low, high = np.searchsorted(self._index, [start, stop])
        places = np.full(stop - start, -1)
        places[self._index[low:high] - start] = np.arange(low, high)
        spread = self._batch.take(pa.array(places, mask=places < 0))
        return dict(zip(spread.schema.names, spread.columns, strict=True))


def atomically(path: Path, write: Any) -> None:
    """Write a file whole or not at all, through to the disk: `write` is given a path of its own."""
    partial = path.with_name(path.name + ".partial")
    write(partial)
    with partial.open("rb") as stream:
        os.fsync(stream.fileno())
    partial.replace(path)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """What is finished stays when the disk is full or the folder cannot be written."""
    try:
        yield
    except OSError as error:
        with contextlib.suppress(OSError):
            path.with_name(path.name + ".partial").unlink(missing_ok=True)
        raise FileError(
            "per-sample results could not be written",
            got=f"{type(error).__name__} for {path}: {error.strerror or error}",
            expected="a folder that is writable and has room, about 50 bytes a sample",
            remedy="make room and run again; checkpoint=DIR (--resume DIR) keeps finished shards, "
            "and TMPDIR names the folder that is used without it",
        ) from error


def split(outcome: Outcome) -> tuple[Outcome, dict[str, Rows]]:
    """An outcome without its per-sample columns, and those by ``probe/state``."""
    rows: dict[str, Rows] = {}
    states: dict[str, States] = {}
    for name, state in outcome.states.items():
        flat = {k for k, s in state.items() if isinstance(s, Rows) and s.flat}
        rows |= {f"{name}/{k}": state[k] for k in sorted(flat)}
        states[name] = {k: s for k, s in state.items() if k not in flat}
    if outcome.labels is not None:
        rows[LABELS] = outcome.labels
    return replace(outcome, states=states, labels=None), rows
