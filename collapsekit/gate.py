"""What an audit is held to: its findings, its headlines by their intervals, an older audit.

A headline is judged by its whole interval, never by its value alone: a gate that flips with the
seed is switched off within a week. So there are three outcomes, and the one in the middle is told
apart from a pass.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

from collapsekit.comparison import (
    DIFFERS,
    INCOMPARABLE,
    UNRESOLVED,
    WORSE,
    Change,
    compare,
    own_name,
)
from collapsekit.errors import InputError
from collapsekit.findings import Finding, Severity
from collapsekit.number import Z95, Number
from collapsekit.rendering import wording
from collapsekit.results import Audit

_FORM = re.compile(r"\s*([^<>=\s]+)\s*(>=|<=|>|<)\s*(\S+)\s*")
_RELATIONS: dict[str, Callable[[float, float], bool]] = {
    ">=": lambda value, bar: value >= bar,
    ">": lambda value, bar: value > bar,
    "<=": lambda value, bar: value <= bar,
    "<": lambda value, bar: value < bar,
}
_BASELINE, _THIS = "the baseline", "this audit"
#: Chance of failing, over all headlines together, when nothing got worse.
FALSE_ALARM = 0.05
ONE_RUN = (
    "Noise is the choice of samples: two trainings of one recipe may differ by more than that."
)


class Outcome(StrEnum):
    """Of one check, or of a whole gate."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Judged:
    """One thing that was held against a bar.

    Attributes
    ----------
    name : str
        The check as it was asked for; unique within a gate.
    outcome : Outcome
    message : str
        What was found, with its numbers.
    """

    name: str
    outcome: Outcome
    message: str


@dataclass(frozen=True)
class Check:
    """A headline of ``audit.summary`` and what it has to be.

    Parameters
    ----------
    headline : str
    relation : {">=", ">", "<=", "<"}
    threshold : float
        In the headline's own unit: shares are 0 to 1.

    Examples
    --------
    >>> Check.parse("active_fraction >= 0.8")
    Check(headline='active_fraction', relation='>=', threshold=0.8)
    """

    headline: str
    relation: str
    threshold: float

    @classmethod
    def parse(cls, text: str) -> Check:
        """Read ``HEADLINE>=NUMBER``.

        Raises
        ------
        InputError
            It has another form.
        """
        found = _FORM.fullmatch(text)
        try:
            threshold = float(found[3]) if found else math.nan
        except ValueError:
            threshold = math.nan
        if found is None or not math.isfinite(threshold):
            raise InputError(
                "a check cannot be read",
                got=text,
                expected="HEADLINE, one of >= > <= <, and a number, such as active_fraction>=0.8",
                remedy="quote it in a shell, for < and > redirect there; shares are 0 to 1",
            )
        return cls(found[1], found[2], threshold)

    def __str__(self) -> str:
        return f"{self.headline}{self.relation}{self.threshold:g}"

    def judge(self, audit: Audit) -> Judged:
        """Hold the audit's headline against the threshold, by its interval.

        PASS where the whole interval passes, FAIL where no part of it does, INCONCLUSIVE where the
        threshold lies within, whichever side the value is on, and where there is no value. An end
        that is missing is an interval without end on that side; a headline without an interval is
        judged by its value.

        Raises
        ------
        InputError
            No audit has a headline of this name: a typo must not pass a gate.
        """
        if self.headline not in audit.summary.index:
            return Judged(str(self), Outcome.INCONCLUSIVE, self._absent(audit))
        number = audit.number(self.headline)
        known = [end for end in (number.low, number.high) if math.isfinite(end)]
        # A bracket of two bounds, or one bound alone, may have no value and still decide.
        ends = _ends(number) if known else (number.value,)
        if not known and not number.known:
            return Judged(str(self), Outcome.INCONCLUSIVE, f"{self.headline} was not measured")
        passed = [_RELATIONS[self.relation](end, self.threshold) for end in ends]
        told = f"{_told(number)}, asked for {self.relation} {self.threshold:g}"
        if all(passed):
            return Judged(str(self), Outcome.PASS, told)
        if not any(passed):
            return Judged(str(self), Outcome.FAIL, told)
        why = "its interval has the threshold inside; audit more samples"
        if len(known) == 1 and not self._between(number):
            side = "upper" if math.isfinite(number.low) else "lower"
            why = f"its interval has no {side} end, so it is not known"
        return Judged(str(self), Outcome.INCONCLUSIVE, f"{told}: {why}")

    def _between(self, number: Number) -> bool:
        """Whether the threshold lies between the value and the end that is known."""
        known = number.low if math.isfinite(number.low) else number.high
        return min(known, number.value) <= self.threshold <= max(known, number.value)

    def _absent(self, audit: Audit) -> str:
        group, _, own = self.headline.rpartition("/")
        if own not in audit.titles or (group and group not in audit.groups):
            known = [*map(str, audit.summary.index)]
            near = difflib.get_close_matches(self.headline, known, n=1)
            raise InputError(
                f"this audit has no headline called {self.headline!r}",
                got=str(self),
                expected=f"one of {', '.join(known)}" if known else "a headline of an audit",
                remedy=f"did you mean {near[0]}?" if near else "audit.summary lists them",
            )
        reasons = "; ".join(f"{name}: {why}" for name, why in sorted(audit.skipped.items()))
        told = f"{self.headline} was not measured in this audit"
        parts = [str(name) for name in audit.summary.index if own_name(str(name)) == self.headline]
        if parts:
            told += f" as a whole, but of its groups: {', '.join(parts)}"
        return wording.clean(f"{told} (skipped: {reasons})" if reasons else told, 400)


