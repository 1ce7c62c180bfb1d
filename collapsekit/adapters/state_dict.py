"""A file of torch weights and the function that builds the model: ``state_dict:pkg:factory,FILE``.

What the file lacks and what it holds beside the model's arrays is told: ``strict=False`` hides that
a checkpoint is the wrong one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from collapsekit.adapters.opening import existing, factory, load_into, load_weights, two_parts
from collapsekit.adapters.torch_module import TorchModule
from collapsekit.errors import InputError

#: Where training scripts keep the weights among other things.
_UNDER = ("state_dict", "model_state_dict", "model", "weights")


class Loaded(TorchModule):
    """A module with the weights of a file, and notes on how they fitted."""

    def __init__(self, module: nn.Module, loaded: tuple[str, ...], device: Any = None) -> None:
        super().__init__(module, device)
        self._loaded = loaded

    @property
    def notes(self) -> tuple[str, ...]:
        """What was missing, what was left over, and the module's own notes."""
        return (*self._loaded, *super().notes)


def open_spec(rest: str, *, device: Any = None, trust_code: bool = False) -> tuple[Loaded, None]:
    """Open ``pkg.module:factory,FILE`` (.pt, .pth, .bin, .ckpt or .safetensors).

    Raises
    ------
    InputError
        The file executes code and is not trusted; it holds no weights, or another model's.
    FileError
        It is missing or broken.
    """
    name, file = two_parts("state_dict", rest, "pkg.module:factory")
    path = existing(file, "weights file")
    held, notes = load_weights(path, trust_code)
    for key in _UNDER:
        inner = held.get(key) if isinstance(held, Mapping) else None
        if isinstance(inner, Mapping):
            held = inner
            break
    if not isinstance(held, Mapping) or not all(isinstance(v, Tensor) for v in held.values()):
        raise InputError(
            f"{path.name} does not hold a state dict",
            got=f"{type(held).__name__} with {', '.join(map(str, list(held)[:5]))}"
            if isinstance(held, Mapping)
            else type(held).__name__,
            expected="names and tensors, alone or under " + ", ".join(_UNDER),
            remedy="torch.save(model.state_dict(), FILE)",
        )
    module = factory(name)()
    if not isinstance(module, nn.Module):
        raise InputError(
            f"{name} does not build a torch Module",
            got=type(module).__name__,
            expected="nn.Module",
            remedy="name a function without arguments that returns the module",
        )
    notes = (*notes, *load_into(module, held, path))
    return Loaded(module, notes, device), None
