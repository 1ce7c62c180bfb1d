"""What a model is fed: a tensor, or a mapping or tuple of tensors that share their leading axis."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collapsekit.errors import InputError
from collapsekit.sources.disk import DiskArray

#: What the model is fed for a batch. Every tensor in it has the batch's rows; None stays None.
Inputs = Tensor | Mapping[str, Any] | tuple[Any, ...]


def map_leaves(fn: Callable[[str, Any], Any], x: Any, name: str = "") -> Any:
    """The same mapping or tuple with ``fn(name, leaf)`` in each place; "a.0" names a nested one."""
    if isinstance(x, Mapping):
        return {key: map_leaves(fn, value, _inside(name, key)) for key, value in x.items()}
    if isinstance(x, tuple):
        parts = [map_leaves(fn, value, _inside(name, i)) for i, value in enumerate(x)]
        # A named tuple is addressed by its names; only its own class has them.
        return type(x)(*parts) if hasattr(x, "_fields") else tuple(parts)
    return None if x is None else fn(name, x)


def leaves(x: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(name, leaf) of everything in a mapping or tuple that is not None."""
    if isinstance(x, Mapping):
        for key, value in x.items():
            yield from leaves(value, _inside(name, key))
    elif isinstance(x, tuple):
        for i, value in enumerate(x):
            yield from leaves(value, _inside(name, i))
    elif x is not None:
        yield name, x


def _inside(name: str, key: object) -> str:
    return f"{name}.{key}" if name else str(key)


def map_tensors(fn: Callable[[Tensor], Tensor], x: Inputs) -> Inputs:
    """``fn`` of every tensor, in the same mapping or tuple; what is no tensor stays as it is."""
    mapped: Inputs = map_leaves(lambda _, leaf: fn(leaf) if isinstance(leaf, Tensor) else leaf, x)
    return mapped


def rows_of(x: Any) -> int:
    """Rows of a batch: the leading axis that all its tensors (or arrays) share.

    Raises
    ------
    InputError
        Nothing in it has rows, or two tensors have different numbers of them.
    """
    counts: dict[str, int] = {}
    for name, leaf in leaves(x):
        if not isinstance(leaf, Tensor | np.ndarray | DiskArray) or leaf.ndim == 0:
            raise InputError(
                f"{_called(name)} has no rows",
                got=f"{type(leaf).__name__}, 0-d" if hasattr(leaf, "ndim") else repr(leaf)[:60],
                expected="tensors whose leading axis is the sample",
                remedy="repeat a constant for each sample, or give it to the model beforehand",
            )
        counts[name] = len(leaf)
    if len(set(counts.values())) != 1:
        raise InputError(
            "the parts of the data do not have the same number of samples"
            if counts
            else "there is no tensor in the data",
            got=", ".join(f"{name or 'data'} {n}" for name, n in counts.items()) or repr(x)[:60],
            expected="one row per sample in every part",
            remedy="align the parts sample by sample",
        )
    return next(iter(counts.values()))


def _called(name: str) -> str:
    return f"the part {name!r} of the data" if name else "the data"


def take_rows(x: Inputs, rows: slice | np.ndarray | Tensor | Sequence[int]) -> Inputs:
    """Some rows of every tensor.

    Parameters
    ----------
    x : Inputs
    rows : slice (views come back), or row numbers or a mask [B] (copies come back)
    """
    if isinstance(rows, slice):
        return map_tensors(lambda tensor: tensor[rows], x)
    wanted = rows if isinstance(rows, Tensor) else torch.as_tensor(np.array(rows))
    if wanted.numel() == 0 and wanted.dtype != torch.bool:
        wanted = wanted.long()  # an empty list of rows has no integer type of its own
    return map_tensors(lambda tensor: tensor[wanted.to(tensor.device)], x)


def concatenate(parts: Sequence[Inputs]) -> Inputs:
    """Batches one after the other, in one.

    Raises
    ------
    InputError
        No batches; batches of different structure; tensors whose other axes or dtypes differ.
    """
    if not parts:
        raise InputError(
            "no batches to put together",
            expected="at least one",
            got="an empty list",
            remedy="hand in the batches that were read",
        )
    if len(parts) == 1:
        return parts[0]
    columns = [dict(leaves(part)) for part in parts]
    first = columns[0]
    for other in columns[1:]:
        if _kinds(other) != _kinds(first):
            raise InputError(
                "two batches do not fit together",
                got=f"{_told(first)}, then {_told(other)}",
                expected="the same parts, shapes and dtypes in every batch",
                remedy="pad or crop every sample to one shape where the data are made",
            )
    joined: Inputs = map_leaves(lambda name, _: torch.cat([c[name] for c in columns]), parts[0])
    return joined


def _kinds(column: Mapping[str, Tensor]) -> dict[str, tuple[Any, ...]]:
    return {name: (tuple(t.shape[1:]), t.dtype) for name, t in column.items()}


def _told(column: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {shown(t)}".strip() for name, t in column.items())


def shown(array: Tensor | np.ndarray | DiskArray, rows: int | None = None) -> str:
    """``float32 [1797, 1, 8, 8]``, for reports and errors; `rows` replaces the leading axis."""
    shape = list(array.shape) if rows is None else [rows, *array.shape[1:]]
    return f"{str(array.dtype).removeprefix('torch.')} {shape}"
