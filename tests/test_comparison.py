"""Comparisons: what changed, how surely, and what may not be compared at all."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from collapsekit.comparison import (
    BETTER,
    DIFFERS,
    INCOMPARABLE,
    SAME,
    UNRESOLVED,
    WORSE,
    Comparison,
    compare,
)
from collapsekit.errors import InputError
from collapsekit.number import Better, Headline, Number
from collapsekit.results import Audit, load
from collapsekit.tables import summary_table
from tests import audits


def with_number(audit: Audit, number: Number) -> Audit:
    kept = [audit.number(str(k)) for k in audit.summary.index if k != number.name]
    return replace(audit, summary=summary_table([*kept, number]))


@pytest.fixture(scope="module")
def pair() -> Comparison:
    return compare({"vanilla": audits.made_up("local"), "repaired": audits.made_up("healthy")})


def test_the_table_has_every_headline_of_every_audit(pair: Comparison) -> None:
    table = pair.table
    assert list(table.index) == list(audits.made_up().summary.index)
    assert list(table["vanilla"].columns) == ["value", "low", "high"]
    assert list(table["repaired"].columns)[-1] == "judgement"
    assert table.loc["active_units", ("repaired", "value")] == 32
    assert table.loc["active_units", ("repaired", "judgement")] == BETTER
    assert table.loc["rate", ("repaired", "judgement")] == DIFFERS


def test_means_over_samples_are_paired_exactly(pair: Comparison) -> None:
    first, other = (pair.audits[name].samples["kl_total"] for name in ("vanilla", "repaired"))
    change = pair.changes["rate", "repaired"]
    difference = (other - first).to_numpy()
    half = 1.959963984540054 * difference.std(ddof=1) / math.sqrt(len(difference))
    assert change.pairs == 400
    assert change.value == pytest.approx(difference.mean(), rel=1e-12)
    assert change.low == pytest.approx(difference.mean() - half, rel=1e-12)
    assert change.high == pytest.approx(difference.mean() + half, rel=1e-12)


def test_pairing_is_sharper_than_two_intervals() -> None:
    first = audits.made_up("partial")
    samples = first.samples.copy()
    samples["kl_total"] = samples["kl_total"] + 0.05
    other = replace(first, samples=samples)
    change = compare({"a": first, "b": other}).changes["rate", "b"]
    assert change.word == DIFFERS
    assert change.value == pytest.approx(0.05)
    assert change.high - change.low < 1e-9


def test_only_samples_that_both_evaluated_are_paired() -> None:
    first, other = audits.made_up("local"), audits.with_gaps(audits.made_up("local", seed=1))
    comparison = compare({"a": first, "b": other})
    known = int(other.samples["kl_total"].notna().sum())
    assert comparison.changes["rate", "b"].pairs == known < 400
    # Nothing at all is known of this column in one of them: the headlines' intervals are used.
    assert comparison.changes["reconstruction_error", "b"].pairs == 0


def test_the_interval_of_an_independent_difference_is_movers() -> None:
    base = audits.made_up(n=40, d=4)
    a = with_number(base, Number("active_units", 10, 8, 13, "dimensions", 40))
    b = with_number(base, Number("active_units", 20, 16, 21, "dimensions", 40))
    change = compare({"a": a, "b": b}).changes["active_units", "b"]
    assert change.low == pytest.approx(10 - math.hypot(4, 3))
    assert change.high == pytest.approx(10 + math.hypot(1, 2))
    assert change.word == BETTER


@pytest.mark.parametrize(
    ("name", "first", "other", "word"),
    [
        ("active_units", (10, 9, 11), (20, 19, 21), BETTER),
        ("active_units", (20, 19, 21), (10, 9, 11), WORSE),
        ("active_units", (10, 8, 12), (11, 9, 13), SAME),
        ("active_units", (10, math.nan, math.nan), (12, math.nan, math.nan), DIFFERS),
        ("active_units", (10, math.nan, math.nan), (10, math.nan, math.nan), SAME),
        ("dimensionwise_kl", (1, 0.9, 1.1), (2, 1.9, 2.1), WORSE),
        ("mutual_information", (3, 2.9, 3.1), (5, 4.5, 6), BETTER),
        ("mutual_information", (5, 4.5, 9), (5.5, 5, 12), UNRESOLVED),
        ("total_correlation", (math.nan, 1, 2), (math.nan, 3, 4), DIFFERS),
        ("total_correlation", (math.nan, 1, 2), (math.nan, 1.5, 4), UNRESOLVED),
        ("a_measure_of_tomorrow", (1, 0.9, 1.1), (2, 1.9, 2.1), DIFFERS),
        ("lr_residual", (1, 0.9, 1.1), (0.01, 0.009, 0.011), DIFFERS),  # codes rescaled by 0.1
        ("inference_gap", (1, 0.9, math.nan), (2, 1.9, 2.1), UNRESOLVED),  # open above
        ("inference_gap", (2, 1.9, 2.1), (1, 0.9, math.nan), UNRESOLVED),
        ("inference_gap", (1, 0.9, 1.1), (2, 1.9, math.nan), DIFFERS),
        ("effective_rank", (1, 0.9, 1.1), (2, 1.9, math.nan), BETTER),
    ],
)
def test_words(name: str, first: tuple[float, ...], other: tuple[float, ...], word: str) -> None:
    base = audits.made_up(n=40, d=4)
    pair = {
        key: with_number(base, Number(name, *numbers, "nats", 40))
        for key, numbers in (("a", first), ("b", other))
    }
    assert compare(pair).changes[name, "b"].word == word


@pytest.mark.parametrize(
    "name, unit, first, change, word",
    [
        ("elbo", "nats", -5.0, -0.009, SAME),  # 0.01 nat
        ("elbo", "nats", -5.0, -0.011, WORSE),
        ("elbo", "nats", -6081.0, -6.0, SAME),  # 0.1 % of the first
        ("elbo", "nats", -6081.0, -6.2, WORSE),
        ("round_trip_r2", "1", 0.5, -0.000003, SAME),
        ("round_trip_r2", "1", 0.5, -0.0011, WORSE),
        ("active_fraction", "share", 0.5, 0.0009, SAME),
        ("active_fraction", "share", 0.5, 0.0011, BETTER),
        ("effective_rank", "dimensions", 2.0, 0.009, SAME),
        ("effective_rank", "dimensions", 2.0, 0.011, BETTER),
        ("reconstruction_error", "squared error", 1e-6, 0.9e-9, SAME),
        ("reconstruction_error", "squared error", 1e-6, 1.1e-9, WORSE),
        ("rate", "nats", 2.0, 0.009, SAME),
        ("rate", "nats", 2.0, 0.011, DIFFERS),
    ],
)
def test_a_change_within_the_margin_is_the_same_however_sure(
    name: str, unit: str, first: float, change: float, word: str
) -> None:
    base = audits.made_up(n=40, d=4, decoder=False)
    base = replace(base, samples=base.samples[[]])  # nothing to pair
    pair = {
        key: with_number(base, Number(name, value, value - 1e-12, value + 1e-12, unit, 40))
        for key, value in (("a", first), ("b", first + change))
    }
    assert compare(pair).changes[name, "b"].word == word
    # A bracket inside the margin is the same; one beyond it decides.
    bracket = {
        key: with_number(base, Number("mutual_information", *value, "nats", 40))
        for key, value in (("a", (0.001, 0.0, 0.002)), ("b", (0.002, 0.001, 0.004)))
    }
    assert compare(bracket).changes["mutual_information", "b"].word == SAME


def test_the_change_of_a_swap_gap_covers_although_samples_stand_in_two_terms() -> None:
    """Decoders D(z) = z and z / 2 of exact codes, likelihood N(., 1): gaps are 1 and 1 / 2 on
    average. As if each term were another sample the interval covers 89 %."""
    base, hit, times = audits.made_up(n=300, d=4, pictures="none"), 0, 200
    for seed in range(times):
        x = np.random.default_rng(seed).normal(size=300)
        partner = np.roll(x, -1)
        gaps = {a: 0.5 * ((x - a * partner) ** 2 - ((1 - a) * x) ** 2) for a in (1.0, 0.5)}
        pair = {}
        for a, gap in gaps.items():
            samples = pd.DataFrame({"swap_gap": gap}, index=base.samples.index)
            number = Number("swap_gap", float(gap.mean()), math.nan, math.nan, "nats", 300)
            pair[str(a)] = replace(base, samples=samples, summary=summary_table([number]))
        change = compare(pair).changes["swap_gap", "0.5"]
        assert change.pairs == 300
        hit += change.low <= -0.5 <= change.high
    assert hit / times > 0.95 - 3 * math.sqrt(0.95 * 0.05 / times)
    assert hit / times > 0.93  # as if independent: 0.89


def test_model_information_is_compared_with_the_error_of_its_draws() -> None:
    base = audits.made_up(n=40, d=4)
    pair = {
        key: with_number(base, Number("model_information", value, value - 1, value + 1, "nats", 40))
        for key, value in (("a", 5.0), ("b", 5.5))
    }
    change = compare(pair).changes["model_information", "b"]
    assert (change.word, change.pairs) == (SAME, 0)


def test_errors_in_nats_are_compared_under_one_likelihood_only() -> None:
    first = audits.made_up(n=40, d=4)
    other = replace(first, provenance={**first.provenance, "likelihood": "Bernoulli()"})
    comparison = compare({"a": first, "b": other})
    for name in ("reconstruction_error", "swap_gap"):
        assert comparison.changes[name, "b"].word == INCOMPARABLE
    for name in ("log_likelihood_bound", "inference_gap", "model_information", "elbo"):
        pair = (with_number(a, Number(name, 5, 4, 6, "nats", 40)) for a in (first, other))
        changes = compare(dict(zip("ab", pair, strict=True))).changes
        assert changes[name, "b"].word == INCOMPARABLE, name
    assert comparison.changes["rate", "b"].word == SAME


def test_a_headline_of_one_audit_only_is_told_and_not_compared() -> None:
    comparison = compare({"a": audits.made_up(decoder=False), "b": audits.made_up()})
    assert "swap_gap" in comparison.headlines
    assert comparison.changes["swap_gap", "b"].word == INCOMPARABLE
    assert math.isnan(comparison.table.loc["swap_gap", ("a", "value")])


# -- refusals ----------------------------------------------------------------------------------


def test_different_data_are_refused_unless_forced() -> None:
    first = audits.made_up(n=40, d=4)
    other = replace(first, provenance={**first.provenance, "data_fingerprint": "other"})
    with pytest.raises(InputError, match=r"(?s)on different data.*got:.*761e4140aa55 and other"):
        compare({"a": first, "b": other})
    forced = compare({"a": first, "b": other}, force=True)
    assert all(change.pairs == 0 for change in forced.changes.values())
    assert "on different data" in forced.notes[0]


def test_another_number_of_samples_is_other_data() -> None:
    first, other = audits.made_up(n=40, d=4), audits.made_up(n=41, d=4)
    with pytest.raises(InputError, match="40 and 41 samples"):
        compare({"a": first, "b": other})


def test_different_priors_are_refused_but_stay_paired_when_forced() -> None:
    first = audits.made_up(n=40, d=4)
    other = replace(first, provenance={**first.provenance, "prior": "given"})
    with pytest.raises(InputError, match="against different priors"):
        compare({"a": first, "b": other})
    assert compare({"a": first, "b": other}, force=True).changes["rate", "b"].pairs == 40


def test_unknown_data_are_taken_on_trust_and_that_is_said() -> None:
    first = audits.made_up(n=40, d=4)
    told = {k: v for k, v in first.provenance.items() if k != "data_fingerprint"}
    comparison = compare({"a": first, "b": replace(first, provenance=told)})
    assert "taken on trust" in comparison.notes[0]
    assert comparison.changes["rate", "b"].pairs == 40


def test_one_audit_is_nothing_to_compare() -> None:
    with pytest.raises(InputError, match=r"(?s)nothing to compare with.*1 audit"):
        compare({"a": audits.made_up(n=40, d=4)})


def test_what_is_no_audit_is_refused() -> None:
    with pytest.raises(InputError, match=r"(?s)'b' is not an audit.*got: +str"):
        compare({"a": audits.made_up(n=40, d=4), "b": "file.audit"})  # type: ignore[dict-item]


def test_other_sizes_of_latent_space_are_compared() -> None:
    comparison = compare({"a": audits.made_up(n=40, d=4), "b": audits.made_up(n=40, d=9)})
    assert comparison.changes["rate", "b"].pairs == 40


# -- text --------------------------------------------------------------------------------------


def test_it_prints_as_a_table(pair: Comparison) -> None:
    written = repr(pair)
    assert "vanilla   Local collapse" in written
    assert "repaired  Healthy" in written
    assert "against vanilla" in written
    assert "beyond a margin: 0.1 % of the first audit's value, and at least 0.01 nat" in written
    row = next(line for line in written.splitlines() if line.startswith("  active_units"))
    assert "better, +19 (" in row
    assert "nan" not in written


def test_the_card_is_small(pair: Comparison) -> None:
    written = pair._repr_html_()
    assert len(written.encode()) < 30_000
    assert "<script" not in written


def test_many_audits_of_one_model_differ_in_nothing() -> None:
    audit = audits.made_up(n=40, d=4)
    comparison = compare({name: audit for name in "abc"})
    words = {change.word for change in comparison.changes.values()}
    assert words <= {SAME, UNRESOLVED}
    assert np.allclose(comparison.table["b"]["change"].fillna(0).astype(float), 0)


def test_a_headline_declares_which_way_is_better() -> None:
    with pytest.raises(TypeError, match="better"):
        Headline("new", "A new one")  # type: ignore[call-arg]
    with pytest.raises(InputError) as caught:
        Headline("new", "A new one", "more")  # type: ignore[arg-type]
    assert "'new' does not say which way is better" in str(caught.value)
    assert '"up", "down" or "neither"' in caught.value.expected


@pytest.mark.parametrize(
    ("way", "word"),
    [("up", "better"), ("down", "worse"), ("neither", "differs"), (None, "differs")],
)
def test_a_probe_from_outside_is_compared_by_what_it_declares(
    way: Better | None, word: str
) -> None:
    def holding(value: float) -> Audit:
        number = Number("largest", value, value - 0.1, value + 0.1, "1", 40)
        better = {"largest": way} if way is not None else {}
        return replace(audits.bare(), summary=summary_table([number]), better=better)

    comparison = compare({"a": holding(1.0), "b": holding(2.0)})
    assert comparison.changes["largest", "b"].word == word
    assert comparison.better_with("group/largest") == {"up": 1, "down": -1}.get(way or "", 0)


def test_which_way_is_better_is_kept_in_the_file(tmp_path: Path) -> None:
    audit = audits.made_up()
    assert audit.better["swap_gap"] == "up"
    assert audit.better["collision_fraction"] == "down"
    assert audit.better["rate"] == "neither"
    assert load(audit.save(tmp_path / "a.audit")).better == audit.better
