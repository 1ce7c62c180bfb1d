"""Products of a population: computed once, by whoever needs them first or by workers beforehand."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

#: A product's name and what it was asked for with.
Key = tuple[str, tuple[Any, ...]]
#: The heads (see `Population.head`) that lead to a population, and one of its products.
Place = tuple[tuple[int, ...], Key]


class Keeper(Protocol):
    """Something that keeps its products."""

    kept: dict[Key, Any]


K = TypeVar("K", bound=Keeper)
P = ParamSpec("P")
T = TypeVar("T")


def product(method: Callable[Concatenate[K, P], T]) -> Callable[Concatenate[K, P], T]:
    """A method of positional, hashable arguments whose result is kept in ``self.kept``."""
    name = method.__name__

    def asked(self: K, /, *args: P.args, **kwargs: P.kwargs) -> T:
        key: Key = name, args
        if key not in self.kept:
            self.kept[key] = method(self, *args, **kwargs)
        return self.kept[key]  # type: ignore[no-any-return]

    functools.update_wrapper(asked, method)
    return asked


def on_device(value: Any, device: torch.device) -> Any:
    """A product with its tensors on another device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        return tuple(on_device(part, device) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: on_device(getattr(value, f.name), device) for f in fields(value)}
        return replace(value, **parts)
    return value


def size_of(value: Any) -> int:
    """Bytes of a product's arrays."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if isinstance(value, tuple | list):
        return sum(size_of(part) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        return sum(size_of(getattr(value, f.name)) for f in fields(value))
    return 0
