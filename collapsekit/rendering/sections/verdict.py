"""Is it collapsed, how, where, and what now: one sentence and six numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from collapsekit.findings import Severity
from collapsekit.number import Number
from collapsekit.rendering import wording
from collapsekit.rendering.blocks import Paragraph, Section, Strip, Tile, Tiles
from collapsekit.rendering.facts import Facts, Judged
from collapsekit.rendering.sections import groups
from collapsekit.rendering.wording import (
    figure,
    percent,
    plural,
    quantity,
    sentences,
    some_of,
    spelled,
    tie,
    verb,
)

ROUND_TRIPS = ("robust_round_trip_r2", "round_trip_r2", "round_trip_r2_prior")


def build(facts: Facts) -> Section:
    """The verdict's section; it exists for every audit."""
    verdict = facts.audit.verdict
    group = groups.deciding(facts)
    told = facts if group is None else group.facts
    tiles = tuple(
        tile(told) for tile in (_rate, _active, _local, _information, _collisions, _round_trip)
    )
    note = (
        "Track: the block is the interval, the thin line the threshold, the darker side passes."
        if any(tile.strip is not None for tile in tiles)
        else ""
    )
    if facts.audit.groups:
        # Of several groups together only the rate is measured; the rest is told group by group.
        tiles = tuple(replace(tile, href="#groups") for tile in tiles if not tile.reason)
        whose = "the whole model’s" if group is None else f"those of group {group.name}"
        note = sentences(f"The numbers are {whose}.", note)
    return Section(
        id="verdict",
        nav="Verdict",
        question=wording.STATE.get(verdict.name, wording.clean(verdict.name, 40)),
        headline=headline(facts),
        blocks=(Paragraph(lead(facts)), Tiles(tiles, note)),
    )


def lead(facts: Facts) -> str:
    """The verdict's own sentence, without the state's name, which stands above it."""
    sentence = wording.prose(facts.audit.verdict.sentence, 2_000)
    state = wording.STATE.get(facts.audit.verdict.name, "")
    if state and sentence.startswith(f"{state}: "):
        sentence = sentence[len(state) + 2 :]
    return wording.shorten(wording.prose(sentence, 2_000), 420)


def headline(facts: Facts) -> str:
    """The verdict in words, from the numbers."""
    writers = {
        "healthy": _healthy,
        "partial": _partial,
        "total": _total,
        "local": _locally,
        "near-deterministic": _deterministic,
        "contradictory": _contradictory,
        "inconclusive": _inconclusive,
    }
    if facts.audit.groups and facts.audit.verdict.name == "healthy":
        return tie(groups.headline(facts))
    writer = writers.get(facts.audit.verdict.name)
    group = groups.deciding(facts)
    text = writer(facts if group is None else group.facts) if writer is not None else ""
    if group is not None and text:
        text = f"Group {group.name}: {text[0].lower()}{text[1:]}"
    return tie(text or wording.STATE.get(facts.audit.verdict.name, "Audit"))


# -- the sentence for each verdict -------------------------------------------------------------


def _healthy(facts: Facts) -> str:
    return sentences(_in_use(facts) or "No sign of collapse.", _carried(facts))


def _partial(facts: Facts) -> str:
    return sentences(_lost(facts), _concentration(facts))


def _total(facts: Facts) -> str:
    information, rate = facts.number("mutual_information"), facts.number("rate")
    first = "The code says nothing about the input."
    if information is None and rate is not None:
        return sentences(first, f"Its KL is {quantity(rate)} per {facts.noun}.")
    if information is None:
        return first
    top = information.high if math.isfinite(information.high) else information.value
    at_most = f"at most {figure(top, significant=2)} nats are information"
    if rate is not None and top >= 0.8 * rate.value:
        return sentences(first, f"Its KL is only {quantity(rate)} per {facts.noun}.")
    if rate is not None:
        return sentences(first, f"Of {quantity(rate)} of KL, {at_most}.")
    return sentences(first, at_most[0].upper() + at_most[1:] + ".")


