"""Audit trained VAEs for posterior collapse: where, how badly, how surely and why; and repair it.

>>> import collapsekit as ck
>>> audit = ck.audit(model, data, likelihood="bernoulli")  # doctest: +SKIP
>>> audit.verdict, audit.findings, audit.samples, audit.dimensions, audit.summary  # doctest: +SKIP

Imports point one way (a module imports only from its left; tests/test_layers.py asserts it):

    errors <- number <- findings (and tables, sample_table <- archive) <- head <- results
    heap <- sample_table, pool
    errors <- logs <- engine
    noise <- kernels <- posteriors <- likelihoods
    noise, samples, independent <- streaming
    number, streaming <- intervals <- claims <- probe; intervals <- population
    posteriors <- readers <- priors <- door
    posteriors, streaming <- copies <- members <- population
    likelihoods, samples <- adapter <- door <- population (and streaming) <- observation
        <- probe (and results, intervals) <- probes (and pareto) <- readings <- engine <- monitors
        <- cli
    door <- groups <- engine, and results, intervals <- joined <- engine: hierarchical
        models
    door, streaming, products <- members <- population <- subset, coded <- observation
    errors <- described <- provenance <- task
    probe <- shards <- rehearsal, spool <- checkpoint, jobs, parcels, executors <- pool <- task
        <- engine
    results <- comparison <- rendering <- gate, plotting <- cli, and results <- logged_loss <- cli:
        a report, a gate and a figure read only the Audit, never the engine
    engine, rendering <- explain <- cli
    remedies stand apart: they and the audit do not know each other

Importing this module imports no framework; each public name below arrives on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collapsekit import adapters, monitors, probes, remedies
    from collapsekit.comparison import compare
    from collapsekit.engine import audit, run
    from collapsekit.errors import (
        CollapseError,
        CollapsekitError,
        FileError,
        InputError,
        ModelError,
        Unavailable,
    )
    from collapsekit.findings import Finding, Severity
    from collapsekit.logged_loss import explain_loss
    from collapsekit.number import Number
    from collapsekit.results import Audit, load

    __version__: str

__all__ = [
    "Audit",
    "CollapseError",
    "CollapsekitError",
    "FileError",
    "Finding",
    "InputError",
    "ModelError",
    "Number",
    "Severity",
    "Unavailable",
    "__version__",
    "adapters",
    "audit",
    "compare",
    "explain_loss",
    "load",
    "monitors",
    "probes",
    "remedies",
    "run",
]

_HOME = {
    "audit": "engine",
    "run": "engine",
    "load": "results",
    "compare": "comparison",
    "explain_loss": "logged_loss",
    "Audit": "results",
    "Finding": "findings",
    "Severity": "findings",
    "Number": "number",
    "CollapsekitError": "errors",
    "InputError": "errors",
    "ModelError": "errors",
    "Unavailable": "errors",
    "FileError": "errors",
    "CollapseError": "errors",
}
_SUBPACKAGES = frozenset({"adapters", "monitors", "probes", "remedies"})


def __getattr__(name: str) -> Any:
    value: Any
    if name in _SUBPACKAGES:
        value = importlib.import_module(f"{__name__}.{name}")
    elif name in _HOME:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    elif name == "__version__":
        value = _version()
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # found at once from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    metadata = importlib.import_module("importlib.metadata")  # 20 ms, so only when asked for
    try:
        return str(metadata.version(__name__))
    except metadata.PackageNotFoundError:
        return "0+uninstalled"  # run from a source tree that nobody installed
