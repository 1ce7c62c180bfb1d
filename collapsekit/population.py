"""The population: the k samples of smallest hash, in hash order, with all their columns at hand.

A uniform subset of the data that any cut gives identically; its first m rows are themselves a
uniform sample. Pairwise measures (information, swaps, collisions) read it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from collapsekit.adapter import offers
from collapsekit.copies import different, of_the_law, originals
from collapsekit.door import Door
from collapsekit.errors import ModelError, Unavailable, brief
from collapsekit.independent import rows_alike
from collapsekit.kernels.marginals import log_marginals
from collapsekit.kernels.mixture import MixtureColumns, log_mixture_others, prepare
from collapsekit.likelihoods import flat
from collapsekit.noise import Noise
from collapsekit.posteriors import (
    Categorical,
    DiagonalGaussian,
    Divergence,
    Family,
    directions,
    divergence,
    kl_matrix,
    whitened,
)
from collapsekit.products import Key, Place, on_device, product
from collapsekit.readers import as_tensor
from collapsekit.samples import Inputs, rows_of
from collapsekit.streaming import Array, Moments, merged, to_numpy

TILE = 512
_SQUARED = 1e100  # beyond, a sum of squares may be no number
_DIMENSIONS = 4  # whose marginals are one piece of work


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
    apart : bool
        Whether a head is a population of its own even where it holds all rows. Then `asked` tells
        of which heads products were asked, whatever the population's size.
    """

    def __init__(
        self,
        door: Door,
        index: Array,
        posterior: Family,
        read: Callable[[Array], Inputs] | None,
        total: int,
        apart: bool = False,
    ) -> None:
        self.door, self.index, self.posterior, self.total = door, index, posterior, total
        self.kept: dict[Key, Any] = {}
        self._read, self._apart = read, apart
        self._heads: dict[int, Population] = {}
        self._others: dict[tuple[int, int, bool], Tensor] = {}

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
        if limit is None or (limit >= self.size and not self._apart):
            return self
        if limit not in self._heads:
            self._heads[limit] = Population(
                self.door,
                self.index[:limit],
                self.posterior.take(slice(limit)),
                self._read,
                self.total,
                self._apart,
            )
        return self._heads[limit]

    @property
    def repeats(self) -> Array | None:
        """For each row the first whose input is the same: int64 [k]; None where none repeats."""
        return self._repeats[0]

    @property
    def unlike(self) -> str:
        """The error that kept repeated inputs from being found; nothing where none did."""
        return self._repeats[1]

    @property
    @product
    def _repeats(self) -> tuple[Array | None, str]:
        read = self._read
        if read is None:
            return None, ""
        try:
            return originals(self.posterior, lambda rows: self._identity(read(rows))), ""
        except Unavailable:  # nothing tells samples apart, or they can be read one way only
            return None, ""
        except Exception as error:
            return None, f"{type(error).__name__}: {brief(error)}"

    def _identity(self, x: Inputs) -> Inputs:
        """What makes a sample the same as another: all of its input, or what the adapter says."""
        adapter = self.door.adapter
        if not offers(adapter, "identity"):
            return x
        found, rows = as_tensor(adapter.identity(x)), rows_of(x)
        if found.shape[:1] != (rows,):
            raise ModelError(
                "the adapter's identity does not have a row for every sample",
                got=f"{tuple(found.shape)} for {rows} samples",
                expected=f"({rows}, ...)",
                remedy="keep the samples on the first axis in identity",
            )
        return found

    @cached_property
    def common(self) -> Array:
        """Rows of an input that repeats by the data's law: bool [k], see `copies.of_the_law`."""
        if self.repeats is None:
            return np.zeros(self.size, dtype=bool)
        return of_the_law(self.repeats)

    @cached_property
    def originals(self) -> Array | None:
        """For each row the one that it is a copy of, or itself: int64 [k]; None without copies."""
        if self.repeats is None:
            return None
        rows = np.arange(self.size)
        first = np.where(self.common, rows, self.repeats)
        return None if (first == rows).all() else first

    @cached_property
    def distinct(self) -> Population:
        """The rows without their copies; this population where there are none."""
        if self.originals is None:
            return self
        rows = np.unique(self.originals)
        posterior = self.posterior.take(torch.as_tensor(rows, device=self.posterior.device))
        return Population(self.door, self.index[rows], posterior, None, self.total)

    @property
    def effective(self) -> float:
        """Independent samples whose mean varies as that of the rows: k^2 / sum of m^2, the copies
        of each distinct input (Kish)."""
        return float(self.size**2 / max(int(self.copies.sum()), 1))

    @cached_property
    def copies(self) -> Array:
        """How many rows have each row's input, itself among them: int64 [k]."""
        if self.originals is None:
            return np.ones(self.size, dtype=np.int64)
        return np.bincount(self.originals)[self.originals]

    def alike(self, rows: int) -> float:
        """Rows to an independent one among `rows` samples, of which these are a uniform subset.

        Each of them has (size / effective - 1) copies here on average, and in proportion to the
        number of the others elsewhere.
        """
        copies = (self.size / self.effective - 1) / max(self.size - 1, 1)
        return 1.0 + copies * max(rows - 1, 0)

    # -- products, which may be computed elsewhere -------------------------------------------

    def asked(self) -> Iterator[Place]:
        """Products that were asked of this population and its heads."""
        yield from (((), key) for key in self.kept)
        for limit, head in self._heads.items():
            yield from (((limit, *path), key) for path, key in head.asked())

    def lacking(self, places: Iterable[Place]) -> list[Place]:
        """Those products of another population, as `asked` gave them, that are not kept here."""
        found: dict[Place, None] = {}
        for path, key in places:
            # A head of all rows is no other population here.
            short = tuple(limit for limit in path if limit < self.size)
            if key not in self._at(short).kept:
                found[short, key] = None
        return list(found)

    def pieces(self, place: Place) -> list[Place]:
        """What can be computed apart to make a product quickly: itself, or parts of it."""
        path, (name, arguments) = place
        here = self._at(path)
        if name == "prior_outputs":
            return [(path, ("_prior_part", part)) for part in here._prior_parts(*arguments)]
        if name == "log_marginals":
            return [(path, ("_marginal_part", part)) for part in here._marginal_parts(*arguments)]
        return [place]

    def make(self, place: Place) -> Any:
        """A product by its name, fit for sending."""
        path, (name, arguments) = place
        here = self._at(path)
        value = getattr(here, name)
        if not isinstance(getattr(type(here), name), property):
            value = value(*arguments)
        if isinstance(value, MixtureColumns):  # what everybody has is not sent
            nothing = value.mean[:0]
            return replace(value, mean=nothing, scale=nothing)
        return value

    def bring(self, place: Place, value: Any) -> None:
        """Keep a product that was made elsewhere."""
        path, key = place
        here = self._at(path)
        if isinstance(value, MixtureColumns):
            assert isinstance(here.posterior, DiagonalGaussian)
            value = replace(value, mean=here.posterior.mean, scale=here.posterior.scale)
        here.kept[key] = on_device(value, here.posterior.device)

    def _at(self, path: tuple[int, ...]) -> Population:
        here = self
        for limit in path:
            here = here.head(limit)
        return here

    @property
    @product
    def columns(self) -> MixtureColumns | None:
        """The posteriors prepared for the mixture kernel, where they are diagonal Gaussians."""
        if not isinstance(self.posterior, DiagonalGaussian):
            return None
        return prepare(self.posterior.mean, self.posterior.scale)

    def draw(self, rows: slice, seed: int) -> tuple[Tensor, Tensor]:
        """The rows' own codes [B, D] and their log-densities [B]."""
        index = torch.as_tensor(self.index[rows], device=self.posterior.device)
        return self.posterior.take(rows).draw(Noise(seed, "posterior", index))

    def log_others(self, start: int, stop: int, seed: int, distinct: bool = False) -> Tensor:
        """ln of the sum over all other columns j of q_j(z_i) at rows' own codes, nats [B].

        With `distinct` over one column of each input, but the row's own and its copies'.
        Computed in tiles that begin at multiples of `TILE` whatever rows are asked for, and kept: a
        matrix product rounds differently when its rows are cut differently, and a single-precision
        one would make the result depend on the cut in the eighth digit. (The compiled path would
        not; a machine without a compiler takes the other.)
        """
        first, last = start // TILE * TILE, -(-stop // TILE) * TILE
        for begin in range(first, last, TILE):
            if (begin, seed, distinct) not in self._others:
                rows = slice(begin, min(begin + TILE, self.size))
                z, _ = self.draw(rows, seed)
                own = torch.arange(rows.start, rows.stop, device=z.device)
                among = self.distinct if distinct else self
                if among is not self:
                    assert self.originals is not None
                    place = np.searchsorted(np.unique(self.originals), self.originals[rows])
                    own = torch.as_tensor(place, device=z.device)
                self._others[begin, seed, distinct] = (
                    among.posterior.log_others(z, own)
                    if among.columns is None
                    else log_mixture_others(among.columns, z, own)
                )
        tiles = [self._others[begin, seed, distinct] for begin in range(first, last, TILE)]
        return torch.cat(tiles)[start - first : stop - first]

    @property
    @product
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
            Of each row's posterior q_i: KL(q_i || mean of all), KL(q_i || mean of the others, its
            copies left out), and
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

        among = self.distinct._listed
        assert among is not None
        others = (among[1] - p).clamp(min=0.0)
        others = torch.where(others < 1e-12 * total, 0.0, others)  # rounding of its own share
        return (
            gap((total / self.size).log()),
            gap((others / max(self.distinct.size - 1, 1)).log()),
            torch.where(p > 0, p * p / total, 0.0).sum(dim=1),
        )

    @product
    def log_marginals(self, limit: int | None, most: int, seed: int) -> Tensor:
        """ln of the aggregate's marginal density at the first `limit` rows' own codes, nats.

        float64 [rows, m] in the m dimensions of `measured`, against all k columns; computed once,
        because the grid behind it costs the same for one row as for thousands.
        """
        if not isinstance(self.posterior, DiagonalGaussian):
            raise Unavailable(
                "marginals of the aggregated posterior are computed for diagonal Gaussians",
                got=self.posterior.describe(),
                expected="a diagonal Gaussian posterior",
            )
        parts = self._marginal_parts(limit, most, seed)
        found = torch.cat([self._marginal_part(*part) for part in parts], dim=1)
        self._forget("_marginal_part", parts)
        return found

    def _marginal_parts(
        self, limit: int | None, most: int, seed: int
    ) -> list[tuple[int | None, tuple[int, ...], int]]:
        dims = self.measured(most).tolist()
        cuts = range(0, len(dims), _DIMENSIONS)
        return [(limit, tuple(dims[start : start + _DIMENSIONS]), seed) for start in cuts]

    @product
    def _marginal_part(self, limit: int | None, dims: tuple[int, ...], seed: int) -> Tensor:
        assert isinstance(self.posterior, DiagonalGaussian)
        z, _ = self.draw(slice(limit), seed)
        some = torch.as_tensor(dims, device=z.device)
        mean, scale = self.posterior.mean[:, some], self.posterior.scale[:, some]
        return log_marginals(mean, scale, z[:, some])

    @product
    def prior_outputs(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """Codes from the prior [K, D] and the decoder's outputs for them [K, ...].

        `count` of them, or 64 a sample where these are fewer: a handful of samples (a rehearsal,
        say) is not worth thousands of decodes.

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
        parts = self._prior_parts(count, seed)
        z, outputs = zip(*(self._prior_part(*part) for part in parts), strict=True)
        self._forget("_prior_part", parts)
        return torch.cat(z), torch.cat(outputs)

    def _prior_parts(self, count: int, seed: int) -> list[tuple[int, int, int]]:
        count = min(count, 64 * self.size)
        return [(start, min(start + TILE, count), seed) for start in range(0, count, TILE)]

    @product
    def _prior_part(self, start: int, stop: int, seed: int) -> tuple[Tensor, Tensor]:
        index = torch.arange(start, stop, device=self.posterior.device)
        z, _ = self.door.prior_for(self.posterior).draw(Noise(seed, "prior", index))
        output = self.door.decode(z, None, "shared prior")
        if not isinstance(output, Tensor):
            raise Unavailable("outputs that are distributions cannot be paired")
        return z, output

    def _forget(self, name: str, parts: Iterable[tuple[Any, ...]]) -> None:
        """The parts of a product that has been put together."""
        for part in parts:
            self.kept.pop((name, part), None)

    @property
    @product
    def targets(self) -> Tensor:
        """Inputs as flat rows [k, P], float32 at least: for distances between samples."""
        parts = []
        for start in range(0, self.size, 1024):
            rows = np.arange(start, min(start + 1024, self.size))
            target = self.door.target(self.inputs(rows))
            parts.append(target if target.is_floating_point() else target.float())
        return flat(torch.cat(parts))

    @product
    def nearest(self, space: Literal["codes", "inputs"], count: int) -> Array:
        """Rows nearest to each row, itself left out: int64 [k, m], found once for all.

        In codes: by posterior means in units of the mean posterior width. In inputs: Euclidean.
        Among different inputs, one row each: copies of a row would crowd out its neighbours.
        """
        points = self.targets
        if space == "codes":
            width = self.posterior.scale.square().mean(dim=0).sqrt()
            points = self.posterior.mean / width
        array = to_numpy(points)
        largest = float(np.abs(array).max(initial=0.0))
        if not math.isfinite(largest):
            raise Unavailable(
                f"the {space} are too far apart to be compared",
                got="distances that are no numbers in double precision",
                expected="finite ones",
                remedy="look at the scale of the codes, and at values of the data that are missing",
            )
        if largest > _SQUARED:  # who is nearest does not depend on the scale
            array = array / largest
        rows, place = different(to_numpy(self.targets))
        array = array[rows]
        m = min(count + 1, len(rows))
        found = NearestNeighbors(n_neighbors=m).fit(array).kneighbors(array, return_distance=False)
        # The row itself is usually first, but a tie may put another there.
        keep = found != np.arange(len(rows))[:, None]
        keep[keep.all(axis=1), -1] = False
        near: Array = rows[found[keep].reshape(len(rows), m - 1)][place]
        return near

    @property
    @product
    def value_range(self) -> tuple[Tensor, Tensor]:
        """The data's range, 0.5 % to 99.5 % quantiles over the first 1,000 rows.

        One range for images, whose values share a scale and may not vary at all in some pixels; one
        a feature for anything else: features of a vector or of a series need share none.
        """
        values, images = self.head(1000).targets.to(torch.float64), self.images
        if images:
            sample = values.flatten()
            # torch.quantile sorts at most 2^24 values; every so many is enough for a range.
            values = sample[:: max(1, sample.numel() // 1_000_000)][:, None]
        ends = torch.tensor([0.005, 0.995], dtype=torch.float64, device=values.device)
        low, high = torch.quantile(values, ends, dim=0)
        return (low[0], high[0]) if images else (low, high)

    @property
    @product
    def images(self) -> bool:
        """Whether the data are images: one scale for all values, and changes too small to see.

        [C, H, W] is one. [H, W] may as well be a series of features [T, F]: it is one where both
        sides are at least 4 and the first 1,000 rows lie in [0, 1].
        """
        head = self.head(1000)
        shape = self.door.target(head.inputs(np.arange(1))).shape[1:]
        if len(shape) != 2 or min(shape) < 4:
            return len(shape) > 2
        low, high = torch.aminmax(head.targets)
        return float(low) >= 0 and float(high) <= 1

    @cached_property
    def partner(self) -> Tensor:
        """For each row the next in hash order with the same condition, -1 where there is none."""
        partner = np.full(self.size, -1)
        for members in self.classes:
            if len(members) > 1:
                partner[members] = np.roll(members, -1)
        return torch.from_numpy(partner)

    @cached_property
    def place(self) -> Array:
        """Where each row stands when partners are put side by side: int64 [k]."""
        place = np.empty(self.size, dtype=np.int64)
        place[np.concatenate(self.classes)] = np.arange(self.size)
        return place

    @property
    @product
    def classes(self) -> tuple[Array, ...]:
        """Rows under one condition each, in hash order; all rows in one where there is none."""
        group = self._conditions()
        order = np.argsort(group, kind="stable")
        return tuple(np.split(order, np.flatnonzero(np.diff(group[order])) + 1))

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

    @property
    @product
    def rate(self) -> tuple[float, float]:
        """Mean KL of a sample from its prior over all k rows, and its standard error, in nats."""
        total = merged([Moments.of(part.total) for part in self._divergences(0, 4096)])
        with rows_alike(self.size / self.effective):
            return float(total.mean[0]), float(np.nan_to_num(total.standard_error[0]))

    @property
    @product
    def mean_kl(self) -> Tensor | None:
        """Mean KL of each dimension over all k rows, nats [D]; None where the KL does not split."""
        total: Tensor | None = None
        for part in self._divergences(0, 1024):
            if part.each is None:
                return None
            total = part.each.sum(dim=0) if total is None else total + part.each.sum(dim=0)
        return None if total is None else total / self.size

    @product
    def directions(self, epsilon: float) -> Tensor:
        """Directions of a full-covariance code, as columns [D, D]: see `posteriors.directions`."""
        step = max(1, (1 << 22) // self.posterior.dims**2)  # 32 MB of matrices at once
        total = torch.zeros((), dtype=torch.float64, device=self.posterior.device)
        for start in range(0, self.size, step):
            rows = np.arange(start, min(start + step, self.size))
            q = self.posterior.take(slice(start, start + step))
            total = total + directions(kl_matrix(*whitened(q, self.priors(rows))), epsilon)
        found: Tensor = torch.linalg.eigh(total)[1]
        return found

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
        beyond 64 dimensions of a spatial latent, its channels."""
        shape = self.door.latent_shape
        if self.posterior.dims > 64 and len(shape) > 1 and shape[0] <= 64:
            every = np.arange(self.posterior.dims).reshape(shape[0], -1)
            return Parts("channel_", tuple(every))
        return Parts("", tuple(self.focus[:, None]))

    def measured(self, most: int) -> Array:
        """All dimensions where they are at most `most`, else those of `focus`."""
        return np.arange(self.posterior.dims) if self.posterior.dims <= most else self.focus

    @cached_property
    def focus(self) -> Array:
        """Dimensions that costly per-dimension probes measure: all up to 64, else the 32 of
        highest and the 32 of lowest mean KL; by the variance of the means where
        the KL does not split."""
        dims = self.posterior.dims
        if dims <= 64:
            return np.arange(dims)
        kl = self.mean_kl
        activity = self.posterior.mean.var(dim=0) if kl is None else kl
        order = to_numpy(activity.argsort(stable=True))
        return np.sort(np.concatenate([order[:32], order[-32:]]))
