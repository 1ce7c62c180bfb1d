"""Where a posterior stands in what a stranger's encoder returns: found by name or by evidence.

A name is a declaration: a field called ``logvar`` holds log-variances. Places in a tuple are found
by what the members do, never by habit alone: a draw changes from call to call, a reconstruction has
the input's shape. What neither settles is an error that gives the readings and what follows from
each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from collapsekit.errors import CollapsekitError, InputError, ModelError
from collapsekit.readers import PARAMETERISATIONS, as_tensor, recognised
from collapsekit.readers import inner as inner_of
from collapsekit.samples import Inputs, rows_of

#: Names of a mean, the likelier first.
MEANS = ("mean", "mu", "z_mean", "z_mu", "mean_z", "mu_z", "q_mu", "qz_mean", "loc")
#: Names of what stands beside it, and what each declares.
SECONDS: Mapping[str, str] = {
    **dict.fromkeys(("std", "stddev", "scale", "sigma", "z_std", "z_sigma", "z_scale"), "scale"),
    **dict.fromkeys(("logvar", "log_var", "z_log_var", "z_logvar", "logvar_z"), "logvar"),
    **dict.fromkeys(("log_var_z", "log_variance", "log_covariance", "lnvar"), "logvar"),
    **dict.fromkeys(("log_sigma2", "logsigma2", "log_sigma_sq"), "logvar"),
    **dict.fromkeys(("var", "variance", "z_var", "qz_var"), "variance"),
    **dict.fromkeys(
        ("log_std", "logstd", "log_scale", "log_sigma", "logsigma", "log_stddev"), "log_scale"
    ),
}
_HOLDERS = ("latent_dist", "posterior", "q_z", "qz", "dist", "distribution")

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Named:
    """A posterior whose scale is known: the door takes ``stddev`` as it is."""

    mean: Any
    stddev: Any


@dataclass(frozen=True)
class Reading:
    """Where mean and scale stand in an answer.

    Parameters
    ----------
    mean, second : Path
        Keys, attributes or positions, from the outside in.
    parameterisation : str or None
        What `second` is declared to hold; None for a bare pair, which the caller declares.
    told : str
        The same in words, for the report.
    draw : Path, optional
        Where the answer holds a draw from the posterior.
    whole : bool
        Whether what stands at `mean` is a distribution of another family, which the door reads.
    """

    mean: Path
    second: Path
    parameterisation: str | None
    told: str
    draw: Path | None = None
    whole: bool = False

    def raw(self, answer: Any) -> tuple[Any, Any]:
        """(mean, second) as the model returned them."""
        if self.whole:
            found = at(answer, self.mean)
            return found.mean, found.stddev
        return at(answer, self.mean), at(answer, self.second)

    def __call__(self, answer: Any) -> Any:
        """The posterior in a form that the door reads."""
        if self.whole:
            return at(answer, self.mean)
        mean, second = self.raw(answer)
        if self.parameterisation is None:
            return mean, second
        return Named(mean, scale_of(second, self.parameterisation))


def scale_of(second: Any, parameterisation: str) -> Tensor:
    """Standard deviations, float64, of what is declared to hold `parameterisation`."""
    if parameterisation not in PARAMETERISATIONS:
        raise InputError(
            "no such parameterisation",
            got=repr(parameterisation),
            expected=f"one of {', '.join(PARAMETERISATIONS)}",
            remedy="say what the encoder's second output holds",
        )
    return PARAMETERISATIONS[parameterisation](as_tensor(second).to(torch.float64))


def locate(answer: Any, again: Any, x: Inputs) -> Reading:
    """Find the posterior in an encoder's answer.

    Parameters
    ----------
    answer, again : object
        Two answers to the same `x`, under different random numbers: what changed is a draw.
    x : Inputs
        What the encoder was fed: a member of its shape is a reconstruction, or the input itself.

    Raises
    ------
    ModelError
        There is no posterior in it, or there are two readings.
    """
    return _locate(answer, again, x, ())


def _locate(answer: Any, again: Any, x: Inputs, path: Path) -> Reading:
    here = _shown(path)
    if isinstance(answer, torch.distributions.Distribution):
        base = answer.base_dist if isinstance(answer, torch.distributions.Independent) else answer
        if isinstance(base, torch.distributions.Normal):
            inner: Path = ("base_dist",) if base is not answer else ()
            told = f"a torch Normal{here}"
            return Reading((*path, *inner, "loc"), (*path, *inner, "scale"), "scale", told)
    if recognised(answer):
        kind = type(inner_of(answer)).__name__
        return Reading(path, path, None, f"a torch distribution{here}, {kind}", whole=True)
    if is_array(answer):
        raise _one_array(answer, x)
    named = _by_name(answer, path)
    if named is not None:
        return named
    for holder in _HOLDERS:
        inside = _field(answer, holder)
        if inside is not None and not callable(inside):
            return _locate(inside, _field(again, holder), x, (*path, holder))
    if isinstance(answer, Mapping):
        raise ModelError(
            "the encoder's answer has no fields that name a posterior",
            got=f"fields {', '.join(map(str, answer))}",
            expected=f"a mean ({', '.join(MEANS[:3])}, ...) and a scale ({', '.join(SECONDS)})",
            remedy="pass two callables: ck.audit((encode, decode), data), encode returning "
            "(mean, scale)",
        )
    if isinstance(answer, tuple | list) and answer:
        return _in_tuple(answer, again, x, path)
    raise ModelError(
        "the encoder's output is no posterior",
        got=type(answer).__name__,
        expected="(mean, scale), fields that name both, or a torch Normal",
        remedy="pass two callables: ck.audit((encode, decode), data)",
    )


def _by_name(answer: Any, path: Path) -> Reading | None:
    mean = next((n for n in MEANS if _value(answer, n) is not None), None)
    if mean is None:
        return None
    found = [name for name in SECONDS if _value(answer, name) is not None]
    if not found:
        return None
    scales = {name: scale_of(_value(answer, name), SECONDS[name]) for name in found}
    first = found[0]
    for name, scale in scales.items():
        if scale.shape == scales[first].shape and not torch.allclose(
            scale, scales[first], rtol=1e-2, atol=1e-6, equal_nan=True
        ):
            raise ModelError(
                f"the encoder's {first} and {name} contradict each other",
                got=f"median standard deviation {float(scales[first].median()):.4g} by {first}, "
                f"{float(scale.median()):.4g} by {name}",
                expected="one width",
                remedy="pass (encode, decode) with the one that the model samples from; "
                "collapsekit doctor draws from its sampler to tell",
            )
    told = f"{mean} and {first}{_shown(path)}, read by their names as {SECONDS[first]}"
    return Reading((*path, mean), (*path, first), SECONDS[first], told)


def _in_tuple(answer: Any, again: Any, x: Inputs, path: Path) -> Reading:
    """The one member that is a posterior by itself, or the two that are mean and scale."""
    inner: list[Reading] = []
    for i, member in enumerate(answer):
        if is_array(member) or member is None or isinstance(member, int | float | str):
            continue
        try:
            inner.append(_locate(member, _member(again, i), x, (*path, i)))
        except CollapsekitError:
            continue
    if len(inner) == 1:
        return inner[0]
    if len(inner) > 1:
        raise _two_readings(
            f"{len(inner)} members are posteriors by themselves",
            [f"{r.told}" for r in inner],
            "one may be the prior, or another layer's posterior",
        )
    arrays = {i: as_tensor(m) for i, m in enumerate(answer) if is_array(m)}
    rows = rows_of(x)
    fit = {i: t for i, t in arrays.items() if t.ndim >= 1 and len(t) == rows}
    if len(answer) == 1 and fit:
        raise _one_array(fit[0], x)
    changed = [i for i, t in fit.items() if not _same(t, as_tensor(_member(again, i)))]
    keep, told = list(fit), ""
    if len(changed) < len(keep):  # all of them: the encoder is random, which the engine tells
        keep = [i for i in keep if i not in changed]
        told = f"; a draw at {_places(changed)}" if changed else ""
    else:
        changed = []
    if len(keep) > 2 or (len(keep) == 2 and not _fits(fit, keep)):
        like_x = [i for i in keep if _x_shaped(fit[i], x)]
        if 0 < len(like_x) <= len(keep) - 2:
            keep = [i for i in keep if i not in like_x]
            told += f"; the input's shape at {_places(like_x)}"
    if len(keep) > 2:
        # Evaluation mode often returns the mean where training returns a draw.
        twins = [j for n, j in enumerate(keep) for i in keep[:n] if _same(fit[i], fit[j])]
        if twins:
            keep = [i for i in keep if i not in twins]
            told += f"; a copy of the mean at {_places(twins)}"
    if len(keep) == 2 and _fits(fit, keep):
        i, j = keep
        where = _shown(path)
        drawn = next((k for k in changed if fit[k].shape == fit[i].shape), None)
        draw = None if drawn is None else (*path, drawn)
        return Reading((*path, i), (*path, j), None, f"places {i} and {j}{where}{told}", draw)
    raise _unreadable(answer, fit, keep, changed)


def _unreadable(
    answer: Any, fit: Mapping[int, Tensor], keep: list[int], changed: list[int]
) -> ModelError:
    shapes = ", ".join(f"{i}: {tuple(t.shape)}" for i, t in fit.items())
    got = f"a tuple of {len(answer)} ({shapes or 'no array with the rows of the batch'})"
    if changed and len(keep) < 2:
        return ModelError(
            "the encoder returns a draw, and not both mean and scale",
            got=f"{got}; place {_places(changed)} changes from call to call",
            expected="mean and scale of the posterior that it drew from",
            remedy="return them from encode: a draw alone does not show its posterior's width",
        )
    if len(keep) >= 2 and _fits(fit, keep):
        pairs = [f"mean at {i}, scale at {j}" for i, j in pairwise(keep)]
        return _two_readings(got, pairs, "a reconstruction read as a mean makes every number wrong")
    return ModelError(
        "no two members of the encoder's answer can be mean and scale",
        got=got,
        expected="two arrays of one shape, a row for every sample",
        remedy="pass two callables: ck.audit((encode, decode), data)",
    )


def _two_readings(got: str, readings: list[str], consequence: str) -> ModelError:
    return ModelError(
        "the encoder's answer can be read in more than one way",
        got=got,
        expected="one reading; here: " + "; or ".join(readings) + f" ({consequence})",
        remedy="say which: ck.audit((lambda x: model.encode(x)[...], model.decode), data)",
    )


def _one_array(array: Any, x: Inputs) -> ModelError:
    tensor = as_tensor(array)
    width = tensor.shape[1] if tensor.ndim > 1 else 1
    readings = "a draw or a mean (its posterior's width is then unknown: nothing can be audited)"
    if width % 2 == 0:
        readings += (
            f"; or {width // 2} means followed by {width // 2} scales (read as a draw, the "
            "latent space would have twice its dimensions)"
        )
    return ModelError(
        "the encoder returns one array, which is no posterior",
        got=f"{tuple(tensor.shape)}",
        expected=f"mean and scale; this may be {readings}",
        remedy="return both from encode, or pass (lambda x: model.encode(x).chunk(2, 1), "
        'model.decode) with parameterisation="logvar" if that is what they are',
    )


# -- the means ------------------------------------------------------------------------------------


def is_array(value: Any) -> bool:
    """Whether a value is an array of any framework."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def at(answer: Any, path: Path) -> Any:
    """The value at a path."""
    for key in path:
        answer = _member(answer, key) if isinstance(key, int) else _field(answer, key)
    return answer


