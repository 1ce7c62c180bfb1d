"""Decoder usage: the share of the output's variance that goes through each latent dimension."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from collapsekit.claims import above, above_share, count_number
from collapsekit.findings import Code, Evidence, Severity
from collapsekit.intervals import ratio_error
from collapsekit.number import Headline, Number
from collapsekit.observation import Observation, Source
from collapsekit.population import by_dimension
from collapsekit.probe import States
from collapsekit.results import Result
from collapsekit.streaming import Array, Comoments, Constant, Moments

USAGE = Code(
    id="CK505",
    title="Dimensions the decoder reads",
    meaning="Redraw one latent dimension from the prior and see how far the output moves, "
    "against how far it moves when the whole code is redrawn. Zero means that the decoder does "
    "not read that dimension, whatever the encoder writes there.",
    formula="decoder_usage[j] = E|D(z) - D(z with z_j redrawn)|^2 / E|D(z) - D(z')|^2: the "
    "total-effect Sobol index; 0 for every j where the output does not move at all. Read: at "
    "least 1 % of the largest; where no mean moves (its variance may, or class probabilities) "
    "decoder_nats at least 0.02. A share of the largest alone: the writes and reads table (CK601) "
    "also counts what is written and told apart by 0.02 nats between outputs.",
    remedy="Dimensions that are written and not read waste rate; see the writes and reads table.",
    source="Jansen 1999; Saltelli et al. 2010 (total effect)",
)


@dataclass(frozen=True)
class DecoderUsage:
    """`decoder_usage` per dimension, and `decoder_nats` with a likelihood; `used_dimensions`.

    `decoder_nats` is the mean KL(p(x | z) || p(x | z with z_j redrawn)) of the same draws: what the
    output distribution says of the dimension, in absolute terms. Beyond 64 dimensions of a spatial
    latent the same by channel, all positions at once: `channel_decoder_usage`.
    """

    limit: int | None = 512  # draws; each costs two decodes and one a dimension
    share: float = 0.01  # of the largest usage, from which a dimension counts as read
    told: float = 0.02  # decoder_nats from which one does where no output's mean moves

    name: ClassVar[str] = "decoder_usage"
    source: ClassVar[Source] = "prior"
    codes: ClassVar[tuple[Code, ...]] = (USAGE,)
    headlines: ClassVar[tuple[Headline, ...]] = (
        Headline("used_dimensions", "Dimensions that move the output, by their share", "up"),
    )

    def observe(self, obs: Observation) -> States:
        """How far each redraw moves the output."""
        obs.need_steady()
        z, parts = obs.z, obs.population.parts
        obs.prior.need_coordinates()
        other = obs.redrawn
        moved, nats = [], []
        for dims in parts.dims:
            output = obs.decode(_replaced(z, other, dims))
            moved.append(move(obs.reconstruction, obs.door.mean(output)))
            nats.append(obs.door.divergence(obs.output, output))
        moved.append(move(obs.reconstruction, obs.door.mean(obs.decode(other))))
        states: States = {
            "moved": Comoments.of(torch.stack(moved, dim=1)),
            "focus": Constant((*parts.facts, z.shape[1])),
        }
        told = [value for value in nats if value is not None]
        if len(told) == len(nats):
            states["nats"] = Moments.of(torch.stack(told, dim=1))
        return states

    def conclude(self, state: States) -> Result:
        """Shares of the output's variance."""
        moved: Comoments = state["moved"]
        prefix, focus, dims = state["focus"].value
        whole = float(moved.mean[-1])
        if whole > 0:
            usage, error = ratio_error(moved.mean[:-1], whole, moved.covariance, moved.n)
        else:  # an output that never moves uses nothing: 0, not 0 / 0
            usage, error = np.zeros(len(focus)), np.zeros(len(focus))
        columns = {"decoder_usage": usage, "decoder_usage_se": error}
        if "nats" in state:
            columns["decoder_nats"] = state["nats"].mean
            columns["decoder_nats_se"] = state["nats"].standard_error
        dimensions = by_dimension(prefix, focus, **columns)
        if prefix:  # channels are counted, and judged, by their own reading
            return Result(dimensions=dimensions)
        number = self._count(usage, error, moved.n, len(focus), dims)
        still = "the decoder's output does not move with the code at all."
        if whole == 0 and "nats" in state:
            number, told = self._told(number, state["nats"]), state["nats"].mean >= self.told
            if told.any():
                usage = told.astype(np.float64)
                still = (
                    f"the mean (or the likeliest class) of the decoder's output does not move; its "
                    f"distribution tells {int(told.sum())} of {len(told)} dimensions apart."
                )
        of = f"{len(focus)}" if len(focus) == dims else f"{len(focus)} measured (of {dims})"
        move = "moves" if number.value == 1 else "move"
        finding = USAGE.finding(
            Severity.OK if number.value >= 1 else Severity.WARN,
            f"{int(number.value)} of {of} dimensions {move} the output by at least "
            f"{self.share:.0%} of what the loudest does."
            if whole > 0
            else still,
            evidence=[Evidence(number, 1, ">=")],
            dimensions=np.ravel(focus)[usage < self.share * usage.max(initial=0)],
        )
        return Result(numbers=(number,), dimensions=dimensions, findings=(finding,))

    def _count(self, usage: Array, error: Array, n: int, focus: int, dims: int) -> Number:
        read = above_share(usage, error, self.share)
        note = f"on {focus} of {dims} dimensions; usage at least {self.share:.0%} of the largest"
        return count_number("used_dimensions", read, "dimensions", n, note)

    def _told(self, number: Number, nats: Moments) -> Number:
        read = above(nats.mean, nats.standard_error, self.told)
        note = f"by the output's distribution: decoder_nats at least {self.told:g}"
        return count_number(number.name, read, number.unit, number.n, note)


def _replaced(z: Tensor, other: Tensor, dims: Array) -> Tensor:
    mixed = z.clone()
    mixed[:, dims] = other[:, dims]
    return mixed


def move(a: Tensor, b: Tensor) -> Tensor:
    """Squared distance of outputs, row by row: float64 [B]."""
    difference = a.to(torch.float64) - b.to(torch.float64)  # bytes would wrap
    return difference.square().reshape(len(a), -1).sum(dim=1)


def decoder_usage(
    decode: Callable[[Any], Any], dims: int, *, draws: int = 512, seed: int = 0
) -> Array:
    """Total-effect Sobol index of each latent dimension of a decoder under N(0, I).

    Parameters
    ----------
    decode : callable
        From codes [B, D] (float64 tensor) to outputs [B, ...].
    dims : int
        D.
    draws, seed : int

    Returns
    -------
    ndarray, float64 [D]
        Shares of the output's variance; they add up to 1 or more.
    """
    from collapsekit.door import Door
    from collapsekit.observation import prior_draws
    from collapsekit.population import Population
    from collapsekit.posteriors import standard_normal

    door = Door(_Decoder(decode))
    population = Population(door, np.zeros(1, dtype=np.int64), standard_normal(dims), None, 1)
    probe = DecoderUsage(limit=draws)
    table = probe.conclude(probe.observe(prior_draws(population, 0, draws, seed))).dimensions
    assert table is not None
    return table["decoder_usage"].to_numpy()


@dataclass(frozen=True)
class _Decoder:
    decode: Callable[[Any], Any]

    def encode(self, x: Any) -> Any:
        raise NotImplementedError("a decoder alone does not encode")
