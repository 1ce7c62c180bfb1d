"""Reading what an encoder returned as rows of one family of posteriors.

`READERS` is a table: the first entry that recognises an output reads it. A new family is one entry.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collapsekit.errors import ModelError
from collapsekit.posteriors import (
    Categorical,
    DiagonalGaussian,
    Family,
    FullGaussian,
    GaussianMixture,
    TorchRows,
    VonMisesFisher,
    cholesky_of,
)

D = torch.distributions

#: Torch's Gaussians with a covariance of their own.
FULL = (D.MultivariateNormal, D.LowRankMultivariateNormal)

#: How the second output of the encoder is turned into a standard deviation.
PARAMETERISATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "scale": lambda value: value,
    "variance": torch.sqrt,
    "logvar": lambda value: torch.exp(0.5 * value),
    "log_scale": torch.exp,
}


def as_tensor(array: Any) -> Tensor:
    """A tensor of any framework's array, sharing memory where that is safe.

    Negative strides are copied first: torch.from_dlpack aborts the process on them.
    """
    if isinstance(array, Tensor):
        return array.detach()
    if isinstance(array, np.ndarray):
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        if any(stride < 0 for stride in array.strides) or not array.flags.writeable:
            array = np.array(array, order="C")
        return torch.from_numpy(array)
    return as_tensor(np.asarray(array))


@dataclass(frozen=True)
class Codes:
    """What a code looks like to the decoder.

    Parameters
    ----------
    shape : tuple of int
        Of one code, without the classes of a one-hot code.
    dtype : torch.dtype
    numpy : bool
        Whether the decoder gets NumPy arrays, as the encoder returned them.
    classes : int
        Length of a one-hot code's last axis; 0 for any other.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    numpy: bool = False
    classes: int = 0

    def __call__(self, z: Tensor) -> Any:
        """Codes [B, D] in the decoder's own kind, type and shape."""
        shaped = z.reshape(len(z), *self.shape)
        if self.classes:
            shaped = torch.nn.functional.one_hot(shaped.to(torch.int64), self.classes)
        shaped = shaped.to(self.dtype, copy=True)
        return shaped.cpu().numpy() if self.numpy else shaped


@dataclass(frozen=True)
class Encoded:
    """An encoder's answer after the check.

    Parameters
    ----------
    posterior : Family
    good : Tensor, bool [B]
        Rows whose parameters are finite and whose scale is positive.
    flat : Tensor, bool [B]
        Rows with a scale that is not positive.
    codes : Codes
    problem : ModelError or None
        What is wrong where no row is good.
    notes : tuple of str
        What the reader of the report must know about how the output was read.
    """

    posterior: Family
    good: Tensor
    flat: Tensor
    codes: Codes
    problem: ModelError | None = None
    notes: tuple[str, ...] = ()


def read_posterior(output: Any, rows: int, parameterisation: str) -> Encoded:
    """Rows of the first family that recognises `output`.

    Raises
    ------
    ModelError
        It is no posterior over that many rows.
    """
    for recognises, read in READERS:
        if recognises(output):
            return read(output, rows, parameterisation)
    return _read_pair(output, rows, parameterisation)


# -- diagonal Gaussians --------------------------------------------------------------------------


def pair(output: Any) -> tuple[Any, Any, bool]:
    """(mean, second, whether the second is named a scale).

    Raises
    ------
    ModelError
        It is no pair, nor an object with a mean and a scale.
    """
    output = inner(output)
    if isinstance(output, D.Normal):
        return output.loc, output.scale, True
    if isinstance(output, tuple | list) and len(output) == 2:
        return output[0], output[1], False
    mean = getattr(output, "mean", None)
    for name in ("stddev", "scale"):
        scale = getattr(output, name, None)
        if mean is not None and not callable(mean) and scale is not None:
            return mean, scale, True
    shape = f" {tuple(output.shape)}" if hasattr(output, "shape") else ""
    length = f" of {len(output)}" if isinstance(output, tuple | list | dict) else ""
    if _whole_numbers(output):
        raise _no_posterior(output)
    raise ModelError(
        "the encoder's output is no posterior",
        got=f"{type(output).__name__}{length}{shape}",
        expected="a pair (mean, scale), an object with mean and stddev (or scale), or a torch "
        "distribution",
        remedy="wrap the encoder: collapsekit audits the posterior, a sample alone does not show "
        "its width",
    )


