"""The members of a population: which samples they are, and what is known of them as data.

Copies of one input, neighbours, the data's range, who may swap codes with whom.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from collapsekit.adapter import offers
from collapsekit.copies import different, of_the_law, originals
from collapsekit.door import Door
from collapsekit.errors import ModelError, Unavailable, brief
from collapsekit.likelihoods import flat
from collapsekit.posteriors import Family
from collapsekit.products import Key, product
from collapsekit.readers import as_tensor
from collapsekit.samples import Inputs, rows_of
from collapsekit.streaming import Array, to_numpy

_SQUARED = 1e100  # beyond, a sum of squares may be no number


class Members:
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
        self._heads: dict[int, Self] = {}

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

    def head(self, limit: int | None) -> Self:
        """The first `limit` rows as a population of their own; cached, so its products are too."""
        if limit is None or (limit >= self.size and not self._apart):
            return self
        if limit not in self._heads:
            self._heads[limit] = type(self)(
                self.door,
                self.index[:limit],
                self.posterior.take(slice(limit)),
                self._read,
                self.total,
                self._apart,
            )
        return self._heads[limit]

    # -- copies ------------------------------------------------------------------------------------

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
    def distinct(self) -> Self:
        """The rows without their copies; this population where there are none."""
        if self.originals is None:
            return self
        rows = np.unique(self.originals)
        posterior = self.posterior.take(torch.as_tensor(rows, device=self.posterior.device))
        return type(self)(self.door, self.index[rows], posterior, None, self.total)

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

    # -- the data ----------------------------------------------------------------------------------

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

    # -- conditions --------------------------------------------------------------------------------

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
