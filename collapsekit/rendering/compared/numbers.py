"""What got better, what got worse: every headline of every audit, with its change."""

from __future__ import annotations

import math
from collections import Counter

from collapsekit.comparison import BETTER, DIFFERS, SAME, UNRESOLVED, WORSE, Change
from collapsekit.rendering import wording
from collapsekit.rendering.blocks import Delta, Deltas, Paragraph, Section
from collapsekit.rendering.compared.runs import Compared
from collapsekit.rendering.comparison_text import cell, difference, unit_of
from collapsekit.rendering.wording import spelled, tie, verb

_TONE = {BETTER: "better", WORSE: "worse", DIFFERS: "differs", SAME: "same"}


def build(compared: Compared) -> Section:
    """The section."""
    comparison = compared.comparison
    rows = []
    for headline in comparison.headlines[:48]:
        unit = unit_of(comparison, headline)
        cells = []
        for run in compared.runs:
            number = comparison.number(run.key, headline)
            change = comparison.changes.get((headline, run.key))
            cells.append(
                Delta(
                    cell(number),
                    "" if number is None or not number.known else wording.interval(number),
                    *_told(change, unit),
                )
            )
        name = wording.title(comparison.titles, headline)
        told = "" if unit in ("share", "1", "dimensions") else wording.unit(unit)
        rows.append((name, told, tuple(cells)))
    return Section(
        id="numbers",
        nav="Numbers",
        question="What got better, what got worse?",
        headline=tie(_headline(compared)),
        blocks=(
            Paragraph(_text(compared)),
            Deltas(tuple(run.name for run in compared.runs), tuple(rows)),
        ),
    )


def _headline(compared: Compared) -> str:
    comparison = compared.comparison
    words = Counter(comparison.changes[h, compared.last.key].word for h in comparison.headlines)
    told = (
        (BETTER, "better"),
        (WORSE, "worse"),
        (DIFFERS, "different"),
        (UNRESOLVED, "unresolved"),
        (SAME, "the same within noise or margin"),
    )
    parts = [(words[word], name) for word, name in told if words[word]]
    if not parts:
        return "Nothing could be compared."
    n, name = parts[0]
    first = f"{wording.counted(n, 'number', capital=True)} {verb(n, 'is', 'are')} {name}"
    rest = [f"{spelled(k)} {other}" for k, other in parts[1:]]
    text = ", ".join([first, *rest])
    if len(compared.runs) > 2:
        return f"{compared.last.name}: {text[0].lower()}{text[1:]}."
    return f"{text}."


def _text(compared: Compared) -> str:
    comparison = compared.comparison
    pairs = max((change.pairs for change in comparison.changes.values()), default=0)
    how = (
        f"Means over samples are compared pair by pair, on {pairs:,} common "
        f"{compared.first.facts.nouns(pairs)}; other numbers by their intervals."
        if pairs
        else "Nothing could be paired sample by sample: numbers are compared by their intervals."
    )
    return (
        f"Each change is against {compared.first.name}, with its 95 % interval. {how} “Same” is "
        "said when the interval of the difference holds zero or a change too small to matter; "
        "“cannot tell” when two brackets overlap."
    )


def _told(change: Change | None, unit: str) -> tuple[str, str, str, str]:
    """Word, arrow, size and class of a change; all empty for the first run."""
    if change is None:
        return "", "", "", ""
    known = math.isfinite(change.value) or math.isfinite(change.low)
    if not known:
        return change.word, "", "", "unknown"
    direction = change.value if math.isfinite(change.value) else change.low
    arrow = "↑" if direction > 0 else "↓"
    if change.word == SAME:
        arrow = "="
    elif change.word == UNRESOLVED:
        arrow = "?"
    return change.word, arrow, difference(change, unit), _TONE.get(change.word, "unknown")
