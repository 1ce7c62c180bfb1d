"""Everything that a session has to give back as it was."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass
class State:
    """Flags, parameters, places, modes and random states at one moment."""

    modules: list[nn.Module]
    flags: list[bool]
    places: list[tuple[Any, Any]]
    values: list[Tensor]
    grad: bool
    dtype: torch.dtype
    rng: dict[str, Any]

    @classmethod
    def of(cls, adapter: Any) -> State:
        """The state of everything that an adapter holds."""
        roots = list(_reachable(adapter, 3))
        modules = list({id(m): m for root in roots for m in root.modules()}.values())
        tensors = [t for root in roots for t in (*root.parameters(), *root.buffers())]
        return cls(
            modules,
            [m.training for m in modules],
            [(t.device, t.dtype) for t in tensors],
            [t.detach().to("cpu", copy=True) for t in tensors],
            torch.is_grad_enabled(),
            torch.get_default_dtype(),
            {
                "torch's": torch.get_rng_state(),
                "NumPy's": np.random.get_state(),  # noqa: NPY002  kept, not drawn from
                "Python's": random.getstate(),
            },
        )

    def changes(self, now: State) -> Iterator[str]:
        """What is no longer as it was, a sentence each."""
        if self.flags != now.flags:
            n = sum(a != b for a, b in zip(self.flags, now.flags, strict=False))
            yield f"training flags: {n} modules were left in another mode"
        if self.places != now.places:
            yield "device: parameters were left on another device, or in another type"
        elif not all(equal(a, b) for a, b in zip(self.values, now.values, strict=False)) or len(
            self.values
        ) != len(now.values):
            yield "parameters: weights or buffers were changed (running statistics, most often)"
        if self.grad != now.grad:
            yield "gradient mode: it was left switched"
        if self.dtype != now.dtype:
            yield "type: torch's default type was left changed"
        for name, state in self.rng.items():
            if not _same_state(state, now.rng[name]):
                yield f"random state: {name} global generator was left elsewhere"

    def put_back(self) -> None:
        """So that one fault does not follow from another, nor outlive the check."""
        for module, flag in zip(self.modules, self.flags, strict=True):
            module.training = flag
        torch.set_grad_enabled(self.grad)
        torch.set_default_dtype(self.dtype)
        torch.set_rng_state(self.rng["torch's"])
        np.random.set_state(self.rng["NumPy's"])  # noqa: NPY002  as above
        random.setstate(self.rng["Python's"])


def _reachable(thing: Any, depth: int) -> Iterator[nn.Module]:
    """Modules in an object's own attributes, and in theirs."""
    if isinstance(thing, nn.Module):
        yield thing
    elif depth and hasattr(thing, "__dict__") and not isinstance(thing, type):
        for value in vars(thing).values():
            yield from _reachable(value, depth - 1)


def equal(a: Any, b: Any) -> bool:
    """Whether two structures hold the same values; NaN equals NaN."""
    if isinstance(a, Tensor):
        return a.shape == b.shape and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
    keys = a.keys() if hasattr(a, "keys") else range(len(a))
    return all(equal(a[k], b[k]) for k in keys if isinstance(a[k], Tensor))


def _same_state(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
