"""Several audits as one self-contained page."""

from __future__ import annotations

from collapsekit.comparison import Comparison
from collapsekit.rendering import wording
from collapsekit.rendering.compared import build_all
from collapsekit.rendering.compared.runs import Compared
from collapsekit.rendering.header import comparison_pairs
from collapsekit.rendering.page import compose


def render(comparison: Comparison) -> str:
    """The page as one string; equal comparisons give equal bytes."""
    compared = Compared(comparison)
    names = wording.listing([run.name for run in compared.runs], limit=4)
    return compose(
        build_all(compared),
        title=f"{names} · collapsekit comparison",
        pairs=comparison_pairs([run.facts for run in compared.runs]),
        severity=None,
        footer="collapsekit. One file, no request. Intervals are 95 % unless they say otherwise.",
    )
