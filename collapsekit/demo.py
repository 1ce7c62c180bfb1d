"""The models of ``make demo``: a VAE that collapses and its repaired twin, on the digits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from collapsekit.remedies import LatentReconstruction

__all__ = ["DigitsVAE", "Setting", "digits", "train"]

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Setting:
    """One training setting; the defaults collapse without the LR loss and do not with it.

    Attributes
    ----------
    latent : int
        Latent dimensions.
    beta : float
        Weight of the KL term beside ``0.5 * SSE`` summed over pixels; so it is the likelihood's
        variance, and an audit takes ``("gaussian", beta ** 0.5)``.
    weight : float
        The LR loss's weight, in the same units as beta.
    noise : float
        Its pixel noise, standard deviation; pixels lie in [0, 1].
    warmup : float
        Its linear warm-up as a share of all steps.
    epochs, batch : int
    rate : float
        Adam's learning rate.
    """

    latent: int = 32
    beta: float = 0.1
    weight: float = 0.1
    noise: float = 0.1
    warmup: float = 0.25
    epochs: int = 150
    batch: int = 128
    rate: float = 1e-3


_SETTING = Setting()


class DigitsVAE(nn.Module):
    """ReLU MLP VAE 64-128-64-L and back, for 8 x 8 images, its posterior a diagonal Gaussian.

    Parameters
    ----------
    latent : int
        Latent dimensions L.
    """

    def __init__(self, latent: int = 32) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, 128),
            nn.ReLU(),
            nn.Linear(128, 64),
            nn.ReLU(),
            nn.Linear(64, 2 * latent),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent, 64),
            nn.ReLU(),
            nn.Linear(64, 128),
            nn.ReLU(),
            nn.Linear(128, 64),
            nn.Unflatten(1, (1, 8, 8)),
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and scale (a standard deviation), each [N, L], of images [N, 1, 8, 8]."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return mean, (0.5 * log_variance).exp()

    def decode(self, z: Tensor) -> Tensor:
        """Mean reconstruction [N, 1, 8, 8] in pixel units (0 to 1, not clipped) of codes [N, L]."""
        return cast(Tensor, self.decoder(z))


def digits() -> tuple[Images, Labels, Images, Labels]:
    """The handwritten digits that ship with scikit-learn, split 80/20 with a fixed seed.

    Returns
    -------
    train_x, train_y, test_x, test_y
        Images float32 [1437 or 360, 1, 8, 8] in [0, 1]; labels int64, the digit.

    Notes
    -----
    Alpaydin and Kaynak 1998, UCI Optical Recognition of Handwritten Digits (its test part, 1797
    images).
    """
    # Imported here: whoever brings their own images need not have it.
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = (images / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], labels[order].astype(np.int64)
    cut = int(0.8 * len(images))
    return images[:cut], labels[:cut], images[cut:], labels[cut:]


def train(
    images: Images,
    *,
    repaired: bool,
    seed: int = 0,
    setting: Setting = _SETTING,
    progress: Callable[[int, int], None] | None = None,
) -> DigitsVAE:
    """Train one VAE: ``0.5 * SSE + beta * KL``, plus the LR loss where it is to be repaired.

    Parameters
    ----------
    images : array [N, 1, 8, 8]
        Training images, float32 in [0, 1].
    repaired : bool
        Add the LR loss.
    seed : int
        Of the initial weights, batches and noise; the global generators are not touched.
    setting : Setting
        The rest.
    progress : callable, optional
        Called after every epoch with the epochs done and the epochs in all.

    Returns
    -------
    DigitsVAE
        On the CPU, in evaluation mode. The same for the same seed, machine and number of threads.

    Notes
    -----
    2 to 3 seconds of CPU at the default setting.
    """
    generator = torch.Generator()
    with torch.random.fork_rng(devices=[]):
        # Layers draw their weights from the global generator: seeded here, given back after. Ours
        # goes on where it stopped, so that weights and noise do not come from the same numbers.
        torch.default_generator.manual_seed(seed)
        vae = DigitsVAE(setting.latent)
        generator.set_state(torch.default_generator.get_state())
    x_all = torch.as_tensor(images)
    # A last, smaller batch would take a full step on a noisier gradient: its rows are left out of
    # this epoch, others of the next.
    batch = min(setting.batch, len(x_all))
    batches = len(x_all) // batch
    lr = LatentReconstruction(
        setting.weight,
        warmup_steps=int(setting.warmup * setting.epochs * batches),
        noise=setting.noise,
    )
    optimizer = torch.optim.Adam(vae.parameters(), lr=setting.rate)
    step = 0
    for epoch in range(setting.epochs):
        order = torch.randperm(len(x_all), generator=generator)
        for first in range(0, batches * batch, batch):
            x = x_all[order[first : first + batch]]
            mean, scale = vae.encode(x)
            z = mean + scale * torch.randn(scale.shape, generator=generator)
            x_hat = vae.decode(z)
            variance = scale.square()
            kl = 0.5 * (mean.square() + variance - 1.0 - variance.log()).sum() / len(x)
            loss = 0.5 * (x_hat - x).square().sum() / len(x) + setting.beta * kl
            if repaired:
                loss = loss + lr(z, vae.encode(lr.perturb(x_hat, generator))[0], step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        if progress is not None:
            progress(epoch + 1, setting.epochs)
    return vae.eval()
