"""Directional derivatives of a decoder: exact where torch can, else differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collapsekit.door import Door
from collapsekit.errors import InputError
from collapsekit.likelihoods import flat
from collapsekit.observation import Observation, population_rows
from collapsekit.population import Population
from collapsekit.posteriors import DiagonalGaussian
from collapsekit.readers import as_tensor

Derivative = Callable[[Tensor], Tensor]
STEP = 5e-3  # default of the probes' field of that name
RESOLVED = 0.01  # the same


@dataclass(frozen=True)
class Slopes:
    """Derivatives of the decoder at an observation's codes.

    Parameters
    ----------
    obs : Observation
        Its rows' codes, decoded under their conditions.
    width : Tensor, float64 [D]
        Standard deviation of each code dimension over the data: the unit of steps.
    step : float
        Of central differences, in widths. The cube root of single precision by default: a decoder
        that takes doubles may still compute in singles.
    trust : float
        How far exact derivatives may be from central differences before they are not believed.

    Notes
    -----
    Rows must be decoded independently of each other, as everywhere in an audit. Exact derivatives
    J v come from differentiating u -> J'u, which is linear, as `torch.autograd.functional.jvp` does
    (forward mode by two reverse passes); one graph serves all directions. Central differences with
    a step of h widths are off by h^2 / 6 |D'''| + eps |D| / h, in outputs a width, with eps the
    output's precision (single at best): about 1e-5 for a smooth decoder.
    """

    obs: Observation
    width: Tensor
    step: float = STEP
    trust: float = 0.1

    def output(self, z: Tensor) -> Tensor:
        """Outputs in data space, or probabilities of classes, flat [B, P], with derivatives."""
        door = self.obs.door
        answer = door.decode_attached(z, self.obs.context)
        door.passes[f"{self.obs.source}: decode"] += len(z)
        if not isinstance(answer, Tensor | torch.distributions.Distribution):
            answer = as_tensor(answer)  # decoded before, and found in order, for the reconstruction
        return flat(door.smooth(answer))

    @cached_property
    def exact(self) -> Derivative | None:
        """From directions, one a row [B, D], to exact derivatives [B, P]; None without them."""
        try:
            with torch.enable_grad():
                z = self.obs.z.detach().clone().requires_grad_()
                out = self.output(z)
                weight = torch.zeros_like(out, requires_grad=True)
                # Sums instead of grad_outputs: with these torch imports sympy, half a second.
                (pulled,) = torch.autograd.grad((out * weight).sum(), z, create_graph=True)

            def along(direction: Tensor) -> Tensor:
                with torch.enable_grad():
                    whole = (pulled * direction).sum()
                (pushed,) = torch.autograd.grad(whole, weight, retain_graph=True)
                return pushed.to(torch.float64)

            along(torch.zeros_like(z))
        except Exception:  # another framework, a decoder that detaches, no second derivative
            return None
        return along

    def central(self, direction: Tensor) -> Tensor:
        """Derivatives [B, P] along directions, one a row [B, D], by central differences."""
        h = self._step(direction)[:, None]
        # Copies: a model may answer in one buffer again and again.
        ahead, behind = (
            self.output(self.obs.z + sign * h * direction).to(torch.float64, copy=True)
            for sign in (1, -1)
        )
        slope: Tensor = (ahead - behind) / (2 * h).to(ahead.device)
        return slope

    def _step(self, direction: Tensor) -> Tensor:
        """The step [B] of each row: it follows the direction's own length in widths."""
        length = (direction / self.width).norm(dim=1)
        return self.step / torch.where(length > 0, length, 1.0)

    def rounding(self, direction: Tensor) -> Tensor:
        """How far the outputs' rounding can put `central` off, as a norm: [B]."""
        value = flat(self.obs.reconstruction)
        kind = value.dtype if value.dtype.is_floating_point else torch.float32
        eps = max(torch.finfo(kind).eps, torch.finfo(torch.float32).eps)
        error: Tensor = eps * value.to(torch.float64).norm(dim=1)
        return 4 * error / self._step(direction).to(error.device)

    @cached_property
    def believed(self) -> Tensor:
        """Rows whose exact derivative agrees with central differences: bool [B].

        Tried along one random direction a row: a decoder that detaches or rounds a part of its way
        hands back derivatives that are wrong, not missing.
        """
        z = self.obs.z
        if self.exact is None:
            return torch.zeros(len(z), dtype=torch.bool, device=z.device)
        direction = self.obs.noise("derivative").normal(z.shape[1]) * self.width
        slope = self.central(direction)
        off = (self.exact(direction).to(slope.device) - slope).norm(dim=1)
        agrees: Tensor = off <= self.trust * slope.norm(dim=1) + self.rounding(direction).to(
            off.device
        )
        return agrees.to(z.device)

    def along(self, directions: Tensor) -> Iterator[Tensor]:
        """Derivatives [B, P] along each of K directions [K, D], by the better way in each row."""
        some, every = bool(self.believed.any()), bool(self.believed.all())
        for direction in directions:
            rows = direction.expand_as(self.obs.z)
            found = self.exact(rows) if self.exact is not None and some else self.central(rows)
            if some and not every:
                believed = self.believed[:, None].to(found.device)
                found = torch.where(believed, found, self.central(rows).to(found.device))
            yield found


def code_width(obs: Observation, rows: int, resolved: float = RESOLVED) -> Tensor:
    """Standard deviation of the code over the first rows of the population: float64 [D].

    At least the share `resolved` of the code's distance from 0: single precision does not resolve
    smaller steps. At 1 %, a step is 400 roundings or more.
    """
    posterior = obs.population.head(rows).posterior
    variance = posterior.mean.var(dim=0, correction=0) + posterior.scale.square().mean(dim=0)
    size = posterior.mean.square().mean(dim=0) + variance
    if obs.source == "prior":
        size = torch.maximum(size, obs.prior.mean[0].square() + obs.prior.scale[0].square())
    return torch.maximum(variance, resolved**2 * size).sqrt()


@dataclass(frozen=True)
class _Functions:
    """A decoder, and an encoder where there is one, as an adapter."""

    decode: Callable[[Any], Any]
    means: Callable[[Any], Any] | None = None

    def encode(self, x: Any) -> Any:
        if self.means is None:
            raise NotImplementedError("a decoder alone does not encode")
        mean = torch.as_tensor(self.means(x))
        return mean, torch.ones_like(mean)


def at_codes(
    decode: Callable[[Any], Any], z: Any, means: Callable[[Any], Any] | None = None
) -> Observation:
    """The observation whose rows are given codes: the plain functions' way in.

    Raises
    ------
    InputError
        The codes are no rows.
    """
    points = torch.as_tensor(np.asarray(z, dtype=np.float64))
    if points.ndim != 2 or not len(points):
        raise InputError(
            "codes are rows",
            got=str(tuple(points.shape)),
            expected="(N, D), N > 0",
            remedy="pass codes with one row a sample, z[None] for a single one",
        )
    # Codes are given, not drawn: a width of nothing makes each draw its own mean.
    posterior = DiagonalGaussian(points, torch.zeros_like(points))
    door = Door(_Functions(decode, means))
    population = Population(door, np.arange(len(points)), posterior, None, len(points))
    return population_rows(population, 0, len(points), 0)
