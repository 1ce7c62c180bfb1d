"""What every input must come to: rows, a finding, or an error that names what is wrong."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, Phase, settings

from collapsekit import probes
from collapsekit.errors import CollapsekitError
from collapsekit.results import Audit

#: COLLAPSEKIT_FUZZ=100 makes a hundred times as many examples, and other ones every time.
MORE = int(os.environ.get("COLLAPSEKIT_FUZZ", "1"))

#: Enough to go through all three streams, and no more.
FEW = tuple(
    p
    for p in probes.REGISTERED
    if p.name in ("kl", "active_units", "mutual_information", "reconstruction", "round_trip_prior")
)
#: Findings that explain why a number is missing.
EXPLAIN = {"CK001", "CK002", "CK003", "CK006", "CK007", "CK010", "CK011", "CK012"}


def fuzz(examples: int, shrink: bool = True) -> Callable[[Any], Any]:
    """Settings of one fuzz test; where an example takes long, no simpler one is sought."""
    phases = [Phase.explicit, Phase.generate, *([Phase.shrink] if shrink else [])]
    return settings(
        phases=phases,
        max_examples=examples * MORE,
        derandomize=MORE == 1,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@contextlib.contextmanager
def named_errors() -> Iterator[list[CollapsekitError]]:
    """Lets errors of the family pass that say got, expected and what to do; no others."""
    seen: list[CollapsekitError] = []
    try:
        yield seen
    except CollapsekitError as error:
        seen.append(error)
    for error in seen:
        assert all((error.what, error.got, error.expected, error.remedy)), str(error)
        assert len(str(error)) < 3000, str(error)


def explained(audit: Audit) -> None:
    """No number is missing without a finding that says why, and none where one was measured."""
    codes = {finding.code for finding in audit.findings}
    missing = int(audit.summary["value"].isna().sum())
    for table in (audit.samples, audit.dimensions):
        numbers = table.select_dtypes(exclude=[object, "string"])
        missing += int(numbers.isna().to_numpy().sum())
        for name in numbers.columns:
            values = numbers[name].dropna().to_numpy(dtype=np.float64, na_value=np.nan)
            assert not np.isnan(values).any(), f"{name} holds NaN instead of <NA>"
    assert not missing or codes & EXPLAIN, f"{missing} missing, findings {codes}"
    for finding in audit.findings:
        assert finding.message
    assert audit.verdict.name
    assert isinstance(audit.summary, pd.DataFrame)


def lost(audit: Audit) -> set[int]:
    """The samples that findings say were left out."""
    told = [f.samples for f in audit.findings if f.code in ("CK001", "CK011", "CK015")]
    return {sample for samples in told for sample in samples}
