"""A batch, and how a stream of batches of any length is cut into batches of one length."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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
    """

    index: np.ndarray
    x: Inputs
    labels: np.ndarray | None


#: A stretch of data as its source gave it: what the model is fed, and labels.
Part = tuple[Inputs, np.ndarray | None]


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
    parts: Iterable[Part], size: int, start: int = 0, stop: int | None = None
) -> Iterator[Batch]:
    """Batches of `size` samples, whatever the length of the parts; the last may be shorter.

    Reads no further than the part that holds sample ``stop - 1``.
    """
    held: deque[Part] = deque()  # parts, the first without what was handed on already
    count, first, seen = 0, start, 0

    def take(n: int) -> Batch:
        nonlocal count, first
        xs, labels, missing = [], [], n
        while missing:
            x, y = held.popleft()
            rows = rows_of(x)
            if rows > missing:
                held.appendleft(
                    (take_rows(x, slice(missing, None)), None if y is None else y[missing:])
                )
                x, y = take_rows(x, slice(missing)), None if y is None else y[:missing]
                rows = missing
            xs.append(x)
            labels.append(y)
            missing -= rows
        count -= n
        first += n
        named = [y for y in labels if y is not None]
        return Batch(
            index=np.arange(first - n, first, dtype=np.int64),
            x=concatenate(xs),
            labels=np.concatenate(named) if len(named) == len(labels) else None,
        )

    if stop is None or start < stop:
        for x, y in parts:
            rows = rows_of(x)
            low = max(start - seen, 0)
            high = rows if stop is None else min(stop - seen, rows)
            seen += rows
            if low < high:
                keep = slice(low, high)
                held.append((take_rows(x, keep), None if y is None else y[keep]))
                count += high - low
            while count >= size:
                yield take(size)
            if stop is not None and seen >= stop:
                break
    if count:
        yield take(count)


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