@dataclass(frozen=True)
class Ruling:
    """What a gate decided, and on what.

    Attributes
    ----------
    fail_on : Severity
    findings : tuple of Finding
        Those at or above `fail_on`.
    checks, baseline : tuple of Judged
        The headlines asked for, and those held against the baseline's.
    notes : tuple of str
        What a reader must know about the comparison with the baseline.
    undecided : bool
        Whether the audit's verdict is inconclusive.
    """

    fail_on: Severity
    findings: tuple[Finding, ...]
    checks: tuple[Judged, ...] = ()
    baseline: tuple[Judged, ...] = ()
    notes: tuple[str, ...] = ()
    undecided: bool = False

    @property
    def judged(self) -> tuple[Judged, ...]:
        """Checks and headlines against the baseline."""
        return self.checks + self.baseline

    @property
    def outcome(self) -> Outcome:
        """FAIL wins over INCONCLUSIVE: what is known to be bad is the stronger statement."""
        found = {judged.outcome for judged in self.judged}
        if self.findings or Outcome.FAIL in found:
            return Outcome.FAIL
        if self.undecided or Outcome.INCONCLUSIVE in found:
            return Outcome.INCONCLUSIVE
        return Outcome.PASS


def rule(
    audit: Audit,
    fail_on: Severity = Severity.FAIL,
    checks: Iterable[str | Check] = (),
    baseline: Audit | None = None,
) -> Ruling:
    """Judge an audit.

    Parameters
    ----------
    audit : Audit
    fail_on : Severity
        Findings from here on fail the gate.
    checks : iterable of str or Check
        Such as ``"active_fraction>=0.8"``; see `Check.judge`.
    baseline : Audit, optional
        An older audit on the same data against the same prior; see `against`.

    Returns
    -------
    Ruling

    Raises
    ------
    InputError
        A check cannot be read or names no headline; the baseline saw other data or another prior.
    """
    asked = (checks,) if isinstance(checks, str) else checks
    read = [check if isinstance(check, Check) else Check.parse(check) for check in asked]
    held, notes = ((), ()) if baseline is None else against(audit, baseline)
    return Ruling(
        fail_on=fail_on,
        findings=tuple(f for f in audit.findings if f.severity >= fail_on),
        checks=tuple(check.judge(audit) for check in dict.fromkeys(read)),
        baseline=held,
        notes=notes,
        undecided=audit.verdict.name == "inconclusive",
    )


