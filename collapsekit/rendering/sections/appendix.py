"""Everything: the headlines, the dimensions, the environment, and the data to take away."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from markupsafe import Markup

from collapsekit.rendering import data, wording
from collapsekit.rendering.blocks import (
    Block,
    Code,
    Column,
    Download,
    Fold,
    Section,
    Table,
)
from collapsekit.rendering.facts import Facts
from collapsekit.rendering.wording import figure

TABLE_ROWS = 256
EMBEDDED_ROWS = 128
EMBEDDED_SAMPLES = 32  # of one finding
_SHOWN = (
    ("kl", "KL"),
    ("mean_variance", "Variance of mean"),
    ("signal_fraction", "Signal"),
    ("information", "Information"),
    ("aggregate_kl", "Mismatch"),
    ("decoder_usage", "Reads"),
    ("decoder_nats", "in nats"),
    ("shuffle_cost", "Shuffle cost"),
    ("round_trip_r2", "Round trip"),
    ("robust_round_trip_r2", "robust"),
)


def build(facts: Facts) -> Section:
    """The section; it exists for every audit."""
    blocks: list[Block] = []
    if len(facts.audit.summary):
        blocks.append(Fold("All headline numbers", (_summary(facts),)))
    if len(facts.audit.dimensions):
        blocks.append(Fold("All dimensions", (_dimensions(facts),)))
    environment = _environment(facts)
    if environment is not None:
        blocks.append(Fold("Environment and run", (environment,)))
    stages = _stages(facts)
    if stages is not None:
        measures = _measures(facts)
        both = (stages,) if measures is None else (stages, measures)
        blocks.append(Fold("Time by stage", both))
    command = facts.audit.provenance.get("command")
    if isinstance(command, str) and command.strip():
        blocks.append(Fold("Run again", (Code(wording.clean(command, 600)),)))
    blocks += _downloads(facts)
    return Section(
        id="appendix",
        nav="Appendix",
        question="Where is everything?",
        headline="Appendix",
        blocks=tuple(blocks),
    )


def _summary(facts: Facts) -> Table:
    rows = []
    for name in facts.audit.summary.index[:64]:
        number = facts.number(str(name))
        if number is None:
            rows.append((wording.clean(name, 60), "not measured", "", "", ""))
            continue
        text, unit = wording.value(number)
        rows.append(
            (
                wording.clean(name, 60),
                f"{text}{wording.NBSP}{unit}".strip(),
                wording.interval(number),
                f"{number.n:,}",
                wording.clean(number.note, 200),
            )
        )
    return Table(
        "All headline numbers",
        (
            Column("Name", numeric=False),
            Column("Value"),
            Column("Interval"),
            Column("n"),
            Column("Note", numeric=False),
        ),
        rows,
        tight=True,
    )


def _dimensions(facts: Facts) -> Table:
    known = [(label, c) for name, label in _SHOWN if (c := facts.per_dimension(name)) is not None]
    words = [
        (label, w)
        for name, label in (("state", "State"), ("role", "Role"))
        if (w := facts.words(name))
    ]
    shown = facts.order[:TABLE_ROWS]
    rows = [
        (
            str(facts.index[k]),
            *(column[k] for _, column in words),
            *(figure(float(column[k])) for _, column in known),
        )
        for k in shown
    ]
    note = wording.showing(len(shown), len(facts.order), "dimension")
    if note:
        note += " By falling KL; all of them are in the audit file."
    return Table(
        "All dimensions, by falling KL",
        (
            Column("Dimension", numeric=False),
            *(Column(label, numeric=False) for label, _ in words),
            *(Column(label) for label, _ in known),
        ),
        rows,
        note=note,
        tight=True,
    )


def _environment(facts: Facts) -> Table | None:
    rows: list[tuple[str, str]] = []
    for block in (facts.audit.provenance, facts.audit.run):
        for key in sorted(block):
            if key in ("notes", "command"):
                continue
            content = block[key]
            if isinstance(content, float):
                content = figure(content)
            rows.append((wording.clean(key, 60), wording.field_value(content, 400)))
    if not rows:
        return None
    return Table(
        "Environment and run",
        (Column("Field", numeric=False), Column("Value", numeric=False)),
        rows[:64],
        tight=True,
    )


def _downloads(facts: Facts) -> list[Block]:
    """Files inside the page: a data link saves without any script."""
    rows = np.sort(facts.order[:EMBEDDED_ROWS])
    text = _compact(data.render(facts.audit, rows=rows))
    note = wording.showing(len(rows), len(facts.order), "dimension")
    blocks: list[Block] = [
        Download(
            "audit.json",
            _uri("application/json", text),
            f"Verdict, findings, headlines, settings, dimensions, to five digits. {note}".strip(),
        )
    ]
    if len(facts.audit.dimensions):
        table = facts.audit.dimensions.iloc[rows]
        blocks.append(
            Download("dimensions.csv", _uri("text/csv", _csv(table)), "A row per dimension.")
        )
    return blocks


def _stages(facts: Facts) -> Table | None:
    """Where the time went: seconds, share, and how many rows the model was shown."""
    timings = facts.audit.run.get("timings")
    if not isinstance(timings, dict):
        return None
    known = {
        wording.clean(name, 40): float(seconds)
        for name, seconds in timings.items()
        if isinstance(seconds, int | float) and seconds >= 0
    }
    total = sum(known.values())
    if total <= 0:
        return None  # a date that was fixed from outside hides the times
    rows = [
        (name, figure(seconds), wording.percent(seconds / total), _passes(facts, name))
        for name, seconds in sorted(known.items(), key=lambda entry: (-entry[1], entry[0]))
    ]
    columns = (
        Column("Stage", numeric=False),
        Column("Seconds"),
        Column("Share"),
        Column("Rows through the model", numeric=False),
    )
    return Table("Time by stage", columns, rows, tight=True)


_MEASURES = 12


def _measures(facts: Facts) -> Table | None:
    """The measures that took the most processor time."""
    probes = facts.audit.run.get("probes")
    if not isinstance(probes, dict):
        return None
    known = [
        (wording.clean(name, 40), float(told["observe"]), float(told["conclude"]))
        for name, told in probes.items()
        if isinstance(told, dict)
        and all(isinstance(told.get(part), int | float) for part in ("observe", "conclude"))
    ]
    most = sorted(known, key=lambda row: (-(row[1] + row[2]), row[0]))[:_MEASURES]
    if not most:
        return None
    columns = (
        Column("Measure", numeric=False),
        Column("CPU seconds over the rows"),
        Column("CPU seconds at the end"),
    )
    rows = [(name, figure(observe), figure(conclude)) for name, observe, conclude in most]
    title = f"Time by measure, the longest {len(most)} of {len(known)}"
    return Table(title, columns, rows, tight=True)


def _passes(facts: Facts, stage: str) -> str:
    passes = facts.audit.provenance.get("passes")
    if not isinstance(passes, dict):
        return ""
    told = [
        f"{wording.clean(name.partition(': ')[2], 40)} {wording.field_value(rows)}"
        for name, rows in sorted(passes.items(), key=lambda entry: str(entry[0]))
        if isinstance(name, str) and name.partition(": ")[0] == stage
    ]
    return ", ".join(told)


#: Characters, beside letters and digits, that mean nothing inside single quotes in a data address.
_PLAIN = ' "{}[]:,;=()/?@$!*+._-~|^`'


def _compact(text: str) -> str:
    """The same JSON without spaces and with five digits: what a page can carry."""
    content = json.loads(text, parse_float=_short)
    for finding in content["findings"]:
        # The message carries the full count, the audit file a thousand of them.
        finding["samples"] = finding["samples"][:EMBEDDED_SAMPLES]
    return json.dumps(
        _cut(content), sort_keys=True, allow_nan=False, ensure_ascii=False, separators=(",", ":")
    )


def _short(digits: str) -> float | int:
    value = float(f"{float(digits):.5g}")
    return int(value) if value.is_integer() and abs(value) < 1e15 else value


def _cut(content: Any) -> Any:
    """Strings of a readable length: a name may be a megabyte long, and stands in many places."""
    if isinstance(content, str):
        return wording.clean(content, 2_000)
    if isinstance(content, dict):
        return {wording.clean(key, 200): _cut(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_cut(item) for item in content]
    return content


def _csv(table: pd.DataFrame) -> str:
    frame = table.copy()
    for name in frame.columns:
        if frame[name].dtype == object or pd.api.types.is_string_dtype(frame[name]):
            frame[name] = [_inert(cell) for cell in frame[name]]
    frame.columns = [_inert(name) for name in frame.columns]
    text: str = frame.to_csv(index_label="dimension", float_format="%.5g", lineterminator="\n")
    return text


def _inert(cell: object) -> str:
    """Text that a spreadsheet will not run as a formula."""
    if cell is None or cell is pd.NA:
        return ""
    text = wording.clean(cell, 200)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _uri(kind: str, text: str) -> Markup:
    """A file as an address, for an attribute in single quotes: a quarter smaller than base64.

    What could end the attribute, begin markup or be read as an escape is percent-encoded; the
    double quotes of JSON are not, which is what saves the space.
    """
    return Markup(f"data:{kind};charset=utf-8,{quote(text, safe=_PLAIN)}")
