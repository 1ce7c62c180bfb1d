"""Samples that a Dataset makes while it is read, and how they become batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collapsekit.errors import InputError
from collapsekit.sources.arrays import refuse_empty
from collapsekit.sources.batches import (
    Batch,
    OwnRandomness,
    Part,
    checked_index,
    read_batch,
    stretch,
)
from collapsekit.sources.labels import as_labels, whole
from collapsekit.sources.stores import is_array, notes_for, to_inputs
from collapsekit.sources.trees import Inputs, leaves, shown, take_rows


class Told:
    """Description, notes and shape, learnt from the first batch that is read."""

    def __init__(self, kind: str, rows: int | None) -> None:
        self._kind = kind
        self._shape = ""
        self._notes: dict[str, None] = {}  # a set that remembers the order
        self.size = rows

    @property
    def description(self) -> str:
        return f"{self._kind} {self._shape}".strip()

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self._notes)

    def read(self, tree: Any) -> Part:
        """A batch as its source gave it, checked and converted."""
        stores, labels, told = whole(_as_tuple(tree), "a batch of the data")
        if not self._shape:
            rows = "N" if self.size is None else str(self.size)
            self._shape = ", ".join(
                f"{part} {shown(store, 0)}".strip().replace("[0", f"[{rows}", 1)
                for part, store in leaves(stores)
            )
        self._notes |= dict.fromkeys([*told, *notes_for(stores)])
        return to_inputs(stores), None if labels is None else labels[:]


class DatasetSamples(Told):
    """A map-style Dataset: anything with a length and ``[i]`` that gives samples.

    Parameters
    ----------
    dataset : object with ``__len__`` and ``__getitem__``
    labels : array-like [N], optional
        Wins over labels found in the samples.

    Raises
    ------
    InputError
        No samples, a first sample that cannot be read as numbers, labels of another length.

    Notes
    -----
    Sample 0 is read twice when the object is made: where the two differ (augmentation), a note
    says that what is measured depends on chance.
    """

    random_access = True

    def __init__(self, dataset: Any, labels: Any = None) -> None:
        rows = len(dataset)
        refuse_empty(rows, "the Dataset")
        super().__init__(type(dataset).__name__, rows)
        self._dataset, self._rows = dataset, rows
        self._labels = None if labels is None else as_labels(labels, rows)
        with OwnRandomness():
            self._first = _readable(self._fetch, rows)
            first, again = (self._fetch(self._first)[0] for _ in range(2))
        if not _same(first, again):
            self._notes["sample 0 differed between two readings: switch augmentation off"] = None

    def batches(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Batches of samples start .. stop - 1, in order."""
        start, end = stretch(size, start, stop, self._rows)
        return self._batches(size, start, self._rows if end is None else end)

    def _batches(self, size: int, start: int, stop: int) -> Iterator[Batch]:
        own = OwnRandomness()
        for low in range(start, stop, size):
            index = np.arange(low, min(low + size, stop), dtype=np.int64)
            with own:
                part = read_batch(index, self._labelled, alone=True)
            yield part

    def _labelled(self, index: np.ndarray) -> Part:
        x, labels = self._fetch(index)
        return x, labels if self._labels is None else self._labels[index]

    def take(self, index: np.ndarray) -> Inputs:
        """Inputs of the samples with these numbers, in this order."""
        with OwnRandomness():
            return self._fetch(checked_index(index, self._rows))[0]

    def _fetch(self, index: np.ndarray) -> Part:
        if len(index) == 0:  # the structure of a batch shows in a sample only
            x, labels = self._fetch(self._first)
            return no_rows(x), None if labels is None else labels[:0]
        return self.read(stack(items_of(self._dataset, index), index))


_LOOK = 64  # samples among which one is sought that can be read


def _readable(fetch: Callable[[np.ndarray], Part], rows: int) -> np.ndarray:
    """The first sample that can be read, by number [1]; the first sample's error without one."""
    error: Exception | None = None
    for number in range(min(rows, _LOOK)):
        try:
            fetch(np.array([number]))
        except InputError:
            raise  # it was read, and is of no kind that an audit takes
        except Exception as failed:
            error = error or failed
            continue
        return np.array([number])
    assert error is not None
    raise InputError(
        "the samples of a Dataset cannot be read",
        got=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
        expected=f"one sample that can be read among the first {min(rows, _LOOK)}",
        remedy="try data[0] by hand",
    ) from error


def items_of(dataset: Any, index: np.ndarray) -> Sequence[Any]:
    """Samples of a Dataset, by its own way of fetching many at once where it has one."""
    numbers = index.tolist()
    if callable(many := getattr(dataset, "__getitems__", None)):
        items: Sequence[Any] = many(numbers)
        return items
    return [dataset[i] for i in numbers]


def stack(items: Sequence[Any], numbers: np.ndarray) -> Any:
    """Samples of one structure, stacked into arrays [B, ...] in that structure.

    Parameters
    ----------
    items : sequence of samples: arrays, numbers, words, or tuples or mappings of them
    numbers : ndarray [B]
        Their numbers in the data, for an error to name.

    Raises
    ------
    InputError
        A sample whose structure or shape is not that of the first.
    """
    first = items[0]
    kind = _structure(first)
    for i, item in enumerate(items):
        if (other := _structure(item)) != kind:
            raise InputError(
                "the samples of a Dataset do not look alike",
                got=f"sample {numbers[0]}: {kind}; sample {numbers[i]}: {other}",
                expected="one shape and one structure for all samples",
                remedy="pad or crop them, as the model was trained on them",
            )
    if isinstance(first, Mapping):
        return {key: stack([item[key] for item in items], numbers) for key in first}
    if isinstance(first, tuple) or _holds_arrays(first):
        return tuple(stack([item[j] for item in items], numbers) for j in range(len(first)))
    if first is None:
        return None
    if isinstance(first, Tensor):
        return torch.stack([item.detach() for item in items])
    return np.stack([np.asarray(item) for item in items])


def _structure(item: Any) -> str:
    if isinstance(item, Mapping):
        return f"mapping of {', '.join(map(str, item))}"
    if isinstance(item, tuple) or _holds_arrays(item):
        return f"tuple of {len(item)}"
    if item is None or isinstance(item, str):
        return "None" if item is None else "text"
    try:
        return f"shape {list(np.shape(item))}"
    except ValueError:
        return "a ragged list"


def _holds_arrays(item: Any) -> bool:
    return isinstance(item, list) and any(
        is_array(part) or isinstance(part, Mapping | str) for part in item
    )


def _as_tuple(tree: Any) -> Any:
    """A batch with its lists of arrays as tuples: what torch's own collating makes of tuples."""
    if isinstance(tree, Mapping):
        return {key: _as_tuple(value) for key, value in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_as_tuple(part) for part in tree)
    if _holds_arrays(tree) and not all(isinstance(part, str) for part in tree):
        return tuple(_as_tuple(part) for part in tree)
    return tree


def no_rows(x: Inputs) -> Inputs:
    """A batch of that structure without samples."""
    return take_rows(x, slice(0))


def _same(one: Inputs, other: Inputs) -> bool:
    pairs = zip(leaves(one), leaves(other), strict=True)
    return all(
        a.shape == b.shape and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
        for (_, a), (_, b) in pairs
    )
