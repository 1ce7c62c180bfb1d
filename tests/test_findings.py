"""The verdict folds severities and words; it knows no probe."""

from __future__ import annotations

import itertools

import pytest

from collapsekit.findings import VERDICTS, WRONG, Code, Finding, Severity, fold

CODE = Code("CK999", "Title", "meaning", "formula", "Do this.", "source")


def finding(verdict: str | None, severity: Severity, message: str = "it is so.") -> Finding:
    return CODE.finding(severity, message, verdict=verdict)


def test_severities_are_ordered() -> None:
    assert Severity.OK < Severity.INCONCLUSIVE < Severity.WARN < Severity.FAIL
    assert [s.word for s in Severity] == ["ok", "inconclusive", "warn", "fail"]
    assert Severity.of("warn") is Severity.WARN


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(VERDICTS[:5], 2)))
def test_the_earlier_word_wins(first: str, second: str) -> None:
    pair = [finding(second, Severity.FAIL), finding(first, Severity.WARN)]
    assert fold(pair).name == first
    assert fold(pair[::-1]).name == first


def test_what_passed_argues_for_nothing() -> None:
    passed = finding("total", Severity.OK)
    assert fold([passed, finding("healthy", Severity.OK)]).name == "healthy"


SETTLED, OPEN = Severity.WARN, Severity.INCONCLUSIVE


@pytest.mark.parametrize(
    ("found", "word"),
    [
        # An open question about a worse word blocks the milder one ...
        ([("total", OPEN), ("partial", SETTLED)], "inconclusive"),
        ([("total", OPEN), ("local", SETTLED)], "inconclusive"),
        ([("total", OPEN), ("near-deterministic", SETTLED)], "inconclusive"),
        ([("local", OPEN), ("partial", SETTLED)], "inconclusive"),
        ([("near-deterministic", OPEN), ("partial", SETTLED)], "inconclusive"),
        ([("contradictory", OPEN), ("total", SETTLED)], "inconclusive"),
        # ... one about the same or a milder word does not: the word is right in either case.
        ([("total", OPEN), ("total", SETTLED)], "total"),
        ([("local", OPEN), ("total", SETTLED)], "total"),
        ([("partial", OPEN), ("local", SETTLED)], "local"),
        ([("partial", OPEN), ("near-deterministic", SETTLED)], "near-deterministic"),
        ([("partial", OPEN), ("partial", SETTLED), ("partial", OPEN)], "partial"),
        ([("total", OPEN), ("contradictory", SETTLED)], "contradictory"),
        # With nothing settled, any of them leaves it open.
        ([("partial", OPEN)], "inconclusive"),
        ([("near-deterministic", OPEN)], "inconclusive"),
        ([("total", OPEN), ("partial", OPEN)], "inconclusive"),
        # A doubt whether what was measured stands for all is no word: it keeps from healthy alone.
        ([("inconclusive", SETTLED), ("partial", SETTLED)], "partial"),
        ([("inconclusive", SETTLED)], "inconclusive"),
        ([("inconclusive", SETTLED), ("total", OPEN), ("partial", SETTLED)], "inconclusive"),
        # No word, no say.
        ([(None, OPEN), (None, SETTLED)], "healthy"),
        ([(None, OPEN), ("partial", SETTLED)], "partial"),
    ],
)
def test_an_open_question_blocks_the_milder_words_alone(
    found: list[tuple[str | None, Severity]], word: str
) -> None:
    findings = [finding("healthy", Severity.OK), *(finding(*pair) for pair in found)]
    for order in itertools.permutations(findings):
        assert fold(order).name == word


@pytest.mark.parametrize("opened", WRONG)
@pytest.mark.parametrize("settled", [*WRONG, None])
def test_a_verdict_is_what_every_way_to_settle_it_gives(opened: str, settled: str | None) -> None:
    """The rule from its meaning: settle the open finding either way, and compare the two words."""
    rest = [finding("healthy", Severity.OK)]
    rest += [] if settled is None else [finding(settled, Severity.WARN)]
    ways = {fold([*rest, finding(opened, Severity.FAIL)]).name, fold(rest).name}
    word = fold([*rest, finding(opened, Severity.INCONCLUSIVE)]).name
    assert word == (ways.pop() if len(ways) == 1 else "inconclusive")


def test_an_open_verdict_says_what_it_may_be() -> None:
    found = [
        finding("partial", Severity.WARN, "3 of 8 are dead."),
        finding("total", Severity.INCONCLUSIVE, "the rate is on both sides of 0.1."),
    ]
    verdict = fold(found)
    assert verdict.sentence == (
        "Inconclusive: perhaps total, partial at least. The rate is on both sides of 0.1. "
        "3 of 8 are dead. Do this."
    )
    assert verdict.severity is Severity.INCONCLUSIVE


def test_inconclusive_stands_between_partial_and_healthy() -> None:
    open_question = finding("inconclusive", Severity.INCONCLUSIVE)
    healthy = finding("healthy", Severity.OK)
    assert fold([open_question, healthy]).name == "inconclusive"
    assert fold([open_question, finding("partial", Severity.WARN)]).name == "partial"


def test_nothing_measured_is_not_healthy() -> None:
    assert fold([]).name == "inconclusive"
    assert fold([finding(None, Severity.WARN)]).name == "inconclusive"


def test_the_sentence_says_what_how_and_what_to_do() -> None:
    found = [
        finding("partial", Severity.WARN, "3 of 8 dimensions are dead."),
        finding(None, Severity.WARN, "the prior is not matched."),
    ]
    verdict = fold(found)
    assert verdict.sentence == (
        "Partial collapse: 3 of 8 dimensions are dead. Do this. "
        "Beside it: the prior is not matched."
    )
    assert verdict.codes == ("CK999",)
    assert verdict.severity is Severity.WARN
    assert str(verdict).startswith("partial: 3 of 8 dimensions")


def test_what_stands_beside_is_introduced_once_and_per_cent_is_set_apart() -> None:
    found = [
        finding("partial", Severity.WARN, "half (50%) is dead; 95 % interval 40% to 60%."),
        finding(None, Severity.WARN, "the prior is not matched."),
        finding(None, Severity.WARN, "codes collide."),
    ]
    sentence = fold(found).sentence
    assert "half (50 %) is dead; 95 % interval 40 % to 60 %." in sentence
    assert sentence.endswith("Beside it: the prior is not matched. Codes collide.")


def test_a_word_outside_the_seven_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of"):
        finding("broken", Severity.FAIL)


def test_indices_are_capped_and_plain() -> None:
    many = CODE.finding(Severity.WARN, "many.", samples=range(5_000))
    assert len(many.samples) == 1_000
    assert all(type(i) is int for i in many.samples)
    assert many.advice == "Do this."
    assert CODE.finding(Severity.OK, "fine.").advice == ""
