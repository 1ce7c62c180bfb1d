"""Samples that a DataLoader, a stream or another iterable gives in an order of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

from collapsekit.errors import CollapsekitError, InputError, Unavailable
from collapsekit.sources.arrays import refuse_empty
from collapsekit.sources.batches import (
    Batch,
    Gap,
    OwnRandomness,
    Part,
    checked_index,
    cut,
    read_batch,
    stretch,
    unread,
)
from collapsekit.sources.datasets import Told, items_of, no_rows, stack
from collapsekit.sources.labels import as_labels
from collapsekit.sources.trees import Inputs, rows_of

#: Samples of an IterableDataset that are read before they are stacked.
STACK = 256
_FAILURES = 8  # readings in a row that may fail


class StreamSamples(Told):
    """An iterable of batches (a DataLoader) that can be read again from its start, one way.

    Parameters
    ----------
    source : iterable, or callable () -> iterable
        Batches of any length, as tensors, tuples or mappings; each ``iter``, or call, is a new
        pass. Samples are numbered in the order in which they come.
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
        source: Iterable[Any] | Callable[[], Iterable[Any]],
        labels: Any = None,
        *,
        kind: str,
        rows: int | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(kind, rows)
        self._source = source
        self._labels = None if labels is None else as_labels(labels, rows)
        self._notes |= dict.fromkeys(notes)
        self._counted: int | None = None

    def batches(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Batches of samples start .. stop - 1 in the order in which the iterable gives them."""
        start, stop = stretch(size, start, stop, None)
        return cut(self._parts(), size, start, stop)

    def _parts(self) -> Iterator[Part | Gap]:
        own, iterator, seen, failures = OwnRandomness(), None, 0, 0
        while True:
            try:
                with own:
                    iterator = self._begin() if iterator is None else iterator
                    raw = next(iterator, None)
            except (CollapsekitError, MemoryError):
                raise
            except Exception as error:
                failures += 1
                # What never comes up, or fails over and over, will not give anything more.
                if iterator is None or failures > _FAILURES:
                    raise
                with own:
                    missing = self._missing(seen, unread(error))
                for part in missing:
                    seen += part.rows if isinstance(part, Gap) else rows_of(part[0])
                    yield part
                continue
            failures = 0
            if raw is None:
                break
            x, labels = self.read(raw)
            rows = rows_of(x)
            if self._labels is not None:
                if seen + rows > len(self._labels):
                    as_labels(self._labels, seen + rows)  # raises, with both numbers
                labels = self._labels[seen : seen + rows]
            seen += rows
            if rows:
                yield x, labels
        self._end(seen)

    def _begin(self) -> Iterator[Any]:
        if isinstance(self._source, Iterable):
            return iter(self._source)
        return iter(self._source())

    def _missing(self, seen: int, why: str) -> list[Part | Gap]:
        """What stands for a batch that could not be read, the first being sample `seen`."""
        loader, rows = self._source, 1
        if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
            rows = max(1, min(loader.batch_size or 1, len(loader.dataset) - seen))  # type: ignore[arg-type]
            return [Gap(rows, why)]
        return [Gap(rows, f"{why}; how many samples were lost there is not known")]

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
        super().__init__(loader, labels, kind=kind, rows=rows, notes=notes)
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
                part = read_batch(index, self._labelled, alone=True)
            yield part

    def _labelled(self, index: np.ndarray) -> Part:
        x, labels = self._fetch(index)
        return x, labels if self._labels is None else self._labels[index]

    def _missing(self, seen: int, why: str) -> list[Part | Gap]:
        """The loader's batch again, sample by sample."""
        stop = min(seen + (self._loader.batch_size or 1), self._rows)
        parts: list[Part | Gap] = []
        for number in range(seen, stop):
            try:
                parts.append(self._labelled(np.array([number])))
            except MemoryError:
                raise
            except Exception as error:
                parts.append(Gap(1, unread(error)))
        return parts

    def take(self, index: np.ndarray) -> Inputs:
        """Inputs of the samples with these numbers, in this order."""
        numbers = checked_index(index, self._rows)
        with OwnRandomness():
            if len(numbers):
                return self._fetch(numbers)[0]
            return no_rows(self._fetch(np.zeros(1, dtype=np.int64))[0])

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
        return self.read(self._loader.collate_fn(list(items_of(self._loader.dataset, index))))


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
        workers = loader.num_workers
        told = (
            f"{workers} workers read one {type(loader.dataset).__name__}: unless it shares its "
            f"samples out by torch.utils.data.get_worker_info, each came {workers} times"
        )
        return StreamSamples(loader, labels, kind=kind, notes=[told] if workers > 1 else [])
    if labels is not None:
        raise InputError(
            "labels were given beside a DataLoader that has an order of its own",
            got=f"sampler {type(loader.sampler).__name__}",
            expected="labels in the batches, or data in a fixed order",
            remedy="use DataLoader(..., shuffle=False), or let the Dataset give (x, label)",
        )
    return StreamSamples(
        loader,
        kind=kind,
        notes=["the DataLoader shuffles: samples are numbered in the order in which they came"],
    )


def iterable_samples(
    data: Iterable[Any] | Callable[[], Iterable[Any]], labels: Any = None
) -> StreamSamples:
    """An IterableDataset, which gives samples, or another iterable, which gives batches.

    A function that takes nothing and returns an iterable is one too: each call is a new pass.
    """
    if isinstance(data, IterableDataset):
        return StreamSamples(_Stacked(data), labels, kind=type(data).__name__)
    made = not isinstance(data, Iterable)
    kind = getattr(data, "__name__", "") or type(data).__name__ if made else type(data).__name__
    return StreamSamples(data, labels, kind=kind)


@dataclass(frozen=True)
class _Stacked:
    """The samples of a stream, some at a time."""

    samples: Iterable[Any]

    def __iter__(self) -> Iterator[Any]:
        iterator, seen = iter(self.samples), 0
        while items := list(islice(iterator, STACK)):
            yield stack(items, np.arange(seen, seen + len(items)))
            seen += len(items)
