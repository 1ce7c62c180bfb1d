"""Audit a Lightning checkpoint.

pip install 'collapsekit[lightning]'
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import collapsekit as ck

# Lightning talks about devices and loaders; this example is about what comes after.
warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class VAE(L.LightningModule):
    def __init__(self, dims: int = 3) -> None:
        super().__init__()
        self.save_hyperparameters()  # so that the checkpoint knows how to build the class
        self.heads, self.back = nn.Linear(16, 2 * dims), nn.Linear(dims, 16)

    def encode(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        mean, logvar = self.heads(x).chunk(2, dim=1)
        return {"mean": mean, "logvar": logvar}

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.back(z))

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        q = self.encode(batch[0])
        z = q["mean"] + torch.exp(0.5 * q["logvar"]) * torch.randn_like(q["mean"])
        error = nn.functional.binary_cross_entropy(self.decode(z), batch[0], reduction="none")
        kl = 0.5 * (q["mean"] ** 2 + q["logvar"].exp() - q["logvar"] - 1)
        return error.sum(dim=1).mean() + kl.sum(dim=1).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


if __name__ == "__main__":
    torch.manual_seed(0)
    x = torch.rand(200, 16)
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=folder, accelerator="cpu", enable_checkpointing=False,
        )  # fmt: skip
        trainer.fit(VAE(), DataLoader(TensorDataset(x), batch_size=50))
        path = Path(folder) / "last.ckpt"
        trainer.save_checkpoint(path)
        # The class is yours, so the spec names it: package.module:Class. The command line's form is
        # collapsekit audit lightning:my_models:VAE,last.ckpt --data x.npy
        audit = ck.audit(f"lightning:{__name__}:VAE,{path}", x, likelihood="bernoulli")
    print(audit)
