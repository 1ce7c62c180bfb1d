"""Networks and their training, some of it made to go wrong in a known way."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.zoo_parts.images import Images
from collapsekit.remedies import LatentReconstruction, floored_kl, scale_penalty

BATCH = 100


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. Loss: 0.5 SSE (Gaussian) or cross-entropy (Bernoulli) + beta KL.

    Attributes
    ----------
    data, net, likelihood : str
        As `images.load`'s; a key of `NETS`; "gaussian", "bernoulli".
    latent, beta, epochs, seed
    method : str
        "plain"; "detached" (the LR loss with z detached, weight `strength` x beta); "floored" (KL
        floor of `strength` nats a dimension); "narrowed" (a penalty on variances, `strength` x
        beta); "pale ignored" (samples of little ink pay 100 times the KL); "pale halved" (in half
        of the dimensions); "deaf" (the decoder never sees the code); "rank" (means confined to
        three dimensions); "exact" (posterior standard deviation `strength` for all, no KL).
    """

    data: str
    net: str
    likelihood: str
    latent: int
    beta: float
    epochs: int
    seed: int
    method: str = "plain"
    strength: float = 0.0


class VAE(nn.Module):
    """Body, head and decoder; Gaussian posterior; `decode` gives means or logits of the images."""

    def __init__(self, recipe: Recipe, side: int) -> None:
        super().__init__()
        latent = recipe.latent
        self.body, width, self.decoder = NETS[recipe.net](side, latent)
        self.rank = 3 if recipe.method == "rank" else latent
        self.mean, self.log_variance = nn.Linear(width, self.rank), nn.Linear(width, latent)
        # Three independent means, spread evenly over all dimensions by an orthonormal basis.
        turn = 2 * math.pi * torch.arange(latent) / latent
        basis = torch.stack([torch.ones(latent) / 2**0.5, turn.cos(), turn.sin()])
        basis = basis * (2 / latent) ** 0.5
        self.register_buffer("basis", basis if recipe.method == "rank" else None)
        self.fixed = recipe.strength if recipe.method == "exact" else 0.0
        self.deaf = recipe.method == "deaf"

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x)
        mean = self.mean(features)
        if self.basis is not None:
            mean = mean @ self.basis
        scale = (0.5 * self.log_variance(features).clamp(-18, 6)).exp()
        return mean, torch.full_like(scale, self.fixed) if self.fixed else scale

    def decode(self, z: Tensor) -> Tensor:
        x_hat: Tensor = self.decoder(z * 0.0 if self.deaf else z)
        return x_hat


def _mlp(side: int, latent: int) -> tuple[nn.Module, int, nn.Module]:
    pixels = side * side
    body = nn.Sequential(
        nn.Flatten(), nn.Linear(pixels, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU()
    )
    decoder = nn.Sequential(
        nn.Linear(latent, 64),
        nn.ReLU(),
        nn.Linear(64, 128),
        nn.ReLU(),
        nn.Linear(128, pixels),
        nn.Unflatten(1, (1, side, side)),
    )
    return body, 64, decoder


def _conv(side: int, latent: int) -> tuple[nn.Module, int, nn.Module]:
    half, quarter = side // 2, -(-side // 4)
    body = nn.Sequential(
        nn.Conv2d(1, 12, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 24, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24 * quarter**2, 64),
        nn.ReLU(),
    )
    even = half % 2 == 0
    decoder = nn.Sequential(
        nn.Linear(latent, 64),
        nn.ReLU(),
        nn.Linear(64, 24 * quarter**2),
        nn.ReLU(),
        nn.Unflatten(1, (24, quarter, quarter)),
        nn.ConvTranspose2d(24, 12, 3, stride=2, padding=1, output_padding=int(even)),
        nn.ReLU(),
        nn.ConvTranspose2d(12, 1, 3, stride=2, padding=1, output_padding=1),
    )
    return body, 64, decoder


def _deep(side: int, latent: int) -> tuple[nn.Module, int, nn.Module]:
    """Three hidden layers a side, SiLU."""
    pixels, widths = side * side, (160, 96, 48)
    body: list[nn.Module] = [nn.Flatten()]
    for before, after in zip((pixels, *widths[:-1]), widths, strict=True):
        body += [nn.Linear(before, after), nn.SiLU()]
    decoder: list[nn.Module] = []
    for before, after in zip((latent, *widths[:0:-1]), widths[::-1], strict=True):
        decoder += [nn.Linear(before, after), nn.SiLU()]
    decoder += [nn.Linear(widths[0], pixels), nn.Unflatten(1, (1, side, side))]
    return nn.Sequential(*body), widths[-1], nn.Sequential(*decoder)


def _upsampling(side: int, latent: int) -> tuple[nn.Module, int, nn.Module]:
    """Convolutions with group norm and average pooling; the decoder resizes, GELU."""
    half = side // 2
    body = nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2),
        nn.GELU(),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.GroupNorm(4, 16),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(16 * half**2, 96),
        nn.GELU(),
    )
    decoder = nn.Sequential(
        nn.Linear(latent, 96),
        nn.GELU(),
        nn.Linear(96, 8 * half**2),
        nn.GELU(),
        nn.Unflatten(1, (8, half, half)),
        nn.Upsample(size=(side, side), mode="nearest"),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(8, 1, 3, padding=1),
    )
    return body, 96, decoder


