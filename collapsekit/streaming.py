"""States: what a pass over the data leaves behind. One law: ``+``.

``+`` is associative and commutative up to rounding (exactly so for rows and keyed subsets), so a
state does not depend on how the data were cut or in which order the parts arrived. Values that are
not finite are left out of moments; the door has already reported their rows.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from collapsekit.independent import alike
from collapsekit.noise import Noise, hash_index


class State(Protocol):
    """Anything with an associative, commutative ``+``; plain data that pickles."""

    def __add__(self, other: Self, /) -> Self: ...


Array = np.ndarray[Any, np.dtype[Any]]
AnyState = TypeVar("AnyState", bound=State)


def to_numpy(values: Tensor | Array) -> Array:
    """An array on the host; float16 and bfloat16 widen, everything else keeps its dtype."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        if values.dtype in (torch.float16, torch.bfloat16):
            values = values.float()
        return values.numpy()
    return np.asarray(values)


def _matrix(values: Tensor | Array) -> Array:
    array = to_numpy(values).astype(np.float64, copy=False)
    return array.reshape(len(array), math.prod(array.shape[1:]))


@dataclass(frozen=True)
class Moments:
    """Count, mean and centred sum of squares per column, merged by Chan, Golub & LeVeque (1983)."""

    n: Array  # [C], rows that were finite in that column
    mean: Array  # [C]
    squares: Array  # [C], sum of (value - mean)^2

    @classmethod
    def of(cls, values: Tensor | Array) -> Self:
        """Moments of rows [B, C] (or [B])."""
        array = _matrix(values)
        finite = np.isfinite(array)
        if finite.all() and len(array):
            mean = array.mean(axis=0)
            return cls(np.full(array.shape[1], len(array)), mean, ((array - mean) ** 2).sum(axis=0))
        n = finite.sum(axis=0)
        mean = np.where(finite, array, 0.0).sum(axis=0) / np.maximum(n, 1)
        return cls(n, mean, np.where(finite, (array - mean) ** 2, 0.0).sum(axis=0))

    def __add__(self, other: Self) -> Self:
        n = self.n + other.n
        share = other.n / np.maximum(n, 1)
        delta = other.mean - self.mean
        return type(self)(
            n,
            self.mean + delta * share,
            self.squares + other.squares + delta**2 * self.n * share,
        )

    @property
    def average(self) -> Array:
        """Mean per column; NaN without a row (`mean` is then 0, so that sums go on)."""
        return np.where(self.n > 0, self.mean, np.nan)

    @property
    def variance(self) -> Array:
        """Unbiased variance per column; NaN below two rows."""
        return np.where(self.n > 1, self.squares / np.maximum(self.n - 1, 1), np.nan)

    @property
    def standard_error(self) -> Array:
        """Standard error of the mean per column; NaN below two rows."""
        return np.sqrt(self.variance * alike() / np.maximum(self.n, 1))


@dataclass(frozen=True)
class Skewed(Moments):
    """Moments with the centred sum of cubes, for the interval of a mean; merged by Pebay (2008)."""

    cubes: Array  # [C], sum of (value - mean)^3

    @classmethod
    def of(cls, values: Tensor | Array) -> Self:
        """Moments of rows [B, C] (or [B])."""
        array = _matrix(values)
        some = Moments.of(array)
        with np.errstate(over="ignore", invalid="ignore"):  # a cube beyond 1e308 tells no skewness
            cubes = np.where(np.isfinite(array), (array - some.mean) ** 3, 0.0).sum(axis=0)
        return cls(some.n, some.mean, some.squares, cubes)

    def __add__(self, other: Self) -> Self:
        both = Moments(self.n, self.mean, self.squares) + Moments(
            other.n, other.mean, other.squares
        )
        n, delta = np.maximum(both.n, 1), other.mean - self.mean
        share, rest = other.n / n, self.n / n
        with np.errstate(over="ignore", invalid="ignore"):
            cubes = self.cubes + other.cubes + delta**3 * self.n * share * (rest - share)
            cubes += 3 * delta * (rest * other.squares - share * self.squares)
        return type(self)(both.n, both.mean, both.squares, cubes)

    @property
    def skewness(self) -> Array:
        """Third standardised moment per column; 0 where nothing varies or it cannot be told."""
        count = np.maximum(self.n, 1)
        spread = np.sqrt(self.squares / count)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            found = self.cubes / count / spread**3
        return np.where(np.isfinite(found), found, 0.0)


