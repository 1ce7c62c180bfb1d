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
from benchmarks.zoo_parts.nets import NETS
from collapsekit.remedies import LatentReconstruction, floored_kl, scale_penalty

BATCH = 100


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. Loss: 0.5 SSE (Gaussian) or cross-entropy (Bernoulli) + beta KL.

    A learned width s of the outputs makes it 0.5 SSE / s^2 + pixels ln s + beta KL.

    Attributes
    ----------
    data, net, likelihood : str
        As `images.load`'s; a key of `NETS`; "gaussian", "bernoulli", "learned" (Gaussian).
    latent, beta, epochs, seed
    method : str
        "plain"; "detached" (the LR loss with z detached, weight `strength` x beta); "floored" (KL
        floor of `strength` nats a dimension); "narrowed" (a penalty on variances, `strength` x
        beta); "pale ignored" (samples of little ink pay 100 times the KL); "pale halved" (in half
        of the dimensions); "deaf" (the decoder never sees the code); "rank" (means confined to
        three dimensions); "exact" (posterior standard deviation `strength` for all, no KL);
        "full" (posteriors of full covariance).
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
    """Body, head and decoder; Gaussian posterior; `decode` gives means or logits of the images.

    The second part of `encode` is the posterior's standard deviations [N, D], or the lower factor
    of its covariance [N, D, D].
    """

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
        if recipe.method == "full":
            self.below = nn.Linear(width, latent * (latent - 1) // 2)
        if recipe.likelihood == "learned":
            self.log_width = nn.Parameter(torch.tensor(-1.0))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x)
        mean = self.mean(features)
        if self.basis is not None:
            mean = mean @ self.basis
        scale = (0.5 * self.log_variance(features).clamp(-18, 6)).exp()
        if hasattr(self, "below"):
            return mean, _lower(scale, self.below(features))
        return mean, torch.full_like(scale, self.fixed) if self.fixed else scale

    def decode(self, z: Tensor) -> Tensor:
        x_hat: Tensor = self.decoder(z * 0.0 if self.deaf else z)
        return x_hat


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
            z = drawn(mean, scale, generator)
            kl = kl_parts(mean, scale)
            loss = _misfit(recipe, vae, vae.decode(z), x).sum() / BATCH
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


def _lower(scale: Tensor, below: Tensor) -> Tensor:
    """Lower-triangular factors [N, D, D]: `scale` on the diagonal, `below` under it."""
    dims = scale.shape[1]
    rows, columns = torch.tril_indices(dims, dims, offset=-1)
    factor = torch.diag_embed(scale)
    factor[:, rows, columns] = below
    return factor


def drawn(mean: Tensor, scale: Tensor, generator: torch.Generator) -> Tensor:
    """One draw of each posterior."""
    noise = torch.randn(mean.shape, generator=generator)
    if scale.dim() == 3:
        return mean + (scale @ noise.unsqueeze(2)).squeeze(2)
    return mean + scale * noise


def kl_parts(mean: Tensor, scale: Tensor) -> Tensor:
    """Nats [N, D] whose sum over D is the KL; each dimension's own where posteriors factorise."""
    if scale.dim() == 3:
        variance, diagonal = scale.square().sum(dim=2), scale.diagonal(dim1=1, dim2=2)
        return 0.5 * (mean.square() + variance - 1.0) - diagonal.log()
    variance = scale.square()
    return 0.5 * (mean.square() + variance - 1.0 - variance.log())


def to_data(recipe: Recipe, output: Tensor) -> Tensor:
    return output.sigmoid() if recipe.likelihood == "bernoulli" else output


def output_width(recipe: Recipe, vae: VAE) -> float | None:
    """Standard deviation of Gaussian outputs; None where they are Bernoulli.

    0.5 SSE + beta KL is beta times the loss of outputs of variance beta with a KL weight of 1.
    """
    if recipe.likelihood == "bernoulli":
        return None
    return (
        float(vae.log_width.detach().exp())
        if recipe.likelihood == "learned"
        else math.sqrt(recipe.beta)
    )


def nats(width: float | None, output: Tensor, x: Tensor) -> Tensor:
    """Negative log-likelihood of each pixel, without a Gaussian's constant."""
    if width is None:
        return nn.functional.binary_cross_entropy_with_logits(output, x, reduction="none")
    return 0.5 * (output - x).square() / width**2


def _misfit(recipe: Recipe, vae: VAE, output: Tensor, x: Tensor) -> Tensor:
    if recipe.likelihood == "learned":
        return 0.5 * (output - x).square() * (-2 * vae.log_width).exp() + vae.log_width
    return nats(None if recipe.likelihood == "bernoulli" else 1.0, output, x)


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
