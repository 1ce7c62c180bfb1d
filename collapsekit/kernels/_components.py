"""What every kernel asks of the K Gaussian components it is handed."""

from __future__ import annotations

from torch import Tensor, float64

from collapsekit.errors import InputError


def check_components(mean: Tensor, scale: Tensor) -> None:
    """Raise `InputError` unless mean and scale are float64 [K, D], finite, and scale > 0."""
    if mean.ndim != 2 or mean.shape != scale.shape or not mean.shape[1]:
        raise InputError(
            "means and scales are not the parameters of K diagonal Gaussians",
            got=f"mean {tuple(mean.shape)}, scale {tuple(scale.shape)}",
            expected="the same shape [K, D], D >= 1",
            remedy="pass one row a component, one column a dimension",
        )
    if mean.dtype != float64 or scale.dtype != float64:
        raise InputError(
            "means and scales are not float64",
            got=f"mean {mean.dtype}, scale {scale.dtype}",
            expected="torch.float64",
            remedy="convert with .double(); the kernels narrow them where that is safe",
        )
    if not bool(mean.isfinite().all() & scale.isfinite().all() & (scale > 0).all()):
        raise InputError(
            "means or scales are not finite, or a scale is not positive",
            got=f"{int((~mean.isfinite()).sum())} means and {int((~scale.isfinite()).sum())} "
            f"scales not finite, {int((scale <= 0).sum())} scales <= 0",
            expected="finite means, finite scales > 0",
            remedy="leave those samples out before the mixture is built",
        )
