"""What a monitor measures at one check: the audit's definitions, on as few rows as will do."""

from __future__ import annotations

import math

import numpy as np
import torch

from collapsekit.door import Door
from collapsekit.errors import ModelError, Unavailable
from collapsekit.kernels.marginals import log_marginals
from collapsekit.observation import Observation, population_rows
from collapsekit.population import Population
from collapsekit.posteriors import DiagonalGaussian
from collapsekit.readers import Encoded
from collapsekit.samples import Inputs, take_rows
from collapsekit.streaming import Array, Moments, merged, to_numpy
from collapsekit.subset import KeyedSubset

# Rows on which the costlier measures rest; benchmarks/monitor.py says what a check costs.
SWAPPED = 256  # decoded twice
SHUFFLED = 64  # decoded once for each dimension that carries information
MARGINAL = 256  # at which the marginal densities are read
ACTIVE = {"": 0.01, "_0.1": 0.1}  # prior variances
LEAST = 0.1  # nats: informative, as the audit counts it


class Round:
    """One check in progress: moments of every row, and a uniform subset of rows.

    Parameters
    ----------
    door : Door
    limit : int
        Rows of the subset.
    seed : int
    """

    def __init__(self, door: Door, limit: int, seed: int) -> None:
        self.door, self.limit, self.seed = door, limit, seed
        self.count = 0
        self._mean: list[Moments] = []
        self._kl: list[Moments] = []
        self._subset: KeyedSubset | None = None

    def take(self, encoded: Encoded, index: Array, x: Inputs | None) -> None:
        """Add a batch; rows that are not finite are left out."""
        self.count += len(index)
        posterior = encoded.posterior
        if not bool(encoded.good.all()):
            rows = np.flatnonzero(to_numpy(encoded.good))
            posterior, index = posterior.take(torch.as_tensor(rows)), index[rows]
            x = None if x is None else take_rows(x, rows)
        prior = self.door.prior_for(posterior)
        if not isinstance(posterior, DiagonalGaussian) or not isinstance(prior, DiagonalGaussian):
            raise Unavailable(
                "the monitor watches diagonal Gaussians",
                got=f"posterior: {posterior.describe()}; prior: {prior.describe()}",
                expected="a diagonal Gaussian posterior and prior",
                remedy="audit checkpoints with collapsekit.audit instead",
            )
        self._mean.append(Moments.of((posterior.mean - prior.mean) / prior.scale))
        self._kl.append(Moments.of(posterior.kl(prior)))
        part = KeyedSubset(self.seed, self.limit, index, posterior, x)
        self._subset = part if self._subset is None else self._subset + part

    def values(self) -> dict[str, float]:
        """Everything that `CollapseMonitor.compute` tells, but the onset.

        Raises
        ------
        ModelError
            Of the rows seen none is finite.
        """
        if not self._subset:
            raise ModelError(
                "the encoder gave no finite posterior",
                got=f"{self.count} rows, none finite with a positive scale",
                expected="finite means and positive scales",
                remedy="if the loss is NaN the training has diverged: lower the learning rate",
            )
        population = self._subset.build(self.door, self.count)
        variance, kl = merged(self._mean).variance, merged(self._kl).mean
        values = {"rate": float(kl.sum())}
        for name, threshold in ACTIVE.items():
            active = variance > threshold
            values[f"active_units{name}"] = float(active.sum())
            values[f"active_fraction{name}"] = float(active.mean())
        values["mutual_information"] = self._information(population)
        values["swap_gap"] = self._swap_gap(population)
        return values | self._units(population, variance, kl)

    def _information(self, population: Population) -> float:
        told, _, _ = self._first(population, population.size).information
        return max(float(told.mean()), 0.0)

    def _swap_gap(self, population: Population) -> float:
        rows = self._first(population, SWAPPED)
        try:
            return float((rows.swapped_error - rows.error).nanmean())
        except Unavailable:
            return math.nan

    def _units(self, population: Population, variance: Array, kl: Array) -> dict[str, float]:
        """Informative and fake units, of all dimensions up to 64, else of 64 of them."""
        focus = population.focus
        informative = kl[focus] > LEAST  # an upper bound of the information, and already there
        informative[informative] = self._information_of(population, focus[informative]) > LEAST
        settled = False
        if self.door.scores:  # the bar is in nats
            try:
                cost = self._shuffle_cost(population, focus[informative])
                informative[informative] = cost > LEAST
                settled = True
            except Unavailable:
                pass
        fake = (variance[focus] > ACTIVE[""]) & ~informative
        return {
            "informative_fraction": float(informative.mean()) if settled else math.nan,
            "fake_fraction": float(fake.mean()),
            "fake_units": float(fake.sum()),
        }

    def _information_of(self, population: Population, dimensions: Array) -> Array:
        """I(x; z_j) = mean KL_j - KL(aggregate_j || prior_j), nats [F]."""
        if not len(dimensions):
            return np.zeros(0)
        rows = self._first(population, MARGINAL)
        columns = torch.as_tensor(dimensions)
        prior = DiagonalGaussian(rows.prior.mean[:, columns], rows.prior.scale[:, columns])
        z = rows.z[:, columns]
        every = population.posterior
        aggregate = log_marginals(
            every.mean[:, columns].contiguous(), every.scale[:, columns].contiguous(), z
        )
        standard = (z - prior.mean) / prior.scale
        density = -0.5 * standard**2 - prior.scale.log() - 0.5 * math.log(2 * math.pi)
        return to_numpy((rows.kl[:, columns] - (aggregate - density)).mean(dim=0))

    def _shuffle_cost(self, population: Population, dimensions: Array) -> Array:
        """What reconstruction loses when one dimension is the partner's, nats [F]."""
        rows = self._first(population, SHUFFLED)
        own, other = rows.error, rows.z_partner
        alone = other.isnan().any(dim=1)
        cost = np.zeros(len(dimensions))
        for place, j in enumerate(dimensions):
            mixed = rows.z.clone()
            mixed[:, j] = torch.where(alone, mixed[:, j], other[:, j])
            change = (rows.error_of(mixed) - own)[~alone.to(own.device)]
            cost[place] = float(change.mean())
        return cost

    def _first(self, population: Population, limit: int) -> Observation:
        head = population.head(limit)
        return population_rows(head, 0, head.size, self.seed)
