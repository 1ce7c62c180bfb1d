"""Whether the model samples from the posterior that it declares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from scipy.stats import chi2, ks_2samp, kstest, norm
from torch import Tensor

from collapsekit.adapter import offers
from collapsekit.door import out_of_memory
from collapsekit.errors import CollapsekitError
from collapsekit.findings import Code, Evidence, Severity
from collapsekit.intervals import Z95
from collapsekit.noise import Noise
from collapsekit.number import Headline, Number
from collapsekit.observation import Observation, Source
from collapsekit.posteriors import DiagonalGaussian, Family
from collapsekit.posteriors.gaussian import FullGaussian
from collapsekit.probe import States
from collapsekit.results import Result
from collapsekit.streaming import Array, Rows, to_numpy

SAMPLER = Code(
    id="CK409",
    title="Declared posterior against sampled posterior",
    meaning="A model may compute its KL from one width and draw its codes with another: "
    "a log-variance used as a standard deviation is the classic. Its decoder then lives with codes "
    "that the declared posterior never gives, and every number computed from that posterior is "
    "about a distribution that the model does not use.",
    formula="r = (z - mean) / scale of draws z of the model's own sampler, by the Cholesky factor "
    "where the covariance is full; declared and sampled "
    "agree where r is standard normal: per dimension chi-square of sum r^2 and z-test of mean r, "
    "and Kolmogorov-Smirnov of the rows' sums of r^2 (widths wrong in both directions cancel in a "
    "dimension). Of other families as many draws of the declared posterior stand beside them, and "
    "two-sample Kolmogorov-Smirnov tests. Bonferroni over all, level 0.001 an audit, and an effect "
    "above 0.02. sampled_scale_ratio = sqrt(mean r^2), r of each dimension by itself.",
    remedy="Look at the sampler (reparameterize): it needs exp(logvar / 2). Or declare the width "
    "that it uses (parameterisation=...) and audit again.",
    source="collapsekit",
)
_EPS = float(np.finfo(np.float32).eps)
_COARSE = 0.5  # declared widths between neighbouring codes: they widen draws by 1 %
_ROUNDING = 1e-3  # of a standard deviation: the largest draw of a sampler that only rounds


@dataclass(frozen=True)
class SampledScale:
    """`sampled_scale_ratio`, as a headline and per dimension, where the model has a sampler."""

    limit: int | None = 256  # rows
    draws: int = 4
    level: float = 1e-3  # of a false alarm in an audit
    least: float = 0.02  # of the ratio, or of a mean in posterior widths: less is an epsilon

    name: ClassVar[str] = "sampled_scale"
    source: ClassVar[Source] = "population"
    codes: ClassVar[tuple[Code, ...]] = (SAMPLER,)
    headlines: ClassVar[tuple[Headline, ...]] = (
        Headline("sampled_scale_ratio", "Sampled over declared standard deviation", "neither"),
    )

    def observe(self, obs: Observation) -> States:
        """Draw for all rows at once, in the block that holds the first: a sampler has a random
        state of its own, so that its draws would change with the cut."""
        count = min(self.limit or obs.population.size, obs.population.size)
        nothing = np.zeros((0, self.draws, obs.posterior.dims))
        index, residual, white, why = np.zeros(0, np.int64), nothing, nothing, ""
        beside = nothing[:, : 0 if _is_gaussian(obs.posterior) else self.draws]
        if int(obs.rows[0]) != 0:
            pass
        elif not offers(obs.door.adapter, "sample_posterior"):
            why = "the model shows no sampler of its own"
        else:
            rows = np.arange(count)
            try:
                z = obs.door.sample(obs.population.inputs(rows), self.draws, obs.seed)
                posterior = obs.population.posterior.take(slice(count))
                apart = z.to(posterior.mean.device) - posterior.mean[:, None]
                residual = to_numpy(apart / posterior.scale[:, None])
                white = to_numpy(_whitened(apart, posterior))
                beside = to_numpy(self._beside(posterior, obs.seed))
                index = obs.population.index[:count]
                rounded = _EPS * (posterior.mean / posterior.scale).square().mean(dim=0).sqrt()
                if float(rounded.max()) > _COARSE:
                    why = "single precision is too coarse for the declared widths so far from 0"
            except Exception as error:  # a stranger's sampler: nothing else depends on it
                if out_of_memory(error):
                    raise
                what = error.what if isinstance(error, CollapsekitError) else str(error)
                why = f"its sampler could not be read: {' '.join(what.split())[:200]}"
        told = np.array([why], dtype=object)[: bool(why)]
        return {
            "residual": Rows(index, residual=residual, white=white, beside=beside),
            "why": Rows(np.zeros(len(told), np.int64), why=told),
        }

    def _beside(self, posterior: Family, seed: int) -> Tensor:
        """Residuals of draws from the declared posterior [n, S, D]; none where it is Gaussian, and
        their law known."""
        if _is_gaussian(posterior):
            return posterior.mean.new_zeros(posterior.rows, 0, posterior.dims)
        rows = torch.arange(posterior.rows, device=posterior.device)
        drawn = [
            posterior.draw(Noise(seed, f"sampler {draw}", rows))[0] for draw in range(self.draws)
        ]
        apart = torch.stack(drawn, dim=1) - posterior.mean[:, None]
        return apart / posterior.scale[:, None]

    def conclude(self, state: States) -> Result:
        """Test; tell where it could not be tested."""
        why = state["why"].column("why")
        if len(why):
            return _untested(f"{why[0]}; whether it draws what it declares was not checked.")
        rows: Rows = state["residual"]
        residual, index = rows.column("residual"), rows.index
        if not len(residual):
            return _untested(
                "the rows on which the model's sampler is tried were lost; whether it draws what "
                "it declares was not checked."
            )
        finite = np.asarray(np.isfinite(residual).all(axis=(1, 2)))
        if not finite.all():
            finding = SAMPLER.finding(
                Severity.FAIL,
                f"the model's sampler returns values that are not finite for "
                f"{int((~finite).sum()):,} of {len(finite):,} samples.",
                verdict="contradictory",
                samples=index[~finite],
            )
            return Result(findings=(finding,))
        if float(np.abs(residual).max()) < _ROUNDING:
            return _untested(
                "the model's sampler returned the mean; whether it draws what it declares was not "
                "checked."
            )
        dims = residual.shape[2]
        each = residual.reshape(-1, dims)
        ratio = np.sqrt((each**2).mean(axis=0))
        number = _ratio(residual)
        beside = rows.column("beside")
        p, effect = _against(residual, beside) if beside.size else _test(rows.column("white"))
        columns = pd.DataFrame(
            {"sampled_scale_ratio": ratio}, index=pd.RangeIndex(dims, name="dimension")
        )
        evidence = [Evidence(number)]
        if p < self.level and effect > self.least:
            worst = np.flatnonzero(np.abs(np.log(ratio)) > self.least)
            finding = SAMPLER.finding(
                Severity.FAIL,
                "the model does not sample from the posterior that it declares: its draws spread "
                f"{ratio.min():.3g} to {ratio.max():.3g} times the declared standard deviation by "
                f"dimension, {number.digits()} over all{number.interval()} (p = {p:.1g}).",
                evidence=evidence,
                verdict="contradictory",
                dimensions=worst,
            )
        else:
            finding = SAMPLER.finding(
                Severity.OK,
                f"the model's own draws have the declared means and widths: {number.digits()} "
                f"times the declared standard deviation{number.interval()}.",
                evidence=evidence,
            )
        return Result((number,), dimensions=columns, findings=(finding,))


def _is_gaussian(posterior: Family) -> bool:
    return isinstance(posterior, DiagonalGaussian | FullGaussian)


def _untested(message: str) -> Result:
    return Result(findings=(SAMPLER.finding(Severity.OK, message),))


def _ratio(residual: Array) -> Number:
    """sqrt of the mean square over rows, draws and dimensions; rows are independent."""
    square = (residual**2).mean(axis=(1, 2))
    n, mean = len(square), float(square.mean())
    error = float(square.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    low, high = (math.sqrt(max(mean + side * Z95 * error, 0.0)) for side in (-1, 1))
    return Number(
        "sampled_scale_ratio",
        math.sqrt(mean),
        low,
        high,
        "1",
        n,
        f"95 % interval, normal, of the mean square; {residual.shape[1]} draws a sample",
    )


def _whitened(apart: Tensor, posterior: Family) -> Tensor:
    """Draws less their means [n, S, D] in units in which a Gaussian's are standard normal."""
    if not isinstance(posterior, FullGaussian):
        return apart / posterior.scale[:, None]
    factor = posterior.cholesky.to(apart.device)
    white: Tensor = torch.linalg.solve_triangular(factor, apart.mT, upper=False).mT
    return white


