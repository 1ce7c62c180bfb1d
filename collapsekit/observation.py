"""An observation: one batch of one stream, with products computed on first use and shared.

Probes read products; none declares what it needs. A product that the model cannot offer raises
`Unavailable`, which skips the probes that asked for it and no other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from collapsekit.door import Door
from collapsekit.errors import Unavailable
from collapsekit.noise import Noise
from collapsekit.population import TILE, Population
from collapsekit.posteriors import DiagonalGaussian, Divergence, Family, added, divergence
from collapsekit.samples import Inputs, map_tensors, take_rows
from collapsekit.sources.trees import leaves
from collapsekit.streaming import Array, to_numpy
from collapsekit.subset import KeyedSubset

Source = Literal["data", "prior", "population"]
_CALL_VALUES = 1 << 21  # input values repeated for one call with many codes


class Observation:
    """Rows of one stream and what can be computed from them.

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

    @classmethod
    def of_arrays(
        cls,
        mean: Any,
        scale: Any,
        *,
        x: Any = None,
        prior: Any = None,
        seed: int = 0,
        family: Callable[[Any], Any] = lambda given: given,
    ) -> Observation:
        """All rows of given posteriors as one population observation: the plain functions' way in.

        Parameters
        ----------
        mean, scale : array [N, D]
        x : array [N, ...], optional
        prior : as `audit`'s
        seed : int
        family : callable
            From (mean, scale) to anything that an encoder may return.
        """
        door = Door(_Given(family), prior=prior)
        encoded = door.encode((mean, scale), "given")
        index = np.arange(encoded.posterior.rows)
        subset = KeyedSubset(seed, max(len(index), 1), index, encoded.posterior)
        inputs = None if x is None else torch.as_tensor(np.asarray(x))
        take = None if inputs is None else lambda rows: inputs[torch.as_tensor(rows)]
        population = subset.build(door, len(index), take, encoded.posterior.device)
        return population_rows(population, 0, population.size, seed)

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

    def first(self, count: int) -> Observation:
        """Of these population rows those among the first `count` of the population; maybe none."""
        start = int(self.rows[0])
        stop = max(start, min(count, int(self.rows[-1]) + 1))
        if stop - start == len(self):
            return self
        return population_rows(self.population, start, stop, self.seed)

    # -- outputs -----------------------------------------------------------------------------

    def decode(self, z: Tensor) -> Any:
        """Decode codes [B, D] under the rows' own conditions."""
        return self.door.decode(z, self.context, self.source)

    @cached_property
    def output(self) -> Any:
        """D(z): the decoder's raw output for the drawn codes."""
        return self.decode(self.z)

    @cached_property
    def reconstruction(self) -> Tensor:
        """D(z) in data space."""
        return self.door.mean(self.output)

    @cached_property
    def error(self) -> Tensor:
        """Reconstruction error from the row's own code, in `door.error_unit`: float64 [B]."""
        return self.door.error(self.x, self.z, self.context, lambda: self.output, self.source)

    def need_steady(self) -> None:
        """Raise where two outputs differ by the decoder's own noise.

        Raises
        ------
        Unavailable
        """
        if self.door.noisy:
            raise Unavailable(
                "the decoder is random: outputs differ where the code makes no difference",
                got="two calls of the decoder on the same codes that differ (CK017)",
                expected="one output for one code",
                remedy="put the model in evaluation mode, and let decode return the mean of "
                "p(x | z)",
            )

    def error_of(self, z: Tensor) -> Tensor:
        """Reconstruction error of the rows' inputs from other codes [B, D]: float64 [B].

        Raises
        ------
        Unavailable
            Groups below depend on the codes.
        """
        self._alone()
        return self.door.error(self.x, z, self.context, lambda: self.decode(z), self.source)

    def _alone(self) -> None:
        # ln p(x | z) then is an integral over the groups below. They were drawn for the row's own
        # code: the error of another code with them would be no measure of what it costs.
        if not self.door.deepest:
            raise Unavailable(
                "what another code of this group would cost depends on the groups below",
                got="codes of the groups below, drawn for the sample's own code",
                expected="the lowest group, or a model of one group",
                remedy="read this group's KL, information, usage and round trip",
            )

    def log_likelihoods(self, z: Tensor) -> Tensor:
        """ln p(x_i | z_ik) of the rows' inputs from many codes [B, K, D] each, nats: [B, K].

        Raises
        ------
        Unavailable
            No likelihood was declared, so that errors are squared errors; groups below depend on
            the codes.
        """
        self._alone()
        rows, count, dims = z.shape
        tensors = [leaf for _, leaf in leaves(self.x) if isinstance(leaf, Tensor)] if rows else []
        width = sum(leaf[0].numel() for leaf in tensors)
        step = max(1, min(TILE, _CALL_VALUES // max(width, 1)) // max(rows, 1))
        parts = []
        for part in z.split(step, dim=1) if rows else ():
            again = np.repeat(np.arange(rows), part.shape[1])
            codes = part.reshape(-1, dims)
            context = None if self.context is None else self.context[again]
            decode = partial(self.door.decode, codes, context, self.source)
            x = take_rows(self.x, again)
            error = self.door.error(x, codes, context, decode, self.source)
            parts.append(-error.reshape(rows, part.shape[1]))
        if parts and not self.door.scores:
            raise Unavailable(
                "no likelihood scores an input under a code",
                got="squared errors",
                expected="log-likelihoods in nats",
                remedy="declare likelihood=...",
            )
        return torch.cat(parts, dim=1) if parts else z.new_zeros(rows, count)

    @property
    def pairs_up(self) -> bool:
        """Whether one set of outputs serves all samples: nothing but the code tells them apart."""
        return self.door.pairs_up and isinstance(self.output, Tensor)

    @cached_property
    def z_partner(self) -> Tensor:
        """The partner's code, drawn with the row's own noise: float64 [B, D].

        NaN for a row without a partner. Where each row has a Gaussian prior of its own, the code is
        carried from the partner's prior to the row's.

        Raises
        ------
        Unavailable
            No row has one.
        """
        return self._of_partner(lambda posterior: posterior.draw(self._noise("posterior"))[0])

    @cached_property
    def mean_partner(self) -> Tensor:
        """The partner's posterior mean, as `z_partner`: float64 [B, D]."""
        return self._of_partner(lambda posterior: posterior.mean)

    def _of_partner(self, code: Callable[[Family], Tensor]) -> Tensor:
        if not bool((self.population.partner >= 0).any()):
            raise Unavailable(
                "no sample has a partner to swap codes with",
                got=f"{self.population.size} samples",
                expected="two samples under one condition",
            )
        partner = self.population.partner[self.rows].to(self.z.device)
        paired = partner >= 0
        partner = partner.clamp(min=0)
        z = code(self.population.posterior.take(partner))
        if not self.door.one_prior and isinstance(self.prior, DiagonalGaussian):
            # Each code is read against its own prior: what is swapped is how far it lies from it.
            theirs = self.population.priors(to_numpy(partner))
            z = self.prior.mean + self.prior.scale * (z - theirs.mean) / theirs.scale
        return torch.where(paired[:, None], z, torch.nan)

    @cached_property
    def swapped_error(self) -> Tensor:
        """Reconstruction error from the partner's code: float64 [B]; NaN without a partner."""
        alone = self.z_partner.isnan().any(dim=1)
        # A stand-in keeps NaN out of the model, which might not bear it.
        error = self.error_of(torch.where(alone[:, None], self.z, self.z_partner))
        return torch.where(alone.to(error.device), torch.nan, error)

    @cached_property
    def z_recoded(self) -> Tensor:
        """z^ = E(D(z)), the posterior mean of the decoded code: float64 [B, D].

        Rows whose means are not finite come back as NaN.
        """
        return self._encode_mean(self.reconstruction)

    @cached_property
    def z_recoded_rounded(self) -> Tensor:
        """E(D(z) rounded to 256 levels of the data's range): float64 [B, D].

        Classes have no levels between them, and no noise: theirs is `z_recoded`.
        """
        if self.door.classes:
            return self.z_recoded
        image = _wide(self.reconstruction)
        low, width = self._range_as(image)
        step = torch.where(width > 0, width / 255, 1.0)
        return self._encode_disturbed(low + torch.round((image - low) / step) * step)

    def z_recoded_noisy(self, share: float) -> Tensor:
        """E(D(z) + noise) with sd `share` of the data's range: float64 [B, D]; see above."""
        if self.door.classes:
            return self.z_recoded
        image = _wide(self.reconstruction)
        normal = self.noise("perturbation").normal(image[0].numel()).reshape(image.shape)
        _, width = self._range_as(image)
        return self._encode_disturbed(image + (normal * (share * width)).to(image.dtype))

    def _range_as(self, image: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.population.value_range
        shape = image.shape[1:] if low.ndim else ()
        return low.reshape(shape).to(image), (high - low).reshape(shape).to(image)

    def _encode_disturbed(self, image: Tensor) -> Tensor:
        dtype = self.reconstruction.dtype
        if not dtype.is_floating_point and dtype != torch.bool:
            low, width = self._range_as(image)  # beyond it, there may be no such class
            image = torch.minimum(torch.maximum(image.round(), low), low + width)
        return self._encode_mean(image.to(dtype))

    def _encode_mean(self, image: Tensor) -> Tensor:
        x = self.door.as_input(image, self.context)
        encoded = self.door.encode(x, self.source, self.index)
        return torch.where(encoded.good[:, None], encoded.posterior.mean, torch.nan)


def _wide(image: Tensor) -> Tensor:
    """Bytes as numbers that noise does not wrap round."""
    return image if image.is_floating_point() else image.to(torch.float64)


@dataclass(frozen=True)
class _Given:
    """The adapter of posteriors that are already there: encoding is reading them."""

    family: Callable[[Any], Any]

    def encode(self, x: Any) -> Any:
        return self.family(x)


def population_rows(population: Population, start: int, stop: int, seed: int) -> Observation:
    """The observation of population rows start..stop."""
    rows = np.arange(start, min(stop, population.size))
    return Observation(
        population.door,
        "population",
        population.index[rows],
        posterior=population.posterior.take(slice(start, stop)),
        seed=seed,
        population=population,
        rows=rows,
    )


def prior_draws(population: Population, start: int, stop: int, seed: int) -> Observation:
    """The observation of draws start..stop from the prior."""
    return Observation(
        population.door, "prior", np.arange(start, stop), seed=seed, population=population
    )


def first_rows(x: Inputs, count: int) -> Inputs:
    """The first rows of a batch's inputs."""
    return map_tensors(lambda tensor: tensor[:count], x)
