"""Reconstruction error of every sample from one draw of its own code, and the ELBO it makes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from collapsekit.adapter import offers
from collapsekit.findings import Code, Evidence, Finding, Severity
from collapsekit.intervals import mean_number
from collapsekit.likelihoods import Gaussian, as_likelihood, squared_error
from collapsekit.number import Headline
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
DECLARED = Code(
    id="CK015",
    title="Declared scale against the residual",
    meaning="A Gaussian likelihood of scale s says that reconstructions miss by s a value. Where "
    "they miss by another order of magnitude, whatever is in nats (the ELBO, the decoder's view, "
    "swap gaps) is off by the square of it. A model trained on 0.5 SSE + beta KL is declared with "
    "s = sqrt(beta), which is a weight and no residual: beta explains any ratio, and without "
    "beta= a residual far below s^2 is no sign of a mistake.",
    formula="ratio = E |x - D(z)|^2 / (values s^2), z ~ q. Warns where its interval is above 25 or "
    "below 1 / 1000, unless beta = s^2 was passed. Trained models at beta 0.1 to 2 lie at 0.03 to "
    "0.2.",
    remedy="Declare the scale that the training used; if that is sqrt(beta), pass beta= as well.",
    source="collapsekit",
)


@dataclass(frozen=True)
class Reconstruction:
    """`reconstruction_error` per sample, `elbo` where there is a likelihood, and their means."""

    largest: float = 25.0  # residual variance over the declared one
    smallest: float = 0.001

    name: ClassVar[str] = "reconstruction"
    source: ClassVar[Source] = "data"
    limit: ClassVar[int | None] = None
    codes: ClassVar[tuple[Code, ...]] = (RECONSTRUCTION, DECLARED)
    headlines: ClassVar[tuple[Headline, ...]] = (
        Headline("reconstruction_error", "Reconstruction error", "down"),
        Headline("elbo", "Evidence lower bound", "up"),
    )

    def observe(self, obs: Observation) -> States:
        """One decode a sample."""
        error = obs.error.to(obs.kl_total.device)
        columns = {"reconstruction_error": error}
        if obs.door.scores and obs.door.deepest:
            columns["elbo"] = -(error + obs.kl_total)
        states: States = {
            "rows": Rows(obs.index, **columns),
            "moments": Skewed.of(torch.stack(list(columns.values()), dim=1)),
            "unit": Constant(obs.door.error_unit),
            "bounds": Constant("elbo" in columns),
            "given": Constant(obs.door.given),
        }
        likelihood = obs.door.likelihood
        own = offers(obs.door.adapter, "log_likelihood")
        if isinstance(likelihood, Gaussian) and not own and isinstance(obs.output, torch.Tensor):
            width = obs.output[0].numel()
            constant = math.log(likelihood.scale) + 0.5 * math.log(2 * math.pi)
            states["ratio"] = Skewed.of(2 * (error / width - constant))
            states["declared"] = Constant((likelihood.scale, obs.door.beta))
        return states

    def conclude(self, state: States) -> Result:
        """Mean error, and the bound it makes with the rate."""
        unit = state["unit"].value
        least = -math.inf if unit == "nats" else 0.0  # a density can exceed 1
        error = mean_number(
            "reconstruction_error", state["moments"], unit, "summed over values", least=least
        )
        numbers = [error]
        if state["bounds"].value:
            note = f"one draw a sample{state['given'].value}"
            elbo = mean_number("elbo", state["moments"], unit, note, column=1)
            numbers.append(elbo)
        finding = RECONSTRUCTION.finding(
            Severity.OK,
            f"the mean reconstruction error is {error.digits()} {unit}{error.interval()}.",
            evidence=[Evidence(error)],
        )
        findings = [finding]
        if "ratio" in state:
            findings.append(self._declared(state["ratio"], *state["declared"].value))
        return Result(tuple(numbers), samples=state["rows"].table(), findings=tuple(findings))

    def _declared(self, moments: Skewed, scale: float, beta: float | None) -> Finding:
        ratio = mean_number("residual_ratio", moments, "1", "summed over values", least=0.0)
        explained = beta is not None and math.isclose(beta, scale**2, rel_tol=1e-6)
        high, low = ratio.low > self.largest, ratio.high < self.smallest
        ends = f"ratio {ratio.low:.3g} to {ratio.high:.3g}, " if ratio.interval() else ""
        told = (
            f"reconstructions miss by a variance of {ratio.value * scale**2:.3g} a value, "
            f"{ratio.value:.3g} times the declared {scale**2:.3g} ({ends}n = {ratio.n:,})"
        )
        if (high or low) and not explained:
            end = self.largest if high else self.smallest
            return DECLARED.finding(
                Severity.WARN,
                f"{told}: what is in nats is off by as much, unless the scale is sqrt(beta).",
                evidence=[Evidence(ratio, end, "<=" if high else ">=")],
            )
        why = "; the scale is sqrt(beta), a weight" if explained else ""
        return DECLARED.finding(Severity.OK, f"{told}{why}.", evidence=[Evidence(ratio)])


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
