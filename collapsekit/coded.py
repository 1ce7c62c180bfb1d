"""Rows of one stream and their codes: posteriors, priors, draws, and what codes tell of rows."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from collapsekit.door import Door
from collapsekit.errors import Unavailable
from collapsekit.noise import Noise
from collapsekit.population import Population
from collapsekit.posteriors import Divergence, Family, added, divergence
from collapsekit.samples import Inputs
from collapsekit.streaming import Array

Source = Literal["data", "prior", "population"]


class Coded:
    """Rows of one stream and their codes.

    Parameters
    ----------
    door : Door
    source : {"data", "prior", "population"}
    index : ndarray, int64 [B]
        Sample numbers, or draw numbers in the prior stream.
    posterior : Family or None
        B rows; None in the prior stream.
    seed : int
    x : Inputs or None
        The inputs, where they are already at hand.
    population : Population or None
        The columns beside the rows (streams "population" and "prior").
    rows : ndarray, int64 [B], or None
        Row positions in the population.
    """

    def __init__(
        self,
        door: Door,
        source: Source,
        index: Array,
        *,
        posterior: Family | None = None,
        seed: int = 0,
        x: Inputs | None = None,
        population: Population | None = None,
        rows: Array | None = None,
    ) -> None:
        self.door, self.source, self.seed = door, source, seed
        self.index = torch.as_tensor(index)
        self._posterior, self._x, self._population, self._rows = posterior, x, population, rows

    def __len__(self) -> int:
        return len(self.index)

    @property
    def posterior(self) -> Family:
        """The rows' posteriors.

        Raises
        ------
        Unavailable
            In the prior stream.
        """
        if self._posterior is None:
            raise Unavailable("draws from the prior have no posterior of their own")
        return self._posterior

    @property
    def population(self) -> Population:
        """The columns beside the rows.

        Raises
        ------
        Unavailable
            In the data stream, which has none yet.
        """
        if self._population is None:
            raise Unavailable("the data stream has no population beside it")
        return self._population

    @property
    def rows(self) -> Array:
        """Row positions in the population."""
        if self._rows is None:
            raise Unavailable("only population observations have row positions")
        return self._rows

    @cached_property
    def x(self) -> Inputs:
        """The inputs."""
        return self._x if self._x is not None else self.population.inputs(self.rows)

    @cached_property
    def context(self) -> Any:
        """The condition of each row, or None for a model without one."""
        if not self.door.conditional:
            return None
        if self.source != "prior":
            return self.door.context(self.x, self.index)
        # A draw from the prior borrows the condition of a sample, taken round the population.
        borrowed = self.index.numpy() % self.population.size
        index = self.population.index[borrowed]
        return self.door.context(self.population.inputs(borrowed), index)

    # -- codes -------------------------------------------------------------------------------

    @cached_property
    def prior(self) -> Family:
        """The prior as one row where all samples share it, else a row a sample."""
        of = self.population.posterior if self._posterior is None else self._posterior
        return (
            self.door.prior_for(of) if self.door.one_prior else self.door.priors(of, self.context)
        )

    @cached_property
    def divergence(self) -> Divergence:
        """KL(q_i || p) in nats: its total, its split and its Monte Carlo error where it has one."""
        return divergence(self.posterior, self.prior, self._noise("kl"))

    @property
    def kl(self) -> Tensor:
        """KL(q_i,j || p_j) in nats: float64 [B, D].

        Raises
        ------
        Unavailable
            The KL does not split over dimensions.
        """
        if self.divergence.each is None:
            raise Unavailable(
                "the KL does not split over dimensions",
                got=f"posterior: {self.posterior.describe()}; prior: {self.prior.describe()}",
                expected="both products over dimensions",
            )
        return self.divergence.each

    @property
    def kl_added(self) -> Tensor:
        """What each dimension adds to the KL of the others, nats: `kl` where it splits, [B, D].

        Raises
        ------
        Unavailable
            Neither the KL splits nor is the posterior Gaussian.
        """
        found = added(self.posterior, self.prior)
        return self.kl if found is None else found

    @property
    def kl_total(self) -> Tensor:
        """KL(q_i || p) in nats, summed over dimensions: float64 [B]."""
        return self.divergence.total

    @cached_property
    def standard_mean(self) -> Tensor:
        """E[z] in units of the row's prior: (mean - prior mean) / prior scale, float64 [B, D]."""
        return (self.posterior.mean - self.prior.mean) / self.prior.scale

    @cached_property
    def standard_width(self) -> Tensor:
        """The posterior's standard deviation in units of its prior's, float64 [B, D]."""
        return self.posterior.scale / self.prior.scale

    @cached_property
    def _drawn(self) -> tuple[Tensor, Tensor]:
        if self._posterior is None:
            return self.prior.draw(self._noise("prior"))
        return self._posterior.draw(self._noise("posterior"))

    @cached_property
    def redrawn(self) -> Tensor:
        """A second code a row from the prior, independent of the first: float64 [B, D]."""
        return self.prior.draw(self.noise("redraw"))[0]

    def _noise(self, stream: str) -> Noise:
        of = self.population.posterior if self._posterior is None else self._posterior
        return Noise(self.seed, stream, self.index.to(of.device))

    def noise(self, stream: str) -> Noise:
        """Noise of these rows in a stream named after the source and `stream`."""
        return self._noise(f"{self.source}/{stream}")

    @property
    def z(self) -> Tensor:
        """One code a row, from its posterior (or the prior): float64 [B, D]."""
        return self._drawn[0]

    @property
    def log_own(self) -> Tensor:
        """ln q_i(z_i) in nats, exact from the noise: float64 [B]."""
        return self._drawn[1]

    @cached_property
    def log_others(self) -> Tensor:
        """ln of the sum over all other columns j of q_j(z_i), nats: float64 [B]. The kernel."""
        start, stop = int(self.rows[0]), int(self.rows[-1]) + 1
        return self.population.log_others(start, stop, self.seed)

    @cached_property
    def information(self) -> tuple[Tensor, Tensor, Tensor]:
        """Per row: ln q_i - ln q^, the same without its own term, and its share: float64 [B] each.

        The second leaves out the row's copies as well, and counts every other input once.

        From one draw, of few samples the mean of several; for small discrete codes the exact
        expectation over all of them.
        """
        population = self.population
        exact = population.listed_information(self.rows)
        if exact is not None:
            return exact
        several = population.averaged_information(self.seed)
        if several is not None:
            lower, upper, share = (part[torch.as_tensor(self.rows)] for part in several)
            return lower, upper, share
        apart = self.log_others
        if population.originals is not None:  # a copy of the row is the row itself, no other
            start, stop = int(self.rows[0]), int(self.rows[-1]) + 1
            apart = population.log_others(start, stop, self.seed, True)
        return population.told(self.log_own, self.log_others, apart)

    def many_codes(self, count: int, stream: str) -> tuple[Tensor, Tensor]:
        """`count` codes a row from its posterior, [B, K, D], and their log-densities, [B, K]."""
        return self._many(self.posterior, count, stream)

    def many_prior_codes(self, count: int, stream: str) -> tuple[Tensor, Tensor]:
        """`count` codes a row from its prior, [B, K, D], and their log-densities, [B, K]."""
        return self._many(self.prior, count, stream)

    def log_prior(self, z: Tensor) -> Tensor:
        """Log-density of K codes a row [B, K, D] under the row's prior: nats [B, K]."""
        law = self.prior
        if law.rows > 1:
            rows = torch.arange(len(z), device=z.device)
            law = law.take(rows.repeat_interleave(z.shape[1]))
        return law.log_prob(z.flatten(0, 1)).reshape(z.shape[:2])

    def _many(self, law: Family, count: int, stream: str) -> tuple[Tensor, Tensor]:
        # Every code has a noise number of its own: one call draws them all.
        index = self.index.to(law.device)[:, None] * count + torch.arange(count).to(law.device)
        noise = Noise(self.seed, f"{self.source}/{stream}", index.flatten())
        if law.rows > 1:
            rows = torch.arange(len(self), device=law.device)
            law = law.take(rows.repeat_interleave(count))
        z, log_density = law.draw(noise)
        shape = len(self), count
        return z.reshape(*shape, law.dims), log_density.reshape(shape)
