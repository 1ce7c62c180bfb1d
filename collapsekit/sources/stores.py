"""Anything array-like as a store (an array, here or on disk, or a tensor); a batch as a tensor.

A store is what was handed in, not a copy of it: what lies on disk stays there. Only the rows of a
batch are copied and converted, so nothing that was handed in can be written to by a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from collapsekit.errors import InputError
from collapsekit.sources.disk import DiskArray, unmapped
from collapsekit.sources.trees import Inputs, leaves, map_leaves, shown

Store: TypeAlias = np.ndarray | Tensor | DiskArray
#: Row numbers, or a range of rows.
Rows: TypeAlias = slice | np.ndarray

_CPU = 1  # DLPack's number for host memory


def is_array(data: object) -> bool:
    """Whether it is one array, of any framework, rather than a list, a class or a Dataset."""
    if isinstance(data, np.ndarray | np.generic | Tensor | DiskArray):
        return True
    return not isinstance(data, type) and (
        hasattr(data, "__array__")
        or hasattr(data, "__array_interface__")
        or hasattr(data, "__dlpack__")
        or _is_sparse(data)
    )


def _is_sparse(data: Any) -> bool:
    return hasattr(data, "toarray") and hasattr(data, "nnz")  # SciPy's, and what imitates it


def as_store(data: Any, name: str = "data") -> Store:
    """The array in `data` without copying it where that can be avoided.

    Parameters
    ----------
    data : array of any framework, or nested lists of numbers
    name : str
        What an error calls it.

    Raises
    ------
    InputError
        Ragged, object, text, structured, complex, masked, sparse or 0-d.
    """
    if isinstance(data, np.memmap):
        data = unmapped(data) or data
    ready = isinstance(data, Tensor | DiskArray)
    store: Store = data if ready else _from_numpy_or_dlpack(data, name)
    if isinstance(store, Tensor):
        store = _dense(store, name)
        complex_ = store.is_complex()
    else:
        _refuse_odd_kinds(store, name)
        complex_ = store.dtype.kind == "c"
    if complex_:
        raise InputError(
            f"{name} holds complex numbers",
            got=shown(store),
            expected="real numbers",
            remedy="stack real and imaginary part on an axis, as the model was trained on them",
        )
    if store.ndim == 0:
        raise InputError(
            f"{name} is a single number",
            got=f"{shown(store)}, 0-d",
            expected="an array whose first axis is the sample",
            remedy="pass the array of all samples; for one sample, array[None]",
        )
    return store


def _dense(tensor: Tensor, name: str) -> Tensor:
    if tensor.layout != torch.strided:
        raise InputError(
            f"{name} is sparse or nested",
            got=f"a tensor of layout {tensor.layout}",
            expected="a dense tensor",
            remedy="pass tensor.to_dense(), or a Dataset that makes dense samples",
        )
    if tensor.is_meta:
        raise InputError(
            f"{name} has no values",
            got="a tensor on the device 'meta', which is a shape alone",
            expected="a tensor with values",
            remedy="load its values, or make it on the device cpu",
        )
    return tensor.detach()


def _on_host(tensor: Tensor, name: str) -> np.ndarray:
    tensor = _dense(tensor, name).cpu().resolve_conj().resolve_neg()
    # NumPy knows none of the floats that are narrower than float32, but for float16.
    narrow = tensor.is_floating_point() and tensor.element_size() < 4
    array: np.ndarray = (tensor.float() if narrow else tensor).numpy()
    return array


def _from_numpy_or_dlpack(data: Any, name: str) -> Store:
    if np.ma.isMaskedArray(data) and np.ma.is_masked(data):
        raise InputError(
            f"{name} has masked entries",
            got=f"{int(np.ma.getmaskarray(data).sum())} masked of {data.size}",
            expected="an array without a mask, which a model would not see",
            remedy="fill it: array.filled(value)",
        )
    if _is_sparse(data):
        raise InputError(
            f"{name} is a sparse matrix",
            got=type(data).__name__,
            expected="a dense array",
            remedy="pass matrix.toarray(), or a Dataset that makes dense samples",
        )
    if hasattr(data, "__dlpack__") and not isinstance(data, np.ndarray | np.generic):
        if _device(data) != _CPU:
            return _from_device(data)
        if not hasattr(data, "__array__"):
            return np.from_dlpack(data)
    if isinstance(data, Sequence) and any(isinstance(part, Tensor) for part in data):
        data = [_on_host(part, name) if isinstance(part, Tensor) else part for part in data]
    try:
        return np.asarray(data)
    except Exception as error:  # whatever a stranger's __array__ raises
        if not (isinstance(data, Sequence) and isinstance(error, ValueError)):
            raise InputError(
                f"{name} cannot be read as an array",
                got=f"{type(data).__name__}: {type(error).__name__}: {error}"[:300],
                expected="numbers: an array, or nested lists of one shape",
                remedy="pass numpy.asarray(...) of it",
            ) from error
        raise InputError(
            f"{name} is ragged: its samples do not have one shape",
            got=_first_difference(data),
            expected="samples of one shape",
            remedy="pad or crop them, as the model was trained on them",
        ) from error


def _device(data: Any) -> int:
    try:
        return int(data.__dlpack_device__()[0])
    except (AttributeError, TypeError, ValueError):
        return _CPU


def _from_device(data: Any) -> Tensor:
    # torch.from_dlpack aborts the whole process on a negative stride, uncatchably.
    if any(stride < 0 for stride in getattr(data, "strides", None) or ()):
        data = data.copy()
    tensor: Tensor = torch.utils.dlpack.from_dlpack(data)
    return tensor


def _first_difference(data: Sequence[Any]) -> str:
    def shape(part: Any) -> str:
        try:
            return str(list(np.shape(part)))
        except ValueError:
            return "a ragged list"

    first = shape(data[0])
    for i, part in enumerate(data):
        if (other := shape(part)) != first or other == "a ragged list":
            return f"sample 0 {first}, sample {i} {other}"
    return f"{len(data)} samples {first}"


def _refuse_odd_kinds(array: np.ndarray | DiskArray, name: str) -> None:
    kind = array.dtype.kind
    if kind in "biufc" or _is_small_float(array.dtype):
        return
    words = {
        "O": ("Python objects", "convert every column to numbers first"),
        "U": ("text", "turn it into token ids or one-hot vectors, as the model was trained on"),
        "S": ("text", "turn it into token ids or one-hot vectors, as the model was trained on"),
        "V": ("records", "pass its fields as a mapping of arrays"),
        "M": ("dates", "convert them to numbers first"),
        "m": ("durations", "convert them to numbers first"),
    }
    what, remedy = words.get(kind, ("values that are no numbers", "convert them to numbers first"))
    raise InputError(
        f"{name} holds {what}",
        got=f"dtype {array.dtype}, shape {list(array.shape)}",
        expected="numbers: float, integer or bool",
        remedy=remedy,
    )


def _is_small_float(dtype: np.dtype[Any]) -> bool:
    # ml_dtypes (what jax arrays become in NumPy) registers these as opaque kinds.
    return dtype.name.startswith(("bfloat16", "float8"))


# --- a batch of a store --------------------------------------------------------------------------


def _rule(store: Store) -> tuple[str, str | None]:
    """(dtype in which the store is read, what is told about it) by the dtype rule."""
    dtype = str(store.dtype).removeprefix("torch.")
    if not isinstance(store, Tensor):
        dtype = store.dtype.name  # without the byte order
    if dtype in ("float32", "float64"):
        return dtype, None
    if "float" in dtype or dtype == "longdouble":
        wide = store.dtype.itemsize > 8
        target = "float64" if wide else "float32"
        return target, f"{dtype} was read as {target}"
    if dtype == "uint8" and store.ndim >= 3:
        return "float32", "uint8 images were divided by 255"
    if dtype == "bool":
        if store.ndim >= 3:
            return "float32", "bool images were read as 0 and 1"
        return dtype, "bool values stay bool; for a model that wants numbers pass them as float32"
    # torch has few operations for wide unsigned integers.
    target = "int64" if dtype in ("uint16", "uint32", "uint64") else dtype
    return target, f"{dtype} values stay integers, as token ids; pixels are to come as float32"


def to_tensor(store: Store, rows: Rows = slice(None)) -> Tensor:
    """Rows of a store as a fresh tensor on the store's device, converted by the dtype rule.

    bool and uint8 with three or more axes are images: float32 in [0, 1]. Floats narrower than
    float32 become float32, wider than float64 float64. Other integers stay integers.
    """
    target, _ = _rule(store)
    image = target == "float32" and str(store.dtype).endswith("uint8")
    # A copy, always: negative strides, read-only memory and a write by the model all end here, and
    # the fresh array has plain strides, which an axis of length 1 otherwise need not have.
    if not isinstance(store, Tensor):
        chunk = np.array(store[rows], dtype=target, order="C", copy=True)
        if target == "int64" and store.dtype.kind == "u":
            _refuse_wrapped(bool((chunk < 0).any()))
        if image:
            chunk /= np.float32(255)
        return torch.from_numpy(chunk)
    some = store[rows] if isinstance(rows, slice) else store[torch.as_tensor(rows).to(store.device)]
    some = some.clone(memory_format=torch.contiguous_format).to(getattr(torch, target))
    if store.dtype == torch.uint64:
        _refuse_wrapped(bool((some < 0).any()))
    return some / 255 if image else some


def _refuse_wrapped(negative: bool) -> None:
    if negative:
        raise InputError(
            "a whole number is too large",
            got="uint64 values of 2^63 or more",
            expected="values that int64 holds, in which models compute",
            remedy="pass the data as float64, or scaled",
        )


def to_inputs(stores: Any, rows: Rows = slice(None)) -> Inputs:
    """Rows of every store in a mapping or tuple, converted."""
    x: Inputs = map_leaves(lambda _, store: to_tensor(store, rows), stores)
    return x


def notes_for(stores: Any) -> list[str]:
    """What the dtype rule does to the stores in a mapping or tuple, one sentence each."""
    told = ((name, _rule(store)[1]) for name, store in leaves(stores))
    return [f"{name}: {note}" if name else note for name, note in told if note is not None]
