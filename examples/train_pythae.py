"""pythae: one call adds the LR loss to any of its Gaussian VAEs; its own trainer does the rest.

    python examples/train_pythae.py            12 seconds of CPU
    python examples/train_pythae.py --quick    a few epochs, to see it run

Needs pythae: pip install "collapsekit[pythae]". What pythae saves stays a plain pythae model.
"""

from __future__ import annotations

import argparse
import logging
import tempfile

import torch
from pythae.models import BetaVAE, BetaVAEConfig
from pythae.pipelines import TrainingPipeline
from pythae.trainers import BaseTrainerConfig
from sklearn.datasets import load_digits
from torch import Tensor

import collapsekit as ck

BETA = 0.1  # pythae's loss is 0.5 * SSE + beta * KL, summed over pixels
BATCH = 128


def train(x: Tensor, epochs: int, repaired: bool, folder: str) -> BetaVAE:
    torch.manual_seed(0)
    config = BetaVAEConfig(input_dim=(1, 8, 8), latent_dim=32, beta=BETA)
    model = BetaVAE(config)
    if repaired:
        steps = epochs * -(-len(x) // BATCH)
        lr = ck.remedies.LatentReconstruction(3.0, warmup_steps=steps // 4, beta=BETA, noise=0.1)
        ck.remedies.repair_pythae(model, lr)  # the one call
    training = BaseTrainerConfig(
        output_dir=folder,
        num_epochs=epochs,
        learning_rate=1e-3,
        per_device_train_batch_size=BATCH,
        no_cuda=True,
    )
    TrainingPipeline(model=model, training_config=training)(train_data=x)
    return model.eval()


def tell(model: BetaVAE, held_out: Tensor) -> dict[str, float]:
    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        output = model.encoder(x)
        return output.embedding, output.log_covariance  # a log-VARIANCE, declared below

    monitor = ck.monitors.CollapseMonitor(
        held_out, parameterisation="logvar", likelihood=("gaussian", BETA**0.5)
    )
    return monitor.check((encode, lambda z: model.decoder(z).reconstruction), step=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="2 epochs instead of 60")
    epochs = 2 if parser.parse_args().quick else 60
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # pythae tells much
    digits = torch.tensor(load_digits().data / 16.0, dtype=torch.float32).reshape(-1, 1, 8, 8)
    digits = digits[torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))]
    x, held_out = digits[:1437], digits[1437:]
    print(f"{'':8s} {'active':>7s} {'at 0.1':>7s} {'informative':>12s} {'rate':>6s}  (held out)")
    for name, repaired in (("vanilla", False), ("LR", True)):
        with tempfile.TemporaryDirectory() as folder:
            told = tell(train(x, epochs, repaired, folder), held_out)
        print(
            f"{name:8s} {told['active_fraction']:7.2f} {told['active_fraction_0.1']:7.2f} "
            f"{told['informative_fraction']:12.2f} {told['rate']:6.1f}"
        )


if __name__ == "__main__":
    main()
