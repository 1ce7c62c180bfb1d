"""Adapters: whatever is handed in, made into something with `encode`. One file a kind."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from torch import nn

from collapsekit.errors import InputError
from collapsekit.samples import Samples

#: Spec kinds, ``KIND:REST``: module and function that opens REST; imported only when asked for.
KINDS: dict[str, tuple[str, str]] = {
    "posteriors": ("collapsekit.adapters.posteriors_file", "open_posteriors"),
}


def as_adapter(model: Any, *, device: Any = None) -> tuple[Any, Samples | None]:
    """Wrap a model, and bring the data that came with it, if any.

    Parameters
    ----------
    model : object
        A torch Module, an adapter, (encode, decode), encode alone, or a spec string.
    device : optional
        For torch modules.

    Raises
    ------
    InputError
        It is none of these.
    """
    if isinstance(model, str | os.PathLike):
        return _from_spec(os.fspath(model), device)
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


def _callable(part: Any) -> Callable[..., Any]:
    if not callable(part):
        raise InputError(
            "encode and decode have to be callable",
            got=type(part).__name__,
            expected="functions",
            remedy="pass the functions themselves, not their results",
        )
    return part  # type: ignore[no-any-return]


def _from_spec(spec: str, device: Any) -> tuple[Any, Samples | None]:
    kind, colon, rest = spec.partition(":")
    if colon and kind in KINDS:
        module, name = KINDS[kind]
        adapter, samples = getattr(importlib.import_module(module), name)(rest)
        return adapter, samples
    if colon and rest.isidentifier() and all(p.isidentifier() for p in kind.split(".")):
        return as_adapter(_factory(kind, rest)(), device=device)
    raise InputError(
        f"cannot read the model spec {spec!r}",
        got=spec,
        expected="pkg.module:factory, or " + ", ".join(f"{k}:FILE" for k in KINDS),
        remedy="name a function that builds the model and loads its weights",
    )


def _factory(module: str, name: str) -> Callable[[], Any]:
    # The command line finds modules beside the caller, as `python -m` does.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"no module named {error.name!r}",
            got=f"{module}:{name}",
            expected="a module that can be imported from here",
            remedy="run from the folder that holds it, or install it",
        ) from error
    except AttributeError:
        raise InputError(
            f"the module {module} has no {name}",
            got=f"{module}:{name}",
            expected="a function, or a model, of that name",
            remedy="check the spelling",
        ) from None
    if isinstance(found, nn.Module) or not callable(found):
        return lambda: found
    return found  # type: ignore[no-any-return]


__all__ = ["KINDS", "as_adapter"]
