"""What repairs a collapsing model: a file and a line here for each; none knows the audit."""

from __future__ import annotations

from collapsekit.remedies.lr_loss import LatentReconstruction, latent_reconstruction

__all__ = ["LatentReconstruction", "latent_reconstruction"]
