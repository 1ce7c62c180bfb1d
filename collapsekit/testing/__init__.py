"""The conformance kit for adapters: one call checks every law that an audit relies on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collapsekit.adapter import offers, session
from collapsekit.adapters import as_adapter
from collapsekit.door import Door
from collapsekit.errors import CollapsekitError, InputError
from collapsekit.groups import is_grouped
from collapsekit.posteriors import DiagonalGaussian
from collapsekit.readers import Encoded, as_tensor, recognised
from collapsekit.samples import Inputs, as_samples, concatenate, map_tensors, rows_of, take_rows
from collapsekit.testing.held import State, equal

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
        There are fewer than two samples, or the model has several groups of latents.

    Examples
    --------
    >>> from collapsekit.testing import check_adapter
    >>> check_adapter((lambda x: (x[:, :2], 0.5 + 0 * x[:, :2]), lambda z: z), torch.rand(8, 2))
    """
    found, brought = as_adapter(adapter)
    if is_grouped(found):
        raise InputError(
            "the kit checks models with one code",
            got="a hierarchical model: encode(x, draw)",
            expected="encode(x)",
            remedy="collapsekit doctor looks at a hierarchical model group by group; an audit "
            "checks that encode and generate have the same priors",
        )
    samples = as_samples(brought if data is None else data)
    first = next(samples.batches(_ROWS), None)
    if first is None or len(first.index) < 2:
        raise InputError(
            "the kit compares rows with each other",
            got=f"{0 if first is None else len(first.index)} samples",
            expected="at least two",
            remedy="hand in two samples or more",
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
        before = State.of(self.adapter)
        try:
            with session(self.adapter):
                self.laws()
        except Exception as error:
            self.faults.append(f"session: it failed with {_told(error)}")
        self.faults += before.changes(State.of(self.adapter))
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
        bad = ~encoded.good & ~encoded.flat
        if bool(bad.any()):
            self.faults.append(
                f"finite: the posterior has a parameter that is NaN or infinite in rows "
                f"{_rows(bad)}"
            )
        elif bool(encoded.flat.any()):
            told = "is it a log-variance, or a head without softplus?"
            if isinstance(encoded.posterior, DiagonalGaussian):
                scale = encoded.posterior.scale
                told = f"the least is {float(scale.min()):.3g}; {told}"
            self.faults.append(
                f"positive scale: {int(encoded.flat.sum())} of {len(encoded.flat)} rows have a "
                f"scale that is not above 0 ({told})"
            )
        raw = self.adapter.encode(_copied(self.x))
        if recognised(raw):  # the family says what type its codes are
            return
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
        if not equal(given, kept):
            self.faults.append("aliasing: encode wrote into its input")
        before = [t.clone() for t in _tensors(answer)]
        self.adapter.encode(take_rows(self.x, np.arange(rows_of(self.x))[::-1].copy()))
        if not all(equal(a, b) for a, b in zip(before, _tensors(answer), strict=True)):
            self.faults.append(
                "aliasing: a later call of encode overwrote what an earlier one returned; return a "
                "new array"
            )

    def log_likelihood(self, encoded: Encoded) -> None:
        rows = rows_of(self.x)
        code = self.door.code(encoded.posterior.centre)
        value = as_tensor(self.adapter.log_likelihood(self.x, code))
        if value.numel() != rows or not bool(torch.isfinite(value).all()):
            self.faults.append(
                f"log_likelihood: {tuple(value.shape)} for {rows} rows, or not finite; it has to "
                "be summed over everything but the rows"
            )

    # -- the decoder ---------------------------------------------------------------------------

    def decoder(self, encoded: Encoded) -> None:
        z = encoded.posterior.centre
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
        if not equal(as_tensor(code), kept):
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
        before = State.of(self.adapter)
        try:
            with session(self.adapter):
                _stop()
            self.faults.append("session: it swallows an error that is raised inside")
        except _Stop:
            pass
        except Exception as error:
            self.faults.append(f"session: it turns an error inside into {_told(error)}")
        self.faults += [
            f"after an error, {text}" for text in before.changes(State.of(self.adapter))
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
    if type(one) is not type(two):
        return f"the family: {one.describe()} and {two.describe()}"
    if isinstance(one, DiagonalGaussian):
        shift = (one.mean - two.mean).abs() / (one.scale.abs() + one.mean.abs()).clamp(min=1e-30)
        apart = [shift, (one.scale / two.scale).abs().log().abs()]
    else:  # a parameter against the largest of its row
        pairs = zip(one.tensors(), two.tensors(), strict=True)
        apart = [
            (p - q).abs().flatten(1) / p.abs().flatten(1).amax(dim=1, keepdim=True).clamp(min=1e-30)
            for p, q in ((p.double(), q.double()) for p, q in pairs)
        ]
    worst = max(float(torch.nan_to_num(t).max()) for t in apart)
    return f"{worst:.2g} of its size" if worst > tolerance else None


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return a.shape == b.shape and torch.allclose(
        a.double(), b.double(), rtol=tolerance, atol=tolerance * float(a.abs().max() or 1.0)
    )


def _tensors(answer: Any) -> list[Tensor]:
    """The arrays in an encoder's answer, where a later call could write to them."""
    if isinstance(answer, tuple | list):
        return [as_tensor(part) for part in answer if hasattr(part, "shape")]
    if isinstance(answer, torch.distributions.Distribution):
        inside = [v for k, v in sorted(vars(answer).items()) if k != "_validate_args"]
        found = [as_tensor(v) for v in inside if isinstance(v, Tensor)]
        parts = [v for v in inside if isinstance(v, torch.distributions.Distribution)]
        return found + [t for part in parts for t in _tensors(part)]
    names = ("mean", "stddev", "scale", "loc", "concentration", "kappa")
    values = [getattr(answer, name, None) for name in names]
    return [as_tensor(value) for value in values if hasattr(value, "shape")]


def _rows(mask: Tensor) -> str:
    return ", ".join(map(str, torch.nonzero(mask).flatten().tolist()[:5]))


def _told(error: BaseException) -> str:
    text = (
        error.what + (f"; got {error.got}" if error.got else "")
        if isinstance(error, CollapsekitError)
        else f"{type(error).__name__}: {error}"
    )
    return " ".join(text.split())[:300]
