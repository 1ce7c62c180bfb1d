"""Numbers as words: no more digits than are known, and never a number that is none."""

from __future__ import annotations

import math

import pytest

import collapsekit as ck
from collapsekit.number import Number
from collapsekit.rendering import wording
from collapsekit.rendering.wording import NBSP
from tests import audits, models

NAN = math.nan


def number(value: float, low: float = NAN, high: float = NAN, unit: str = "nats") -> Number:
    return Number("rate", value, low, high, unit, 100)


@pytest.mark.parametrize(
    ("given", "value", "interval"),
    [
        (number(6.7634, 6.731, 6.801), "6.76", "6.73 to 6.80"),
        (number(24.6, 24.5, 24.7), "24.6", "24.5 to 24.7"),
        (number(9, 8, 10, "dimensions"), "9", "8 to 10"),
        (number(9, 9, 9, "dimensions"), "9", "9 to 9"),
        (number(0.977, 0.974, 0.98, "share"), "97.7", "97.4 to 98.0"),
        (number(0.0, 0.0, 0.0004, "share"), "0", "0 to 0.04"),
        (number(1.0, 0.99, 1.0, "share"), "100", "99.0 to 100"),
        (number(5.6, 5.2, 12.0), "5.6", "5.2 to 12.0"),
        (number(1214.3, 1100.0, 1300.0), "1,214", "1,100 to 1,300"),
        (number(-5.62, -6.01, -5.22), "−5.6", "−6.0 to −5.2"),
        (number(3.14159), "3.14", ""),
        (number(NAN), "–", ""),
        (number(math.inf), "–", ""),
    ],
)
def test_a_number_has_the_digits_that_its_interval_supports(
    given: Number, value: str, interval: str
) -> None:
    assert wording.value(given)[0] == value
    assert wording.interval(given) == interval


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.85, "85 %"),
        (0.003, "0.3 %"),
        (0.99994, "99.99 %"),
        (0.0000001, "< 0.01 %"),
        (0.9999999, "> 99.99 %"),
        (NAN, "–"),
    ],
)
def test_nothing_and_all_are_said_only_when_exact(share: float, text: str) -> None:
    assert wording.percent(share).replace(NBSP, " ") == text


@pytest.mark.parametrize(
    ("n", "total", "text"),
    [
        (0, 32, "None of the 32 dimensions"),
        (1, 32, "1 of 32 dimensions"),
        (31, 32, "31 of 32 dimensions"),
        (32, 32, "All 32 dimensions"),
        (2, 2, "Both dimensions"),
        (0, 1, "The only dimension"),
        (1200, 4096, "1,200 of 4,096 dimensions"),
    ],
)
def test_some_of(n: int, total: int, text: str) -> None:
    assert wording.some_of(n, total, "dimension").replace(NBSP, " ") == text


@pytest.mark.parametrize(
    ("relation", "text"),
    [
        (">", "passes above 0.1 nats"),
        (">=", "passes at 0.1 nats or more"),
        ("<", "passes below 0.1 nats"),
        ("<=", "passes at 0.1 nats or less"),
    ],
)
def test_thresholds_read_as_sentences(relation: str, text: str) -> None:
    assert wording.passes(0.1, relation, "nats").replace(NBSP, " ") == text


def test_counts_are_spelled_up_to_twelve() -> None:
    assert wording.counted(0, "dimension") == "no dimension"
    assert wording.counted(1, "dimension") == "one dimension"
    assert wording.counted(12, "dimension", capital=True) == "Twelve dimensions"
    assert wording.counted(13, "dimension") == f"13{NBSP}dimensions"


def test_lists_end_in_and() -> None:
    assert wording.listing([]) == ""
    assert wording.listing(["a"]) == "a"
    assert wording.listing(["a", "b", "c"]) == "a, b and c"
    assert wording.listing(["a", "b", "c", "d"], limit=2) == "a, b and 2 more"


def test_clean_keeps_words_of_every_script_and_nothing_that_hides() -> None:
    assert wording.clean("a\x00\u202eb\nc\td") == "ab c d"
    assert wording.clean("می\u200cخواهم") == "می\u200cخواهم"
    assert wording.clean("x" * 500, 10) == "x" * 9 + "…"


def test_prose_begins_sentences_with_capitals() -> None:
    assert wording.prose("8 of 32 units; 95% of them. none is.") == (
        f"8 of 32 units; 95{NBSP}% of them. None is."
    )


def test_labels_of_a_family_stay_apart_when_cut() -> None:
    cut = {wording.middle(f"A rather long label {k}", 14) for k in range(10, 30)}
    assert len(cut) == 20
    assert max(map(len, cut)) <= 14


def test_a_lead_ends_with_a_whole_sentence() -> None:
    text = "One thing. Another thing. A third, which is longer than the rest."
    assert wording.shorten(text, 30) == "One thing. Another thing."
    assert wording.shorten("x" * 900, 30).endswith("…")


def test_long_decimals_of_objects_are_cut() -> None:
    assert wording.field_value("Gaussian(scale=0.31622776601683794)") == "Gaussian(scale=0.3162)"
    assert wording.field_value({"a": 1, "b": [2, None]}) == "a 1, b 2, not given"
    assert wording.field_value(True) == "yes"


def test_a_threshold_that_was_computed_has_no_more_digits_than_help() -> None:
    assert wording.in_unit(8.289306, "nats") == "8.29\u00a0nats"
    assert wording.in_unit(0.0001, "") == "0.0001"
    assert wording.in_unit(0.1, "nats") == "0.1\u00a0nats"


def test_every_headline_of_an_audit_has_plain_words() -> None:
    model = models.LinearVAE((3.0, 0.5, 0.0))
    audit = ck.audit(model, model.sample(64, 1), likelihood=("gaussian", 0.5), seed=0)
    assert set(audit.summary.index) <= set(audit.titles)
    assert wording.title(audit.titles, "rate") == "Rate: KL per sample"
    assert audits.TITLES.items() <= audit.titles.items()
    assert wording.title({}, "active_units") == "active units"