@dataclass(frozen=True)
class Comoments:
    """Count, mean and centred cross products of all columns."""

    n: int
    mean: Array  # [C]
    products: Array  # [C, C]

    @classmethod
    def of(cls, values: Tensor | Array) -> Self:
        """Comoments of rows [B, C]; rows with a value that is not finite are left out."""
        array = _matrix(values)
        array = array[np.isfinite(array).all(axis=1)]
        if not len(array):
            width = array.shape[1]
            return cls(0, np.zeros(width), np.zeros((width, width)))
        mean = array.mean(axis=0)
        centred = array - mean
        return cls(len(array), mean, centred.T @ centred)

    def __add__(self, other: Self) -> Self:
        n = self.n + other.n
        delta = other.mean - self.mean
        share = other.n / max(n, 1)
        return type(self)(
            n,
            self.mean + delta * share,
            self.products + other.products + np.outer(delta, delta) * (self.n * share),
        )

    @property
    def covariance(self) -> Array:
        """Unbiased covariance; NaN below two rows."""
        if self.n < 2:
            return np.full_like(self.products, np.nan)
        return self.products / (self.n - 1)


class Rows:
    """Columns kept for every row that was observed, ordered by sample number on the way out."""

    def __init__(self, index: Tensor | Array, **columns: Tensor | Array) -> None:
        self._parts: list[tuple[Array, dict[str, Array]]] = [
            (to_numpy(index), {name: to_numpy(column) for name, column in columns.items()})
        ]

    def __add__(self, other: Self) -> Self:
        # Lists are shared and only ever copied, so a long pass stays linear in its rows.
        merged = object.__new__(type(self))
        merged._parts = self._parts + other._parts
        return merged

    def __len__(self) -> int:
        return sum(len(index) for index, _ in self._parts)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        return tuple(self._parts[0][1])

    @property
    def flat(self) -> bool:
        """Whether every column holds one plain value a sample."""
        columns = self._parts[0][1].values()
        return all(column.ndim == 1 and column.dtype.kind in "biufU" for column in columns)

    @property
    def index(self) -> Array:
        """Sample numbers, ascending: int64 [n]."""
        index = np.concatenate([part for part, _ in self._parts])
        return np.sort(index, kind="stable")

    def column(self, name: str) -> Array:
        """One column in ascending sample number: [n, ...]."""
        index = np.concatenate([part for part, _ in self._parts])
        values = np.concatenate([columns[name] for _, columns in self._parts])
        return values[np.argsort(index, kind="stable")]

    def frame(self, *names: str) -> pd.DataFrame:
        """The one-dimensional columns `names` (all of them by default), indexed by sample."""
        names = names or self.names
        return pd.DataFrame(
            {name: self.column(name) for name in names}, index=pd.Index(self.index, name="sample")
        )

    def table(self, *names: str) -> pd.DataFrame:
        """As `frame`, for `Result.samples`; where the rows lie on disk, they stay there.

        A probe of the data stream that returns this, rather than `frame`, needs no memory that
        grows with the data.
        """
        return self.frame(*names)


@dataclass(frozen=True)
class Counts:
    """Whole numbers that add up, exactly."""

    values: Array  # int64

    def __add__(self, other: Self) -> Self:
        return type(self)(self.values + other.values)


GROUPS = 20
_NEIGHBOURS = 5


def keyed_groups(index: Tensor) -> Array:
    """Group of each sample by its hash: for quantities in which samples are independent."""
    return to_numpy(hash_index(0, "jackknife", index.cpu()) % GROUPS)


