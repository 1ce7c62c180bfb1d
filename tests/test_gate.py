"""Gates: judged by the interval, against thresholds and against an older audit."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import collapsekit as ck
from collapsekit import gate
from collapsekit.errors import CollapseError, InputError
from collapsekit.findings import Finding, Severity, fold
from collapsekit.gate import Check, Outcome, against, rule
from collapsekit.number import Number
from collapsekit.probes import REGISTERED
from collapsekit.results import Audit
from collapsekit.tables import summary_table
from tests import audits

PASS, FAIL, UNSURE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
NAN = math.nan


def with_number(number: Number) -> Audit:
    audit = audits.made_up("healthy", n=40, d=4, pictures="none")
    return replace(audit, summary=summary_table([number]))


def share(value: float, low: float, high: float) -> Audit:
    return with_number(Number("active_fraction", value, low, high, "share", 100))


@pytest.mark.parametrize(
    "text, value, low, high, outcome",
    [
        (">=0.8", 0.9, 0.8, 1.0, PASS),  # an end on the threshold
        (">0.8", 0.9, 0.8, 1.0, UNSURE),
        (">=0.8", 0.9, 0.79, 1.0, UNSURE),  # the value passes, the interval does not
        (">=0.8", 0.7, 0.6, 0.81, UNSURE),  # the value misses, the interval does not
        (">=0.8", 0.7, 0.6, 0.79, FAIL),
        (">=0.8", 0.7, 0.6, 0.8, UNSURE),
        (">0.8", 0.7, 0.6, 0.8, FAIL),
        ("<=0.8", 0.7, 0.6, 0.8, PASS),
        ("<0.8", 0.7, 0.6, 0.8, UNSURE),
        ("<0.8", 0.9, 0.8, 1.0, FAIL),
        ("<=0.8", 0.9, 0.81, 1.0, FAIL),
        (">=0.8", 0.9, NAN, NAN, PASS),  # no interval: the value decides
        (">=0.8", 0.7, NAN, NAN, FAIL),
        (">=0.8", NAN, NAN, NAN, UNSURE),
        (">=0.8", NAN, 0.85, 0.9, PASS),  # a bracket without a value
        (">=0.8", NAN, 0.7, 0.9, UNSURE),
        ("<=0.8", 0.7, 0.6, NAN, UNSURE),  # no upper end: the truth may lie anywhere above
        ("<=0.8", 0.9, 0.85, NAN, FAIL),
        (">=0.8", 0.9, 0.85, NAN, PASS),
        (">=0.8", 0.9, NAN, 0.95, UNSURE),  # no lower end
        (">=0.8", 0.6, NAN, 0.7, FAIL),
        (">=0.8", NAN, 0.85, NAN, PASS),  # a bound alone
    ],
)
def test_a_check_is_judged_by_its_interval(
    text: str, value: float, low: float, high: float, outcome: Outcome
) -> None:
    judged = Check.parse(f"active_fraction{text}").judge(share(value, low, high))
    assert judged.outcome is outcome
    assert judged.name == f"active_fraction{text}"
    assert "active_fraction" in judged.message


@pytest.mark.parametrize(
    "text, check",
    [
        ("rate>=1", Check("rate", ">=", 1.0)),
        ("  rate  <  1e-3 ", Check("rate", "<", 0.001)),
        ("round_trip_r2>-.5", Check("round_trip_r2", ">", -0.5)),
    ],
)
def test_checks_are_read(text: str, check: Check) -> None:
    assert Check.parse(text) == check
    assert Check.parse(str(check)) == check


@pytest.mark.parametrize(
    "text", ["rate", "rate=1", "rate==1", ">=1", "rate>=", "rate>=x", "rate>=nan", "rate>=inf", ""]
)
def test_what_is_no_check_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"active_fraction>=0\.8") as caught:
        Check.parse(text)
    assert caught.value.got == text


def test_an_open_interval_is_told() -> None:
    judged = Check.parse("active_fraction<=0.8").judge(share(0.7, 0.6, NAN))
    assert "its interval has no upper end" in judged.message
    judged = Check.parse("active_fraction<=0.65").judge(share(0.7, 0.6, NAN))
    assert "the threshold inside" in judged.message


def test_a_typo_never_passes() -> None:
    with pytest.raises(InputError, match="did you mean active_fraction"):
        Check.parse("active_fractoin>=0").judge(share(1, 1, 1))


def test_what_was_not_measured_is_inconclusive_with_the_reason() -> None:
    audit = audits.made_up(n=40, d=4, decoder=False, pictures="none")
    judged = Check.parse("round_trip_r2>=0.5").judge(audit)
    assert judged.outcome is UNSURE
    assert "the adapter has no decode(z)" in judged.message


def test_the_ruling_folds_findings_checks_and_verdict() -> None:
    warned = Finding("CK201", Severity.WARN, "t", "m", verdict="partial")
    audit = replace(share(0.9, 0.85, 0.95), findings=(warned,), verdict=fold((warned,)))
    passing, missing, unsure = (f"active_fraction>={bar}" for bar in (0.8, 0.99, 0.9))
    assert rule(audit).outcome is PASS
    assert rule(audit, Severity.WARN).outcome is FAIL
    assert rule(audit, checks=[passing]).outcome is PASS
    assert rule(audit, checks=passing).outcome is PASS  # one text is one check, not its letters
    assert rule(audit, checks=[passing, unsure]).outcome is UNSURE
    assert rule(audit, checks=[unsure, missing]).outcome is FAIL
    assert len(rule(audit, checks=[passing, passing]).checks) == 1
    undecided = replace(audit, findings=(), verdict=fold(()))
    assert rule(undecided, checks=[passing]).outcome is UNSURE
    assert rule(undecided, checks=[missing]).outcome is FAIL


# -- baseline ------------------------------------------------------------------------------------


def judged(audit: Audit, baseline: Audit) -> dict[str, Outcome]:
    found, _ = against(audit, baseline)
    return {one.name.split()[0]: one.outcome for one in found}


def test_an_audit_is_no_worse_than_itself() -> None:
    audit = audits.made_up("partial", n=60, d=6, pictures="none")
    assert set(judged(audit, audit).values()) == {PASS}


def test_what_got_worse_fails_and_what_got_better_passes() -> None:
    collapsed = audits.made_up("local", n=200, d=8, pictures="none")
    repaired = audits.made_up("healthy", n=200, d=8, pictures="none")
    worse = judged(collapsed, repaired)
    assert worse["locally_collapsed_fraction"] is FAIL
    assert worse["active_units"] is FAIL
    assert worse["rate"] is PASS  # more of it is neither good nor bad
    # A code that is used again leaves the prior: the one thing that a repair makes worse here.
    failed = {name for name, one in judged(repaired, collapsed).items() if one is FAIL}
    assert failed == {"dimensionwise_kl"}


@pytest.mark.parametrize("worse", [0.5, 1.5])
def test_the_bar_is_noise_over_all_headlines_together(worse: float) -> None:
    # Two headlines: each may fail by chance at 2.5 %, so the bar is 1.96 standard errors of the
    # change; with twenty it is 2.81, and a change of 1.96 to 2.81 no longer fails.
    assert gate.FALSE_ALARM == 0.05
    audit = audits.made_up("healthy", n=40, d=4, pictures="none")
    names = ["round_trip_r2", "effective_rank", *(f"other_{k}" for k in range(18))]
    error = 0.1

    def of(first: float) -> Audit:
        half = 1.959963984540054 * error / math.sqrt(2)  # of each side; the change has `error`
        return replace(
            audit,
            summary=summary_table(
                Number(name, v := first if name == names[0] else 1.0, v - half, v + half, "1", 40)
                for name in names
            ),
        )

    bar = NormalDist().inv_cdf(1 - 0.05 / 20)
    assert bar == pytest.approx(2.807, abs=1e-3)
    drop = error * (1.96 + worse * (bar - 1.96))
    found = judged(of(1.0 - drop), of(1.0))
    assert found.pop("round_trip_r2") is (FAIL if worse > 1 else PASS)
    assert set(found.values()) == {PASS}


def test_a_rerun_of_an_equal_model_fails_seldom() -> None:
    # 300 pairs of audits whose headlines differ by sampling noise only: expected alarms 15 at most,
    # standard error 3.8; 29 would be 3.7 errors too many.
    rng = np.random.default_rng(0)
    audit = audits.made_up("healthy", n=40, d=4, pictures="none")
    names = ["round_trip_r2", "effective_rank", "round_trip_r2_prior", "robust_round_trip_r2"]
    alarms = 0
    for _ in range(300):
        two = []
        for _ in range(2):
            values = 1 + 0.1 * rng.standard_normal(len(names))
            rows = [
                Number(name, v, v - 0.196, v + 0.196, "1", 40)
                for name, v in zip(names, values, strict=True)
            ]
            two.append(replace(audit, summary=summary_table(rows)))
        alarms += FAIL in judged(*two).values()
    assert alarms < 29


def test_a_headline_that_went_missing_is_not_passed_over() -> None:
    whole = audits.made_up(n=40, d=4, pictures="none")
    part = audits.without(whole, "swap_gap")
    assert judged(part, whole)["swap_gap"] is UNSURE
    assert "swap_gap" not in judged(whole, part)


@pytest.mark.parametrize(
    ("headline", "value", "low", "high", "outcome"),
    [
        ("active_fraction", 0.5, NAN, NAN, UNSURE),  # looks worse, and nobody knows the noise
        ("active_fraction", 0.5, 0.1, NAN, UNSURE),
        ("active_fraction", 0.9, NAN, NAN, PASS),  # better
        ("active_fraction", 0.8, NAN, NAN, PASS),  # the same
        ("passive_dimensions", 0.9, NAN, NAN, UNSURE),  # fewer would be better
        ("passive_dimensions", 0.5, NAN, NAN, PASS),
        ("width_share", 0.5, NAN, NAN, PASS),  # neither more nor less is better
        ("active_fraction", 0.5, 0.4, 0.6, FAIL),  # with an interval it is judged
    ],
)
def test_a_headline_without_an_interval_is_never_passed_over_in_silence(
    headline: str, value: float, low: float, high: float, outcome: Outcome
) -> None:
    interval = (NAN, NAN) if outcome is not FAIL else (0.7, 0.9)
    then = with_number(Number(headline, 0.8, *interval, "share", 100))
    now = with_number(Number(headline, value, low, high, "share", 100))
    ruling = rule(now, baseline=then)
    (one,) = ruling.baseline
    assert one.outcome is outcome
    open_ = outcome is not FAIL and value != 0.8
    assert ("not judged: no interval" in one.message) is open_
    assert any(f"not judged: {headline}" in note for note in ruling.notes) is open_
    assert ("value is worse" in one.message) is (outcome is UNSURE)


def test_another_likelihood_is_not_comparable() -> None:
    audit = audits.made_up(n=40, d=4, pictures="none")
    other = replace(audit, provenance={**audit.provenance, "likelihood": "bernoulli"})
    assert judged(other, audit)["reconstruction_error"] is UNSURE


@pytest.mark.parametrize("field, what", [("data_fingerprint", "data"), ("prior", "priors")])
def test_a_baseline_on_other_data_or_with_another_prior_is_refused(field: str, what: str) -> None:
    audit = audits.made_up(n=40, d=4, pictures="none")
    other = replace(audit, provenance={**audit.provenance, field: "other"})
    with pytest.raises(InputError, match=f"different {what}") as caught:
        rule(audit, baseline=other)
    assert "force" not in str(caught.value)


def test_another_seed_is_told_apart_from_other_data() -> None:
    audit = audits.made_up(n=40, d=4, pictures="none")
    told = {**audit.provenance, "seed": 1, "data_fingerprint": "other"}
    with pytest.raises(InputError, match=r"--seed 0") as caught:
        rule(replace(audit, provenance=told), baseline=audit)
    assert caught.value.got == "seed 0 in the baseline, 1 here"


def test_the_ruling_says_what_its_noise_is() -> None:
    audit = audits.made_up(n=40, d=4, pictures="none")
    assert gate.ONE_RUN in rule(audit, baseline=audit).notes
    assert rule(audit).notes == ()


def test_rounding_on_equal_samples_fails_nothing() -> None:
    audit = audits.made_up("partial", n=60, d=6, pictures="none")
    samples = audit.samples.copy()
    # Surely worse, by the rounding of an export.
    samples["reconstruction_error"] = samples["reconstruction_error"] + 5e-5
    rounded = judged(replace(audit, samples=samples), audit)
    assert rounded["reconstruction_error"] is PASS
    samples["reconstruction_error"] = samples["reconstruction_error"] * 1.01
    assert judged(replace(audit, samples=samples), audit)["reconstruction_error"] is FAIL


# -- groups of latents ---------------------------------------------------------------------------


class Hierarchy:
    """Two groups whose codes say `mean` x, in noise of width `scale`; (0, 1) says nothing."""

    def __init__(self, mean: float, scale: float) -> None:
        self.mean, self.scale = mean, scale

    def encode(self, x: Tensor, draw: Any) -> None:
        one = torch.ones_like(x)
        for name in ("top", "low"):
            draw(name, (self.mean * x, self.scale * one), (0 * one, one))

    def generate(self, draw: Any, n: int, context: Any) -> Tensor:
        one = torch.ones(n, 2, dtype=torch.float64)
        top, low = (draw(name, (0 * one, one)) for name in ("top", "low"))
        return (top + low) / 2


@pytest.fixture(scope="module")
def groups() -> dict[str, Audit]:
    x = np.random.default_rng(0).normal(size=(500, 2))
    kept = [p for p in REGISTERED if p.name in GROUP_PROBES]
    models = {"used": Hierarchy(0.95, 0.3), "idle": Hierarchy(0.0, 1.0)}
    return {name: ck.audit(model, x, probes=kept) for name, model in models.items()}


GROUP_PROBES = ("kl", "active_units", "mutual_information", "local_collapse")


def test_a_group_that_got_worse_fails_the_baseline(groups: dict[str, Audit]) -> None:
    idle, used = groups["idle"], groups["used"]
    outcomes = judged(idle, used)
    for group in ("top", "low"):
        for name in ("active_units", "mutual_information", "locally_collapsed_fraction"):
            assert outcomes[f"{group}/{name}"] is FAIL, (group, name)
        assert outcomes[f"{group}/rate"] is PASS  # neither good nor bad
    assert FAIL not in judged(used, idle).values()
    assert set(judged(used, used).values()) == {PASS}
    changes = ck.compare({"a": used, "b": idle}).changes
    assert changes["top/rate", "b"].pairs == changes["low/reidentification", "b"].pairs == 500
    information = changes["top/mutual_information", "b"]  # a bracket, not an interval
    first, other = (audit.number("top/mutual_information") for audit in (used, idle))
    assert information.low == other.low - first.high


def test_a_check_may_be_of_a_group(groups: dict[str, Audit]) -> None:
    for audit, outcome in zip(groups.values(), (PASS, FAIL), strict=True):
        assert Check.parse("top/active_fraction >= 0.8").judge(audit).outcome is outcome
    with pytest.raises(InputError, match="did you mean top/active_fraction"):
        Check.parse("tpo/active_fraction>=0.8").judge(groups["used"])
    missing = Check.parse("top/swap_gap>=0.1").judge(groups["used"])
    assert missing.outcome is UNSURE
    whole = Check.parse("active_fraction>=0.8").judge(groups["used"])
    assert whole.outcome is UNSURE
    assert "top/active_fraction, low/active_fraction" in whole.message


# -- in a test suite -----------------------------------------------------------------------------


def test_assert_ok_takes_checks_and_a_baseline() -> None:
    audit = share(0.9, 0.85, 0.95)
    audit.assert_ok(checks=["active_fraction>=0.8"])
    audit.assert_ok(baseline=audit)
    for check, word in ((">=0.99", "fail"), (">=0.9", "inconclusive")):
        with pytest.raises(CollapseError, match=f"{word}: active_fraction is 0.900") as caught:
            audit.assert_ok(checks=[f"active_fraction{check}"])
        assert caught.value.expected == f"active_fraction{check}"
    with pytest.raises(CollapseError, match="no worse than the baseline"):
        share(0.5, 0.4, 0.6).assert_ok(baseline=audit)
    with pytest.raises(InputError, match="a check cannot be read"):
        audit.assert_ok(checks=["active"])
