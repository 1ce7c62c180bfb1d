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
    rows = [asdict(number) for number in numbers]
    columns = ["name", "value", "low", "high", "unit", "n", "note"]
    return pd.DataFrame(rows, columns=columns).set_index("name")


def joined(frames: Iterable[pd.DataFrame | None], index: pd.Index) -> pd.DataFrame:
    """Put columns side by side on `index`; where cells are missing the column turns nullable.

    A complete column keeps its NumPy dtype; one with unevaluated cells gets pandas' nullable dtype
    so that its gaps print as ``<NA>`` and never as a number.
    """
    columns: dict[str, pd.Series] = {}
    for frame in frames:
        if frame is None:
            continue
        for name in frame.columns:
            column = frame[name]
            if len(column) != len(index) or not column.index.equals(index):
                column = nullable(column).reindex(index)
            elif column.dtype.kind == "f" and bool(column.isna().any()):
                column = nullable(column)
            columns[str(name)] = column
    return pd.DataFrame(columns, index=index)


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
