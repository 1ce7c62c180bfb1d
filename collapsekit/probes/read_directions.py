"""Which directions of a code without axes of its own the decoder reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from collapsekit.claims import above, above_share, any_of, count_number
from collapsekit.findings import Code, Evidence, Finding, Severity
from collapsekit.intervals import Z95, ratio_error
from collapsekit.number import Headline, Number
from collapsekit.observation import Observation, Source, population_rows
from collapsekit.posteriors import turns
from collapsekit.posteriors.divergence import root
from collapsekit.probe import States
from collapsekit.probes._derivatives import Slopes, code_width
from collapsekit.probes.decoder_usage import move
from collapsekit.results import Result
from collapsekit.streaming import Comoments, Constant, Moments

UNREAD = Code(
    id="CK623",
    title="Directions the decoder reads",
    meaning="A decoder of a code that has no axes of its own (full-covariance posteriors under a "
    "Gaussian prior) may ignore a direction and still read every axis. So its usage is measured "
    "along its own directions, which turn with the code: those of the mean squared slope of its "
    "output.",
    formula="in units in which the prior is N(0, I): eigenvectors of the mean of J'J over codes of "
    "the data, J the decoder's Jacobian; usage[j] = E|D(z) - D(z with its part along j redrawn)|^2 "
    "/ E|D(z) - D(z')|^2, and nats[j] = mean KL(p(x | z) || p(x | redrawn)) with a likelihood. "
    "Unread: usage below 1 % of the largest and nats below 0.02. Partial where one is with both "
    "at the upper ends of their intervals, inconclusive where at the lower.",
    remedy="What is written along a direction that nobody reads wastes rate: prune it, or add the "
    "latent reconstruction loss.",
    source="collapsekit; Jansen 1999 (total effect); Constantine, Dow, Wang 2014 (directions)",
)


@dataclass(frozen=True)
class ReadDirections:
    """`unread_directions`, and the table `read_directions`: for full-covariance codes.

    Silent for any other code. Beyond 64 dimensions the 32 directions of the steepest slopes and the
    32 of the flattest.
    """

    limit: int | None = 512  # draws; each costs two decodes and one a direction
    slopes: int = 64  # codes at which the decoder is differentiated
    most: int = 64  # directions
    share: float = 0.01  # of the largest usage, from which a direction counts as read
    told: float = 0.02  # nats, from which it does too

    name: ClassVar[str] = "read_directions"
    source: ClassVar[Source] = "prior"
    codes: ClassVar[tuple[Code, ...]] = (UNREAD,)
    headlines: ClassVar[tuple[Headline, ...]] = (
        Headline("unread_directions", "Directions the decoder does not read", "down"),
    )

    def observe(self, obs: Observation) -> States:
        """How far each redraw moves the output."""
        if not turns(obs.population.posterior, obs.prior):
            return {"turns": Constant(False)}
        obs.need_steady()
        z, other, factor = obs.z, obs.redrawn, root(obs.prior)  # type: ignore[arg-type]
        step = torch.linalg.solve_triangular(factor, (other - z)[:, :, None], upper=False)
        moved, nats = [], []
        for u in self._basis(obs).T:
            output = obs.decode(z + (factor @ u) * (step[:, :, 0] @ u)[:, None])
            moved.append(move(obs.reconstruction, obs.door.mean(output)))
            nats.append(obs.door.divergence(obs.output, output))
        moved.append(move(obs.reconstruction, obs.door.mean(obs.decode(other))))
        states: States = {
            "turns": Constant(True),
            "moved": Comoments.of(torch.stack(moved, dim=1)),
            "dims": Constant(z.shape[1]),
        }
        told = [value for value in nats if value is not None]
        if len(told) == len(nats):
            states["nats"] = Moments.of(torch.stack(told, dim=1))
        return states

    def _basis(self, obs: Observation) -> Tensor:
        """The decoder's directions as columns [D, K], the steepest first."""
        population, total = obs.population, torch.zeros(())
        dims, width = population.posterior.dims, code_width(obs, 1000)
        stop, step = min(self.slopes, population.size), 0
        for start in range(0, stop, step or 1):
            step = step or max(1, (64 << 20) // (8 * dims * obs.reconstruction[0].numel()))
            part = population_rows(population, start, min(start + step, stop), obs.seed)
            columns = root(part.prior).permute(2, 0, 1)  # type: ignore[arg-type]
            slope = torch.stack(list(Slopes(part, width).along(columns)), dim=2)
            slope = slope[torch.isfinite(slope).all(dim=(1, 2))]
            total = total + (slope.mT @ slope).sum(dim=0)
        basis: Tensor = torch.linalg.eigh(total)[1].flip(1).to(obs.z.device)
        if dims <= self.most:
            return basis
        half = self.most // 2
        return torch.cat([basis[:, :half], basis[:, -half:]], dim=1)

    def conclude(self, state: States) -> Result:
        """Usage along each direction, and how many are not read."""
        if not state["turns"].value:
            return Result()
        moved: Comoments = state["moved"]
        whole, dims = float(moved.mean[-1]), state["dims"].value
        usage, error = np.zeros(len(moved.mean) - 1), np.zeros(len(moved.mean) - 1)
        if whole > 0:
            usage, error = ratio_error(moved.mean[:-1], whole, moved.covariance, moved.n)
        table = pd.DataFrame({"usage": usage, "usage_se": error})
        if "nats" in state:
            table["nats"], table["nats_se"] = state["nats"].mean, state["nats"].standard_error
        table.insert(0, "direction", np.arange(len(table)))
        for name in ("usage", "nats") if "nats" in table else ("usage",):
            half = Z95 * table[f"{name}_se"]
            table[f"{name}_low"] = (table[name] - half).clip(lower=0.0)
            table[f"{name}_high"] = table[name] + half
        read = above_share(usage, error, self.share)
        if "nats" in state:
            told = state["nats"]
            bar = float(np.nextafter(self.told, 0.0))
            read = any_of(read, above(told.mean, told.standard_error, bar))
        number = count_number(
            "unread_directions",
            ~read,
            "dimensions",
            moved.n,
            f"on {len(table)} of {dims} directions; usage below {self.share:.0%} of the largest"
            + (f" and {self.told:g} nats" if "nats" in state else ""),
        )
        return Result(
            numbers=(number,),
            findings=(self._judge(number, len(table)),),
            tables={"read_directions": table},
        )

    def _judge(self, number: Number, directions: int) -> Finding:
        severity, word = Severity.OK, "healthy"
        told = f"the decoder reads {directions - int(number.value)} of {directions} directions"
        if number.low >= 1:
            severity, word = Severity.WARN, "partial"
        elif number.high >= 1:
            severity, word = Severity.INCONCLUSIVE, "partial"
            told += f"; up to {number.high:.0f} unread as far as the draws tell"
        return UNREAD.finding(
            severity, f"{told}.", evidence=[Evidence(number, 1, "<")], verdict=word
        )