def _locally(facts: Facts) -> str:
    share = facts.number("locally_collapsed_fraction")
    if share is None:
        return f"Some {facts.nouns(2)} are ignored."
    first = f"{percent(share.value)} of the {facts.nouns(2)} are ignored."
    kl, flags = facts.per_sample("kl_total"), facts.per_sample("locally_collapsed")
    if kl is None or flags is None or len(kl) != len(flags):
        return first
    rest = kl[(flags == 0) & np.isfinite(kl)]
    if not len(rest):
        return first
    return sentences(
        first, f"The others carry a median of {figure(float(np.median(rest)), significant=2)} nats."
    )


def _deterministic(facts: Facts) -> str:
    mismatch = facts.number("dimensionwise_kl")
    first = "The encoder is all but deterministic."
    if mismatch is None:
        return first
    return sentences(first, f"Its codes miss the prior by {quantity(mismatch)}.")


def _contradictory(facts: Facts) -> str:
    if "CK409" in facts.audit.verdict.codes:
        return "The model does not draw from the posterior that it declares."
    mismatched = {
        f.evidence[0].number.name
        for f in facts.findings()
        if f.verdict == "contradictory" and f.evidence
    }
    gap = facts.number("swap_gap")
    if "swap_gap" in mismatched and gap is not None and gap.value < 0:
        return f"The {facts.noun}s’ own codes reconstruct worse than others’ do."
    if "reconstruction_slope" in mismatched:
        return f"Outputs move with the code, but not as the {facts.noun}s do."
    rate, active = facts.number("rate"), facts.number("active_units")
    given, swap = facts.number("told_by_mean_fraction"), facts.number("swap_gap")
    if (given is None and swap is None) or (rate is None and active is None):
        return "The measures contradict each other."
    told = [f"KL {quantity(rate)}"] if rate is not None else []
    if active is not None:
        told.append(f"{figure(active.value)} active {plural(active.value, 'unit')}")
    unused = f"The encoder says unused ({', '.join(told)})"
    if given is not None:
        share = quantity(given)
        return f"{unused}; the decoder gives {share} of the {facts.noun}s back from their means."
    cost = f"swap gap {quantity(swap)}" if swap is not None else ""
    return f"{unused}; the decoder says used ({cost})."


def _inconclusive(facts: Facts) -> str:
    for finding in facts.findings():
        if finding.severity is not Severity.INCONCLUSIVE or finding.verdict is None:
            continue
        for evidence in finding.evidence:
            number, threshold = evidence.number, evidence.threshold
            if threshold is not None and number.known and number.straddles(threshold):
                name = facts.title(number.name)
                limit = wording.in_unit(threshold, number.unit)
                ends = wording.interval(number)
                ends += f"{wording.NBSP}%" if number.unit == "share" else ""
                return sentences(
                    "The numbers do not decide.", f"{name}: {ends}, with the threshold at {limit}."
                )
    if not len(facts.audit.summary):
        return "Nothing could be measured."
    return "Not enough was measured to judge."


# -- parts -------------------------------------------------------------------------------------


def _in_use(facts: Facts) -> str:
    active = facts.number("active_units")
    if active is None or not facts.d:
        return ""
    return f"{some_of(active.value, facts.d, _unit(facts))} {_is(active.value, facts.d)} in use."


def _unit(facts: Facts) -> str:
    """What active units are units of: directions where the code has no axes of its own."""
    return "dimension" if facts.table("active_directions") is None else "direction"


def _is(n: float, total: float) -> str:
    return "is" if n == 1 or total == 1 else "are"


def _carried(facts: Facts) -> str:
    information = facts.number("mutual_information")
    if information is None:
        rate = facts.number("rate")
        return f"KL is {quantity(rate)} per {facts.noun}." if rate is not None else ""
    low = information.low if math.isfinite(information.low) else information.value
    subject = "It carries" if facts.d == 1 else "Together they carry"
    return f"{subject} at least {figure(low, significant=2)} nats about the input."


