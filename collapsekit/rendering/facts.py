"""An audit as the sections read it: what may be absent is ``None``, what is there is an array.

A probe may have been skipped, a column may be missing, a cell may be ``<NA>``. All of that is met
here once, so that a section asks for what it needs and is left out where it does not get it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from collapsekit.findings import Finding, Severity
from collapsekit.number import Number
from collapsekit.rendering.wording import clean, counted, plural, title
from collapsekit.results import Audit

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Judged:
    """A headline together with the threshold and the severity that a finding gave it."""

    severity: Severity
    threshold: float
    relation: str
    code: str


class Facts:
    """One audit, read safely.

    Parameters
    ----------
    audit : Audit
    """

    def __init__(self, audit: Audit) -> None:
        self.audit = audit

    # -- how much there is -------------------------------------------------------------------

    @cached_property
    def n(self) -> int:
        """Samples audited."""
        return self._whole(self.audit.provenance.get("n"), self.audit.sample_count)

    @cached_property
    def d(self) -> int:
        """Latent dimensions."""
        return self._whole(self.audit.provenance.get("dimensions"), len(self.audit.dimensions))

    @staticmethod
    def _whole(value: Any, otherwise: int) -> int:
        try:
            return max(int(value), otherwise)
        except (TypeError, ValueError, OverflowError):
            return otherwise

    @cached_property
    def noun(self) -> str:
        """What a sample is called: an image where the audit kept pictures."""
        from collapsekit.rendering.rasters import as_pictures

        for name in ("gallery_inputs", "collision_inputs"):
            array = self.array(name)
            if array is not None:
                flat = array.reshape(-1, *array.shape[2:]) if name.startswith("coll") else array
                return "image" if as_pictures(flat) is not None else "sample"
        return "sample"

    def nouns(self, n: float) -> str:
        """``image`` or ``images``."""
        return plural(n, self.noun)

    def counted(self, n: float, *, capital: bool = False) -> str:
        """``three images``."""
        return counted(n, self.noun, capital=capital)

    # -- headlines and judgement ---------------------------------------------------------------

    def number(self, *names: str) -> Number | None:
        """The first of these headlines that the audit has and knows."""
        for name in names:
            if name in self.audit.summary.index:
                try:
                    number = self.audit.number(name)
                except (TypeError, ValueError):
                    continue
                if number.known:
                    return number
        return None

    def title(self, headline: str) -> str:
        """What a headline is called."""
        return title(self.audit.titles, headline)

    def judged(self, name: str) -> Judged | None:
        """The strictest judgement passed on the headline `name` with a threshold, if any."""
        best: Judged | None = None
        for finding in self.audit.findings:
            for evidence in finding.evidence:
                threshold = _finite(evidence.threshold)
                if evidence.number.name != name or threshold is None:
                    continue
                candidate = Judged(finding.severity, threshold, evidence.relation, finding.code)
                if best is None or candidate.severity > best.severity:
                    best = candidate
        return best

    def findings(self) -> list[Finding]:
        """Findings, most severe first; the order within a severity is the audit's own."""
        return sorted(self.audit.findings, key=lambda f: -int(f.severity))

    def why_missing(self, *names: str) -> str:
        """Why a headline or probe was not measured, from `Audit.skipped`; may be empty."""
        for name in names:
            for probe, reason in self.audit.skipped.items():
                if probe == name or probe.startswith(name) or name.startswith(probe):
                    return clean(reason, 300)
        return ""

    def setting(self, *places: str, default: float) -> float:
        """A threshold that was in force.

        Parameters
        ----------
        places : str
            Where to look, in order: ``"probe.field"``, or ``"field"`` of whichever probe has it.
        default : float
        """
        for place in places:
            probe, _, field = place.rpartition(".")
            for name in sorted(self.audit.settings):
                if probe and name != probe:
                    continue
                fields = self.audit.settings[name]
                found = fields.get(field) if isinstance(fields, dict) else None
                if isinstance(found, bool) or not isinstance(found, int | float):
                    continue
                if math.isfinite(found):
                    return float(found)
        return default

    @cached_property
    def epsilon(self) -> float:
        """Nats below which a sample does not use a dimension."""
        return self.setting("dimension_state.epsilon", "epsilon", default=0.01)

    @cached_property
    def delta(self) -> float:
        """Share of samples that a passive dimension may be used by."""
        return self.setting("dimension_state.delta", "delta", default=0.05)

    @cached_property
    def local_bar(self) -> float:
        """Nats below which a sample is locally collapsed."""
        return self.setting("local_collapse.bar", default=1.0)

    @cached_property
    def active_bar(self) -> float:
        """Variance of the mean, in prior variances, above which a unit is active."""
        return self.setting("active_units.threshold", "writes_variance", default=0.01)

    @cached_property
    def overlap_bar(self) -> float:
        """Bhattacharyya coefficient from which two posteriors collide."""
        return self.setting("collisions.overlap", default=0.5)

    @cached_property
    def reads_share(self) -> float:
        """Share of the largest usage from which the decoder reads a dimension."""
        return self.setting("reads_share", "decoder_usage.share", default=0.01)

    @cached_property
    def reads_nats(self) -> float:
        """Nats between outputs from which the decoder reads a dimension, whatever its share."""
        return self.setting("reads_nats", default=0.02)

    @cached_property
    def trip_bar(self) -> float:
        """Round-trip R² from which a dimension counts as recovered."""
        return self.setting("comes_back", "round_trip.good", default=0.5)

    # -- columns, tables, arrays ---------------------------------------------------------------

    def per_sample(self, name: str) -> Floats | None:
        """A column of `Audit.samples`, NaN for ``<NA>``; None where nothing is known."""
        return _floats(self.audit.some_samples, name)

    def per_dimension(self, name: str) -> Floats | None:
        """A column of `Audit.dimensions`, as `per_sample`."""
        return _floats(self.audit.dimensions, name)

    def words(self, name: str) -> list[str] | None:
        """A text column of `Audit.dimensions`, cleaned; an unknown cell is empty."""
        if name not in self.audit.dimensions.columns or not len(self.audit.dimensions):
            return None
        cells = ["" if _missing(cell) else clean(cell, 40) for cell in self.audit.dimensions[name]]
        return cells if any(cells) else None

    @cached_property
    def labels(self) -> npt.NDArray[np.object_] | None:
        """Labels per sample, cleaned; None where there are none or every sample has its own."""
        if "label" not in self.audit.some_samples.columns or not len(self.audit.some_samples):
            return None
        codes, distinct = pd.factorize(self.audit.some_samples["label"], use_na_sentinel=True)
        if not 1 <= len(distinct) <= max(200, len(codes) // 3):
            return None
        names = np.array([*(clean(label, 60) or "(empty)" for label in distinct), ""], dtype=object)
        return names[codes]

    @cached_property
    def numbered(self) -> bool:
        """Whether labels are bare numbers, which a sentence has to introduce as labels."""
        frame = self.audit.some_samples
        if "label" not in frame.columns:
            return False
        known = frame["label"].dropna().unique()[:200]
        return len(known) > 0 and all(_is_number(label) for label in known)

    def named(self, label: str) -> str:
        """A label inside a sentence: ``Boot``, ``label 7``."""
        return f"label {label}" if self.numbered else label

    def label_of(self, sample: int) -> str:
        """Label of one sample by its number, or nothing."""
        frame = self.audit.some_samples
        if "label" not in frame.columns or sample not in frame.index:
            return ""
        cell = frame.at[sample, "label"]
        return "" if _missing(cell) else self.named(clean(cell, 28))

    def sample_value(self, sample: int, name: str) -> float:
        """One cell of `Audit.samples`; NaN where it is not known."""
        frame = self.audit.some_samples
        if name not in frame.columns or sample not in frame.index:
            return math.nan
        cell: Any = frame.at[sample, name]
        return math.nan if _missing(cell) else float(cell)

    def table(self, name: str, *columns: str) -> pd.DataFrame | None:
        """A table that has all of these columns and at least one row."""
        frame = self.audit.tables.get(name)
        if frame is None or not len(frame):
            return None
        return frame if all(column in frame.columns for column in columns) else None

    def array(self, name: str) -> np.ndarray | None:
        """An array that is not empty."""
        array = self.audit.arrays.get(name)
        return array if array is not None and array.ndim >= 1 and array.size else None

    # -- dimensions by rank --------------------------------------------------------------------

    @cached_property
    def index(self) -> Integers:
        """Numbers of the dimensions, in the order of the rows of `Audit.dimensions`."""
        return np.asarray(self.audit.dimensions.index, dtype=np.int64)

    @cached_property
    def order(self) -> Integers:
        """Rows of `Audit.dimensions` by falling mean KL (else by variance of the mean)."""
        size = len(self.audit.dimensions)
        for name in ("kl", "mean_variance", "decoder_usage"):
            column = self.per_dimension(name)
            if column is not None:
                filled = np.where(np.isfinite(column), column, -np.inf)
                return np.argsort(-filled, kind="stable").astype(np.int64)
        return np.arange(size, dtype=np.int64)


def natural(label: str) -> tuple[int, float, str]:
    """Sorting key for labels: numbers by value, before words."""
    return (0, float(label), label) if _is_number(label) else (1, 0.0, label)


def _is_number(label: Any) -> bool:
    try:
        return math.isfinite(float(label))
    except (TypeError, ValueError):
        return False


def _missing(cell: Any) -> bool:
    if cell is None or cell is pd.NA:
        return True
    return isinstance(cell, float) and math.isnan(cell)


def _floats(frame: pd.DataFrame, name: str) -> Floats | None:
    if name not in frame.columns or not len(frame):
        return None
    try:
        column = frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        return None
    # An infinite KL is as little a number on paper as a missing one.
    column = np.where(np.isfinite(column), column, np.nan)
    return column if bool(np.isfinite(column).any()) else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
