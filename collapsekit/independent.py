"""How many independent samples the rows behind an interval are worth.

Intervals take rows as independent. Copies are not: the engine finds them, and concludes every
probe of a stream of samples inside `rows_alike`; standard errors, jackknives, Wilson's limits and
order statistics then are those of as many independent rows. A probe need not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ALIKE: ContextVar[float] = ContextVar("rows_alike", default=1.0)


@contextmanager
def rows_alike(alike: float) -> Iterator[None]:
    """Within it `alike` rows count as one: Kish's design effect, at least 1."""
    token = _ALIKE.set(max(alike, 1.0))
    try:
        yield
    finally:
        _ALIKE.reset(token)


def alike() -> float:
    """Rows to an independent one, here and now: 1 without copies."""
    return _ALIKE.get()


def independent(rows: float) -> float:
    """How many independent samples so many rows are worth."""
    return rows / _ALIKE.get()
