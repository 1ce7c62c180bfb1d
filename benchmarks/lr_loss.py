"""What the LR loss buys and what it costs: LR.md's benchmarks B1 to B4, measured with plain torch.

    python benchmarks/lr_loss.py [B1 B2 B3 B4] [--data DIR] [--seeds 21 22] [--out FILE] [--quick]

JSON on stdout (or in FILE), a table per benchmark on stderr. Exit code 1 where a bar is missed.
One thread, CPU time. Loss: 0.5 * SSE summed over pixels + beta * KL (+ the method's own term), Adam
1e-3, batch 128; everything reported is held out. Nothing is chosen here: LR.md's hyper-parameters,
other seeds than LR.md's, and for Fashion-MNIST the last 2,000 of the official test images.

Columns (AU and good as shares of the L units; nats)
    AU, AU.1    Var_i(mu_ij) above 0.01, above 0.1
    good        informative: I(x; z_j) > 0.1 nat and shuffling z_j costs > 0.1 nat of likelihood
    fake        active (0.01) and not good
    KL, I       rate; information with the aggregate of the test posteriors (a floor near ln N)
    rec, obj    0.5 * SSE of a decoded posterior sample; rec + beta * KL
    rt, rt.1    R^2 of E_mu(D(z)), z ~ prior, mean over units clipped at 0; with N(0, 0.1^2) on D(z)
    KL<1        share of samples whose KL is below 1 nat
    cpu         seconds of CPU for the training
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from collapsekit.demo import digits
from collapsekit.remedies import LatentReconstruction

Method = Literal["vanilla", "lr", "sigma", "detached"]
Row = dict[str, float]
BATCH, RATE, LATENT, WARMUP = 128, 1e-3, 32, 0.25


@dataclass(frozen=True)
class Bar:
    """A promise: of every seed (a column of one method), or of a ratio over all seeds."""

    column: str
    method: Method | Literal["ratio"]
    relation: Literal["<=", ">="]
    limit: float


@dataclass(frozen=True)
class Benchmark:
    data: Callable[[Path], tuple[Tensor, Tensor]]
    widths: tuple[int, int, int]
    beta: float
    epochs: int
    alpha: dict[Method, float]  # the methods that are run, each with its weight
    noise: float
    bars: tuple[Bar, ...]


# --- data -----------------------------------------------------------------------------------------


def pixels(images: np.ndarray, pool: int = 1) -> Tensor:
    x = torch.as_tensor(images).float().div(255.0).unsqueeze(1)
    return nn.functional.avg_pool2d(x, pool).flatten(1)


def fashion(folder: Path, pool: int = 1) -> tuple[Tensor, Tensor]:
    with np.load(folder / "fashion_mnist_train.npz") as file:
        train = pixels(file["images"][:20_000], pool)
    with np.load(folder / "fashion_mnist_test.npz") as file:
        return train, pixels(file["images"][-2_000:], pool)


def fashion14(folder: Path) -> tuple[Tensor, Tensor]:
    return fashion(folder, pool=2)


def omniglot(folder: Path) -> tuple[Tensor, Tensor]:
    with np.load(folder / "omniglot_small.npz") as file:
        x = pixels(file["images"])  # sorted by class
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    return x[:3_872], x[3_872:]


def offline_digits(folder: Path) -> tuple[Tensor, Tensor]:
    train, _, test, _ = digits()
    return torch.as_tensor(train).flatten(1), torch.as_tensor(test).flatten(1)


BENCHMARKS = {
    "B1": Benchmark(
        data=fashion14,
        widths=(196, 128, 64),
        beta=0.1,
        epochs=15,
        alpha={"vanilla": 0.0, "lr": 1.0, "sigma": 1.0, "detached": 0.1},
        noise=0.0,
        bars=(
            Bar("AU", "vanilla", "<=", 0.20),
            Bar("AU", "lr", ">=", 0.90),
            Bar("AU.1", "lr", ">=", 0.60),
            Bar("good", "lr", ">=", 0.70),
            Bar("fake", "detached", ">=", 0.25),
            Bar("rec", "ratio", "<=", 1.05),
            Bar("step", "ratio", "<=", 1.5),
        ),
    ),
    "B2": Benchmark(
        data=fashion,
        widths=(784, 256, 128),
        beta=0.1,
        epochs=24,
        alpha={"vanilla": 0.0, "lr": 1.0, "sigma": 1.0},
        noise=0.0,
        bars=(
            Bar("AU", "vanilla", "<=", 0.30),
            Bar("AU", "lr", ">=", 0.95),
            Bar("good", "lr", ">=", 0.90),
            Bar("rec", "ratio", "<=", 1.0),
            Bar("step", "ratio", "<=", 1.5),
        ),
    ),
    "B3": Benchmark(
        data=offline_digits,
        widths=(64, 128, 64),
        beta=0.1,
        epochs=150,
        alpha={"vanilla": 0.0, "lr": 0.1},
        noise=0.1,
        bars=(
            Bar("AU.1", "vanilla", "<=", 0.20),
            Bar("AU.1", "lr", ">=", 0.70),
            Bar("good", "lr", ">=", 0.75),
            Bar("rec", "ratio", "<=", 1.05),
        ),
    ),
    "B4": Benchmark(
        data=omniglot,
        # LR.md does not say which net; the 28 x 28 one of its headline.
        widths=(784, 256, 128),
        beta=0.5,
        epochs=36,
        alpha={"vanilla": 0.0, "lr": 0.5},
        noise=0.0,
        bars=(
            Bar("KL<1", "vanilla", ">=", 0.5),
            Bar("KL<1", "lr", "<=", 0.05),
            Bar("good", "lr", ">=", 0.40),
            Bar("rec", "ratio", "<=", 1.0),
        ),
    ),
}


# --- training -------------------------------------------------------------------------------------


class VAE(nn.Module):
    def __init__(self, widths: tuple[int, int, int]) -> None:
        super().__init__()
        a, b, c = widths
        self.encoder = nn.Sequential(
            nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c), nn.ReLU(), nn.Linear(c, 2 * LATENT)
        )
        self.decoder = nn.Sequential(
            nn.Linear(LATENT, c), nn.ReLU(), nn.Linear(c, b), nn.ReLU(), nn.Linear(b, a)
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return mean, (0.5 * log_variance).exp()

    def decode(self, z: Tensor) -> Tensor:
        x_hat: Tensor = self.decoder(z)
        return x_hat


class Trainer:
    """One model in training, a step at a time, so that two of them can be timed alternately."""

    def __init__(self, bench: Benchmark, method: Method, x: Tensor, seed: int) -> None:
        self.bench, self.method, self.x = bench, method, x
        self.generator = torch.Generator()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.vae = VAE(bench.widths)
            self.generator.set_state(torch.default_generator.get_state())
        self.batches = len(x) // BATCH
        self.alpha = bench.alpha[method]
        self.warmup = int(WARMUP * bench.epochs * self.batches)
        self.lr = LatentReconstruction(
            self.alpha, self.warmup, noise=bench.noise, allow_detached=method == "detached"
        )
        self.optimizer = torch.optim.Adam(self.vae.parameters(), lr=RATE)
        self.step = 0

    def advance(self) -> None:
        first = self.step % self.batches * BATCH
        if first == 0:
            self.order = torch.randperm(len(self.x), generator=self.generator)
        x = self.x[self.order[first : first + BATCH]]
        mean, scale = self.vae.encode(x)
        z = mean + scale * torch.randn(scale.shape, generator=self.generator)
        x_hat = self.vae.decode(z)
        variance = scale.square()
        kl = 0.5 * (mean.square() + variance - 1.0 - variance.log()).sum() / BATCH
        loss = 0.5 * (x_hat - x).square().sum() / BATCH + self.bench.beta * kl
        loss = loss + self.penalty(z, variance, x_hat)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1

    def penalty(self, z: Tensor, variance: Tensor, x_hat: Tensor) -> Tensor:
        if self.method == "vanilla":
            return torch.zeros(())
        if self.method == "sigma":  # the LR loss's effect on the posterior's width, no round trip
            return self.alpha * min(1.0, self.step / self.warmup) * variance.sum() / BATCH
        if self.method == "detached":  # the negative control: decoder and encoder agree on a code
            z = z.detach()
            x_hat = self.vae.decode(z)
        x_hat = self.lr.perturb(x_hat, self.generator)
        loss: Tensor = self.lr(z, self.vae.encode(x_hat)[0], self.step)
        return loss

    def run(self) -> float:
        start = time.process_time()
        for _ in range(self.bench.epochs * self.batches):
            self.advance()
        return time.process_time() - start


def step_ratio(bench: Benchmark, x: Tensor) -> Row:
    """CPU time of an LR step over a vanilla one: medians of 12 alternating blocks of 20 steps."""
    trainers = {m: Trainer(bench, m, x, seed=0) for m in ("vanilla", "lr")}
    blocks: dict[str, list[float]] = {m: [] for m in trainers}
    for _ in range(13):
        for method, trainer in trainers.items():
            start = time.process_time()
            for _ in range(20):
                trainer.advance()
            blocks[method].append((time.process_time() - start) / 20)
    vanilla, lr = (statistics.median(blocks[m][1:]) for m in ("vanilla", "lr"))
    return {"vanilla_ms": 1e3 * vanilla, "lr_ms": 1e3 * lr, "ratio": lr / vanilla}


# --- measuring ------------------------------------------------------------------------------------


@torch.no_grad()
def measure(vae: VAE, x: Tensor, beta: float) -> Row:
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    mean, scale = vae.encode(x)
    n = len(x)
    variance = mean.var(0)
    kl = (0.5 * (mean**2 + scale**2 - 1.0) - scale.log()).sum(1)
    errors, costs = [], []
    for _ in range(4):
        z = mean + scale * normal(n, LATENT)
        own = 0.5 * (vae.decode(z) - x).square().sum(1).mean()
        errors.append(float(own))
        other = torch.randperm(n, generator=generator)
        cost = torch.empty(LATENT)
        for j in range(LATENT):
            swapped = z.clone()
            swapped[:, j] = z[other, j]
            cost[j] = 0.5 * (vae.decode(swapped) - x).square().sum(1).mean() - own
        costs.append(cost / beta)  # the likelihood's variance is beta
    total, per_unit = information(mean, scale, z)
    good = (per_unit > 0.1) & (torch.stack(costs).mean(0) > 0.1)
    active = variance > 0.01
    z = normal(n, LATENT)
    x_hat = vae.decode(z)

    def recovered(x_hat: Tensor) -> float:
        r2 = 1.0 - (vae.encode(x_hat)[0] - z).square().mean(0) / z.var(0)
        return float(r2.clamp(min=0.0).mean())

    reconstruction, rate = statistics.fmean(errors), float(kl.double().mean())
    return {
        "AU": share(active),
        "AU.1": share(variance > 0.1),
        "good": share(good),
        "fake": share(active & ~good),
        "KL": rate,
        "I": total,
        "rec": reconstruction,
        "obj": reconstruction + beta * rate,
        "rt": recovered(x_hat),
        "rt.1": recovered(x_hat + 0.1 * normal(*x_hat.shape)),
        "KL<1": share(kl < 1.0),
    }


def share(mask: Tensor) -> float:
    return float(mask.double().mean())


def information(mean: Tensor, scale: Tensor, z: Tensor) -> tuple[float, Tensor]:
    """I(x; z) and I(x; z_j): mean_i ln q_i(z_i) - ln (1/N) sum_k q_k(z_i), one z for both terms."""
    n = len(mean)
    joint = torch.zeros(n, n)
    per_unit = torch.empty(LATENT)
    for j in range(LATENT):
        density = (z[:, j, None] - mean[None, :, j]) / scale[None, :, j]
        density = density.square_().mul_(-0.5).sub_(scale[None, :, j].log())
        joint += density
        own = density.diagonal()
        per_unit[j] = (own - density.logsumexp(1)).double().mean() + math.log(n)
    total = (joint.diagonal() - joint.logsumexp(1)).double().mean() + math.log(n)
    return float(total), per_unit


# --- running --------------------------------------------------------------------------------------


def run(name: str, bench: Benchmark, folder: Path, seeds: list[int]) -> dict[str, object]:
    setting = {k: v for k, v in asdict(bench).items() if k not in ("data", "bars")}
    setting |= {"latent": LATENT, "batch": BATCH, "rate": RATE, "warmup": WARMUP}
    try:
        train, test = bench.data(folder)
    except FileNotFoundError as missing:
        tell(f"{name} skipped: {missing.filename} is not there; say where with --data DIR")
        return {"setting": setting, "skipped": f"{Path(str(missing.filename)).name} not found"}
    setting |= {"train": len(train), "test": len(test)}
    rows: dict[str, dict[int, Row]] = {}
    tell(f"\n{name}: beta {bench.beta}, {bench.epochs} epochs, {len(train)}/{len(test)} images")
    for method in bench.alpha:
        rows[method] = {}
        for seed in seeds:
            trainer = Trainer(bench, method, train, seed)
            cpu = trainer.run()
            row = measure(trainer.vae, test, bench.beta) | {"cpu": cpu}
            if not rows["vanilla"]:
                tell(f"{'method':9s} seed " + " ".join(f"{c:>6s}" for c in row))
            rows[method][seed] = row
            tell(f"{method:9s} {seed:4d} " + " ".join(f"{v:6.3f}" for v in row.values()))
    step = step_ratio(bench, train)
    ratios = {c: mean_of(rows["lr"], c) / mean_of(rows["vanilla"], c) for c in ("rec", "obj", "KL")}
    ratios["step"] = step["ratio"]
    tell("lr / vanilla: " + ", ".join(f"{c} {v:.3f}" for c, v in ratios.items()))
    bars = [judge(bar, rows, ratios) for bar in bench.bars]
    for bar in bars:
        tell(f"  {bar['method']} {bar['column']} {bar['relation']} {bar['limit']}: {bar['word']}")
    return {"setting": setting, "rows": rows, "ratios": ratios, "step": step, "bars": bars}


def judge(bar: Bar, rows: dict[str, dict[int, Row]], ratios: Row) -> dict[str, object]:
    if bar.method == "ratio":
        value = ratios[bar.column]
    else:  # the worst seed
        values = [row[bar.column] for row in rows[bar.method].values()]
        value = max(values) if bar.relation == "<=" else min(values)
    met = value <= bar.limit if bar.relation == "<=" else value >= bar.limit
    return asdict(bar) | {
        "value": value,
        "met": met,
        "word": f"{value:.3f} {'met' if met else 'MISSED'}",
    }


def mean_of(rows: dict[int, Row], column: str) -> float:
    return statistics.fmean(row[column] for row in rows.values())


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="B1 B2 B3 B4", help="all where none is given")
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=default, help="folder of the .npz files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22, 23])
    parser.add_argument("--out", type=Path, help="JSON file; standard output where not given")
    parser.add_argument("--quick", action="store_true", help="B1 and B3, the first seed only")
    arguments = parser.parse_args()
    names = arguments.names or (["B1", "B3"] if arguments.quick else list(BENCHMARKS))
    seeds = arguments.seeds[:1] if arguments.quick else arguments.seeds
    for name in names:
        if name not in BENCHMARKS:
            parser.error(f"{name} is not one of {', '.join(BENCHMARKS)}")
    torch.set_num_threads(1)
    results = {n: run(n, BENCHMARKS[n], arguments.data, seeds) for n in names}
    document = {
        "command": "python benchmarks/lr_loss.py " + " ".join(sys.argv[1:]),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "machine": f"{platform.machine()}, 1 thread",
        "seeds": seeds,
        "benchmarks": results,
    }
    text = json.dumps(document, indent=1) + "\n"
    if arguments.out is None:
        sys.stdout.write(text)
    else:
        arguments.out.write_text(text)
    missed = any("MISSED" in json.dumps(result.get("bars", "")) for result in results.values())
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
