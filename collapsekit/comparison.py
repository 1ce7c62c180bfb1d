"""Several audits side by side: what changed against the first, and whether it is more than noise.

Two trainings share no dimension: unit 3 of one has nothing to do with unit 3 of the other. So
dimensions are compared by rank only, never by index; samples are compared one by one wherever both
audits looked at the same data.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from collapsekit.archive import write_text
from collapsekit.errors import InputError
from collapsekit.number import Z95, Number
from collapsekit.results import Audit

BETTER, WORSE, DIFFERS = "better", "worse", "differs"
SAME = "same within noise or margin"
UNRESOLVED, INCOMPARABLE = "cannot tell", "not comparable"

# These tables hold a headline's own name, whatever group of latents it is of.
# Headlines that are a mean over samples, and the column they are the mean of. (Not
# model_information: all its samples share draws, whose error no column shows.)
_PAIRED = {
    "rate": "kl_total",
    "locally_collapsed_fraction": "locally_collapsed",
    "reidentification": "reidentification",
    "swap_gap": "swap_gap",
    "reconstruction_error": "reconstruction_error",
    "elbo": "elbo",
    "collision_fraction": "collides",
}
# A sample stands in two terms of these, as itself and as another's partner. The variance of their
# mean is at most that of half as many independent terms.
_TWICE = frozenset({"swap_gap", "collision_fraction"})
# low and high are a bracket of two bounds: a difference inside it is not noise but unknown.
_BRACKETS = frozenset({"mutual_information", "total_correlation"})
# In nats only through the likelihood: another one is another unit.
_OF_LIKELIHOOD = frozenset(
    {
        "reconstruction_error",
        "swap_gap",
        "elbo",
        "model_information",
        "log_likelihood_bound",
        "inference_gap",
    }
)
# Smaller changes are of no consequence, however surely they are there: rounding is no noise. The
# larger of a share of the first audit's value and, in these units, a size.
MARGIN_SHARE = 0.001
MARGIN = {"nats": 0.01, "share": 0.001, "1": 0.001, "dimensions": 0.01}
MARGIN_NOTE = (
    "Better, worse and different are changes beyond noise and beyond a margin: "
    f"{100 * MARGIN_SHARE:g} % of the first audit's value, and at least {MARGIN['nats']:g} nat, "
    f"{MARGIN['share']:g} of a share or ratio, {MARGIN['dimensions']:g} dimension."
)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Change:
    """One headline of one audit against the first audit's.

    Attributes
    ----------
    value, low, high : float
        Difference, in the headline's unit, with its 95 % interval (or bracket); NaN where unknown.
    word : str
        "better", "worse", "same within noise or margin", "differs", "cannot tell" (two brackets
        overlap, or an end of the interval is missing) or "not comparable" (another unit).
    pairs : int
        Samples that were compared one by one; 0 where only the headlines could be.
    margin : float
        The smallest change that counts: see `margin_of`.
    """

    value: float
    low: float
    high: float
    word: str
    pairs: int = 0
    margin: float = 0.0


class Comparison:
    """What `compare` returns; `table`, `to_html`, and text when printed.

    Attributes
    ----------
    audits : dict of str to Audit
        In the order given; the first is what the others are held against.
    changes : dict
        ``(headline, audit name)`` to `Change`.
    notes : tuple of str
        What a reader must know: what was forced, what could not be paired.
    """

    def __init__(
        self, audits: dict[str, Audit], paired: dict[str, bool], notes: tuple[str, ...]
    ) -> None:
        self.audits = audits
        self.notes = notes
        self._paired = paired
        self.reference = next(iter(audits))
        self.changes: dict[tuple[str, str], Change] = {
            (headline, name): self._change(headline, name)
            for headline in self.headlines
            for name in self.others
        }

    @property
    def others(self) -> list[str]:
        """Every audit but the first."""
        return list(self.audits)[1:]

    @cached_property
    def headlines(self) -> list[str]:
        """Headlines of any of the audits, in the order in which they first appear."""
        names = (str(name) for audit in self.audits.values() for name in audit.summary.index)
        return list(dict.fromkeys(names))

    @cached_property
    def titles(self) -> dict[str, str]:
        """What a report calls the headlines of any of the audits."""
        return {k: v for audit in self.audits.values() for k, v in audit.titles.items()}

    def better_with(self, headline: str) -> int:
        """1 where more of a headline is better, -1 where less is, 0 where neither is declared."""
        own = own_name(headline)
        words = {audit.better[own] for audit in self.audits.values() if own in audit.better}
        return ("up" in words) - ("down" in words)

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per headline; columns (audit, value | low | high | change | ... | judgement)."""
        columns: dict[tuple[str, str], list[object]] = {}
        for name in self.audits:
            numbers = [self.number(name, headline) for headline in self.headlines]
            for field in ("value", "low", "high"):
                columns[name, field] = [
                    math.nan if number is None else getattr(number, field) for number in numbers
                ]
            if name == self.reference:
                continue
            changes = [self.changes[headline, name] for headline in self.headlines]
            columns[name, "change"] = [change.value for change in changes]
            columns[name, "change_low"] = [change.low for change in changes]
            columns[name, "change_high"] = [change.high for change in changes]
            columns[name, "judgement"] = [change.word for change in changes]
        index = pd.Index(self.headlines, name="headline")
        frame = pd.DataFrame(columns, index=index)
        frame.columns = pd.MultiIndex.from_tuples(list(columns), names=["audit", "field"])
        return frame

    def number(self, name: str, headline: str) -> Number | None:
        """A headline of one audit; None where it was not measured."""
        audit = self.audits[name]
        if headline not in audit.summary.index:
            return None
        number = audit.number(headline)
        has_bracket = own_name(headline) in _BRACKETS and math.isfinite(number.low)
        return number if number.known or has_bracket else None

    def pairs(self, name: str, column: str) -> pd.DataFrame | None:
        """A per-sample column of the first audit and of `name`, on the samples that both have.

        Returns
        -------
        DataFrame or None
            Columns ``first`` and ``other``, float64, indexed by sample; None where the audits
            looked at different data or one of them lacks the column.
        """
        if not self._paired[name]:
            return None
        found = [self.audits[key].columns_of_samples(column) for key in (self.reference, name)]
        frames = [frame for frame in found if frame is not None]
        if len(frames) < len(found):
            return None
        first, other = (_floats(frame[column]) for frame in frames)
        both = pd.DataFrame({"first": first, "other": other}).dropna()
        return both if len(both) else None

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """The comparison as one self-contained page. Written to `path` where given."""
        # Built above this module; named as text so that imports keep pointing one way.
        page = importlib.import_module("collapsekit.rendering.comparison_page")
        text: str = page.render(self)
        if path is not None:
            write_text(path, text)
        return text

    def _repr_html_(self) -> str:
        page = importlib.import_module("collapsekit.rendering.comparison_text")
        text: str = page.card(self)
        return text

    def __repr__(self) -> str:
        text: str = importlib.import_module("collapsekit.rendering.comparison_text").render(self)
        return text

    def _change(self, headline: str, name: str) -> Change:
        first, other = self.number(self.reference, headline), self.number(name, headline)
        if first is None or other is None:
            return Change(math.nan, math.nan, math.nan, INCOMPARABLE)
        own = own_name(headline)
        if first.unit != other.unit or (
            own in _OF_LIKELIHOOD
            and first.unit == "nats"
            and not _equal(self.audits[self.reference], self.audits[name], "likelihood")
        ):
            return Change(math.nan, math.nan, math.nan, INCOMPARABLE)
        margin, way = margin_of(first), self.better_with(headline)
        if own in _BRACKETS:
            return _bracketed(way, first, other, margin)
        column = headline.removesuffix(own) + _PAIRED[own] if own in _PAIRED else None
        pairs = self.pairs(name, column) if column else None
        if pairs is not None and len(pairs) > 1:
            difference = (pairs["other"] - pairs["first"]).to_numpy()
            value = float(difference.mean())
            independent = len(difference) / (2 if own in _TWICE else 1)
            half = Z95 * float(difference.std(ddof=1)) / math.sqrt(independent)
            low, high = value - half, value + half
            word = _word(way, value, low, high, margin)
            return Change(value, low, high, word, len(difference), margin)
        value = other.value - first.value
        low, high = _independent(first, other)
        return Change(value, low, high, _word(way, value, low, high, margin), margin=margin)