def _member(answer: Any, index: int) -> Any:
    return answer[index]


def _field(answer: Any, name: str) -> Any:
    if isinstance(answer, Mapping):
        return answer.get(name)
    # An array has a method called mean; it is no field.
    return None if is_array(answer) else getattr(answer, name, None)


def _value(answer: Any, name: str) -> Any:
    found = _field(answer, name)
    return found if is_array(found) else None


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))


def _fits(fit: Mapping[int, Tensor], keep: list[int]) -> bool:
    return len({fit[i].shape for i in keep}) == 1


def _x_shaped(tensor: Tensor, x: Inputs) -> bool:
    shapes = [x.shape] if isinstance(x, Tensor) else [t.shape for t in _leaves(x)]
    return any(tensor.shape == s or tensor.shape == (s[0], s[1:].numel()) for s in shapes)


def _leaves(x: Any) -> Iterator[Tensor]:
    for value in x.values() if isinstance(x, Mapping) else x:
        if isinstance(value, Tensor):
            yield value


def _places(indices: list[int]) -> str:
    return ", ".join(map(str, indices))


def _shown(path: Path) -> str:
    return f" of {'.'.join(map(str, path))}" if path else ""


class Reader:
    """Calls a model until an answer can be read as a posterior; then always reads it so.

    Parameters
    ----------
    calls : mapping of name to callable
        In the order in which they are tried.
    parameterisation : str, optional
        What the second output really holds: wins over its name.
    seeded : callable, optional
        ``seeded(seed, call)`` runs a call under a random state of its own.
    """

    def __init__(
        self,
        calls: Mapping[str, Callable[[Any], Any]],
        parameterisation: str | None = None,
        seeded: Callable[[int, Callable[[], Any]], Any] = lambda seed, call: call(),
    ) -> None:
        self._calls, self._declared, self._seeded = dict(calls), parameterisation, seeded
        self._found: tuple[str, Reading] | None = None
        if parameterisation is not None:
            scale_of(torch.ones(1), parameterisation)  # a word that is none is told at once

    @property
    def found(self) -> tuple[str, Reading] | None:
        """The call and the reading, once known."""
        return self._found

    @property
    def told(self) -> str:
        """The reading in words; empty before the first call."""
        if self._found is None:
            return ""
        source, reading = self._found
        return f"the posterior is read from {source}: {reading.told}"

    def answer(self, x: Inputs) -> Any:
        """The model's whole answer."""
        if self._found is None:
            self._search(x)
        assert self._found is not None
        return self._calls[self._found[0]](x)

    def raw(self, x: Inputs) -> tuple[Any, Any]:
        """(mean, second) as the model returns them."""
        answer = self.answer(x)
        assert self._found is not None
        return self._found[1].raw(answer)

    def __call__(self, x: Inputs) -> Any:
        """The posterior of a batch."""
        answer = self.answer(x)
        assert self._found is not None
        return self._found[1](answer)

    def _search(self, x: Inputs) -> None:
        troubles: dict[str, Exception] = {}
        for name, call in self._calls.items():
            try:
                answer = self._seeded(1, partial(call, x))
                reading = locate(answer, self._seeded(2, partial(call, x)), x)
            except Exception as error:
                troubles[name] = error
                continue
            if self._declared is not None and not reading.whole:
                told = f"{reading.told}, declared as {self._declared}"
                reading = replace(reading, parameterisation=self._declared, told=told)
            self._found = name, reading
            return
        first = next(iter(troubles.values()))
        if len(troubles) == 1 or not isinstance(first, CollapsekitError):
            raise first
        raise ModelError(
            "no posterior was found in the model",
            got="; ".join(f"{name}: {_brief(error)}" for name, error in troubles.items()),
            expected=getattr(first, "expected", "") or "(mean, scale)",
            remedy=getattr(first, "remedy", ""),
        ) from first


def _brief(error: Exception) -> str:
    if isinstance(error, CollapsekitError):
        return error.what + (f" ({error.got})" if error.got else "")
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


__all__ = [
    "MEANS",
    "SECONDS",
    "Named",
    "Reader",
    "Reading",
    "at",
    "is_array",
    "locate",
    "scale_of",
]
