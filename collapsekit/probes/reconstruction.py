"""Reconstruction error of every sample from one draw of its own code, and the ELBO it makes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from collapsekit.findings import Code, Evidence, Severity
from collapsekit.intervals import mean_number
from collapsekit.likelihoods import as_likelihood, squared_error
from collapsekit.observation import Observation, Source
from collapsekit.probe import States
from collapsekit.results import Result
from collapsekit.streaming import Array, Constant, Rows, Skewed, to_numpy

RECONSTRUCTION = Code(
    id="CK303",
    title="Reconstruction error",
    meaning="How badly the decoder gives back a sample from one code drawn from its posterior. "
    "With a likelihood it is in nats and makes, with the KL, the evidence lower bound; without "
    "one it is a sum of squared differences and compares only with itself.",
    formula="reconstruction_error[i] = -ln p(x_i | z_i), z_i ~ q_i, summed over the observed "
    "values; else |x_i - D(z_i)|^2. elbo[i] = -(reconstruction_error[i] + kl_total[i]).",
    remedy="Declare the likelihood that the model was trained with.",
    source="Kingma & Welling 2014, arXiv 1312.6114, equation 3",
)


@dataclass(frozen=True)
class Reconstruction:
    """`reconstruction_error` per sample, `elbo` where there is a likelihood, and their means."""

    name: ClassVar[str] = "reconstruction"
    source: ClassVar[Source] = "data"
    limit: ClassVar[int | None] = None
    codes: ClassVar[tuple[Code, ...]] = (RECONSTRUCTION,)

    def observe(self, obs: Observation) -> States:
        """One decode a sample."""
        error = obs.error.to(obs.kl_total.device)
        columns = {"reconstruction_error": error}
        if obs.door.scores and obs.door.deepest:
            columns["elbo"] = -(error + obs.kl_total)
        return {
            "rows": Rows(obs.index, **columns),
            "moments": Skewed.of(torch.stack(list(columns.values()), dim=1)),
            "unit": Constant(obs.door.error_unit),
            "bounds": Constant("elbo" in columns),
        }

    def conclude(self, state: States) -> Result:
        """Mean error, and the bound it makes with the rate."""
        unit = state["unit"].value
        least = -math.inf if unit == "nats" else 0.0  # a density can exceed 1
        error = mean_number(
            "reconstruction_error", state["moments"], unit, "summed over values", least=least
        )
        numbers = [error]
        if state["bounds"].value:
            elbo = mean_number("elbo", state["moments"], unit, "one draw a sample", column=1)
            numbers.append(elbo)
        finding = RECONSTRUCTION.finding(
            Severity.OK,
            f"the mean reconstruction error is {error.digits()} {unit}{error.interval()}.",
            evidence=[Evidence(error)],
        )
        return Result(numbers=tuple(numbers), samples=state["rows"].table(), findings=(finding,))


def reconstruction(x: Any, output: Any, *, likelihood: Any = None) -> Array:
    """Reconstruction error of each sample.

    Parameters
    ----------
    x, output : array [N, ...]
        Inputs and what the decoder returned for them.
    likelihood : optional
        As `audit`'s.

    Returns
    -------
    ndarray, float64 [N]
        -ln p(x | z) in nats with a likelihood, else the sum of squared differences.

    Raises
    ------
    ModelError
        Shapes differ, or the output does not fit the likelihood.
    """
    scored = as_likelihood(likelihood)
    target, out = torch.as_tensor(np.asarray(x)), torch.as_tensor(np.asarray(output))
    error = squared_error(out, target) if scored is None else -scored.log_prob(out, target)
    return to_numpy(error)
