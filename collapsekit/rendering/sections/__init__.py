"""The sections of the page, in their order. Each is one file with a ``build(facts)``.

``build`` returns a `Section`, or ``None`` where the audit holds nothing to show; what was skipped
is told in `method`. Nothing here imports matplotlib: drawings are painted later, by the page.
"""

from __future__ import annotations

from collections.abc import Callable

from collapsekit.rendering.blocks import Section
from collapsekit.rendering.facts import Facts
from collapsekit.rendering.sections import (
    active_units,
    appendix,
    decoder,
    dimensions,
    directions,
    findings,
    gallery,
    groups,
    information,
    injectivity,
    kl_map,
    latent_view,
    method,
    prior_match,
    remedy,
    roles,
    samples,
    traversals,
    verdict,
)

Builder = Callable[[Facts], Section | None]

#: One line per section: a new one is its file and a line here.
SECTIONS: tuple[Builder, ...] = (
    verdict.build,
    groups.build,
    findings.build,
    samples.build,
    gallery.build,
    dimensions.build,
    directions.build,
    kl_map.build,
    roles.build,
    traversals.build,
    active_units.build,
    information.build,
    decoder.build,
    injectivity.build,
    prior_match.build,
    latent_view.build,
    remedy.build,
    method.build,
    appendix.build,
)


def build_all(facts: Facts) -> list[Section]:
    """Every section that this audit can fill."""
    built = [build(facts) for build in SECTIONS]
    return [section for section in built if section is not None]
