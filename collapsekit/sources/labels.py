"""Labels: found beside the data, or handed over; told apart from what the model is fed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from collapsekit.errors import InputError
from collapsekit.sources.disk import DiskArray
from collapsekit.sources.stores import Store, as_store
from collapsekit.sources.trees import map_leaves, rows_of

#: A mapping with one tensor under such a name is fed as that tensor.
ALONE = ("x", "data", "image", "images", "input", "pixel_values")
#: Where labels lie in a mapping, looked for in this order.
LABELS = ("label", "labels", "y", "target")


def as_labels(labels: Any, rows: int | None) -> np.ndarray | DiskArray:
    """Labels as an array [N] of integers, floats, bools or text; what lies on disk stays there.

    Raises
    ------
    InputError
        Not one label per sample, or labels that are neither numbers nor text.
    """
    array: np.ndarray | DiskArray | None = labels if isinstance(labels, DiskArray) else None
    if isinstance(labels, Tensor):
        array = labels.detach().cpu().numpy()
    if array is None:
        try:
            array = np.asarray(labels)
            if array.dtype.kind == "O":
                array = np.asarray(array.tolist())
        except ValueError:
            array = np.empty(0, dtype=object)
    if array.ndim != 1 or array.dtype.kind not in "biufUS":
        raise InputError(
            "labels are not a list of numbers or words",
            got=f"{type(labels).__name__}, dtype {array.dtype}, shape {list(array.shape)}",
            expected="one number or word per sample",
            remedy="pass a one-dimensional array; of one-hot labels, labels.argmax(1)",
        )
    if rows is not None and len(array) != rows:
        raise InputError(
            "labels do not fit the data",
            got=f"{len(array)} labels for {rows} samples",
            expected="one label per sample, in the order of the samples",
            remedy="pass labels[:n] or data[:n], whichever is meant",
        )
    return array


def split_labels(tree: Any) -> tuple[Any, np.ndarray | DiskArray | None, list[str]]:
    """(what the model is fed, labels [B] or None, notes) of stores [B, ...] as a source gave them.

    A tuple (x, y) with one number or word per sample in y is x and its labels. A mapping is fed
    whole, unless nothing but one array under a name of `ALONE` is left beside the labels. Text is
    left out, as no model computes with it.
    """
    labels, notes = None, []
    if isinstance(tree, Mapping):
        key = next((k for k in LABELS if k in tree and _is_label(tree[k])), None)
        labels = None if key is None else as_labels(tree[key], None)
        texts = [k for k, value in tree.items() if k != key and _is_text(value)]
        notes += [f"the part {k!r} is text and was left out" for k in texts]
        tree = {k: v for k, v in tree.items() if k not in texts and not (k == key and _is_text(v))}
        rest = [k for k, value in tree.items() if k != key and value is not None]
        if len(rest) == 1 and str(rest[0]).lower() in ALONE:
            tree = tree[rest[0]]
    elif isinstance(tree, tuple):
        if len(tree) > 2 and any(_is_text(part) for part in tree):
            notes += [
                f"the part {i} is text and was left out" for i, p in enumerate(tree) if _is_text(p)
            ]
            tree = tuple(part for part in tree if not _is_text(part))
        if len(tree) == 2 and _is_label(tree[1]):
            inner, _, more = split_labels(tree[0])
            return inner, as_labels(tree[1], None), notes + more
        if len(tree) == 1:
            inner, labels, more = split_labels(tree[0])
            return inner, labels, notes + more
    return tree, labels, notes


def _is_label(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.ndim == 1 and not value.is_complex()
    array = isinstance(value, np.ndarray | DiskArray)
    return array and value.ndim == 1 and value.dtype.kind in "biufUS"


def _is_text(value: Any) -> bool:
    return isinstance(value, np.ndarray | DiskArray) and value.dtype.kind in "US"


def whole(tree: Any, name: str = "data") -> tuple[Any, np.ndarray | DiskArray | None, list[str]]:
    """:func:`split_labels` of arrays as they come, checked: what a batch or a data set must be.

    Parameters
    ----------
    tree : array-like, or a mapping or tuple of them; text is allowed inside

    Raises
    ------
    InputError
        As :func:`as_store`; parts of different length.
    """

    def store(part: str, leaf: Any) -> Store:
        called = f"the part {part!r} of {name}" if part else name
        array = _text(leaf) if part else None
        return as_store(leaf, called) if array is None else array

    stores = map_leaves(store, tree)
    rows_of(stores)
    x, labels, notes = split_labels(stores)
    rows_of(x)
    return x, labels, notes


def _text(leaf: Any) -> np.ndarray | None:
    """The leaf as an array of words if it is one: a list of str, or an array of them."""
    if isinstance(leaf, Tensor | DiskArray):
        return leaf if _is_text(leaf) else None  # type: ignore[return-value]
    if isinstance(leaf, Sequence) and leaf and all(isinstance(word, str) for word in leaf):
        return np.asarray(leaf)
    dtype = getattr(leaf, "dtype", None)
    if getattr(dtype, "kind", "") == "O" and all(isinstance(word, str) for word in np.ravel(leaf)):
        return np.asarray(leaf, dtype=str)
    return np.asarray(leaf) if getattr(dtype, "kind", "") in tuple("US") else None
