"""Local rank against what comes back."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from collapsekit.errors import Unavailable
from collapsekit.findings import Finding, Severity
from collapsekit.intervals import share_number
from collapsekit.number import Number
from collapsekit.probe import Tables
from collapsekit.readings.injective import Injective


def judged(
    full: int, folds: int, corr2: list[float], usage: list[float], codes: int = 128
) -> Finding:
    numbers: dict[str, Number] = {
        "decoder_full_rank_fraction": share_number("decoder_full_rank_fraction", full, codes),
        "fold_fraction": share_number("fold_fraction", 0, 512),
        "fold_fraction_prior": share_number("fold_fraction_prior", folds, 512),
    }
    dimensions = pd.DataFrame({"round_trip_corr2": corr2, "decoder_usage": usage})
    (finding,) = Injective().read(Tables(numbers, pd.DataFrame(), dimensions, ())).findings
    return finding


def test_full_rank_and_folds() -> None:
    finding = judged(128, 200, [0.9, 0.9], [0.5, 0.5])
    assert finding.severity is Severity.WARN
    assert "locally injective, globally not" in finding.message
    assert "prior draws" in finding.message


def test_full_rank_and_a_dimension_that_does_not_come_back() -> None:
    finding = judged(128, 0, [0.9, 0.1, np.nan], [0.5, 0.4, 0.0])
    assert finding.severity is Severity.WARN
    assert finding.dimensions == (1,)
    assert "the encoder does not undo it" in finding.message


def test_what_is_not_read_need_not_come_back() -> None:
    assert judged(128, 0, [0.9, 0.1], [0.5, 0.001]).severity is Severity.OK


def test_without_full_rank_the_jacobian_has_spoken() -> None:
    finding = judged(10, 0, [0.9, 0.1], [0.5, 0.4])
    assert finding.severity is Severity.OK
    assert "the Jacobian's rank already shows" in finding.message
    assert "not injective" in judged(10, 200, [0.9, 0.9], [0.5, 0.5]).message


def test_it_needs_a_decoder() -> None:
    with pytest.raises(Unavailable, match="Jacobian"):
        Injective().read(Tables({}, pd.DataFrame(), pd.DataFrame(), ()))


def test_a_handful_of_codes_settles_nothing() -> None:
    # 256 dimensions get 16 codes: full rank at all of them, 81 % by Wilson's lower end.
    finding = judged(16, 0, [0.9, 0.9], [0.5, 0.5], codes=16)
    assert finding.severity is Severity.OK
    assert "100.0 % of 16 codes, too few to say" in finding.message
    lost = judged(16, 0, [0.9, 0.1], [0.5, 0.4], codes=16)
    assert lost.severity is Severity.WARN
    assert lost.dimensions == (1,)
