"""Numbers and counts as words: every headline, caption and tile of every format is made of these.

Two rules hold throughout. A value is never printed with more digits than its interval supports, and
a value that is not known is never printed: `UNKNOWN` stands in tables, sentences leave it out.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from collapsekit.findings import STATE as STATE  # told here as well: the words of a report
from collapsekit.findings import Severity
from collapsekit.number import Number

NBSP = "\u00a0"
UNKNOWN = "–"
MINUS = "−"

#: Severities as a reader meets them.
SEVERITY = {
    Severity.OK: "OK",
    Severity.INCONCLUSIVE: "Inconclusive",
    Severity.WARN: "Warning",
    Severity.FAIL: "Fail",
}


def title(titles: Mapping[str, str], headline: str, limit: int = 60) -> str:
    """What a report calls a headline: its probe's words, else the name itself, spaced."""
    return clean(titles.get(headline) or headline.replace("_", " "), limit)


_SPELLED = (
    "no",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)
_UNPRINTED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_JOINERS = frozenset("\u200c\u200d")  # Persian and Indic words are spelled with them
_LINE_BREAKS = re.compile(r"\s+")


def clean(text: object, limit: int = 160) -> str:
    """A stranger's text as one printable line.

    Control characters would break XML, and bidirectional overrides would let a label rewrite the
    words around it; both go. What is left is cut at `limit` characters. Escaping is not done here:
    every format escapes for itself.
    """
    # Cut before looking at each character: a name of a megabyte costs nothing.
    raw = str(text)[: limit * 8]
    line = _LINE_BREAKS.sub(" ", raw)
    kept = "".join(c for c in line if c in _JOINERS or unicodedata.category(c) not in _UNPRINTED)
    kept = kept.strip()
    return kept if len(kept) <= limit else kept[: limit - 1].rstrip() + "…"


def middle(text: str, limit: int) -> str:
    """A label at most `limit` long, cut in its middle: labels of a family differ at their ends."""
    if len(text) <= limit:
        return text
    head = limit // 2
    return f"{text[:head].rstrip()}…{text[len(text) - (limit - 1 - head) :].lstrip()}"


def figure(value: float, places: int | None = None, *, significant: int = 3) -> str:
    """A bare number: thousands separated, `significant` digits unless `places` says otherwise."""
    value = float(value)
    if not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return "0"
    if places is None:
        exponent = math.floor(math.log10(abs(value)))
        if not -6 < exponent < 12:
            return f"{value:.{significant - 1}e}".replace("-", MINUS)
        if float(value).is_integer() and abs(value) < 1e12:
            places = 0
        else:
            places = max(significant - 1 - exponent, 0)
    text = f"{value:,.{places}f}"
    if float(text.replace(",", "")) == 0 and places > 0:
        return (
            f"< {10.0**-places:.{places}f}" if value > 0 else f"> {MINUS}{10.0**-places:.{places}f}"
        )
    return text.replace("-", MINUS)


def tick(value: float) -> str:
    """A number on an axis: no trailing zeros, no exponent where it can be helped."""
    if value == 0:
        return "0"
    if not 1e-6 <= abs(value) < 1e7:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e").replace("-", MINUS)
    return f"{value:,.6f}".rstrip("0").rstrip(".").replace("-", MINUS)


def places(half: float) -> int:
    """Decimals that an interval of half-width `half` supports: down to its first digit."""
    if not math.isfinite(half) or half <= 0:
        return 3
    # The tolerance: half of 24.7 - 24.5 is a hair below 0.1 in binary.
    return min(max(-math.floor(math.log10(half) + 1e-9), 0), 6)


def _decimals(number: Number, scale: float = 1.0) -> int | None:
    half = (number.high - number.low) / 2 * scale
    if number.unit == "dimensions" and all(
        float(end).is_integer()
        for end in (number.value, number.low, number.high)
        if math.isfinite(end)
    ):
        return 0
    if not (math.isfinite(half) and half > 0):
        return None
    # A bracket of two bounds is no error bar: a one-digit value keeps one decimal.
    least = 1 if number.unit == "nats" and 1 <= abs(number.value) < 10 else 0
    return max(places(half), least)


