"""The population: the k samples of smallest hash, in hash order, with all their columns at hand.

A uniform subset of the data that any cut gives identically; its first m rows are themselves a
uniform sample. Pairwise measures (information, swaps, collisions) read it. What its samples are
stands in `members`; what their posteriors are together, here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from collapsekit.errors import Unavailable
from collapsekit.independent import rows_alike
from collapsekit.intervals import mean_limit
from collapsekit.kernels.marginals import log_marginals
from collapsekit.kernels.mixture import MixtureColumns, log_mixture_others, prepare
from collapsekit.members import Members
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
from collapsekit.products import Place, on_device, product
from collapsekit.streaming import Array, Skewed, merged, to_numpy

TILE = 512
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


class Population(Members):
    """k samples whose posteriors are the columns that others are held against."""

    @cached_property
    def _others(self) -> dict[tuple[int, int, bool], Tensor]:
        return {}

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
                rows = np.arange(begin, min(begin + TILE, self.size))
                z, _ = self.draw(slice(begin, begin + TILE), seed)
                self._others[begin, seed, distinct] = self._at_codes(z, rows, distinct)
        tiles = [self._others[begin, seed, distinct] for begin in range(first, last, TILE)]
        return torch.cat(tiles)[start - first : stop - first]

    def _at_codes(self, z: Tensor, rows: Array, distinct: bool) -> Tensor:
        among, place = self, rows
        if distinct and self.originals is not None:
            among = self.distinct
            place = np.searchsorted(np.unique(self.originals), self.originals[rows])
        own = torch.as_tensor(place, device=z.device)
        if among.columns is None:
            return among.posterior.log_others(z, own)
        return log_mixture_others(among.columns, z, own)

    def told(self, own: Tensor, others: Tensor, apart: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What codes tell of their rows: ln q_i - ln q^, the same without its own, its share.

        Parameters
        ----------
        own : Tensor, float64 [B]
            ln q_i at the codes.
        others, apart : Tensor, float64 [B]
            ln of the sum over all other columns, and over one of each input but the row's own.
        """
        everyone = torch.logaddexp(own, others)
        # Left-out densities may underflow to nothing: then the second is no bound, and says inf.
        return (
            own - everyone + math.log(self.size),
            own - apart + math.log(max(self.distinct.size - 1, 1)),
            torch.exp(own - everyone),
        )

    @product
    def averaged_information(self, seed: int) -> tuple[Tensor, Tensor, Tensor] | None:
        """As `told` of all rows, over as many codes each as a tile holds; None where it is one.

        They are expectations over codes. Of few samples one draw each would be most of the error
        of their mean, and skew it: what a wide code says is rare and large.
        """
        draws = TILE // max(self.size, 1)
        if draws < 2:
            return None
        rows = np.repeat(np.arange(self.size), draws)
        device = self.posterior.device
        index = torch.as_tensor(self.index[rows] * draws + np.arange(len(rows)) % draws)
        at = torch.as_tensor(rows, device=device)
        z, own = self.posterior.take(at).draw(Noise(seed, "information", index.to(device)))
        others = self._at_codes(z, rows, False)
        apart = others if self.originals is None else self._at_codes(z, rows, True)
        lower, upper, share = (
            part.reshape(self.size, draws).mean(dim=1) for part in self.told(own, others, apart)
        )
        return lower, upper, share

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
        with rows_alike(self.size / self.effective):
            total = self._kl
            return float(total.mean[0]), float(np.nan_to_num(total.standard_error[0]))

    @property
    @product
    def _kl(self) -> Skewed:
        return merged([Skewed.of(part.total) for part in self._divergences(0, 4096)])

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
    @product
    def most_information(self) -> tuple[float, float]:
        """The rate as an upper bound of information, and its own limit: of two bounds, of which
        the lower is taken, each has half of the 2.5 %. None where each sample has its own prior."""
        if not self.door.one_prior:
            return math.inf, math.inf
        with rows_alike(self.size / self.effective):
            return self.rate[0], mean_limit(self._kl, 1 - 0.0125)

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
