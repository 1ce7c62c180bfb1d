"""Memory and time against the number of samples, on one process and on several.

    python benchmarks/scale.py [--sizes 1e4 1e5 1e6 1e7] [--record FILE]
    python benchmarks/scale.py --workers 2 [--dask] [--size 2e5] [--model conv] [--repeat 3]

The data are 784 float32 values a sample, 3,136 bytes, made from the sample's number while they are
read, so that no file of 31 GB is needed: x = W z + noise, z keyed by the sample. The model is that
linear VAE with its exact posterior (D = 16). Each size runs in a process of its own with all
registered probes; peak memory is that process's largest resident set, read after the audit, after
saving it, and after rendering it. Growth is fitted beyond 1e5 samples, in bytes a sample.

With --workers the same audit runs on one process and on several, in turn, and the speed-up of the
fastest runs is told beside the CPU time that each process took: wall time means little on a machine
that others use. The model is then the linear one, whose own passes cost next to nothing, or an MLP
or a convolutional net of untrained weights, whose passes are most of the work.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import collapsekit as ck
from collapsekit.executors import LocalProcesses
from collapsekit.noise import Noise
from collapsekit.results import held_samples
from collapsekit.samples import Batch
from collapsekit.sources.batches import checked_index, stretch

VALUES, DIMS = 784, 16
BYTES = 4 * VALUES
BAR = 0.01  # of the data's size, that peak memory may grow by beyond 1e5 samples
SCALE = 0.5


def loadings() -> Tensor:
    """W [D, 784] with orthogonal rows, whose strengths fall from 10 to 0.03."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(VALUES, DIMS, generator=generator, dtype=torch.float64))[0]
    return (basis.T * torch.logspace(1, -1.5, DIMS, dtype=torch.float64)[:, None]) * SCALE


