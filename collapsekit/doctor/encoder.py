"""The encoder: what its answer was read as, and what follows from other readings of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from collapsekit.adapters.reading import Reader
from collapsekit.doctor.case import Case, Line
from collapsekit.errors import CollapsekitError
from collapsekit.noise import Noise
from collapsekit.posteriors import DiagonalGaussian, divergence
from collapsekit.readers import PARAMETERISATIONS, Encoded, as_tensor, pair, recognised


@dataclass(frozen=True)
class Declared:
    """A mean and what stands beside it, as the model returns them.

    Parameters
    ----------
    raw : tuple
        Both, as they came.
    mean, second : Tensor, float64 [B, D]
    what : str
        What the second is taken to hold: a parameterisation.
    named : bool
        Whether the model itself says so.
    """

    raw: tuple[Any, Any]
    mean: Tensor
    second: Tensor
    what: str
    named: bool


def reader_of(case: Case) -> Reader | None:
    """What found the posterior in the answer of a torch module, or of another framework's."""
    found: Reader | None = getattr(case.door.adapter, "reader", None)
    return found


def look(case: Case) -> tuple[Encoded | None, Declared | None]:
    """The posterior as an audit would take it, where it can, and the pair that it is, if it is."""
    declared = None if case.group else _declared(case)
    try:
        encoded: Encoded | None = case.door.encode(case.x, "doctor")
    except CollapsekitError as error:
        if declared is None and not case.group:  # there is no other reading that could be told
            raise
        encoded = None
        case.fault(str(error))
    except Exception as error:
        if not case.group:
            raise
        encoded = None  # its prior is asked of generate: the other groups may do better
        case.fault(f"its posterior and prior could not be had: {type(error).__name__}: {error}")
    if encoded is None and declared is None:
        case.can("encode", "fails")
        return None, None
    _codes(case, encoded, declared)
    if declared is not None:
        _second(case, declared)
        _readings(case, declared)
    if encoded is not None:
        if declared is None:
            _family(case, encoded)
        again = case.door.encode(case.x, "doctor")
        if not encoded.posterior.same(again.posterior):
            what = "means" if declared is not None else "posteriors"
            case.fault(
                f"two calls of the encoder on the same samples give different {what}: it draws "
                "noise"
            )
    return encoded, declared


def _declared(case: Case) -> Declared | None:
    """The pair of arrays in the answer; None where it is a distribution of another family."""
    answer, reader = case.door.adapter.encode(case.x), reader_of(case)
    if recognised(answer):
        return None
    mean, second, named = pair(answer)
    what = "scale" if named else case.door.parameterisation
    if reader is not None and reader.found is not None:
        mean, second = reader.raw(case.x)
        what = reader.found[1].parameterisation or case.door.parameterisation
    centre, beside = (as_tensor(t).to(torch.float64).flatten(1) for t in (mean, second))
    return Declared((mean, second), centre, beside, what, named)


def _codes(case: Case, encoded: Encoded | None, declared: Declared | None) -> None:
    if declared is not None:
        first = as_tensor(declared.raw[0])
        shape, kind = tuple(first.shape[1:]), first.dtype
    else:
        assert encoded is not None
        shape, kind = encoded.codes.shape, encoded.codes.dtype
    reader = reader_of(case)
    where = f"; {reader.told}" if reader is not None and reader.told else ""
    case.can("encode", f"codes {shape}, {str(kind).removeprefix('torch.')}{where}")
    if encoded is not None and not bool(encoded.good.all()):
        bad = int((~encoded.good).sum())
        what = declared.what if declared is not None else "posterior"
        case.fault(
            f"{bad} of {len(encoded.good)} samples have a {what} that is not finite or not above "
            "0; an audit would leave them out"
        )


def _family(case: Case, encoded: Encoded) -> None:
    """A posterior that says itself what it is: its family, and its KL."""
    told = encoded.posterior.describe()
    if not encoded.good.any():
        case.assume("posterior", told)
        return
    rows = encoded.posterior.take(encoded.good)
    try:
        context = case.door.context(case.x)
        priors = case.door.priors(encoded.posterior, context)
        if priors.rows > 1:
            priors = priors.take(encoded.good)
        kl = divergence(rows, priors, Noise(0, "doctor", torch.arange(rows.rows)))
        told += f", KL {float(kl.total.mean()):.4g} nats a sample to the prior"
        if kl.error is not None:
            error = float(kl.error.square().sum().sqrt()) / rows.rows
            told += f" (Monte Carlo, standard error {error:.1g})"
    except CollapsekitError as error:
        case.fault(f"the prior cannot be used: {error}")
    case.assume("posterior", told)
    for note in encoded.notes:
        case.assume("posterior", note)


def _second(case: Case, declared: Declared) -> None:
    named = "named by the model" if declared.named else "declared by parameterisation="
    otherwise = 'parameterisation="logvar", "log_scale", "variance" or "scale"'
    if declared.named:
        otherwise = "TorchModule(model, parameterisation=...), or pass (encode, decode)"
    case.assume("second output", f"{declared.what}, {named}", otherwise)
    negative = float((declared.second < 0).double().mean())
    if declared.what in ("scale", "variance") and negative > 0:
        kl_abs = _kl(declared.mean, declared.second.abs())
        kl_log = _kl(declared.mean, torch.exp(0.5 * declared.second))
        case.fault(
            f"{negative:.0%} of the second output is negative, so it is no {declared.what}. Either "
            f'it holds log-variances (parameterisation="logvar": KL {kl_log:.4g} nats a '
            "sample), or its head has no positivity and the model samples with a signed scale "
            f"(collapsekit.adapters.signed.absolute_scale: KL {kl_abs:.4g} nats)"
        )


def _readings(case: Case, declared: Declared) -> None:
    for name, transform in PARAMETERISATIONS.items():
        scale = transform(declared.second)
        good = (torch.isfinite(scale) & (scale > 0)).all(dim=1)
        if not bool(good.any()):
            case.readings.append(Line(name, "usable in no row"))
            continue
        kl = _kl(declared.mean[good], scale[good])
        mark = "  <- this" if name == declared.what else ""
        case.readings.append(
            Line(
                name,
                f"usable in {int(good.sum())} of {len(good)} rows, median sd "
                f"{float(scale[good].median()):.4g}, KL {kl:.4g} nats a sample{mark}",
            )
        )


def _kl(mean: Tensor, scale: Tensor) -> float:
    """Mean KL to N(0, I) in nats a sample."""
    rows = DiagonalGaussian(mean, scale)
    standard = DiagonalGaussian(torch.zeros_like(mean[:1]), torch.ones_like(mean[:1]))
    return float(rows.kl(standard).sum(dim=1).mean())
