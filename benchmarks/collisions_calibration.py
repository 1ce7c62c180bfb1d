"""What the thresholds of the collision probe rest on: healthy encoders against broken ones.

    python benchmarks/collisions_calibration.py [--data DIR] [--quick]

Small VAEs are trained on digits, Fashion-MNIST, MNIST and Omniglot at several beta; each is then
broken on purpose: its posteriors made constant, merged in pairs (two unrelated inputs, one code),
merged so for 30 % of the samples, or drawn together by a random sign (|mean|: the encoder folds).
Printed for every model: its rate, and the share of samples in a collision at the overlaps and the
distances that were considered. The probe's choice is marked; a row says whether it warns.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs without an install, too

import collapsekit as ck
from benchmarks.lr import data, training
from collapsekit.findings import Severity
from collapsekit.observation import Observation
from collapsekit.probe import measure

OVERLAPS = (0.5, 0.9, 0.98)
DISTANCES = (0.25, 0.5)  # quantiles of the distances of random pairs
COMPARED = 3_000


@dataclass(frozen=True)
class Setting:
    widths: tuple[int, int, int]
    beta: float
    epochs: int
    noise: float = 0.0


@dataclass(frozen=True)
class Trained:
    name: str
    x: np.ndarray
    mean: np.ndarray
    scale: np.ndarray


GRID = {  # data set: betas at 32 dimensions, beta at 2, epochs
    "digits": (data.digits, (0.02, 0.1, 0.3, 0.6), 0.1, 100),
    "Fashion-MNIST": (data.fashion14, (0.1, 0.5, 2.0), 0.1, 8),
    "MNIST": (data.mnist, (0.3, 1.0, 3.0), 0.3, 8),
    "Omniglot": (data.omniglot, (0.1, 0.5, 2.0), 0.1, 15),
}


def trained(folder: Path, names: tuple[str, ...]) -> Iterator[Trained]:
    for name in names:
        load, betas, flat, epochs = GRID[name]
        x = load(folder).train.x[:8_000]
        hidden = (128, 64) if name == "digits" else (200, 100)
        for beta, latent in [*((beta, 32) for beta in betas), (flat, 2)]:
            setting = Setting((x.shape[1], *hidden), beta, epochs)
            trainer = training.Trainer(
                setting, "vanilla", 0.0, x, 0, latent=latent, batch=128, rate=1e-3, warmup=0.0
            )
            trainer.run()
            with torch.no_grad():
                mean, scale = trainer.vae.encode(x[:COMPARED])
            yield Trained(
                f"{name}, beta {beta:g}, D {latent}",
                x[:COMPARED].numpy(),
                mean.double().numpy(),
                scale.double().numpy(),
            )


def broken(model: Trained) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    yield "as trained", model.mean, model.scale
    order = rng.permutation(len(model.x))
    for word, share in (("merged in pairs", 1.0), ("30 % merged", 0.3)):
        half = int(share * len(order) / 2)
        mean, scale = model.mean.copy(), model.scale.copy()
        mean[order[half : 2 * half]] = mean[order[:half]]
        scale[order[half : 2 * half]] = scale[order[:half]]
        yield word, mean, scale
    yield "signs lost", np.abs(model.mean), model.scale
    yield "constant", np.zeros_like(model.mean), np.ones_like(model.scale)


def shares(x: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> list[float]:
    """Share in a collision at every overlap and distance considered, from the probe's states."""
    found = []
    obs = Observation.of_arrays(mean, scale, x=x)
    for quantile in DISTANCES:
        for bar in OVERLAPS:
            rows = ck.probes.Collisions(overlap=bar, sizes=()).observe(obs)["rows"]
            random = rows.column("random")
            far = np.quantile(random[random > 0], quantile)
            found.append(float((rows.column("apart") >= far).mean()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of .npz files")
    parser.add_argument("--quick", action="store_true", help="digits alone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    probe = ck.probes.Collisions()
    heads = [f"{bar:g}/{q:.0%}" for q in DISTANCES for bar in OVERLAPS]
    heads[-1] += "*"
    print(f"share of samples in a collision, {COMPARED:,} compared at most; columns: overlap/")
    print("quantile of the distances of random pairs; * the probe's choice, which warns when its")
    print(f"lower limit exceeds {probe.tolerated:.0%}")
    print(f"{'model':28s} {'encoder':16s} {'rate':>6s} " + " ".join(f"{h:>8s}" for h in heads))
    for model in trained(arguments.data, ("digits",) if arguments.quick else tuple(GRID)):
        for word, mean, scale in broken(model):
            obs = Observation.of_arrays(mean, scale, x=model.x)
            rate = float(ck.probes.kl(mean, scale).sum(axis=1).mean())
            warns = measure(probe, obs).findings[0].severity is Severity.WARN
            cells = " ".join(f"{share:8.2f}" for share in shares(model.x, mean, scale))
            print(
                f"{model.name:28s} {word:16s} {rate:6.2f} {cells}  {'warns' if warns else ''}",
                flush=True,
            )


if __name__ == "__main__":
    main()
