"""The laws on every family: what a probe can measure obeys them, what it cannot it says."""

from __future__ import annotations

import pytest

from collapsekit.errors import Unavailable
from collapsekit.probes import REGISTERED
from tests import families, laws


@pytest.mark.parametrize("name", families.MODELS)
def test_laws(name: str) -> None:
    _, lacking = families.MODELS[name]
    reasons = {}
    for probe in REGISTERED:
        door, samples = families.opened(name)
        try:
            laws.check_probe(probe, door, samples)
        except Unavailable as reason:
            reasons[probe.name] = reason
    assert reasons.keys() == lacking
    assert all(reason.got and reason.expected for reason in reasons.values())