def _against(residual: Array, beside: Array) -> tuple[float, float]:
    """As `_test`, against residuals of the declared posterior instead of a normal's.

    What a row's residuals are may depend on the row; both sides hold the same rows, as often, and
    the tests then keep their level.
    """
    one, other = (values.reshape(-1, values.shape[2]) for values in (residual, beside))
    sums, others = ((values**2).sum(axis=(1, 2)) for values in (residual, beside))
    p = min(ks_2samp(a, b, method="asymp").pvalue for a, b in zip(one.T, other.T, strict=True))
    rows = ks_2samp(sums, others, method="asymp").pvalue
    tails = np.quantile(sums, [0.1, 0.9]) / np.quantile(others, [0.1, 0.9])
    effect = max(
        np.abs(np.sqrt((one**2).mean(axis=0) / (other**2).mean(axis=0)) - 1).max(),
        np.abs(one.mean(axis=0) - other.mean(axis=0)).max(),
        np.abs(np.sqrt(tails) - 1).max(),
    )
    return float(min(1.0, 2 * min(p * one.shape[1], rows))), float(effect)


def _test(residual: Array) -> tuple[float, float]:
    """p-value of standard normal residuals [n, draws, D] and the largest departure seen."""
    _, draws, dims = residual.shape
    each = residual.reshape(-1, dims)
    squares, means = (each**2).sum(axis=0), each.mean(axis=0)
    width = 2 * np.minimum(chi2.cdf(squares, len(each)), chi2.sf(squares, len(each))).min() * dims
    centre = 2 * norm.sf(np.abs(means) * math.sqrt(len(each))).min() * dims
    row = (residual**2).sum(axis=(1, 2))
    shape = kstest(row, chi2(draws * dims).cdf).pvalue
    effect = max(
        np.abs(np.sqrt(squares / len(each)) - 1).max(),
        np.abs(means).max(),
        abs(math.sqrt(np.quantile(row, 0.9) / chi2.ppf(0.9, draws * dims)) - 1),
        abs(math.sqrt(np.quantile(row, 0.1) / chi2.ppf(0.1, draws * dims)) - 1),
    )
    return float(min(1.0, 3 * min(width, centre, shape))), float(effect)


def sampled_scale(z: Any, mean: Any, scale: Any) -> Number:
    """Standard deviation of a model's own draws over the declared one.

    Parameters
    ----------
    z : array [N, S, D]
        S draws a sample by the model's sampler.
    mean, scale : array [N, D]
        The declared posterior.

    Returns
    -------
    Number
        1 where they agree.
    """
    drawn, centre, width = (np.asarray(a, dtype=np.float64) for a in (z, mean, scale))
    return _ratio((drawn - centre[:, None]) / width[:, None])
