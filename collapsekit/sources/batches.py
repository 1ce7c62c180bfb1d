"""A batch, and how a stream of batches of any length is cut into batches of one length."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np
import torch

from collapsekit.errors import InputError
from collapsekit.sources.trees import Inputs, concatenate, rows_of, take_rows


@dataclass(frozen=True, eq=False)
class Batch:
    """Some samples, one after the other.

    Attributes
    ----------
    index : ndarray, int64 [B]
        Each sample's number in the data, 0 .. N - 1, ascending.
    x : Inputs
        What the model is fed; every tensor in it has B rows.
    labels : ndarray [B] or None
        Integers, floats, bools or words.
    failed : mapping of int to str
        Samples of this stretch that could not be read, with the reason; they are not in `index`.
        Where all of them failed, `x` is an empty tuple.
    """

    index: np.ndarray
    x: Inputs
    labels: np.ndarray | None
    failed: Mapping[int, str] = field(default_factory=dict)

    @property
    def start(self) -> int:
        """Number of the stretch's first sample."""
        return int(min([*self.index[:1].tolist(), *self.failed]))

    @property
    def stop(self) -> int:
        """Number after that of its last sample."""
        return int(max([*self.index[-1:].tolist(), *self.failed])) + 1

    def whole(self) -> Self:
        """Itself.

        Raises
        ------
        InputError
            Some of its samples could not be read.
        """
        for number, why in self.failed.items():
            raise InputError(
                "a sample cannot be read",
                got=f"sample {number}: {why}",
                expected="data that can be read",
                remedy="read this sample by hand; take it out, or mend its file",
            )
        return self


#: A stretch of data as its source gave it: what the model is fed, and labels.
Part = tuple[Inputs, np.ndarray | None]


@dataclass(frozen=True)
class Gap:
    """A stretch that could not be read."""

    rows: int
    why: str


def unread(error: Exception) -> str:
    """The reason of an error while data were read, on one line, cut."""
    text = " ".join(str(error).split())[:300]
    return f"it could not be read: {type(error).__name__}: {text}"


def read_batch(
    index: np.ndarray, read: Callable[[np.ndarray], Part], *, alone: bool = False
) -> Batch:
    """A batch by its samples' numbers, without those that cannot be read.

    Parameters
    ----------
    index : ndarray [B]
        Ascending, without gaps.
    read : callable
        Reads samples by number.
    alone : bool
        Whether samples fail one by one (the items of a Dataset). Else they fail by the stretch, as
        in a file that is cut short: a stretch whose ends both fail is given up whole.
    """
    try:
        return Batch(index, *read(index))
    except MemoryError:
        raise
    except Exception as error:
        whole = error
    found: list[tuple[np.ndarray, Part]] = []
    failed: dict[int, str] = {}

    def attempt(rows: np.ndarray) -> Part | str:
        try:
            return read(rows)
        except MemoryError:
            raise
        except Exception as error:
            return unread(error)

    def go(rows: np.ndarray) -> None:
        part = attempt(rows)
        if not isinstance(part, str):
            found.append((rows, part))
        elif len(rows) == 1 or not (alone or any(reads(rows[[end]]) for end in (0, -1))):
            failed.update(dict.fromkeys(rows.tolist(), part))
        else:
            for some in np.array_split(rows, len(rows) if alone else 2):
                go(some)

    def reads(rows: np.ndarray) -> bool:
        return not isinstance(attempt(rows), str)

    go(index)
    if not failed:
        raise whole  # each can be read, together they cannot: they do not look alike
    if not found and 0 in failed and isinstance(whole, InputError):
        raise whole  # nothing is lost yet, and what is wrong with such data is known by name
    return _assembled(found, failed)


def _assembled(found: Sequence[tuple[np.ndarray, Part]], failed: Mapping[int, str]) -> Batch:
    labels = [y for _, (_, y) in found if y is not None]
    return Batch(
        index=np.concatenate([np.zeros(0, dtype=np.int64), *(rows for rows, _ in found)]),
        x=concatenate([x for _, (x, _) in found]) if found else (),
        labels=np.concatenate(labels) if labels and len(labels) == len(found) else None,
        failed=failed,
    )


