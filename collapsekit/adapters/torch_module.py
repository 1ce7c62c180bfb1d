"""A torch.nn.Module as an adapter: found methods, evaluation mode, everything restored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from collapsekit.errors import InputError
from collapsekit.samples import Inputs, map_tensors

_OPTIONAL = ("prior", "likelihood", "log_likelihood", "context", "target", "as_input")


class TorchModule:
    """A module with ``encode`` (or ``encoder``) and, where it has one, ``decode`` (``decoder``).

    While the audit runs the module is in evaluation mode, on `device` where one is given; flags and
    device are restored afterwards. Floating inputs are cast to the parameters' type.

    Parameters
    ----------
    module : nn.Module
    device : optional

    Raises
    ------
    InputError
        The module has no encoder.
    """

    def __init__(self, module: nn.Module, device: str | torch.device | None = None) -> None:
        self.module = module
        self._target = None if device is None else _device(device)
        self._encode = _method(module, "encode", "encoder")
        if self._encode is None:
            raise InputError(
                "the module has no encoder that could be found",
                got=type(module).__name__,
                expected="a method or submodule called encode or encoder",
                remedy="pass (encode, decode), two callables, instead of the module",
            )
        decode = _method(module, "decode", "decoder")
        if decode is not None:
            self._decode = decode
            self.decode = self._call_decode
        for name in _OPTIONAL:
            found = getattr(module, name, None)
            # A submodule called prior or context is a part of the network, not an answer to us.
            if found is not None and not isinstance(found, nn.Module):
                setattr(self, name, found)
        parameters = sum(p.numel() for p in module.parameters())
        self.description = f"{type(module).__name__} ({parameters:,} parameters)"
        training = any(m.training for m in module.modules())
        self.notes: tuple[str, ...] = (
            ("the model was in training mode and was put in evaluation mode for the audit",)
            if training
            else ()
        )

    @contextmanager
    def session(self) -> Iterator[None]:
        """Evaluation mode and device for the time of the audit."""
        flags = {module: module.training for module in self.module.modules()}
        home = _place(self.module)[0]
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

    def encode(self, x: Inputs) -> Any:
        """The module's posterior of a batch."""
        assert self._encode is not None
        return self._encode(self._moved(x))

    def _call_decode(self, z: Tensor, *context: Any) -> Any:
        return self._decode(self._moved(z), *context)

    def _moved(self, x: Inputs) -> Inputs:
        device, dtype = _place(self.module)

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)

        return map_tensors(move, x)


def _method(module: nn.Module, *names: str) -> Callable[..., Any] | None:
    for name in names:
        found = getattr(module, name, None)
        if callable(found):
            return found  # type: ignore[no-any-return]
    return None


def _place(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    for parameter in module.parameters():
        if parameter.is_floating_point():
            return parameter.device, parameter.dtype
    for buffer in module.buffers():
        if buffer.is_floating_point():
            return buffer.device, buffer.dtype
    return torch.device("cpu"), torch.get_default_dtype()


def _device(wanted: str | torch.device) -> torch.device:
    try:
        device = torch.device(wanted)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"the device {str(wanted)!r} cannot be used",
            got=" ".join(str(error).split())[:200],
            expected="cpu, or a device that this torch build and machine have",
            remedy="leave device out to run where the model is",
        ) from error
    return device
