"""BN-VAE: batch normalisation of the posterior mean, so that no dimension can go quiet.

Source: Zhu et al. 2020, "A Batch Normalized Inference Network Keeps the KL Vanishing Away",
arXiv 2004.12585.

    self.normalise = BatchNormMean(latent, gamma=0.5)
    ...
    mean = self.normalise(mean)    # at the end of encode
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from collapsekit.errors import InputError

__all__ = ["BatchNormMean"]


class BatchNormMean(nn.Module):
    """Posterior mean with variance ``gamma**2`` over the batch, in every dimension.

    Parameters
    ----------
    dims : int
        Latent dimensions D; channels of a spatial latent.
    gamma : float
        Standard deviation over samples, fixed. The rate is then at least ``dims * gamma**2 / 2``
        nats.

    Attributes
    ----------
    shift : nn.Parameter [dims]
        Learnt offset of the mean; 0 at the start.

    Raises
    ------
    InputError
        An argument out of its range.

    Notes
    -----
    Zhu et al. 2020, section 3. The variance is ``gamma**2 * v / (v + 1e-5)`` where v is the
    biased batch variance of the raw mean, and gamma^2 only in expectation once running statistics
    are used, in evaluation mode. Activity is forced, so active units say nothing about it: on
    Fashion-MNIST at beta 0.1 nearly all units were informative as well, at a markedly worse
    reconstruction (docs/remedies.md).
    """

    def __init__(self, dims: int, gamma: float = 0.5) -> None:
        super().__init__()
        if dims < 1 or not (math.isfinite(gamma) and gamma > 0.0):
            raise InputError(
                "these arguments cannot be used",
                got=f"dims={dims}, gamma={gamma}",
                expected="1 dimension or more, a finite gamma above 0",
                remedy="0.3 to 0.7 is usual for gamma",
            )
        self.gamma = float(gamma)
        # torch's own layer inside, so that convert_sync_batchnorm finds it.
        self.norm = nn.BatchNorm1d(dims, affine=False)
        self.shift = nn.Parameter(torch.zeros(dims))

    def forward(self, mean: Tensor) -> Tensor:
        """Normalise a batch of posterior means.

        Parameters
        ----------
        mean : Tensor [B, D] or [B, D, ...]
            Statistics are taken per entry of axis 1.

        Returns
        -------
        Tensor
            Of the same shape.

        Raises
        ------
        InputError
            Another number of dimensions; fewer than two values per dimension while training.
        """
        dims = len(self.shift)
        values = mean.numel() // dims if mean.ndim >= 2 and mean.shape[1] == dims else 0
        if values < (2 if self.training else 1):
            raise InputError(
                "this batch cannot be normalised",
                got=str(tuple(mean.shape)),
                expected=f"[batch, {dims}] or [batch, {dims}, ...], two values per dimension or "
                "more while training",
                remedy="use larger batches, and drop a last one of a single sample",
            )
        flat = mean if mean.ndim == 2 else mean.flatten(2)
        shift = self.shift if mean.ndim == 2 else self.shift[:, None]
        normed: Tensor = self.gamma * self.norm(flat) + shift
        return normed.reshape(mean.shape)

    def extra_repr(self) -> str:
        """Field that decides the result, for ``print(module)``."""
        return f"gamma={self.gamma:g}"