def own_name(headline: str) -> str:
    """A headline without the group of latents that it is of: ``rate`` of ``top/rate``."""
    return headline.rpartition("/")[2]


def margin_of(first: Number) -> float:
    """The smallest change against this number that counts: the larger of a share and a size.

    0.1 % of its value; 0.01 nat, 0.001 of a share or ratio, 0.01 dimension. In other units
    (squared errors) the share alone.
    """
    share = MARGIN_SHARE * abs(first.value) if first.known else 0.0
    return max(share, MARGIN.get(first.unit, 0.0))


def compare(audits: Mapping[str, Audit], *, force: bool = False) -> Comparison:
    """Put audits side by side; every change is told against the first.

    Parameters
    ----------
    audits : mapping of str to Audit
        At least two, by the names that the report will call them.
    force : bool
        Compare although data or priors differ. Then nothing is paired sample by sample.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        Fewer than two audits; or data or priors that differ, unless `force`.

    Notes
    -----
    A headline that is a mean over samples is compared on the samples that both audits evaluated:
    mean difference with a normal 95 % interval over the pairs (over half as many where a sample
    stands in two terms: swap gaps, collisions). Any other headline by its two intervals, taken as
    independent (MOVER; Zou & Donner 2008). "Same within noise or margin" is said when the interval
    of the difference holds zero, or a change too small to matter (`margin_of`). The intervals cover
    the choice of samples, not another training run: a claim about a method needs several seeds.
    """
    named = {str(name): audit for name, audit in audits.items()}
    if len(named) < 2:
        raise InputError(
            "there is nothing to compare with",
            got=f"{len(named)} audit(s)",
            expected="two or more, by name",
            remedy='compare({"vanilla": a, "LR": b})',
        )
    for name, audit in named.items():
        if not isinstance(audit, Audit):
            raise InputError(
                f"{name!r} is not an audit",
                got=type(audit).__name__,
                expected="an Audit, as ck.audit or ck.load returns it",
                remedy="ck.load(path) reads an audit file",
            )
    reference, *others = named
    first = named[reference]
    notes: list[str] = []
    paired = {reference: True}
    for name in others:
        told = _differences(first, named[name])
        if told and not force:
            what, got = told[0]
            raise InputError(
                f"{name!r} and {reference!r} were audited {what}",
                got=got,
                expected="the same data and the same prior in every audit",
                remedy="audit both on the same data, or compare all the same with force=True "
                "(--force); samples are then not paired",
            )
        notes += [f"{name} and {reference} were audited {what} ({got})." for what, got in told]
        known = all(a.provenance.get("data_fingerprint") for a in (first, named[name]))
        if not known and not told:
            notes.append(
                f"{name} or {reference} carries no fingerprint of its data: that both saw the same "
                "samples is taken on trust."
            )
        paired[name] = not any(what == _OTHER_DATA for what, _ in told)
    return Comparison(named, paired, (*notes, MARGIN_NOTE))


