"""What repairs a collapsing model, and what a repair is compared with; none knows the audit.

A file and a line here for each. docs/remedies.md says which to use when, with measurements.
"""

from __future__ import annotations

from collapsekit.remedies.annealing import cyclical_annealing, linear_annealing
from collapsekit.remedies.batch_norm_mean import BatchNormMean
from collapsekit.remedies.free_bits import floored_kl
from collapsekit.remedies.lightning_hooks import lightning_callback
from collapsekit.remedies.lr_loss import Components, LatentReconstruction, latent_reconstruction
from collapsekit.remedies.pythae_models import repair_pythae
from collapsekit.remedies.sigma_penalty import scale_penalty

__all__ = [
    "BatchNormMean",
    "Components",
    "LatentReconstruction",
    "cyclical_annealing",
    "floored_kl",
    "latent_reconstruction",
    "lightning_callback",
    "linear_annealing",
    "repair_pythae",
    "scale_penalty",
]
