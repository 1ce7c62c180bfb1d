"""Hierarchical models: several named groups of latents, audited one at a time.

A group is seen as a conditional model. Its condition are the other groups, drawn from the sample's
own posteriors by noise keyed on (seed, group, sample): the codes of those above it, and the noise
of those below, (z - prior mean) / prior scale. So its prior is the model's own given the groups
above, and where its code is changed the groups below follow by their own priors. With their codes
held instead, a decoder that reads only the lowest group would seem to ignore all others.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from collapsekit.adapter import offers
from collapsekit.door import Door
from collapsekit.errors import InputError, ModelError, Unavailable
from collapsekit.noise import Noise
from collapsekit.posteriors import DiagonalGaussian, Family
from collapsekit.readers import Codes, Encoded, as_tensor, pair, read_posterior
from collapsekit.samples import Inputs, rows_of


class Draw(Protocol):
    """Where a hierarchical model gets its codes from: all of its randomness goes through here."""

    def __call__(self, name: str, first: Any, second: Any = None, /) -> Any:
        """``draw(name, posterior, prior)`` while encoding, ``draw(name, prior)`` else."""
        ...


@runtime_checkable
class GroupedAdapter(Protocol):
    """A hierarchical model: named groups of latents, from the top down.

    Optional attributes as an Adapter's: likelihood, context, target, as_input, session,
    description, notes; and, for decoders that see the input, ``log_likelihood(x, draw) -> [B]`` in
    nats, which draws as `generate` does.
    """

    def encode(self, x: Any, draw: Draw, /) -> None:
        """Call ``z = draw(name, posterior, prior)`` for every group, each in terms of those above.

        Posteriors and priors are (mean, scale) pairs, or torch distributions, a row a sample.
        """
        ...

    def generate(self, draw: Draw, n: int, context: Any, /) -> Any:
        """``z = draw(name, prior)`` for every group in the same order; the output of n rows."""
        ...


def is_grouped(model: Any) -> bool:
    """Whether a model offers encode(x, draw) and generate(draw, n, context), by those names."""

    def takes_draw(method: Any, place: int) -> bool:
        try:
            names = list(inspect.signature(method).parameters)
        except (TypeError, ValueError):
            return False
        return len(names) > place and names[place] == "draw"

    return takes_draw(getattr(model, "encode", None), 1) and takes_draw(
        getattr(model, "generate", None), 0
    )


def names_of(adapter: GroupedAdapter, x: Inputs, parameterisation: str) -> tuple[str, ...]:
    """The groups that encoding draws, in order.

    Raises
    ------
    ModelError
        There is none, or one is drawn twice.
    """
    seen: dict[str, Read] = {}
    adapter.encode(x, _Recorder(seen, rows_of(x), parameterisation, 0, None))
    if not seen:
        raise ModelError(
            "the model drew no group of latents",
            got="encode never called draw",
            expected="z = draw(name, posterior, prior) for every group",
            remedy="call draw in encode, once for each group from the top down",
        )
    return tuple(seen)


@dataclass(frozen=True)
class Read:
    """What was drawn for one group: the posterior, its prior, and the codes."""

    encoded: Encoded
    prior: Any
    z: Tensor


@dataclass
class _Recorder:
    """Draws every group from its posterior and keeps what it saw.

    The group `own` is drawn as an observation draws it: the groups below it belong to that code.
    """

    seen: dict[str, Read]
    rows: int
    parameterisation: str
    seed: int
    index: Tensor | None
    own: str = ""
    held: Mapping[str, Tensor] = field(default_factory=dict)  # codes that are there already

    def __call__(self, name: str, first: Any, second: Any = None, /) -> Any:
        if name in self.seen:
            raise ModelError(
                f"the group {name!r} was drawn twice in one pass",
                expected="one draw a group",
                remedy="give each draw a name of its own",
                got=f"a second draw({name!r}, ...)",
            )
        encoded = read_posterior(first, self.rows, self.parameterisation)
        index = torch.arange(self.rows) if self.index is None else self.index
        stream = "posterior" if name == self.own else f"group/{name}"
        noise = Noise(self.seed, stream, index.to(encoded.posterior.device))
        z = self.held[name] if name in self.held else encoded.posterior.draw(noise)[0]
        # A stand-in where the posterior is no distribution: the groups below must not stumble.
        z = torch.where(encoded.good[:, None], z, 0.0)
        self.seen[name] = Read(encoded, second, z)
        return encoded.codes(z)


class _Reached(Exception):
    """The group whose prior was asked for has been reached: the rest of the pass is not needed."""

    def __init__(self, prior: Any) -> None:
        self.prior = prior


@dataclass
class Given:
    """One group's part of the condition: its codes, or the noise by which they follow."""

    shape: Codes
    value: Tensor
    follows: bool = False

    def code(self, prior: Any) -> Any:
        """The code as the model takes it, given its prior's rows as the model returned them."""
        if not self.follows:
            return self.shape(self.value)
        mean, scale, _ = pair(prior)
        # Attached: derivatives of the output go through the groups below.
        rows = [t if isinstance(t, Tensor) else as_tensor(t) for t in (mean, scale)]
        wide, spread = (t.to(self.value).reshape(self.value.shape) for t in rows)
        return self.shape(wide + spread * self.value)