def _lost(facts: Facts) -> str:
    """The largest group of dimensions that carry nothing, by what is known of them."""
    directions = facts.table("directions", "state")
    if directions is not None:  # the axes are one basis of many: what they lose is no one's
        return _lost_directions(facts, [str(state) for state in directions["state"]])
    groups: list[tuple[int, int, str, str]] = []
    roles = facts.words("role")
    if roles is not None:
        known = [role for role in roles if role]
        groups.append((known.count("dead"), len(known), "is dead", "are dead"))
        ignored = "written but never read"
        groups.append((known.count("ignored"), len(known), f"is {ignored}", f"are {ignored}"))
    states = facts.words("state")
    if states is not None:
        equal = states.count("passive")
        groups.append((equal, len(states), "equals the prior", "equal the prior"))
    if not any(n for n, *_ in groups):
        fake = facts.per_dimension("fake")
        if fake is not None:
            known_fake = fake[np.isfinite(fake)]
            hollow = "active without carrying anything that the decoder needs"
            n = int(known_fake.sum())
            groups.append((n, len(known_fake), f"is {hollow}", f"are {hollow}"))
        if roles is not None:
            never = "read but never written"
            groups.append((roles.count("phantom"), len(roles), f"is {never}", f"are {never}"))
    n, total, one, many = max(groups, key=lambda group: group[0], default=(0, 0, "", ""))
    if n:
        return f"{some_of(n, total, 'dimension')} {one if n == 1 or total == 1 else many}."
    active = facts.number("active_units")
    if active is not None and facts.d and active.value < facts.d:
        units = f"{figure(active.value)} of {facts.d:,} dimensions"
        return f"Only {units} {'is' if active.value == 1 else 'are'} active."
    return "Part of the code is lost."


def _lost_directions(facts: Facts, states: list[str]) -> str:
    idle, unread = states.count("passive"), facts.number("unread_directions")
    n, total = idle, len(states)
    what = "equals the prior", "equal the prior"
    if unread is not None and unread.value > idle:
        n, what = int(unread.value), ("is not read", "are not read")
    if not n:
        return "Part of the code is lost."
    return f"{some_of(n, total, 'direction')} {what[0] if n == 1 or total == 1 else what[1]}."


def _concentration(facts: Facts) -> str:
    kl = facts.per_dimension("kl")
    if kl is None or facts.d < 3:
        return ""
    count, share = carriers(kl)
    if not count:
        return ""
    if count > facts.d / 2:
        return f"It takes {count:,} of them to carry {percent(share)} of the KL."
    who = f"{spelled(count, capital=True)} {verb(count, 'carries', 'carry')}"
    return f"{who} {percent(share)} of the KL."


def carriers(kl: np.ndarray, share: float = 0.8) -> tuple[int, float]:
    """How many dimensions, strongest first, carry at least `share` of the KL; and how much."""
    known = np.sort(np.nan_to_num(kl, nan=0.0).clip(0))[::-1]
    total = float(known.sum())
    if total <= 0:
        return 0, 0.0
    running = np.cumsum(known) / total
    count = int(np.searchsorted(running, share - 1e-12)) + 1
    return count, float(min(running[count - 1], 1.0))


# -- tiles -------------------------------------------------------------------------------------


def _rate(facts: Facts) -> Tile:
    by = "dimensions" if facts.table("directions") is None else "directions"
    return _tile(facts, ("rate",), facts.title("rate"), by)


def _active(facts: Facts) -> Tile:
    label = facts.title("active_units")
    number = facts.number("active_units")
    if number is None:
        return _tile(facts, ("active_units", "active_fraction"), label, "active-units")
    judged = facts.judged("active_units")
    if judged is None and (share := facts.judged("active_fraction")) is not None:
        # Judged as a share: the same threshold, counted in units.
        units = share.threshold * facts.d
        judged = Judged(share.severity, units, share.relation, share.code)
    unit = f"of {facts.d:,}" if facts.d else plural(number.value, "unit")
    passing = ""
    if judged is not None and facts.d:
        whole = math.ceil(judged.threshold - 1e-9)
        share_text = percent(judged.threshold / facts.d)
        passing = (
            f"passes at {whole:,} or more ({share_text})"
            if judged.relation == ">="
            else wording.passes(judged.threshold, judged.relation, "")
        )
    return _tile(
        facts,
        ("active_units",),
        label,
        "active-units",
        unit=unit,
        judged=judged,
        passing=passing,
        top=float(facts.d) or None,
    )


def _local(facts: Facts) -> Tile:
    label = f"{facts.nouns(2).capitalize()} locally collapsed"
    return _tile(facts, ("locally_collapsed_fraction",), label, "samples")


