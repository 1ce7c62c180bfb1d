"""A torch module's own sampler, caught at work: what its forward pass draws it trains on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from collapsekit.adapters.reading import is_array
from collapsekit.errors import Unavailable
from collapsekit.samples import Inputs

#: Methods that draw a code, as everybody spells them. Not ``sample``: that mostly generates data.
SAMPLERS = ("reparameterize", "reparametrize", "reparameterise", "reparametrise")


def sampler_name(module: nn.Module) -> str | None:
    """The module's method that draws codes, where it has one and a forward pass to call it."""
    if getattr(type(module), "forward", None) is nn.Module.forward:
        return None
    methods = (name for name in SAMPLERS if callable(getattr(type(module), name, None)))
    return next(methods, None)


@contextmanager
def as_training(module: nn.Module) -> Iterator[None]:
    """The module's own flag alone is raised; its layers stay as they are.

    Many samplers return the mean in evaluation mode.
    """
    was = module.training
    module.training = True
    try:
        yield
    finally:
        module.training = was


class OwnSampler:
    """Draws by running the forward pass and keeping what the sampler returned.

    What the sampler is handed is the model's own business: a standard deviation here, a
    log-variance there. Calling it with anything else would test our guess.

    Parameters
    ----------
    module : nn.Module
    name : str
        Of its sampler.
    mean : callable
        From inputs to the declared posterior's means.
    moved : callable
        From inputs to what the module takes.
    """

    def __init__(
        self,
        module: nn.Module,
        name: str,
        mean: Callable[[Inputs], Tensor],
        moved: Callable[[Inputs], Inputs],
    ) -> None:
        self.module, self.name, self._mean, self._moved = module, name, mean, moved

    def __call__(self, x: Inputs) -> Tensor:
        """One code a row.

        Raises
        ------
        Unavailable
            The forward pass does not take these inputs, does not call the sampler, or calls it on
            something else than the declared means.
        """
        mean = self._mean(x)
        given, drawn = self._caught(x)
        if torch.equal(drawn, given) and not self.module.training:
            with as_training(self.module):
                given, drawn = self._caught(x)
        if given.shape != mean.shape or not torch.allclose(
            given.to(mean), mean, rtol=1e-3, atol=1e-4
        ):
            raise Unavailable(f"{self.name} is not called on the declared means")
        return drawn

    def _caught(self, x: Inputs) -> tuple[Tensor, Tensor]:
        """(what the sampler was given first, what it returned), of its first call."""
        own = getattr(self.module, self.name)
        calls: list[tuple[Any, Any]] = []

        def spy(*args: Any, **kwargs: Any) -> Any:
            out = own(*args, **kwargs)
            first = next(iter((*args, *kwargs.values())), None)
            calls.append((first, out[0] if isinstance(out, tuple | list) else out))
            return out

        kept = vars(self.module).get(self.name)
        try:
            object.__setattr__(self.module, self.name, spy)
            moved = self._moved(x)
            self.module(*moved) if isinstance(moved, tuple) else self.module(moved)
        except Exception as error:
            if not calls:
                raise Unavailable(
                    f"the forward pass failed: {type(error).__name__}: {error}"
                ) from error
        finally:
            if kept is None:
                object.__delattr__(self.module, self.name)
            else:
                object.__setattr__(self.module, self.name, kept)
        if not calls or not all(is_array(part) for part in calls[0]):
            raise Unavailable(f"the forward pass does not call {self.name}")
        given, drawn = calls[0]
        return given, drawn
