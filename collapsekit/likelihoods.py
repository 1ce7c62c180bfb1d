"""Likelihoods: how a decoder's output scores an input, in nats."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from collapsekit.errors import InputError, ModelError

_BLOCK = 1 << 16  # values: 256 kB in single precision, two arrays and a temporary fit a core's L2
_LEAST_SCALE = 1e-150
_TINY = 1e-30  # of a score: smaller squares may have been rounded to nothing


@runtime_checkable
class Likelihood(Protocol):
    """p(x | z) given the decoder's output.

    Optional: ``divergence(output, other) -> [B]``, KL(p(x | z) || p(x | z')) in nats, which says
    how much the decoder reads of a change in the code; and ``pairwise(outputs, x) -> [B, K]``, the
    log-likelihood of every x under every one of K outputs; and ``smooth(output) -> [B, ...]``, what
    changes smoothly with the code where the mean does not; and ``classes: bool``, whether observed
    values are classes: nothing lies between two of them, and noise makes another one.
    """

    def log_prob(self, output: Any, x: Tensor) -> Tensor:
        """Log-likelihood of each row in nats, summed over the observed axes: float64 [B]."""
        ...

    def mean(self, output: Any) -> Tensor:
        """The output as something that could be an input: the mean in data space."""
        ...


@dataclass(frozen=True)
class Gaussian:
    """N(output, scale^2) for every observed value; the output is the mean.

    A model trained on 0.5 SSE + beta KL has scale = sqrt(beta).
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not _LEAST_SCALE <= self.scale <= 1 / _LEAST_SCALE:
            raise InputError(
                "a Gaussian likelihood needs a positive scale",
                got=repr(self.scale),
                expected=f"from {_LEAST_SCALE:g} to {1 / _LEAST_SCALE:g}: it is squared",
                remedy="for a model trained on 0.5 SSE + beta KL pass sqrt(beta)",
            )

    def log_prob(self, output: Tensor, x: Tensor) -> Tensor:
        """-(x - output)^2 / 2 scale^2 - ln scale - ln(2 pi) / 2, summed."""
        error = squared_error(output, x)
        width = x[0].numel() if len(x) else 0
        constant = width * (math.log(self.scale) + 0.5 * math.log(2 * math.pi))
        return -0.5 * error / self.scale**2 - constant

    def mean(self, output: Tensor) -> Tensor:
        """The output itself."""
        return output

    def pairwise(self, outputs: Tensor, x: Tensor) -> Tensor:
        """Log-likelihood of each x [B, ...] under each of K outputs, by one matrix product."""
        _same_shape(outputs[:1], x[:1])
        outputs, x = (flat(a).to(torch.float64) for a in (outputs, x))
        # Centring keeps the three terms of |x - o|^2 from cancelling.
        centre = outputs.mean(dim=0)
        outputs, x = outputs - centre, x - centre
        square = (x * x).sum(dim=1)[:, None] + (outputs * outputs).sum(dim=1)
        constant = x.shape[1] * (math.log(self.scale) + 0.5 * math.log(2 * math.pi))
        return (x @ outputs.T - 0.5 * square) / self.scale**2 - constant

    def divergence(self, output: Tensor, other: Tensor) -> Tensor:
        """|output - other|^2 / 2 scale^2."""
        return squared_error(output, other) / (2 * self.scale**2)


@dataclass(frozen=True)
class Bernoulli:
    """Independent Bernoulli values; the output is their probability, or their logit.

    Inputs in [0, 1] that are not binary are scored by the same cross-entropy, as is common for
    grey images; it is then no normalised density.
    """

    logits: bool = False

    def log_prob(self, output: Tensor, x: Tensor) -> Tensor:
        """x ln p + (1 - x) ln(1 - p), summed.

        Raises
        ------
        ModelError
            Probabilities were declared and the output leaves [0, 1].
        InputError
            The data leave [0, 1].
        """
        _same_shape(output, x)
        _within_unit(x, "a Bernoulli likelihood needs data in [0, 1]", InputError, "rescale it")
        if not self.logits:
            _within_unit(
                output,
                "the decoder's output is no probability",
                ModelError,
                'if it returns logits, pass likelihood="bernoulli_logits"',
            )
        return _blockwise(self._score, output, x)

    def _score(self, output: Tensor, x: Tensor) -> Tensor:
        if self.logits:
            no, gap = torch.nn.functional.logsigmoid(-output), output
        else:
            # Logarithms end at -100, as torch's own cross-entropy has it: a hard 0 or 1 stays
            # finite. That one runs a number at a time; these are vectorised, and 4 times as fast.
            no = torch.log1p(-output).clamp_(min=-100.0)
            gap = output.log().clamp_(min=-100.0).sub_(no)
        return torch.addcmul(no, x.to(gap.dtype), gap).sum(dim=1)

    def mean(self, output: Tensor) -> Tensor:
        """The probability."""
        return output.sigmoid() if self.logits else output

    def pairwise(self, outputs: Tensor, x: Tensor) -> Tensor:
        """Log-likelihood of each x [B, ...] under each of K outputs, by one matrix product."""
        _same_shape(outputs[:1], x[:1])
        outputs, x = (flat(a).to(torch.float64) for a in (outputs, x))
        if self.logits:
            no, gap = torch.nn.functional.logsigmoid(-outputs), outputs
        else:
            no = torch.log1p(-outputs).clamp(min=-100.0)
            gap = outputs.log().clamp(min=-100.0) - no
        return x @ gap.T + no.sum(dim=1)

    def divergence(self, output: Tensor, other: Tensor) -> Tensor:
        """Sum of p ln(p / p') + (1 - p) ln((1 - p) / (1 - p')) over the values."""
        # Probabilities are kept a float32 step away from 0 and 1: a hard output may not make
        # everything infinite.
        p, q = (self.mean(out).to(torch.float64).clamp(1e-7, 1 - 1e-7) for out in (output, other))
        terms = p * (p.log() - q.log()) + (1 - p) * (torch.log1p(-p) - torch.log1p(-q))
        return flat(terms).sum(dim=1)


@dataclass(frozen=True)
class Categorical:
    """Independent categorical values; the output holds logits on axis 1, inputs are integers."""

    classes: ClassVar[bool] = True

    def log_prob(self, output: Tensor, x: Tensor) -> Tensor:
        """Log-softmax at the observed class, summed over positions."""
        _fits_classes(output, x)
        terms = torch.nn.functional.cross_entropy(
            output.to(torch.float64), x.long(), reduction="none"
        )
        return -terms.reshape(len(x), -1).sum(dim=1)

    def pairwise(self, outputs: Tensor, x: Tensor) -> Tensor:
        """Log-likelihood of each x [B, ...] under each of K outputs, a matrix product a class."""
        _fits_classes(outputs[:1], x[:1])
        log_p = torch.log_softmax(outputs.to(torch.float64), dim=1)
        log_p = log_p.reshape(*log_p.shape[:2], -1)  # [K, C, P]
        x = flat(x)
        scores = torch.zeros(len(x), len(log_p), dtype=torch.float64, device=outputs.device)
        for label in range(log_p.shape[1]):
            here = (x == label).to(torch.float64)
            if bool(here.any()):
                scores += here @ log_p[:, label].T
        return scores

    def mean(self, output: Tensor) -> Tensor:
        """The most probable class: the only value of a category that can be an input again.

        Raises
        ------
        ModelError
            The output has no classes; so do `smooth` and `divergence`.
        """
        _has_classes(output)
        return output.argmax(dim=1)

    def smooth(self, output: Tensor) -> Tensor:
        """The probabilities."""
        _has_classes(output)
        return torch.softmax(output, dim=1)

    def divergence(self, output: Tensor, other: Tensor) -> Tensor:
        """Sum over positions of sum_c p_c ln(p_c / p'_c)."""
        _has_classes(output)
        p, q = (torch.log_softmax(out.to(torch.float64), dim=1) for out in (output, other))
        return (p.exp() * (p - q)).flatten(1).sum(dim=1)


@dataclass(frozen=True)
class FromDistribution:
    """For decoders that return a torch.distributions object: it scores the input itself."""

    def log_prob(self, output: torch.distributions.Distribution, x: Tensor) -> Tensor:
        """The distribution's own log_prob, summed over all but the first axis."""
        return output.log_prob(x).to(torch.float64).reshape(len(x), -1).sum(dim=1)

    def mean(self, output: torch.distributions.Distribution) -> Tensor:
        """The distribution's mean."""
        return output.mean


def flat(values: Tensor) -> Tensor:
    """[B, ...] as [B, P]; of samples that are one value each, P = 1."""
    return values.flatten(1) if values.ndim > 1 else values[:, None]


def squared_error(output: Tensor, x: Tensor) -> Tensor:
    """Sum of squared differences of each row: float64 [B].

    Raises
    ------
    ModelError
        The output has another shape than the data.
    """
    _same_shape(output, x)
    return _blockwise(lambda a, b: (a - b).square_().sum(dim=1), output, x)


def _blockwise(score: Callable[[Tensor, Tensor], Tensor], output: Tensor, x: Tensor) -> Tensor:
    """Score rows in blocks that stay in the cache; sums are pairwise, in single precision at least.

    Scoring is a handful of passes over two arrays. On a batch of images each pass would come from
    main memory and take as long as a layer of a small model. Half precision ends at 65,504, bytes
    wrap round at 256: neither can hold a sum of squares.
    """
    output, x = _widened(flat(output)), _widened(flat(x))
    rows = max(_BLOCK // max(x.shape[1], 1), 1)
    if x.device.type != "cpu" or len(x) <= rows:
        scores = score(output, x).to(torch.float64)
    else:
        parts = zip(output.split(rows), x.split(rows), strict=True)
        scores = torch.cat([score(a, b) for a, b in parts]).to(torch.float64)
    # Squares of 1e20, or of 1e-25, are no single-precision numbers: such rows once more in double.
    again = ~torch.isfinite(scores) | (scores.abs() < _TINY)
    if output.dtype == torch.float32 and bool(again.any()):
        wide = score(output[again].to(torch.float64), x[again].to(torch.float64))
        scores[again] = wide.to(torch.float64)
    return scores


def _widened(values: Tensor) -> Tensor:
    if values.dtype in (torch.float32, torch.float64):
        return values
    return values.to(torch.float64 if values.dtype in (torch.int32, torch.int64) else torch.float32)


def as_likelihood(declared: object) -> Likelihood | None:
    """Read ``likelihood=``: a name, ``("gaussian", scale)``, a `Likelihood`, or None.

    Raises
    ------
    InputError
        It is none of these.
    """
    names: dict[str, Likelihood] = {
        "bernoulli": Bernoulli(),
        "bernoulli_logits": Bernoulli(logits=True),
        "categorical": Categorical(),
    }
    if declared is None:
        return None
    if isinstance(declared, str) and declared in names:
        return names[declared]
    if (
        isinstance(declared, Sequence)
        and len(declared) == 2
        and declared[0] == "gaussian"
        and not isinstance(declared[1], str)
    ):
        return Gaussian(float(declared[1]))
    if not isinstance(declared, str | type) and isinstance(declared, Likelihood):
        return declared
    remedy = "see collapsekit.likelihoods"
    if declared == "gaussian":
        remedy = 'a Gaussian has a scale: ("gaussian", sqrt(beta)) for 0.5 SSE + beta KL'
    raise InputError(
        "no such likelihood",
        got=repr(declared),
        expected=f'one of {", ".join(map(repr, names))}, ("gaussian", scale), or a Likelihood',
        remedy=remedy,
    )


def _same_shape(output: Tensor, x: Tensor) -> None:
    if output.shape != x.shape:
        raise ModelError(
            "the decoder's output does not have the data's shape",
            got=f"output {tuple(output.shape)}",
            expected=f"{tuple(x.shape)}, as the data",
            remedy="reshape in decode, or give data in the shape that decode returns",
        )


def _has_classes(output: Tensor) -> None:
    if output.ndim < 2 or not output.shape[1]:
        raise ModelError(
            "the decoder's output has no classes",
            got=f"output {tuple(output.shape)}",
            expected="logits [B, classes, ...]",
            remedy="move the class axis to position 1, or declare another likelihood",
        )


def _fits_classes(output: Tensor, x: Tensor) -> None:
    if output.ndim != x.ndim + 1 or output.shape[2:] != x.shape[1:]:
        raise ModelError(
            "the decoder's output does not fit a categorical likelihood",
            got=f"output {tuple(output.shape)} for data {tuple(x.shape)}",
            expected="logits [B, classes, ...] for integer data [B, ...]",
            remedy="move the class axis to position 1",
        )
    if not x.numel():
        return
    low, high = (float(v) for v in torch.aminmax(x))
    classes = output.shape[1]
    whole = not x.is_floating_point() or bool((x == x.round()).all())
    if not (whole and low >= 0 and high < classes):
        raise InputError(
            "the data are no classes of a categorical likelihood",
            got=f"values from {low:.4g} to {high:.4g}" + ("" if whole else ", not all whole"),
            expected=f"whole numbers from 0 to {classes - 1}: the output has {classes} classes",
            remedy="hand in labels that count from 0, or another likelihood",
        )


def _within_unit(
    values: Tensor, what: str, error: type[InputError] | type[ModelError], remedy: str
) -> None:
    low, high = (float(v) for v in torch.aminmax(values)) if values.numel() else (0.0, 1.0)
    if low < -1e-6 or high > 1 + 1e-6:
        raise error(
            what, got=f"values from {low:.4g} to {high:.4g}", expected="[0, 1]", remedy=remedy
        )
