"""Options that are not typed: from the environment, and from a file.

What is typed wins over the environment (``COLLAPSEKIT_CHECK_FAIL_ON``; an option that may be
repeated takes several words), which wins over the file: ``[tool.collapsekit.check]`` of
pyproject.toml, or ``[check]`` of collapsekit.toml. The nearest file upwards counts, as far as the
repository's root; collapsekit.toml before a pyproject.toml beside it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collapsekit.errors import FileError, InputError

ENVIRONMENT = "COLLAPSEKIT"
_OWN, _PROJECT = "collapsekit.toml", "pyproject.toml"
#: Only ever typed: a repository that one has cloned must not be able to ask for trust.
_TYPED_ONLY = frozenset({"trust_code", "help", "version"})


@dataclass(frozen=True)
class Option:
    """An option of a command: the parameter that it sets, and whether it may be repeated."""

    parameter: str
    repeated: bool = False


#: Of every command its options, as they are typed but for the dashes before them.
Commands = Mapping[str, Mapping[str, Option]]


def defaults(
    folder: Path, environment: Mapping[str, str], commands: Commands
) -> dict[str, dict[str, Any]]:
    """What was set without being typed, by command and parameter, as click's default map.

    Parameters
    ----------
    folder : Path
        Where to begin looking for a file.
    environment : mapping
    commands : mapping

    Raises
    ------
    FileError
        The file is no TOML.
    InputError
        It names a command or an option that there is not.
    """
    chosen = _from_file(folder, commands)
    for command, options in commands.items():
        for name, option in options.items():
            value = environment.get(f"{ENVIRONMENT}_{command}_{name}".replace("-", "_").upper())
            if value and option.parameter not in _TYPED_ONLY:
                words = value.split() if option.repeated else value
                chosen.setdefault(command, {})[option.parameter] = words
    return chosen


def _from_file(folder: Path, commands: Commands) -> dict[str, dict[str, Any]]:
    path, tables = _nearest(folder)
    if path is None:
        return {}
    chosen: dict[str, dict[str, Any]] = {}
    for command, table in tables.items():
        _known(path, "", "command", command, commands)
        if not isinstance(table, dict):
            raise InputError(
                f"{path.name}: options stand in a table for each command",
                got=f"{command} = {table!r}",
                expected=f"a table {_heading(path, command)}",
                remedy="move the option under the heading of its command",
            )
        options = {
            name: option
            for name, option in commands[command].items()
            if option.parameter not in _TYPED_ONLY
        }
        for word, value in table.items():
            name = word.replace("_", "-")
            _known(path, f"{_heading(path, command)} ", "option", name, options)
            _plain(path, command, name, value)
            chosen.setdefault(command, {})[options[name].parameter] = value
    return chosen


def _nearest(folder: Path) -> tuple[Path | None, dict[str, Any]]:
    for place in (folder, *folder.parents):
        own = place / _OWN
        if own.is_file():
            return own, _read(own)
        project = place / _PROJECT
        if project.is_file():
            tables = _read(project).get("tool", {}).get("collapsekit")
            if tables is not None:
                return project, tables
        if (place / ".git").exists():
            break
    return None, {}


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(
            f"{path} cannot be read",
            got=f"{type(error).__name__}: {error}",
            expected="TOML in UTF-8",
            remedy="repair it; it is read for the options of collapsekit",
        ) from error


def _known(path: Path, where: str, what: str, word: str, known: Collection[str]) -> None:
    if word not in known:
        raise InputError(
            f"{path.name}: {where}there is no {what} called {word!r}",
            got=word,
            expected=f"one of {', '.join(sorted(known))}",
            remedy=f"correct or remove it in {path}",
        )


def _plain(path: Path, command: str, option: str, value: Any) -> None:
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str | int | float) for item in items):
        raise InputError(
            f"{path.name}: {_heading(path, command)} {option} has no plain value",
            got=repr(value)[:80],
            expected="a text, a number, true or false, or a list of these",
            remedy=f"correct it in {path}",
        )


def _heading(path: Path, command: str) -> str:
    return f"[{command}]" if path.name == _OWN else f"[tool.collapsekit.{command}]"
