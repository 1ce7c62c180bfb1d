"""Adapters: whatever is handed in, made into something with `encode`. One file a kind.

A kind's module has ``open_spec(rest, *, device, trust_code)``, which opens ``KIND:REST`` and
returns (adapter, samples or None); where it also knows the library's objects it has
``wrap(model, *, device)``, which returns the same pair. Others register their own as entry points
of the group ``collapsekit.adapters``, whose name is the kind and whose value is such a module.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any, NamedTuple

from torch import nn

from collapsekit.adapters.opening import factory
from collapsekit.errors import InputError
from collapsekit.groups import is_grouped
from collapsekit.samples import Samples


class Kind(NamedTuple):
    """A spec kind, ``KIND:REST``.

    Parameters
    ----------
    module : str
        Imported only when asked for.
    form : str
        How REST is written, for messages.
    package : str
        The library whose objects the module wraps; "" for none.
    """

    module: str
    form: str
    package: str = ""


KINDS: dict[str, Kind] = {
    "posteriors": Kind("collapsekit.adapters.posteriors_file", "FILE.npz"),
    "state_dict": Kind("collapsekit.adapters.state_dict", "pkg.module:factory,FILE"),
    "pythae": Kind("collapsekit.adapters.pythae", "DIR", "pythae"),
    "diffusers": Kind("collapsekit.adapters.diffusers", "DIR", "diffusers"),
    "onnx": Kind("collapsekit.adapters.onnx", "ENC.onnx,DEC.onnx"),
    "flax": Kind("collapsekit.adapters.flax", "pkg.module:factory,FILE.msgpack", "flax"),
    "lightning": Kind("collapsekit.adapters.lightning", "pkg.module:Class,FILE.ckpt"),
    "keras": Kind("collapsekit.adapters.keras", "ENC.keras,DEC.keras", "keras"),
    "scvi": Kind("collapsekit.adapters.scvi", "DIR", "scvi"),
}
GROUP = "collapsekit.adapters"


@dataclass(frozen=True)
class Opened:
    """What a spec string named, opened before: workers open it by the string themselves."""

    spec: str
    adapter: Any
    samples: Samples | None = None


def as_adapter(
    model: Any, *, device: Any = None, trust_code: bool = False
) -> tuple[Any, Samples | None]:
    """Wrap a model, and bring the data that came with it, if any.

    Parameters
    ----------
    model : object
        A torch Module, a model of a library that has an adapter, an adapter, (encode, decode),
        encode alone, or a spec string.
    device : optional
        For torch modules.
    trust_code : bool
        Open files that execute code when they are read. Without it they are an error.

    Raises
    ------
    InputError
        It is none of these; a file would execute code and is not trusted.
    """
    if isinstance(model, Opened):
        return model.adapter, model.samples
    if isinstance(model, str | os.PathLike):
        return _from_spec(os.fspath(model), device, trust_code)
    kind = _kind_of(model)
    if kind is not None:
        adapter, samples = importlib.import_module(kind.module).wrap(model, device=device)
        return adapter, samples
    if is_grouped(model):
        from collapsekit.adapters.grouped_module import GroupedModule

        return (GroupedModule(model, device) if isinstance(model, nn.Module) else model), None
    if isinstance(model, nn.Module):
        from collapsekit.adapters.torch_module import TorchModule

        return TorchModule(model, device), None
    from collapsekit.adapters.functions import Functions

    if isinstance(model, tuple | list) and 1 <= len(model) <= 2:
        parts = [None if part is None else _callable(part) for part in model]
        if parts[0] is not None:
            return Functions(parts[0], *parts[1:]), None
    if callable(getattr(model, "encode", None)):
        return model, None
    if callable(model):
        return Functions(model), None
    raise InputError(
        "this is no model that can be audited",
        got=type(model).__name__,
        expected="a torch Module, an object with encode (and decode), a pair (encode, decode), or "
        "a spec string",
        remedy="pass the two callables: ck.audit((encode, decode), data)",
    )


def _kind_of(model: Any) -> Kind | None:
    """The kind that knows this object, by the library that its class, or a base, comes from."""
    packages = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    return next((kind for kind in KINDS.values() if kind.package in packages), None)


def _callable(part: Any) -> Callable[..., Any]:
    if not callable(part):
        raise InputError(
            "encode and decode have to be callable",
            got=type(part).__name__,
            expected="functions",
            remedy="pass the functions themselves, not their results",
        )
    return part  # type: ignore[no-any-return]


def _from_spec(spec: str, device: Any, trust_code: bool) -> tuple[Any, Samples | None]:
    kind, colon, rest = spec.partition(":")
    opener = _opener(kind) if colon else None
    if opener is not None:
        adapter, samples = opener(rest, device=device, trust_code=trust_code)
        return adapter, samples
    if colon and rest.isidentifier() and all(p.isidentifier() for p in kind.split(".")):
        return as_adapter(factory(spec)(), device=device)
    raise InputError(
        f"cannot read the model spec {spec!r}",
        got=spec,
        expected="pkg.module:factory, or " + ", ".join(f"{k}:{v.form}" for k, v in KINDS.items()),
        remedy="name a function that builds the model and loads its weights",
    )


def _opener(kind: str) -> Callable[..., Any] | None:
    if kind in KINDS:
        module = importlib.import_module(KINDS[kind].module)
    else:
        others = metadata.entry_points(group=GROUP, name=kind)
        if not others:
            return None
        module = next(iter(others)).load()
    return module.open_spec  # type: ignore[no-any-return]


__all__ = ["GROUP", "KINDS", "Kind", "Opened", "as_adapter"]
