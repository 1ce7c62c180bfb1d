"""The model's own sampler: whether its draws spread as wide as the declared posterior."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from collapsekit.adapter import offers
from collapsekit.adapters.evaluated import seeded
from collapsekit.adapters.own_sampler import SAMPLERS, OwnSampler, as_training, sampler_name
from collapsekit.adapters.reading import at
from collapsekit.doctor.case import Case
from collapsekit.doctor.encoder import Declared, reader_of
from collapsekit.errors import Unavailable
from collapsekit.readers import PARAMETERISATIONS, Encoded, as_tensor

_DRAWS = 64
_SIGMAS = 6.0  # how many standard errors apart two widths have to be
_SLACK = 0.02  # and how far, relatively: a model's own epsilon is no contradiction


def look(case: Case, encoded: Encoded | None, declared: Declared | None) -> None:
    """Draw, and hold the draws against the declared width."""
    if declared is not None:
        mean, what = declared.mean, declared.what
        widths = {name: f(declared.second).abs() for name, f in PARAMETERISATIONS.items()}
    else:
        assert encoded is not None
        what = encoded.posterior.describe()
        try:
            mean, widths = encoded.posterior.mean, {what: encoded.posterior.scale}
        except Unavailable:
            case.can("sampler", f"not compared: codes of {what} have no width")
            return
    found = _draws(case, mean, None if declared is None else declared.raw)
    if found is None:
        case.can(
            "sampler",
            "none that could be called",
            "whether the model samples with the width that it declares is not known",
        )
        return
    name, drawn = found  # [draws, rows, D]
    u = drawn - mean
    if float(u.abs().max()) == 0.0:
        case.can("sampler", f"{name} returns the mean: it draws nothing")
        return
    fits: list[str] = []
    ratios: dict[str, tuple[float, float]] = {}
    for kind, scale in widths.items():
        good = (torch.isfinite(scale) & (scale > 0)).all(dim=1)
        if not bool(good.any()):
            continue
        low, high, off = _spread(u[:, good] / scale[good])
        ratios[kind] = low, high
        if not off:
            fits.append(kind)
    low, high = ratios.get(what, (math.nan, math.nan))
    count = u.numel()
    case.can(
        "sampler",
        f"{name}: {count:,} draws, {low:.3f} to {high:.3f} of the declared standard deviation by "
        "dimension",
    )
    if what in fits:
        return
    case.fault(
        f"the model's own {name} draws with another width than the one declared ({what}): by "
        f"dimension its draws spread {low:.3f} to {high:.3f} times the declared standard deviation "
        f"(standard error {math.sqrt(mean.shape[1] / (2 * count)):.1g})"
        + _better(name, fits, declared)
    )


def _better(name: str, fits: list[str], declared: Declared | None) -> str:
    if declared is None:
        return ""
    if fits == ["scale"] and bool((declared.second < 0).any()):
        return (
            "; they fit mean + second * noise, although the second output is signed: the model "
            "multiplies its noise with what it calls a log-variance"
        )
    if fits:
        return (
            f"; they fit the second output read as {' or '.join(fits)}: declare "
            f'parameterisation="{fits[0]}", or mend {name}'
        )
    return "; they fit no reading of the second output"


def _spread(u: Tensor) -> tuple[float, float, bool]:
    """Least and largest standard deviation of standardised draws, and whether one is off 1.

    Judged in each dimension: widths that are wrong in both directions may average to 1. The error
    is that of the squares themselves, which no family fixes.
    """
    square = u.square().flatten(0, 1)
    each = square.mean(dim=0).sqrt()
    error = square.std(dim=0) / math.sqrt(len(square)) / (2 * each)
    off = (each - 1.0).abs() > (_SIGMAS * error).clamp(min=_SLACK)
    return float(each.min()), float(each.max()), bool(off.any())


# -- where draws come from -----------------------------------------------------------------------


def _draws(case: Case, mean: Tensor, raw: tuple[Any, Any] | None) -> tuple[str, Tensor] | None:
    """Draws of the model's own sampler, [draws, rows, D], and its name."""
    adapter, x = case.door.adapter, case.x
    module = getattr(adapter, "module", None)
    if offers(adapter, "sample_posterior"):
        name = sampler_name(module) if isinstance(module, nn.Module) else None
        found = _repeat(lambda: adapter.sample_posterior(x), mean)
        if found is not None:
            return name or "sample_posterior", found
    if isinstance(module, nn.Module):
        found_here = _of_module(case, module, mean, raw)
        if found_here is not None:
            return found_here
    reader = reader_of(case)
    if reader is None or reader.found is None:
        return None
    reading = reader.found[1]
    if reading.draw is not None:
        path = reading.draw
        found = _repeat(lambda: at(reader.answer(x), path), mean)
        return None if found is None else ("own draw", found)
    holder = at(reader.answer(x), reading.mean[:-1])
    draw = getattr(holder, "sample", None)
    if callable(draw) and not isinstance(holder, torch.distributions.Distribution | nn.Module):
        found = _repeat(draw, mean)
        return None if found is None else ("distribution's sample", found)
    return None


def _of_module(
    case: Case, module: nn.Module, mean: Tensor, raw: tuple[Any, Any] | None
) -> tuple[str, Tensor] | None:
    """By its forward pass where it has one; else its sampler is handed what encode returns."""
    held = getattr(case.door.adapter, "_held", None)
    moved = (lambda x: x) if held is None else held.moved
    still = None
    for name in (*SAMPLERS, "sample"):
        method = getattr(module, name, None)
        if not callable(method):
            continue
        found = _repeat(partial(OwnSampler(module, name, lambda _: mean, moved), case.x), mean)
        if found is None and raw is not None and type(module).forward is nn.Module.forward:
            found = _handed(module, method, raw, mean)
        if found is not None and float((found - mean).abs().max()) > 0:
            return name, found
        if found is not None and still is None:
            still = name, found
    return still


def _handed(
    module: nn.Module, method: Callable[..., Any], raw: tuple[Any, Any], mean: Tensor
) -> Tensor | None:
    args = tuple(map(as_tensor, raw))

    def once() -> Any:
        out = method(*args)
        return out[0] if isinstance(out, tuple | list) else out

    found = _repeat(once, mean)
    if found is not None and float((found - mean).abs().max()) > 0:
        return found
    with as_training(module):
        return _repeat(once, mean)


def _repeat(once: Callable[[], Any], mean: Tensor) -> Tensor | None:
    """Draws [draws, rows, D] under random states of their own; None where it draws no codes."""
    try:
        draws = [
            as_tensor(seeded(seed, once)).to(torch.float64).flatten(1) for seed in range(_DRAWS)
        ]
    except Exception:  # a method of that name with another purpose: sample(n), most often
        return None
    return torch.stack(draws) if draws[0].shape == mean.shape else None
