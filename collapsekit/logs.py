"""What an audit did, as records of the standard logger "collapsekit".

Nothing is printed unless a handler is set up, as for any library. Every record has `event`, one of
"begin" and "stage" (a stage begins, and is over), "skipped", "finding" and "end", and beside it
fields of its own; a handler with `JsonLines` writes each record as one line of JSON.

>>> import logging
>>> handler = logging.StreamHandler()
>>> handler.setFormatter(JsonLines())
>>> logging.getLogger("collapsekit").addHandler(handler)  # doctest: +SKIP
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from collapsekit.errors import FileError

LOGGER = logging.getLogger("collapsekit")
LOGGER.addHandler(logging.NullHandler())  # else warnings go to stderr where nobody listens
#: What every record has anyway: not fields of ours.
_PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def event(name: str, message: str, level: int = logging.INFO, **fields: Any) -> None:
    """Log one record.

    Parameters
    ----------
    name : str
        Its field `event`.
    message : str
        For people.
    level : int
        Of the standard module.
    fields
        JSON-ready values, under names that `logging.LogRecord` does not use.
    """
    LOGGER.log(level, message, extra={"event": name, **fields})


class JsonLines(logging.Formatter):
    """Each record as one line: time (ISO 8601, UTC), level, logger, message, and its fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": when,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in record.__dict__.items() if key not in _PLAIN}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(_finite(line), default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def json_lines(path: str | None) -> Iterator[None]:
    """Writes every record to a file, line by line, or to stderr where the path is ``-``.

    Raises
    ------
    FileError
        The file cannot be written.
    """
    if path is None:
        yield
        return
    try:
        handler: logging.Handler = (
            logging.StreamHandler(sys.stderr)
            if path == "-"
            else logging.FileHandler(Path(path), encoding="utf-8")
        )
    except OSError as error:
        raise FileError(
            f"the log {path} cannot be written",
            got=f"{type(error).__name__}: {error.strerror}",
            expected="a folder that exists and is writable, or - for stderr",
            remedy="choose another path",
        ) from error
    handler.setFormatter(JsonLines())
    before = LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.setLevel(before)
        LOGGER.removeHandler(handler)
        handler.close()
