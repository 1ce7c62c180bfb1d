"""Arrays that stay on disk: shape and dtype are known, rows are read when they are asked for.

Nothing is mapped into memory: a mapped page counts as the process's own, and a mapped file that
shrinks while it is read kills the process. What travels to another process is a path.
"""

from __future__ import annotations

import math
import mmap
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from collapsekit.errors import InputError

#: Stretches of rows, ascending and apart: (first, last + 1).
Runs = Sequence[tuple[int, int]]


class DiskArray(ABC):
    """Rows on disk, indexed as an array is: by a slice of step 1, or by row numbers.

    Attributes
    ----------
    dtype : numpy dtype
    shape : tuple of int
        The first axis is the sample.
    random_access : bool
        Whether rows far apart cost about what neighbours cost.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    random_access = True

    @property
    def ndim(self) -> int:
        """Axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self))
            return self.read([(start, stop)]) if stop > start else self._none()
        wanted, place = np.unique(rows, return_inverse=True)
        if not len(wanted):
            return self._none()
        ends = np.flatnonzero(np.diff(wanted) > 1)
        first, last = np.append(wanted[0], wanted[ends + 1]), np.append(wanted[ends], wanted[-1])
        runs = list(zip(first.tolist(), (last + 1).tolist(), strict=True))
        return self.read(runs)[place]

    @abstractmethod
    def read(self, runs: Runs) -> np.ndarray:
        """These rows, one stretch after the other, in fresh memory.

        Raises
        ------
        InputError
            The file is no longer what it was when it was opened.
        """

    def _none(self) -> np.ndarray:
        return np.empty((0, *self.shape[1:]), self.dtype)


@dataclass(frozen=True)
class RawArray(DiskArray):
    """An uncompressed array inside a file, read by position.

    Parameters
    ----------
    path : Path
    dtype, shape
    offset : int
        Bytes before the first value.
    fortran : bool
        Whether the first axis varies fastest, so that a row lies scattered.
    """

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    fortran: bool = False

    def read(self, runs: Runs) -> np.ndarray:
        """These rows."""
        rows = sum(stop - start for start, stop in runs)
        out = np.empty((rows, *self.shape[1:]), self.dtype)
        width = math.prod(self.shape[1:])
        with self.path.open("rb", buffering=0) as file:
            done = 0
            for start, stop in runs:
                block = out[done : done + stop - start]
                if self.fortran and width > 1:
                    columns = np.empty((width, stop - start), self.dtype)
                    for j, column in enumerate(columns):
                        self._fill(file, j * len(self) + start, column)
                    # Columns come in the order of the reversed axes.
                    block[...] = columns.reshape(*self.shape[:0:-1], stop - start).T
                else:
                    self._fill(file, start * width, block)
                done += stop - start
        return out

    def _fill(self, file: Any, first: int, target: np.ndarray) -> None:
        file.seek(self.offset + first * self.dtype.itemsize)
        view = target.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(view):
            count = file.readinto(view[done:])
            if not count:
                raise shrunk(self.path, f"{len(view) - done} bytes are missing")
            done += count


@dataclass(frozen=True, eq=False)
class HeldArray(DiskArray):
    """An array that its file yields only whole; the few read last are kept.

    Parameters
    ----------
    load : callable () -> ndarray
        Hashable and picklable: a `functools.partial` of a function would not be the same twice, so
        it is a frozen dataclass with ``__call__``.
    dtype, shape
        As the file's header tells.
    """

    load: Callable[[], np.ndarray]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def read(self, runs: Runs) -> np.ndarray:
        """These rows."""
        whole = _held(self.load)
        if whole.shape != self.shape:
            raise shrunk(getattr(self.load, "path", Path("file")), f"shape {list(whole.shape)}")
        return np.concatenate([whole[start:stop] for start, stop in runs])


@lru_cache(maxsize=2)  # as many as one batch meets: the end of a shard and the next one's beginning
def _held(load: Callable[[], np.ndarray]) -> np.ndarray:
    return load()


class JoinedArray(DiskArray):
    """Arrays one after the other, as one: what shards are.

    Parameters
    ----------
    parts : sequence of DiskArray or ndarray
        Of one dtype and, but for the first axis, one shape.
    """

    def __init__(self, parts: Sequence[DiskArray | np.ndarray]) -> None:
        self._parts = tuple(parts)
        self._ends = np.cumsum([len(part) for part in parts])
        first = parts[0]
        self.dtype, self.shape = first.dtype, (int(self._ends[-1]), *first.shape[1:])
        self.random_access = all(getattr(part, "random_access", True) for part in parts)

    def read(self, runs: Runs) -> np.ndarray:
        """These rows."""
        found = []
        for start, stop in runs:
            at = int(np.searchsorted(self._ends, start, side="right"))
            while start < stop:
                low = int(self._ends[at]) - len(self._parts[at])
                end = min(stop, int(self._ends[at]))
                found.append(self._parts[at][start - low : end - low])
                start, at = end, at + 1
        return np.concatenate(found)


def unmapped(array: np.ndarray) -> RawArray | None:
    """The file behind a memory map, where the array is a plain stretch of it; else None.

    A memory map travels to another process as the whole array, and every page that was looked at
    counts as memory until the system wants it back.
    """
    if not isinstance(array, np.memmap) or not array.flags.c_contiguous or array.mode == "c":
        return None
    mapped, name = getattr(array, "_mmap", None), array.filename
    if mapped is None or name is None or not array.ndim or not array.size:
        return None
    # A view keeps its parent's offset, so the place is read off the addresses.
    begin = np.frombuffer(mapped, np.uint8).ctypes.data
    skipped = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
    offset = skipped + array.ctypes.data - begin
    if array.mode != "r":
        mapped.flush()
    path = Path(name).absolute()
    if not path.is_file() or path.stat().st_size < offset + array.nbytes:
        return None
    return RawArray(path, array.dtype, array.shape, offset)


def shrunk(path: Path, got: str) -> InputError:
    """The error for a file that changed while it was read."""
    return InputError(
        f"{path.name} changed while it was being read",
        got=got,
        expected="the file as it was when it was opened",
        remedy="let nothing write to the file during an audit; check the disk",
    )
