"""Samples that are copies of one another: found by their inputs, where their posteriors agree."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import torch

from collapsekit.posteriors import Family
from collapsekit.samples import Inputs, map_tensors
from collapsekit.streaming import Array, to_numpy

_ROWS = 512
_CLOSE = 1e-5  # of the parameters' spread: more than a batch's rounding in single precision


def originals(
    posterior: Family, read: Callable[[Array], Inputs], most: float = 30.0
) -> Array | None:
    """For each row the first row whose input is the same, itself where none is: int64 [k].

    Inputs are read only of rows whose posteriors agree with another's; equal posteriors alone make
    no copies (a constant encoder has them). None where there are no copies, or where each
    input comes more than `most` times on average: then the data are of few values, and their
    repetition is their law.
    """
    alike = _alike(posterior)
    first = np.arange(posterior.rows)
    seen: dict[bytes, int] = {}
    for at in range(0, len(alike), _ROWS):
        rows = alike[at : at + _ROWS]
        for row, digest in zip(rows.tolist(), _digests(read(rows), len(rows)), strict=True):
            first[row] = seen.setdefault(digest, row)
    distinct = len(np.unique(first))
    few = len(first) > most * distinct
    return None if few or distinct == len(first) else first


COMMON = 0.02
"""Share of the rows above which an input that stands out is a value of the data."""

STANDS_OUT = 5.0
"""Times the rows that inputs have on average."""


def of_the_law(first: Array) -> Array:
    """Rows whose input the data have by their law, a blank image say, and not by copying: bool [k].

    Copying multiplies many inputs, or each of them a few times. One input that comes far more often
    than the others, and makes up a share of the data, is a value with a probability of its own;
    rows drawn from it are as independent as any others.

    Parameters
    ----------
    first : ndarray, int64 [k]
        As `originals` gives it.
    """
    count = np.bincount(first)[first]
    usual = len(first) / len(np.unique(first))
    found: Array = (count > STANDS_OUT * usual) & (count > COMMON * len(first))
    return found


def different(points: Array) -> tuple[Array, Array]:
    """The first row of each different point [k, P], and for each row its place among these.

    All rows where they are one and the same point.
    """
    seen: dict[bytes, int] = {}
    digests = (hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in points + 0.0)
    first = np.array([seen.setdefault(digest, row) for row, digest in enumerate(digests)])
    rows, place = np.unique(first, return_inverse=True)
    if len(rows) < 2:
        rows = place = np.arange(len(points))
    return rows, place


def _alike(posterior: Family) -> Array:
    """Rows that have another with nearly the same parameters, ascending."""
    flat = [tensor.reshape(posterior.rows, -1) for tensor in posterior.tensors()]
    places = np.empty((2, posterior.rows))
    for way in range(2):
        total = torch.zeros(posterior.rows, dtype=torch.float64, device=posterior.device)
        for part in flat:
            # any fixed directions will do: a sum of cosines is blind to no dimension
            weights = torch.arange(1, part.shape[1] + 1, dtype=torch.float64, device=part.device)
            total += part.to(torch.float64).nan_to_num() @ (weights * (1.3 + way)).cos()
        step = _CLOSE * float(total.std()) if len(total) > 1 else 0.0
        places[way] = to_numpy(total / step if step > 0 else total * 0)
    # Two grids, half a cell apart, so that no border parts a pair in both.
    found = np.zeros(posterior.rows, dtype=bool)
    for shift in (0.0, 0.5):
        _, cell, count = np.unique(
            np.floor(places + shift), axis=1, return_inverse=True, return_counts=True
        )
        found |= count[cell.reshape(-1)] > 1
    return np.flatnonzero(found)


def _digests(x: Inputs, rows: int) -> list[bytes]:
    """Of each row of all tensors in the inputs."""
    parts = [hashlib.blake2b(digest_size=16) for _ in range(rows)]

    def add(tensor: torch.Tensor) -> torch.Tensor:
        flat = tensor.detach().cpu().contiguous().reshape(rows, -1)
        for part, row in zip(parts, flat.view(torch.uint8).numpy(), strict=True):
            part.update(row)
        return tensor

    map_tensors(add, x)
    return [part.digest() for part in parts]
