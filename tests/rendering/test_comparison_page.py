"""Several audits as a page."""

from __future__ import annotations

from dataclasses import replace

import pytest

from collapsekit.comparison import Comparison, compare
from collapsekit.rendering.compared import build_all
from collapsekit.rendering.compared.runs import Compared
from collapsekit.rendering.wording import NBSP
from tests import audits
from tests.rendering.pages import check
from tests.rendering.test_page import NASTY


def heads(comparison: Comparison) -> dict[str, str]:
    return {s.id: s.headline.replace(NBSP, " ") for s in build_all(Compared(comparison))}


@pytest.fixture(scope="module")
def pair() -> Comparison:
    return compare({"vanilla": audits.made_up("local"), "LR": audits.made_up("healthy")})


def test_the_page_is_whole(pair: Comparison) -> None:
    text = pair.to_html()
    check(text)
    assert "http" not in text.replace("http-equiv", "")
    assert len(text) < 120_000


def test_headlines_are_made_of_numbers(pair: Comparison) -> None:
    told = heads(pair)
    assert told["verdicts"] == "Vanilla ignores some of its inputs; LR is healthy."
    assert told["settings"] == "The audits recorded no difference in what was audited."
    assert (
        told["spread"] == "80 % of the rate sits in 4 of 32 dimensions for vanilla and 24 for LR."
    )
    assert told["round-trip"] == (
        "Dimensions that can be read back: 4 of 32 for vanilla and all 32 for LR."
    )
    assert told["samples"] == "All 180 ignored images are rescued; none is newly ignored."


def test_dimensions_are_said_to_be_matched_by_rank(pair: Comparison) -> None:
    assert "matched by rank, never by index" in pair.to_html()


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_any_number_of_audits(count: int) -> None:
    kinds = audits.KINDS[:count]
    text = compare({kind: audits.made_up(kind, n=60, d=8) for kind in kinds}).to_html()
    check(text)


def test_equal_comparisons_give_equal_bytes() -> None:
    texts = [
        compare({k: audits.made_up(k, n=60, d=8) for k in ("partial", "healthy")}).to_html()
        for _ in range(2)
    ]
    assert texts[0] == texts[1]


def test_pieces_may_be_missing_on_either_side() -> None:
    whole = audits.made_up(n=60, d=8)
    poor = audits.made_up(n=60, d=8, decoder=False, labels=(), pictures="none")
    bare = replace(audits.bare(), provenance=whole.provenance)
    for pair in ((whole, poor), (poor, whole), (poor, poor)):
        check(compare(dict(zip("ab", pair, strict=True))).to_html())
    check(compare({"a": whole, "b": bare}, force=True).to_html())
    check(compare({"a": whole, "b": audits.with_gaps(whole)}).to_html())
    check(compare({"a": audits.made_up(n=1), "b": audits.made_up("total", n=1)}).to_html())
    check(compare({"a": audits.made_up(d=1), "b": audits.made_up(d=40)}).to_html())


def test_hostile_names_never_reach_the_page_raw() -> None:
    audit = audits.hostile(audits.made_up("local", n=60, d=8), NASTY)
    text = compare({NASTY: audit, f"{NASTY} again": audit, "": audit}).to_html()
    check(text)
    assert NASTY not in text


def test_forced_comparisons_say_so_first() -> None:
    first = audits.made_up(n=60, d=8)
    other = replace(first, provenance={**first.provenance, "data_fingerprint": "x"})
    text = compare({"a": first, "b": other}, force=True).to_html()
    assert "b and a were audited on different data" in text
    assert "Nothing could be paired" in text
