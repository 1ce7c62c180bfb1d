"""What differs between the runs: whatever their audits recorded and did not agree on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from collapsekit.rendering import wording
from collapsekit.rendering.blocks import Column, Section, Table
from collapsekit.rendering.compared.runs import Compared
from collapsekit.rendering.wording import field_value, listing, tie

_NAMES = {
    "model": "Model",
    "adapter": "Loaded by",
    "data": "Data",
    "data_fingerprint": "Fingerprint of the data",
    "n": "Samples",
    "dimensions": "Dimensions",
    "prior": "Prior",
    "likelihood": "Likelihood",
    "parameterisation": "Posterior given as",
    "beta": "β",
    "seed": "Seed of the audit",
}
_ALWAYS = ("model", "beta")
_NEVER = ("notes", "command", "passes", "reductions", "latent_shape")
MOST_ROWS = 24


def build(compared: Compared) -> Section:
    """The section; it also says when nothing differs."""
    told = [_flat(run.facts.audit.provenance, run.facts.audit.settings) for run in compared.runs]
    keys = list(dict.fromkeys(key for one in told for key in one))
    rows, differing = [], []
    for key in keys:
        values = [one.get(key) for one in told]
        differs = any(value != values[0] for value in values[1:])
        if differs:
            differing.append(key)
        if differs or (key in _ALWAYS and any(value is not None for value in values)):
            rows.append((_name(key), *(field_value(value, 80) for value in values)))
    table = Table(
        "What differs between the runs",
        (
            Column("Field", numeric=False),
            *(Column(run.name, numeric=False) for run in compared.runs),
        ),
        rows[:MOST_ROWS],
        note=wording.showing(min(len(rows), MOST_ROWS), len(rows), "field"),
        tight=True,
    )
    return Section(
        id="settings",
        nav="Settings",
        question="What differs between the runs?",
        headline=tie(_headline(differing)),
        blocks=(table,) if rows else (),
    )


def _headline(differing: list[str]) -> str:
    if not differing:
        return "The audits recorded no difference in what was audited."
    names = [_name(key).lower() if key != "beta" else "β" for key in differing]
    if len(names) == 1:
        return f"Only the {names[0]} differs." if names[0] != "β" else "Only β differs."
    return f"They differ in {listing(names, limit=4)}."


def _name(key: str) -> str:
    return _NAMES.get(key, wording.clean(key.replace("_", " "), 60))


def _flat(provenance: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    ordered = [*(k for k in _NAMES if k in provenance), *sorted(set(provenance) - set(_NAMES))]
    for key in ordered:
        if key in _NEVER:
            continue
        value = provenance[key]
        if isinstance(value, dict):
            flat |= {f"{key}: {name}": value[name] for name in sorted(value)}
        else:
            flat[key] = value
    for probe in sorted(settings):
        fields = settings[probe]
        if isinstance(fields, dict):
            flat |= {f"{probe}: {name}": fields[name] for name in sorted(fields)}
    return flat
