"""The population: the k samples of smallest hash, in hash order, with all their columns at hand.

A uniform subset of the data that any cut gives identically; its first m rows are themselves a
uniform sample. Pairwise measures (information, swaps, collisions) read it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from collapsekit.door import Door
from collapsekit.errors import Unavailable
from collapsekit.kernels.marginals import log_marginals
from collapsekit.kernels.mixture import MixtureColumns, log_mixture_others, prepare
from collapsekit.noise import Noise, hash_index
from collapsekit.posteriors import Categorical, DiagonalGaussian, Divergence, Family, divergence
from collapsekit.posteriors.base import joined
from collapsekit.samples import Inputs, concatenate, take_rows
from collapsekit.streaming import Array, Moments, merged, to_numpy

TILE = 512
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

    def __len__(self) -> int:
        return sum(len(part[0]) for part in self._parts)

    def __add__(self, other: Self) -> Self:
        both = object.__new__(type(self))
        both.limit, both._parts = self.limit, self._parts + other._parts
        # Compact now and then only: sorting after every batch would make the pass quadratic.
        stores_inputs = bool(both._parts) and both._parts[0][3] is not None
        if len(both) > (1.25 if stores_inputs else 2) * both.limit + 1024:
            both._parts = [both._smallest()]
        return both

    def within(self, bound: int) -> Self:
        """The rows whose hash is at most `bound`."""
        some = object.__new__(type(self))
        some.limit, some._parts = self.limit, []
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
        one.limit, one._parts = self.limit, [self._smallest()]
        key = one._parts[0][0]
        return one, int(key[-1]) if len(key) >= self.limit else None

    def members(self) -> bytes:
        """The sample numbers in it, as they will stand in the population."""
        return bytes(self._smallest()[1].tobytes())

    def _smallest(self) -> _Part:
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
        return Population(door, index, posterior.to(device), read, total)


@dataclass(frozen=True)
class Parts:
    """Sets of dimensions that are redrawn or exchanged together.

    Parameters
    ----------
    prefix : str
        Of columns that hold a part's value in each of its dimensions: ``channel_``, or nothing
        where a part is one dimension.
    dims : tuple of ndarray
        The dimensions of each part.
    """

    prefix: str
    dims: tuple[Array, ...]

    @property
    def facts(self) -> tuple[str, tuple[tuple[int, ...], ...]]:
        """The same as plain data, for a state."""
        return self.prefix, tuple(tuple(int(j) for j in part) for part in self.dims)


def by_dimension(prefix: str, dims: Sequence[Sequence[int]], **columns: Array) -> pd.DataFrame:
    """A column's value of each part in every one of its dimensions."""
    counts = [len(part) for part in dims]
    index = pd.Index(np.concatenate([np.asarray(p) for p in dims]), name="dimension")
    return pd.DataFrame(
        {prefix + name: np.repeat(column, counts) for name, column in columns.items()}, index=index
    ).sort_index()


