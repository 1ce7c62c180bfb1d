"""The Jinja environment of every HTML output: autoescape on, undefined names are errors."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from collapsekit.findings import Severity
from collapsekit.rendering import wording


@cache
def environment() -> Environment:
    """The one environment; it holds no state of any audit."""
    made = Environment(
        loader=PackageLoader("collapsekit.rendering", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["tie"] = wording.tie
    made.filters["word"] = lambda severity: wording.SEVERITY[Severity(severity)]
    made.filters["icon"] = lambda severity: Severity(severity).word
    made.filters["part"] = lambda share: f"{100 * share:.4g}%"
    return made
