"""What the openers of files share: libraries, trust, weights, parts of a spec."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from collapsekit.errors import FileError, InputError


def library(name: str, extra: str) -> Any:
    """Import an optional library.

    Raises
    ------
    InputError
        It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{error.name} is not installed",
            got=f"a model that needs {name}",
            expected=f"the extra {extra!r}",
            remedy=f"pip install 'collapsekit[{extra}]'",
        ) from error


def needs_trust(path: str | os.PathLike[str], why: str) -> InputError:
    """The error for a file that would run code, where no trust was given."""
    return InputError(
        f"{os.fspath(path)} would execute code",
        got=why,
        expected="weights alone, as safetensors or a weights-only .pt file",
        remedy="if you trust whoever wrote it: --trust-code, or as_adapter(spec, trust_code=True)",
    )


def trusted(path: str | os.PathLike[str]) -> str:
    """The note for a file whose code was executed."""
    return f"code in {os.path.basename(os.path.normpath(path))} was executed (--trust-code)"


def factory(spec: str) -> Callable[[], Any]:
    """What ``package.module:name`` names: a function, or a finished object, as a function.

    Raises
    ------
    InputError
        There is no such module, or nothing of that name in it.
    """
    module, _, name = spec.partition(":")
    # The command line finds modules beside the caller, as `python -m` does.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"no module named {error.name!r}",
            got=spec,
            expected="a module that can be imported from here",
            remedy="run from the folder that holds it, or install it",
        ) from error
    except AttributeError:
        raise InputError(
            f"the module {module} has no {name}",
            got=spec,
            expected="a function, or a model, of that name",
            remedy="check the spelling",
        ) from None
    if isinstance(found, nn.Module) or not callable(found):
        return lambda: found
    return found  # type: ignore[no-any-return]


def two_parts(kind: str, rest: str, first: str) -> tuple[str, str]:
    """``FIRST,FILE`` of a spec ``KIND:FIRST,FILE``.

    Raises
    ------
    InputError
        There are not two parts.
    """
    name, comma, path = rest.partition(",")
    if not (name and comma and path):
        raise InputError(
            f"cannot read the model spec '{kind}:{rest}'",
            got=f"{kind}:{rest}",
            expected=f"{kind}:{first},FILE",
            remedy="name what builds the model, a comma, and the file with its weights",
        )
    return name, path


def existing(path: str, what: str, *, folder: bool = False) -> Path:
    """The path, which is there.

    Raises
    ------
    FileError
        It is not.
    """
    found = Path(path)
    if not (found.is_dir() if folder else found.is_file()):
        raise FileError(
            f"there is no {what} at {path}",
            got="nothing there" if not found.exists() else "a file" if folder else "a folder",
            expected=f"a {'folder' if folder else 'file'}",
            remedy="check the path; nothing is downloaded",
        )
    return found


def load_weights(path: Path, trust_code: bool) -> tuple[Any, tuple[str, ...]]:
    """What a .pt, .pth, .ckpt, .bin or .safetensors file holds, and notes.

    Raises
    ------
    InputError
        The file is a pickle that would execute code, and no trust was given.
    FileError
        It cannot be read.
    """
    if path.suffix == ".safetensors":
        return library("safetensors.torch", "diffusers").load_file(path), ()
    try:
        return torch.load(path, map_location="cpu", weights_only=True), ()
    except Exception as error:
        text = str(error)
        with path.open("rb") as file:
            known = file.read(2) in (b"PK", b"\x80\x02", b"\x80\x04")  # a zip file, or a pickle
        if not known or "weights_only" not in text:
            raise FileError(
                f"{path} cannot be read as weights",
                got=f"{type(error).__name__}: {' '.join(text.split())[:200]}",
                expected="a file that torch.save wrote, or .safetensors",
                remedy="check that the file is whole",
            ) from error
        if not trust_code:
            raise needs_trust(path, "a pickle with more than tensors and plain values") from error
    return torch.load(path, map_location="cpu", weights_only=False), (trusted(path),)


def load_into(module: nn.Module, weights: Mapping[str, Tensor], path: Path) -> tuple[str, ...]:
    """Load weights by name; what is missing or left over is told, since it changes the model.

    Raises
    ------
    InputError
        No name fits, or a shape does not.
    """
    own = module.state_dict()
    fitting = own.keys() & weights.keys()
    missing = sorted(own.keys() - fitting)
    unexpected = sorted(weights.keys() - fitting)
    if own and not fitting:
        raise InputError(
            f"no name in {path.name} is one of the model's",
            got=_names(unexpected),
            expected=_names(missing),
            remedy="check that file and factory belong together; a prefix such as 'module.' has "
            "to be taken off",
        )
    wrong = [n for n in sorted(fitting) if tuple(own[n].shape) != tuple(weights[n].shape)]
    if wrong:
        n = wrong[0]
        raise InputError(
            f"{len(wrong)} arrays in {path.name} have another shape than the model's",
            got=f"{n} {tuple(weights[n].shape)}",
            expected=f"{n} {tuple(own[n].shape)}",
            remedy="build the model with the settings that it was trained with",
        )
    module.load_state_dict({n: weights[n] for n in fitting}, strict=False)
    notes = []
    if missing:
        notes.append(
            f"{len(missing)} of the model's {len(own)} arrays are not in {path.name} and kept "
            f"the values of a fresh model: {_names(missing)}"
        )
    if unexpected:
        notes.append(
            f"{len(unexpected)} arrays in {path.name} have no place in the model and were left "
            f"out: {_names(unexpected)}"
        )
    return tuple(notes)


def _names(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f", ... ({len(names)} in all)" if len(names) > 5 else "")
