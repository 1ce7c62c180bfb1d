"""The rehearsal: everything is tried on two samples, so that what cannot be measured is known at
once, and a long pass does not end in an error that the first batch could have told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from collapsekit.door import Door
from collapsekit.errors import CollapsekitError, InputError, ModelError, Unavailable, brief
from collapsekit.findings import Finding, Severity
from collapsekit.observation import Observation, first_rows, population_rows, prior_draws
from collapsekit.posteriors import Family
from collapsekit.probe import Probe
from collapsekit.products import Place
from collapsekit.readers import Encoded
from collapsekit.samples import Batch, Inputs, take_rows
from collapsekit.shards import told
from collapsekit.streaming import to_numpy
from collapsekit.subset import KeyedSubset
from collapsekit.troubles import BATCHWISE, RANDOM, RANDOM_DECODER

#: Batches among which rows are sought that the encoder bears, and rows tried alone in each.
HEADS = 8
_ALONE = 16


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
    asked : tuple of Place
        Products of the population that probes asked for.
    silent : str
        The error that the decoder raised, where it did.
    """

    x: Inputs
    posterior: Family
    skipped: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    asked: tuple[Place, ...] = ()
    silent: str = ""


def rehearse(door: Door, probes: Sequence[Probe], seed: int, heads: Iterable[Batch]) -> Rehearsed:
    """Try everything on the first rows that the encoder bears.

    They are sought in `heads`, batch by batch. The encoder's own errors are raised where there
    are none: without a posterior there is no audit. A probe's `Unavailable` skips it; an error in
    what was declared (a likelihood that does not fit) is raised as well, since every number of
    that probe would be wrong.
    """
    x, encoded = _borne(door, heads)
    findings = [*_random(door, x, encoded), *_batchwise(door, x, encoded)]
    # One good sample stands in for two: pairs are then rehearsed whatever the conditions.
    rows = np.repeat(np.flatnonzero(to_numpy(encoded.good))[:1], 2)
    x, index = take_rows(x, rows), np.arange(2)
    posterior = encoded.posterior.take(torch.as_tensor(rows))
    silent = _decoder_error(door, x, posterior)
    findings += [] if silent else _random_decoder(door, x, posterior)
    subset = KeyedSubset(seed, 2, index, posterior, x)
    crowd = subset.build(door, len(rows), None, posterior.device, apart=True)
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
    return Rehearsed(x, posterior, skipped, findings, tuple(crowd.asked()), silent)


def _borne(door: Door, heads: Iterable[Batch]) -> tuple[Inputs, Encoded]:
    """The first rows with a usable posterior among some of them, and what the encoder says."""
    problem: CollapsekitError | None = None
    for head in heads:
        if not len(head.index) and problem is None:
            problem = _unread(head)
        for x in _candidates(head):
            try:
                encoded = door.encode(x, "rehearsal")
            except Exception as error:
                # An answer of another kind comes for every row; only what was raised may pass.
                if isinstance(error, CollapsekitError) and error.__cause__ is None:
                    raise
                named = error if isinstance(error, ModelError) else _failed(error)
                problem = problem or named
                continue
            if encoded.problem is None:
                return x, encoded
            problem = problem or encoded.problem
    raise problem or InputError(
        "the data hold no sample",
        got="N = 0",
        expected="at least one that can be read",
        remedy="hand in data with at least one sample; look for an empty file or filter",
    )


def _unread(head: Batch) -> InputError:
    return InputError(
        "the first samples cannot be read",
        got=f"samples {head.start} to {head.stop - 1}: {next(iter(head.failed.values()))}",
        expected=f"a sample that can be read in the first {HEADS} batches",
        remedy="read the first samples by hand",
    )


def _candidates(head: Batch) -> Iterator[Inputs]:
    """Two rows; the whole batch, for bad rows may come first; then rows by themselves, twice."""
    rows = len(head.index)
    if not rows:
        return
    yield first_rows(head.x, 2)
    yield head.x
    for row in np.unique(np.linspace(0, rows - 1, _ALONE).astype(np.int64)):
        yield take_rows(head.x, np.array([row, row]))


def _random(door: Door, x: Inputs, encoded: Encoded) -> list[Finding]:
    again = _try_encode(door, x)
    if encoded.posterior.same(again.posterior):
        return []
    return [RANDOM.finding(Severity.WARN, "two calls of the encoder on the same samples differ.")]


def _decoder_error(door: Door, x: Inputs, posterior: Family) -> str:
    """What a decoder that is there raises, other than what is known to be unavailable."""
    try:
        door.decode(posterior.mean, door.context(x), "rehearsal")
    except CollapsekitError:  # told, or raised, by the probes that meet it
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {brief(error)}"
    return ""


def _random_decoder(door: Door, x: Inputs, posterior: Family) -> list[Finding]:
    """Whether two calls of the decoder on the same codes differ, where it can be called."""
    try:
        context, z = door.context(x), posterior.mean
        first, second = (door.decode(z, context, "rehearsal") for _ in range(2))
        one, other = door.mean(first), door.mean(second)
        if one.shape == other.shape and torch.equal(torch.nan_to_num(one), torch.nan_to_num(other)):
            return []
    except Exception:  # the probes that need a decoder tell what ails it
        return []
    door.noisy = True
    return [
        RANDOM_DECODER.finding(
            Severity.WARN,
            "two calls of the decoder on the same codes differ: what compares outputs is withheld.",
            verdict="inconclusive",
        )
    ]


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
        raise _failed(error) from error


def _failed(error: Exception) -> ModelError:
    failed = ModelError(
        "the encoder failed on the first samples",
        got=f"{type(error).__name__}: {brief(error)}",
        expected="a posterior for every row",
        remedy="try encode(data[:2]) by hand; check the data's shape and type",
    )
    failed.__cause__ = error
    return failed