class Synthetic:
    """Samples that are made from their numbers: as long as one likes, in no memory."""

    random_access = True
    notes: tuple[str, ...] = ()

    def __init__(self, rows: int) -> None:
        self.size = rows
        self.description = f"synthetic float32 [{rows}, {VALUES}]"
        self._w = loadings().float()
        # Noise of a pool, picked by the sample's hash: fresh noise would cost more than the audit.
        generator = torch.Generator().manual_seed(1)
        self._pool = SCALE * torch.randn(4096, VALUES, generator=generator)

    def batches(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        start, end = stretch(size, start, stop, self.size)
        for low in range(start, self.size if end is None else end, size):
            index = np.arange(low, min(low + size, self.size if end is None else end))
            yield Batch(index, self.take(index), None)

    def take(self, index: np.ndarray) -> Tensor:
        rows = torch.as_tensor(checked_index(index, self.size))
        noise = Noise(0, "benchmark", rows)
        pick = (noise.bits(1)[:, 0] >> 20) % len(self._pool)
        return noise.normal(DIMS).float() @ self._w + self._pool[pick]


class Linear:
    """The VAE that these data come from, with its exact posterior."""

    description = "linear VAE, 784-16-784"

    def __init__(self) -> None:
        w = loadings()
        strength = w.square().sum(dim=1) / SCALE**2
        self._w = w.float()
        self._read = (w / SCALE**2 / (1 + strength)[:, None]).T.float()
        self._width = (1 / (1 + strength)).sqrt().float()

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x @ self._read
        return mean, self._width.expand_as(mean)

    def decode(self, z: Tensor) -> Tensor:
        return z.float() @ self._w


class Net(nn.Module):
    """A VAE of an encoder and a decoder as modules, 784 values to 16 dimensions and back."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.encoder(x).chunk(2, dim=1)
        return 3 * mean, nn.functional.softplus(raw)

    def decode(self, z: Tensor) -> Tensor:
        out: Tensor = self.decoder(z)
        return out


def linear() -> Linear:
    """For workers, as the others: ``benchmarks.scale:linear``."""
    return Linear()


def mlp() -> Net:
    """784-512-256-32 and 16-256-512-784, 1.1 million weights."""
    torch.manual_seed(0)
    encoder = nn.Sequential(
        *(nn.Linear(VALUES, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU()),
        nn.Linear(256, 2 * DIMS),
    )
    decoder = nn.Sequential(
        *(nn.Linear(DIMS, 256), nn.ReLU(), nn.Linear(256, 512), nn.ReLU()),
        nn.Linear(512, VALUES),
    )
    return Net(encoder, decoder)


def conv() -> Net:
    """Two strided convolutions of 32 and 64 channels, a layer of 256, and the same back."""
    torch.manual_seed(0)
    encoder = nn.Sequential(
        *(nn.Unflatten(1, (1, 28, 28)), nn.Conv2d(1, 32, 4, 2, 1), nn.ReLU()),
        *(nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(64 * 49, 256), nn.ReLU(), nn.Linear(256, 2 * DIMS)),
    )
    decoder = nn.Sequential(
        *(nn.Linear(DIMS, 256), nn.ReLU(), nn.Linear(256, 64 * 49), nn.ReLU()),
        *(nn.Unflatten(1, (64, 7, 7)), nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU()),
        *(nn.ConvTranspose2d(32, 1, 4, 2, 1), nn.Flatten()),
    )
    return Net(encoder, decoder)


MODELS = {"linear": linear, "mlp": mlp, "conv": conv}


def peak() -> float:
    """Largest resident set of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one(rows: int) -> dict[str, Any]:
    """Audit, save, load and render; times in seconds, memory in MB."""
    torch.set_num_threads(1)
    told: dict[str, Any] = {"n": rows, "imported_mb": peak()}

    def stage(name: str, begin: float) -> None:
        told[f"{name}_s"] = round(time.perf_counter() - begin, 2)
        told[f"{name}_mb"] = round(peak(), 1)

    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        audit = ck.audit(Linear(), Synthetic(rows), likelihood=("gaussian", SCALE))
        stage("audit", begin)
        begin = time.perf_counter()
        file = audit.save(Path(folder) / "a.audit")
        stage("save", begin)
        told["file_mb"] = round(file.stat().st_size / 2**20, 1)
        begin = time.perf_counter()
        loaded = ck.load(file)
        page = loaded.to_html()
        stage("render", begin)
        told["page_kb"] = round(len(page.encode()) / 1000, 1)
        told["verdict"] = audit.verdict.name
        told["stages"] = audit.run["timings"]
        told["on_disk"] = type(held_samples(audit)).__name__ == "SampleTable"
        told["cpu_s"] = round(time.process_time(), 1)
    return told


def growth(found: list[dict[str, Any]], stage: str) -> float:
    """Bytes a sample that peak memory grows by beyond 1e5 samples: least squares."""
    large = [f for f in found if f["n"] >= 100_000]
    if len(large) < 2:
        return float("nan")
    n = np.array([f["n"] for f in large], dtype=float)
    memory = np.array([f[f"{stage}_mb"] for f in large]) * 2**20
    return float(np.polyfit(n, memory, 1)[0])


def sizes(wanted: list[int], record: Path | None) -> int:
    """The table over sizes; 1 where memory grows by more than the bar."""
    found: list[dict[str, Any]] = []
    print(f"{VALUES} float32 values a sample ({BYTES:,} bytes), D = {DIMS}, all probes, one thread")
    print(
        f"{'samples':>11} {'data MB':>9} | {'audit s':>8} {'us/sample':>9} {'peak MB':>8} | "
        f"{'save s':>6} {'peak MB':>8} {'file MB':>8} | {'load + page s':>13} {'peak MB':>8} "
        f"{'page kB':>7}"
    )
    for rows in wanted:
        done = subprocess.run(
            [sys.executable, __file__, "--one", str(rows)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            return 2
        f = json.loads(done.stdout.splitlines()[-1])
        found.append(f)
        print(
            f"{rows:>11,} {rows * BYTES / 2**20:>9,.0f} | {f['audit_s']:>8,.1f} "
            f"{1e6 * f['audit_s'] / rows:>9.1f} {f['audit_mb']:>8,.0f} | {f['save_s']:>6.1f} "
            f"{f['save_mb']:>8,.0f} {f['file_mb']:>8,.0f} | {f['render_s']:>13.1f} "
            f"{f['render_mb']:>8,.0f} {f['page_kb']:>7.0f}",
            flush=True,
        )
    slopes = {stage: growth(found, stage) for stage in ("audit", "save", "render")}
    for stage, slope in slopes.items():
        print(
            f"growth beyond 1e5 samples, up to {stage:>6}: {slope:6.2f} bytes a sample, "
            f"{slope / BYTES:.2%} of the data (bar {BAR:.0%})"
        )
    if record is not None:
        record.write_text(json.dumps({"runs": found, "growth": slopes}, indent=1) + "\n")
    return int(any(slope > BAR * BYTES for slope in slopes.values()))


# --- several processes ----------------------------------------------------------------------------


def _cpu() -> tuple[int, float]:
    time.sleep(0.2)  # so that each worker gets one of these
    return os.getpid(), time.process_time()


@contextlib.contextmanager
def _cluster(workers: int) -> Iterator[Any]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=40
        ) as cluster,
        Client(cluster) as client,
        client.get_executor(pure=False) as executor,
    ):
        yield executor


def shared(rows: int, workers: int, dask: bool, model: str, repeat: int) -> int:
    """The same audit on one process and on several: wall time, CPU time, equality."""
    torch.set_num_threads(1)
    given: dict[str, Any] = {"likelihood": ("gaussian", SCALE)}
    spec = f"benchmarks.scale:{model}"
    kind = "dask workers" if dask else "processes"
    alone: list[tuple[float, float]] = []
    several: list[tuple[float, float, float]] = []
    begin = time.perf_counter()
    with _cluster(workers) if dask else LocalProcesses(workers) as executor:
        # Processes start and import torch once, before the clock: a pool outlives an audit.
        ck.audit(spec, Synthetic(3_000), executor=executor, **given)
        print(f"{workers} {kind} started, and audited 3,000: {time.perf_counter() - begin:.1f} s")
        for _ in range(repeat):
            begin, cpu = time.perf_counter(), time.process_time()
            one = ck.audit(spec, Synthetic(rows), **given)
            alone.append((time.perf_counter() - begin, time.process_time() - cpu))
            before = _workers_cpu(executor, workers)
            begin, cpu = time.perf_counter(), time.process_time()
            other = ck.audit(spec, Synthetic(rows), executor=executor, **given)
            wall, main = time.perf_counter() - begin, time.process_time() - cpu
            after = _workers_cpu(executor, workers)
            spent = sorted(after[p] - before.get(p, 0.0) for p in after)
            several.append((wall, main, spent[-1]))
            for name in ("summary", "samples", "dimensions"):
                left, right = getattr(one, name), getattr(other, name)
                if not left.equals(right):
                    print(f"{name} differs", file=sys.stderr)
                    return 1
            print(
                f"{rows:,} samples, {model}: alone {alone[-1][0]:.1f} s wall, {alone[-1][1]:.1f} s "
                f"CPU; {workers} {kind} {wall:.1f} s wall, CPU "
                f"{' + '.join(f'{s:.1f}' for s in spent)} s, and {main:.1f} s in the audit's own "
                f"process; equal tables; load average {os.getloadavg()[0]:.1f} on "
                f"{os.cpu_count()} cores",
                flush=True,
            )
    wall_1, cpu_1 = (min(column) for column in zip(*alone, strict=True))
    wall_n, main = (min(column) for column in list(zip(*several, strict=True))[:2])
    critical = min(busiest + own for _, own, busiest in several)
    bound = cpu_1 / (main + (cpu_1 - main) / workers)
    print(
        f"speed-up, fastest of {repeat}: {wall_1 / wall_n:.2f}x by wall time; "
        f"{cpu_1 / critical:.2f}x by the CPU time of the busiest worker and the audit's process "
        f"one after the other; Amdahl's bound {bound:.2f}x, were the {main:.1f} s of the audit's "
        "process all serial and the rest shared evenly"
    )
    return 0


def _workers_cpu(executor: Any, workers: int) -> dict[int, float]:
    found: dict[int, float] = {}
    for attempt in range(10):
        futures = [executor.submit(_cpu) for _ in range(2 * workers)]
        found |= dict(future.result() for future in futures)
        if len(found) >= workers and attempt:
            break
    return found


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", type=float, default=[1e4, 1e5, 1e6, 1e7])
    parser.add_argument("--record", type=Path)
    parser.add_argument("--one", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--dask", action="store_true")
    parser.add_argument("--size", type=float, default=2e5)
    parser.add_argument("--model", choices=list(MODELS), default="linear")
    parser.add_argument("--repeat", type=int, default=1)
    given = parser.parse_args()
    if given.one is not None:
        print(json.dumps(one(given.one)))
        return 0
    if given.workers is not None:
        return shared(int(given.size), given.workers, given.dask, given.model, given.repeat)
    return sizes([int(rows) for rows in given.sizes], given.record)


if __name__ == "__main__":
    sys.exit(main())
