"""States against NumPy on the whole, in any cut and order; the jackknife and bootstrap's errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from collapsekit.streaming import (
    Bootstrap,
    Comoments,
    Constant,
    Grouped,
    Moments,
    Paired,
    Rows,
    Skewed,
    Top,
    keyed_groups,
    merged,
)

CUTS = st.lists(st.integers(0, 100), max_size=6)


def parts(array: np.ndarray, cuts: list[int]) -> list[np.ndarray]:
    return np.split(array, sorted(min(c, len(array)) for c in cuts))


@settings(max_examples=40, deadline=None)
@given(cuts=CUTS, shift=st.sampled_from([0.0, 1e3, 1e6]), seed=st.integers(0, 5))
def test_moments_and_comoments(cuts: list[int], shift: float, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(100, 3)) * 0.1 + shift
    pieces = parts(x, cuts)
    moments = merged([Moments.of(p) for p in pieces])
    np.testing.assert_allclose(moments.mean, x.mean(axis=0), rtol=1e-12)
    # NumPy's own two-pass variance rounds the shifted values in the same way.
    np.testing.assert_allclose(moments.variance, x.var(axis=0, ddof=1), rtol=1e-7)
    comoments = merged([Comoments.of(p) for p in reversed(pieces)])
    np.testing.assert_allclose(comoments.covariance, np.cov(x.T), rtol=1e-6, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(cuts=CUTS, shift=st.sampled_from([0.0, 1e3]), seed=st.integers(0, 5))
def test_skewness(cuts: list[int], shift: float, seed: int) -> None:
    x = np.random.default_rng(seed).exponential(size=(100, 3)) * [1.0, -2.0, 0.0] + shift
    found = merged([Skewed.of(p) for p in parts(x, cuts)])
    np.testing.assert_allclose(found.skewness[:2], scipy.stats.skew(x[:, :2]), rtol=1e-8)
    assert found.skewness[2] == 0.0  # nothing varies
    np.testing.assert_allclose(found.standard_error, Moments.of(x).standard_error, rtol=1e-9)


def test_cubes_too_large_to_be_told_leave_no_skewness() -> None:
    both = Skewed.of(np.array([[1e120], [0.0]])) + Skewed.of(np.array([[0.0], [-3e120]]))
    assert both.skewness[0] == 0.0
    assert np.isfinite(both.standard_error[0])


def test_moments_leave_out_what_is_not_finite() -> None:
    x = np.array([[1.0, np.nan], [3.0, 2.0], [np.inf, 4.0]])
    moments = Moments.of(x) + Moments.of(np.array([[5.0, 6.0]]))
    np.testing.assert_array_equal(moments.n, [3, 3])
    np.testing.assert_allclose(moments.mean, [3.0, 4.0])
    np.testing.assert_allclose(moments.variance, [4.0, 4.0])


def test_one_row_has_no_variance() -> None:
    assert np.isnan(Moments.of(np.ones((1, 2))).variance).all()
    assert np.isnan(Comoments.of(np.ones((1, 2))).covariance).all()


@settings(max_examples=30, deadline=None)
@given(cuts=CUTS, seed=st.integers(0, 5))
def test_paired(cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(100, 3))
    b = a * [1.0, 0.5, 0.0] + rng.normal(size=(100, 3)) * [0.1, 0.2, 0.0]
    both = zip(parts(a, cuts), parts(b, cuts), strict=True)
    paired = merged([Paired.of(x, y) for x, y in both])
    residual = ((b - a) ** 2).mean(axis=0)
    np.testing.assert_allclose(paired.residual, residual, rtol=1e-10)
    np.testing.assert_allclose(paired.r2, 1 - residual / a.var(axis=0), rtol=1e-10)
    for j in range(2):
        expected = np.corrcoef(a[:, j], b[:, j])[0, 1] ** 2
        assert paired.correlation2[j] == pytest.approx(expected, rel=1e-9)
    assert paired.correlation2[2] == 0.0  # an encoder that never moves


def test_rows_come_out_in_order() -> None:
    rows = Rows(np.array([5, 1]), a=np.array([50, 10])) + Rows(np.array([3]), a=np.array([30]))
    pd.testing.assert_frame_equal(
        rows.frame(), pd.DataFrame({"a": [10, 30, 50]}, index=pd.Index([1, 3, 5], name="sample"))
    )
    assert len(rows) == 3


@settings(max_examples=30, deadline=None)
@given(cuts=CUTS, limit=st.integers(1, 120))
def test_top_is_exact(cuts: list[int], limit: int) -> None:
    score = np.random.default_rng(0).integers(0, 20, 100).astype(float)  # many ties
    score[[4, 50]] = np.nan
    index = np.arange(100)
    pieces = [
        Top(limit, s, i, twice=2 * s)
        for s, i in zip(parts(score, cuts), parts(index, cuts), strict=True)
    ]
    top = merged(pieces[::-1])
    order = sorted((i for i in index if np.isfinite(score[i])), key=lambda i: (-score[i], i))
    assert top.index.tolist() == order[:limit]
    np.testing.assert_array_equal(top.columns["twice"], 2 * score[order[:limit]])


def test_the_jackknife_knows_the_error_of_a_mean() -> None:
    index = torch.arange(20_000)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(20_000, 1)))
    groups = Grouped.of(keyed_groups(index), lambda rows: Moments.of(x[rows]))
    found = groups.jackknife(lambda state: state.mean)
    assert found.value[0] == pytest.approx(float(x.mean()))
    truth = float(x.std()) / np.sqrt(len(x))
    assert found.error[0] == pytest.approx(truth, rel=0.5)  # 19 degrees of freedom
    assert found.groups == 20
    assert abs(found.bias[0]) < truth  # a mean has none, but for unequal groups


def test_the_jackknife_knows_a_bias() -> None:
    # The square of a mean is biased by the mean's variance.
    x = torch.from_numpy(np.random.default_rng(3).normal(size=(400, 1)))
    groups = Grouped.of(np.arange(400) % 20, lambda rows: Moments.of(x[rows]))
    found = groups.jackknife(lambda state: state.mean**2)
    blocks = x.numpy().reshape(20, 20).mean(axis=0)  # the groups' own means
    assert found.bias[0] == pytest.approx(blocks.var(ddof=1) / 20, rel=1e-6)


def test_the_bootstrap_knows_the_error_of_a_variance() -> None:
    index = torch.arange(4_000)
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(4_000, 2)) * [1.0, 0.1])
    cuts = [Bootstrap.of(x[s], index[s], torch.zeros(2)) for s in (slice(1500), slice(1500, None))]
    spread = merged(cuts).variance.std(axis=0)
    truth = np.array([1.0, 0.01]) * np.sqrt(2 / 4_000)
    np.testing.assert_allclose(spread, truth, rtol=0.25)  # of 256 replicates: 4.4 % each


def test_constants_must_agree() -> None:
    assert (Constant("nats") + Constant("nats")).value == "nats"
    with pytest.raises(ValueError, match="disagree"):
        Constant("nats") + Constant("squared error")
