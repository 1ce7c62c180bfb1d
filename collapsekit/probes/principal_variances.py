"""Principal variances of the data against the decoder's: what a linear model would use."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.stats import chi2
from torch import Tensor

from collapsekit.adapter import offers
from collapsekit.errors import Unavailable
from collapsekit.findings import Code
from collapsekit.likelihoods import Gaussian, flat
from collapsekit.number import Headline, Number
from collapsekit.observation import Observation, Source
from collapsekit.probe import States
from collapsekit.results import Result
from collapsekit.streaming import Array, Constant, Rows, to_numpy


@dataclass(frozen=True)
class PrincipalVariances:
    """`linear_dimensions`: principal variances of the data above the decoder's variance.

    Applies to Gaussian likelihoods of one scale, and codes that are all the decoder has; says
    nothing about others. What it explains is judged by the reading `decoder_variance`.
    """

    limit: int | None = 1024  # rows: half of them find directions, half measure along these
    level: float = 0.05  # of counting one direction too many
    most_values: int = 1 << 26  # of the rows together: half a gigabyte in double precision
    kept: int = 256  # components in the table

    name: ClassVar[str] = "principal_variances"
    source: ClassVar[Source] = "population"
    codes: ClassVar[tuple[Code, ...]] = ()
    headlines: ClassVar[tuple[Headline, ...]] = (
        Headline("decoder_variance", "Variance of the decoder, times beta", "neither"),
        Headline("linear_dimensions", "Dimensions that a linear model would use", "neither"),
    )

    def observe(self, obs: Observation) -> States:
        """The spectrum of the first rows, found once, by the block that holds the first of them."""
        likelihood, beta = obs.door.likelihood, obs.door.beta
        bar = 0.0  # another likelihood, or one of the model's own, has no variance to compare
        if isinstance(likelihood, Gaussian) and not offers(obs.door.adapter, "log_likelihood"):
            bar = threshold(likelihood.scale, beta)
        if bar > 0 and obs.door.conditional:
            raise Unavailable(
                "principal variances of the data hold what the condition explains",
                got="a conditional model, or one group of several",
                expected="a decoder that has the code alone to go by",
                remedy="compare the decoder's variance with that of the data under one condition",
            )
        inside, outside, rows, surely = np.zeros(0), np.zeros(0), 0, 0
        if bar > 0 and int(obs.rows[0]) == 0:
            width = obs.door.target(obs.x)[0].numel()
            rows = max(2, min(self.limit or obs.population.size, self.most_values // width))
            head = obs.population.head(rows)
            points = head.targets.to(torch.float64)
            if head.originals is not None:  # no half may hold copies of the other's rows
                points = points[np.unique(head.originals)]
            points = points[torch.isfinite(points).all(dim=1)]
            inside, held, excess = spectrum(points)
            outside, rows = np.diagonal(held), len(points)
            surely = _surely(held, excess, rows - rows // 2, bar, self.level)
        component = np.arange(len(inside))
        return {
            "spectrum": Rows(component, inside=inside, outside=outside),
            "rows": Rows(
                np.zeros(min(rows, 1), np.int64),
                count=np.full(min(rows, 1), rows),
                surely=np.full(min(rows, 1), surely),
            ),
            "facts": Constant((bar, obs.door.dims)),
        }

    def conclude(self, state: States) -> Result:
        """How many exceed the decoder's variance: surely, and at most."""
        bar, dims = state["facts"].value
        found = state["spectrum"]
        if not len(found):
            return Result()
        rows = int(state["rows"].column("count")[0])
        inside = found.column("inside")
        surely = int(state["rows"].column("surely")[0])
        most = max(_at_most(inside, rows, bar, self.level), surely)
        if most >= rows // 2 - 1:  # every component that so few rows can show: more may exceed it
            most = dims
        number = Number(
            "linear_dimensions",
            float(min(surely, dims)),
            float(min(surely, dims)),
            float(min(most, dims)),
            "dimensions",
            rows,
            f"of {dims}; principal variances above {bar:.4g}: directions found on half of the "
            "rows, the least variance among them measured on the other, surely at level "
            f"{self.level:g} (heavy tails counted in); upper end: what the variances of all rows "
            "at once do not exclude at that level, for normal data",
        )
        table = found.frame().head(self.kept)
        table = table.rename(columns={"inside": "variance", "outside": "variance_held_out"})
        table.index.name = "component"
        table["decoder_variance"] = bar
        decoder = Number(
            "decoder_variance",
            bar,
            bar,
            bar,
            "squared units of the data",
            rows,
            "as declared, so nothing to be unsure of: beta scale^2, beta counted once where it is "
            "scale^2",
        )
        return Result((number, decoder), tables={"principal_variances": table.reset_index()})


