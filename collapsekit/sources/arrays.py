"""Samples that lie in arrays: one, or several aligned ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from collapsekit.errors import InputError
from collapsekit.sources.batches import Batch, Part, checked_index, read_batch, stretch
from collapsekit.sources.labels import as_labels, whole
from collapsekit.sources.stores import notes_for, to_inputs
from collapsekit.sources.trees import Inputs, leaves, rows_of, shown


def refuse_empty(rows: int, what: str) -> None:
    """Raise InputError where there are no samples."""
    if rows == 0:
        raise InputError(
            f"{what} holds no samples",
            got="N = 0",
            expected="at least one sample",
            remedy="check the filter or the path that made it",
        )


class ArraySamples:
    """Aligned arrays, in memory or on disk; batches are copied out, nothing is written to.

    Parameters
    ----------
    data : array-like, or a mapping or tuple of them
        The first axis of each is the sample. (x, y) with one number or word per sample in y is x
        and its labels.
    labels : array-like [N], optional
        Wins over labels found in `data`.
    name : str
        How the description begins: "array", "tensor", a file's name.
    notes : sequence of str
        Conversions made before.

    Raises
    ------
    InputError
        Data that are no dense real numbers, no samples, samples without values, labels of another
        length.
    """

    def __init__(
        self, data: Any, labels: Any = None, *, name: str = "", notes: Sequence[str] = ()
    ) -> None:
        self._stores, found, told = whole(data)
        self.size = rows_of(self._stores)
        refuse_empty(self.size, "the data")
        for part, store in leaves(self._stores):
            if 0 in store.shape:
                raise InputError(
                    f"the samples of {part or 'the data'} hold no values",
                    got=shown(store),
                    expected="no axis of length 0",
                    remedy="check the slicing that made it",
                )
        self._labels = found if labels is None else as_labels(labels, self.size)
        described = [f"{part} {shown(store)}".strip() for part, store in leaves(self._stores)]
        first = next(leaves(self._stores))[1]
        kind = name or ("tensor" if isinstance(first, Tensor) else "array")
        self.description = f"{kind} {', '.join(described)}"
        self.notes = (*notes, *told, *notes_for(self._stores))
        self.random_access = all(
            getattr(store, "random_access", True) for _, store in leaves(self._stores)
        )

    def batches(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Batches of samples start .. stop - 1, in order."""
        start, end = stretch(size, start, stop, self.size)
        return self._batches(size, start, self.size if end is None else end)

    def _batches(self, size: int, start: int, stop: int) -> Iterator[Batch]:
        for low in range(start, stop, size):
            index = np.arange(low, min(low + size, stop), dtype=np.int64)
            yield read_batch(index, self._read)

    def _read(self, index: np.ndarray) -> Part:
        rows = slice(int(index[0]), int(index[-1]) + 1)
        labels = None if self._labels is None else np.array(self._labels[rows])
        return to_inputs(self._stores, rows), labels

    def take(self, index: np.ndarray) -> Inputs:
        """Inputs of the samples with these numbers, in this order."""
        return to_inputs(self._stores, checked_index(index, self.size))