_OTHER_DATA, _OTHER_PRIOR = "on different data", "against different priors"


def _differences(first: Audit, other: Audit) -> list[tuple[str, str]]:
    told = []
    for field, what in (("data_fingerprint", _OTHER_DATA), ("prior", _OTHER_PRIOR)):
        a, b = first.provenance.get(field), other.provenance.get(field)
        if a is not None and b is not None and a != b:
            told.append((what, f"{str(a)[:60]} and {str(b)[:60]}"))
    sizes = (first.sample_count, other.sample_count)
    if sizes[0] != sizes[1] and not any(what == _OTHER_DATA for what, _ in told):
        told.append((_OTHER_DATA, f"{sizes[0]:,} and {sizes[1]:,} samples"))
    return told


def _equal(first: Audit, other: Audit, field: str) -> bool:
    return bool(first.provenance.get(field) == other.provenance.get(field))


def _floats(column: pd.Series) -> pd.Series:
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return pd.Series(np.where(np.isfinite(values), values, np.nan), index=column.index)


def _independent(first: Number, other: Number) -> tuple[float, float]:
    """Interval of ``other - first`` from the two intervals (MOVER, Zou & Donner 2008)."""
    value = other.value - first.value
    down = math.hypot(other.value - other.low, first.high - first.value)
    up = math.hypot(other.high - other.value, first.value - first.low)
    return value - down, value + up


def _bracketed(way: int, first: Number, other: Number, margin: float) -> Change:
    low, high = other.low - first.high, other.high - first.low
    value = other.value - first.value
    if not (math.isfinite(low) and math.isfinite(high)):
        return Change(value, math.nan, math.nan, UNRESOLVED, margin=margin)
    if -margin <= low and high <= margin:
        return Change(value, low, high, SAME, margin=margin)
    if low <= margin and high >= -margin:
        return Change(value, low, high, UNRESOLVED, margin=margin)
    word = _word(way, low if low > 0 else high, low, high, margin)
    return Change(value, low, high, word, margin=margin)


def _word(way: int, value: float, low: float, high: float, margin: float) -> str:
    if not math.isfinite(value):
        return INCOMPARABLE
    ends = math.isfinite(low) + math.isfinite(high)
    if not ends:
        # Without an interval nobody can say whether it is noise: it differs, no more.
        return SAME if abs(value) <= margin else DIFFERS
    if not (low > margin or high < -margin):  # a missing end is no end
        return SAME if ends == 2 else UNRESOLVED
    if not way:
        return DIFFERS
    return BETTER if value * way > 0 else WORSE