#: "mlp" and "conv" are the tuning set's, "deep" and "upsampling" the fresh one's.
NETS = {"mlp": _mlp, "conv": _conv, "deep": _deep, "upsampling": _upsampling}


def ink(x: Tensor) -> Tensor:
    """Mean intensity of each image [N]: what "pale" is said of."""
    return x.flatten(1).mean(dim=1)


def train(recipe: Recipe, images: Images) -> VAE:
    """A network trained from its seed; global random state is left as it was."""
    generator = torch.Generator()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed)
        vae = VAE(recipe, images.side)
        generator.set_state(torch.default_generator.get_state())
    x_all, beta = images.train, recipe.beta
    pale = ink(x_all) < ink(x_all).median()
    batches = len(x_all) // BATCH
    lr = LatentReconstruction(
        recipe.strength if recipe.method == "detached" else 1.0,
        recipe.epochs * batches // 4,
        beta=beta,
        allow_detached=True,
    )
    optimizer = torch.optim.Adam(vae.parameters(), lr=3e-3, fused=True)
    step = 0
    for _ in range(recipe.epochs):
        order = torch.randperm(len(x_all), generator=generator)
        for first in range(0, batches * BATCH, BATCH):
            rows = order[first : first + BATCH]
            x = x_all[rows]
            mean, scale = vae.encode(x)
            z = mean + scale * torch.randn(scale.shape, generator=generator)
            variance = scale.square()
            kl = 0.5 * (mean.square() + variance - 1.0 - variance.log())
            loss = _misfit(recipe, vae.decode(z), x).sum() / BATCH
            # Warmed up over the first half, so that no unit dies of a bad start.
            warm = min(1.0, step / (recipe.epochs * batches / 2))
            loss = loss + warm * beta * _spent(recipe, kl, pale[rows])
            if recipe.method == "detached":
                seen = z.detach()
                again = vae.encode(to_data(recipe, vae.decode(seen)))[0]
                loss = loss + lr(seen, again, step)
            elif recipe.method == "narrowed":
                loss = loss + scale_penalty(scale, recipe.strength * beta)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    return vae.eval()


def to_data(recipe: Recipe, output: Tensor) -> Tensor:
    return output.sigmoid() if recipe.likelihood == "bernoulli" else output


def _misfit(recipe: Recipe, output: Tensor, x: Tensor) -> Tensor:
    if recipe.likelihood == "bernoulli":
        return nn.functional.binary_cross_entropy_with_logits(output, x, reduction="none")
    return 0.5 * (output - x).square()


def _spent(recipe: Recipe, kl: Tensor, pale: Tensor) -> Tensor:
    if recipe.method == "exact":
        return kl.sum() * 0.0
    if recipe.method == "floored":
        return floored_kl(kl, recipe.strength)
    weight = torch.ones_like(kl)
    if recipe.method == "pale ignored":
        weight[pale] = 100.0
    elif recipe.method == "pale halved":
        weight[pale, recipe.latent // 2 :] = 100.0
    return (weight * kl).sum() / len(kl)


def cached(recipe: Recipe, images: Images, folder: Path) -> VAE:
    """The trained network from `folder`, trained now and stored where it is not there yet."""
    key = hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]
    file = folder / f"{recipe.data}-{recipe.net}-{recipe.method.replace(' ', '-')}-{key}.pt"
    if file.exists():
        with torch.random.fork_rng(devices=[]):
            vae = VAE(recipe, images.side)
        vae.load_state_dict(torch.load(file, weights_only=True))
        return vae.eval()
    begin = time.process_time()
    vae = train(recipe, images)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(vae.state_dict(), file)
    spent = folder / "seconds.txt"
    with spent.open("a", encoding="utf-8") as log:
        log.write(f"{time.process_time() - begin:.1f} {file.name}\n")
    return vae
