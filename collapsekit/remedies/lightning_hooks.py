"""The LR loss in Lightning: warm-up by the trainer's own steps, and its parts in the logger.

    class Model(L.LightningModule):
        def __init__(self):
            ...
            self.lr = ck.remedies.LatentReconstruction(weight=5.0, beta=beta, noise=0.1)

        def training_step(self, x):
            ...
            return negative_elbo + self.lr(z, self.encode(self.lr.perturb(x_hat))[0])

    L.Trainer(callbacks=[ck.remedies.lightning_callback(warmup=0.25)])

Imports no Lightning before it is called.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from functools import cache
from typing import Any

import torch

from collapsekit.errors import InputError
from collapsekit.remedies.lr_loss import Components, LatentReconstruction

__all__ = ["lightning_callback"]

# One library under two names, with two Callback classes that do not know each other.
_LIBRARIES = ("lightning.pytorch", "pytorch_lightning")


def lightning_callback(warmup: float | None = None, prefix: str = "lr/") -> Any:
    """Lightning callback that warms up and logs every LatentReconstruction of the model.

    Parameters
    ----------
    warmup : float, optional
        Share of all optimiser steps over which the weight rises, in [0, 1]; it replaces the
        modules' ``warmup_steps``. None leaves those as they are.
    prefix : str
        Of the logged names.

    Returns
    -------
    lightning.pytorch.Callback (or pytorch_lightning's, where only that is in use)
        Per step, through ``pl_module.log_dict``, so to whatever logger there is: ``loss`` (weight
        included, nats), ``weight``, ``cost`` (sum over dimensions, squared latent units) and
        ``unread``: the share of dimensions that cost no less than if the decoder ignored them.
        Modules other than the first carry their own name in the prefix.

    Raises
    ------
    InputError
        Lightning is not installed, or a warm-up outside [0, 1].

    Notes
    -----
    When training starts the steps are taken from the trainer's first optimiser, so that neither
    gradient accumulation nor a gradient scaler's left-out steps disturb the count, and resumed
    training goes on where it stopped. A ``step`` that is handed to the module wins.
    """
    if warmup is not None and not 0.0 <= warmup <= 1.0:
        raise InputError(
            "warmup cannot be used",
            got=repr(warmup),
            expected="a share of all optimiser steps in [0, 1], or None",
            remedy="0.25 to 0.5 is good; a number of steps is LatentReconstruction's warmup_steps",
        )
    return _callback(_in_use())(warmup, prefix)


class _Hooks:
    """What the callback does; it becomes a Callback by inheriting the library's class as well."""

    def __init__(self, warmup: float | None, prefix: str) -> None:
        super().__init__()
        self.warmup, self.prefix = warmup, prefix
        self.found: dict[str, LatentReconstruction] = {}

    def __reduce__(self) -> tuple[Any, ...]:  # the class is made while running: pickled by recipe
        return (lightning_callback, (self.warmup, self.prefix))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Find the modules, set their warm-up, follow the optimiser."""
        modules = [
            (name, module)
            for name, module in pl_module.named_modules()
            if isinstance(module, LatentReconstruction)
        ]
        if not modules:
            raise InputError(
                "the model has no LatentReconstruction to follow",
                got=type(pl_module).__name__,
                expected="a LatentReconstruction among its submodules",
                remedy="self.lr = LatentReconstruction(...) in its __init__",
            )
        self.found = {
            self.prefix + (f"{name}/" if place else ""): module
            for place, (name, module) in enumerate(modules)
        }
        for module in self.found.values():
            if self.warmup is not None:
                module.warmup_steps = int(self.warmup * _total_steps(trainer))
            module.follow(trainer.optimizers[0])

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the parts of the last loss; tensors, so that nothing waits for a device."""
        for prefix, module in self.found.items():
            if module.components is not None:
                pl_module.log_dict({prefix + k: v for k, v in _told(module.components).items()})


def _told(parts: Components) -> dict[str, Any]:
    cost = torch.cat([group.flatten() for group in parts.cost])
    ignored = torch.cat([group.flatten() for group in parts.ignored_cost])
    return {
        "loss": parts.loss,
        "weight": parts.weight,
        "cost": cost.sum(),
        "unread": (cost >= ignored).float().mean(),
    }


def _total_steps(trainer: Any) -> float:
    total = float(trainer.estimated_stepping_batches)
    if not math.isfinite(total):
        raise InputError(
            "a warm-up by share needs a training of known length",
            got="a trainer without max_steps or max_epochs",
            expected="one of the two",
            remedy="pass warmup=None and set warmup_steps on LatentReconstruction",
        )
    return total


def _in_use() -> tuple[str, ...]:
    """The library's names that this process has imported; else the first that is installed."""
    loaded = tuple(name for name in _LIBRARIES if name in sys.modules)
    if loaded:
        return loaded
    for name in _LIBRARIES:
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            return (name,)
    raise InputError(
        "Lightning is not installed",
        got="neither lightning nor pytorch_lightning",
        expected="one of them",
        remedy='pip install "collapsekit[lightning]"',
    )


@cache
def _callback(libraries: tuple[str, ...]) -> type[Any]:
    bases = tuple(importlib.import_module(name).Callback for name in libraries)
    return type("LatentReconstructionCallback", (_Hooks, *bases), {"__doc__": _Hooks.__doc__})