def against(audit: Audit, baseline: Audit) -> tuple[tuple[Judged, ...], tuple[str, ...]]:
    """Hold every headline of the baseline against the audit's.

    A headline fails where it is worse by more than noise and a margin of practical consequence
    (`comparison.margin_of`). The interval of its change, which
    `collapsekit.compare` takes over paired samples where it can, is widened so that all headlines
    together fail by chance with a probability of at most `FALSE_ALARM` (Bonferroni, one-sided).
    That covers the choice of samples, not another training run: two seeds of one recipe may differ
    by more. A headline that the baseline has and the audit lacks, or has in another unit, is
    inconclusive; so is one without an interval whose value is worse by more than the margin. Other
    headlines without an interval pass, and a note names them: they were not judged.

    Returns
    -------
    tuple of Judged
        One for each headline of the baseline, in its order.
    tuple of str
        Notes of the comparison.

    Raises
    ------
    InputError
        The two audits saw different data or different priors, or had different seeds.
    """
    seeds = [one.provenance.get("seed") for one in (baseline, audit)]
    prints = [one.provenance.get("data_fingerprint") for one in (baseline, audit)]
    if seeds[0] != seeds[1] and prints[0] != prints[1]:
        # The fingerprint is of samples that the seed picks: equal data cannot be recognised.
        raise InputError(
            "the baseline was audited with another seed",
            got=f"seed {seeds[0]} in the baseline, {seeds[1]} here",
            expected="one seed, by which equal data are recognised",
            remedy=f"audit again with --seed {seeds[0]} (seed={seeds[0]})",
        )
    try:
        comparison = compare({_BASELINE: baseline, _THIS: audit})
    except InputError as error:
        raise InputError(
            "the baseline is no baseline for this audit",
            got=f"{error.what}: {error.got}",
            expected="the same data and the same prior in both",
            remedy="audit the older model again on these data, or leave the baseline out",
        ) from error
    known = {
        name: number
        for name in comparison.headlines
        if (number := comparison.number(_BASELINE, name)) is not None
    }
    changes = {name: comparison.changes[name, _THIS] for name in known}
    compared = sum(change.word != INCOMPARABLE for change in changes.values())
    wider = NormalDist().inv_cdf(1 - FALSE_ALARM / max(compared, 2)) / Z95
    judged = tuple(
        _no_worse(
            known[name],
            comparison.number(_THIS, name),
            change,
            max(wider, 1.0),
            comparison.better_with(name),
        )
        for name, change in changes.items()
    )
    unjudged = [name for name, change in changes.items() if _without_interval(change)]
    told = f"Without an interval, and so not judged: {', '.join(unjudged)}." if unjudged else ""
    return judged, (*comparison.notes, *filter(None, [told]), ONE_RUN)


def _no_worse(then: Number, now: Number | None, change: Change, wider: float, way: int) -> Judged:
    name = f"{then.name} no worse than the baseline"
    if now is None:
        told = f"{then.name} was measured in the baseline ({_told(then)}), and is not here"
        return Judged(name, Outcome.INCONCLUSIVE, told)
    told = f"{_told(now)}, in the baseline {_told(then, named=False)}"
    if change.word == INCOMPARABLE:
        return Judged(
            name, Outcome.INCONCLUSIVE, f"{told}: another unit or likelihood, not comparable"
        )
    if _without_interval(change):
        return _not_judged(name, told, change, way)
    if change.word == UNRESOLVED:
        return Judged(name, Outcome.PASS, f"{told}: nothing shown to be worse")
    moved = Number(then.name, change.value, change.low, change.high, now.unit, now.n)
    if moved.known:
        told += f"; change {_told(moved, named=False, signed=True)}"
    if change.word == WORSE and _beyond(change, wider):
        return Judged(name, Outcome.FAIL, f"{told}: worse beyond noise and margin")
    return Judged(name, Outcome.PASS, told)


def _without_interval(change: Change) -> bool:
    """Whether there is a change, and no interval to tell it from noise."""
    ends = math.isfinite(change.low) and math.isfinite(change.high)
    return change.word in (DIFFERS, UNRESOLVED) and not ends


def _not_judged(name: str, told: str, change: Change, way: int) -> Judged:
    told = f"{told}: not judged: no interval"
    if change.value * way < -change.margin:
        return Judged(name, Outcome.INCONCLUSIVE, f"{told}, and its value is worse")
    return Judged(name, Outcome.PASS, f"{told}; its value is not worse")


def _ends(number: Number) -> tuple[float, float]:
    """The interval's ends; a missing one is at infinity."""
    low, high = number.low, number.high
    return low if math.isfinite(low) else -math.inf, high if math.isfinite(high) else math.inf


def _beyond(change: Change, wider: float) -> bool:
    """Whether the change stays beyond its margin when its interval is widened."""
    if not math.isfinite(change.value):
        return True  # two brackets without values that do not even touch
    half = change.value - change.low if change.value > 0 else change.high - change.value
    return abs(change.value) - wider * half > change.margin


def _told(number: Number, *, named: bool = True, signed: bool = False) -> str:
    value = number.digits() if number.known else "unknown value"
    sign = "+" if signed and number.value > 0 else ""
    unit = "" if number.unit in ("1", "share") or not number.known else f" {number.unit}"
    lead = f"{number.name} is " if named else ""
    return f"{lead}{sign}{value}{unit}{number.interval()}"
