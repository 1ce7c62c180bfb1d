"""The door: the one place where a model's outputs enter, and where they are checked.

Behind it every posterior is float64 [B, D], every output has the data's rows, and whoever reads
them need not ask again. Rows that are not finite are marked here; the engine takes them out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
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
from collapsekit.posteriors import Family
from collapsekit.priors import per_row, read_prior
from collapsekit.readers import (
    PARAMETERISATIONS,
    Codes,
    Encoded,
    as_tensor,
    read_posterior,
)
from collapsekit.samples import Inputs, map_tensors, rows_of

INPUT = "the input"


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on whatever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return "out of memory" in text or "can't allocate memory" in text


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
        None for N(0, I) (uniform, for discrete codes and on the sphere); (mean, scale); a torch
        distribution; any object with ``log_prob(z)`` and ``sample(shape)``; or a function
        ``prior(context)`` that gives each row its own.
    likelihood : object
        See `as_likelihood`.
    beta : float, optional
        The KL weight of the training.
    """

    adapter: Any
    parameterisation: str = "scale"
    prior: Any = None
    likelihood: Any = None
    passes: Counter[str] = field(default_factory=Counter)
    beta: float | None = None
    _distributions: bool = False
    codes: Codes | None = None
    prior_row: Family | None = None
    notes: tuple[str, ...] = ()
    noisy: bool = False  # the decoder answers the same codes differently

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

    def encode(self, x: Inputs, stream: str, index: Any = None) -> Encoded:
        """Call the encoder and check what it returns; `index` are the samples' numbers.

        Raises
        ------
        ModelError
            It cannot be read as a posterior over the rows of `x`.
        """
        rows = rows_of(x)
        self.passes[f"{stream}: encode"] += rows
        encoded = read_posterior(
            # A copy: models write to their input.
            self.adapter.encode(map_tensors(torch.clone, x)),
            rows,
            self.parameterisation,
        )
        self._learn_codes(encoded)
        return encoded

    def encode_again(self, x: Inputs, context: Any, stream: str, index: Any) -> Encoded:
        """The posterior of an output, under the condition that it was decoded with."""
        return self.encode(x, stream, index)

    def _learn_codes(self, encoded: Encoded) -> None:
        # A code goes back to the decoder in the kind, type and shape in which it came.
        if self.codes is None:
            self.codes = encoded.codes
            self.notes += encoded.notes
        if self.codes.shape != encoded.codes.shape:
            raise ModelError(
                "the encoder's latent shape changed between batches",
                got=str(encoded.codes.shape),
                expected=str(self.codes.shape),
                remedy="pad or crop inputs so that every sample has a code of one shape",
            )

    def code(self, z: Tensor) -> Any:
        """Codes [B, D] as the decoder takes them."""
        return z if self.codes is None else self.codes(z)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one code, known after the first encode."""
        return () if self.codes is None else self.codes.shape

    @property
    def dims(self) -> int:
        """Latent dimensions, known after the first encode."""
        return math.prod(self.latent_shape)

    @property
    def one_prior(self) -> bool:
        """Whether all samples share one prior."""
        return not per_row(self.prior)

    def prior_for(self, posterior: Family) -> Family:
        """The prior that all samples share, as one row on the posterior's device.

        Raises
        ------
        InputError
            The declared prior does not have the code's dimensions.
        Unavailable
            Each sample has its own.
        """
        if not self.one_prior:
            raise Unavailable(
                "the prior differs between samples",
                got="prior(context)",
                expected="one prior for all samples",
            )
        if self.prior_row is None:
            self.prior_row = read_prior(self.prior, posterior, self.latent_shape)
        return self.prior_row.to(posterior.device)

    def priors(self, posterior: Family, context: Any) -> Family:
        """The rows' priors: one row where they share it, else a row a sample from its condition.

        Raises
        ------
        InputError
            ``prior(context)`` does not give a usable prior for every row.
        """
        if self.one_prior:
            return self.prior_for(posterior)
        if context is None:
            raise InputError(
                "a prior that is a function needs the condition",
                got="prior(context) in an adapter without context(x)",
                expected="an adapter with context(x), one row a sample",
                remedy="add context(x), or declare the prior as a distribution",
            )
        rows = len(context)
        found = read_posterior(self.prior(context), rows, "scale")
        if not bool(found.good.all()) or found.posterior.dims != posterior.dims:
            raise InputError(
                "prior(context) does not give a usable prior for every row",
                got=f"{int(found.good.sum())} of {rows} rows usable, {found.posterior.dims} "
                "dimensions",
                expected=f"a finite distribution over {posterior.dims} dimensions for every row",
                remedy="return (mean, scale) or a torch distribution, the rows on the first axis",
            )
        return found.posterior.to(posterior.device)

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
            The output has another number of rows, or is no real numbers.
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
        if tensor.is_complex():
            raise ModelError(
                "the decoder returned complex numbers",
                got=str(tensor.dtype),
                expected="real numbers",
                remedy="return real and imaginary parts as values of their own",
            )
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
        code = self.code(z)
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

    @property
    def given(self) -> str:
        """What a bound of ln p(x) takes as given, as a note says it; empty for nothing."""
        return "; of ln p(x) given the condition" if self.conditional else ""

    def context(self, x: Inputs, index: Any = None) -> Any:
        """What the decoder and the prior take beside the code, a row a sample, or None."""
        return self.condition(x)

    def condition(self, x: Inputs) -> Any:
        """The model's own condition of each row, or None: rows that share it may swap codes."""
        return self.adapter.context(x) if offers(self.adapter, "context") else None

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
    def classes(self) -> bool:
        """Whether the data are classes, as the likelihood says of them."""
        return bool(getattr(self.likelihood, "classes", False))

    @property
    def error_unit(self) -> str:
        """Unit of `error`."""
        return "nats" if self.scores else "squared error"

    @property
    def about(self) -> str:
        """What a row's posterior depends on, in words."""
        return INPUT

    @property
    def deepest(self) -> bool:
        """Whether nothing else that the model draws depends on these codes."""
        return True

    def log_likelihood(self, x: Inputs, z: Tensor, context: Any) -> Any:
        """ln p(x | z) by the adapter itself, nats, [B]."""
        return self.adapter.log_likelihood(x, self.code(z))

    def error(
        self, x: Inputs, z: Tensor, context: Any, output: Callable[[], Any], stream: str
    ) -> Tensor:
        """Reconstruction error of each row: -ln p(x | z) in nats, else the squared error, [B].

        `output` is called only where the adapter cannot score a code by itself.
        """
        if offers(self.adapter, "log_likelihood"):
            self.passes[f"{stream}: log_likelihood"] += len(z)
            value = as_tensor(self.log_likelihood(x, z, context))
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

    def smooth(self, output: Any) -> Tensor:
        """What of a decoder output has derivatives: its mean, or the probabilities of classes."""
        if isinstance(output, Tensor) and hasattr(self.likelihood, "smooth"):
            found: Tensor = self.likelihood.smooth(output)
            return found
        return self.mean(output)

    def as_input(self, reconstruction: Tensor, context: Any = None) -> Inputs:
        """A reconstruction, in data space, as something that the encoder takes."""
        if not offers(self.adapter, "as_input"):
            return reconstruction
        again = piece(self.adapter, "as_input")
        inputs: Inputs = (
            again(reconstruction) if context is None else again(reconstruction, context)
        )
        return inputs
