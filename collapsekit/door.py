"""The door: the one place where a model's outputs enter, and where they are checked.

Behind it every posterior is float64 [B, D], every output has the data's rows, and whoever reads
them need not ask again. Rows that are not finite are marked here; the engine takes them out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collapsekit.adapter import offers, piece
from collapsekit.errors import InputError, ModelError, Unavailable
from collapsekit.likelihoods import (
    FromDistribution,
    Likelihood,
    as_likelihood,
    squared_error,
)
from collapsekit.posteriors import DiagonalGaussian, standard_normal
from collapsekit.samples import Inputs, map_tensors, rows_of

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


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on whatever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return "out of memory" in text or "can't allocate memory" in text


@dataclass(frozen=True)
class Encoded:
    """An encoder's answer after the check.

    Parameters
    ----------
    posterior : DiagonalGaussian
    good : Tensor, bool [B]
        Rows whose mean and scale are finite and whose scale is positive.
    problem : ModelError or None
        What is wrong where no row is good.
    """

    posterior: DiagonalGaussian
    good: Tensor
    problem: ModelError | None = None


@dataclass
class Door:
    """A model behind its checks, with the prior and the likelihood that were declared.

    Parameters
    ----------
    adapter : Adapter
    parameterisation : {"scale", "variance", "logvar", "log_scale"}
        What a bare pair (mean, second) holds in its second place. Objects that name their scale
        (``stddev``, ``scale``, a torch Normal) are read by that name.
    prior : object
        None for N(0, I), or (mean, scale), or a normal distribution.
    likelihood : object
        See `as_likelihood`.
    beta : float, optional
        The KL weight of the training.
    """

    adapter: Any
    parameterisation: str = "scale"
    prior: Any = None
    likelihood: Any = None
    latent_shape: tuple[int, ...] = ()
    passes: Counter[str] = field(default_factory=Counter)
    beta: float | None = None
    _code: Callable[[Tensor], Any] = field(default=lambda z: z)
    _distributions: bool = False
    prior_row: DiagonalGaussian | None = None

    def __post_init__(self) -> None:
        if self.parameterisation not in PARAMETERISATIONS:
            raise InputError(
                "no such parameterisation",
                got=repr(self.parameterisation),
                expected=f"one of {', '.join(PARAMETERISATIONS)}",
                remedy="say what the encoder's second output holds",
            )
        declared = self.likelihood
        if declared is None:
            declared = getattr(self.adapter, "likelihood", None)
        self.likelihood: Likelihood | None = as_likelihood(declared)
        if self.beta is not None and not (math.isfinite(self.beta) and self.beta >= 0):
            raise InputError(
                "beta is the weight of the KL",
                got=repr(self.beta),
                expected="a finite number, at least 0",
                remedy="leave it out where it is not known",
            )
        if self.prior is None:
            self.prior = getattr(self.adapter, "prior", None)

    # -- encoder -----------------------------------------------------------------------------

    def encode(self, x: Inputs, stream: str) -> Encoded:
        """Call the encoder and check what it returns.

        Raises
        ------
        ModelError
            It cannot be read as a posterior over the rows of `x`.
        """
        rows = rows_of(x)
        self.passes[f"{stream}: encode"] += rows
        # Copies on both sides: models write to their input, and give one buffer twice.
        mean, second, named = _pair(self.adapter.encode(map_tensors(torch.clone, x)))
        raw_mean, raw_second = as_tensor(mean), as_tensor(second)
        fits = raw_mean.shape == raw_second.shape and raw_mean.ndim and len(raw_mean) == rows
        if not fits or not math.prod(raw_mean.shape[1:]):
            raise ModelError(
                "the encoder's output is not a posterior for every row",
                got=f"mean {tuple(raw_mean.shape)} and scale {tuple(raw_second.shape)} for "
                f"{rows} rows",
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
        self._learn_code(mean, raw_mean)
        transform = PARAMETERISATIONS["scale" if named else self.parameterisation]
        flat = raw_mean.to(torch.float64, copy=True).flatten(1)
        second64 = raw_second.to(torch.float64, copy=True).flatten(1)
        scale = transform(second64)
        good = (torch.isfinite(flat) & torch.isfinite(scale) & (scale > 0)).all(dim=1)
        hopeless = bool(rows) and not bool(good.any())
        problem = self._hopeless(flat, second64, named) if hopeless else None
        return Encoded(DiagonalGaussian(flat, scale), good, problem)

    def _hopeless(self, mean: Tensor, second: Tensor, named: bool) -> ModelError:
        low, high = (float(v) for v in torch.aminmax(second))
        what = "scale" if named else self.parameterisation
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

    def _learn_code(self, mean: Any, raw: Tensor) -> None:
        # A code goes back to the decoder in the kind, type and shape in which the means came.
        shape = tuple(raw.shape[1:])
        if self.latent_shape and shape != self.latent_shape:
            raise ModelError(
                "the encoder's latent shape changed between batches",
                got=str(shape),
                expected=str(self.latent_shape),
                remedy="pad or crop inputs so that every sample has a code of one shape",
            )
        if not self.latent_shape:
            self.latent_shape = shape
            dtype = raw.dtype if raw.is_floating_point() else torch.float32
            wants_numpy = isinstance(mean, np.ndarray)

            def code(z: Tensor) -> Any:
                shaped = z.to(dtype, copy=True).reshape(len(z), *shape)
                return shaped.cpu().numpy() if wants_numpy else shaped

            self._code = code

    @property
    def dims(self) -> int:
        """Latent dimensions, known after the first encode."""
        return math.prod(self.latent_shape)

    def prior_for(self, posterior: DiagonalGaussian) -> DiagonalGaussian:
        """The prior as one row on the posterior's device.

        Raises
        ------
        InputError
            The declared prior does not have the code's dimensions.
        """
        if self.prior_row is None:
            self.prior_row = _as_prior(self.prior, posterior.dims)
        device = posterior.mean.device
        return DiagonalGaussian(self.prior_row.mean.to(device), self.prior_row.scale.to(device))

    def sample(self, x: Inputs, draws: int, seed: int) -> Tensor:
        """Draws of the model's own sampler for every row of `x`: float64 [B, draws, D].

        NumPy's and torch's generators are seeded for it and put back.

        Raises
        ------
        Unavailable
            The model shows no sampler.
        ModelError
            Its draws are no codes.
        """
        sampler = piece(self.adapter, "sample_posterior")
        rows = rows_of(x)
        self.passes["population: sample_posterior"] += rows * draws
        numpy_state = np.random.get_state()  # noqa: NPY002  the sampler may draw from it
        devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(devices):
            try:
                torch.manual_seed(seed)
                np.random.seed(seed % 2**32)  # noqa: NPY002  as above
                parts = [as_tensor(sampler(x)).to(torch.float64).flatten(1) for _ in range(draws)]
            finally:
                np.random.set_state(numpy_state)  # noqa: NPY002  as above
        wrong = next((p for p in parts if p.shape != (rows, self.dims)), None)
        if wrong is not None:
            raise ModelError(
                "the model's sampler does not return a code for every row",
                got=f"{tuple(wrong.shape)}",
                expected=f"({rows}, {self.dims})",
                remedy="return one draw a row from sample_posterior",
            )
        return torch.stack(parts, dim=1)

    # -- decoder -----------------------------------------------------------------------------

    def decode(self, z: Tensor, context: Any, stream: str) -> Any:
        """Call the decoder on codes [B, D]; a tensor with B rows, or a torch Distribution.

        Raises
        ------
        Unavailable
            There is no decoder.
        ModelError
            The output has another number of rows.
        """
        try:
            output = self.decode_attached(z, context)
        except Exception as error:
            if not out_of_memory(error) or len(z) < 2:
                raise
            return self._decode_halves(z, context, stream)
        self.passes[f"{stream}: decode"] += len(z)
        if isinstance(output, torch.distributions.Distribution):
            self._distributions = True
            return output
        if isinstance(output, tuple | list | dict):
            raise ModelError(
                "the decoder returned several things",
                got=f"a {type(output).__name__} of {len(output)}",
                expected="one array, or a torch Distribution",
                remedy="return the mean (or the probabilities) alone; wrap decode if need be",
            )
        tensor = as_tensor(output)
        if tensor.ndim < 1 or len(tensor) != len(z):
            raise ModelError(
                "the decoder's output does not have a row for every code",
                got=f"{tuple(tensor.shape)} for {len(z)} codes",
                expected=f"({len(z)}, ...)",
                remedy="keep the samples on the first axis in decode",
            )
        return tensor.clone()

    def decode_attached(self, z: Tensor, context: Any) -> Any:
        """The decoder's answer as it comes, unchecked and with its derivatives.

        Raises
        ------
        Unavailable
            There is no decoder.
        """
        decode = piece(self.adapter, "decode")
        code = self._code(z)
        return decode(code) if context is None else decode(code, context)

    def _decode_halves(self, z: Tensor, context: Any, stream: str) -> Any:
        half = len(z) // 2
        contexts = (None, None) if context is None else (context[:half], context[half:])
        parts = [
            self.decode(rows, given, stream)
            for rows, given in zip((z[:half], z[half:]), contexts, strict=True)
        ]
        if not all(isinstance(part, Tensor) for part in parts):
            raise MemoryError("the decoder ran out of memory, and distributions cannot be joined")
        return torch.cat(parts)

    @property
    def conditional(self) -> bool:
        """Whether the model has a condition."""
        return offers(self.adapter, "context")

    def context(self, x: Inputs) -> Any:
        """The condition of each row, or None."""
        return self.adapter.context(x) if self.conditional else None

    def target(self, x: Inputs) -> Tensor:
        """The part of the input that the decoder reconstructs, on its own device.

        Raises
        ------
        Unavailable
            The input is a structure and the adapter does not say which part it is, or there is
            no input at all.
        """
        if offers(self.adapter, "target"):
            return as_tensor(self.adapter.target(x))
        if isinstance(x, Tensor):
            return x
        raise Unavailable(
            "the input is not one array",
            got=type(x).__name__,
            expected="an adapter with target(x), the part that decode reconstructs",
            remedy="add target(x) to the adapter",
        )

    @property
    def scores(self) -> bool:
        """Whether errors are in nats, else squared errors.

        They are where a likelihood was declared, or the decoder returns distributions, which is
        known after the first decode.
        """
        declared = offers(self.adapter, "log_likelihood") or self.likelihood is not None
        return declared or self._distributions

    @property
    def error_unit(self) -> str:
        """Unit of `error`."""
        return "nats" if self.scores else "squared error"

    def error(self, x: Inputs, z: Tensor, output: Callable[[], Any], stream: str) -> Tensor:
        """Reconstruction error of each row: -ln p(x | z) in nats, else the squared error, [B].

        `output` is called only where the adapter cannot score a code by itself.
        """
        if offers(self.adapter, "log_likelihood"):
            self.passes[f"{stream}: log_likelihood"] += len(z)
            value = as_tensor(self.adapter.log_likelihood(x, self._code(z)))
            return -value.to(torch.float64).reshape(len(z))
        out = output()
        target = self.target(x)
        if isinstance(out, torch.distributions.Distribution):
            return -FromDistribution().log_prob(out, target)
        target = target.to(out.device)
        if self.likelihood is None:
            return squared_error(out, target)
        log_likelihood: Tensor = self.likelihood.log_prob(out, target)
        return -log_likelihood

    def divergence(self, output: Any, other: Any) -> Tensor | None:
        """KL(p(x | z) || p(x | z')) of two outputs in nats, [B]; None where nothing defines it."""
        if isinstance(output, torch.distributions.Distribution):
            try:
                value = torch.distributions.kl_divergence(output, other)
            except NotImplementedError:
                return None
            return value.to(torch.float64).reshape(len(value), -1).sum(dim=1)
        found = getattr(self.likelihood, "divergence", None)
        if found is None:
            return None
        told: Tensor = found(output, other)
        return told

    @property
    def pairs_up(self) -> bool:
        """Whether `pairwise` can score every input under every output."""
        sees = offers(self.adapter, "log_likelihood") or self.conditional
        return not sees and hasattr(self.likelihood, "pairwise")

    def pairwise(self, outputs: Tensor, x: Inputs) -> Tensor:
        """ln p(x_i | z_k) of every input under every output, nats: float64 [B, K].

        Raises
        ------
        Unavailable
            There is no likelihood that can do this.
        """
        found = getattr(self.likelihood, "pairwise", None)
        if found is None or offers(self.adapter, "log_likelihood"):
            raise Unavailable(
                "no likelihood that scores every input under every output",
                got="none declared" if self.likelihood is None else type(self.likelihood).__name__,
                expected="gaussian, bernoulli or categorical",
                remedy="declare likelihood=...",
            )
        scores: Tensor = found(outputs, self.target(x).to(outputs.device))
        return scores

    def mean(self, output: Any) -> Tensor:
        """A decoder output in data space."""
        mean: Tensor = output
        if isinstance(output, torch.distributions.Distribution):
            mean = torch.as_tensor(output.mean)
        elif self.likelihood is not None:
            mean = self.likelihood.mean(output)
        return mean

    def as_input(self, reconstruction: Tensor, context: Any = None) -> Inputs:
        """A reconstruction, in data space, as something that the encoder takes."""
        if not offers(self.adapter, "as_input"):
            return reconstruction
        again = piece(self.adapter, "as_input")
        inputs: Inputs = (
            again(reconstruction) if context is None else again(reconstruction, context)
        )
        return inputs


def _pair(output: Any) -> tuple[Any, Any, bool]:
    """(mean, second, whether the second is named a scale)."""
    distributions = torch.distributions
    if isinstance(output, distributions.Independent):
        output = output.base_dist
    if isinstance(output, distributions.Distribution):
        if isinstance(output, distributions.Normal):
            return output.loc, output.scale, True
        raise ModelError(
            "this posterior family is not supported",
            got=type(output).__name__,
            expected="a diagonal Gaussian: torch.distributions.Normal, or (mean, scale)",
            remedy="audit a diagonal Gaussian posterior, or open an issue with the family's name",
        )
    if isinstance(output, tuple | list) and len(output) == 2:
        return output[0], output[1], False
    mean = getattr(output, "mean", None)
    for name in ("stddev", "scale"):
        scale = getattr(output, name, None)
        if mean is not None and not callable(mean) and scale is not None:
            return mean, scale, True
    shape = f" {tuple(output.shape)}" if hasattr(output, "shape") else ""
    length = f" of {len(output)}" if isinstance(output, tuple | list | dict) else ""
    raise ModelError(
        "the encoder's output is no posterior",
        got=f"{type(output).__name__}{length}{shape}",
        expected="a pair (mean, scale), an object with mean and stddev (or scale), or a torch "
        "Normal",
        remedy="wrap the encoder: collapsekit audits the posterior, a sample alone does not show "
        "its width",
    )


def _as_prior(declared: Any, dims: int) -> DiagonalGaussian:
    if declared is None:
        return standard_normal(dims)
    mean, scale, _ = _pair(declared)
    parts = []
    for value in (mean, scale):
        tensor = as_tensor(value).to(torch.float64).flatten()
        if tensor.numel() not in (1, dims):
            raise InputError(
                "the prior does not have the code's dimensions",
                got=f"{tensor.numel()} values",
                expected=f"1 or {dims}",
                remedy="pass (mean, scale) with one value a latent dimension",
            )
        parts.append(tensor.expand(dims).reshape(1, dims).clone())
    if not bool((torch.isfinite(parts[0]) & torch.isfinite(parts[1]) & (parts[1] > 0)).all()):
        raise InputError(
            "the prior's mean and scale must be finite and its scale positive",
            got=f"scale from {float(parts[1].min()):.4g}",
            expected="above 0",
        )
    return DiagonalGaussian(parts[0], parts[1])
