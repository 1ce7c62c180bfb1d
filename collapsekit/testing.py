"""The conformance kit for adapters: one call checks every law that an audit relies on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from collapsekit.adapter import offers, session
from collapsekit.adapters import as_adapter
from collapsekit.door import Door
from collapsekit.errors import CollapsekitError, InputError
from collapsekit.readers import Encoded, as_tensor
from collapsekit.samples import Inputs, as_samples, concatenate, map_tensors, rows_of, take_rows

_ROWS = 8
#: Relative difference that rounding may make between two batches, by the width of the type.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


class AdapterFault(CollapsekitError, AssertionError):
    """An adapter breaks one or more laws; each is told on a line of its own."""


def check_adapter(adapter: Any, data: Any = None, *, parameterisation: str = "scale") -> None:
    """Check an adapter against every law that an audit relies on.

    Shapes, types, finite values and positive scales; the same answer for the same rows, whatever
    batch they stand in; inputs and codes not written to, earlier answers not overwritten; a decoder
    that takes codes of the encoder's shape and answers in the target's; and a session that gives
    back training flags, parameters, device, gradient mode and random states as they were.

    Parameters
    ----------
    adapter : object
        Anything that `collapsekit.audit` takes.
    data : object
        A few samples; at least two, eight are used. What the model brings, otherwise.
    parameterisation : str
        As `audit`'s.

    Raises
    ------
    AdapterFault
        With one message per fault, all of those that were found.
    InputError
        There are fewer than two samples.

    Examples
    --------
    >>> from collapsekit.testing import check_adapter
    >>> check_adapter((lambda x: (x[:, :2], 0.5 + 0 * x[:, :2]), lambda z: z), torch.rand(8, 2))
    """
    found, brought = as_adapter(adapter)
    samples = as_samples(brought if data is None else data)
    first = next(samples.batches(_ROWS), None)
    if first is None or len(first.index) < 2:
        raise InputError(
            "the kit compares rows with each other",
            got=f"{0 if first is None else len(first.index)} samples",
            expected="at least two",
        )
    check = _Check(found, first.whole().x, parameterisation)
    check.run()
    if check.faults:
        raise AdapterFault(
            f"{len(check.faults)} fault(s) in {type(found).__name__}",
            got="\n            ".join(check.faults),
            expected="an adapter that keeps the laws of collapsekit.testing",
            remedy="see docs/adapters.md",
        )


@dataclass
class _Check:
    adapter: Any
    x: Inputs
    parameterisation: str
    faults: list[str] = field(default_factory=list)

    def run(self) -> None:
        before = _State.of(self.adapter)
        try:
            with session(self.adapter):
                self.laws()
        except Exception as error:
            self.faults.append(f"session: it failed with {_told(error)}")
        self.faults += before.changes(_State.of(self.adapter))
        before.put_back()
        self.after_an_error()
        self.words()

    def laws(self) -> None:
        self.door = Door(self.adapter, self.parameterisation)
        grad = torch.is_grad_enabled()
        try:
            encoded = self.encode(self.x)
        except Exception as error:
            self.faults.append(f"encode: no posterior of {rows_of(self.x)} rows: {_told(error)}")
            return
        if torch.is_grad_enabled() != grad:
            torch.set_grad_enabled(grad)
            self.faults.append(
                "gradient mode: encode left it switched; use torch.no_grad() as a context"
            )
        with torch.no_grad():
            self.values(encoded)
            if self.same(encoded):
                self.batches(encoded)
            self.writes()
            if offers(self.adapter, "log_likelihood"):
                self.log_likelihood(encoded)
            if offers(self.adapter, "decode"):
                self.decoder(encoded)
            try:
                self.door.priors(encoded.posterior, self.door.context(self.x))
            except CollapsekitError as error:
                self.faults.append(f"prior: it cannot be used: {_told(error)}")

    def encode(self, x: Inputs) -> Encoded:
        # A copy: one fault (writing into the input) must not show as another.
        return self.door.encode(_copied(x), "check")

    # -- the encoder ---------------------------------------------------------------------------

    def values(self, encoded: Encoded) -> None:
        mean, scale = encoded.posterior.mean, encoded.posterior.scale
        if not bool((torch.isfinite(mean) & torch.isfinite(scale)).all()):
            rows = _rows(~(torch.isfinite(mean) & torch.isfinite(scale)).all(dim=1))
            self.faults.append(f"finite: mean or scale is NaN or infinite in rows {rows}")
        elif bool((scale <= 0).any()):
            self.faults.append(
                f"positive scale: {int((scale <= 0).sum())} of {scale.numel()} scales are not "
                f"above 0 (the least is {float(scale.min()):.3g}); is it a log-variance, or a head "
                "without softplus?"
            )
        raw = self.adapter.encode(_copied(self.x))
        mean_of = raw[0] if isinstance(raw, tuple | list) else getattr(raw, "mean", None)
        if mean_of is not None and not as_tensor(mean_of).is_floating_point():
            self.faults.append(
                f"type: the means are {as_tensor(mean_of).dtype}, not floating; codes cast back to "
                "it would be rounded"
            )

    def same(self, encoded: Encoded) -> bool:
        worst = _apart(encoded, self.encode(self.x), self.tolerance)
        if worst is not None:
            self.faults.append(
                f"determinism: two calls of encode on the same rows differ by {worst}; it draws "
                "noise, or dropout is on"
            )
        return worst is None

    def batches(self, encoded: Encoded) -> None:
        rows = rows_of(self.x)
        try:
            alone = [self.encode(take_rows(self.x, [i])) for i in range(rows)]
        except Exception as error:
            self.faults.append(f"batch of one: encode fails on a single row: {_told(error)}")
            return
        order = np.arange(rows)[::-1].copy()
        others = self.encode(concatenate([take_rows(self.x, order), take_rows(self.x, order)]))
        for i in range(rows):
            mine = _row(encoded, i)
            for name, other in (
                ("alone", _row(alone[i], 0)),
                ("among others", _row(others, rows - 1 - i)),
            ):
                worst = _apart(mine, other, self.tolerance)
                if worst is not None:
                    self.faults.append(
                        f"batch independence: row {i} {name} has another posterior, by {worst}; "
                        "batch statistics are on, or rows are mixed"
                    )
                    return

    def writes(self) -> None:
        given, kept = _copied(self.x), _copied(self.x)
        answer = self.adapter.encode(given)
        if not _equal(given, kept):
            self.faults.append("aliasing: encode wrote into its input")
        before = [t.clone() for t in _tensors(answer)]
        self.adapter.encode(take_rows(self.x, np.arange(rows_of(self.x))[::-1].copy()))
        if not all(_equal(a, b) for a, b in zip(before, _tensors(answer), strict=True)):
            self.faults.append(
                "aliasing: a later call of encode overwrote what an earlier one returned; return a "
                "new array"
            )

    def log_likelihood(self, encoded: Encoded) -> None:
        rows = rows_of(self.x)
        code = self.door.code(encoded.posterior.mean)
        value = as_tensor(self.adapter.log_likelihood(self.x, code))
        if value.numel() != rows or not bool(torch.isfinite(value).all()):
            self.faults.append(
                f"log_likelihood: {tuple(value.shape)} for {rows} rows, or not finite; it has to "
                "be summed over everything but the rows"
            )

    # -- the decoder ---------------------------------------------------------------------------

    def decoder(self, encoded: Encoded) -> None:
        z = encoded.posterior.mean
        try:
            context = self.door.context(self.x)
            if context is not None and len(context) != len(z):
                self.faults.append(
                    f"context: {len(context)} rows for {len(z)} samples; it needs one a sample"
                )
                return
            output = self.decode(z, context)
        except Exception as error:
            self.faults.append(
                f"decode: it does not take codes of encode's shape "
                f"{tuple(self.door.latent_shape)}: {_told(error)}"
            )
            return
        if not bool(torch.isfinite(output).all()):
            self.faults.append("decode: the output is not finite for the posteriors' own means")
            return
        if not _close(output, self.decode(z, context), self.tolerance):
            self.faults.append("determinism: two calls of decode on the same codes differ")
            return
        try:
            one = self.decode(z[:1], None if context is None else context[:1])
        except Exception as error:
            self.faults.append(f"batch of one: decode fails on a single code: {_told(error)}")
        else:
            if not _close(output[:1], one, self.tolerance):
                self.faults.append(
                    "batch independence: decode's output for a code depends on the other codes"
                )
        code = self.door.code(z.clone())
        kept = as_tensor(code).clone()
        self.adapter.decode(code) if context is None else self.adapter.decode(code, context)
        if not _equal(as_tensor(code), kept):
            self.faults.append("aliasing: decode wrote into the codes")
        self.round_trip(output, context)

    def decode(self, z: Tensor, context: Any) -> Tensor:
        return self.door.mean(self.door.decode(z, context, "check")).clone()

    def round_trip(self, output: Tensor, context: Any) -> None:
        if not isinstance(self.x, Tensor) and not offers(self.adapter, "target"):
            return  # the audit tells that the input is not one array
        try:
            target = self.door.target(self.x)
        except CollapsekitError:
            return
        if output.shape != target.shape:
            self.faults.append(
                f"target: decode returns {tuple(output.shape)} where the data are "
                f"{tuple(target.shape)}"
            )
            return
        if isinstance(self.x, Tensor) or offers(self.adapter, "as_input"):
            try:
                self.encode(self.door.as_input(output, context))
            except Exception as error:
                self.faults.append(
                    f"as_input: a reconstruction is not something that encode takes: {_told(error)}"
                )

    # -- what surrounds them -------------------------------------------------------------------

    def after_an_error(self) -> None:
        before = _State.of(self.adapter)
        try:
            with session(self.adapter):
                _stop()
            self.faults.append("session: it swallows an error that is raised inside")
        except _Stop:
            pass
        except Exception as error:
            self.faults.append(f"session: it turns an error inside into {_told(error)}")
        self.faults += [
            f"after an error, {text}" for text in before.changes(_State.of(self.adapter))
        ]
        before.put_back()

    def words(self) -> None:
        notes = getattr(self.adapter, "notes", ())
        if isinstance(notes, str) or not all(isinstance(note, str) for note in notes):
            self.faults.append("notes: they have to be a tuple of sentences")
        if not isinstance(getattr(self.adapter, "description", ""), str):
            self.faults.append("description: it has to be a string")

    @property
    def tolerance(self) -> float:
        raw = self.adapter.encode(_copied(take_rows(self.x, slice(0, 2))))
        types = {t.dtype for t in _tensors(raw)}
        return max((_TOLERANCE.get(t, 2e-2) for t in types), default=1e-4)


class _Stop(Exception):
    pass


def _stop() -> None:
    raise _Stop


@dataclass
class _State:
    """Everything that a session has to give back."""

    modules: list[nn.Module]
    flags: list[bool]
    places: list[tuple[Any, Any]]
    values: list[Tensor]
    grad: bool
    dtype: torch.dtype
    rng: dict[str, Any]

    @classmethod
    def of(cls, adapter: Any) -> _State:
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

    def changes(self, now: _State) -> Iterator[str]:
        if self.flags != now.flags:
            n = sum(a != b for a, b in zip(self.flags, now.flags, strict=False))
            yield f"training flags: {n} modules were left in another mode"
        if self.places != now.places:
            yield "device: parameters were left on another device, or in another type"
        elif not all(_equal(a, b) for a, b in zip(self.values, now.values, strict=False)) or len(
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


def _copied(x: Inputs) -> Inputs:
    return map_tensors(lambda t: t.clone(), x)


def _row(encoded: Encoded, i: int) -> Encoded:
    one = slice(i, i + 1)
    return replace(
        encoded,
        posterior=encoded.posterior.take(one),
        good=encoded.good[one],
        flat=encoded.flat[one],
    )


def _apart(a: Encoded, b: Encoded, tolerance: float) -> str | None:
    """The difference in words, where it is more than rounding."""
    one, two = a.posterior, b.posterior
    shift = (one.mean - two.mean).abs() / (one.scale.abs() + one.mean.abs()).clamp(min=1e-30)
    ratio = (one.scale / two.scale).abs().log().abs()
    worst = max(float(torch.nan_to_num(t).max()) for t in (shift, ratio))
    return f"{worst:.2g} of its size" if worst > tolerance else None


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return a.shape == b.shape and torch.allclose(
        a.double(), b.double(), rtol=tolerance, atol=tolerance * float(a.abs().max() or 1.0)
    )


def _tensors(answer: Any) -> list[Tensor]:
    if isinstance(answer, tuple | list):
        return [as_tensor(part) for part in answer if hasattr(part, "shape")]
    names: Callable[[str], Any] = lambda name: getattr(answer, name, None)  # noqa: E731
    return [as_tensor(names(n)) for n in ("mean", "stddev", "scale") if hasattr(names(n), "shape")]


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return a.shape == b.shape and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
    keys = a.keys() if hasattr(a, "keys") else range(len(a))
    return all(_equal(a[k], b[k]) for k in keys if isinstance(a[k], Tensor))


def _same_state(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def _rows(mask: Tensor) -> str:
    return ", ".join(map(str, torch.nonzero(mask).flatten().tolist()[:5]))


def _told(error: BaseException) -> str:
    text = (
        error.what + (f"; got {error.got}" if error.got else "")
        if isinstance(error, CollapsekitError)
        else f"{type(error).__name__}: {error}"
    )
    return " ".join(text.split())[:300]
