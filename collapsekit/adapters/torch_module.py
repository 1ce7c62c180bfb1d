"""A torch.nn.Module as an adapter: found methods, evaluation mode, everything restored."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from collapsekit.adapters.evaluated import Evaluated, seeded
from collapsekit.adapters.own_sampler import OwnSampler, sampler_name
from collapsekit.adapters.reading import Reader, is_array
from collapsekit.errors import InputError, ModelError, Unavailable
from collapsekit.readers import as_tensor
from collapsekit.samples import Inputs

_OPTIONAL = (
    "prior",
    "likelihood",
    "log_likelihood",
    "context",
    "target",
    "as_input",
    "sample_posterior",
)
_OUTPUTS = ("reconstruction", "recon_x", "recon", "x_hat", "x_recon", "sample", "logits", "output")
_INPUTS = ("x", "data", "image", "images", "input", "inputs", "pixel_values")


class TorchModule:
    """A module as strangers write them: its posterior is found, its state restored.

    The posterior is read from ``encode``, ``encoder`` or ``forward``, the first whose answer shows
    mean and scale (see `collapsekit.adapters.reading`); the decoder is ``decode`` or ``decoder``.
    Where encode or decode takes a second argument the model is conditional: data are then a mapping
    or tuple of two, the input and the condition. While the audit runs the module is in evaluation
    mode, on `device` where one is given. Floating inputs are cast to the parameters' type.

    Parameters
    ----------
    module : nn.Module
    device : optional
    parameterisation : {"scale", "variance", "logvar", "log_scale"}, optional
        What the second output really holds, where its name says something else.

    Raises
    ------
    InputError
        The module has nothing that could be an encoder.
    """

    def __init__(
        self,
        module: nn.Module,
        device: str | torch.device | None = None,
        parameterisation: str | None = None,
    ) -> None:
        self.module = module
        self._held = Evaluated(module, device)
        encoders = _encoders(module)
        if not encoders:
            raise InputError(
                "the module has no encoder that could be found",
                got=type(module).__name__,
                expected="a method or submodule called encode or encoder, or a forward",
                remedy="pass (encode, decode), two callables, instead of the module",
            )
        self._decode = _method(module, "decode", "decoder")
        if self._decode is not None:
            self.decode = self._call_decode
        self._takes = {name: _parameters(call) for name, call in encoders.items()}
        self.reader = Reader(
            {name: self._caller(name, call) for name, call in encoders.items()},
            parameterisation,
            seeded,
        )
        first = next(iter(self._takes.values()))
        self._decoder_takes = _parameters(self._decode) if self._decode else ((), 0)
        if len(first[0]) > 1 or len(self._decoder_takes[0]) > 1:
            self.context: Callable[..., Any] = self._context
            self.target: Callable[..., Any] = lambda x: self._split(x)[0]
            self.as_input: Callable[..., Any] = self._rejoined
        sampler = sampler_name(module)
        if sampler is not None:
            self.sample_posterior: Callable[..., Any] = OwnSampler(
                module, sampler, self._means, self._held.moved
            )
        for name in _OPTIONAL:
            found = getattr(module, name, None)
            # A submodule called prior or context is a part of the network, not an answer to us.
            if found is not None and not isinstance(found, nn.Module):
                setattr(self, name, found)
        self.description = self._held.description

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done to the model, and how its posterior is read where that was not plain."""
        found = self.reader.found
        told: tuple[str, ...] = ()
        if found is not None and not (
            found[0] in ("encode", "encoder") and found[1].mean == (0,) and found[1].second == (1,)
        ):
            told = (self.reader.told,)
        return (*self._held.notes, *told)

    def session(self) -> AbstractContextManager[None]:
        """Evaluation mode and device for the time of the audit."""
        return self._held.session()

    def encode(self, x: Inputs) -> Any:
        """The module's posterior of a batch."""
        return self.reader(x)

    def _means(self, x: Inputs) -> Tensor:
        return as_tensor(self.reader.raw(x)[0])

    def _caller(self, name: str, call: Callable[..., Any]) -> Callable[[Inputs], Any]:
        takes, required = self._takes[name]

        def run(x: Inputs) -> Any:
            if len(takes) < 2 and not hasattr(self, "context"):
                return self._held.call(call, self._held.moved(x))
            inputs, condition = self._split(x)
            inputs = self._held.moved(inputs)
            if len(takes) < 2 or (condition is None and required < 2):
                return self._held.call(call, inputs)
            if condition is None:
                raise InputError(
                    f"the model's {name} takes a condition, and the data hold none",
                    got=f"{name}({', '.join(takes)}) and data of one array",
                    expected="the input and its condition, row by row",
                    remedy=f'data={{"x": inputs, "{takes[1]}": condition}}; from a shell --data '
                    f"FILE.npz:x,{takes[1]}, arrays of one file",
                )
            return self._held.call(call, inputs, self._held.moved(condition))

        return run

    # -- conditional models --------------------------------------------------------------------

    def _split(self, x: Inputs) -> tuple[Any, Any]:
        """(input, condition or None)."""
        if isinstance(x, Tensor):
            return x, None
        takes = next(iter(self._takes.values()))[0]
        if isinstance(x, Mapping):
            main = next((k for k in (*takes[:1], *_INPUTS) if k in x), None)
            others = [k for k in x if k != main]
            wanted = (*takes[1:2], *self._decoder_takes[0][1:2])
            others = [k for k in others if k in wanted] or others
            if main is not None and len(others) == 1:
                return x[main], x[others[0]]
        elif len(x) == 2:
            return x[0], x[1]
        raise InputError(
            "input and condition cannot be told apart",
            got=f"data with the parts {', '.join(map(str, x))}"
            if isinstance(x, Mapping)
            else f"data with {len(x)} parts",
            expected="two parts: the input, called x, and its condition",
            remedy='data={"x": inputs, "c": condition}, or an adapter with context(x); from a '
            "shell --data FILE.npz:x,c",
        )

    def _context(self, x: Inputs) -> Any:
        condition = self._split(x)[1]
        return None if condition is None else self._held.moved(condition)

    def _rejoined(self, output: Tensor, context: Any = None) -> Inputs:
        return output if context is None else (output, context)

    def _ask_for_condition(self, name: str) -> NoReturn:
        """The decoder cannot be called without a condition, and the data hold none."""
        call = "the model's decoder takes more than a code, and the data hold no more"
        got = f"decode({', '.join(self._decoder_takes[0])}) and data of one array"
        if hasattr(self, "log_likelihood"):  # which measures the decoder without calling it
            raise Unavailable(call, got=got, expected="a decoder of codes alone")
        forced = (
            "a decoder that is fed the input itself (teacher forcing): give the model "
            "log_likelihood(x, z) in nats a sample and no decode, as examples/audit_text_vae.py "
            "does"
        )
        known = (*next(iter(self._takes.values()))[0][:1], *_INPUTS)
        raise InputError(
            call,
            got=got,
            expected="the input and its condition, row by row, or a decoder of codes alone",
            remedy=forced
            if name in known
            else f'a condition: data={{"x": inputs, "{name}": condition}}, from a shell --data '
            f"FILE.npz:x,{name}; {forced}",
        )

    # -- the decoder ---------------------------------------------------------------------------

    def _call_decode(self, z: Tensor, *context: Any) -> Any:
        assert self._decode is not None
        takes, required = self._decoder_takes
        if required > 1 and not context:
            self._ask_for_condition(takes[1])
        # One argument: only the encoder is conditional. None at all: it cannot be told (*args).
        given = context if len(takes) != 1 else ()
        answer = self._held.call(self._decode, self._held.moved(z), *given)
        return output_of(answer)