def percent(share: float, decimals: int | None = None) -> str:
    """A share in [0, 1] as ``85 %``; 0 and 100 are printed only when they are exact."""
    share = float(share)
    if not math.isfinite(share):
        return UNKNOWN
    value = 100 * share
    if value in (0.0, 100.0):
        return f"{value:.0f}{NBSP}%"
    if decimals is None:
        edge = min(abs(value), abs(100 - value))
        decimals = 0 if edge >= 1 else min(-math.floor(math.log10(edge)), 2)
    text = f"{value:,.{decimals}f}"
    unit = 10.0**-decimals
    if float(text.replace(",", "")) == 0:
        return f"<{NBSP}{unit:.{decimals}f}{NBSP}%"
    if float(text.replace(",", "")) == 100:
        return f">{NBSP}{100 - unit:.{decimals}f}{NBSP}%"
    return f"{text.replace('-', MINUS)}{NBSP}%"


def value(number: Number) -> tuple[str, str]:
    """A headline's value and unit, as two strings: ``("97.7", "%")``, ``("6.76", "nats")``."""
    if not number.known:
        return UNKNOWN, ""
    if number.unit == "share":
        text = percent(number.value, _decimals(number, 100.0))
        return text.removesuffix(f"{NBSP}%"), "%"
    return figure(number.value, _decimals(number)), unit(number.unit)


def unit(name: str) -> str:
    """A unit as printed: a pure ratio has none."""
    return "" if name == "1" else clean(name, 40)


def quantity(number: Number) -> str:
    """Value and unit in one: ``6.76 nats``, ``9 dimensions``, ``97.7 %``."""
    text, kind = value(number)
    if kind == "dimensions":
        kind = plural(number.value, "dimension")
    return f"{text}{NBSP}{kind}" if kind else text


def interval(number: Number, *, joint: str = " to ") -> str:
    """``6.73 to 6.80``, in the unit of `value`; empty where there is no interval."""
    if not (math.isfinite(number.low) and math.isfinite(number.high)):
        return ""
    scale = 100.0 if number.unit == "share" else 1.0
    decimals = _decimals(number, scale)
    if decimals is None and number.low == number.high:
        return joint.join([value(number)[0]] * 2)
    # An end that would round to 0 or 100 % keeps one more digit: it is not exactly that.
    low, high = (
        _end(end, scale, decimals, number.unit == "share") for end in (number.low, number.high)
    )
    return f"{low}{joint}{high}"


def _end(end: float, scale: float, decimals: int | None, is_share: bool) -> str:
    if is_share:
        return (
            percent(end, decimals)
            .removesuffix(f"{NBSP}%")
            .replace(f"<{NBSP}", "")
            .replace(f">{NBSP}", "")
        )
    return figure(end * scale, decimals).removeprefix("< ").removeprefix("> ")


def in_unit(threshold: float, kind: str) -> str:
    """A threshold in the unit of its number: ``80 %``, ``1 nat``, ``26``."""
    if kind == "share":
        return percent(threshold)
    text = tick(threshold)
    if len(text) > 7:  # computed, as a share of a ceiling is: nobody chose its seventh digit
        text = figure(threshold)
    if kind == "nats":
        return f"{text}{NBSP}{'nat' if threshold == 1 else 'nats'}"
    return text


_PASSES = {
    "<": "below {}",
    "<=": "at {} or less",
    ">": "above {}",
    ">=": "at {} or more",
    "==": "at exactly {}",
}


def passes(threshold: float, relation: str, kind: str) -> str:
    """When a number passes, in words: ``passes above 0.1 nats``, ``passes at 5 % or less``."""
    return f"passes {_PASSES.get(relation, 'at {}').format(in_unit(threshold, kind))}"


def relation_sign(relation: str) -> str:
    """The relation as one sign."""
    return {"<=": "≤", ">=": "≥", "==": "="}.get(relation, relation)


def spelled(n: float, *, capital: bool = False) -> str:
    """``three`` up to twelve, ``1,203`` beyond."""
    whole = int(n)
    text = _SPELLED[whole] if 0 <= whole < len(_SPELLED) else f"{whole:,}"
    return text.capitalize() if capital else text


def plural(n: float, noun: str, many: str | None = None) -> str:
    """The noun that agrees with `n`."""
    return noun if n == 1 else (many or f"{noun}s")


