"""A comparison in a terminal, and as a small card in a notebook."""

from __future__ import annotations

import math

from collapsekit.comparison import SAME, Change, Comparison
from collapsekit.number import Number
from collapsekit.rendering import wording
from collapsekit.rendering.environment import environment
from collapsekit.rendering.text import table
from collapsekit.rendering.theme import COLOURS, FONT_STACK


def render(comparison: Comparison) -> str:
    """Verdicts, then a row per headline: every audit's value and what changed against the first."""
    names = [wording.clean(name, 24) for name in comparison.audits]
    verdicts = [
        (name, wording.STATE.get(audit.verdict.name, audit.verdict.name))
        for name, audit in zip(names, comparison.audits.values(), strict=True)
    ]
    head = ["", names[0]]
    for name in names[1:]:
        head += [name, f"against {names[0]}"]
    rows = [tuple(head)]
    for headline in comparison.headlines:
        row = [wording.clean(headline, 34)]
        for name in comparison.audits:
            row.append(cell(comparison.number(name, headline)))
            if name != comparison.reference:
                row.append(told(comparison.changes[headline, name], headline, comparison))
        rows.append(tuple(row))
    right = tuple(k for k in range(1, len(head)) if k == 1 or k % 2 == 0)
    parts = [table(verdicts), table(rows, right=right), *comparison.notes]
    return "\n\n".join(parts).replace(wording.NBSP, " ")


def card(comparison: Comparison) -> str:
    """The same as a table in HTML, without a script."""
    rows = [
        (
            wording.title(comparison.titles, headline),
            [
                (
                    cell(comparison.number(name, headline)),
                    ""
                    if name == comparison.reference
                    else told(comparison.changes[headline, name], headline, comparison),
                )
                for name in comparison.audits
            ],
        )
        for headline in comparison.headlines
    ]
    return (
        environment()
        .get_template("comparison_card.html")
        .render(
            colours=COLOURS,
            fonts=FONT_STACK,
            names=[wording.clean(name, 40) for name in comparison.audits],
            states=[
                wording.STATE.get(a.verdict.name, a.verdict.name)
                for a in comparison.audits.values()
            ],
            rows=rows,
            notes=comparison.notes,
        )
    )


def cell(number: Number | None) -> str:
    """A value with its unit, ``81 %``; a bracket without a value as its ends."""
    if number is None:
        return wording.UNKNOWN
    if not number.known:
        return wording.interval(number) or wording.UNKNOWN
    text, unit = wording.value(number)
    return f"{text}{wording.NBSP}%" if unit == "%" else text


def told(change: Change, headline: str, comparison: Comparison) -> str:
    """``better, +24 (23 to 25)``."""
    if not math.isfinite(change.value) and not math.isfinite(change.low):
        return change.word
    size = difference(change, unit_of(comparison, headline))
    return f"{change.word}, {size}" if change.word != SAME else f"{change.word} ({size})"


def unit_of(comparison: Comparison, headline: str) -> str:
    """The unit of a headline in the first audit that has it."""
    for name in comparison.audits:
        number = comparison.number(name, headline)
        if number is not None:
            return number.unit
    return "1"


def difference(change: Change, unit: str) -> str:
    """A change with sign and interval, shares in points: ``−13.1 points (−13.8 to −12.4)``."""
    scale = 100.0 if unit == "share" else 1.0
    half = (change.high - change.low) / 2 * scale
    whole = unit == "dimensions"
    decimals = wording.places(half) if math.isfinite(half) and half > 0 else None
    if decimals is not None and unit == "nats" and abs(change.value) < 10:
        decimals = max(decimals, 1)
    if whole and float(change.value).is_integer():
        decimals = 0
    points = f"{wording.NBSP}points" if unit == "share" else ""
    if not math.isfinite(change.value):
        return f"{signed(change.low * scale, decimals)} to {signed(change.high * scale, decimals)}"
    text = f"{signed(change.value * scale, decimals)}{points}"
    if math.isfinite(half) and half > 0:
        ends = (signed(end * scale, decimals) for end in (change.low, change.high))
        text += f" ({' to '.join(ends)})"
    return text


def signed(value: float, decimals: int | None) -> str:
    """A number with its sign; zero has none."""
    if not math.isfinite(value):
        return wording.UNKNOWN
    text = wording.figure(abs(value), decimals)
    if text.startswith("<") or not text.strip("0.,"):
        return "0"
    return f"{'+' if value > 0 else wording.MINUS}{text}"
