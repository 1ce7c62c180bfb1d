"""CollapseMonitor as a Lightning callback; imports no Lightning that was not imported before."""

from __future__ import annotations

import math
import sys
import warnings
from typing import Any

from collapsekit.errors import ModelError

__all__ = ["callback_class", "libraries_in_use"]

# One library under two names, with two Callback classes that do not know each other.
_LIBRARIES = ("lightning.pytorch", "pytorch_lightning")


def libraries_in_use() -> tuple[str, ...]:
    """Lightning's names that this process has imported."""
    return tuple(name for name in _LIBRARIES if hasattr(sys.modules.get(name), "Callback"))


def callback_class(plain: type[Any], libraries: tuple[str, ...]) -> type[Any]:
    """The monitor class `plain`, as a Callback of each of these libraries."""
    bases = [_Hooks, plain, *(sys.modules[name].Callback for name in libraries)]
    return type(plain.__name__, tuple(bases), {"__doc__": plain.__doc__, "plain": plain})


def _rebuilt(plain: Any, state: dict[str, Any]) -> Any:
    monitor = plain.__new__(plain)
    monitor.__dict__.update(state)
    return monitor


class _Hooks:
    """When the monitor looks, and where its values go."""

    plain: type[Any]
    model: Any
    history: dict[str, list[float]]
    check: Any
    due: Any
    _start_clock: Any

    def __reduce__(self) -> tuple[Any, ...]:  # the class is made while running: pickled by recipe
        return _rebuilt, (self.plain, self.__getstate__())

    # -- Lightning's names -------------------------------------------------------------------

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """The budget counts from here."""
        self._start_clock()

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Check where people look at validation curves."""
        if not trainer.sanity_checking:
            self._look(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Check where there is no validation."""
        self._look(trainer, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """The last state is always looked at; Lightning logs no more here, its loggers do."""
        values = self._values(trainer, pl_module, always=True)
        for logger in trainer.loggers if values else ():
            logger.log_metrics(values, step=trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """The history, so that a resumed training keeps its onset."""
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the history."""
        self.history = state_dict["history"]

    # -- ours --------------------------------------------------------------------------------

    def _look(self, trainer: Any, pl_module: Any) -> None:
        values = self._values(trainer, pl_module)
        if values:
            pl_module.log_dict(values, rank_zero_only=True)

    def _values(self, trainer: Any, pl_module: Any, *, always: bool = False) -> dict[str, float]:
        """The finite values of a check, where it is this process's turn, and time for one."""
        step = trainer.global_step
        # Validation and the end of its epoch come at one step.
        done = self.history.get("step", [None])[-1] == step
        if done or not trainer.is_global_zero or not (always or self.due()):
            return {}
        try:
            values = self.check(pl_module if self.model is None else self.model(pl_module), step)
        except ModelError as error:
            if not self.history:  # it never worked: the model is not what it was taken for
                raise
            # A training that diverges is not the monitor's to end.
            warnings.warn(f"no collapse check at step {step}: {error}", stacklevel=2)
            return {}
        return {f"collapse/{k}": v for k, v in values.items() if math.isfinite(v)}
