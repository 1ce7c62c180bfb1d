"""An observation: one batch of one stream, with products computed on first use and shared.

Probes read products; none declares what it needs. A product that the model cannot offer raises
`Unavailable`, which skips the probes that asked for it and no other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collapsekit.coded import Coded
from collapsekit.coded import Source as Source  # beside Observation, where probes look for it
from collapsekit.door import Door
from collapsekit.errors import Unavailable
from collapsekit.population import TILE, Population
from collapsekit.posteriors import DiagonalGaussian, Family
from collapsekit.samples import Inputs, map_tensors, take_rows
from collapsekit.sources.trees import leaves
from collapsekit.streaming import to_numpy
from collapsekit.subset import KeyedSubset

_CALL_VALUES = 1 << 21  # input values repeated for one call with many codes


class Observation(Coded):
    """Rows of one stream and what can be computed from them: codes (see `Coded`) and outputs."""

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

    def first(self, count: int) -> Observation:
        """Of these population rows those among the first `count` of the population; maybe none."""
        start = int(self.rows[0])
        stop = max(start, min(count, int(self.rows[-1]) + 1))
        if stop - start == len(self):
            return self
        return population_rows(self.population, start, stop, self.seed)

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
        encoded = self.door.encode_again(x, self.context, self.source, self.index)
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