def _whole_numbers(output: Any) -> bool:
    if isinstance(output, Tensor):
        return not (output.is_floating_point() or output.is_complex())
    return isinstance(output, np.ndarray) and output.dtype.kind in "iu"


def _no_posterior(output: Any) -> ModelError:
    return ModelError(
        "a vector-quantised code has no posterior",
        got=f"whole numbers of shape {tuple(output.shape)}: indices into a codebook",
        expected="a distribution over codes: (mean, scale), or a torch distribution",
        remedy="collapse of a codebook shows in how often its entries are used, which needs no "
        "audit; a model with probabilities over entries can return OneHotCategorical",
    )


def _read_pair(output: Any, rows: int, parameterisation: str) -> Encoded:
    mean, second, named = pair(output)
    raw_mean, raw_second = as_tensor(mean), as_tensor(second)
    if raw_mean.shape != raw_second.shape and not named and _whole_numbers(raw_second):
        raise _no_posterior(raw_second)
    fits = raw_mean.shape == raw_second.shape and raw_mean.ndim and len(raw_mean) == rows
    if not fits or not math.prod(raw_mean.shape[1:]):
        raise ModelError(
            "the encoder's output is not a posterior for every row",
            got=f"mean {tuple(raw_mean.shape)} and scale {tuple(raw_second.shape)} for {rows} rows",
            expected=f"two arrays of one shape ({rows}, D) or ({rows}, ...)",
            remedy="return (mean, scale) with the samples on the first axis",
        )
    if raw_mean.ndim == 1:
        raw_mean, raw_second = raw_mean[:, None], raw_second[:, None]
    if raw_mean.is_complex() or raw_second.is_complex():
        raise ModelError(
            "the encoder returned complex numbers",
            got=f"mean {raw_mean.dtype}, scale {raw_second.dtype}",
            expected="real numbers",
            remedy="return real and imaginary parts as dimensions of their own",
        )
    what = "scale" if named else parameterisation
    # Copies: models give one buffer twice.
    flat = raw_mean.to(torch.float64, copy=True).flatten(1)
    second64 = raw_second.to(torch.float64, copy=True).flatten(1)
    scale = PARAMETERISATIONS[what](second64)
    good = (torch.isfinite(flat) & torch.isfinite(scale) & (scale > 0)).all(dim=1)
    hopeless = bool(rows) and not bool(good.any())
    dtype = raw_mean.dtype if raw_mean.is_floating_point() else torch.float32
    return Encoded(
        DiagonalGaussian(flat, scale),
        good,
        (scale <= 0).any(dim=1),
        Codes(tuple(raw_mean.shape[1:]), dtype, isinstance(mean, np.ndarray)),
        _hopeless(flat, second64, what) if hopeless else None,
    )


def _hopeless(mean: Tensor, second: Tensor, what: str) -> ModelError:
    low, high = (float(v) for v in torch.aminmax(second))
    if not bool(torch.isfinite(mean).all()):
        return ModelError(
            "the encoder's means are not finite in any row",
            got=f"{int((~torch.isfinite(mean)).sum())} values that are NaN or infinite",
            expected="finite means",
            remedy="check the data's range and the weights",
        )
    remedy = "check the scale head: it needs an exponential or a softplus"
    if low <= 0 and what in ("scale", "variance"):
        remedy = (
            'if the encoder returns log-variances, pass parameterisation="logvar" '
            '("log_scale" for log standard deviations); if it samples with a signed scale, '
            "collapsekit.adapters.signed.absolute_scale(model)"
        )
    return ModelError(
        f"no row has a usable {what}",
        got=f"values from {low:.4g} to {high:.4g}",
        expected="finite and above 0" if what in ("scale", "variance") else "finite",
        remedy=remedy,
    )


# -- other families ------------------------------------------------------------------------------


