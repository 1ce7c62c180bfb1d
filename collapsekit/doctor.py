"""What an audit of a model could see, what it would assume, and where the model contradicts itself.

`inspect` runs the model on a few samples only. It looks for the mistakes that make every number of
an audit wrong without any error: a log-variance read as a scale, a sampler that uses another width
than the one that the KL is computed from, an output that is no probability.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from collapsekit.adapter import offers, session
from collapsekit.adapters import as_adapter
from collapsekit.adapters.evaluated import seeded
from collapsekit.adapters.reading import Reader, at, is_array
from collapsekit.door import Door
from collapsekit.errors import CollapsekitError, InputError
from collapsekit.posteriors import DiagonalGaussian
from collapsekit.readers import PARAMETERISATIONS, Encoded, as_tensor, pair
from collapsekit.samples import Inputs, as_samples, rows_of

_SAMPLERS = ("reparameterize", "reparametrize", "reparameterise", "reparametrise", "sample")
_ROWS = 64
_DRAWS = 64
_SIGMAS = 6.0  # how many standard errors apart two widths have to be
_SLACK = 0.02  # and how far, relatively: a model's own epsilon is no contradiction


@dataclass(frozen=True)
class Line:
    """One line of the table: a piece, what was found, and how to say otherwise."""

    piece: str
    found: str
    otherwise: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """What `inspect` found.

    Parameters
    ----------
    model, data : str
        What was looked at.
    capabilities : tuple of Line
        Each piece that a model can offer; `otherwise` says what is lost without it.
    assumptions : tuple of Line
        What an audit would assume; `otherwise` says how to declare something else.
    readings : tuple of Line
        The second output under each parameterisation: how many rows are usable, and the KL.
    faults : tuple of str
        Contradictions: numbers of an audit would be wrong.
    """

    model: str
    data: str
    capabilities: tuple[Line, ...]
    assumptions: tuple[Line, ...]
    readings: tuple[Line, ...]
    faults: tuple[str, ...]

    def __str__(self) -> str:
        blocks = [f"model  {self.model}\ndata   {self.data}"]
        blocks.append(_block("What can be seen", self.capabilities, "without it: "))
        blocks.append(_block("What is assumed", self.assumptions, "otherwise: "))
        if self.readings:
            blocks.append(_block("The second output, read as", self.readings, ""))
        if self.faults:
            told = "\n".join(f"  - {text}" for text in self.faults)
            blocks.append(f"Contradictions ({len(self.faults)}): an audit would be wrong\n{told}")
        else:
            blocks.append("Contradictions: none found")
        return "\n\n".join(blocks)


def _block(title: str, lines: tuple[Line, ...], lead: str) -> str:
    width = max((len(line.piece) for line in lines), default=0)
    rows = [title]
    for line in lines:
        rows.append(f"  {line.piece:<{width}}  {line.found}")
        if line.otherwise:
            rows.append(f"  {'':<{width}}    {lead}{line.otherwise}")
    return "\n".join(rows)


def inspect(
    model: Any,
    data: Any = None,
    *,
    parameterisation: str = "scale",
    likelihood: Any = None,
    prior: Any = None,
    device: Any = None,
    trust_code: bool = False,
) -> Diagnosis:
    """Look at a model before it is audited, on at most 64 samples.

    Parameters
    ----------
    model, data, parameterisation, likelihood, prior, device
        As `collapsekit.audit`'s.
    trust_code : bool
        As `collapsekit.adapters.as_adapter`'s.

    Returns
    -------
    Diagnosis
        ``print`` it.

    Raises
    ------
    InputError
        There is no data, or this is no model.
    ModelError
        The model has no posterior that could be read, or several.
    """
    adapter, brought = as_adapter(model, device=device, trust_code=trust_code)
    source = brought if data is None else data
    if source is None:
        raise InputError(
            "there is no data to look at the model with",
            got="data=None",
            expected="a few samples",
            remedy="pass data=...",
        )
    samples = as_samples(source)
    first = next(samples.batches(_ROWS), None)
    if first is None:
        raise InputError("the data hold no sample", got="N = 0", expected="at least one")
    door = Door(adapter, parameterisation, prior, likelihood)
    state = torch.get_rng_state()
    try:
        with torch.no_grad(), session(adapter):
            look = _Look(door, first.whole().x)
            look.all()
    finally:
        torch.set_rng_state(state)
    return Diagnosis(
        model=str(getattr(adapter, "description", type(adapter).__name__)),
        data=f"{samples.description}; looked at {rows_of(first.x)}",
        capabilities=tuple(look.capabilities),
        assumptions=tuple([*look.assumptions, *_noted(samples.notes, "data")]),
        readings=tuple(look.readings),
        faults=tuple(look.faults),
    )


def _noted(notes: Any, piece: str) -> list[Line]:
    return [Line(piece, note) for note in notes]


@dataclass
class _Look:
    door: Door
    x: Inputs
    capabilities: list[Line] = field(default_factory=list)
    assumptions: list[Line] = field(default_factory=list)
    readings: list[Line] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def all(self) -> None:
        adapter = self.door.adapter
        # First a posterior as the audit would take it, where it can; else the readings tell why.
        self.reader: Reader | None = getattr(adapter, "reader", None)
        answer = adapter.encode(self.x)
        mean, second, named = pair(answer)
        if self.reader is not None and self.reader.found is not None:
            mean, second = self.reader.raw(self.x)
        self.mean, self.second = (as_tensor(t).to(torch.float64).flatten(1) for t in (mean, second))
        self.raw = mean, second
        self.named = named
        self.what = self._declared()
        try:
            encoded: Encoded | None = self.door.encode(self.x, "doctor")
        except CollapsekitError as error:
            encoded = None
            self.faults.append(" ".join(str(error).split()))
        self._posterior(encoded)
        self._readings()
        self._randomness(encoded)
        self._sampler(encoded)
        self._decoder(encoded)
        self._others()
        self.assumptions += _noted(getattr(adapter, "notes", ()), "model")

    # -- the encoder ---------------------------------------------------------------------------

    def _declared(self) -> str:
        """What the second output is taken to hold."""
        if self.reader is not None and self.reader.found is not None:
            return self.reader.found[1].parameterisation or self.door.parameterisation
        return "scale" if self.named else self.door.parameterisation

    def _posterior(self, encoded: Encoded | None) -> None:
        shape = tuple(self.raw[0].shape[1:])
        kind = str(as_tensor(self.raw[0]).dtype).removeprefix("torch.")
        where = f"; {self.reader.told}" if self.reader is not None else ""
        self.capabilities.append(Line("encode", f"codes {shape}, {kind}{where}"))
        if encoded is not None and not bool(encoded.good.all()):
            bad = int((~encoded.good).sum())
            self.faults.append(
                f"{bad} of {len(encoded.good)} samples have a {self.what} that is not finite or "
                "not above 0; an audit would leave them out"
            )
        named = "named by the model" if self.named else "declared by parameterisation="
        otherwise = 'parameterisation="logvar", "log_scale", "variance" or "scale"'
        if self.named:
            otherwise = "TorchModule(model, parameterisation=...), or pass (encode, decode)"
        self.assumptions.append(
            Line("second output", f"{self.what}, {named}", otherwise),
        )
        negative = float((self.second < 0).double().mean())
        if self.what in ("scale", "variance") and negative > 0:
            as_scale, as_log = self.second.abs(), self.second
            kl_abs = _kl(self.mean, as_scale)
            kl_log = _kl(self.mean, torch.exp(0.5 * as_log))
            self.faults.append(
                f"{negative:.0%} of the second output is negative, so it is no {self.what}. Either "
                f'it holds log-variances (parameterisation="logvar": KL {kl_log:.4g} nats a '
                "sample), or its head has no positivity and the model samples with a signed scale "
                f"(collapsekit.adapters.signed.absolute_scale: KL {kl_abs:.4g} nats)"
            )

    def _readings(self) -> None:
        for name, transform in PARAMETERISATIONS.items():
            scale = transform(self.second)
            good = (torch.isfinite(scale) & (scale > 0)).all(dim=1)
            if not bool(good.any()):
                self.readings.append(Line(name, "usable in no row"))
                continue
            kl = _kl(self.mean[good], scale[good])
            mark = "  <- this" if name == self.what else ""
            self.readings.append(
                Line(
                    name,
                    f"usable in {int(good.sum())} of {len(good)} rows, median sd "
                    f"{float(scale[good].median()):.4g}, KL {kl:.4g} nats a sample{mark}",
                )
            )

    def _randomness(self, encoded: Encoded | None) -> None:
        if encoded is None:
            return
        again = self.door.encode(self.x, "doctor")
        if not torch.equal(
            torch.nan_to_num(encoded.posterior.mean), torch.nan_to_num(again.posterior.mean)
        ):
            self.faults.append(
                "two calls of the encoder on the same samples give different means: it draws noise"
            )

    # -- the sampler ---------------------------------------------------------------------------

    def _sampler(self, encoded: Encoded | None) -> None:
        found = self._draws()
        if found is None:
            self.capabilities.append(
                Line(
                    "sampler",
                    "none that could be called",
                    "whether the model samples with the width that it declares is not known",
                )
            )
            return
        name, drawn = found  # [draws, rows, D]
        u = drawn - self.mean
        if float(u.abs().max()) == 0.0:
            self.capabilities.append(Line("sampler", f"{name} returns the mean: it draws nothing"))
            return
        fits: list[str] = []
        ratios: dict[str, tuple[float, float]] = {}
        for kind, transform in PARAMETERISATIONS.items():
            scale = transform(self.second).abs()
            good = (torch.isfinite(scale) & (scale > 0)).all(dim=1)
            if not bool(good.any()):
                continue
            low, high, off = _spread(u[:, good] / scale[good])
            ratios[kind] = low, high
            if not off:
                fits.append(kind)
        low, high = ratios.get(self.what, (math.nan, math.nan))
        count = u.numel()
        told = (
            f"{name}: {count:,} draws, {low:.3f} to {high:.3f} of the declared standard "
            "deviation by dimension"
        )
        self.capabilities.append(Line("sampler", told))
        if self.what in fits:
            return
        better = (
            f"they fit the second output read as {' or '.join(fits)}: declare "
            f'parameterisation="{fits[0]}", or mend {name}'
            if fits
            else "they fit no reading of the second output"
        )
        if fits == ["scale"] and bool((self.second < 0).any()):
            better = (
                "they fit mean + second * noise, although the second output is signed: the model "
                "multiplies its noise with what it calls a log-variance"
            )
        self.faults.append(
            f"the model's own {name} draws with another width than the one declared "
            f"({self.what}): by dimension its draws spread {low:.3f} to {high:.3f} times the "
            "declared standard deviation (standard error "
            f"{math.sqrt(self.mean.shape[1] / (2 * count)):.1g}); {better}"
        )

    def _draws(self) -> tuple[str, Tensor] | None:
        """Draws of the model's own sampler, [draws, rows, D], and its name."""
        reader, module = self.reader, getattr(self.door.adapter, "module", None)
        if isinstance(module, nn.Module):
            for name in _SAMPLERS:
                sampler = getattr(module, name, None)
                if not callable(sampler):
                    continue
                for switch in (_as_it_is, _training):
                    drawn = self._call_sampler(module, name, sampler, switch)
                    if drawn is not None and float((drawn - self.mean).abs().max()) > 0:
                        return name, drawn
                if drawn is not None:
                    return name, drawn
        if reader is None or reader.found is None:
            return None
        reading = reader.found[1]
        if reading.draw is not None:
            path = reading.draw
            return "own draw", self._repeat(lambda: at(reader.answer(self.x), path))
        holder = at(reader.answer(self.x), reading.mean[:-1])
        draw = getattr(holder, "sample", None)
        if callable(draw) and not isinstance(holder, torch.distributions.Distribution | nn.Module):
            try:
                return "distribution's sample", self._repeat(draw)
            except Exception:
                return None
        return None

    def _call_sampler(
        self, module: nn.Module, name: str, sampler: Callable[..., Any], switch: Any
    ) -> Tensor | None:
        args = self._arguments(module, name, sampler) or tuple(map(as_tensor, self.raw))

        def once() -> Any:
            out = sampler(*args)
            return out[0] if isinstance(out, tuple | list) else out

        try:
            with switch(module):
                return self._repeat(once)
        except Exception:
            return None  # a method of that name with another purpose: sample(n), most often

    def _arguments(
        self, module: nn.Module, name: str, sampler: Callable[..., Any]
    ) -> tuple[Any, ...] | None:
        """What the model's own forward hands to its sampler."""
        seen: list[tuple[Any, ...]] = []

        def spy(*args: Any, **kwargs: Any) -> Any:
            seen.append((*args, *kwargs.values()))
            return sampler(*args, **kwargs)

        if isinstance(sampler, nn.Module):
            return None
        own = name in vars(module)
        kept = vars(module).get(name)
        held = getattr(self.door.adapter, "_held", None)
        try:
            object.__setattr__(module, name, spy)
            module(self.x if held is None else held.moved(self.x))
        except Exception:
            seen.clear()
        finally:
            if own:
                object.__setattr__(module, name, kept)
            else:
                object.__delattr__(module, name)
        first = seen[0] if seen else None
        if first is not None and is_array(first[0]) and len(first[0]) == len(self.mean):
            return first
        return None

    def _repeat(self, once: Callable[[], Any]) -> Tensor:
        draws = [
            as_tensor(seeded(seed, once)).to(torch.float64).flatten(1) for seed in range(_DRAWS)
        ]
        if draws[0].shape != self.mean.shape:
            raise ValueError("no draw of a code")
        return torch.stack(draws)

    # -- the decoder ---------------------------------------------------------------------------

    def _decoder(self, encoded: Encoded | None) -> None:
        lost = "swap gap, round trip, shuffle cost, decoder usage and reconstruction are skipped"
        if not offers(self.door.adapter, "decode"):
            self.capabilities.append(Line("decode", "none", lost))
            return
        if encoded is None:
            self.capabilities.append(Line("decode", "there; not tried without a posterior"))
            return
        try:
            context = self.door.context(self.x)
            output = self.door.decode(encoded.posterior.mean, context, "doctor")
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            self.capabilities.append(Line("decode", f"fails: {type(error).__name__}: {text}", lost))
            self.faults.append(f"decode fails on the posteriors' own means: {text}")
            return
        if isinstance(output, torch.distributions.Distribution):
            self.capabilities.append(
                Line("decode", f"a {type(output).__name__}: errors are in nats, from its log_prob")
            )
            return
        low, high = (float(v) for v in torch.aminmax(output.double()))
        self.capabilities.append(
            Line("decode", f"{tuple(output.shape[1:])}, values {low:.4g} to {high:.4g}")
        )
        self._likelihood(output, low, high)

    def _likelihood(self, output: Tensor, low: float, high: float) -> None:
        try:
            target = self.door.target(self.x).to(output.device).double()
        except CollapsekitError as error:
            self.capabilities.append(Line("target", f"not told: {error.what}", "no errors"))
            return
        if target.shape != output.shape:
            self.faults.append(
                f"decode returns {tuple(output.shape[1:])} where a sample is "
                f"{tuple(target.shape[1:])}: errors cannot be computed"
            )
        bottom, top = (float(v) for v in torch.aminmax(target))
        told = f"data {bottom:.4g} to {top:.4g}, outputs {low:.4g} to {high:.4g}"
        if self.door.likelihood is None and not offers(self.door.adapter, "log_likelihood"):
            fit = "bernoulli" if low >= 0 and high <= 1 and bottom >= 0 and top <= 1 else "gaussian"
            example = '"bernoulli"' if fit == "bernoulli" else '("gaussian", scale)'
            self.assumptions.append(
                Line("likelihood", f"none: squared error ({told})", f"likelihood={example}")
            )
            return
        self.assumptions.append(Line("likelihood", f"{self.door.likelihood} ({told})"))
        if str(self.door.likelihood).startswith("Bernoulli") and (bottom < 0 or top > 1):
            self.faults.append(f"a Bernoulli likelihood needs data in 0 to 1; {told}")

    def _others(self) -> None:
        adapter = self.door.adapter
        for piece, lost in (
            ("log_likelihood", "errors come from likelihood=, or are squared errors"),
            ("context", "decode is called with the code alone"),
            ("prior", "N(0, I) is assumed"),
        ):
            there = offers(adapter, piece)
            self.capabilities.append(
                Line(piece, "there" if there else "none", "" if there else lost)
            )
        if self.door.prior is None:
            self.assumptions.append(Line("prior", "N(0, I)", "prior=(mean, scale)"))


def _kl(mean: Tensor, scale: Tensor) -> float:
    """Mean KL to N(0, I) in nats a sample."""
    rows = DiagonalGaussian(mean, scale)
    standard = DiagonalGaussian(torch.zeros_like(mean[:1]), torch.ones_like(mean[:1]))
    return float(rows.kl(standard).sum(dim=1).mean())


def _spread(u: Tensor) -> tuple[float, float, bool]:
    """Least and largest standard deviation of standardised draws, and whether one is off 1.

    Judged in each dimension: widths that are wrong in both directions may average to 1.
    """
    each = u.square().mean(dim=(0, 1)).sqrt()
    bar = max(_SIGMAS / math.sqrt(2 * u.shape[0] * u.shape[1]), _SLACK)
    return float(each.min()), float(each.max()), bool(((each - 1.0).abs() > bar).any())


@contextmanager
def _as_it_is(module: nn.Module) -> Iterator[None]:
    yield


@contextmanager
def _training(module: nn.Module) -> Iterator[None]:
    # The module's own flag alone: samplers return the mean in evaluation mode, layers stay as set.
    was = module.training
    module.training = True
    try:
        yield
    finally:
        module.training = was


__all__ = ["Diagnosis", "Line", "inspect"]
