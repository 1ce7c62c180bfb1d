"""The rehearsal: everything is tried on two samples, so that what cannot be measured is known at
once, and a long pass does not end in an error that the first batch could have told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from collapsekit.door import Door
from collapsekit.errors import CollapsekitError, ModelError, Unavailable
from collapsekit.findings import Finding, Severity
from collapsekit.observation import Observation, first_rows, population_rows, prior_draws
from collapsekit.population import KeyedSubset
from collapsekit.posteriors import Family
from collapsekit.probe import Probe
from collapsekit.readers import Encoded
from collapsekit.samples import Batch, Inputs, take_rows
from collapsekit.shards import brief, told
from collapsekit.streaming import to_numpy
from collapsekit.troubles import BATCHWISE, RANDOM


@dataclass(frozen=True)
class Rehearsed:
    """What was learnt.

    Parameters
    ----------
    x : Inputs
        Two rows that the encoder bears.
    posterior : Family
        What it says of them.
    skipped : dict
        Probe name to the reason why it cannot be measured.
    findings : list of Finding
    """

    x: Inputs
    posterior: Family
    skipped: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def rehearse(door: Door, probes: Sequence[Probe], seed: int, first: Batch) -> Rehearsed:
    """Try everything on the first rows.

    The encoder's own errors are raised: without a posterior there is no audit. A probe's
    `Unavailable` skips it; an error in what was declared (a likelihood that does not fit) is
    raised as well, since every number of that probe would be wrong.
    """
    x = first_rows(first.x, 2)
    encoded = _try_encode(door, x)
    if encoded.problem is not None:  # bad rows may come first: look at the whole batch
        x = first.x
        encoded = _try_encode(door, x)
    if encoded.problem is not None:
        raise encoded.problem
    findings = [*_random(door, x, encoded), *_batchwise(door, x, encoded)]
    # One good sample stands in for two: pairs are then rehearsed whatever the conditions.
    rows = np.repeat(np.flatnonzero(to_numpy(encoded.good))[:1], 2)
    x, index = take_rows(x, rows), np.arange(2)
    posterior = encoded.posterior.take(torch.as_tensor(rows))
    subset = KeyedSubset(seed, 2, index, posterior, x)
    crowd = subset.build(door, len(rows), None, posterior.device)
    observations = {
        "data": Observation(door, "data", index, posterior=posterior, seed=seed, x=x),
        "population": population_rows(crowd, 0, 2, seed),
        "prior": prior_draws(crowd, 0, 2, seed),
    }
    skipped: dict[str, str] = {}
    for probe in probes:
        try:
            probe.observe(observations[probe.source])
        except Unavailable as reason:
            skipped[probe.name] = told(reason)
        except CollapsekitError:
            raise
        except Exception as error:
            skipped[probe.name] = f"{type(error).__name__}: {brief(error)}"
    door.passes = Counter()
    return Rehearsed(x, posterior, skipped, findings)


def _random(door: Door, x: Inputs, encoded: Encoded) -> list[Finding]:
    again = _try_encode(door, x)
    if encoded.posterior.same(again.posterior):
        return []
    return [RANDOM.finding(Severity.WARN, "two calls of the encoder on the same samples differ.")]


def _batchwise(door: Door, x: Inputs, together: Encoded) -> list[Finding]:
    alone = _try_encode(door, first_rows(x, 1)).posterior
    first = together.posterior.take(slice(1))
    if alone.same(first, 1e-3, 1e-4):
        return []
    return [
        BATCHWISE.finding(Severity.WARN, "a sample's posterior changes with the samples beside it.")
    ]


def _try_encode(door: Door, x: Inputs) -> Encoded:
    try:
        return door.encode(x, "rehearsal")
    except CollapsekitError:
        raise
    except Exception as error:
        raise ModelError(
            "the encoder failed on the first samples",
            got=f"{type(error).__name__}: {brief(error)}",
            expected="a posterior for every row",
            remedy="try encode(data[:2]) by hand; check the data's shape and type",
        ) from error
