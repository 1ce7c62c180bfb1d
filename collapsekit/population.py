"""The population: the k samples of smallest hash, in hash order, with all their columns at hand.

A uniform subset of the data that any cut gives identically; its first m rows are themselves a
uniform sample. Pairwise measures (information, swaps, collisions) read it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from collapsekit.door import Door
from collapsekit.errors import Unavailable
from collapsekit.kernels.marginals import log_marginals
from collapsekit.kernels.mixture import MixtureColumns, log_mixture_others, prepare
from collapsekit.noise import Noise, hash_index
from collapsekit.posteriors import DiagonalGaussian
from collapsekit.samples import Inputs, concatenate, take_rows
from collapsekit.streaming import Array, Moments, merged, to_numpy

TILE = 512


class KeyedSubset:
    """State: the `limit` rows of smallest hash(seed, index) seen so far, exactly mergeable."""

    def __init__(
        self,
        seed: int,
        limit: int,
        index: Array,
        posterior: DiagonalGaussian,
        x: Inputs | None = None,
    ) -> None:
        self.limit = limit
        key = to_numpy(hash_index(seed, "population", torch.from_numpy(index)))
        self._parts: list[tuple[Array, Array, Tensor, Tensor, Inputs | None]] = [
            (key, index, posterior.mean.cpu(), posterior.scale.cpu(), x)
        ]

    def __len__(self) -> int:
        return sum(len(part[0]) for part in self._parts)

    def __add__(self, other: Self) -> Self:
        both = object.__new__(type(self))
        both.limit, both._parts = self.limit, self._parts + other._parts
        # Compact now and then only: sorting after every batch would make the pass quadratic.
        stores_inputs = both._parts[0][4] is not None
        if len(both) > (1.25 if stores_inputs else 2) * both.limit + 1024:
            both._parts = [both._smallest()]
        return both

    def _smallest(self) -> tuple[Array, Array, Tensor, Tensor, Inputs | None]:
        keys = np.concatenate([part[0] for part in self._parts])
        index = np.concatenate([part[1] for part in self._parts])
        order = np.lexsort((index, keys))[: self.limit]  # ties go by index: still exact
        rows = torch.from_numpy(order)
        stored = [part[4] for part in self._parts if part[4] is not None]
        whole = len(stored) == len(self._parts)
        x = take_rows(concatenate(stored), order) if whole else None
        return (
            keys[order],
            index[order],
            torch.cat([part[2] for part in self._parts])[rows],
            torch.cat([part[3] for part in self._parts])[rows],
            x,
        )

    def build(
        self,
        door: Door,
        total: int,
        take: Callable[[Array], Inputs] | None = None,
        device: torch.device | None = None,
    ) -> Population:
        """The population of what was kept; `take` reads inputs again where none were stored."""
        _, index, mean, scale, x = self._smallest()
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
        posterior = DiagonalGaussian(mean.to(device), scale.to(device))
        return Population(door, index, posterior, read, total)


class Population:
    """k samples with their posteriors as columns, and their inputs on demand.

    Parameters
    ----------
    door : Door
    index : ndarray, int64 [k]
        Sample numbers in hash order.
    posterior : DiagonalGaussian
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
        posterior: DiagonalGaussian,
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
    def columns(self) -> MixtureColumns:
        """The posteriors prepared for the mixture kernel."""
        return prepare(self.posterior.mean, self.posterior.scale)

    def draw(self, rows: slice, seed: int) -> tuple[Tensor, Tensor]:
        """The rows' own codes [B, D] and their log-densities [B]."""
        index = torch.as_tensor(self.index[rows], device=self.posterior.mean.device)
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
                self._others[begin, seed] = log_mixture_others(self.columns, z, own)
        tiles = torch.cat([self._others[begin, seed] for begin in range(first, last, TILE)])
        return tiles[start - first : stop - first]

    def log_marginals(self, rows: int, dims: Array, seed: int) -> Tensor:
        """ln of the aggregate's marginal density at the first `rows` rows' own codes, nats.

        float64 [rows, len(dims)], against all k columns; computed once, because the grid behind
        it costs the same for one row as for thousands.
        """
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
            prior = self.door.prior_for(self.posterior)
            at = prior.mean.device
            index = torch.arange(count, device=at)
            z, _ = prior.take(torch.zeros(count, dtype=torch.int64, device=at)).draw(
                Noise(seed, "prior", index)
            )
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

    @cached_property
    def rate(self) -> tuple[float, float]:
        """Mean KL of a sample from the prior over all k rows, and its standard error, in nats."""
        prior = self.door.prior_for(self.posterior)
        parts = [
            Moments.of(self.posterior.take(slice(start, start + 4096)).kl(prior).sum(dim=1))
            for start in range(0, self.size, 4096)
        ]
        total = merged(parts)
        return float(total.mean[0]), float(np.nan_to_num(total.standard_error[0]))

    def _conditions(self) -> Array:
        parts: list[Any] = []
        for start in range(0, self.size, 1024):
            rows = np.arange(start, min(start + 1024, self.size))
            if self._read is None:
                break
            context = self.door.context(self.inputs(rows))
            if context is None:
                break
            parts.append(np.asarray(to_numpy(torch.as_tensor(context))).reshape(len(rows), -1))
        if not parts:
            return np.zeros(self.size, dtype=np.int64)
        _, group = np.unique(np.concatenate(parts), axis=0, return_inverse=True)
        return group.reshape(-1)

    @cached_property
    def focus(self) -> Array:
        """Dimensions that costly per-dimension probes measure: all up to 64, else the 32 of
        highest and the 32 of lowest mean KL (METRICS section 5)."""
        dims = self.posterior.dims
        if dims <= 64:
            return np.arange(dims)
        prior = self.door.prior_for(self.posterior)
        mean_kl = torch.zeros(dims, dtype=torch.float64, device=self.posterior.mean.device)
        for start in range(0, self.size, 1024):
            mean_kl += self.posterior.take(slice(start, start + 1024)).kl(prior).sum(dim=0)
        order = to_numpy(mean_kl.argsort(stable=True))
        return np.sort(np.concatenate([order[:32], order[-32:]]))
