"""What each benchmark trains, the grid it may choose from, and the bars it is held to.

Weights are multiples of beta. `weight` is LR.md's; the grid holds it and what LR.md's section 5
recommends, and validation chooses (`running.choose`).
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.lr import data
from benchmarks.lr.training import Method

#: One setting for all: LR.md's.
LATENT, BATCH, RATE, WARMUP = 32, 128, 1e-3, 0.25

CORE: tuple[Method, ...] = ("vanilla", "lr", "sigma")
OTHERS: tuple[Method, ...] = (
    "half beta",
    "annealing",
    "cyclical",
    "free bits",
    "batch norm",
)


@dataclass(frozen=True)
class Bar:
    """A promise: of every seed (a column of one method), or of a ratio of means over seeds."""

    column: str
    method: str  # or "lr / vanilla"
    relation: str  # "<=" or ">="
    limit: float


RATIO = "lr / vanilla"
_STEP = Bar("step", RATIO, "<=", 1.5)


@dataclass(frozen=True)
class Benchmark:
    title: str
    data: data.Load
    widths: tuple[int, int, int]
    beta: float
    epochs: int
    weight: float
    grid: tuple[float, ...]
    noise: float = 0.0
    most_error: float = 1.0  # validation reconstruction over vanilla's that a choice may cost
    methods: tuple[Method, ...] = CORE
    bars: tuple[Bar, ...] = (_STEP,)
    report: bool = False  # a comparison page of the first seed's audits


BENCHMARKS = {
    "B1": Benchmark(
        title="Fashion-MNIST pooled to 14 x 14 (CI size)",
        data=data.fashion14,
        widths=(196, 128, 64),
        beta=0.1,
        epochs=15,
        weight=10.0,
        grid=(1.0, 3.0, 10.0),
        most_error=1.05,
        methods=(*CORE, "detached", *OTHERS),
        bars=(
            Bar("AU", "vanilla", "<=", 0.20),
            Bar("AU", "lr", ">=", 0.90),
            Bar("AU.1", "lr", ">=", 0.60),
            Bar("good", "lr", ">=", 0.70),
            Bar("rec", RATIO, "<=", 1.05),
            Bar("CK604", "detached", ">=", 1.0),
            Bar("CK604", "lr", "<=", 0.0),
            _STEP,
        ),
    ),
    "B2": Benchmark(
        title="Fashion-MNIST 28 x 28 (headline)",
        data=data.fashion,
        widths=(784, 256, 128),
        beta=0.1,
        epochs=24,
        weight=10.0,
        grid=(1.0, 3.0, 10.0),
        bars=(
            Bar("AU", "vanilla", "<=", 0.30),
            Bar("AU", "lr", ">=", 0.95),
            Bar("good", "lr", ">=", 0.90),
            Bar("rec", RATIO, "<=", 1.0),
            _STEP,
        ),
    ),
    "B3": Benchmark(
        title="digits 8 x 8 (offline)",
        data=data.digits,
        widths=(64, 128, 64),
        beta=0.1,
        epochs=150,
        weight=1.0,
        grid=(1.0, 3.0, 10.0),
        noise=0.1,
        most_error=1.05,
        bars=(
            Bar("AU.1", "vanilla", "<=", 0.20),
            Bar("AU.1", "lr", ">=", 0.70),
            Bar("good", "lr", ">=", 0.75),
            Bar("rec", RATIO, "<=", 1.05),
            _STEP,
        ),
        report=True,
    ),
    "B4": Benchmark(
        title="Omniglot 28 x 28 (local collapse)",
        data=data.omniglot,
        # LR.md does not say which net; the 28 x 28 one of its headline.
        widths=(784, 256, 128),
        beta=0.5,
        epochs=36,
        weight=1.0,
        grid=(1.0, 3.0, 10.0),
        bars=(
            Bar("KL<1", "vanilla", ">=", 0.5),
            Bar("KL<1", "lr", "<=", 0.05),
            Bar("good", "lr", ">=", 0.40),
            Bar("rec", RATIO, "<=", 1.0),
            _STEP,
        ),
        report=True,
    ),
    "MNIST2": Benchmark(
        title="MNIST 28 x 28, beta 2",
        data=data.mnist,
        widths=(784, 256, 128),
        beta=2.0,
        epochs=30,
        weight=0.5,
        grid=(0.5, 1.0, 3.0),
    ),
    "MNIST1": Benchmark(
        title="MNIST 28 x 28, beta 1",
        data=data.mnist,
        widths=(784, 256, 128),
        beta=1.0,
        epochs=20,
        weight=1.0,
        grid=(1.0, 3.0, 10.0),
    ),
}
