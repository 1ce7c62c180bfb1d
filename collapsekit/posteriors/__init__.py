"""Posteriors and priors: rows of distributions over the code, in float64.

A family is one class with `tensors`, `like`, `draw`, `log_prob` and, where they exist, moments
(`mean`, `scale`). Whether its KL from a prior splits over dimensions, has a closed form, or is
estimated from draws is decided in `divergence`, the one place that knows pairs of families.
"""

from __future__ import annotations

from collapsekit.posteriors.base import Family, Posterior
from collapsekit.posteriors.density import Density
from collapsekit.posteriors.directions import (
    directions,
    kl_matrix,
    turns,
    whitened,
    whitened_mean,
)
from collapsekit.posteriors.discrete import Categorical
from collapsekit.posteriors.divergence import Divergence, added, divergence, least_variance
from collapsekit.posteriors.gaussian import (
    DiagonalGaussian,
    FullGaussian,
    cholesky_of,
    standard_normal,
)
from collapsekit.posteriors.mixture import GaussianMixture
from collapsekit.posteriors.sphere import UniformSphere, VonMisesFisher
from collapsekit.posteriors.torch_rows import TorchRows

__all__ = [
    "Categorical",
    "Density",
    "DiagonalGaussian",
    "Divergence",
    "Family",
    "FullGaussian",
    "GaussianMixture",
    "Posterior",
    "TorchRows",
    "UniformSphere",
    "VonMisesFisher",
    "added",
    "cholesky_of",
    "directions",
    "divergence",
    "kl_matrix",
    "least_variance",
    "standard_normal",
    "turns",
    "whitened",
    "whitened_mean",
]
