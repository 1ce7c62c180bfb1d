"""Which reduction a logged KL is: closed forms, computed here by hand from means and scales."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import collapsekit as ck
from collapsekit.errors import InputError
from collapsekit.logged_loss import RIGHT
from collapsekit.results import Audit
from tests import audits

N, D, P = 2_000, 12, 35
RNG = np.random.default_rng(0)
MEAN = RNG.normal(size=(N, D))
SCALE = RNG.uniform(0.2, 0.6, size=(N, D))
# Kingma & Welling 2014, appendix B.
TERMS = 0.5 * (MEAN**2 + SCALE**2 - 1 - 2 * np.log(SCALE))


@pytest.fixture(scope="module")
def audit() -> Audit:
    return ck.audit((lambda x: (MEAN[x[:, 0].astype(int)], SCALE[x[:, 0].astype(int)])), _inputs())


def _inputs() -> np.ndarray:
    x = np.zeros((N, P), dtype=np.float32)
    x[:, 0] = np.arange(N)
    return x


# What people's code returns, each with the factor on the rate and on beta that it means.
LOGS: dict[str, tuple[Callable[[], float], float]] = {
    RIGHT: (lambda: TERMS.sum(1).mean(), 1),
    "mean over dimensions and samples": (lambda: TERMS.mean(), 1 / D),
    "mean over the input's values and samples": (lambda: TERMS.sum() / (N * P), 1 / P),
    "mean over dimensions, the input's values and samples": (
        lambda: TERMS.mean() / P,
        1 / (D * P),
    ),
    f"{RIGHT}, without the 1/2": (
        lambda: -(1 + 2 * np.log(SCALE) - MEAN**2 - SCALE**2).sum(1).mean(),
        2,
    ),
    f"{RIGHT}, in bits": (lambda: TERMS.sum(1).mean() / math.log(2), 1 / math.log(2)),
    "mean over dimensions and samples, in bits": (
        lambda: TERMS.mean() / math.log(2),
        1 / (D * math.log(2)),
    ),
}


@pytest.mark.parametrize("name", LOGS)
def test_each_reduction_is_recognised_and_gives_its_beta(audit: Audit, name: str) -> None:
    logged, factor = LOGS[name]
    told = ck.explain_loss(audit, logged_kl=float(logged()), kl_weight=0.5, values=P)
    match = told.matches[0]
    assert match.name == name
    assert match.factor == pytest.approx(factor, rel=1e-12)
    assert match.beta == pytest.approx(0.5 * factor, rel=1e-12)
    assert match.beta_if_mean == pytest.approx(0.5 * factor * P, rel=1e-12)
    assert match.low <= float(logged()) <= match.high
    assert name in str(told)
    assert f"{match.beta:.4g}" in str(told)


def test_a_kl_that_is_already_weighted(audit: Audit) -> None:
    logged = 0.03 * float(TERMS.sum(1).mean())
    told = ck.explain_loss(audit, logged_kl=logged, kl_weight=0.03, values=P)
    match = next(m for m in told.matches if m.name == f"{RIGHT}, already times the KL weight")
    # The weight stands in the log; the training had it once.
    assert match.beta == pytest.approx(0.03, rel=1e-12)


def test_a_log_is_rounded_at_its_last_digit(audit: Audit) -> None:
    rate = audit.number("rate")
    rounded = f"{float(TERMS.mean()):.1f}"
    assert not rate.low / D <= float(rounded) <= rate.high / D  # the interval alone would miss it
    told = ck.explain_loss(audit, logged_kl=rounded)
    assert "mean over dimensions and samples" in [match.name for match in told.matches]
    assert not ck.explain_loss(audit, logged_kl=rounded + "0000").matches


def test_all_of_what_cannot_be_told_apart_is_listed(audit: Audit) -> None:
    told = ck.explain_loss(audit, logged_kl=float(TERMS.mean()), kl_weight=1, values=D)
    names = [match.name for match in told.matches]
    assert names == ["mean over dimensions and samples", "mean over the input's values and samples"]
    text = str(told)
    assert "cannot tell these apart" in text
    assert all(name in " ".join(text.split()) for name in names)


def test_nothing_matches_and_it_says_so(audit: Audit) -> None:
    batch = 64
    told = ck.explain_loss(audit, logged_kl=batch * float(TERMS.sum(1).mean()), values=P)
    assert told.matches == ()
    text = " ".join(str(told).split())
    assert "No known reduction matches." in text
    assert "The log shows 64 times the rate. A sum over a batch shows the batch size times" in text


def test_pixels_are_counted_from_the_gallery() -> None:
    audit = audits.made_up("partial", n=60, d=6, side=8)
    logged = audit.number("rate").value / 64
    told = ck.explain_loss(audit, logged_kl=logged, kl_weight=1.0)
    assert told.values == 64
    assert "mean over the input's values and samples" in [match.name for match in told.matches]
    bare = audits.made_up("partial", n=60, d=6, pictures="none")
    bare = replace(bare, arrays={})
    assert ck.explain_loss(bare, logged_kl=logged).values is None
    assert "pass values" in str(ck.explain_loss(bare, logged_kl=logged))


def test_what_the_audit_was_told_is_held_against_it() -> None:
    audit = audits.made_up("partial", n=60, d=8, side=8)  # was told beta 0.4
    rate = audit.number("rate").value
    assert "The audit was told beta 0.4." in str(
        ck.explain_loss(audit, logged_kl=rate / 8, kl_weight=0.4)
    )
    assert "was told" not in str(ck.explain_loss(audit, logged_kl=rate, kl_weight=0.4))


def test_a_collapsed_model_explains_anything_and_says_so() -> None:
    posteriors = (np.zeros((50, 4)), np.ones((50, 4)))
    audit = ck.audit(
        lambda x: (posteriors[0][: len(x)], posteriors[1][: len(x)]), np.zeros((50, 3))
    )
    told = ck.explain_loss(audit, logged_kl="0.0000", values=3)
    assert len(told.matches) == len(told.candidates) == 12
    assert "nan" not in str(ck.explain_loss(audit, logged_kl=0.5))


def test_the_table_has_a_row_for_everything_that_was_tried(audit: Audit) -> None:
    told = ck.explain_loss(audit, logged_kl=1.0, kl_weight=2.0, values=P)
    table = told.table
    assert len(table) == 4 * 3 * 2
    assert table.index.is_unique
    assert (table["expected"] == table["factor"] * told.rate.value).all()
    assert max(map(len, str(told).splitlines())) <= 88


@pytest.mark.parametrize("logged", ["", "nan", "inf", "ten", float("nan")])
def test_what_is_no_number_is_refused(audit: Audit, logged: float | str) -> None:
    with pytest.raises(InputError, match="the logged KL is not a number"):
        ck.explain_loss(audit, logged_kl=logged)


@pytest.mark.parametrize("values", [0, -1, True, 2.5])
def test_values_are_a_count(audit: Audit, values: int) -> None:
    with pytest.raises(InputError, match="784"):
        ck.explain_loss(audit, logged_kl=1.0, values=values)


def test_an_audit_without_a_rate_cannot_help() -> None:
    with pytest.raises(InputError, match="rate"):
        ck.explain_loss(audits.bare(), logged_kl=1.0)
