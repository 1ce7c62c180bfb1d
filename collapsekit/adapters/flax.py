"""Flax: ``flax:pkg.module:factory,FILE.msgpack``, a bound linen module, or an nnx module."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from collapsekit.adapters.opening import existing, factory, library, two_parts
from collapsekit.adapters.reading import Reader
from collapsekit.adapters.torch_module import output_of
from collapsekit.errors import FileError, InputError, ModelError
from collapsekit.samples import Inputs, map_tensors

#: Switches of evaluation mode that methods take, and how they are set.
_SWITCHES = {"train": False, "training": False, "is_training": False, "deterministic": True}


class Flax:
    """A model's own encode (or encoder) and decode (or decoder), called with arrays of jax.

    Parameters
    ----------
    encode, decode : callable
        ``decode`` may be None.
    name : str
        For the report.
    notes : tuple of str
    """

    def __init__(
        self,
        encode: Callable[..., Any],
        decode: Callable[..., Any] | None,
        name: str,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.description, self._notes = name, notes
        self.reader = Reader({"encode": _called(encode)})
        if decode is not None:
            back = _called(decode)
            self.decode: Callable[[Any], Any] = lambda z: output_of(back(z))

    @property
    def notes(self) -> tuple[str, ...]:
        """How the posterior is read."""
        return (*self._notes, *([self.reader.told] if self.reader.told else []))

    def encode(self, x: Inputs) -> Any:
        """The posterior of a batch."""
        return self.reader(x)


def linen(module: Any, variables: Any) -> Flax:
    """A linen module and its variables, as `init` or a checkpoint gives them.

    Parameters
    ----------
    module : flax.linen.Module
        With a method, or a submodule made in ``setup``, called encode (encoder); the decoder alike.
    variables : mapping
        ``{"params": ...}``, or what is inside of it; ``batch_stats`` beside it.

    Raises
    ------
    InputError
        The module has no encoder.
    """
    if "params" not in variables:
        variables = {"params": variables}

    def method(*names: str) -> Callable[..., Any] | None:
        name = next((n for n in names if callable(getattr(type(module), n, None))), None)
        if name is None:
            return None
        switches = _switches(getattr(type(module), name))
        return lambda x: module.apply(variables, x, method=name, **switches)

    return _built(method("encode", "encoder"), method("decode", "decoder"), module)


def wrap(model: Any, *, device: Any = None) -> tuple[Flax, None]:
    """A bound linen module, or an nnx module (a copy in evaluation mode is audited).

    Raises
    ------
    InputError
        A linen module without its variables, or an object without an encoder.
    """
    nnx = library("flax.nnx", "jax")
    if isinstance(model, nnx.Module):
        copy = nnx.merge(*nnx.split(model))
        copy.eval()

        def part(*names: str) -> Callable[..., Any] | None:
            found = next(
                (getattr(copy, n) for n in names if callable(getattr(copy, n, None))), None
            )
            if found is None:
                return None
            switches = _switches(found)
            return lambda x: found(x, **switches)

        return _built(part("encode", "encoder"), part("decode", "decoder"), model), None
    if getattr(model, "scope", None) is None:
        raise InputError(
            "a linen module does not hold its parameters",
            got=f"{type(model).__name__} that is not bound",
            expected="the module with its variables",
            remedy="pass model.bind(variables), or collapsekit.adapters.flax.linen(model, "
            "variables)",
        )
    module, variables = model.unbind()
    return linen(module, variables), None


def open_spec(rest: str, *, device: Any = None, trust_code: bool = False) -> tuple[Flax, None]:
    """Open ``pkg.module:factory,FILE.msgpack``: a linen module and ``serialization.to_bytes``.

    Raises
    ------
    FileError
        The file is missing or broken.
    InputError
        The factory does not build a linen module; flax is not installed.
    """
    name, file = two_parts("flax", rest, "pkg.module:factory")
    path = existing(file, "flax file")
    serialization = library("flax.serialization", "jax")
    flax_linen = library("flax.linen", "jax")
    try:
        variables = serialization.msgpack_restore(path.read_bytes())
    except Exception as error:
        raise FileError(
            f"{file} cannot be read as flax variables",
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            expected="what flax.serialization.to_bytes(variables) wrote",
            remedy="restore other checkpoints by hand: "
            "collapsekit.adapters.flax.linen(module, variables)",
        ) from error
    module = factory(name)()
    if not isinstance(module, flax_linen.Module):
        raise InputError(
            f"{name} does not build a linen module",
            got=type(module).__name__,
            expected="flax.linen.Module",
            remedy="return the module itself; its variables come from the file",
        )
    return linen(module, variables), None


def _built(encode: Any, decode: Any, model: Any) -> Flax:
    if encode is None:
        raise InputError(
            "the module has no encoder that could be found",
            got=type(model).__name__,
            expected="a method called encode, and one called decode",
            remedy="pass (encode, decode), two callables, instead of the module",
        )
    return Flax(encode, decode, f"flax {type(model).__name__}")


def _switches(method: Callable[..., Any]) -> dict[str, bool]:
    """The evaluation switches among a method's parameters."""
    try:
        names = inspect.signature(method).parameters
    except (TypeError, ValueError):
        return {}
    return {name: value for name, value in _SWITCHES.items() if name in names}


def _called(method: Callable[..., Any]) -> Callable[[Any], Any]:
    jax = library("jax", "jax")

    def to_numpy(leaf: Any) -> Any:
        # NumPy has no bfloat16 that torch could read.
        small = str(getattr(leaf, "dtype", "")) in ("bfloat16", "float16")
        return np.asarray(leaf, dtype=np.float32 if small else None)

    def call(x: Any) -> Any:
        given: Any = map_tensors(_jax, x) if not isinstance(x, np.ndarray) else _jax(x)
        try:
            answer = method(given)
        except Exception as error:
            if "rng" not in type(error).__name__.lower():
                raise
            raise ModelError(
                "the model asks for random numbers",
                got=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
                expected="an encode that returns mean and log-variance, and draws nothing",
                remedy="pass two callables: ck.audit((lambda x: model.apply(variables, x, "
                'method="encode", rngs=...), decode), data)',
            ) from error
        return jax.tree.map(to_numpy, answer)

    def _jax(array: Any) -> Any:
        # A copy: a DLPack alias of an immutable array could be written to.
        return jax.numpy.array(array.cpu().numpy() if isinstance(array, Tensor) else array)

    return call
