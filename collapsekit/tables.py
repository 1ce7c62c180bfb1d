"""Tables: headlines as rows, columns of several probes side by side. pandas only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from collapsekit.number import Number


def summary_table(numbers: Iterable[Number]) -> pd.DataFrame:
    """Headlines as a table: index name; columns value, low, high, unit, n, note."""
    rows = [asdict(number.told()) for number in numbers]
    columns = ["name", "value", "low", "high", "unit", "n", "note"]
    return pd.DataFrame(rows, columns=columns).set_index("name")


def joined(frames: Iterable[pd.DataFrame | None], index: pd.Index) -> pd.DataFrame:
    """Put columns side by side on `index`; where cells are missing the column turns nullable.

    A complete column keeps its NumPy dtype; one with unevaluated or infinite cells gets pandas'
    nullable dtype so that its gaps print as ``<NA>`` and never as a number.
    """
    columns: dict[str, pd.Series] = {}
    for frame in frames:
        if frame is None:
            continue
        for name in frame.columns:
            column = _finite(frame[name])
            if len(column) != len(index) or not column.index.equals(index):
                column = nullable(column).reindex(index)
            elif column.dtype.kind == "f" and bool(column.isna().any()):
                column = nullable(column)
            columns[str(name)] = column
    return pd.DataFrame(columns, index=index)


def infinite(frames: Iterable[pd.DataFrame | None]) -> dict[str, list[int]]:
    """Where cells of these columns are infinite, by column: `joined` empties them."""
    found: dict[str, list[int]] = {}
    for frame in frames:
        for name in () if frame is None else frame.columns:
            if frame is not None and frame[name].dtype.kind == "f":
                values = frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
                if np.isinf(values).any():
                    found[str(name)] = frame.index[np.isinf(values)].tolist()
    return found


def _finite(column: pd.Series) -> pd.Series:
    """The column with its infinite cells emptied: they are no measurements either."""
    if column.dtype.kind != "f":
        return column
    infinite = np.isinf(column.to_numpy(dtype=np.float64, na_value=np.nan))
    return column.mask(infinite) if infinite.any() else column


def nullable(column: pd.Series) -> pd.Series:
    """The column with a dtype that knows ``<NA>``."""
    match column.dtype.kind:
        case "f":
            return column.astype("Float64")
        case "i":
            return column.astype("Int64")
        case "b":
            return column.astype("boolean")
        case _:
            return column


def as_number(row: Mapping[str, Any]) -> Number:
    """A headline back from its row, whose missing values may be None."""

    def real(key: str) -> float:
        value = row[key]
        return math.nan if value is None or pd.isna(value) else float(value)

    return Number(
        name=str(row["name"]),
        value=real("value"),
        low=real("low"),
        high=real("high"),
        unit=str(row["unit"]),
        n=int(row["n"]),
        note=str(row["note"]),
    )


def places(shape: Sequence[int]) -> pd.DataFrame | None:
    """Channel, row and column of each dimension of a spatial latent; None for a vector."""
    if len(shape) not in (2, 3):
        return None
    where = np.unravel_index(np.arange(math.prod(shape)), tuple(shape))
    columns = dict(zip(("channel", "row", "column"), where, strict=False))
    return pd.DataFrame(columns).rename_axis(index="dimension")
