"""Where an audit comes from: everything needed to run it again, and to tell equal data apart."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np
import torch

from collapsekit.described import described
from collapsekit.door import Door
from collapsekit.errors import Unavailable, brief
from collapsekit.likelihoods import Bernoulli, Categorical, Gaussian
from collapsekit.population import Population
from collapsekit.posteriors import DiagonalGaussian
from collapsekit.samples import Batch, Inputs, Samples
from collapsekit.streaming import to_numpy


def provenance(
    door: Door, samples: Samples, population: Population, count: int, seed: int
) -> dict[str, Any]:
    """What was audited, on what, and how: JSON-ready."""
    adapter = door.adapter
    mark, unread = fingerprint(population, count)
    return {
        "model": str(getattr(adapter, "description", type(adapter).__name__)),
        "adapter": type(adapter).__name__,
        "data": samples.description,
        "data_fingerprint": mark,
        "n": count,
        "population": population.size,
        "dimensions": door.dims,
        "latent_shape": list(door.latent_shape),
        "seed": seed,
        "prior": _prior_text(door),
        "prior_declared": _declared_prior(door),
        "likelihood": _declared_likelihood(door),
        "parameterisation": door.parameterisation,
        "reductions": "KL and errors are summed over dimensions and values, means are over "
        "samples; nats",
        "passes": dict(sorted(door.passes.items())),
        "notes": [*samples.notes, *door.notes, *getattr(adapter, "notes", ()), *unread],
        "versions": dict(_versions()),
    }


def fingerprint(population: Population, count: int) -> tuple[str | None, tuple[str, ...]]:
    """Hash of N and of the 256 samples that the seed's key picks: equal for equal data.

    The whole data are never hashed: that would cost a pass of its own on large files. None, and a
    note, where they cannot be read any more: the audit is finished, and worth more than its mark.
    """
    digest = hashlib.sha256(f"{count}".encode())
    head = population.head(256)
    order = np.argsort(head.index)
    digest.update(head.index[order].tobytes())
    try:
        for name, leaf in tensors(head.inputs(order)):
            digest.update(str((name, leaf.dtype, tuple(leaf.shape[1:]))).encode())
            digest.update(to_numpy(leaf.contiguous()).tobytes())
    except Unavailable:
        pass  # no inputs at all: N and the keyed indices have to do
    except Exception as error:
        why = f"{type(error).__name__}: {brief(error)}"
        return None, (f"the data have no fingerprint, they could not be read again ({why})",)
    return digest.hexdigest()[:32], ()


def identity(
    door: Door, samples: Samples, probes: Sequence[Any], first: Batch, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that determines the results, as far as it can be told beforehand: JSON-ready.

    The data by their description, their first batch and, where they can be read anywhere, 64
    samples spread over them; a torch module by its weights.
    """
    digest = hashlib.sha256()
    parts = [first.x]
    if samples.random_access and samples.size:
        spread = np.unique(np.linspace(0, samples.size - 1, 64).astype(np.int64))
        # Where one of them cannot be read, the first batch has to do; the pass tells why.
        with contextlib.suppress(Exception):
            parts.append(samples.take(spread))
    for part in parts:
        for name, leaf in tensors(part):
            digest.update(str((name, leaf.dtype, tuple(leaf.shape))).encode())
            digest.update(to_numpy(leaf.contiguous()).tobytes())
    module = getattr(door.adapter, "module", door.adapter)
    weights = hashlib.sha256()
    if isinstance(module, torch.nn.Module):
        for name, tensor in module.state_dict().items():
            if isinstance(tensor, torch.Tensor):
                weights.update(name.encode() + to_numpy(tensor.contiguous()).tobytes())
    return {
        "version": _versions()["collapsekit"],
        "model": str(getattr(door.adapter, "description", type(door.adapter).__name__)),
        "weights": weights.hexdigest()[:32],
        "data": samples.description,
        "n": samples.size,
        "data_fingerprint": digest.hexdigest()[:32],
        "prior": "N(0, I)" if door.prior is None else _prior_text(door),
        "likelihood": _declared_likelihood(door),
        "parameterisation": door.parameterisation,
        "probes": {probe.name: repr(probe) for probe in probes},
        **settings,
    }


def run_block(
    started: float,
    timings: Mapping[str, float],
    probes: Mapping[str, tuple[str, float, float]],
) -> dict[str, Any]:
    """Times and host: the one part that differs between two equal runs.

    `timings` are seconds by stage; `probes` the stream of each probe and the CPU seconds of the
    processes in its `observe` and `conclude`.

    SOURCE_DATE_EPOCH fixes it, for reproducible files.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    fixed = epoch is not None
    begun = float(epoch) if epoch is not None else started
    return {
        "started": datetime.fromtimestamp(begun, UTC).isoformat(timespec="seconds"),
        "seconds": 0.0 if fixed else round(time.time() - started, 3),
        "host": "" if fixed else platform.platform(terse=True),
        "threads": torch.get_num_threads(),
        "timings": {name: 0.0 if fixed else round(t, 3) for name, t in timings.items()},
        "probes": {
            name: {
                "stream": stream,
                "observe": 0.0 if fixed else round(observe, 3),
                "conclude": 0.0 if fixed else round(conclude, 3),
            }
            for name, (stream, observe, conclude) in probes.items()
        },
    }


def tensors(x: Inputs) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in a batch's inputs, with their names."""
    if isinstance(x, torch.Tensor):
        yield "", x
        return
    pairs = x.items() if hasattr(x, "items") else enumerate(x)
    for key, value in pairs:
        if isinstance(value, torch.Tensor):
            yield str(key), value


def _prior_text(door: Door) -> str:
    if not door.one_prior:
        return "given: a prior for each sample, by its condition"
    prior = door.prior_row
    if prior is None:
        return "not used" if door.prior is None else "given, not used"
    given = "assumed" if door.prior is None else "given"
    if isinstance(prior, DiagonalGaussian):
        if bool((prior.mean == 0).all()) and bool((prior.scale == 1).all()):
            return "N(0, I)"
        # N(0, I) alone is assumed where nothing is said: another Gaussian is the model's own.
        given = "the model's" if door.prior is None else "given"
    return f"{given}: {prior.describe()}"


_SHOWN = 4096  # dimensions whose prior is written out


def _declared_prior(door: Door) -> Any:
    """What the argument of `audit` said; None where it said nothing, or the model has its own."""
    if door.prior is None or door.prior is getattr(door.adapter, "prior", None):
        return None
    row = door.prior_row if door.one_prior else None
    if not isinstance(row, DiagonalGaussian) or row.dims > _SHOWN:
        return _prior_text(door)
    mean, scale = (to_numpy(tensor)[0].tolist() for tensor in (row.mean, row.scale))
    return {"mean": mean, "scale": scale}


def _declared_likelihood(door: Door) -> Any:
    """As the argument of `audit` would say it; None where errors are squared errors."""
    own = getattr(door.adapter, "log_likelihood", None)
    if own is not None:
        return f"the model's own log_likelihood, {described(own)}"
    match door.likelihood:
        case Gaussian(scale=scale):
            return ["gaussian", scale]
        case Bernoulli(logits=logits):
            return "bernoulli_logits" if logits else "bernoulli"
        case Categorical():
            return "categorical"
        case None:
            return None
        case other:
            return described(other)


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("collapsekit", "torch", "numpy", "scipy", "scikit-learn", "pandas"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found
