"""Samples that cannot be measured: quarantined with their reasons, or the end at the first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import collapsekit as ck
from collapsekit import spool
from collapsekit.errors import ModelError
from collapsekit.probes import REGISTERED
from collapsekit.results import Audit
from tests import models

N = 400
NAN, INFINITE, RAISING = [0, 3, 250], [77], [5, 120, 399]
BAD = sorted(NAN + INFINITE + RAISING)
GOOD = np.setdiff1d(np.arange(N), BAD)
MARK = 1e6
NAMES = ("kl", "local_collapse", "active_units", "reconstruction")
SOME = [p for p in REGISTERED if p.name in NAMES]


class Picky(models.LinearVAE):
    """Raises on a batch that holds a marked sample, as models with assertions do."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if bool((x == MARK).any()):
            raise ValueError("a marked sample")
        return super().encode(x)


MODEL = Picky((30.0, 3.0, 0.5, 0.0))


def data() -> Tensor:
    x = MODEL.sample(N, 0)
    x[NAN, 1], x[INFINITE], x[RAISING] = torch.nan, torch.inf, MARK
    return x


def audited(x: Tensor, **options: Any) -> Audit:
    given: dict[str, Any] = {"likelihood": ("gaussian", 0.5), "batch": 16, "probes": SOME}
    return ck.audit(MODEL, x, **given | options)


@pytest.fixture(scope="module")
def skipping() -> Audit:
    return audited(data(), on_bad_sample="skip")


def test_the_quarantine_names_every_sample_and_why(skipping: Audit) -> None:
    table = skipping.tables["quarantined"]
    assert table["sample"].tolist() == BAD
    why = dict(zip(table["sample"], table["reason"], strict=True))
    assert {why[i] for i in RAISING} == {"encode raised ValueError: a marked sample"}
    assert {why[i] for i in NAN + INFINITE} == {"its posterior is not finite"}
    assert set(BAD) <= {i for f in skipping.findings for i in f.samples}
    columns = [c for c in skipping.samples if pd.api.types.is_numeric_dtype(skipping.samples[c])]
    assert skipping.samples.loc[BAD, columns].isna().all(axis=None)
    assert len(skipping.samples) == N


def test_the_rest_is_measured_as_if_it_were_all_there_is(skipping: Audit) -> None:
    alone = audited(data()[GOOD], on_bad_sample="raise")
    assert "quarantined" not in alone.tables
    # What draws nothing at random and picks no subset: closed forms and moments.
    for name in ("rate", "locally_collapsed_fraction", "active_units"):
        got, want = skipping.number(name), alone.number(name)
        assert got.n == want.n == len(GOOD), name
        assert got.value == pytest.approx(want.value, rel=1e-12), name
    left, right = (
        a.samples.loc[rows, ["kl_total", "active_dims"]].to_numpy(dtype=float)
        for a, rows in ((skipping, GOOD), (alone, np.arange(len(GOOD))))
    )
    np.testing.assert_allclose(left, right, rtol=1e-12)
    for name in ("kl", "mean_variance"):
        np.testing.assert_allclose(skipping.dimensions[name], alone.dimensions[name], rtol=1e-12)


@pytest.mark.parametrize("batch", [5, 7, 400])
def test_however_the_batches_are_cut(skipping: Audit, batch: int) -> None:
    other = audited(data(), on_bad_sample="skip", batch=batch)
    pd.testing.assert_frame_equal(other.tables["quarantined"], skipping.tables["quarantined"])
    pd.testing.assert_frame_equal(other.samples, skipping.samples, rtol=1e-9)


def test_on_disk_and_from_a_checkpoint_too(
    skipping: Audit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY", 100)
    options: dict[str, Any] = {"on_bad_sample": "skip", "checkpoint": tmp_path, "shards": 5}
    for _ in ("computed", "read again"):
        other = audited(data(), **options)
        pd.testing.assert_frame_equal(other.tables["quarantined"], skipping.tables["quarantined"])
        pd.testing.assert_frame_equal(other.samples, skipping.samples, rtol=1e-9)


@pytest.mark.parametrize(
    ("bad", "said"),
    [(NAN, "sample 3: its posterior is not finite"), (RAISING, "sample 120: encode raised Value")],
)
def test_raise_stops_at_the_first_and_names_it(bad: list[int], said: str) -> None:
    x = MODEL.sample(N, 0)
    later = bad[1:]  # the first batch is rehearsed
    x[later] = torch.nan if bad is NAN else MARK
    with pytest.raises(ModelError, match="a sample could not be measured") as caught:
        audited(x, on_bad_sample="raise")
    assert said in str(caught.value)
    assert 'on_bad_sample="skip"' in str(caught.value)


def test_a_rest_that_may_not_stand_for_the_whole_decides_nothing() -> None:
    x = MODEL.sample(N, 0)
    x[::15] = torch.nan  # 6.75 %
    audit = audited(x, on_bad_sample="skip")
    assert len(audit.tables["quarantined"]) == 27
    assert audit.verdict.name == "inconclusive"
    assert audit.number("rate").n == N - 27
