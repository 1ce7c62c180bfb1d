"""``audit --like FILE``: the settings of an earlier audit, and what differs the second time."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import typer

from collapsekit.cli import gate
from collapsekit.cli.options import LIKELIHOODS
from collapsekit.errors import CollapsekitError, InputError
from collapsekit.results import Audit, load

if TYPE_CHECKING:
    from collapsekit.probe import Probe

#: Where a result goes and who computes it is no part of it; trust is only ever typed.
_FORGOTTEN = frozenset({"out", "format", "resume", "workers", "dask", "shards", "log_json"})
_COMPARED = {
    "model": "the model",
    "data": "the data",
    "n": "the number of samples",
    "data_fingerprint": "the data's fingerprint",
    "dimensions": "the latent dimensions",
    "likelihood": "the likelihood",
    "parameterisation": "the parameterisation",
    "prior": "the prior",
    "beta": "beta",
    "seed": "the seed",
    "population": "the population",
    "batch": "the batch size",
    "device": "the device",
}


def recall(context: typer.Context, file: str | None) -> str | None:
    """``--like FILE``: what is not typed is as it was then.

    The options of the earlier command become the defaults of this one. An audit that was made in
    Python knows neither MODEL nor DATA: they are then to be typed.

    Raises
    ------
    Exit
        The file is no audit.
    """
    if file is None:
        return None
    try:
        then = load(file)
    except CollapsekitError as error:
        raise typer.Exit(int(gate.told(error))) from None
    known = {parameter.name for parameter in context.command.params}
    found = {name: value for name, value in recalled(then).items() if name in known}
    context.default_map = {**(context.default_map or {}), **found}
    return file


def recalled(audit: Audit) -> dict[str, Any]:
    """The options of an earlier audit by parameter; those that it does not know are absent."""
    command = audit.provenance.get("command")
    words = shlex.split(command) if isinstance(command, str) else []
    if words[:2] == ["collapsekit", "audit"] and len(words) > 2:
        typed = iter(words[3:])
        found: dict[str, Any] = {"model": words[2]}
        for word in typed:
            name = word.removeprefix("--").replace("-", "_")
            if name != "trust_code":  # the one flag; all others have a value
                found[name] = next(typed, "")
        return {name: value for name, value in found.items() if name not in _FORGOTTEN}
    told = audit.provenance
    found = {name: told.get(name) for name in ("parameterisation", "beta", "seed", "batch")}
    likelihood = told.get("likelihood")
    if isinstance(likelihood, list) and len(likelihood) == 2:
        likelihood = f"{likelihood[0]}:{likelihood[1]!r}"
    found["population"] = told.get("population_limit")
    found["prior"] = _prior(told.get("prior_declared"))
    found["likelihood"] = likelihood if _known_likelihood(likelihood) else None
    return {name: value for name, value in found.items() if value is not None}


def _prior(declared: Any) -> str | None:
    """As ``--prior`` says it: one mean and one scale for all dimensions."""
    if not isinstance(declared, Mapping):
        return None
    means, scales = set(declared["mean"]), set(declared["scale"])
    one = len(means) == len(scales) == 1
    return f"{means.pop()!r},{scales.pop()!r}" if one else None


def refuse_unknown(then: Audit, prior: str | None) -> None:
    """Raise InputError where the audit of then had a prior that no option can say."""
    declared = then.provenance.get("prior_declared")
    if declared is None or prior is not None:
        return
    raise InputError(
        "the prior of the earlier audit cannot be recalled",
        got=str(then.provenance.get("prior")),
        expected="N(0, I), or one mean and one scale for all dimensions",
        remedy="run it again in Python with the same prior=..., or pass --prior MEAN,SCALE",
    )


def _known_likelihood(told: Any) -> bool:
    return isinstance(told, str) and (told in LIKELIHOODS or told.startswith("gaussian:"))


def probes(audit: Audit, registered: Sequence[Probe]) -> tuple[Probe, ...]:
    """The probes with the thresholds that were in force then, where they still have them."""
    return tuple(_as_then(probe, audit.settings.get(probe.name)) for probe in registered)


def _as_then(probe: Any, then: Any) -> Any:
    if not isinstance(then, Mapping) or not is_dataclass(probe) or isinstance(probe, type):
        return probe
    now = {field.name: getattr(probe, field.name) for field in fields(probe) if field.init}
    changed = {
        name: tuple(then[name]) if isinstance(value, tuple) else then[name]
        for name, value in now.items()
        if name in then and _plain(value) != _plain(then[name]) and then[name] is not None
    }
    return replace(probe, **changed) if changed else probe


def _plain(value: Any) -> Any:
    return [_plain(part) for part in value] if isinstance(value, tuple | list) else value


def differences(then: Audit, now: Audit) -> list[str]:
    """What is not as it was: one line each; none where the results ought to be the same."""
    told = []
    for key, what in _COMPARED.items():
        old, new = then.provenance.get(key), now.provenance.get(key)
        if old != new:
            told.append(f"{what}: {old} then, {new} now")
    versions = (audit.provenance.get("versions", {}) for audit in (then, now))
    old, new = (found if isinstance(found, dict) else {} for found in versions)
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            told.append(f"{name}: {old.get(name, 'absent')} then, {new.get(name, 'absent')} now")
    for name in sorted(then.settings.keys() & now.settings.keys()):
        if then.settings.get(name) != _as_saved(now.settings.get(name)):
            told.append(f"the settings of {name}")
    if then.run.get("threads") != now.run.get("threads"):
        told.append(f"threads: {then.run.get('threads')} then, {now.run.get('threads')} now")
    return told


def compared(then: Audit, now: Audit, name: str) -> str:
    """The differences, for the person at the terminal."""
    told = differences(then, now)
    if not told:
        return f"like {name}: the same model, data, settings and versions"
    return f"like {name}, but for\n" + "\n".join(f"  {line}" for line in told)


def _as_saved(settings: Any) -> Any:
    """Settings as a file gives them back: tuples are lists there."""
    if isinstance(settings, Mapping):
        return {key: _as_saved(value) for key, value in settings.items()}
    return (
        [_as_saved(part) for part in settings] if isinstance(settings, tuple | list) else settings
    )
