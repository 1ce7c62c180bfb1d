"""The report: one self-contained page. No request, nothing but the audit.

Its one script sorts, filters and copies what is already there; the policy allows that script alone,
by its hash.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources

from markupsafe import Markup

from collapsekit.rendering import wording
from collapsekit.rendering.blocks import Section
from collapsekit.rendering.environment import environment
from collapsekit.rendering.facts import Facts
from collapsekit.rendering.figures import Pair, Sheet, style
from collapsekit.rendering.header import pairs
from collapsekit.rendering.plots import drawings
from collapsekit.rendering.sections import build_all
from collapsekit.rendering.theme import FONT_STACK, PAGE, style_variables
from collapsekit.results import Audit

#: Nothing may load, nothing may run but one script, known by its hash. Pictures and downloads live
#: inside the page.
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src '{}'; "
    "base-uri 'none'; form-action 'none'"
)


@cache
def script() -> tuple[str, str]:
    """The page's script and the hash by which the policy knows it."""
    source = resources.files("collapsekit.rendering") / "templates" / "enhance.js"
    lines = (line.strip() for line in source.read_text(encoding="utf-8").splitlines())
    text = "\n".join(line for line in lines if line and not line.startswith("//"))
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return text, f"sha256-{digest}"


def render(audit: Audit) -> str:
    """The whole page as one string; equal audits give equal bytes."""
    facts = Facts(audit)
    sections = build_all(facts)
    model = wording.clean(audit.provenance.get("model") or "a model", 80)
    return compose(
        sections,
        title=f"{wording.STATE.get(audit.verdict.name, 'Audit')} · {model} · collapsekit",
        pairs=pairs(facts),
        severity=audit.verdict.severity,
        footer=_footer(facts),
    )


def compose(
    sections: list[Section],
    *,
    title: str,
    pairs: list[tuple[str, str]],
    severity: int | None,
    footer: str,
) -> str:
    """Sections as a page; the first section is its head, with the largest heading."""
    text, known = script()
    found = [drawing for section in sections for drawing in drawings(section.blocks)]
    with style(PAGE):
        sheet = Sheet()
        figures: dict[str, Pair] = {drawing.name: sheet.draw(drawing) for drawing in found}
    return (
        environment()
        .get_template("page.html")
        .render(
            title=title,
            policy=POLICY.format(known),
            script=Markup(text),
            variables=style_variables(),
            fonts=FONT_STACK,
            figure_css=sheet.css,
            definitions=sheet.definitions,
            figures=figures,
            pairs=pairs,
            severity=severity,
            sections=sections,
            # A number may be known although the section that shows it could not be filled.
            anchors={f"#{section.id}" for section in sections},
            footer=footer,
        )
    )


def _footer(facts: Facts) -> str:
    versions = facts.audit.provenance.get("versions")
    own = versions.get("collapsekit", "") if isinstance(versions, dict) else ""
    name = f"collapsekit {wording.clean(own, 24)}".strip()
    return (
        f"{name}. One file, no request. Intervals are 95 % unless they say otherwise; "
        "thresholds are the settings of the probes and are printed beside every verdict."
    )
