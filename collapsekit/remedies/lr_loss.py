"""The latent reconstruction (LR) loss: ask the encoder to read back the code it wrote.

Source: Song, Kim, Lee 2025, arXiv 2508.12530. If E after D is injective then D is injective, hence
z is identifiable, hence there is no posterior collapse (Wang, Blei, Cunningham 2021, arXiv
2301.00537).

The file is called ``lr_loss`` because no module may share its name with a public function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from collapsekit.errors import InputError

__all__ = ["Components", "LatentReconstruction", "latent_reconstruction"]

Reduction = Literal["sum", "mean"]


class Array(Protocol):
    """What the pure function needs of an array; NumPy, JAX, torch and CuPy arrays all have it."""

    @property
    def shape(self) -> Any: ...
    def __sub__(self, other: Any, /) -> Any: ...


class Components(NamedTuple):
    """The parts of the last loss, detached, for logging.

    Attributes
    ----------
    loss : Tensor
        The value that was returned, weight included. Scalar, nats.
    weight : float or Tensor
        The weight in force at that step: alpha times the warm-up. A scalar tensor where the step
        was one.
    cost : tuple of Tensor
        One tensor per latent group, of the group's shape without its batch axis ([D] for vectors):
        batch mean of ``(z_hat_j - z_j)**2``, unweighted, in squared latent units.
    ignored_cost : tuple of Tensor
        As ``cost``: the batch variance of z_j, which is what dimension j costs when the decoder
        ignores it and the encoder answers with the best constant. No encoder can reduce that: a
        fully collapsed dimension costs its whole prior variance (1 for N(0, 1)). ``cost >=
        ignored_cost`` says that of z_j nothing comes back.
    """

    loss: Tensor
    weight: float | Tensor
    cost: tuple[Tensor, ...]
    ignored_cost: tuple[Tensor, ...]


def latent_reconstruction(
    z: Array | Sequence[Array],
    z_hat: Array | Sequence[Array],
    weight: Any = 1.0,
    *,
    reduction: Reduction = "sum",
) -> Any:
    """LR loss of arrays of any framework: ``weight * mean_i sum_j (z_hat_ij - z_ij)**2``.

    Uses arithmetic, ``.mean(0)`` and ``.sum()`` only, so that NumPy, JAX (under ``jit`` and
    ``grad``) and torch arrays work and the result is a scalar of the same framework.

    Parameters
    ----------
    z : array [B, ...] or a list or tuple of them
        The ELBO's own posterior sample(s), gradient attached. Axis 0 is the batch: fold importance
        samples into it.
    z_hat : like ``z``
        The encoder's mean(s) at the reconstruction, ``E_mu(D(z))``.
    weight : float or scalar array
        alpha, nats per squared latent unit.
    reduction : {"sum", "mean"}
        Over all axes but the batch, and over groups. "mean" divides the sum by the number L of
        latent dimensions (of all groups together): alpha with "sum" is the same as ``alpha * L``
        with "mean".

    Returns
    -------
    scalar array
        Nats. Computed in the arrays' own precision: hand in float32 or better.

    Raises
    ------
    InputError
        Shapes that differ (broadcasting would compare the wrong entries), an empty batch, another
        reduction.

    Notes
    -----
    Song, Kim, Lee 2025, arXiv 2508.12530. The loss is not zero at the optimum of a VAE: for a
    linear-Gaussian model with posterior variances v_j it is ``sum_j v_j**2``.
    """
    _check_reduction(reduction)
    pairs = _pairs(z, z_hat)
    total = sum(_cost(ours, theirs).sum() for ours, theirs in pairs)
    return weight * total / (_latent_size(pairs) if reduction == "mean" else 1)


class LatentReconstruction(nn.Module):
    """LR loss with its warm-up and its parts, to be added to a negative ELBO.

    ::

        lr = ck.remedies.LatentReconstruction(weight=5.0, beta=beta, warmup_steps=1000, noise=0.1)
        mean, scale = vae.encode(x)
        z = mean + scale * torch.randn_like(scale)
        x_hat = vae.decode(z)
        loss = negative_elbo(x, x_hat, mean, scale) + lr(z, vae.encode(lr.perturb(x_hat))[0], step)

    One more encoder pass, ``x_hat`` reused (the mean in data space: after the sigmoid for Bernoulli
    likelihoods; a conditional model encodes it with the same condition). The module has no
    parameters and one buffer.

    Parameters
    ----------
    weight : float
        alpha in nats per squared latent unit, for a loss that sums its negative log-likelihood over
        the data's dimensions; or a multiple of ``beta`` where that is given. 3 to 10 times beta is
        a good range, 0.1 times does nothing, 30 times costs reconstruction (measured on ReLU MLPs;
        beta is sigma^2 in ``0.5 * SSE + beta * KL``). Do not anneal it away at the end: the units
        fade again.
    warmup_steps : int
        Optimiser steps over which the weight rises linearly from 0; 0 for none. 25 to 50 % of
        training is good.
    beta : float, optional
        The weight of the KL term. Where given, alpha is ``weight * beta``.
    reduction : {"sum", "mean"}
        As for :func:`latent_reconstruction`: "mean" is "sum" divided by the latent size L.
    noise : float
        Standard deviation, in units of the data, of the noise that :meth:`perturb` adds to
        ``x_hat``. 0.1 for data in [0, 1] makes a code that hides in imperceptible pixel changes
        expensive.
    allow_detached : bool
        Accept a ``z`` or ``z_hat`` without gradient while training. With ``z.detach()``, decoded
        afresh, it is the negative control: activity without information (docs/remedies.md).

    Attributes
    ----------
    components : Components or None
        The parts of the last call, detached; None before the first.
    steps : Tensor
        Buffer, int64 scalar: optimiser steps counted by :meth:`follow`; saved with the state dict.

    Raises
    ------
    InputError
        An argument out of its range.

    Notes
    -----
    Steps are optimiser steps, and the module never counts its own calls, which under gradient
    accumulation are several per step. Either the step is given in the call, or :meth:`follow` takes
    it from the optimiser.

    Computed in float32 (float64 where the latents are) also under autocast. Under
    DistributedDataParallel call it inside the wrapped module's ``forward``, as the second encoder
    pass belongs there; every rank averages over its own batch.

    Song, Kim, Lee 2025, arXiv 2508.12530.
    """

    steps: Tensor

    def __init__(
        self,
        weight: float,
        warmup_steps: int = 0,
        *,
        beta: float | None = None,
        reduction: Reduction = "sum",
        noise: float = 0.0,
        allow_detached: bool = False,
    ) -> None:
        super().__init__()
        _check_number("weight", weight)
        _check_number("noise", noise)
        if beta is not None:
            _check_number("beta", beta)
        if not float(warmup_steps).is_integer() or warmup_steps < 0:
            raise InputError(
                "warmup_steps cannot be used",
                got=repr(warmup_steps),
                expected="a whole number of optimiser steps, 0 or more",
                remedy="for a share of training: int(share * epochs * batches_per_epoch)",
            )
        _check_reduction(reduction)
        self.weight = float(weight)
        self.beta = None if beta is None else float(beta)
        self.warmup_steps = int(warmup_steps)
        self.reduction: Reduction = reduction
        self.noise = float(noise)
        self.allow_detached = allow_detached
        self.components: Components | None = None
        self._following = False  # beside the hook, because torch.compile cannot look at that
        self._hook: RemovableHandle | None = None
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @property
    def alpha(self) -> float:
        """Weight after the warm-up, in nats per squared latent unit."""
        return self.weight if self.beta is None else self.weight * self.beta

    def forward(
        self,
        z: Tensor | Sequence[Tensor],
        z_hat: Tensor | Sequence[Tensor],
        step: int | Tensor | None = None,
    ) -> Tensor:
        """Weighted LR loss of one batch.

        Parameters
        ----------
        z : Tensor [B, ...] or a list or tuple of them
            The ELBO's own sample, per latent group, with its gradient.
        z_hat : like ``z``
            The encoder's mean at ``x_hat``.
        step : int or scalar Tensor, optional
            Optimiser steps made so far, 0 in the first. Without it the count of :meth:`follow` is
            used.

        Returns
        -------
        Tensor
            Scalar, nats, float32 or float64.

        Raises
        ------
        InputError
            Shapes differ; training with a z or z_hat that carries no gradient; a warm-up without a
            step.
        """
        pairs = _pairs(z, z_hat)
        if self.training and torch.is_grad_enabled() and not self.allow_detached:
            for ours, theirs in pairs:
                _check_attached(ours, theirs)
        pairs = [_in_float32(ours, theirs) for ours, theirs in pairs]
        cost = [_cost(ours, theirs) for ours, theirs in pairs]
        total = torch.stack([group.sum() for group in cost]).sum()
        weight = self._weight_at(step)
        loss: Tensor = weight * total
        if self.reduction == "mean":
            loss = loss / _latent_size(pairs)
        self.components = Components(
            loss=loss.detach(),
            weight=weight,
            cost=tuple(group.detach() for group in cost),
            ignored_cost=tuple(ours.detach().var(0, correction=0) for ours, _ in pairs),
        )
        return loss

    def perturb(self, x_hat: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Reconstruction with N(0, ``noise``^2) added, to be encoded for ``z_hat``.

        In evaluation mode, or with ``noise=0``, it is returned unchanged.

        Parameters
        ----------
        x_hat : Tensor [B, ...]
            Mean reconstruction in data space. It keeps its gradient.
        generator : torch.Generator, optional
            On the device of ``x_hat``; the global one of that device otherwise.

        Returns
        -------
        Tensor [B, ...]
            Same dtype.
        """
        if self.noise == 0.0 or not self.training:
            return x_hat
        noise = torch.randn(
            x_hat.shape, generator=generator, dtype=x_hat.dtype, device=x_hat.device
        )
        return x_hat + self.noise * noise

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the step from this optimiser's own steps, so that it need not be given in the call.

        Exact under gradient accumulation, and under a GradScaler, which leaves out the steps that
        overflow. The count starts from the buffer ``steps``, so a loaded state dict resumes it. To
        be called again on a copied or unpickled module, and with the new optimiser where that is
        replaced.

        Parameters
        ----------
        optimizer : torch.optim.Optimizer
            The one that trains the encoder and decoder.
        """
        if self._hook is not None:
            self._hook.remove()
        self._hook = optimizer.register_step_post_hook(self._count)
        self._following = True

    def extra_repr(self) -> str:
        """Fields that decide the loss, for ``print(module)``."""
        return (
            f"weight={self.weight:g}, warmup_steps={self.warmup_steps}, beta={self.beta}, "
            f"reduction={self.reduction!r}, noise={self.noise:g}"
        )

    def __getstate__(self) -> dict[str, Any]:
        # The optimiser's hook stays with the original: a copy that believed to follow would never
        # warm up.
        return {**self.__dict__, "_following": False, "_hook": None}

    def _count(self, *_: object) -> None:
        self.steps += 1

    def _weight_at(self, step: int | Tensor | None) -> float | Tensor:
        if self.warmup_steps == 0:
            return self.alpha
        if step is None:
            if not self._following:
                raise InputError(
                    "LatentReconstruction has a warm-up but no step to place it at",
                    got=f"warmup_steps={self.warmup_steps}, no step, no optimiser",
                    expected="the number of optimiser steps made so far",
                    remedy="lr(z, z_hat, step), or once before training lr.follow(optimizer); "
                    "calls are not counted: gradient accumulation makes several per step",
                )
            step = self.steps
        if isinstance(step, Tensor):  # stays on its device: no synchronisation
            return self.alpha * (step / self.warmup_steps).clamp(0.0, 1.0)
        if step < 0:
            raise InputError(
                "step cannot be used",
                got=repr(step),
                expected="the number of optimiser steps made so far, 0 or more",
                remedy="count from 0",
            )
        return self.alpha * min(1.0, step / self.warmup_steps)


def _cost(z: Any, z_hat: Any) -> Any:
    error = z_hat - z
    return (error * error).mean(0)


def _latent_size(pairs: Sequence[tuple[Any, Any]]) -> int:
    return sum(math.prod(z.shape[1:]) for z, _ in pairs)


def _in_float32(z: Tensor, z_hat: Tensor) -> tuple[Tensor, Tensor]:
    # In bfloat16 a batch mean of squares keeps two digits.
    dtype = torch.promote_types(torch.promote_types(z.dtype, z_hat.dtype), torch.float32)
    return z.to(dtype), z_hat.to(dtype)


def _pairs(z: Any, z_hat: Any) -> list[tuple[Any, Any]]:
    """Latent groups, each with what came back of it; refuses what would broadcast."""
    groups, others = _groups(z), _groups(z_hat)
    shapes = [tuple(group.shape) for group in groups], [tuple(group.shape) for group in others]
    # A tensor beside a list of one is a slip as well: encode() returns (mean, scale).
    if shapes[0] != shapes[1] or isinstance(z, list | tuple) != isinstance(z_hat, list | tuple):
        raise InputError(
            "z and z_hat do not have the same shape",
            got=f"z {_shown(z)}, z_hat {_shown(z_hat)}",
            expected="z_hat of exactly z's shape, group by group "
            "(broadcasting would compare the wrong entries)",
            remedy="pass the posterior mean alone, as in lr(z, vae.encode(x_hat)[0], step)",
        )
    if not groups or any(not shape or shape[0] == 0 for shape in shapes[0]):
        raise InputError(
            "z has no samples",
            got=_shown(z),
            expected="shape [batch, ...] with at least one sample",
            remedy="leave out empty batches; a single code needs a batch axis of 1",
        )
    return list(zip(groups, others, strict=True))


def _groups(z: Any) -> list[Any]:
    groups = list(z) if isinstance(z, list | tuple) else [z]
    for group in groups:
        if not hasattr(group, "shape"):
            raise InputError(
                "a latent code is not an array",
                got=type(group).__name__,
                expected="an array [batch, ...], or a list or tuple of them, one per latent group",
                remedy="of a distribution, pass rsample() for z and its mean for z_hat",
            )
    return groups


def _shown(z: Any) -> str:
    if isinstance(z, list | tuple):
        return f"{len(z)} group(s) of shapes " + ", ".join(str(tuple(group.shape)) for group in z)
    return f"one array of shape {tuple(z.shape)}"


def _check_attached(z: Tensor, z_hat: Tensor) -> None:
    if not z.requires_grad:
        raise InputError(
            "LatentReconstruction was given a z without gradient",
            got=f"z {tuple(z.shape)}, requires_grad False, while training",
            expected="the ELBO's own sample, mean + scale * noise, with its gradient",
            remedy="leave out detach(), no_grad() and sample() (use rsample()). Without it decoder "
            "and encoder agree on a code hidden in imperceptible changes of x_hat "
            "(steganography): active units rise, information does not. "
            "allow_detached=True accepts it all the same",
        )
    if not z_hat.requires_grad:
        raise InputError(
            "LatentReconstruction was given a z_hat without gradient",
            got=f"z_hat {tuple(z_hat.shape)}, requires_grad False, while training",
            expected="the encoder's mean at x_hat, with its gradient",
            remedy="encode x_hat outside no_grad() and without detach(): cut off, the loss only "
            "shrinks the posterior's variance. allow_detached=True accepts it all the same",
        )


def _check_number(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0.0):
        raise InputError(
            f"{name} cannot be used",
            got=repr(value),
            expected="a finite number, 0 or more",
            remedy=f"set {name} >= 0",
        )


def _check_reduction(reduction: str) -> None:
    if reduction not in ("sum", "mean"):
        raise InputError(
            "reduction is not known",
            got=repr(reduction),
            expected="'sum' or 'mean' over the latent dimensions (always a mean over the batch)",
            remedy="'sum' with weight alpha equals 'mean' with weight alpha * L",
        )
