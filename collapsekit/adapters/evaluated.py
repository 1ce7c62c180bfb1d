"""A torch module held as an audit needs it: evaluation mode, device, types; then restored."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from collapsekit.errors import ModelError
from collapsekit.samples import Inputs, map_tensors

_TORCH = Path(torch.__file__).parent
_CUDA = ("not compiled with CUDA", "NVIDIA driver", "No CUDA GPUs", "on the same device")


class Evaluated:
    """A module for the time of an audit.

    Parameters
    ----------
    module : nn.Module
    device : optional
        Where it runs during a session; where it is by default.
    """

    def __init__(self, module: nn.Module, device: str | torch.device | None = None) -> None:
        self.module = module
        self._target = None if device is None else torch.device(device)
        parameters = sum(p.numel() for p in module.parameters())
        self.description = f"{type(module).__name__} ({parameters:,} parameters)"
        self.notes: tuple[str, ...] = ()
        if any(m.training for m in module.modules()):
            self.notes = (
                "the model was in training mode and was put in evaluation mode for the audit",
            )

    @contextmanager
    def session(self) -> Iterator[None]:
        """Evaluation mode and device; flags, device and random state come back as they were."""
        flags = {module: module.training for module in self.module.modules()}
        home = place(self.module)[0]
        state = torch.get_rng_state()
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        try:
            self.module.eval()
            if self._target is not None:
                self.module.to(self._target)
            yield
        finally:
            if self._target is not None:
                self.module.to(home)
            for module, flag in flags.items():
                module.training = flag
            torch.set_rng_state(state)
            if cuda is not None:
                torch.cuda.set_rng_state_all(cuda)

    def moved(self, x: Inputs) -> Inputs:
        """Inputs on the module's device, in its floating type, strides in their plain order."""
        device, dtype = place(self.module)

        def move(tensor: Tensor) -> Tensor:
            return plain(tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype))

        return map_tensors(move, x)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a part of the module.

        Raises
        ------
        ModelError
            It moves tensors to CUDA by itself; anything else it raises is passed on.
        """
        try:
            return function(*args)
        except (RuntimeError, AssertionError) as error:
            if not any(text in str(error) for text in _CUDA):
                raise
            raise _wired(error) from error


def plain(tensor: Tensor) -> Tensor:
    """The tensor with the strides of its shape.

    With one channel an array can count as contiguous and as channels-last at once; convolutions
    then answer in channels-last, and a stranger's ``.view(len(x), -1)`` raises. `contiguous` does
    nothing about it.
    """
    stride, right = 1, True
    for size, step in zip(reversed(tensor.shape), reversed(tensor.stride()), strict=True):
        right = right and step == stride
        stride *= max(size, 1)
    return tensor if right else tensor.clone(memory_format=torch.contiguous_format)


def place(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and type of the module's first floating parameter, or buffer."""
    for tensors in (module.parameters(), module.buffers()):
        for tensor in tensors:
            if tensor.is_floating_point():
                return tensor.device, tensor.dtype
    return torch.device("cpu"), torch.get_default_dtype()


def seeded(seed: int, call: Callable[[], Any]) -> Any:
    """A call under a random state of its own, which is put back."""
    state = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        torch.manual_seed(seed)
        return call()
    finally:
        torch.set_rng_state(state)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


def _wired(error: BaseException) -> ModelError:
    where = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if _TORCH not in Path(frame.filename).parents and frame.line:
            where = f"{Path(frame.filename).name}, line {frame.lineno}: {frame.line.strip()}"
    return ModelError(
        "the model puts tensors on a device by itself",
        got=f"{str(error).splitlines()[0][:160]}; {where}",
        expected="tensors made on the device of the input",
        remedy="write .to(x.device) there instead of .cuda(), or audit with device='cuda' where "
        "there is one",
    )
