"""An object's description that does not change from run to run: its name and a digest."""

from __future__ import annotations

import hashlib
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_DEEPEST = 6  # levels of what an object holds; deeper things count by their type
_LONGEST = 10_000  # items of a sequence; a longer one counts by its length
_SHIPPED = ("collapsekit", "builtins", "torch", "numpy")


def described(thing: Any) -> str:
    """The qualified name and a digest of code and settings: equal for equal objects.

    Of an object: its class's methods and what it holds (numbers, text, arrays, functions with
    their closures). Of a bound method: its code, and those plain settings of its owner that the
    code names; not the owner's weights, so that two trainings of one model are scored by one
    method. Code of this package, torch and NumPy counts by its name.

    Digests hold bytecode, which differs between versions of Python.
    """
    digest = hashlib.sha256()
    if isinstance(thing, types.MethodType):
        owner, function = thing.__self__, thing.__func__
        name = f"{type(owner).__module__}.{thing.__qualname__}"
        parts = _of_method(owner, function)
    else:
        named = thing if isinstance(thing, types.FunctionType) else type(thing)
        name = f"{named.__module__}.{named.__qualname__}"
        parts = _Parts().of(thing, _DEEPEST)
    try:
        for part in parts:
            digest.update(repr(part).encode())
    except Exception:  # what it holds may do anything when it is looked at: the name has to do
        return name
    return f"{name} #{digest.hexdigest()[:12]}"


def _of_method(owner: Any, function: Any) -> Iterator[Any]:
    yield list(_Parts().of(function, _DEEPEST))
    code = getattr(function, "__code__", None)
    for name in sorted(set(code.co_names)) if code else ():
        value = getattr(owner, name, None)
        if value is not None and isinstance(value, _PLAIN):
            yield name, value


def _shipped(thing: Any) -> bool:
    return str(thing.__module__).partition(".")[0] in _SHIPPED


class _Parts:
    """What tells one thing from another, as plain data and never an address."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def of(self, thing: Any, depth: int) -> Iterator[Any]:
        if isinstance(thing, _PLAIN):
            yield repr(thing)
        elif isinstance(thing, torch.Tensor):
            yield from self._array(thing.detach().cpu().to(torch.float64).numpy())
        elif isinstance(thing, np.ndarray):
            yield from self._array(thing)
        elif isinstance(thing, types.CodeType):
            yield thing.co_code.hex(), thing.co_names, self.all(thing.co_consts, depth)
        elif depth <= 0:
            yield type(thing).__qualname__
        elif isinstance(thing, Mapping):
            yield [(str(key), self.all([thing[key]], depth)) for key in sorted(thing, key=str)]
        elif isinstance(thing, list | tuple):
            yield len(thing), self.all(thing[:_LONGEST], depth)
        elif isinstance(thing, set | frozenset):
            yield sorted(str(list(self.of(item, depth - 1))) for item in thing)
        elif isinstance(thing, types.FunctionType):
            yield from self._function(thing, depth)
        elif isinstance(thing, type | types.ModuleType):
            yield thing.__name__
        elif isinstance(thing, property):
            yield self.all([thing.fget], depth)
        else:
            yield from self._object(thing, depth)

    def all(self, things: Any, depth: int) -> list[Any]:
        return [list(self.of(thing, depth - 1)) for thing in things]

    def _array(self, array: np.ndarray) -> Iterator[Any]:
        content = array.tobytes() if array.dtype != object else b""
        yield str(array.dtype), array.shape, hashlib.sha256(content).hexdigest()

    def _function(self, function: types.FunctionType, depth: int) -> Iterator[Any]:
        yield function.__qualname__
        if _shipped(function):
            return
        yield list(self.of(function.__code__, depth))
        for cell in function.__closure__ or ():
            try:
                held = cell.cell_contents
            except ValueError:  # not filled yet
                continue
            yield list(self.of(held, depth - 1))
        yield self.all([function.__defaults__, function.__kwdefaults__], depth)

    def _object(self, thing: Any, depth: int) -> Iterator[Any]:
        if id(thing) in self._seen:
            yield "again"
            return
        self._seen.add(id(thing))
        for kind in type(thing).__mro__:
            yield kind.__qualname__
            if not _shipped(kind):
                methods = {
                    name: value
                    for name, value in vars(kind).items()
                    if isinstance(value, (types.FunctionType, property, *_PLAIN))
                    and name not in ("__module__", "__doc__", "__firstlineno__")
                }
                yield list(self.of(methods, depth - 1))
        if isinstance(thing, torch.nn.Module):
            yield list(self.of(dict(thing.state_dict()), depth - 1))
            held = {k: v for k, v in vars(thing).items() if not k.startswith("_")}
        else:
            held = getattr(thing, "__dict__", {})
        yield list(self.of(held, depth - 1))