def _information(facts: Facts) -> Tile:
    number = facts.number("mutual_information")
    extra = ""
    if number is not None and facts.n > 1:
        extra = f"ceiling ln N = {figure(math.log(number.n if number.n > 1 else facts.n))}"
    return _tile(
        facts,
        ("mutual_information",),
        facts.title("mutual_information"),
        "information",
        between="bounds",
        extra=extra,
    )


def _collisions(facts: Facts) -> Tile:
    noun = facts.nouns(2)
    label = f"Encoder: {noun} that share a code with an unrelated one"
    return _tile(facts, ("collision_fraction",), label, "injectivity", probe="collisions")


def _round_trip(facts: Facts) -> Tile:
    label = "Decoder: share of a code that survives the round trip"
    number = facts.number(*ROUND_TRIPS)
    extra = ""
    if number is not None:
        column = facts.per_dimension(number.name)
        if column is not None:
            known = column[np.isfinite(column)]
            bar = facts.trip_bar
            kept = int((known >= bar).sum())
            total = f"{len(known):,} {plural(len(known), 'dimension')}"
            extra = f"{kept:,} of {total} above {wording.tick(bar)}"
    name = (number.name,) if number is not None else ROUND_TRIPS
    return _tile(facts, name, label, "injectivity", extra=extra, probe="round_trip", top=1.0)


def _tile(
    facts: Facts,
    names: tuple[str, ...],
    label: str,
    target: str,
    *,
    unit: str | None = None,
    judged: Judged | None = None,
    passing: str = "",
    between: str = "",
    extra: str = "",
    probe: str = "",
    top: float | None = None,
) -> Tile:
    number = facts.number(*names)
    if number is None:
        reason = facts.why_missing(*names, *([probe] if probe else []))
        reason = wording.shorten(reason, 90) if reason else "this audit did not measure it"
        return Tile(label, wording.UNKNOWN, "", (), "#method", reason=reason)
    judged = judged or facts.judged(number.name)
    text, own_unit = wording.value(number)
    ends = wording.interval(number)
    lines: list[str] = []
    if ends:
        lines.append(f"{between or _interval_name(number)} {ends}")
    if judged is not None:
        told = passing or wording.passes(judged.threshold, judged.relation, number.unit)
        lines.append(told)
        if judged.severity is Severity.OK and not _met(number.value, judged):
            lines.append("the interval reaches that: not surely missed")
    if extra:
        lines.append(extra)
    return Tile(
        label=label,
        value=text,
        unit=own_unit if unit is None else unit,
        lines=tuple(lines),
        href=f"#{target}",
        severity=judged.severity if judged is not None else None,
        strip=_strip(number, judged, top),
    )


def _met(value: float, judged: Judged) -> bool:
    """Whether the value itself, its interval aside, is on the passing side."""
    met = {
        "<": value < judged.threshold,
        "<=": value <= judged.threshold,
        ">": value > judged.threshold,
        ">=": value >= judged.threshold,
    }
    return met.get(judged.relation, True)


def _interval_name(number: Number) -> str:
    return "95 % interval" if number.note.startswith("95") or not number.note else "interval"


def _strip(number: Number, judged: Judged | None, top: float | None) -> Strip | None:
    """Where value, interval and threshold lie between nothing and the most that can be."""
    threshold = judged.threshold if judged is not None else None
    low = number.low if math.isfinite(number.low) else number.value
    high = number.high if math.isfinite(number.high) else number.value
    if number.unit == "share":
        top = 1.0
    if top is None:
        top = 1.25 * max(high, number.value, threshold or 0.0)
    bottom = min(0.0, low, number.value)
    if not (math.isfinite(top) and top > bottom):
        return None

    def place(x: float) -> float:
        return min(max((x - bottom) / (top - bottom), 0.0), 1.0)

    good: tuple[float, float] | None = None
    if judged is not None and threshold is not None:
        if judged.relation in (">", ">="):
            good = (place(threshold), 1.0)
        elif judged.relation in ("<", "<="):
            good = (0.0, place(threshold))
    return Strip(place(low), place(high), None if threshold is None else place(threshold), good)