@dataclass
class _Replay:
    """Gives out codes that are already there; stops at one group where its prior is wanted."""

    given: Mapping[str, Given]
    stop: str | None = None

    def __call__(self, name: str, first: Any, second: Any = None, /) -> Any:
        if name == self.stop:
            raise _Reached(first)
        if name not in self.given:
            raise ModelError(
                f"generate draws a group that encode does not: {name!r}",
                expected=", ".join(self.given),
                remedy="draw the same groups in both, by the same names",
                got=name,
            )
        return self.given[name].code(first)


@dataclass
class GroupDoor(Door):
    """One group of a hierarchical model behind the door; the other groups are its condition.

    Parameters
    ----------
    group : str
    names : tuple of str
        All groups, from the top down.
    seed : int
        Of the other groups' draws.
    """

    group: str = ""
    names: tuple[str, ...] = ()
    seed: int = 0
    shapes: dict[str, Codes] = field(default_factory=dict)
    own_shape: tuple[int, ...] = ()
    own_dtype: torch.dtype = torch.float64
    stuck: str = ""  # a group below that cannot follow
    _checked: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.prior = None

    def _pass(
        self, x: Inputs, index: Any, held: Mapping[str, Tensor] | None = None
    ) -> dict[str, Read]:
        seen: dict[str, Read] = {}
        at = None if index is None else torch.as_tensor(index)
        recorder = _Recorder(
            seen, rows_of(x), self.parameterisation, self.seed, at, self.group, held or {}
        )
        self.adapter.encode(x, recorder)
        if tuple(seen) != self.names:
            raise ModelError(
                "the model draws other groups for other samples",
                got=", ".join(seen),
                expected=", ".join(self.names),
                remedy="draw every group for every batch, in the same order",
            )
        self.shapes = {name: read.encoded.codes for name, read in seen.items()}
        return seen

    def encode(self, x: Inputs, stream: str, index: Any = None) -> Encoded:
        """The group's posterior given draws of the groups above it."""
        self.passes[f"{stream}: encode"] += rows_of(x)
        seen = self._pass(x, index)
        encoded = self._encoded(seen)
        self._learn_codes(encoded)
        if not self._checked and bool(encoded.good.all()):
            self._checked = True
            self._compare(seen, self.context(x, index))
        return encoded

    def encode_again(self, x: Inputs, context: Any, stream: str, index: Any) -> Encoded:
        """The posterior given the groups above as they were when `x` was decoded.

        Drawn anew, their own way through decoder and encoder would be in this group's.
        """
        self.passes[f"{stream}: encode"] += rows_of(x)
        given = {} if context is None else self._given(context)[0]
        held = {name: part.value for name, part in given.items() if not part.follows}
        return self._encoded(self._pass(x, index, held))

    def _encoded(self, seen: Mapping[str, Read]) -> Encoded:
        encoded = seen[self.group].encoded
        # A row whose other groups are not finite has no posterior to speak of.
        good = torch.stack([read.encoded.good for read in seen.values()]).all(dim=0)
        return Encoded(
            encoded.posterior, good, encoded.flat, encoded.codes, encoded.problem, encoded.notes
        )

    def _compare(self, seen: dict[str, Read], context: Tensor) -> None:
        declared, rows = seen[self.group].prior, len(context)
        posterior = seen[self.group].encoded.posterior
        if declared is None:
            return
        told = read_posterior(declared, rows, "scale").posterior
        used = self._rows_of_prior(posterior, context)
        if type(told) is not type(used) or not told.same(used, 1e-3, 1e-4):
            raise ModelError(
                f"the prior of group {self.group!r} differs between encode and generate",
                got="another distribution for the same codes of the groups above",
                expected="one prior given the groups above",
                remedy="compute the prior by the same function in encode and in generate",
            )

    @property
    def one_prior(self) -> bool:
        """Only the top group of a model without a condition has one prior for all samples."""
        return self.group == self.names[0] and not offers(self.adapter, "context")

    def prior_for(self, posterior: Family) -> Family:
        """The top group's prior, as one row."""
        if self.one_prior and self.prior_row is None:
            empty = torch.zeros(1, self._width(), dtype=torch.float64, device=posterior.device)
            self.prior_row = self._rows_of_prior(posterior, empty)
        return super().prior_for(posterior)

    def priors(self, posterior: Family, context: Any) -> Family:
        """The rows' priors given the groups above."""
        if self.one_prior:
            return self.prior_for(posterior)
        return self._rows_of_prior(posterior, context)

    def _rows_of_prior(self, posterior: Family, context: Tensor) -> Family:
        rows = len(context)
        given, own = self._given(context)
        found = read_posterior(self._prior_of(self.group, given, rows, own), rows, "scale")
        if not bool(found.good.all()) or found.posterior.dims != posterior.dims:
            raise InputError(
                f"the prior of group {self.group!r} cannot be used",
                got=f"{int(found.good.sum())} of {rows} rows usable, {found.posterior.dims} "
                "dimensions",
                expected=f"a finite distribution over {posterior.dims} dimensions a row",
                remedy="hand draw a finite (mean, scale), or a torch distribution, a row a sample",
            )
        return found.posterior.to(posterior.device)

    def _prior_of(self, group: str, given: Mapping[str, Given], rows: int, own: Any) -> Any:
        """What generate draws a group from, given those above it."""
        try:
            self.adapter.generate(_Replay(given, group), rows, own)
        except _Reached as reached:
            return reached.prior
        raise ModelError(
            f"generate never draws the group {group!r}",
            expected=", ".join(self.names),
            remedy="draw the same groups in encode and in generate, by the same names",
            got="generate returned without it",
        )

    # -- the condition: the other groups side by side, then the model's own ------------------------

    @property
    def about(self) -> str:
        """Below the top group, noise of the groups above counts as what the codes tell."""
        top = self.group == self.names[0]
        return super().about if top else f"{super().about} and the groups above it, together"

    @property
    def given(self) -> str:
        """A group's bounds are given the drawn codes of the groups above it."""
        if self.group != self.names[0]:
            return "; of ln p(x) given the codes of the groups above"
        return super().given if offers(self.adapter, "context") else ""

    @property
    def deepest(self) -> bool:
        """Whether no group is drawn below this one."""
        return self.group == self.names[-1]

    @property
    def conditional(self) -> bool:
        """The other groups are a condition; a model of one group may have none."""
        return len(self.names) > 1 or offers(self.adapter, "context")

    def _others(self) -> list[tuple[str, int]]:
        widths = [(name, math.prod(self.shapes[name].shape)) for name in self.names]
        return [(name, width) for name, width in widths if name != self.group]

    def _width(self) -> int:
        return sum(width for _, width in self._others())

    def _below(self, name: str) -> bool:
        return self.names.index(name) > self.names.index(self.group)

    def context(self, x: Inputs, index: Any = None) -> Any:
        """Codes of the groups above, noise of those below, float64 [B, W]; then the model's own."""
        seen = self._pass(x, index)
        own, rows = self.condition(x), rows_of(x)
        drawn = {name: Given(read.encoded.codes, read.z) for name, read in seen.items()}
        parts = []
        for name, read in seen.items():
            if self._below(name):
                parts.append(self._noise_of(name, read, drawn, rows, own))
            elif name != self.group:
                parts.append(read.z)
        if own is not None:
            flat = torch.as_tensor(own)
            self.own_shape, self.own_dtype = tuple(flat.shape[1:]), flat.dtype
            parts.append(flat.to(torch.float64).reshape(rows, -1))
        return torch.cat(parts, dim=1) if parts else None

    def _noise_of(
        self, name: str, read: Read, drawn: Mapping[str, Given], rows: int, own: Any
    ) -> Tensor:
        """By how many of its prior's widths a lower group's code is off its prior's mean."""
        told = read.prior
        if told is None:
            told = self._prior_of(name, drawn, rows, own)
        law = read_posterior(told, rows, "scale").posterior
        if not isinstance(law, DiagonalGaussian):
            self.stuck = name
            return read.z
        noise = (read.z - law.mean) / law.scale
        return torch.where(torch.isfinite(noise), noise, 0.0)

    def _given(self, context: Tensor) -> tuple[dict[str, Given], Any]:
        given, at = {}, 0
        for name, width in self._others():
            part = context[:, at : at + width]
            given[name] = Given(self.shapes[name], part, self._below(name))
            at += width
        if not offers(self.adapter, "context"):
            return given, None
        return given, context[:, at:].reshape(-1, *self.own_shape).to(self.own_dtype)

    def as_input(self, reconstruction: Tensor, context: Any = None) -> Inputs:
        """A reconstruction as something that the encoder takes, under the model's own condition."""
        if not offers(self.adapter, "context"):
            return super().as_input(reconstruction)
        return super().as_input(reconstruction, self._given(context)[1])

    def _replay(self, z: Tensor, context: Any) -> tuple[_Replay, Any]:
        if self.stuck:
            raise Unavailable(
                f"the group {self.stuck!r} below {self.group!r} cannot follow its code",
                got="a prior that is no diagonal Gaussian",
                expected="(mean, scale), so that its noise can be held while its prior moves",
                remedy="see the group below for what the decoder reads",
            )
        given, own = self._given(z.new_zeros(len(z), 0) if context is None else context)
        given[self.group] = Given(self.shapes[self.group], z)
        return _Replay(given), own

    def decode_attached(self, z: Tensor, context: Any) -> Any:
        """The model's output from the group's codes, the groups below following."""
        replay, own = self._replay(z, context)
        output = self.adapter.generate(replay, len(z), own)
        if output is None:
            raise Unavailable("generate returns no output", expected="an array with a row a code")
        return output

    def log_likelihood(self, x: Inputs, z: Tensor, context: Any) -> Any:
        """ln p(x | all groups' codes) by the model itself, the groups below following."""
        return self.adapter.log_likelihood(x, self._replay(z, context)[0])
