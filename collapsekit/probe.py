"""The probe protocol: what one measurement is, and how it runs on a single observation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import pandas as pd

from collapsekit.findings import Code, Finding
from collapsekit.number import Headline, Number
from collapsekit.observation import Observation, Source
from collapsekit.results import Result

#: What a probe leaves behind: named states, each with ``+``.
States = dict[str, Any]


@runtime_checkable
class Probe(Protocol):
    """One measurement, as a frozen dataclass whose fields are its thresholds.

    `observe` turns a batch into states, `conclude` turns their sum into numbers, columns and
    findings. A probe asks the observation for whatever it needs; what the model cannot offer raises
    `Unavailable` and skips the probe. It judges its own numbers, since it alone knows what they
    mean.
    """

    @property
    def name(self) -> str:
        """Unique among the probes of an audit."""
        ...

    @property
    def source(self) -> Source:
        """The stream it watches."""
        ...

    @property
    def limit(self) -> int | None:
        """Rows of the population (or prior draws) that are enough; None for all."""
        ...

    @property
    def codes(self) -> tuple[Code, ...]:
        """What its findings mean."""
        ...

    @property
    def headlines(self) -> tuple[Headline, ...]:
        """The numbers that it may give, in a report's words."""
        ...

    def observe(self, obs: Observation, /) -> States:
        """States of one batch."""
        ...

    def conclude(self, state: States, /) -> Result:
        """What the whole stream says."""
        ...


@dataclass(frozen=True)
class Tables:
    """What all probes concluded, for readings that compare one probe's columns with another's."""

    numbers: Mapping[str, Number]
    samples: pd.DataFrame
    dimensions: pd.DataFrame
    findings: tuple[Finding, ...]

    def has(self, *columns: str) -> bool:
        """Whether all these dimension columns were measured."""
        return all(column in self.dimensions.columns for column in columns)

    def counted(self, measured: int) -> str:
        """So many dimensions, in words; of how many, where some were not measured."""
        total = len(self.dimensions)
        if measured == total:
            return f"{total:,} dimensions"
        return f"{measured:,} measured dimensions (of {total:,})"


@runtime_checkable
class Reading(Protocol):
    """A judgement over several probes' finished columns: roles, contradictions.

    Probes cannot see each other; what only their comparison shows is read here, from tables alone.
    """

    @property
    def name(self) -> str:
        """Unique among probes and readings."""
        ...

    @property
    def codes(self) -> tuple[Code, ...]:
        """What its findings mean."""
        ...

    @property
    def headlines(self) -> tuple[Headline, ...]:
        """The numbers that it may give, in a report's words."""
        ...

    def read(self, tables: Tables, /) -> Result:
        """Judge."""
        ...


def merge(a: States, b: States) -> States:
    """Sum of two sets of states, name by name."""
    return {name: a[name] + b[name] for name in a}


def measure(probe: Probe, obs: Observation) -> Result:
    """Run a probe on one observation that holds everything: the plain functions' engine."""
    return probe.conclude(probe.observe(obs))
