"""Figures for papers as matplotlib axes: ``audit.plot.kl()``, ``audit.plot.roles(ax=axes[1])``.

Plain axes in the caller's own style: size, fonts and title are the caller's to set, and panels
combine into one figure. The report's own figures are in `collapsekit.rendering.plots`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from collapsekit.errors import Unavailable
from collapsekit.rendering.facts import Facts, Floats
from collapsekit.results import Audit

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

#: Marks besides colours: what a figure says survives a black-and-white printer.
_ROLES = {
    "healthy": ("o", "#0072b2"),
    "entangled": ("D", "#009e73"),
    "ignored": ("v", "#e69f00"),
    "phantom": ("^", "#cc79a7"),
    "dead": ("x", "#666666"),
}
_PARTS = ("information", "total correlation", "dimension-wise KL", "rate")
_INK, _BAR, _MARK, _BAND = "#333333", "#0072b2", "#d55e00", 0.25


class Plots:
    """Figures of one audit; each method draws on `ax`, or on a new figure, and returns the axes.

    Parameters
    ----------
    audit : Audit

    Examples
    --------
    ``audit.plot.kl().figure.savefig("kl.pdf")``.
    """

    def __init__(self, audit: Audit) -> None:
        self._facts = Facts(audit)

    def kl(self, ax: Axes | None = None) -> Axes:
        """KL of each dimension in nats, sorted, with a whisker from the 5 to the 95 % quantile.

        Raises
        ------
        Unavailable
            The audit holds no KL per dimension.
        """
        rates = self._column("kl", "kl")[self._facts.order]
        ax = _axes(ax)
        rank = np.arange(1, len(rates) + 1)
        ax.bar(rank, rates, width=0.8, color=_BAR, label="mean over samples")
        ends = [self._facts.per_dimension(name) for name in ("kl_q05", "kl_q95")]
        if ends[0] is not None and ends[1] is not None:
            low, high = (end[self._facts.order] for end in (ends[0], ends[1]))
            ax.vlines(rank, low, high, color=_INK, linewidth=0.8, label="5 to 95 % of samples")
            ax.legend(frameon=False)
        ax.set_xlabel("dimension, by falling KL")
        ax.set_ylabel("KL from the prior (nats)")
        return ax

    def active_units(self, ax: Axes | None = None) -> Axes:
        """Active units over the threshold on the variance of the mean, with the 95 % band.

        Raises
        ------
        Unavailable
            The audit holds no such curve.
        """
        ax = self._curve("active_units_curve", "count", "active_units", ax)
        _dotted(ax, self._facts.active_bar)
        ax.set_ylim(0, self._facts.d * 1.02)
        ax.set_xlabel("threshold (prior variances)")
        ax.set_ylabel("active units")
        return ax

    def local_collapse(self, ax: Axes | None = None) -> Axes:
        """Share of samples whose whole code carries less than a threshold, with the 95 % band.

        Raises
        ------
        Unavailable
            The audit holds no such curve.
        """
        ax = self._curve("local_collapse_curve", "share", "local_collapse", ax)
        _dotted(ax, self._facts.local_bar)
        ax.set_ylim(0, 1.02)
        ax.set_xlabel("threshold (nats in a sample's code)")
        ax.set_ylabel("share of samples below it")
        return ax

    def roles(self, ax: Axes | None = None) -> Axes:
        """What the encoder writes against what the decoder reads, a mark per dimension.

        Raises
        ------
        Unavailable
            The audit has no decoder's view, or no roles.
        """
        writes = self._column("mean_variance", "active_units")
        reads = self._column("decoder_usage", "decoder_usage")
        roles = self._facts.words("role")
        if roles is None:
            raise self._unavailable("role", "roles")
        ax = _axes(ax)
        found = np.array(roles)
        for role in dict.fromkeys([*_ROLES, *roles]):
            of = found == role
            if role and of.any():
                marker, colour = _ROLES.get(role, ("s", _INK))
                label = f"{role} ({int(of.sum())})"
                ax.scatter(writes[of], reads[of], s=24, marker=marker, color=colour, label=label)
        # Zero has no place on a logarithm; below the smallest bar nothing is to be told apart.
        ax.set_xscale("symlog", linthresh=max(self._facts.active_bar / 10, 1e-12))
        top = float(np.nanmax(reads, initial=0.0))
        ax.set_yscale("symlog", linthresh=max(self._facts.reads_share * top / 10, 1e-12))
        ax.axvline(self._facts.active_bar, color=_INK, linewidth=0.8, linestyle=":")
        ax.set_xlim(left=0)
        ax.set_ylim(bottom=0)
        ax.set_xlabel("written: variance of the posterior mean (prior variances)")
        ax.set_ylabel("read: change of the output")
        ax.legend(frameon=False)
        return ax

    def round_trip(self, ax: Axes | None = None) -> Axes:
        """Share of each dimension's code that can be read back from its output, sorted.

        Raises
        ------
        Unavailable
            The audit holds no round trip.
        """
        clean = self._column("round_trip_r2", "round_trip")
        order = np.argsort(-np.nan_to_num(clean, nan=-np.inf), kind="stable")
        ax = _axes(ax)
        rank = np.arange(1, len(clean) + 1)
        series = [
            ("round_trip_r2", "codes of the data", "o", _BAR),
            ("robust_round_trip_r2", "after rounding and noise", "D", _MARK),
            ("round_trip_r2_prior", "draws of the prior", "^", "#666666"),
        ]
        for name, label, marker, colour in series:
            column = self._facts.per_dimension(name)
            if column is not None:
                ax.plot(
                    rank, column[order], marker, markersize=4, color=colour, label=label, alpha=0.9
                )
        ax.axhline(self._facts.trip_bar, color=_INK, linewidth=0.8, linestyle=":")
        # An R² below zero says no more than zero does, and one of -40 would hide all others.
        ax.set_ylim(-0.1, 1.05)
        ax.set_xlabel("dimension, by falling round trip")
        ax.set_ylabel("share of the code that comes back (R²)")
        ax.legend(frameon=False)
        return ax

    def information_budget(self, ax: Axes | None = None) -> Axes:
        """What the rate is spent on, in nats, with intervals: information, overlap, mismatch.

        Raises
        ------
        Unavailable
            The audit holds no budget.
        """
        table = self._table("information_budget", "information_budget", "part", "value")
        # A part that is not identified has no value; its bracket is drawn all the same.
        cells = table.reindex(columns=["value", "low", "high"]).to_numpy(
            dtype=np.float64, na_value=np.nan
        )
        rows = dict(zip(map(str, table["part"]), cells, strict=True))
        parts = [part for part in _PARTS if part in rows]
        ax = _axes(ax)
        for at, part in enumerate(parts):
            value, low, high = rows[part]
            if np.isfinite(value):
                ax.barh(at, value, height=0.6, color=_INK if part == "rate" else _BAR)
            if np.isfinite(low) and np.isfinite(high):
                ax.plot([low, high], [at, at], "|-", color=_MARK, linewidth=1.5, markersize=9)
        ax.set_yticks(range(len(parts)), parts)
        ax.invert_yaxis()
        ax.set_xlim(left=0)
        ax.set_xlabel("nats a sample")
        return ax

    def _curve(self, name: str, column: str, probe: str, ax: Axes | None) -> Axes:
        table = self._table(name, probe, "threshold", column)
        ax = _axes(ax)
        x, y = (table[key].to_numpy(dtype=np.float64) for key in ("threshold", column))
        if {"low", "high"} <= set(table.columns):
            low, high = (table[key].to_numpy(dtype=np.float64) for key in ("low", "high"))
            ax.fill_between(x, low, high, color=_BAR, alpha=_BAND, linewidth=0, step="post")
        ax.step(x, y, where="post", color=_BAR)
        ax.set_xscale("log")
        ax.set_xlim(float(x[0]), float(x[-1]))
        return ax

    def _column(self, name: str, probe: str) -> Floats:
        column = self._facts.per_dimension(name)
        if column is None:
            raise self._unavailable(name, probe)
        return column

    def _table(self, name: str, probe: str, *columns: str) -> pd.DataFrame:
        table = self._facts.table(name, *columns)
        if table is None:
            raise self._unavailable(name, probe)
        return table

    def _unavailable(self, name: str, probe: str) -> Unavailable:
        return Unavailable(
            f"this audit holds no {name}",
            got=self._facts.why_missing(probe) or "it was not measured",
            expected=f"an audit with the probe {probe}",
            remedy="audit.skipped says what was not measured",
        )


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    # Imported here: a saved audit is read and judged where there is no matplotlib.
    from matplotlib import pyplot

    new: Axes = pyplot.subplots(layout="constrained")[1]
    return new


def _dotted(ax: Axes, threshold: float) -> None:
    ax.axvline(threshold, color=_INK, linewidth=0.8, linestyle=":")
