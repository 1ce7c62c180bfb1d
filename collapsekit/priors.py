"""Reading a declared prior: one row for all samples, or a function of the condition."""

from __future__ import annotations

import math
from typing import Any

import torch

from collapsekit.errors import InputError
from collapsekit.posteriors import (
    Categorical,
    Density,
    DiagonalGaussian,
    Family,
    FullGaussian,
    GaussianMixture,
    UniformSphere,
    VonMisesFisher,
    cholesky_of,
    standard_normal,
)
from collapsekit.readers import (
    FULL,
    as_tensor,
    categorical,
    inner,
    is_discrete,
    is_gaussian_mixture,
    mixture,
    pair,
)

D = torch.distributions


def default_prior(posterior: Family) -> Family:
    """What a model is taken to have been trained with: N(0, I), or uniform on the code's space."""
    if isinstance(posterior, Categorical):
        flat = torch.zeros_like(posterior.log_p[:1])
        return Categorical(torch.log_softmax(flat, dim=2))
    if isinstance(posterior, VonMisesFisher):
        axis = torch.zeros_like(posterior.direction[:1])
        axis[:, 0] = 1.0
        return UniformSphere(axis)
    return standard_normal(posterior.dims, posterior.device)


def other_space(posterior: Family, prior: Family) -> tuple[str, str] | None:
    """Where codes of the posterior lie and where the prior's, if these are known to differ."""
    spaces = _space(posterior), _space(prior)
    return spaces if all(spaces) and spaces[0] != spaces[1] else None


def _space(family: Family) -> str:
    """In words; nothing where it is not known."""
    if isinstance(family, DiagonalGaussian | FullGaussian | GaussianMixture):
        return _REAL
    law = getattr(family, "distribution", getattr(family, "source", None))
    if not isinstance(law, D.Distribution):
        return ""
    if isinstance(inner(law), D.VonMises):  # torch calls its support the real line
        return "angles"
    try:
        support: Any = law.support
    except (NotImplementedError, AttributeError):
        return ""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    # By their text: torch's equal constraints are not one object.
    return _SPACES.get(str(support), "")


_REAL = "the real line"
_SPACES = {
    "Real()": _REAL,
    "Interval(lower_bound=0.0, upper_bound=1.0)": "the interval from 0 to 1",
    "GreaterThan(lower_bound=0.0)": "the positive numbers",
    "GreaterThanEq(lower_bound=0.0)": "the positive numbers",
    "Simplex()": "the simplex",
}


def per_row(declared: Any) -> bool:
    """Whether a declared prior is a function of the condition: ``prior(context)``."""
    return callable(declared) and not hasattr(declared, "log_prob")


def read_prior(declared: Any, posterior: Family, code_shape: tuple[int, ...]) -> Family:
    """A declared prior as one row over the posterior's codes.

    Raises
    ------
    InputError
        It does not have the code's dimensions, or is no distribution.
    """
    if declared is None:
        return default_prior(posterior)
    family = _declared_family(declared, posterior, code_shape)
    if family.dims != posterior.dims:
        raise InputError(
            "the prior does not have the code's dimensions",
            got=f"{family.dims} values",
            expected=f"1 or {posterior.dims}",
            remedy="pass (mean, scale) with one value a latent dimension",
        )
    return family.to(posterior.device)


def _declared_family(declared: Any, posterior: Family, code_shape: tuple[int, ...]) -> Family:
    if isinstance(declared, Family):
        return declared
    core = inner(declared)
    if isinstance(core, FULL) and core.loc.ndim == 1:
        return FullGaussian(core.loc.detach().to(torch.float64)[None], cholesky_of(core)[None])
    if is_gaussian_mixture(declared) and not declared.batch_shape:
        return mixture(declared)
    if isinstance(posterior, Categorical):
        return _discrete_prior(declared, posterior)
    if is_discrete(declared):
        raise InputError(
            "the posterior and the prior are not distributions over the same codes",
            got=f"posterior: {posterior.describe()}; prior: {type(core).__name__}",
            expected="both discrete or both continuous",
            remedy="declare the prior that the model was trained with",
        )
    if not isinstance(core, D.Normal) and hasattr(declared, "log_prob"):
        if not hasattr(declared, "sample"):
            raise InputError(
                "the prior cannot be sampled",
                got=type(declared).__name__,
                expected="log_prob(z) and sample(shape)",
                remedy="add sample(shape) to the prior",
            )
        shape = code_shape
        if isinstance(declared, D.Distribution):
            shape = tuple((*declared.batch_shape, *declared.event_shape))
            if math.prod(shape) == 1 and not declared.event_shape:  # one law for every dimension
                declared, shape = declared.expand(code_shape), code_shape
        # Not the posterior's own centre: some distributions know none.
        where = torch.zeros(1, math.prod(shape), dtype=torch.float64, device=posterior.device)
        return Density(declared, where, shape)
    return _gaussian_prior(declared, posterior.dims)


def _discrete_prior(declared: Any, posterior: Categorical) -> Categorical:
    if is_discrete(declared):
        core = inner(declared)
        lead = core.logits.expand(1, *core.logits.shape)
        family, _, _ = categorical(type(core)(logits=lead))
        log_p = family.log_p
    else:
        try:
            log_p = as_tensor(declared).to(torch.float64).log()
        except (TypeError, ValueError) as error:
            raise InputError(
                "this is no prior of a discrete code",
                got=type(declared).__name__,
                expected="a Categorical, OneHotCategorical or Bernoulli distribution, or an array "
                "of probabilities, the classes on its last axis",
                remedy="leave prior= out for a uniform one",
            ) from error
        log_p = log_p.reshape(1, -1, log_p.shape[-1])
    if log_p.shape[-1] != posterior.classes or log_p.shape[1] not in (1, posterior.dims):
        raise InputError(
            "the prior does not have the code's classes",
            got=f"{log_p.shape[1]} variables of {log_p.shape[-1]} classes",
            expected=f"{posterior.dims} (or 1) of {posterior.classes}",
            remedy="give the prior one probability a class, for each variable or for all",
        )
    return Categorical(log_p.expand(1, posterior.dims, -1).contiguous())


def _gaussian_prior(declared: Any, dims: int) -> DiagonalGaussian:
    mean, scale, _ = pair(declared)
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
            remedy="check the argument prior=(mean, scale), or the model's own prior",
        )
    return DiagonalGaussian(parts[0], parts[1])
