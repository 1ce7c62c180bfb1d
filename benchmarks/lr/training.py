"""One VAE in training, a step at a time, by each of the methods that are compared.

Loss: 0.5 * SSE summed over pixels + beta * KL + the method's own term; Adam; batches without a
short last one.
"""

from __future__ import annotations

import time
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from collapsekit.remedies import (
    BatchNormMean,
    LatentReconstruction,
    cyclical_annealing,
    floored_kl,
    linear_annealing,
    scale_penalty,
)

Method = Literal[
    "vanilla",
    "lr",
    "sigma",  # the LR loss's effect on the posterior's width, no round trip
    "detached",  # LR with z detached: decoder and encoder agree on a code, the negative control
    "half beta",
    "annealing",  # linear, over the first half
    "cyclical",
    "free bits",  # 0.1 nat a dimension
    "batch norm",  # of the mean, gamma 0.5
]


class Setting(Protocol):
    """What training needs to know; `settings.Benchmark` has it."""

    @property
    def widths(self) -> tuple[int, int, int]: ...
    @property
    def beta(self) -> float: ...
    @property
    def epochs(self) -> int: ...
    @property
    def noise(self) -> float: ...


class VAE(nn.Module):
    """ReLU MLP of three layers and back; takes and gives images flat."""

    def __init__(self, widths: tuple[int, int, int], latent: int, gamma: float | None) -> None:
        super().__init__()
        a, b, c = widths
        self.encoder = nn.Sequential(
            nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c), nn.ReLU(), nn.Linear(c, 2 * latent)
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent, c), nn.ReLU(), nn.Linear(c, b), nn.ReLU(), nn.Linear(b, a)
        )
        self.normalise = None if gamma is None else BatchNormMean(latent, gamma)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        if self.normalise is not None:
            mean = self.normalise(mean)
        return mean, (0.5 * log_variance).exp()

    def decode(self, z: Tensor) -> Tensor:
        x_hat: Tensor = self.decoder(z)
        return x_hat


class Trainer:
    """One model in training; several of them can be advanced alternately, to be timed."""

    def __init__(
        self,
        setting: Setting,
        method: Method,
        weight: float,
        x: Tensor,
        seed: int,
        *,
        latent: int,
        batch: int,
        rate: float,
        warmup: float,
    ) -> None:
        self.method, self.x, self.batch, self.latent = method, x, batch, latent
        self.beta = setting.beta / 2 if method == "half beta" else setting.beta
        self.generator = torch.Generator()
        with torch.random.fork_rng(devices=[]):
            # Layers draw from the global generator: seeded here, given back after.
            torch.default_generator.manual_seed(seed)
            gamma = 0.5 if method == "batch norm" else None
            self.vae = VAE(setting.widths, latent, gamma)
            self.generator.set_state(torch.default_generator.get_state())
        self.batches = len(x) // batch
        self.steps = setting.epochs * self.batches
        self.warmup = int(warmup * self.steps)
        self.lr = LatentReconstruction(
            weight,
            self.warmup,
            beta=self.beta,
            noise=setting.noise,
            allow_detached=method == "detached",
        )
        self.optimizer = torch.optim.Adam(self.vae.parameters(), lr=rate)
        self.step = 0

    def advance(self) -> None:
        first = self.step % self.batches * self.batch
        if first == 0:
            self.order = torch.randperm(len(self.x), generator=self.generator)
        x = self.x[self.order[first : first + self.batch]]
        mean, scale = self.vae.encode(x)
        z = mean + scale * torch.randn(scale.shape, generator=self.generator)
        x_hat = self.vae.decode(z)
        variance = scale.square()
        kl = 0.5 * (mean.square() + variance - 1.0 - variance.log())
        loss = 0.5 * (x_hat - x).square().sum() / self.batch + self._rate(kl)
        if self.method == "lr":
            loss = loss + self._reconstructed(z, x_hat)
        elif self.method == "detached":
            loss = loss + self._reconstructed(z.detach(), self.vae.decode(z.detach()))
        elif self.method == "sigma":
            weight = linear_annealing(self.step, self.warmup, beta=self.lr.alpha)
            loss = loss + scale_penalty(scale, weight)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1

    def _reconstructed(self, z: Tensor, x_hat: Tensor) -> Tensor:
        loss: Tensor = self.lr(
            z, self.vae.encode(self.lr.perturb(x_hat, self.generator))[0], self.step
        )
        return loss

    def _rate(self, kl: Tensor) -> Tensor:
        if self.method == "free bits":
            return self.beta * floored_kl(kl, 0.1)
        beta = self.beta
        if self.method == "annealing":
            beta = linear_annealing(self.step, self.steps // 2, beta=beta)
        elif self.method == "cyclical":
            beta = cyclical_annealing(self.step, self.steps, beta=beta)
        return beta * kl.sum() / self.batch

    def run(self) -> float:
        """Train to the end; seconds of CPU."""
        start = time.process_time()
        while self.step < self.steps:
            self.advance()
        self.vae.eval()
        return time.process_time() - start
