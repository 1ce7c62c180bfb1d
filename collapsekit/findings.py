"""Findings: judgements with their evidence, and the verdict that folds them.

A probe judges its own number. The verdict knows severities and words, and no probe by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

from collapsekit.number import Number


class Severity(IntEnum):
    """How bad: ok < inconclusive < warn < fail."""

    OK = 0
    INCONCLUSIVE = 1
    WARN = 2
    FAIL = 3

    @property
    def word(self) -> str:
        """Lower-case name, as files and the command line write it."""
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> Severity:
        """Read a severity from its word."""
        return cls[word.upper()]


@dataclass(frozen=True)
class Evidence:
    """A number beside the threshold that it was held against (``None``: told, not judged)."""

    number: Number
    threshold: float | None = None
    relation: str = ""  # how the value has to stand to the threshold to pass: "<", ">=", ...


@dataclass(frozen=True)
class Finding:
    """One judgement: what was seen, how bad it is, on what evidence, and what to do.

    Parameters
    ----------
    code : str
        ``CK...``; ``collapsekit explain CODE`` prints its meaning, formula, remedy and source.
    severity : Severity
    title, message, advice : str
        The code's title; what was found here, with its numbers; what to do about it.
    evidence : tuple of Evidence
    verdict : str or None
        The verdict word that this finding argues for, if any; of one that is itself inconclusive,
        the worst word that it would argue for if it were settled.
    samples, dimensions : tuple of int
        Which ones; at most 1,000 are kept, the message carries the full count.
    """

    code: str
    severity: Severity
    title: str
    message: str
    advice: str = ""
    evidence: tuple[Evidence, ...] = ()
    verdict: str | None = None
    samples: tuple[int, ...] = ()
    dimensions: tuple[int, ...] = ()


def by_axes(finding: Finding, codes: str) -> Finding:
    """The same as told, not judged: of a code whose axes are one basis of many."""
    return replace(
        finding,
        severity=Severity.OK,
        message=f"axis by axis, which another basis would change ({codes}): {finding.message}",
        advice="",
        evidence=tuple(Evidence(e.number) for e in finding.evidence),
        verdict=None,
    )


KEPT_INDICES = 1_000
_PER_CENT = re.compile(r"(?<=\d)%")  # as Python's formats write it; sentences say 95 %


@dataclass(frozen=True)
class Code:
    """What a finding of this code means, told once: ``collapsekit explain`` prints it.

    Parameters
    ----------
    id, title : str
    meaning : str
        One paragraph for a reader who never heard of it.
    formula : str
        The definition, with units and thresholds.
    remedy : str
        What to do; becomes the finding's advice unless that is given.
    source : str
        Paper and equation, or "collapsekit" for our own definitions.
    """

    id: str
    title: str
    meaning: str
    formula: str
    remedy: str
    source: str

    def finding(
        self,
        severity: Severity,
        message: str,
        *,
        evidence: Iterable[Evidence] = (),
        verdict: str | None = None,
        samples: Iterable[int] = (),
        dimensions: Iterable[int] = (),
        advice: str | None = None,
    ) -> Finding:
        """Make a finding of this code."""
        if verdict is not None and verdict not in VERDICTS:
            raise ValueError(f"got verdict {verdict!r}, expected one of {VERDICTS}")
        evidence = tuple(replace(e, number=e.number.told()) for e in evidence)
        if severity is Severity.OK and evidence and not evidence[0].number.measured:
            # Nothing was measured, so nothing is in order, and nothing argues for healthy.
            name = evidence[0].number.name
            message = f"{name} has no value: it was finite for no sample, or for too few."
            severity, verdict = Severity.INCONCLUSIVE, None
        healthy = severity is Severity.OK
        return Finding(
            code=self.id,
            severity=severity,
            title=self.title,
            message=_PER_CENT.sub(" %", message),
            advice=("" if healthy else self.remedy) if advice is None else advice,
            evidence=evidence,
            verdict=verdict,
            samples=tuple(int(i) for i in samples)[:KEPT_INDICES],
            dimensions=tuple(int(j) for j in dimensions)[:KEPT_INDICES],
        )


#: The seven words, in the order in which they win.
VERDICTS = (
    "contradictory",
    "total",
    "local",
    "near-deterministic",
    "partial",
    "inconclusive",
    "healthy",
)

#: What the seven words are called on paper.
STATE = {
    "contradictory": "The measures contradict each other",
    "total": "Total collapse",
    "local": "Local collapse",
    "near-deterministic": "Near-deterministic",
    "partial": "Partial collapse",
    "inconclusive": "Inconclusive",
    "healthy": "Healthy",
}


@dataclass(frozen=True)
class Verdict:
    """One of seven words, the sentence beside it, and the codes of the findings that decided it."""

    name: str
    sentence: str
    severity: Severity
    codes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        # The sentence begins with the word's own name on paper: once is enough.
        return f"{self.name}: {self.sentence.removeprefix(f'{STATE[self.name]}: ')}"


#: The words that say what is wrong, worst first.
WRONG = VERDICTS[: VERDICTS.index("inconclusive")]


def fold(findings: Sequence[Finding]) -> Verdict:
    """Fold findings into the verdict: the one word that is right however open questions come out.

    Settled is the worst word that a finding argues for by a warning or a failure. A finding that is
    itself inconclusive and carries a worse word would overrule it if it were settled: then the
    verdict is inconclusive. One that carries the same or a milder word changes nothing. Where
    nothing is settled, any open question keeps the code from being called healthy, and so does a
    finding whose word is ``inconclusive`` (samples were lost, say): what it doubts is no word but
    whether the rest stands for all. Without any finding there is nothing to be healthy about:
    inconclusive. Warnings that carry no word (a prior mismatch, say) are told beside any verdict.
    """
    settled, deciding = None, []
    for word in WRONG:
        deciding = [f for f in findings if f.verdict == word and f.severity >= Severity.WARN]
        if deciding:
            settled = word
            break
    open_ = _open(findings, settled)
    if open_:
        return _undecided(open_, settled, deciding, findings)
    if settled is not None:
        return _decided(settled, deciding, findings)
    healthy = [f for f in findings if f.verdict == "healthy"]
    if not healthy:
        return Verdict(
            "inconclusive",
            "Inconclusive: no probe that could decide ran. See the findings for what was missing.",
            Severity.INCONCLUSIVE,
        )
    return _decided("healthy", healthy, findings)


def _open(findings: Sequence[Finding], settled: str | None) -> list[Finding]:
    """Findings that leave the verdict open, those that might argue for the worst word first."""
    words = WRONG if settled is None else WRONG[: WRONG.index(settled)]
    found = [f for f in findings if f.severity is Severity.INCONCLUSIVE and f.verdict in words]
    found.sort(key=lambda f: WRONG.index(str(f.verdict)))
    if settled is None:
        doubts = (f for f in findings if f.verdict == "inconclusive")
        found += sorted((f for f in doubts if f.severity), key=lambda f: -f.severity)
    return found


def _undecided(
    open_: Sequence[Finding],
    settled: str | None,
    deciding: Sequence[Finding],
    findings: Sequence[Finding],
) -> Verdict:
    words = dict.fromkeys(str(f.verdict) for f in open_ if f.verdict in WRONG)
    told = f"perhaps {' or '.join(words)}" if words else ""
    if settled is not None:
        told += f", {settled} at least"
    sentence = _sentence("inconclusive", [*open_[:2], *deciding], findings, told)
    found = dict.fromkeys(f.code for f in (*open_, *deciding))
    return Verdict("inconclusive", sentence, max(f.severity for f in open_), tuple(found))


def _decided(word: str, deciding: Sequence[Finding], findings: Sequence[Finding]) -> Verdict:
    deciding = sorted(deciding, key=lambda f: -f.severity)
    return Verdict(
        name=word,
        sentence=_sentence(word, deciding, findings),
        severity=deciding[0].severity,
        codes=tuple(dict.fromkeys(f.code for f in deciding)),
    )


def _sentence(
    word: str, deciding: Sequence[Finding], findings: Sequence[Finding], told: str = ""
) -> str:
    first = deciding[0].message
    parts = [f"{STATE[word]}: {told}. {_capital(first)}" if told else f"{STATE[word]}: {first}"]
    parts += [_capital(f.message) for f in deciding[1:3]]
    if deciding[0].advice:
        parts.append(deciding[0].advice)
    beside = [f for f in findings if f.verdict is None and f.severity >= Severity.WARN]
    if beside:
        parts += [f"Beside it: {beside[0].message}", *(_capital(f.message) for f in beside[1:2])]
    return " ".join(parts)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