def inner(output: Any) -> Any:
    """A distribution without the `Independent` round it."""
    while isinstance(output, D.Independent):
        output = output.base_dist
    return output


def _checked(
    family: Family, rows: int, codes: Codes, flat: Tensor | None = None, notes: tuple[str, ...] = ()
) -> Encoded:
    """A family's rows with those marked whose parameters are not finite or whose scale is 0."""
    if family.rows != rows:
        raise ModelError(
            "the encoder's output is not a posterior for every row",
            got=f"{family.describe()} with {family.rows} rows for {rows} samples",
            expected=f"a batch shape that begins with {rows}",
            remedy="keep the samples on the distribution's first batch axis",
        )
    finite = torch.ones(rows, dtype=torch.bool, device=family.device)
    for tensor in family.tensors():
        bad = ~torch.isfinite(tensor) if tensor.is_floating_point() else tensor != tensor
        # A weight or a probability of nothing has a logarithm of -inf, and is no fault.
        bad &= tensor != -torch.inf
        finite &= ~bad.reshape(rows, -1).any(dim=1)
    narrow = torch.zeros_like(finite) if flat is None else flat
    good = finite & ~narrow
    problem = None
    if rows and not bool(good.any()):
        problem = ModelError(
            "no row has a usable posterior",
            got=f"{family.describe()}: {int((~finite).sum())} of {rows} rows are not finite, "
            f"{int(narrow.sum())} have a scale that is not positive",
            expected="finite parameters and positive scales",
            remedy="check the data's range and the weights",
        )
    return Encoded(family, good, narrow, codes, problem, notes)


def _read_family(output: Family, rows: int, _: str) -> Encoded:
    classes = output.classes if isinstance(output, Categorical) else 0
    return _checked(output, rows, Codes((output.dims,), torch.float64, False, classes))


def _read_full(output: Any, rows: int, _: str) -> Encoded:
    output = inner(output)
    mean = output.loc.detach()
    if mean.ndim != 2:
        raise ModelError(
            "a Gaussian with full covariance needs one covariance a sample",
            got=f"means of shape {tuple(mean.shape)}",
            expected=f"({rows}, D)",
            remedy="flatten the code",
        )
    family = FullGaussian(mean.to(torch.float64), cholesky_of(output))
    flat = (family.cholesky.diagonal(dim1=1, dim2=2) <= 0).any(dim=1)
    return _checked(family, rows, Codes(tuple(mean.shape[1:]), mean.dtype), flat)


def is_gaussian_mixture(output: Any) -> bool:
    """Whether torch mixes diagonal Gaussians, one mixture a row."""
    if not isinstance(output, D.MixtureSameFamily):
        return False
    component = output.component_distribution
    one_event = isinstance(component, D.Independent) and len(component.event_shape) == 1
    return one_event and isinstance(inner(component), D.Normal) and len(output.batch_shape) < 2


def mixture(output: Any) -> GaussianMixture:
    """Torch's mixture of diagonal Gaussians as rows."""
    component = inner(output.component_distribution)
    weights = output.mixture_distribution.logits.detach().to(torch.float64)
    mean, scale = (t.detach().to(torch.float64) for t in (component.loc, component.scale))
    lead = (1,) if not output.batch_shape else tuple(output.batch_shape)
    return GaussianMixture(
        weights.reshape(-1, weights.shape[-1]).expand(*lead, -1),
        mean.reshape(*lead, *mean.shape[-2:]),
        scale.reshape(*lead, *scale.shape[-2:]),
    )


def _read_mixture(output: Any, rows: int, _: str) -> Encoded:
    family = mixture(output)
    dtype = inner(output.component_distribution).loc.dtype
    flat = (family.scales <= 0).flatten(1).any(dim=1)
    return _checked(family, rows, Codes((family.dims,), dtype), flat)


def is_discrete(output: Any) -> bool:
    """Whether torch chooses among classes, relaxed or not."""
    kinds = (D.Categorical, D.OneHotCategorical, D.Bernoulli)
    relaxed = (D.RelaxedOneHotCategorical, D.RelaxedBernoulli)
    return isinstance(inner(output), (*kinds, *relaxed))


