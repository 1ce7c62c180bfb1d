"""The decoder, and whether its outputs, the data and the likelihood belong together."""

from __future__ import annotations

import torch
from torch import Tensor

from collapsekit.adapter import offers
from collapsekit.doctor.case import Case
from collapsekit.errors import CollapsekitError
from collapsekit.likelihoods import Categorical
from collapsekit.readers import Encoded

_LOST = "swap gap, round trip, shuffle cost, decoder usage and reconstruction are skipped"


def look(case: Case, encoded: Encoded | None) -> None:
    """Decode the posteriors' own centres."""
    name = "generate" if case.group else "decode"
    if not offers(case.door.adapter, name):
        case.can("decode", "none", _LOST)
        return
    if encoded is None:
        case.can("decode", "there; not tried without a posterior")
        return
    try:
        context = case.door.context(case.x)
        output = case.door.decode(encoded.posterior.centre, context, "doctor")
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        case.can(name, f"fails: {type(error).__name__}: {text}", _LOST)
        case.fault(f"{name} fails on the posteriors' own means: {text}")
        return
    if isinstance(output, torch.distributions.Distribution):
        case.can(name, f"a {type(output).__name__}: errors are in nats, from its log_prob")
        return
    low, high = (float(v) for v in torch.aminmax(output.double()))
    case.can(name, f"{tuple(output.shape[1:])}, values {low:.4g} to {high:.4g}")
    _likelihood(case, output, low, high)


def _likelihood(case: Case, output: Tensor, low: float, high: float) -> None:
    declared = case.door.likelihood
    try:
        target = case.door.target(case.x).to(output.device).double()
    except CollapsekitError as error:
        case.can("target", f"not told: {error.what}", "no errors")
        return
    classes = isinstance(declared, Categorical)  # outputs are logits over them, on axis 1
    expected = (*output.shape[:1], *output.shape[2:]) if classes else tuple(output.shape)
    if target.shape != expected and not offers(case.door.adapter, "log_likelihood"):
        case.fault(
            f"decode returns {tuple(output.shape[1:])} where a sample is "
            f"{tuple(target.shape[1:])}: errors cannot be computed"
        )
    bottom, top = (float(v) for v in torch.aminmax(target))
    told = f"data {bottom:.4g} to {top:.4g}, outputs {low:.4g} to {high:.4g}"
    if declared is None and not offers(case.door.adapter, "log_likelihood"):
        fit = "bernoulli" if low >= 0 and high <= 1 and bottom >= 0 and top <= 1 else "gaussian"
        example = '"bernoulli"' if fit == "bernoulli" else '("gaussian", scale)'
        case.assume("likelihood", f"none: squared error ({told})", f"likelihood={example}")
        return
    case.assume("likelihood", f"{declared or 'log_likelihood of the model'} ({told})")
    if str(declared).startswith("Bernoulli") and (bottom < 0 or top > 1):
        case.fault(f"a Bernoulli likelihood needs data in 0 to 1; {told}")
