"""Models and data as they travel to other processes."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from collapsekit.errors import InputError, brief


class _Arrays(pickle.Pickler):
    """Tensors as arrays: torch's own way goes through a zip file, at several times the cost."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is not Tensor or obj.layout != torch.strided or obj.requires_grad:
            return NotImplemented
        if obj.device.type != "cpu" or obj.dtype == torch.bfloat16:
            return NotImplemented
        return torch.from_numpy, (obj.contiguous().numpy(),)


def arrays(content: Any) -> bytes:
    """Pickled, of our own classes and tensors: what `packed` does, faster."""
    stream = io.BytesIO()
    _Arrays(stream, protocol=5).dump(content)
    return stream.getvalue()


def packed(content: Any) -> bytes:
    """Pickled, by cloudpickle where it is installed and the standard pickle does not do.

    Raises
    ------
    InputError
        The model, the data or a probe cannot be pickled.
    """
    try:
        return pickle.dumps(content, protocol=5)
    except Exception as first:
        try:
            import cloudpickle
        except ImportError:
            cloudpickle = None
        try:
            if cloudpickle is None:
                raise first
            found: bytes = cloudpickle.dumps(content, protocol=5)
            return found
        except Exception as error:
            raise InputError(
                "the model or the data cannot be sent to worker processes",
                got=f"{type(error).__name__}: {brief(error)}",
                expected="a spec string and a path, which workers open themselves, or objects that "
                "can be pickled",
                remedy='pass "package.module:factory", a module-level class, or a path',
            ) from error


def shippable(data: Any) -> Any:
    """Data as they travel: of a memory map its file's name, since it would be pickled whole."""
    if isinstance(data, np.memmap) and data.filename is not None and data.mode in ("r", "c"):
        mapped = MappedFile(
            Path(str(data.filename)), data.dtype.str, data.shape, data.offset, _order_of(data)
        )
        return data if not mapped.same_as(data) else mapped
    return data


def _order_of(data: np.ndarray) -> Literal["C", "F"]:
    return "F" if data.flags.f_contiguous and not data.flags.c_contiguous else "C"


@dataclass(frozen=True)
class MappedFile:
    """A memory-mapped array by its file: pickles to a few bytes, reads as the array."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    order: Literal["C", "F"]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        mapped: np.ndarray = np.memmap(
            self.path, self.dtype, "r", self.offset, self.shape, self.order
        )
        return mapped if dtype is None else mapped.astype(dtype)

    def same_as(self, data: np.ndarray) -> bool:
        """Whether the file says what the array does: a view of a part of it does not."""
        if not (data.flags.c_contiguous or data.flags.f_contiguous):
            return False
        size = self.path.stat().st_size if self.path.exists() else 0
        if self.offset + data.nbytes > size:
            return False
        mine = np.asarray(self)
        ends = [0, len(data) // 2, len(data) - 1] if len(data) else []
        return all(np.array_equal(mine[i], data[i]) for i in ends)
