"""What the engine costs over the model's own passes: ratios of CPU time within one process.

    python benchmarks/engine.py [--quick]

For an MLP 784-400-16 and a small convolutional VAE, on N random images: which passes an audit makes
through encoder and decoder in each stream; the CPU time of the streaming engine (every probe that
is linear in N) over exactly those passes run bare, same batch sizes, interleaved, minimum of the
repeats; and, apart from it, what the pairwise measures add, which no bare pass contains.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from collapsekit.adapters import as_adapter
from collapsekit.door import Door
from collapsekit.engine import run
from collapsekit.probe import Probe
from collapsekit.probes import REGISTERED
from collapsekit.results import Audit
from collapsekit.samples import as_samples

#: Measures that compare samples with each other, or differentiate at a few codes: their cost is k^2
#: or fixed, not N.
PAIRWISE = {
    "mutual_information",
    "information_budget",
    "collisions",
    "lower_lipschitz",
    "encoder_rank",
    "decoder_jacobian",
}
BATCH = 512


class MLP(nn.Module):
    """784-400-16 and back, the size that KL papers use."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 32))
        self.decoder = nn.Sequential(nn.Linear(16, 400), nn.ReLU(), nn.Linear(400, 784))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.encoder(x.flatten(1)).chunk(2, dim=1)
        return mean, nn.functional.softplus(raw)

    def decode(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.decoder(z)).reshape(-1, 1, 28, 28)


class Conv(nn.Module):
    """Two strided convolutions and back."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 32, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 49, 32),
        )
        self.decoder = nn.Sequential(
            nn.Linear(16, 64 * 49),
            nn.Unflatten(1, (64, 7, 7)),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 1, 4, 2, 1),
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.encoder(x).chunk(2, dim=1)
        return mean, nn.functional.softplus(raw)

    def decode(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.decoder(z))


def cpu(call: Callable[[], object]) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


def audit(module: nn.Module, x: np.ndarray, probes: tuple[Probe, ...]) -> Audit:
    adapter, _ = as_adapter(module)
    door = Door(adapter, likelihood="bernoulli")
    return run(door, as_samples(x), probes, readings=(), batch=BATCH)


def bare(module: nn.Module, x: Tensor, encodes: int, decodes: int) -> None:
    """Exactly so many encodes and decodes, in batches of the same size."""
    code = torch.randn(BATCH, 16)
    with torch.no_grad():
        for start in range(0, encodes, BATCH):
            at = start % max(len(x) - BATCH, 1)
            module.encode(x[at : at + min(BATCH, encodes - start)])
        for start in range(0, decodes, BATCH):
            module.decode(code[: min(BATCH, decodes - start)])


def measure(name: str, module: nn.Module, n: int, repeats: int) -> None:
    module.eval()
    x = np.random.default_rng(0).random((n, 1, 28, 28), dtype=np.float32)
    linear = tuple(p for p in REGISTERED if p.name not in PAIRWISE)
    whole = audit(module, x, linear)
    passes = whole.provenance["passes"]
    print(f"\n{name}, N = {n:,}; passes through the model, by stream (and per sample of the data):")
    for stream, count in passes.items():
        print(f"  {stream:24s} {count:9,}   {count / n:5.2f}")
    encodes = sum(v for k, v in passes.items() if k.endswith("encode"))
    decodes = sum(v for k, v in passes.items() if k.endswith("decode"))
    tensor = torch.from_numpy(x)
    engine_s, bare_s, full_s = [], [], []
    for _ in range(repeats):
        bare_s.append(cpu(lambda: bare(module, tensor, encodes, decodes)))
        engine_s.append(cpu(lambda: audit(module, x, linear)))
        full_s.append(cpu(lambda: audit(module, x, REGISTERED)))
    floor, streaming, full = min(bare_s), min(engine_s), min(full_s)
    print(f"  encodes {encodes:,}, decodes {decodes:,}")
    print(f"  bare passes          {floor:7.2f} s CPU   ({floor / n * 1e6:.1f} us a sample)")
    print(f"  streaming engine     {streaming:7.2f} s CPU   {streaming / floor:.3f} x bare")
    print(f"  with pairwise probes {full:7.2f} s CPU   {full / floor:.3f} x bare")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="N = 6,000, two repeats")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    n, repeats = (6_000, 2) if quick else (60_000, 3)
    print(f"one thread, CPU time, minimum of {repeats} interleaved repeats; {torch.__version__=}")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        measure("MLP 784-400-16", MLP(), n, repeats)
        measure("conv 32-64", Conv(), n // 6, repeats)


if __name__ == "__main__":
    main()