def output_of(answer: Any) -> Any:
    """The reconstruction in a decoder's answer.

    Raises
    ------
    ModelError
        There are several readings.
    """
    if is_array(answer) or isinstance(answer, torch.distributions.Distribution):
        return answer
    if isinstance(answer, tuple | list) and len(answer) == 1:
        return output_of(answer[0])
    fields = answer if isinstance(answer, Mapping) else None
    if fields is not None or not isinstance(answer, tuple | list):
        for name in _OUTPUTS:
            found = fields.get(name) if fields is not None else getattr(answer, name, None)
            if is_array(found):
                return found
    raise ModelError(
        "the decoder returns several things, and which is the reconstruction is not said",
        got=f"{type(answer).__name__} of {len(answer)}"
        if hasattr(answer, "__len__")
        else type(answer).__name__,
        expected="one array or torch Distribution. Two arrays may be a mean and a scale (errors "
        "are then likelihoods in nats), or a reconstruction and something beside it (errors are "
        "then of the first alone)",
        remedy="pass (encode, decode), with decode returning torch.distributions.Normal(mean, "
        "scale), or the reconstruction alone",
    )


def _encoders(module: nn.Module) -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {}
    for name in ("encode", "encoder"):
        part = getattr(module, name, None)
        if callable(part):
            found[name] = part
    if getattr(type(module), "forward", None) is not nn.Module.forward:
        found["forward"] = module
    return found


def _method(module: nn.Module, *names: str) -> Callable[..., Any] | None:
    for name in names:
        found = getattr(module, name, None)
        if callable(found):
            return found  # type: ignore[no-any-return]
    return None


def _parameters(call: Callable[..., Any]) -> tuple[tuple[str, ...], int]:
    """Names of the positional parameters, and how many are required."""
    try:
        signature = inspect.signature(call.forward if isinstance(call, nn.Module) else call)
    except (TypeError, ValueError):
        return (), 0
    positional = [
        p
        for p in signature.parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    required = [p for p in positional if p.default is p.empty]
    # A second parameter with a default that is no None is a switch, not a condition.
    conditions = [p for p in positional if p.default is p.empty or p.default is None]
    return tuple(p.name for p in conditions), len(required)


__all__ = ["TorchModule", "output_of"]
