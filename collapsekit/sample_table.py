"""The per-sample table of a large audit: a parquet file that is read when it is asked for."""

from __future__ import annotations

import contextlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from collapsekit.errors import FileError
from collapsekit.heap import give_back

ROW_GROUP = 1 << 17


class SampleTable:
    """Columns per sample in a parquet file, or in an entry of an audit file.

    Parameters
    ----------
    path : Path
        The parquet file, or the audit file that holds it as the entry `entry`.
    entry : str
    owner : object
        Kept alive for as long as the table is: the temporary folder that the file lies in.
    """

    def __init__(self, path: Path, entry: str = "", owner: object = None) -> None:
        self.path, self.entry, self._owner = path, entry, owner

    def __len__(self) -> int:
        with self._open() as file:
            return int(file.metadata.num_rows)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        with self._open() as file:
            return tuple(str(name) for name in file.schema_arrow.names)

    def frame(self, *names: str) -> pd.DataFrame:
        """The columns `names` (all by default) in memory."""
        with self._open() as file:
            # One thread: this may run beside a worker pool, and order matters more than speed.
            table = file.read(columns=list(names) or None, use_threads=False)
            frame: pd.DataFrame = table.to_pandas()
            return frame

    def copy_to(self, target: IO[bytes]) -> None:
        """Copy the parquet file, a piece at a time."""
        with self._bytes() as source:
            shutil.copyfileobj(source, target, 1 << 20)

    def __reduce__(self) -> tuple[Any, ...]:
        # The file may be gone, or on another machine, where this is opened again.
        return (_same, (self.frame(),))

    @contextlib.contextmanager
    def _bytes(self) -> Iterator[IO[bytes]]:
        try:
            if not self.entry:
                with self.path.open("rb") as stream:
                    yield stream
            else:
                with zipfile.ZipFile(self.path) as archive, archive.open(self.entry) as stream:
                    yield stream
        except FileNotFoundError as error:
            raise FileError(
                "the per-sample table of this audit is gone",
                got=str(self.path),
                expected="the file that the audit left there",
                remedy="save an audit (audit.save) before its checkpoint folder is deleted",
            ) from error

    @contextlib.contextmanager
    def _open(self) -> Iterator[pq.ParquetFile]:
        with self._bytes() as stream, pq.ParquetFile(stream) as file:
            yield file


def _same(frame: pd.DataFrame) -> pd.DataFrame:
    return frame


class Samples:
    """The field `Audit.samples`: a DataFrame, read from its file at each asking where it is large.

    A data descriptor, so that an Audit stays a plain frozen dataclass.
    """

    def __get__(self, audit: Any, owner: type | None = None) -> pd.DataFrame:
        if audit is None:
            raise AttributeError("samples")  # a field without a default
        held: pd.DataFrame | SampleTable = audit.__dict__["_samples"]
        return held.frame() if isinstance(held, SampleTable) else held

    def __set__(self, audit: Any, value: pd.DataFrame | SampleTable) -> None:
        audit.__dict__["_samples"] = value


def as_field(samples: pd.DataFrame | SampleTable) -> pd.DataFrame:
    """What `Audit` takes for its field `samples`, by the type that it gives back."""
    return cast("pd.DataFrame", samples)


def write(
    path: Path,
    template: pd.DataFrame,
    rows: int,
    pieces: Iterable[tuple[int, int]],
    columns: Callable[[int, int], dict[str, Any]],
) -> None:
    """Write a table in row groups, none of which is larger than `ROW_GROUP` samples or a piece.

    Parameters
    ----------
    path : Path
    template : DataFrame
        Without rows: the columns and their types.
    rows : int
        In all.
    pieces : iterable of (start, stop)
        Stretches of samples, in order and without gap.
    columns : callable
        From a stretch to its columns as arrow arrays, by name.
    """
    schema = _schema(template, rows)
    held: list[pa.Table] = []
    count = 0
    with pq.ParquetWriter(path, schema, **encoding(schema)) as writer:
        for start, stop in pieces:
            arrays = columns(start, stop)
            held.append(
                pa.table(
                    [arrays[name].cast(schema.field(name).type) for name in schema.names], schema
                )
            )
            count += stop - start
            if count >= ROW_GROUP:
                writer.write_table(pa.concat_tables(held), row_group_size=count)
                held, count = [], 0
                give_back()
        if held:
            writer.write_table(pa.concat_tables(held), row_group_size=count)


def encoding(schema: pa.Schema) -> dict[str, Any]:
    """How parquet writes a table of measurements: in a third of the time, and smaller.

    Hardly two measured values are equal, so a dictionary of them is made in vain; their bytes
    compress once those of equal weight lie side by side.
    """
    measured = [field.name for field in schema if pa.types.is_floating(field.type)]
    return {
        "compression": "zstd",
        "use_dictionary": [name for name in schema.names if name not in measured],
        "use_byte_stream_split": measured,
    }


def _schema(template: pd.DataFrame, rows: int) -> pa.Schema:
    schema = pa.Schema.from_pandas(template)
    metadata = json.loads(schema.metadata[b"pandas"])
    for index in metadata["index_columns"]:
        index["stop"] = rows
    return schema.with_metadata({b"pandas": json.dumps(metadata).encode()})


def masked(values: np.ndarray, at: np.ndarray, length: int) -> pa.Array:
    """Values at the positions `at` of a column of this length; null elsewhere."""
    if len(values) == length:
        return pa.array(values, from_pandas=False)
    missing = np.ones(length, dtype=bool)
    missing[at] = False
    full = np.zeros(length, dtype=values.dtype)
    full[at] = values
    return pa.array(full, mask=missing, from_pandas=False)
