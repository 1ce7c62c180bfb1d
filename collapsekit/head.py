"""An audit's head: everything that is no table, as JSON and back, every kind of value checked.

A file may come from a stranger. What reads an `Audit` trusts its types, so that a list in the
verdict's place, or a number in a message's, ends here with its name and not in a report.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, get_args

from collapsekit.archive import plain
from collapsekit.findings import VERDICTS, Evidence, Finding, Severity, Verdict
from collapsekit.number import Better, Number
from collapsekit.tables import as_number

_LONGEST = 300  # digits of a whole number: more are no double-precision number


def finding_data(finding: Finding) -> dict[str, Any]:
    """A finding as JSON-ready data."""
    data = asdict(finding)
    data["severity"] = finding.severity.word
    for evidence in data["evidence"]:
        evidence["number"] = {k: plain(v) for k, v in evidence["number"].items()}
    return data


def parse(text: bytes) -> dict[str, Any]:
    """The head of a file; strict JSON, as `archive.dump_json` writes it.

    Raises
    ------
    ValueError
        It is no JSON, or holds a number that is none in double precision.
    TypeError
        It is no object, or a part of it is not of its kind.
    """

    def real(token: str) -> float:
        if not math.isfinite(value := float(token)):
            raise ValueError(f"the number {token[:40]}")
        return value

    def whole(token: str) -> int:
        if len(token) > _LONGEST:
            raise ValueError(f"a whole number of {len(token)} digits")
        return int(token)

    head = json.loads(text, parse_float=real, parse_int=whole, parse_constant=real)
    return _mapping(head, "the head")


def parts(head: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an `Audit` that its head holds.

    Raises
    ------
    KeyError
        A part is missing.
    TypeError, ValueError
        A part is not of its kind.
    """
    settings = _mapping(head["settings"], "settings")
    return {
        "verdict": _verdict(_mapping(head["verdict"], "verdict")),
        "findings": tuple(map(_finding, _list(head["findings"], "findings"))),
        "skipped": {k: _text(why, k) for k, why in _mapping(head["skipped"], "skipped").items()},
        "settings": {name: _mapping(fields, name) for name, fields in settings.items()},
        "provenance": _mapping(head["provenance"], "provenance"),
        "run": _mapping(head["run"], "run"),
        "titles": {k: _text(v, k) for k, v in _mapping(head["titles"], "titles").items()},
        # Files of 0.1 do not say: there a headline differs, and is neither better nor worse.
        "better": {k: _way(v) for k, v in _mapping(head.get("better", {}), "better").items()},
    }


def numbers(head: Mapping[str, Any]) -> list[Number]:
    """The headlines; raises as `parts`."""
    return [_number(row) for row in _list(head["summary"], "summary")]


def group_names(head: Mapping[str, Any]) -> list[str]:
    """Names of the groups of a hierarchical model; raises as `parts`."""
    return [_text(name, "a group's name") for name in _list(head.get("groups", []), "groups")]


def _way(word: Any) -> Better:
    ways: tuple[Better, ...] = get_args(Better)
    if word not in ways:
        raise ValueError(f"which way is better is not one of {ways}")
    return ways[ways.index(word)]


def _verdict(data: Mapping[str, Any]) -> Verdict:
    codes = tuple(_text(code, "a code") for code in _list(data["codes"], "codes"))
    word = _word(data["name"])
    return Verdict(word, _text(data["sentence"], "sentence"), _severity(data["severity"]), codes)


def _finding(data: Any) -> Finding:
    texts = ("code", "title", "message", "advice")
    read: dict[str, Callable[[Any], Any]] = {
        **{key: partial(_text, what=key) for key in texts},
        "severity": _severity,
        "evidence": lambda rows: tuple(map(_evidence, _list(rows, "evidence"))),
        "verdict": lambda word: None if word is None else _word(word),
        "samples": _indices,
        "dimensions": _indices,
    }
    return Finding(**{key: read[key](value) for key, value in _mapping(data, "finding").items()})


def _evidence(data: Any) -> Evidence:
    row = _mapping(data, "evidence")
    threshold = None if row["threshold"] is None else _real(row["threshold"], "threshold")
    return Evidence(_number(row["number"]), threshold, _text(row["relation"], "relation"))


def _number(data: Any) -> Number:
    row = _mapping(data, "a headline")
    for key in ("name", "unit", "note"):
        _text(row[key], key)
    for key in ("value", "low", "high"):
        if row[key] is not None:
            _real(row[key], key)
    if _whole(row["n"]) < 0:
        raise ValueError(f"n is {row['n']}")
    return as_number(row)


def _word(value: Any) -> str:
    if value not in VERDICTS:
        raise ValueError(f"{str(value)[:40]!r} is no verdict")
    return str(value)


def _severity(value: Any) -> Severity:
    return Severity.of(_text(value, "severity"))


def _indices(value: Any) -> tuple[int, ...]:
    return tuple(_whole(index) for index in _list(value, "indices"))


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _unlike(value, "a whole number")
    return value


def _real(value: Any, what: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _unlike(value, what)
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise _unlike(value, what)
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise _unlike(value, what)
    return value


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _unlike(value, what)
    return value


def _unlike(value: Any, what: str) -> TypeError:
    return TypeError(f"{what[:40]} is a {type(value).__name__}")
