"""Lightning: the LR loss is one line in training_step; callbacks warm it up and watch for collapse.

    python examples/train_lightning.py            12 seconds of CPU
    python examples/train_lightning.py --quick    a few epochs, to see it run

Needs Lightning: pip install "collapsekit[lightning]". All values go to whatever logger the Trainer
has, under lr/ and collapse/; here they are printed at the end.
"""

from __future__ import annotations

import argparse

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import collapsekit as ck

LATENT, BETA = 32, 0.1  # the loss is 0.5 * SSE + BETA * KL


class VAE(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 2 * LATENT)
        )
        self.decoder = nn.Sequential(
            nn.Linear(LATENT, 64), nn.ReLU(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64)
        )
        # A submodule, so that the callback finds it; the callback sets its warm-up.
        self.lr = ck.remedies.LatentReconstruction(3.0, beta=BETA, noise=0.1)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return mean, (0.5 * log_variance).exp()

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)

    def training_step(self, batch: list[Tensor]) -> Tensor:
        (x,) = batch
        mean, scale = self.encode(x)
        z = mean + scale * torch.randn_like(scale)
        x_hat = self.decode(z)
        kl = 0.5 * (mean.square() + scale.square() - 1 - 2 * scale.log()).sum() / len(x)
        loss = 0.5 * (x_hat - x).square().sum() / len(x) + BETA * kl
        return loss + self.lr(z, self.encode(self.lr.perturb(x_hat))[0])  # the one line

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="3 epochs instead of 150")
    epochs = 3 if parser.parse_args().quick else 150
    torch.set_num_threads(1)
    L.seed_everything(0)
    digits = torch.tensor(load_digits().data / 16.0, dtype=torch.float32)
    digits = digits[torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))]
    train, held_out = TensorDataset(digits[:1437]), TensorDataset(digits[1437:])

    # Made after Lightning was imported, the monitor is a Lightning callback.
    monitor = ck.monitors.CollapseMonitor(data=held_out, likelihood=("gaussian", BETA**0.5))
    trainer = L.Trainer(
        max_epochs=epochs,
        callbacks=[ck.remedies.lightning_callback(warmup=0.25), monitor],
        accelerator="cpu",
        logger=False,  # any of Lightning's loggers would take the values
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(VAE(), DataLoader(train, batch_size=128, shuffle=True, drop_last=True))

    columns = ("step", "active_fraction", "informative_fraction", "rate", "fake_fraction")
    print("  ".join(f"{name:>20s}" for name in columns))
    for row in zip(*(monitor.history[name] for name in columns), strict=True):
        print("  ".join(f"{value:20.2f}" for value in row))


if __name__ == "__main__":
    main()