def article(noun: str) -> str:
    """``a sample``, ``an image``."""
    return f"{'an' if noun[:1] in 'aeiou' else 'a'} {noun}"


def verb(n: float, one: str, many: str) -> str:
    """The verb that agrees with `n`."""
    return one if n == 1 else many


def counted(n: float, noun: str, *, capital: bool = False) -> str:
    """``three dimensions``, ``one dimension``, ``no dimension``."""
    return f"{spelled(n, capital=capital)}{NBSP if n > 12 else ' '}{plural(max(n, 1), noun)}"


def some_of(n: float, total: float, noun: str, *, capital: bool = True) -> str:
    """``9 of 32 dimensions``, ``All 32 dimensions``, ``None of the 32``, ``The only dimension``."""
    if total == 1:
        text = f"the only {noun}"
    elif n == 0:
        text = f"none of the {total:,} {noun}s"
    elif n == total:
        text = f"both {noun}s" if total == 2 else f"all {total:,} {noun}s"
    else:
        text = f"{int(n):,}{NBSP}of{NBSP}{int(total):,} {noun}s"
    return text[0].upper() + text[1:] if capital else text


def listing(items: Sequence[str], *, limit: int = 0) -> str:
    """``a, b and c``; beyond `limit` it ends in ``and 5 more``."""
    shown = list(items)
    if limit and len(shown) > limit:
        rest = len(shown) - limit
        shown = [*shown[:limit], f"{rest:,} more"]
    if len(shown) < 2:
        return "".join(shown)
    return f"{', '.join(shown[:-1])} and {shown[-1]}"


def sentences(*parts: str) -> str:
    """Join the parts that say something."""
    return " ".join(part for part in parts if part)


def shorten(text: str, limit: int) -> str:
    """The first whole sentences of `text` that fit into `limit` characters; at least one."""
    if len(text) <= limit:
        return text
    kept = ""
    for part in re.split(r"(?<=[.!?]) ", text):
        if kept and len(kept) + 1 + len(part) > limit:
            break
        kept = f"{kept} {part}".strip()
    return kept if len(kept) <= 2 * limit else clean(kept, 2 * limit)


def prose(text: object, limit: int = 600) -> str:
    """A probe's message as running text: capitals after full stops, a space before per cent."""
    line = re.sub(r"(?<=\d) ?%", f"{NBSP}%", clean(text, limit))
    return re.sub(r"(^|[.!?] )([a-z])", lambda found: found[1] + found[2].upper(), line)


def tie(text: str) -> str:
    """Keep numbers beside their units and ``k of n`` together when a heading wraps."""
    text = re.sub(r"(?<=\d) (?=%|nats?\b)", NBSP, text)
    return re.sub(r"(?<=\d) of (?=\d)", f"{NBSP}of{NBSP}", text)


def showing(shown: int, total: int, noun: str) -> str:
    """``Showing 400 of 10,000 samples.``, or nothing where all are shown."""
    return "" if shown >= total else f"Showing {shown:,} of {total:,} {noun}s."


_LONG_NUMBER = re.compile(r"\d+\.\d{6,}(?:e-?\d+)?")


def field_value(content: object, limit: int = 120) -> str:
    """A setting or provenance entry as a reader would write it."""
    if content is None:
        return "not given"
    if isinstance(content, bool):
        return "yes" if content else "no"
    if isinstance(content, int):
        return f"{content:,}" if abs(content) >= 10_000 else str(content)
    if isinstance(content, float):
        return tick(content) if content == round(content, 6) else figure(content)
    if isinstance(content, dict):
        # In the order that a saved audit has too: a page rendered again is the same page.
        entries = sorted(content.items(), key=lambda entry: str(entry[0]))
        parts = (f"{clean(k, 40)} {field_value(v, limit)}" for k, v in entries)
        return clean(", ".join(parts), limit)
    if isinstance(content, Iterable) and not isinstance(content, str | bytes):
        return clean(", ".join(field_value(item, limit) for item in content), limit)
    # Text that an object made of itself: sixteen digits say nothing more than four.
    return _LONG_NUMBER.sub(lambda found: f"{float(found[0]):.4g}", clean(content, limit))
