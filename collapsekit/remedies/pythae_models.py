"""The LR loss in pythae: any of its Gaussian VAEs, trained with pythae's own trainers.

    model = BetaVAE(config)
    ck.remedies.repair_pythae(model, ck.remedies.LatentReconstruction(5.0, beta=config.beta))
    TrainingPipeline(model=model, training_config=training)(train_data=images)

Imports no pythae: the model brings its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from collapsekit.errors import InputError
from collapsekit.remedies.lr_loss import LatentReconstruction, latent_reconstruction

__all__ = ["repair_pythae"]

# What pythae's trainers take the gradient of; coupled trainers take another than "loss".
_LOSSES = ("loss", "autoencoder_loss")


def repair_pythae(model: Any, lr: LatentReconstruction) -> Any:
    """Add the LR loss to what a pythae model returns as its loss, in place.

    Parameters
    ----------
    model : pythae VAE
        Any that samples its code from a Gaussian posterior: VAE, BetaVAE, BetaTCVAE, IWAE, VAMP,
        VAE_IAF, FactorVAE and so on. Its data, encoder, decoder, config, save and reload stay as
        they are: a saved model is a plain pythae model without the LR loss.
    lr : LatentReconstruction
        ``warmup_steps`` counts training batches; pythae makes one optimiser step for each.

    Returns
    -------
    pythae VAE
        The same object, of a subclass of its class.

    Raises
    ------
    InputError
        Not a pythae VAE with a Gaussian sample, or one trained by several losses (VAEGAN).

    Notes
    -----
    pythae's VAE has beta 1 in ``0.5 * SSE + KL`` summed over pixels, its "bce" likewise. Its
    trainers keep the model of the best epoch, by training loss where there is no evaluation set; a
    loss that grows with the warm-up would make that an early epoch. So the returned value carries
    the full weight in every epoch, and only its gradient is warmed up.
    """
    if not isinstance(model, nn.Module) or not all(
        hasattr(model, name) for name in ("encoder", "decoder", "_sample_gauss", "model_config")
    ):
        raise InputError(
            "this is no pythae VAE with a Gaussian posterior",
            got=type(model).__name__,
            expected="a model of pythae that inherits its VAE",
            remedy="deterministic autoencoders have no posterior that could collapse",
        )
    repaired = type(f"{type(model).__name__}WithLR", (_Repaired, type(model)), {})
    # Beside torch's registry: as a submodule it would enter the state dict, which pythae could then
    # not load again.
    model.__dict__.update(lr=lr, _batches=0, _drawn=None)
    model.__class__ = repaired
    return model


class _Repaired:
    """What is overridden; inherited before the model's own class."""

    lr: LatentReconstruction
    encoder: Any
    training: bool
    _batches: int
    _drawn: Tensor | None

    def forward(self, inputs: Any, **kwargs: Any) -> Any:
        """The model's own forward with the LR loss on its own sample and reconstruction."""
        try:
            output = super().forward(inputs, **kwargs)  # type: ignore[misc]
            z = self._code(output)
        finally:
            self._drawn = None  # pythae copies its models, and no copy can be made of a graph
        losses = [name for name in _LOSSES if name in output]
        if not losses or "encoder_loss" in output:
            raise InputError(
                "this model is trained by several losses",
                got=", ".join(output.keys()),
                expected=f"one loss: {' or '.join(_LOSSES)}",
                remedy="add lr(z, z_hat, step) to those losses in a subclass of your own",
            )
        self.lr.train(self.training)
        z_hat = self.encoder(self.lr.perturb(output["recon_x"])).embedding
        term = self.lr(z, z_hat, self._batches)
        whole = latent_reconstruction(z, z_hat, self.lr.alpha, reduction=self.lr.reduction)
        term = term + (whole - term).detach()  # value at full weight, gradient at the warm-up's
        self._batches += int(self.training and torch.is_grad_enabled())
        for name in losses:
            output[name] = output[name] + term
        return output

    def _sample_gauss(self, mean: Tensor, scale: Tensor) -> Any:
        drawn = super()._sample_gauss(mean, scale)  # type: ignore[misc]
        if self._drawn is None:  # the first is the posterior's sample of this batch
            self._drawn = drawn[0]
        return drawn

    def _code(self, output: Any) -> Tensor:
        """The sample whose mean the encoder gives: before a flow, after Hamiltonian steps."""
        z: Tensor = output["z"]
        drawn = self._drawn
        # Importance samples come with more axes; their output is the first, and so is recon_x.
        if drawn is None or drawn.shape != z.shape or "z0" in output:
            return z
        return drawn
