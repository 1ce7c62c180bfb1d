"""A plain PyTorch loop: two lines repair a collapsing VAE, and a monitor tells whether they did.

    python examples/train_plain_loop.py            10 seconds of CPU
    python examples/train_plain_loop.py --quick    a few epochs, to see it run

The handwritten digits that ship with scikit-learn, 32 latent units. Without the LR loss most units
end up carrying nothing; with it nearly all of them carry information.
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import collapsekit as ck

LATENT, BATCH = 32, 128
BETA = 0.1  # the loss is 0.5 * SSE + BETA * KL, so BETA is the likelihood's variance


class VAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 2 * LATENT)
        )
        self.decoder = nn.Sequential(
            nn.Linear(LATENT, 64), nn.ReLU(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64)
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return mean, (0.5 * log_variance).exp()

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)


def train(x: Tensor, held_out: Tensor, epochs: int, repaired: bool) -> dict[str, float]:
    torch.manual_seed(0)
    vae = VAE()
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3)
    steps = epochs * (len(x) // BATCH)

    # Line 1 of the repair. The weight is in multiples of beta; it rises over a quarter of the
    # training; a little noise on the pixels keeps the code from hiding in invisible changes.
    lr = ck.remedies.LatentReconstruction(3.0, warmup_steps=steps // 4, beta=BETA, noise=0.1)

    monitor = ck.monitors.CollapseMonitor(held_out, likelihood=("gaussian", BETA**0.5))
    step = 0
    for _ in range(epochs):
        for batch in x[torch.randperm(len(x))].split(BATCH):
            if len(batch) < BATCH:  # a small last batch would weigh as much as a whole one
                continue
            mean, scale = vae.encode(batch)
            z = mean + scale * torch.randn_like(scale)
            x_hat = vae.decode(z)
            kl = 0.5 * (mean.square() + scale.square() - 1 - 2 * scale.log()).sum() / BATCH
            loss = 0.5 * (x_hat - batch).square().sum() / BATCH + BETA * kl
            if repaired:
                # Line 2: encode the reconstruction again and ask for the code back. z is the
                # ELBO's own sample, with its gradient.
                loss = loss + lr(z, vae.encode(lr.perturb(x_hat))[0], step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        if monitor.due():  # keeps all checks within 2 % of the training time
            monitor.check(vae, step)
    return monitor.check(vae, step)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="3 epochs instead of 150")
    epochs = 3 if parser.parse_args().quick else 150
    torch.set_num_threads(1)
    digits = torch.tensor(load_digits().data / 16.0, dtype=torch.float32)
    digits = digits[torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))]
    x, held_out = digits[:1437], digits[1437:]
    print(f"{'':8s} {'active':>7s} {'at 0.1':>7s} {'informative':>12s} {'rate':>6s}  (held out)")
    for name, repaired in (("vanilla", False), ("LR", True)):
        told = train(x, held_out, epochs, repaired)
        print(
            f"{name:8s} {told['active_fraction']:7.2f} {told['active_fraction_0.1']:7.2f} "
            f"{told['informative_fraction']:12.2f} {told['rate']:6.1f}"
        )


if __name__ == "__main__":
    main()
