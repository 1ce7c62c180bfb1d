"""Figures for papers: the axes show the audit's own numbers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from collapsekit.errors import Unavailable
from collapsekit.results import Audit
from tests import audits

NAMES = ["kl", "active_units", "local_collapse", "roles", "round_trip", "information_budget"]


@pytest.fixture(autouse=True)
def headless(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    backend = mpl.get_backend()
    pyplot.switch_backend("agg")
    yield
    pyplot.close("all")
    pyplot.switch_backend(backend)


@pytest.fixture(scope="module")
def audit() -> Audit:
    audit = audits.made_up("partial", n=80, d=9, pictures="none")
    if "information_budget" not in audit.tables:
        parts = [("information", 2.0), ("total correlation", np.nan), ("dimension-wise KL", 0.5)]
        import pandas as pd

        audit.tables["information_budget"] = pd.DataFrame(
            [(part, value, 0.1, 2.5) for part, value in [*parts, ("rate", 3.0)]],
            columns=["part", "value", "low", "high"],
        )
    return audit


@pytest.mark.parametrize("name", NAMES)
def test_each_draws_on_the_axes_given_or_on_its_own(audit: Audit, name: str) -> None:
    ax = Figure().subplots()
    before = dict(mpl.rcParams)
    assert getattr(audit.plot, name)(ax=ax) is ax
    own = getattr(audit.plot, name)()
    assert isinstance(own, Axes)
    assert own is not ax
    assert own.get_xlabel()
    assert own.has_data()
    own.figure.canvas.draw()
    assert dict(mpl.rcParams) == before  # the caller's style stays the caller's


@pytest.mark.parametrize("name", NAMES)
def test_what_was_not_measured_is_told(name: str) -> None:
    with pytest.raises(Unavailable, match="this audit holds no"):
        getattr(audits.bare().plot, name)()
    assert pyplot.get_fignums() == []  # and no empty figure is left behind


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", audits.KINDS)
def test_every_kind_of_audit_and_gaps_can_be_drawn(name: str, kind: audits.Kind) -> None:
    audit = audits.with_gaps(audits.made_up(kind, n=30, d=5, pictures="none"))
    try:
        ax = getattr(audit.plot, name)()
    except Unavailable:
        return
    ax.figure.canvas.draw()


def test_bars_are_the_kl_in_falling_order(audit: Audit) -> None:
    heights = [bar.get_height() for bar in audit.plot.kl().patches]
    assert heights == sorted(audit.dimensions["kl"], reverse=True)


def test_curves_are_the_tables(audit: Audit) -> None:
    for name, column in (("active_units", "count"), ("local_collapse", "share")):
        line = getattr(audit.plot, name)().lines[0]
        table = audit.tables[f"{name}_curve"]
        np.testing.assert_array_equal(line.get_xdata(), table["threshold"])
        np.testing.assert_array_equal(line.get_ydata(), table[column])


def test_every_dimension_has_its_role(audit: Audit) -> None:
    ax = audit.plot.roles()
    points = {part.get_label(): len(part.get_offsets()) for part in ax.collections}
    counts = audit.dimensions["role"].value_counts()
    assert points == {f"{role} ({count})": count for role, count in counts.items()}


def test_a_part_without_a_value_keeps_its_bracket(audit: Audit) -> None:
    ax = audit.plot.information_budget()
    known = audit.tables["information_budget"]["value"].notna().sum()
    assert len(ax.patches) == known
    assert [text.get_text() for text in ax.get_yticklabels()][:1] == ["information"]


def test_asking_for_the_figures_needs_no_matplotlib(tmp_path: Path) -> None:
    saved = audits.made_up(n=30, d=3).save(tmp_path / "some.audit")
    program = (
        f"import sys; import collapsekit as ck; ck.load({str(saved)!r}).plot; "
        "assert 'matplotlib' not in sys.modules; assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