def threshold(scale: float, beta: float | None) -> float:
    """The variance below which a linear decoder leaves a principal direction unused.

    Parameters
    ----------
    scale : float
        Of the Gaussian likelihood, as declared.
    beta : float or None
        The KL weight of the training.

    Returns
    -------
    float
        beta scale^2 (Lucas et al. 2019, section 4, with the KL weighted). A model trained on
        0.5 SSE + beta KL is declared with scale sqrt(beta), which holds the weight already: where
        beta equals scale^2 it is not counted twice.
    """
    variance = scale**2
    folded = beta is None or math.isclose(beta, variance, rel_tol=1e-6)
    return variance if folded or beta is None else beta * variance


def spectrum(points: Tensor) -> tuple[Array, Array, Array]:
    """Principal variances of rows [n, P]: of all of them at once, and held out.

    Returns
    -------
    inside : ndarray, float64 [m]
        Eigenvalues of the covariance of all rows, falling: the largest read high.
    held : ndarray, float64 [m, m]
        Covariance of the second half of the rows in the principal directions of the first; on its
        diagonal are true variances of directions that are a little off, so the largest read low
        and noise as it is, but for what leaks in from the largest.
    excess : ndarray, float64 [m]
        Kurtosis of the second half in each of these directions, less a normal's 3.
    """
    n = len(points)
    first, second = points[: n // 2], points[n // 2 :]
    count = min(n // 2 - 1, points.shape[1])
    if count < 1:
        return np.zeros(0), np.zeros((0, 0)), np.zeros(0)
    directions = torch.linalg.svd(first - first.mean(dim=0), full_matrices=False).Vh[:count]
    along = (second - second.mean(dim=0)) @ directions.T
    held = along.T @ along / max(len(second) - 1, 1)
    squares = along.square()
    spread = squares.mean(dim=0)
    excess = squares.square().mean(dim=0) / torch.where(spread > 0, spread.square(), 1.0) - 3.0
    centred = points - points.mean(dim=0)
    gram = centred.T @ centred if points.shape[1] <= n else centred @ centred.T
    inside = torch.linalg.eigvalsh(gram).flip(0)[:count].clamp(min=0.0) / (n - 1)
    return to_numpy(inside), to_numpy(held), to_numpy(excess)


def _surely(held: Array, excess: Array, rows: int, bar: float, level: float) -> int:
    """How many principal variances exceed `bar` for sure, by a held-out covariance of `rows` rows.

    If no more than k - 1 do, any k directions hold one of variance `bar` or less (interlacing), and
    the least variance of a sample among these k is at most that one's, `bar` chi-square / degrees
    of freedom for normal data. The least variance falls with every direction added, so k = 1, 2,
    ... are tested in turn at the same level, up to the first that fails: the first leading block of
    held - threshold which is not positive definite. Variances taken one by one would not do: two
    directions that share one large variance both exceed the bar.

    Variances of data with heavy tails vary more. They count as those of fewer normal rows, of the
    same variance 2 / free + excess / rows (Satterthwaite 1946), by the largest excess kurtosis
    among the k directions.
    """
    heaviest = np.maximum.accumulate(np.maximum(excess, 0.0))
    free = 2 / (2 / max(rows - 1, 1) + heaviest / max(rows, 1))
    least = bar * chi2.isf(level, free) / free
    # The threshold rises with k, in a few steps: a factor for each of them.
    starts = [*np.flatnonzero(np.diff(least, prepend=-1.0)), len(least)]
    block = torch.from_numpy(held)
    for start, stop in itertools.pairwise(int(at) for at in starts):
        shift = float(least[start]) * torch.eye(stop, dtype=torch.float64)
        failed = int(torch.linalg.cholesky_ex(block[:stop, :stop] - shift).info)
        if failed:  # a smaller block that fails at this threshold passed at its own
            return max(failed - 1, start)
    return len(held)


def _at_most(inside: Array, rows: int, bar: float, level: float) -> int:
    """The most directions of variance above `bar` that the variances of all rows leave room for.

    If k true variances exceed it, the k-th of the sample is at least bar (1 - sqrt(k / n) - t)^2,
    t^2 = 2 ln(1 / level) / n, for normal data (interlacing, and the smallest singular value of a
    normal matrix: Davidson & Szarek 2001, theorem II.13).
    """
    free = max(rows - 1, 1)
    k = np.arange(1, len(inside) + 1)
    least = np.maximum(1 - np.sqrt(k / free) - math.sqrt(-2 * math.log(level) / free), 0.0) ** 2
    return int(k[inside > bar * least].max(initial=0))


def linear_dimensions(x: Any, scale: float, *, beta: float | None = None) -> int:
    """Latent dimensions that a linear Gaussian decoder would surely use on these data.

    Parameters
    ----------
    x : array [N, ...]
    scale : float
        Of the Gaussian likelihood.
    beta : float, optional
        The KL weight of the training.

    Returns
    -------
    int
        Principal variances that surely exceed beta scale^2.
    """
    points = flat(torch.as_tensor(np.asarray(x), dtype=torch.float64))
    _, held, excess = spectrum(points)
    rows = len(points) - len(points) // 2
    return _surely(held, excess, rows, threshold(scale, beta), 0.05)
