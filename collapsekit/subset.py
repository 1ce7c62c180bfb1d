"""The keyed subset: the k samples of smallest hash, in hash order, whatever the cut of the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import numpy as np
import torch

from collapsekit.door import Door
from collapsekit.noise import hash_index
from collapsekit.population import Population
from collapsekit.posteriors import Family
from collapsekit.posteriors.base import joined
from collapsekit.samples import Inputs, concatenate, take_rows
from collapsekit.streaming import Array, to_numpy

_Part = tuple[Array, Array, Family, Inputs | None]


class KeyedSubset:
    """State: the `limit` rows of smallest hash(seed, index) seen so far, exactly mergeable."""

    def __init__(
        self,
        seed: int,
        limit: int,
        index: Array,
        posterior: Family,
        x: Inputs | None = None,
    ) -> None:
        self.limit = limit
        key = to_numpy(hash_index(seed, "population", torch.from_numpy(index)))
        self._parts: list[_Part] = [(key, index, posterior.to(torch.device("cpu")), x)]
        self._sorted = False  # and in one part

    def __len__(self) -> int:
        return sum(len(part[0]) for part in self._parts)

    def __add__(self, other: Self) -> Self:
        both = object.__new__(type(self))
        both.limit, both._parts, both._sorted = self.limit, self._parts + other._parts, False
        # Compact now and then only: sorting after every batch would make the pass quadratic.
        stores_inputs = bool(both._parts) and both._parts[0][3] is not None
        if len(both) > (1.25 if stores_inputs else 2) * both.limit + 1024:
            both._parts = [both._smallest()]
        return both

    def within(self, bound: int) -> Self:
        """The rows whose hash is at most `bound`."""
        some = object.__new__(type(self))
        some.limit, some._parts, some._sorted = self.limit, [], False
        for key, index, posterior, x in self._parts:
            at = np.flatnonzero(key <= bound)
            if len(at):
                kept = None if x is None else take_rows(x, at)
                rows = torch.from_numpy(at)
                some._parts.append((key[at], index[at], posterior.take(rows), kept))
        return some

    def compact(self) -> tuple[Self, int | None]:
        """The same in one part; and the largest hash in it once it is full, which bounds all."""
        one = object.__new__(type(self))
        one.limit, one._parts, one._sorted = self.limit, [self._smallest()], True
        key = one._parts[0][0]
        return one, int(key[-1]) if len(key) >= self.limit else None

    def members(self) -> bytes:
        """The sample numbers in it, as they will stand in the population."""
        return bytes(self._smallest()[1].tobytes())

    def _smallest(self) -> _Part:
        if self._sorted:
            return self._parts[0]
        keys = np.concatenate([part[0] for part in self._parts])
        index = np.concatenate([part[1] for part in self._parts])
        order = np.lexsort((index, keys))[: self.limit]  # ties go by index: still exact
        stored = [part[3] for part in self._parts if part[3] is not None]
        whole = len(stored) == len(self._parts)
        x = take_rows(concatenate(stored), order) if whole else None
        posterior = joined([part[2] for part in self._parts]).take(torch.from_numpy(order))
        return keys[order], index[order], posterior, x

    def build(
        self,
        door: Door,
        total: int,
        take: Callable[[Array], Inputs] | None = None,
        device: torch.device | None = None,
        apart: bool = False,
    ) -> Population:
        """The population of what was kept; `take` reads inputs again where none were stored."""
        _, index, posterior, x = self._smallest()
        if x is not None:

            def from_store(rows: Array) -> Inputs:
                return take_rows(x, rows)

            read: Callable[[Array], Inputs] | None = from_store
        elif take is not None:

            def from_source(rows: Array) -> Inputs:
                return take(index[rows])

            read = from_source
        else:
            read = None
        return Population(door, index, posterior.to(device), read, total, apart)