class Population:
    """k samples with their posteriors as columns, and their inputs on demand.

    Parameters
    ----------
    door : Door
    index : ndarray, int64 [k]
        Sample numbers in hash order.
    posterior : Family
        Row r belongs to sample ``index[r]``.
    read : callable or None
        Inputs of given row positions; None where the data hold no inputs.
    total : int
        Samples in the data, N.
    """

    def __init__(
        self,
        door: Door,
        index: Array,
        posterior: Family,
        read: Callable[[Array], Inputs] | None,
        total: int,
    ) -> None:
        self.door, self.index, self.posterior, self.total = door, index, posterior, total
        self._read = read
        self._heads: dict[int, Population] = {}
        self._others: dict[tuple[int, int], Tensor] = {}
        self._prior_outputs: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self._nearest: dict[tuple[str, int], Array] = {}
        self._marginals: dict[tuple[int, int, tuple[int, ...]], Tensor] = {}

    @property
    def size(self) -> int:
        """Rows, k."""
        return len(self.index)

    def inputs(self, rows: Array) -> Inputs:
        """The inputs of these row positions.

        Raises
        ------
        Unavailable
            The data hold posteriors alone.
        """
        if self._read is None:
            raise Unavailable(
                "there are no inputs",
                got="posteriors alone",
                expected="data that hold the inputs x beside mean and scale",
                remedy="add the array x to the file",
            )
        return self._read(rows)

    def head(self, limit: int | None) -> Population:
        """The first `limit` rows as a population of their own; cached, so its products are too."""
        if limit is None or limit >= self.size:
            return self
        if limit not in self._heads:
            self._heads[limit] = Population(
                self.door,
                self.index[:limit],
                self.posterior.take(slice(limit)),
                self._read,
                self.total,
            )
        return self._heads[limit]

    @cached_property
    def columns(self) -> MixtureColumns | None:
        """The posteriors prepared for the mixture kernel, where they are diagonal Gaussians."""
        if not isinstance(self.posterior, DiagonalGaussian):
            return None
        return prepare(self.posterior.mean, self.posterior.scale)

    def draw(self, rows: slice, seed: int) -> tuple[Tensor, Tensor]:
        """The rows' own codes [B, D] and their log-densities [B]."""
        index = torch.as_tensor(self.index[rows], device=self.posterior.device)
        return self.posterior.take(rows).draw(Noise(seed, "posterior", index))

    def log_others(self, start: int, stop: int, seed: int) -> Tensor:
        """ln of the sum over all other columns j of q_j(z_i) at rows' own codes, nats [B].

        Computed in tiles that begin at multiples of `TILE` whatever rows are asked for, and kept: a
        matrix product rounds differently when its rows are cut differently, and a single-precision
        one would make the result depend on the cut in the eighth digit. (The compiled path would
        not; a machine without a compiler takes the other.)
        """
        first, last = start // TILE * TILE, -(-stop // TILE) * TILE
        for begin in range(first, last, TILE):
            if (begin, seed) not in self._others:
                rows = slice(begin, min(begin + TILE, self.size))
                z, _ = self.draw(rows, seed)
                own = torch.arange(rows.start, rows.stop, device=z.device)
                self._others[begin, seed] = (
                    self.posterior.log_others(z, own)
                    if self.columns is None
                    else log_mixture_others(self.columns, z, own)
                )
        tiles = torch.cat([self._others[begin, seed] for begin in range(first, last, TILE)])
        return tiles[start - first : stop - first]

    @cached_property
    def _listed(self) -> tuple[Tensor, Tensor] | None:
        """Every joint code [M, D] of a small discrete code, and its mean probability [M]."""
        posterior = self.posterior
        states = posterior.states() if isinstance(posterior, Categorical) else None
        if states is None or not isinstance(posterior, Categorical):
            return None
        total = torch.zeros(len(states), dtype=torch.float64, device=posterior.device)
        for start in range(0, self.size, TILE):
            total += posterior.take(slice(start, start + TILE)).at_states(states).exp().sum(dim=0)
        return states, total

    def listed_information(self, rows: Array) -> tuple[Tensor, Tensor, Tensor] | None:
        """Exact expectations over all joint codes, for discrete codes of at most 4,096 of them.

        Returns
        -------
        tuple of Tensor, float64 [B] each, or None
            Of each row's posterior q_i: KL(q_i || mean of all), KL(q_i || mean of the others), and
            the expected share of q_i among all.
        """
        if self._listed is None:
            return None
        states, total = self._listed
        q = self.posterior.take(torch.as_tensor(rows, device=total.device))
        assert isinstance(q, Categorical)
        log_q = q.at_states(states)
        p = log_q.exp()

        def gap(log_mean: Tensor) -> Tensor:
            return torch.where(p > 0, p * (log_q - log_mean), 0.0).sum(dim=1)

        others = (total - p).clamp(min=0.0)
        others = torch.where(others < 1e-12 * total, 0.0, others)  # rounding of its own share
        return (
            gap((total / self.size).log()),
            gap((others / max(self.size - 1, 1)).log()),
            torch.where(p > 0, p * p / total, 0.0).sum(dim=1),
        )

    def log_marginals(self, rows: int, dims: Array, seed: int) -> Tensor:
        """ln of the aggregate's marginal density at the first `rows` rows' own codes, nats.

        float64 [rows, len(dims)], against all k columns; computed once, because the grid behind
        it costs the same for one row as for thousands.
        """
        if self.columns is None:
            raise Unavailable(
                "marginals of the aggregated posterior are computed for diagonal Gaussians",
                got=self.posterior.describe(),
                expected="a diagonal Gaussian posterior",
            )
        rows = min(rows, self.size)
        key = rows, seed, tuple(dims.tolist())
        if key not in self._marginals:
            z, _ = self.draw(slice(rows), seed)
            some = torch.as_tensor(dims, device=z.device)
            mean, scale = self.posterior.mean[:, some], self.posterior.scale[:, some]
            self._marginals[key] = log_marginals(mean, scale, z[:, some])
        return self._marginals[key]

    def prior_outputs(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """`count` codes from the prior [K, D] and the decoder's outputs for them [K, ...].

        Raises
        ------
        Unavailable
            The model is conditional: outputs then belong to one condition and cannot be shared.
        """
        if self.door.conditional:
            raise Unavailable(
                "prior draws cannot be shared between conditions",
                got="a conditional model",
                expected="a model without context",
            )
        if (count, seed) not in self._prior_outputs:
            index = torch.arange(count, device=self.posterior.device)
            z, _ = self.door.prior_for(self.posterior).draw(Noise(seed, "prior", index))
            outputs = [self.door.decode(part, None, "shared prior") for part in z.split(TILE)]
            if not all(isinstance(output, Tensor) for output in outputs):
                raise Unavailable("outputs that are distributions cannot be paired")
            self._prior_outputs[count, seed] = z, torch.cat(outputs)
        return self._prior_outputs[count, seed]

    @cached_property
    def targets(self) -> Tensor:
        """Inputs as flat rows [k, P], float32 at least: for distances between samples."""
        parts = []
        for start in range(0, self.size, 1024):
            rows = np.arange(start, min(start + 1024, self.size))
            target = self.door.target(self.inputs(rows))
            parts.append(target if target.is_floating_point() else target.float())
        return torch.cat(parts).flatten(1)

    def nearest(self, space: Literal["codes", "inputs"], count: int) -> Array:
        """Rows nearest to each row, itself left out: int64 [k, m], found once for all.

        In codes: by posterior means in units of the mean posterior width. In inputs: Euclidean.
        """
        if (space, count) not in self._nearest:
            points = self.targets
            if space == "codes":
                width = self.posterior.scale.square().mean(dim=0).sqrt()
                points = self.posterior.mean / width
            array = to_numpy(points)
            m = min(count + 1, self.size)
            found = (
                NearestNeighbors(n_neighbors=m).fit(array).kneighbors(array, return_distance=False)
            )
            # The row itself is usually first, but a tie may put a duplicate there.
            keep = found != np.arange(self.size)[:, None]
            keep[keep.all(axis=1), -1] = False
            self._nearest[space, count] = found[keep].reshape(self.size, m - 1)
        return self._nearest[space, count]

    @cached_property
    def value_range(self) -> tuple[Tensor, Tensor]:
        """The data's range, 0.5 % to 99.5 % quantiles over the first 1,000 rows.

        One range for images [C, H, W], whose values share a scale and may not vary at all in some
        pixels; one a feature for vectors [P], whose features need not.
        """
        head = self.head(1000)
        values = head.targets.to(torch.float64)
        one = self.door.target(head.inputs(np.arange(1)))
        if one.ndim > 2:
            sample = values.flatten()
            # torch.quantile sorts at most 2^24 values; every so many is enough for a range.
            values = sample[:: max(1, sample.numel() // 1_000_000)][:, None]
        ends = torch.tensor([0.005, 0.995], dtype=torch.float64, device=values.device)
        low, high = torch.quantile(values, ends, dim=0)
        return (low[0], high[0]) if one.ndim > 2 else (low, high)

    @cached_property
    def partner(self) -> Tensor:
        """For each row the next in hash order with the same condition, -1 where there is none."""
        partner = np.full(self.size, -1)
        for members in self._classes:
            if len(members) > 1:
                partner[members] = np.roll(members, -1)
        return torch.from_numpy(partner)

    @cached_property
    def place(self) -> Array:
        """Where each row stands when partners are put side by side: int64 [k]."""
        place = np.empty(self.size, dtype=np.int64)
        place[np.concatenate(self._classes)] = np.arange(self.size)
        return place

    @cached_property
    def _classes(self) -> list[Array]:
        group = self._conditions()
        order = np.argsort(group, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(group[order])) + 1)

    def priors(self, rows: Array) -> Family:
        """The priors of these row positions: one row where all samples share it."""
        if self.door.one_prior:
            return self.door.prior_for(self.posterior)
        return self.door.priors(
            self.posterior, self.door.context(self.inputs(rows), self.index[rows])
        )

    @cached_property
    def prior_scale(self) -> Tensor:
        """The prior's standard deviation in each dimension [D]; where priors differ, the root mean
        square over the first 1,000 rows."""
        scale = self.priors(np.arange(min(self.size, 1000))).scale
        return scale.square().mean(dim=0).sqrt()

    def _divergences(self, seed: int, size: int) -> Iterator[Divergence]:
        for start in range(0, self.size, size):
            rows = np.arange(start, min(start + size, self.size))
            noise = Noise(seed, "kl", torch.as_tensor(self.index[rows]).to(self.posterior.device))
            q = self.posterior.take(slice(start, start + size))
            yield divergence(q, self.priors(rows), noise)

    @cached_property
    def rate(self) -> tuple[float, float]:
        """Mean KL of a sample from its prior over all k rows, and its standard error, in nats."""
        total = merged([Moments.of(part.total) for part in self._divergences(0, 4096)])
        return float(total.mean[0]), float(np.nan_to_num(total.standard_error[0]))

    @cached_property
    def mean_kl(self) -> Tensor | None:
        """Mean KL of each dimension over all k rows, nats [D]; None where the KL does not split."""
        total: Tensor | None = None
        for part in self._divergences(0, 1024):
            if part.each is None:
                return None
            total = part.each.sum(dim=0) if total is None else total + part.each.sum(dim=0)
        return None if total is None else total / self.size

    @property
    def most_information(self) -> tuple[float, float]:
        """The rate as an upper bound of information; none where each sample has its own prior."""
        return self.rate if self.door.one_prior else (math.inf, 0.0)

    def _conditions(self) -> Array:
        parts: list[Any] = []
        for start in range(0, self.size, 1024):
            rows = np.arange(start, min(start + 1024, self.size))
            if self._read is None:
                break
            context = self.door.condition(self.inputs(rows))
            if context is None:
                break
            parts.append(np.asarray(to_numpy(torch.as_tensor(context))).reshape(len(rows), -1))
        if not parts:
            return np.zeros(self.size, dtype=np.int64)
        _, group = np.unique(np.concatenate(parts), axis=0, return_inverse=True)
        return group.reshape(-1)

    @cached_property
    def parts(self) -> Parts:
        """What costly per-dimension probes set at once: the dimensions of `focus` one by one, or,
        beyond 64 dimensions of a spatial latent, its channels (METRICS section 5)."""
        shape = self.door.latent_shape
        if self.posterior.dims > 64 and len(shape) > 1 and shape[0] <= 64:
            every = np.arange(self.posterior.dims).reshape(shape[0], -1)
            return Parts("channel_", tuple(every))
        return Parts("", tuple(self.focus[:, None]))

    @cached_property
    def focus(self) -> Array:
        """Dimensions that costly per-dimension probes measure: all up to 64, else the 32 of
        highest and the 32 of lowest mean KL (METRICS section 5); by the variance of the means where
        the KL does not split."""
        dims = self.posterior.dims
        if dims <= 64:
            return np.arange(dims)
        kl = self.mean_kl
        activity = self.posterior.mean.var(dim=0) if kl is None else kl
        order = to_numpy(activity.argsort(stable=True))
        return np.sort(np.concatenate([order[:32], order[-32:]]))
