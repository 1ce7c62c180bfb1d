"""Samples that a Dataset, a DataLoader or another iterable makes while it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

from collapsekit.errors import InputError, Unavailable
from collapsekit.sources.arrays import refuse_empty
from collapsekit.sources.batches import Batch, OwnRandomness, Part, checked_index, cut, stretch
from collapsekit.sources.labels import as_labels, whole
from collapsekit.sources.stores import is_array, notes_for, to_inputs
from collapsekit.sources.trees import Inputs, leaves, rows_of, shown, take_rows

#: Samples of an IterableDataset that are read before they are stacked.
STACK = 256


class _Told:
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

    def _read(self, tree: Any) -> Part:
        """A batch as its source gave it, checked and converted."""
        stores, labels, told = whole(_as_tuple(tree), "a batch of the data")
        if not self._shape:
            rows = "N" if self.size is None else str(self.size)
            self._shape = ", ".join(
                f"{part} {shown(store, 0)}".strip().replace("[0", f"[{rows}", 1)
                for part, store in leaves(stores)
            )
        self._notes |= dict.fromkeys([*told, *notes_for(stores)])
        return to_inputs(stores), labels


class DatasetSamples(_Told):
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
            first, again = (self._fetch(np.zeros(1, dtype=np.int64))[0] for _ in range(2))
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
                x, labels = self._fetch(index)
            yield Batch(index, x, labels if self._labels is None else self._labels[index])

    def take(self, index: np.ndarray) -> Inputs:
        """Inputs of the samples with these numbers, in this order."""
        with OwnRandomness():
            return self._fetch(checked_index(index, self._rows))[0]

    def _fetch(self, index: np.ndarray) -> Part:
        if len(index) == 0:  # the structure of a batch shows in a sample only
            x, labels = self._fetch(np.zeros(1, dtype=np.int64))
            return _no_rows(x), None if labels is None else labels[:0]
        return self._read(stack(items_of(self._dataset, index), index))


class StreamSamples(_Told):
    """An iterable of batches (a DataLoader) that can be read again from its start, one way.

    Parameters
    ----------
    batches : callable () -> iterable
        A new pass: batches of any length, as tensors, tuples or mappings.
    labels : array-like [N], optional
        In the order of the pass; wins over labels found in the batches.
    kind : str
        How the description begins.
    rows : int, optional
        N, where it is known before a pass.

    Raises
    ------
    InputError
        While it is read: no samples, a second pass that is shorter, labels of another length.
    """

    random_access = False

    def __init__(
        self,
        batches: Callable[[], Iterable[Any]],
        labels: Any = None,
        *,
        kind: str,
        rows: int | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(kind, rows)
        self._open = batches
        self._labels = None if labels is None else as_labels(labels, rows)
        self._notes |= dict.fromkeys(notes)
        self._counted: int | None = None

    def batches(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Batches of samples start .. stop - 1 in the order in which the iterable gives them."""
        start, stop = stretch(size, start, stop, None)
        return cut(self._parts(), size, start, stop)

    def _parts(self) -> Iterator[Part]:
        own, iterator, seen = OwnRandomness(), None, 0
        while True:
            with own:
                iterator = iter(self._open()) if iterator is None else iterator
                raw = next(iterator, None)
            if raw is None:
                break
            x, labels = self._read(raw)
            rows = rows_of(x)
            if self._labels is not None:
                if seen + rows > len(self._labels):
                    as_labels(self._labels, seen + rows)  # raises, with both numbers
                labels = self._labels[seen : seen + rows]
            seen += rows
            if rows:
                yield x, labels
        self._end(seen)

    def _end(self, seen: int) -> None:
        if self._counted not in (None, seen):
            raise InputError(
                "the data changed between two passes",
                got=f"{seen} samples, after {self._counted} in the pass before",
                expected="the same samples each time they are read from the start",
                remedy="pass an array, a Dataset, or an object whose __iter__ starts anew",
            )
        refuse_empty(seen, f"the {self._kind}")
        if self._labels is not None:
            as_labels(self._labels, seen)
        self._counted = self.size = seen

    def take(self, index: np.ndarray) -> Inputs:
        """Raise Unavailable: what comes one way cannot be asked for sample by sample."""
        raise Unavailable(
            "these data can be read in their order only",
            got=self._kind,
            expected="data with random access: an array, a file, a Dataset",
            remedy="pass loader.dataset, or a DataLoader with shuffle=False over a Dataset",
        )


