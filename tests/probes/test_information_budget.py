"""Information budget: limits of the mismatch that hold where densities cannot be seen."""

from __future__ import annotations

import numpy as np

from collapsekit.probes.information_budget import _by_moments


def test_the_limit_by_moments_is_unbiased_for_a_matched_code() -> None:
    """A code that is N(0, I): its mismatch is 0, though 400 dimensions of 500 rows read 0.8."""
    rng = np.random.default_rng(0)
    found, n, dims = [], 500, 400
    for _ in range(40):
        z = rng.normal(size=(n, dims))
        found.append(_by_moments(z.mean(axis=0), z.var(axis=0), n))
    # Two standard errors below 0 on average; the limit may lie above 0 in one of forty.
    assert np.mean(np.array(found) > 0) <= 0.15
    assert np.mean(found) > -0.5
