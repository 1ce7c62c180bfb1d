"""The audit as JSON with a versioned schema: the head, and the dimensions as records."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from collapsekit.archive import dump_json
from collapsekit.results import Audit


def render(audit: Audit, *, rows: npt.NDArray[np.int64] | None = None) -> str:
    """Everything but samples, tables and arrays; strict JSON, stable order, unknown values null.

    Parameters
    ----------
    audit : Audit
    rows : int array, optional
        Rows of `Audit.dimensions` to include; all of them by default. ``dimensions_total`` in the
        result always has the full count.
    """
    frame = audit.dimensions if rows is None else audit.dimensions.iloc[rows]
    content: dict[str, Any] = {
        **audit.head(),
        "samples_total": audit.sample_count,
        "dimensions_total": len(audit.dimensions),
        "dimensions": records(frame),
    }
    if audit.groups:  # their order is that of "groups"
        content["group_verdicts"] = {
            name: group.head()["verdict"] for name, group in audit.groups.items()
        }
    return dump_json(content)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dictionaries with the index as ``dimension``; ``<NA>`` becomes None."""
    columns = {str(name): [_cell(cell) for cell in frame[name]] for name in frame.columns}
    return [
        {"dimension": _cell(number), **{name: cells[row] for name, cells in columns.items()}}
        for row, number in enumerate(frame.index)
    ]


def _cell(cell: Any) -> Any:
    if cell is None or cell is pd.NA:
        return None
    if isinstance(cell, np.generic):
        cell = cell.item()
    if isinstance(cell, bool | int | str):
        return cell
    return float(cell) if isinstance(cell, float) else str(cell)