class LoaderSamples(StreamSamples):
    """A DataLoader that goes through a Dataset in order: it can be asked by number too."""

    random_access = True

    def __init__(self, loader: DataLoader[Any], labels: Any = None) -> None:
        self._loader = loader
        total, length = len(loader.dataset), loader.batch_size or 1  # type: ignore[arg-type]
        rows = total - total % length if loader.drop_last else total
        lost = f"drop_last=True left out the last {total - rows} of {total} samples"
        refuse_empty(rows, "the DataLoader")
        kind = f"DataLoader of {type(loader.dataset).__name__}"
        notes = [lost] if rows < total else []
        super().__init__(lambda: loader, labels, kind=kind, rows=rows, notes=notes)
        self._rows = rows

    def batches(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Batches of samples start .. stop - 1, in order; by the loader's workers from sample 0."""
        start, stop = stretch(size, start, stop, self._rows)
        if start == 0:
            return cut(self._parts(), size, 0, stop)
        return self._middle(size, start, self._rows if stop is None else stop)

    def _middle(self, size: int, start: int, stop: int) -> Iterator[Batch]:
        own = OwnRandomness()
        for low in range(start, stop, size):
            index = np.arange(low, min(low + size, stop), dtype=np.int64)
            with own:
                x, labels = self._fetch(index)
            yield Batch(index, x, labels if self._labels is None else self._labels[index])

    def take(self, index: np.ndarray) -> Inputs:
        """Inputs of the samples with these numbers, in this order."""
        numbers = checked_index(index, self._rows)
        with OwnRandomness():
            if len(numbers):
                return self._fetch(numbers)[0]
            return _no_rows(self._fetch(np.zeros(1, dtype=np.int64))[0])

    def _end(self, seen: int) -> None:
        if seen != self._rows:
            raise InputError(
                "a DataLoader gave other samples than its Dataset holds",
                got=f"{seen} samples",
                expected=f"{self._rows}",
                remedy="leave samples out in the Dataset (Subset), not in collate_fn",
            )
        super()._end(seen)

    def _fetch(self, index: np.ndarray) -> Part:
        return self._read(self._loader.collate_fn(list(items_of(self._loader.dataset, index))))


def loader_samples(loader: DataLoader[Any], labels: Any = None) -> StreamSamples:
    """A DataLoader as samples, by number too where its order is that of its Dataset.

    Raises
    ------
    InputError
        Labels beside a loader whose order is its own: they could not be matched.
    """
    iterable = isinstance(loader.dataset, IterableDataset)
    if (
        not iterable
        and type(loader.sampler) is SequentialSampler
        and type(loader.batch_sampler) is BatchSampler
    ):
        return LoaderSamples(loader, labels)
    kind = f"DataLoader of {type(loader.dataset).__name__}"
    if iterable:
        return StreamSamples(lambda: loader, labels, kind=kind)
    if labels is not None:
        raise InputError(
            "labels were given beside a DataLoader that has an order of its own",
            got=f"sampler {type(loader.sampler).__name__}",
            expected="labels in the batches, or data in a fixed order",
            remedy="use DataLoader(..., shuffle=False), or let the Dataset give (x, label)",
        )
    return StreamSamples(
        lambda: loader,
        kind=kind,
        notes=["the DataLoader shuffles: samples are numbered in the order in which they came"],
    )


def iterable_samples(data: Iterable[Any], labels: Any = None) -> StreamSamples:
    """An IterableDataset, which gives samples, or another iterable, which gives batches."""
    kind = type(data).__name__
    if isinstance(data, IterableDataset):
        return StreamSamples(lambda: _stacked(data), labels, kind=kind)
    return StreamSamples(lambda: data, labels, kind=kind)


def _stacked(samples: Iterable[Any]) -> Iterator[Any]:
    iterator, seen = iter(samples), 0
    while items := list(islice(iterator, STACK)):
        yield stack(items, np.arange(seen, seen + len(items)))
        seen += len(items)


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


def _no_rows(x: Inputs) -> Inputs:
    return take_rows(x, slice(0))


def _same(one: Inputs, other: Inputs) -> bool:
    pairs = zip(leaves(one), leaves(other), strict=True)
    return all(
        a.shape == b.shape and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
        for (_, a), (_, b) in pairs
    )
