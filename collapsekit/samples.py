"""Where an audit's data come in: whatever was handed over becomes numbered samples in batches.

Batches of any size concatenate to the same samples, nothing that was handed over is written to,
and every conversion is told in ``notes``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeGuard, runtime_checkable

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from collapsekit.errors import InputError
from collapsekit.sources.arrays import ArraySamples
from collapsekit.sources.batches import Batch
from collapsekit.sources.datasets import DatasetSamples
from collapsekit.sources.files import open_path
from collapsekit.sources.stores import is_array
from collapsekit.sources.streams import iterable_samples, loader_samples
from collapsekit.sources.trees import Inputs, concatenate, map_tensors, rows_of, take_rows

__all__ = [
    "Batch",
    "Inputs",
    "Samples",
    "as_samples",
    "concatenate",
    "map_tensors",
    "rows_of",
    "take_rows",
]


@runtime_checkable
class Samples(Protocol):
    """Numbered samples, to be read as often as needed.

    Attributes
    ----------
    size : int or None
        N; None until a pass has counted an iterable.
    description : str
        For the report: ``array float32 [1797, 1, 8, 8]``.
    notes : tuple of str
        Conversions that were made, for the user to know: ``uint8 images were divided by 255``.
        An iterable's grow while it is read.
    random_access : bool
        Whether `take` costs about what reading as many rows in order costs. Where not, it may be
        unavailable.
    """

    @property
    def size(self) -> int | None: ...
    @property
    def description(self) -> str: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def random_access(self) -> bool: ...

    def batches(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Samples start .. stop - 1, in order, `size` at a time; the last batch may be shorter."""

    def take(self, index: np.ndarray) -> Inputs:
        """Inputs of the samples with these numbers, in this order, repeats included.

        Raises
        ------
        InputError
            A number outside 0 .. N - 1.
        Unavailable
            The data can be read one way only.
        """


def as_samples(data: object, labels: object = None) -> Samples:
    """Samples of anything that holds data.

    Parameters
    ----------
    data : object
        An array of any framework (NumPy, torch, DLPack, ``__array__``) or nested lists of numbers;
        a mapping or tuple of aligned arrays; a Dataset, DataLoader or other iterable of batches
        that can be read again, or a function that returns one; a path to a .npy, .npz
        (``FILE.npz:name`` picks an array), .parquet (``FILE.parquet:a,b`` picks columns) or .pt
        file, to a folder of such files, to many by a pattern (``DIR/x-*.npy``, in natural order),
        or to a folder of images; samples already.
    labels : array-like [N], optional
        Wins over labels found in the data: y of (x, y), or label, labels, y or target of a mapping,
        where they are one number or word per sample.

    Raises
    ------
    InputError
        Data of another kind, without samples, ragged, complex, of objects, or 0-d; labels of
        another length; files that are missing, pickled or of an unknown kind.

    Notes
    -----
    bool and uint8 arrays of three or more axes are images and become float32 in [0, 1]; float16 and
    bfloat16 become float32; float64 and other integers stay. A mapping with one tensor called x,
    data, image, images, input or pixel_values, beside labels, is fed as that tensor; any other
    mapping goes to the model whole.
    """
    if isinstance(data, Samples):
        if labels is not None:
            raise InputError(
                "labels were given beside samples that were made before",
                got=type(data).__name__,
                expected="labels where the samples are made",
                remedy="as_samples(data, labels)",
            )
        return data
    if isinstance(data, str | os.PathLike):
        return open_path(data, labels)
    if isinstance(data, DataLoader):
        return loader_samples(data, labels)
    if isinstance(data, IterableDataset):
        return iterable_samples(data, labels)
    if isinstance(data, Dataset):
        return _dataset(data, labels)
    if isinstance(data, Mapping) or is_array(data):
        return ArraySamples(data, labels)
    if isinstance(data, tuple) and data and (is_array(data[0]) or isinstance(data[0], Mapping)):
        return ArraySamples(data, labels)
    if isinstance(data, list | tuple):
        if data and _is_sample(data[0]):
            return DatasetSamples(data, labels)
        return ArraySamples(list(data), labels, name="list")
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return DatasetSamples(data, labels)
    if isinstance(data, Iterator):
        raise InputError(
            "these data can be read only once",
            got=type(data).__name__,
            expected="data that can be read from the start again: an audit makes several passes",
            remedy="pass an array, a Dataset, the function that makes the generator, or an object "
            "whose __iter__ starts anew",
        )
    if isinstance(data, Iterable) or _is_factory(data):
        return iterable_samples(data, labels)
    raise InputError(
        "these data are of a kind that is not read",
        got=type(data).__name__,
        expected="an array, a mapping of arrays, a Dataset, a DataLoader, or a path",
        remedy="pass numpy.asarray(...) of it",
    )


def _dataset(data: Dataset[Any], labels: object) -> Samples:
    if not hasattr(data, "__len__"):
        raise InputError(
            "a Dataset does not say how many samples it has",
            got=f"{type(data).__name__} without __len__",
            expected="a map-style Dataset with __len__ and __getitem__, or an IterableDataset",
            remedy="give it a __len__",
        )
    tensors = getattr(data, "tensors", None)
    if type(data).__name__ == "TensorDataset" and isinstance(tensors, tuple):
        # Read by the slice, not sample by sample.
        return ArraySamples(tensors, labels, name="TensorDataset")
    return DatasetSamples(data, labels)


def _is_factory(data: object) -> TypeGuard[Callable[[], Iterable[Any]]]:
    return callable(data) and not isinstance(data, type)


def _is_sample(first: Any) -> bool:
    """Whether a list's first entry is a sample with parts, rather than a row of numbers."""
    if isinstance(first, tuple):
        return not all(isinstance(part, int | float | np.number) for part in first)
    picture = hasattr(first, "__array_interface__") and not isinstance(
        first, np.ndarray | np.generic
    )
    return isinstance(first, Mapping) or (picture and not isinstance(first, Tensor))