def stretch(size: int, start: int, stop: int | None, rows: int | None) -> tuple[int, int | None]:
    """(start, stop) of a pass, cut to the data's length where that is known.

    Raises
    ------
    InputError
        A batch size below 1; a negative or reversed stretch.
    """
    if size < 1:
        raise InputError(
            "a batch holds at least one sample",
            got=f"batch size {size}",
            expected="1 or more",
            remedy="pass batch=1, or leave it out",
        )
    if start < 0 or (stop is not None and stop < start):
        raise InputError(
            "a stretch of samples ends before it begins",
            got=f"start {start}, stop {stop}",
            expected="0 <= start <= stop",
            remedy="count samples from 0; there is no counting from the end",
        )
    if rows is not None:
        stop = rows if stop is None else min(stop, rows)
        start = min(start, stop)
    return start, stop


def checked_index(index: np.ndarray, rows: int) -> np.ndarray:
    """Sample numbers as int64 [n].

    Raises
    ------
    InputError
        Not integers in one dimension, or outside 0 .. rows - 1.
    """
    numbers = np.asarray(index)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise InputError(
            "sample numbers are not a list of integers",
            got=f"dtype {numbers.dtype}, shape {list(numbers.shape)}",
            expected="integers, shape [n]",
            remedy="of a mask, pass numpy.flatnonzero(mask)",
        )
    if numbers.size and not (numbers.min() >= 0 and numbers.max() < rows):
        wrong = numbers[(numbers < 0) | (numbers >= rows)][0]
        raise InputError(
            "there is no such sample",
            got=f"sample number {wrong}",
            expected=f"0 to {rows - 1}",
            remedy="count samples from 0, in the order of the data",
        )
    return numbers.astype(np.int64)


def cut(
    parts: Iterable[Part | Gap], size: int, start: int = 0, stop: int | None = None
) -> Iterator[Batch]:
    """Batches of `size` samples, whatever the length of the parts; the last may be shorter.

    Reads no further than the part that holds sample ``stop - 1``.
    """
    held: deque[Part | Gap] = deque()  # parts, the first without what was handed on already
    count, first, seen = 0, start, 0

    def take(n: int) -> Batch:
        nonlocal count, first
        found: list[tuple[np.ndarray, Part]] = []
        failed: dict[int, str] = {}
        missing = n
        while missing:
            part = held.popleft()
            if (rows := _rows(part)) > missing:
                held.appendleft(_some(part, slice(missing, rows)))
                part, rows = _some(part, slice(0, missing)), missing
            numbers = np.arange(first, first + rows, dtype=np.int64)
            if isinstance(part, Gap):
                failed |= dict.fromkeys(numbers.tolist(), part.why)
            else:
                found.append((numbers, part))
            first += rows
            missing -= rows
        count -= n
        return _assembled(found, failed)

    if stop is None or start < stop:
        for part in parts:
            rows = _rows(part)
            low = max(start - seen, 0)
            high = rows if stop is None else min(stop - seen, rows)
            seen += rows
            if low < high:
                held.append(_some(part, slice(low, high)))
                count += high - low
            while count >= size:
                yield take(size)
            if stop is not None and seen >= stop:
                break
    if count:
        yield take(count)


def _rows(part: Part | Gap) -> int:
    return part.rows if isinstance(part, Gap) else rows_of(part[0])


def _some(part: Part | Gap, rows: slice) -> Part | Gap:
    if isinstance(part, Gap):
        return Gap(rows.stop - rows.start, part.why)
    x, labels = part
    return take_rows(x, rows), None if labels is None else labels[rows]


class OwnRandomness:
    """Lets a source draw from torch's global generator without anyone else noticing.

    A DataLoader draws from it even where it does not shuffle. Inside ``with``, a private state that
    began at a fixed seed takes its place, so a shuffling loader gives the same order in every pass.
    """

    def __init__(self) -> None:
        self._own = torch.Generator().manual_seed(0).get_state()

    def __enter__(self) -> Self:
        self._outside = torch.get_rng_state()
        torch.set_rng_state(self._own)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._own = torch.get_rng_state()
        torch.set_rng_state(self._outside)
