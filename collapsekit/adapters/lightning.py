"""Lightning checkpoints: ``lightning:pkg.module:Class,FILE.ckpt``.

A LightningModule at hand is a torch module like any other. A checkpoint holds weights and the
hyperparameters that its class is built with; it is read with torch's weights-only reader.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn

from collapsekit.adapters.opening import existing, factory, load_into, load_weights, two_parts
from collapsekit.adapters.state_dict import Loaded
from collapsekit.errors import InputError, ModelError


def open_spec(rest: str, *, device: Any = None, trust_code: bool = False) -> tuple[Loaded, None]:
    """Open ``pkg.module:Class,FILE.ckpt``; a function that builds the module does as well.

    Raises
    ------
    InputError
        The checkpoint holds pickled objects and is not trusted; it is none; it is another model's.
    FileError
        It is missing or broken.
    ModelError
        The class cannot be built from the checkpoint's hyperparameters.
    """
    name, file = two_parts("lightning", rest, "pkg.module:Class")
    path = existing(file, "checkpoint")
    held, notes = load_weights(path, trust_code)
    weights = held.get("state_dict") if isinstance(held, Mapping) else None
    if not isinstance(weights, Mapping):
        raise InputError(
            f"{path.name} is no Lightning checkpoint",
            got=", ".join(map(str, list(held)[:5]))
            if isinstance(held, Mapping)
            else type(held).__name__,
            expected="state_dict, among others",
            remedy=f"state_dict:{name},{file} reads plain weights",
        )
    build = factory(name)
    module = _built(build, held.get("hyper_parameters") or {}, name)
    hook = getattr(module, "on_load_checkpoint", None)
    if callable(hook):
        hook(held)
    notes = (*notes, *load_into(module, weights, path))
    return Loaded(module, notes, device), None


def _built(build: Any, hyper: Mapping[str, Any], name: str) -> nn.Module:
    # As Lightning does it: only what the constructor takes, unless it takes anything.
    given = dict(hyper)
    parameters = inspect.signature(build).parameters.values()
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        given = {p.name: hyper[p.name] for p in parameters if p.name in hyper}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = build(**given)
    except TypeError as error:
        raise ModelError(
            f"{name} cannot be built from the checkpoint's hyperparameters",
            got=f"{error}; the checkpoint holds {', '.join(hyper) or 'none'}",
            expected="self.save_hyperparameters() in the constructor",
            remedy="name a function without arguments that builds the module instead of its class",
        ) from error
    if not isinstance(module, nn.Module):
        raise InputError(
            f"{name} does not build a torch Module",
            got=type(module).__name__,
            expected="nn.Module",
            remedy="name a class of lightning.LightningModule, or a function that returns one",
        )
    return module