def block_groups(rows: Array, size: int) -> Array:
    """Group of each population row by its place: neighbours in hash order stay together.

    For quantities that pair a sample with the next one, whose terms are correlated. Groups hold
    `_NEIGHBOURS` rows at least: the terms at their borders, which they share, are then few.
    """
    groups: Array = rows * max(min(GROUPS, size // _NEIGHBOURS), 1) // max(size, 1)
    return groups


@dataclass(frozen=True)
class Jackknife:
    """What the delete-a-group jackknife says of a value: its error and bias, with g - 1 degrees."""

    value: Array
    error: Array  # NaN where fewer than two groups hold rows
    bias: Array
    groups: int


@dataclass(frozen=True)
class Grouped:
    """A state kept apart in `GROUPS` groups, for the delete-a-group jackknife.

    Groups follow from the samples alone (`keyed_groups`, `block_groups`), never from the cut.
    """

    parts: tuple[Any, ...]

    @classmethod
    def of(cls, group: Array, make: Callable[[Tensor], State]) -> Self:
        """Deal rows into groups; `make` builds the state of the row positions that it is given.

        Parameters
        ----------
        group : ndarray, int [B]
        make : callable
            From int64 row positions [b] to a state; called once a non-empty group.
        """
        parts: list[State | None] = []
        for g in range(GROUPS):
            positions = np.flatnonzero(group == g)
            parts.append(make(torch.from_numpy(positions)) if len(positions) else None)
        return cls(tuple(parts))

    def __add__(self, other: Self) -> Self:
        pairs = zip(self.parts, other.parts, strict=True)
        return type(self)(tuple(_plus(a, b) for a, b in pairs))

    @property
    def whole(self) -> Any:
        """The state of all groups together."""
        return merged([part for part in self.parts if part is not None])

    def against_others(self, make: Callable[[Any, Any], State]) -> Grouped:
        """Each group's state made anew from it and from the sum of the others.

        For what is estimated elsewhere than where it is used (cross-fitting). One group alone is
        its own other.
        """
        held = [g for g, part in enumerate(self.parts) if part is not None]
        present = [self.parts[g] for g in held]
        others = all_but_one(present) if len(present) > 1 else present
        parts: list[State | None] = [None] * len(self.parts)
        for g, part, rest in zip(held, present, others, strict=True):
            parts[g] = make(part, rest)
        return type(self)(tuple(parts))

    def jackknife(self, value: Callable[[Any], Array]) -> Jackknife:
        """Value, standard error and bias of a smooth function of the state.

        Delete-a-group jackknife with unequal groups treated as equal (Shao & Tu 1995, 5.2). Of
        copied samples a copy stays when another is left out: the variance, and the bias, are that
        of fewer rows (`independent`).
        """
        present = [part for part in self.parts if part is not None]
        centre = np.asarray(value(merged(present)), dtype=np.float64)
        g = len(present)
        if g < 2:
            unknown = np.full_like(centre, np.nan)
            return Jackknife(centre, unknown, unknown, g)
        left_out = np.stack([np.asarray(value(state)) for state in all_but_one(present)])
        mean = left_out.mean(axis=0)
        spread = ((left_out - mean) ** 2).sum(axis=0)
        error = np.sqrt(alike() * spread * (g - 1) / g)
        return Jackknife(centre, error, alike() * (g - 1) * (mean - centre), g)


def all_but_one(states: Sequence[Any]) -> list[Any]:
    """For each of two states or more the sum of the others."""
    # What comes before a state and what comes after it: 3 g sums, not g squared.
    before = list(accumulate(states, operator.add))
    after = list(accumulate(states[::-1], lambda a, b: b + a))[::-1]
    between = (before[i - 1] + after[i + 1] for i in range(1, len(states) - 1))
    return [after[1], *between, before[-2]]


def _plus(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return a if b is None else b
    return a + b


def merged(states: Sequence[AnyState]) -> AnyState:
    """The sum of states.

    Raises
    ------
    ValueError
        There is none.
    """
    if not states:
        raise ValueError("got no state to merge, expected at least one")
    total = states[0]
    for state in states[1:]:
        total = total + state
    return total


REPLICATES = 256


@dataclass(frozen=True)
class Bootstrap:
    """Weighted first and second moments under `REPLICATES` resamplings, kept while streaming.

    Double-or-nothing weights: each replicate takes a sample twice or not at all with probability
    1/2, mean 1 and variance 1 as a Poisson bootstrap has (Owen & Eckles 2012, "Bootstrapping data
    arrays of arbitrary order"); a weight is one bit of the sample's own hash.
    """

    weight: Array  # [R]
    first: Array  # [R, C]
    second: Array  # [R, C]
    centre: Array  # [C], subtracted before squaring: any fixed value near the data

    @classmethod
    def of(cls, values: Tensor, index: Tensor, centre: Tensor) -> Self:
        """Replicate sums of rows [B, C] about `centre` [C]."""
        words = Noise(0, "bootstrap", index).bits(REPLICATES // 64)
        shifts = torch.arange(64, device=words.device)
        bits = ((words[:, :, None] >> shifts) & 1).reshape(len(index), REPLICATES)
        weights = bits.to(torch.float64).T * 2.0
        shifted = values - centre
        sums = weights @ torch.cat([shifted, shifted**2], dim=1)
        width = values.shape[1]
        return cls(
            to_numpy(weights.sum(dim=1)),
            to_numpy(sums[:, :width]),
            to_numpy(sums[:, width:]),
            to_numpy(centre),
        )

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.weight + other.weight,
            self.first + other.first,
            self.second + other.second,
            self.centre,
        )

    @property
    def variance(self) -> Array:
        """Variance of each column in each replicate: [R, C]."""
        weight = np.maximum(self.weight, 2.0)[:, None]
        return np.maximum(self.second - self.first**2 / weight, 0.0) / (weight - 1.0)

    @property
    def limits(self) -> Array:
        """2.5 % and 97.5 % quantiles of each column's variance over the replicates: [2, C]."""
        found: Array = np.quantile(self.variance, [0.025, 0.975], axis=0)
        if alike() > 1:  # replicates take each copy by itself, and spread too little
            middle = self.variance.mean(axis=0)
            found = np.maximum(middle + math.sqrt(alike()) * (found - middle), 0.0)
        return found


@dataclass(frozen=True)
class Paired:
    """Moments of two columns met together, for each of C pairs."""

    n: Array  # [C]
    mean_a: Array
    mean_b: Array
    aa: Array  # centred sums of squares and of products
    bb: Array
    ab: Array

    @classmethod
    def of(cls, a: Tensor | Array, b: Tensor | Array) -> Self:
        """Moments of a [B, C] against b [B, C]; pairs that are not finite are left out."""
        first, second = _matrix(a), _matrix(b)
        finite = np.isfinite(first) & np.isfinite(second)
        n = finite.sum(axis=0)
        count = np.maximum(n, 1)
        mean_a = np.where(finite, first, 0.0).sum(axis=0) / count
        mean_b = np.where(finite, second, 0.0).sum(axis=0) / count
        da = np.where(finite, first - mean_a, 0.0)
        db = np.where(finite, second - mean_b, 0.0)
        return cls(
            n, mean_a, mean_b, (da * da).sum(axis=0), (db * db).sum(axis=0), (da * db).sum(axis=0)
        )

    def __add__(self, other: Self) -> Self:
        n = self.n + other.n
        share = other.n / np.maximum(n, 1)
        delta_a, delta_b = other.mean_a - self.mean_a, other.mean_b - self.mean_b
        weight = self.n * share
        return type(self)(
            n,
            self.mean_a + delta_a * share,
            self.mean_b + delta_b * share,
            self.aa + other.aa + delta_a**2 * weight,
            self.bb + other.bb + delta_b**2 * weight,
            self.ab + other.ab + delta_a * delta_b * weight,
        )

    @property
    def residual(self) -> Array:
        """Mean of (b - a)^2 per column."""
        spread = np.maximum(self.aa + self.bb - 2 * self.ab, 0.0) / np.maximum(self.n, 1)
        return np.where(self.n > 0, spread + (self.mean_a - self.mean_b) ** 2, np.nan)

    @property
    def r2(self) -> Array:
        """1 - E(b - a)^2 / Var(a): how well b gives a back; NaN where a does not vary."""
        variance = self.aa / np.maximum(self.n, 1)
        return 1.0 - self.residual / np.where(variance > 0, variance, np.nan)

    @property
    def correlation2(self) -> Array:
        """Squared correlation; 0 where b does not vary, NaN where a does not."""
        scale = np.where(self.bb > 0, self.aa * self.bb, 1.0)
        value = np.where(self.bb > 0, self.ab**2 / np.where(scale > 0, scale, 1.0), 0.0)
        return np.where(self.aa > 0, np.minimum(value, 1.0), np.nan)


@dataclass(frozen=True)
class Constant:
    """A fact that every part of the stream agrees on: a unit, a threshold read off the model."""

    value: Any

    def __add__(self, other: Self) -> Self:
        if self.value != other.value:
            raise ValueError(f"parts of one stream disagree: {self.value!r} and {other.value!r}")
        return self


class Top:
    """The `limit` rows of highest score with what belongs to them; ties go by sample number."""

    def __init__(
        self, limit: int, score: Tensor | Array, index: Tensor | Array, **columns: Tensor | Array
    ) -> None:
        self.limit = limit
        order = self._order(to_numpy(score), to_numpy(index), limit)
        # Only the survivors leave the device: a batch of images is large, its top rows are few.
        self.score, self.index = to_numpy(score)[order], to_numpy(index)[order]
        self.columns = {name: to_numpy(column[order]) for name, column in columns.items()}

    @staticmethod
    def _order(score: Array, index: Array, limit: int) -> Array:
        usable = np.flatnonzero(np.isfinite(score))
        order: Array = usable[np.lexsort((index[usable], -score[usable]))][:limit]
        return order

    def __add__(self, other: Self) -> Self:
        both = object.__new__(type(self))
        both.limit = self.limit
        score = np.concatenate([self.score, other.score])
        index = np.concatenate([self.index, other.index])
        order = self._order(score, index, self.limit)
        both.score, both.index = score[order], index[order]
        both.columns = {
            name: np.concatenate([self.columns[name], other.columns[name]])[order]
            for name in self.columns
        }
        return both
