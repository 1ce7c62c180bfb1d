"""What every case of the coverage needs: its types, and an audit without pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import collapsekit as ck
from collapsekit.door import Door
from collapsekit.probe import Probe, Reading
from collapsekit.readings import Informative
from collapsekit.results import Audit
from collapsekit.samples import as_samples

Truth = dict[str, float]
#: From samples and seed: the audit, and truths that depend on the replication's samples.
Run = Callable[[int, int], tuple[Audit, Truth]]

OWN = math.nan  # the truth of a headline that is held against its own mean
GIVEN = math.inf  # that of one whose truth comes with each replication
#: No headline of theirs.
PICTURES = ("kl_distribution", "gallery", "traversals", "latent_view")


@dataclass(frozen=True)
class Case:
    """Audits of known answer. Every headline that they show is judged, or left with a reason."""

    run: Run
    truth: Truth
    left: Mapping[str, str] = field(default_factory=dict)  # shown, not judged, and why

    def declared(self, audit: Audit) -> None:
        """That an audit shows what this case declares, and nothing else.

        Raises
        ------
        ValueError
            It shows a headline without a truth, or does not show one that has a truth.
        """
        shown = set(audit.summary.index)
        known = set(self.truth) | set(self.left)
        if both := set(self.truth) & set(self.left):
            raise ValueError(f"judged and left at once: {', '.join(sorted(both))}")
        if unknown := shown - known:
            raise ValueError(
                f"headlines without a truth: {', '.join(sorted(unknown))}; expected one in the "
                "case's truth, or a reason in its left"
            )
        if missing := known - shown:
            raise ValueError(f"the audit does not show {', '.join(sorted(missing))}")


def all_probes() -> list[Probe]:
    """Every registered probe but the pictures."""
    return [p for p in ck.probes.REGISTERED if p.name not in PICTURES]


def audited(
    model: Any, data: Any, seed: int, *, likelihood: Any = None, probes: list[Probe] | None = None
) -> Audit:
    """An audit without pictures, and with the one reading that has a headline."""
    some = [p for p in all_probes() if p.name != "shuffle_cost"]  # it serves that reading alone
    readings: list[Reading] = []
    if probes is not None:
        some, readings = probes, [Informative()]
    door = Door(ck.adapters.as_adapter(model)[0], "scale", None, likelihood)
    return ck.run(door, as_samples(data, None), some, readings=readings, seed=seed)
