"""Torch modules with several groups of latents: encode(x, draw) and generate(draw, n, context)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from collapsekit.adapters.evaluated import Evaluated
from collapsekit.samples import Inputs

_OPTIONAL = ("likelihood", "context", "target", "as_input")


class GroupedModule:
    """A hierarchical torch module in evaluation mode, on its device, in its floating type.

    Parameters
    ----------
    module : nn.Module
        With ``encode(x, draw)`` and ``generate(draw, n, context)``; see `groups.GroupedAdapter`.
    device : optional
    """

    def __init__(self, module: nn.Module, device: str | torch.device | None = None) -> None:
        self.module: Any = module
        self._held = Evaluated(module, device)
        for name in _OPTIONAL:
            found = getattr(module, name, None)
            if found is not None and not isinstance(found, nn.Module):
                setattr(self, name, found)
        if callable(getattr(module, "log_likelihood", None)):
            self.log_likelihood = self._log_likelihood
        self.description, self.notes = self._held.description, self._held.notes

    def session(self) -> AbstractContextManager[None]:
        """Evaluation mode and device for the time of the audit."""
        return self._held.session()

    def encode(self, x: Inputs, draw: Any) -> None:
        """The module's own pass."""
        self._held.call(self.module.encode, self._held.moved(x), draw)

    def generate(self, draw: Any, n: int, context: Any) -> Any:
        """The module's own generation."""
        return self._held.call(self.module.generate, draw, n, context)

    def _log_likelihood(self, x: Inputs, draw: Any) -> Any:
        return self._held.call(self.module.log_likelihood, self._held.moved(x), draw)
