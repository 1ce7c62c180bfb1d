"""What is true of a model, in plain torch and far from the audit's thresholds.

A model enters the zoo only if the state that it was built for can be seen here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.zoo_parts.surgery import Model
from benchmarks.zoo_parts.training import drawn, ink, kl_parts, nats


@dataclass(frozen=True)
class Facts:
    """Measured on the audited images, one posterior draw each.

    Attributes
    ----------
    mean, scale, kl : Tensor [N, D]
        Of each dimension by itself; the KL of a full covariance in parts that add up to it.
    pale : Tensor [N]
        Ink below the training images' median.
    cost : Tensor [D]
        Nats of log-likelihood lost when dimension j comes from another sample.
    read : Tensor [D]
        How far, in nats either way, redrawing dimension j from the prior moves a sample's
        likelihood.
    error : float
        Mean negative log-likelihood without its constant, nats.
    """

    mean: Tensor
    scale: Tensor
    kl: Tensor
    pale: Tensor
    cost: Tensor
    read: Tensor
    error: float
    pruned: float  # the error when dimensions of KL < 0.1 and cost < 0.2 nat are held at their mean
    moves: float  # nats: how far the likelihood of a sample moves between two codes of the prior

    @property
    def trace(self) -> Tensor:
        """Variance of the means over that of the codes [D]."""
        variance = self.mean.var(dim=0)
        return variance / (variance + self.scale.square().mean(dim=0))

    @property
    def apart(self) -> Tensor:
        """KL of a Gaussian of all codes' mean and variance from N(0, 1), nats [D].

        Each dimension's own KL(aggregate || prior) is that or more: of all densities with these two
        moments the Gaussian has the largest entropy.
        """
        centre = self.mean.mean(dim=0)
        variance = self.mean.var(dim=0) + self.scale.square().mean(dim=0)
        return 0.5 * (centre.square() + variance - 1.0 - variance.log())


@torch.no_grad()
def measure(model: Model, width: float | None, x: Tensor, pale_below: Tensor) -> Facts:
    """Facts about a model whose outputs are Gaussian of one `width`, or Bernoulli (None).

    A code that was turned is looked at before the turn: it is the same model.
    """
    model = model.straight or model
    generator = torch.Generator().manual_seed(1)
    mean, spread = model.encode(x)
    scale = spread.square().sum(dim=2).sqrt() if spread.dim() == 3 else spread
    z = drawn(mean, spread, generator)
    free = torch.randn(scale.shape, generator=generator)
    other = torch.randperm(len(x), generator=generator)

    def error(code: Tensor) -> Tensor:
        return nats(width, model.decode(code), x).flatten(1).sum(dim=1)

    def swapped(source: Tensor) -> Tensor:
        rows = []
        for j in range(z.shape[1]):
            mixed = z.clone()
            mixed[:, j] = source[:, j]
            rows.append(error(mixed) - own)
        return torch.stack(rows)

    kl = kl_parts(mean, spread)
    own = error(z)
    cost = swapped(z[other]).mean(dim=1)
    held = torch.where((kl.mean(dim=0) < 0.1) & (cost < 0.2), z.mean(dim=0), z)
    return Facts(
        mean=mean,
        scale=scale,
        kl=kl,
        pale=ink(x) < pale_below,
        cost=cost,
        read=swapped(free).abs().mean(dim=1),
        error=float(own.mean()),
        pruned=float(error(held).mean()),
        moves=float((error(free) - error(free[other])).abs().mean()),
    )


def told(facts: Facts) -> str:
    """The facts in one line, for whoever has to mend a recipe."""
    names = ("cost", "read", "trace", "apart")
    parts = [f"{n} {[round(float(v), 3) for v in getattr(facts, n)]}" for n in names]
    parts.append(f"kl {[round(float(v), 3) for v in facts.kl.mean(0)]}")
    parts += [f"{n} {getattr(facts, n):.2f}" for n in ("error", "pruned", "moves")]
    return "; ".join(parts)