def categorical(output: Any) -> tuple[Categorical, Codes, bool]:
    """The family, its codes, and whether it was relaxed; whatever leads the classes are rows."""
    core = inner(output)
    logits = core.logits.detach()
    binary = isinstance(core, D.Bernoulli | D.RelaxedBernoulli)
    relaxed = isinstance(core, D.RelaxedOneHotCategorical | D.RelaxedBernoulli)
    wide = logits.to(torch.float64)
    if binary:
        log_p = torch.stack(
            [torch.nn.functional.logsigmoid(-wide), torch.nn.functional.logsigmoid(wide)], dim=-1
        )
    else:
        log_p = torch.log_softmax(wide, dim=-1)
    shape = tuple(log_p.shape[1:-1])
    classes = 0 if binary or isinstance(core, D.Categorical) else log_p.shape[-1]
    dtype = torch.int64 if isinstance(core, D.Categorical) else logits.dtype
    family = Categorical(log_p.reshape(len(log_p), -1, log_p.shape[-1]))
    # One variable a sample without an axis of its own: codes [B], or one-hot [B, C].
    return family, Codes(shape, dtype, False, classes), relaxed


def _read_discrete(output: Any, rows: int, _: str) -> Encoded:
    family, codes, relaxed = categorical(output)
    told = (
        f"the relaxed posterior ({type(inner(output)).__name__}) was read as its discrete "
        "counterpart, and the decoder was given hard codes",
    )
    return _checked(family, rows, codes, notes=told if relaxed else ())


def _is_sphere(output: Any) -> bool:
    return type(output).__name__ == "VonMisesFisher" and hasattr(output, "loc")


def _read_sphere(output: Any, rows: int, _: str) -> Encoded:
    direction = as_tensor(output.loc)
    for name in ("concentration", "kappa", "scale"):
        if (found := getattr(output, name, None)) is not None:
            kappa = as_tensor(found).to(torch.float64).reshape(-1, 1).expand(len(direction), 1)
            break
    else:
        raise ModelError(
            "a von Mises-Fisher posterior without a concentration",
            expected="an attribute concentration, kappa or scale beside loc",
            got=type(output).__name__,
            remedy="name the concentration on the object, a value a sample",
        )
    wide = direction.to(torch.float64)
    family = VonMisesFisher(wide / wide.norm(dim=1, keepdim=True), kappa.contiguous())
    flat = (kappa < 0).any(dim=1)
    return _checked(family, rows, Codes(tuple(direction.shape[1:]), direction.dtype), flat)


def _read_torch(output: Any, rows: int, _: str) -> Encoded:
    family = TorchRows.of(output)
    if not output.batch_shape:
        raise ModelError(
            "the encoder's distribution has no rows",
            got=f"{type(output).__name__} with batch shape ()",
            expected=f"a batch shape that begins with {rows}",
            remedy="keep the samples on the distribution's first batch axis",
        )
    dtype = next((t.dtype for t in family.tensors() if t.is_floating_point()), torch.float32)
    return _checked(family, rows, Codes(family.shape, dtype))


def _is_normal(output: Any) -> bool:
    return isinstance(inner(output), D.Normal)


Reader = Callable[[Any, int, str], Encoded]

#: Which outputs a family recognises, and how it reads them; pairs and objects with a mean and a
#: scale come last, as diagonal Gaussians.
READERS: tuple[tuple[Callable[[Any], bool], Reader], ...] = (
    (_is_normal, _read_pair),
    (lambda output: isinstance(output, Family), _read_family),
    (lambda output: isinstance(inner(output), FULL), _read_full),
    (is_gaussian_mixture, _read_mixture),
    (is_discrete, _read_discrete),
    (_is_sphere, _read_sphere),
    (lambda output: isinstance(output, D.Distribution), _read_torch),
)


def recognised(output: Any) -> bool:
    """Whether an output is a distribution of a family of its own, not a pair (mean, scale)."""
    return not _is_normal(output) and any(recognises(output) for recognises, _ in READERS)
