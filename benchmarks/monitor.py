"""What CollapseMonitor costs beside the training that it watches: CPU time, one thread.

    python benchmarks/monitor.py [--quick]

A 784-256-128-32 ReLU VAE (0.5 * SSE + beta * KL, Adam, batch 128), plain and with the LR loss, on
made images of a Fashion-MNIST epoch's size, checked at default settings. Three things are printed:

    check ms    CPU of one check of the trained model
    share       checks at every epoch end over the CPU of an epoch of 20,000 and of 60,000 images
    in budget   the same where `due` is asked, as the Lightning callback does, over --epochs epochs
                of 20,000 images: what the default budget of 2 % promises

Exit code 1 where the last is above 2 %.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import collapsekit as ck

LATENT, BATCH, BETA = 32, 128, 0.1


class VAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 64)
        )
        self.decoder = nn.Sequential(
            nn.Linear(LATENT, 128), nn.ReLU(), nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 784)
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return mean, (0.5 * log_variance).exp()

    def decode(self, z: Tensor) -> Tensor:
        x_hat: Tensor = self.decoder(z)
        return x_hat


def images(n: int, seed: int) -> Tensor:
    """Sixty-four factors of falling variance behind fixed patterns, and pixel noise, in [0, 1]."""
    patterns = torch.randn(64, 784, generator=torch.Generator().manual_seed(0)) / 3
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(n, 64, generator=generator) * (0.9 ** torch.arange(64))
    return (factors @ patterns + 0.05 * torch.randn(n, 784, generator=generator)).sigmoid()


def epoch(vae: VAE, lr: ck.remedies.LatentReconstruction | None, x: Tensor, adam: object) -> float:
    """One epoch; its CPU seconds."""
    begin = time.process_time()
    order = torch.randperm(len(x))
    for first in range(0, len(x) - BATCH + 1, BATCH):
        batch = x[order[first : first + BATCH]]
        mean, scale = vae.encode(batch)
        z = mean + scale * torch.randn_like(scale)
        x_hat = vae.decode(z)
        kl = 0.5 * (mean.square() + scale.square() - 1.0 - 2.0 * scale.log()).sum() / BATCH
        loss = 0.5 * (x_hat - batch).square().sum() / BATCH + BETA * kl
        if lr is not None:
            loss = loss + lr(z, vae.encode(x_hat)[0])
        adam.zero_grad()
        loss.backward()
        adam.step()
    return time.process_time() - begin


def measure(repaired: bool, x: Tensor, epochs: int) -> dict[str, float]:
    torch.manual_seed(0)
    vae = VAE()
    lr = ck.remedies.LatentReconstruction(10.0, beta=BETA) if repaired else None
    adam = torch.optim.Adam(vae.parameters(), lr=1e-3)
    held_out = images(4_096, seed=2)

    def monitor() -> ck.monitors.CollapseMonitor:
        made = ck.monitors.CollapseMonitor(held_out, likelihood=("gaussian", BETA**0.5))
        made._rows()  # reading the data is not part of a check
        return made

    epoch(vae, lr, x[: 10 * BATCH], adam)
    watch = monitor()
    training, checks = 0.0, 0.0
    for number in range(epochs):
        training += epoch(vae, lr, x, adam)
        if watch.due():
            begin = time.process_time()
            watch.check(vae, number)
            checks += time.process_time() - begin
    singles = []
    alone = monitor()
    for number in range(6):
        begin = time.process_time()
        values = alone.check(vae, number)
        singles.append(time.process_time() - begin)
    check = statistics.median(singles[1:])
    small = training / epochs * 20_000 / len(x)
    return {
        "epoch of 20,000, s": small,
        "check, ms": 1e3 * check,
        "share at every epoch, 20,000": check / small,
        "share at every epoch, 60,000": check / (3.0 * small),
        "share in budget": checks / training,
        "checks in budget": float(len(watch.history["step"])),
        "epochs": float(epochs),
        "active_units": values["active_units"],
        "informative_fraction": values["informative_fraction"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--quick", action="store_true", help="a fifth of the images")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    x = images(4_000 if arguments.quick else 20_000, seed=1)
    epochs = arguments.epochs * (2 if arguments.quick else 1)
    results = {name: measure(name == "lr", x, epochs) for name in ("plain", "lr")}
    print(json.dumps(results, indent=1))
    return int(any(r["share in budget"] > 0.02 for r in results.values()))


if __name__ == "__main__":
    sys.exit(main())
