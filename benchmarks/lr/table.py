"""The records as Markdown: what reports/lr/README.md shows between its marks."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.lr.settings import BENCHMARKS, RATIO

COLUMNS = (
    *("AU", "AU.1", "good", "fake", "KL", "I", "rec", "obj", "rt", "rt.1", "KL<1", "probe"),
    *("audit good", "CK604"),
)


def tables(folder: Path) -> str:
    """Every record of the folder, in the benchmarks' order."""
    found = [(name, folder / f"{name}.json") for name in BENCHMARKS]
    records = {name: json.loads(file.read_text("utf-8")) for name, file in found if file.exists()}
    return "\n\n".join(_one(name, record) for name, record in records.items())


def _one(name: str, record: Mapping[str, Any]) -> str:
    setting, choice = record["setting"], record["choice"]
    head = (
        f"### {name}: {setting['title']}\n\nbeta {setting['beta']:g}, {setting['epochs']} epochs, "
        f"{setting['train']:,} training and {setting['test']:,} test images, LR weight "
        f"{choice['weight']:g} x beta"
        + (f", noise {setting['noise']:g}" if setting["noise"] else "")
        + f"; means over seeds {', '.join(map(str, record['seeds']))}."
    )
    parts = [head, _methods(record), _bars(record)]
    if "tried" in choice:
        parts.insert(1, _choice(choice["tried"]))
    return "\n\n".join(parts)


def _choice(tried: Mapping[str, Mapping[str, float]]) -> str:
    cells = [
        f"{key if key == 'vanilla' else key + ' x beta'}: good {row['good']:.2f}, "
        f"rec {row['rec']:.2f}"
        for key, row in tried.items()
    ]
    return f"Validation: {'; '.join(cells)}."


def _methods(record: Mapping[str, Any]) -> str:
    steps = record["step_ms"]
    lines = [_row(["method", *COLUMNS, "step"]), _row(["---"] * (len(COLUMNS) + 2))]
    for method, rows in record["rows"].items():
        means = [statistics.fmean(row[c] for row in rows.values()) for c in COLUMNS]
        ratio = steps[method] / steps["vanilla"]
        lines.append(_row([method, *(f"{v:.3g}" for v in means), f"{ratio:.2f}x"]))
    return "\n".join(lines)


def _bars(record: Mapping[str, Any]) -> str:
    lines = [_row(["bar", "by seed", "reached", ""]), _row(["---"] * 4)]
    for bar in record["bars"]:
        what = f"{bar['method']} {bar['column']} {bar['relation']} {bar['limit']:g}"
        told = " ".join(f"{v:.3f}" for v in _by_seed(bar, record["rows"]))
        lines.append(_row([what, told, f"{bar['value']:.3f}", "met" if bar["met"] else "MISSED"]))
    return "\n".join(lines)


def _by_seed(bar: Mapping[str, Any], rows: Mapping[str, Any]) -> list[float]:
    column, method = bar["column"], bar["method"]
    if method != RATIO:
        return [row[column] for row in rows[method].values()]
    if column == "step":  # timed once, on alternating blocks
        return []
    return [rows["lr"][seed][column] / row[column] for seed, row in rows["vanilla"].items()]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
