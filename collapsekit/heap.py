"""What happens to freed memory: handed back to the system, or kept for the next batch."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import pyarrow as pa

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt, malloc.h
_KEPT = 256 << 20  # bytes at the heap's end that are kept
_LARGEST = 32 << 20  # bytes of a block that comes from the heap; glibc takes no more than this


def give_back() -> None:
    """Hand freed memory back to the system, after every piece of a table.

    What a piece leaves free lies in gaps between what stays. Neither glibc nor arrow's allocator
    gives gaps back by itself, the next piece does not quite fit them, and so a long pass would
    grow although nothing in it does. Where there is no glibc this does arrow's half alone.
    """
    pa.default_memory_pool().release_unused()
    if _trim is not None:
        _trim(0)


def keep() -> None:
    """Keep freed memory for the next batch, in a worker whose surroundings forbid it.

    dask starts its workers with MALLOC_TRIM_THRESHOLD_=65536. glibc then also stops to adapt the
    size above which it maps a block by itself, and every tensor above 128 kB is fetched from the
    system and handed back: ten times the page faults, and as long again as the audit. Does nothing
    where there is no glibc.
    """
    if _set is not None:
        _set(_TRIM_THRESHOLD, _KEPT)
        _set(_MMAP_THRESHOLD, _LARGEST)


def _found(name: str, *arguments: type[ctypes._SimpleCData[int]]) -> Callable[..., int] | None:
    """A function of the C library."""
    try:
        found = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return None
    found.argtypes = list(arguments)
    function: Callable[..., int] = found
    return function


_trim = _found("malloc_trim", ctypes.c_size_t)
_set = _found("mallopt", ctypes.c_int, ctypes.c_int)
