"""The mixture kernel and the marginals against a matrix product's peak and against naive code.

One process, one thread, CPU time, minimum of interleaved repeats: only the ratios mean something.
"x mm" is time over that of the 4 D flops a pair takes as a product, at the best rate that torch.mm
reached in this process. "Floor" is the time of those flops at the rate of multiply-adds that never
leave the registers (where there is a compiler), and for torch that of its four passes over a block
by themselves: exponentials included, nothing else. What the compiled loop does in 16-bit integers
(printed beside the level) or leaves out can take it below.

Cases: all dimensions active; every fourth active, the others collapsed; all collapsed, where the
compiled loop can leave no pair early; scales a thousand times smaller.

    python benchmarks/mixture.py [--quick]
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs without an install, too
from collapsekit.kernels import native
from collapsekit.kernels.marginals import log_marginals
from collapsekit.kernels.mixture import log_mixture_others, merge, prepare, tile

Timed = Callable[[], object]
CHUNKS_MB = (0.5, 2.0, 8.0, 64.0)


@dataclass(frozen=True)
class Size:
    columns: int
    rows: int
    naive_rows: int
    batch: int
    repeats: int


FULL = Size(columns=10240, rows=2048, naive_rows=32, batch=1024, repeats=12)
QUICK = Size(columns=4096, rows=512, naive_rows=32, batch=256, repeats=3)


CASES = ("active", "quarter", "collapsed", "sharp")


def data(columns: int, dims: int, case: str = "active") -> tuple[Tensor, Tensor, Tensor]:
    """Means, scales and one draw per posterior of a VAE-like set, float64 [K, D]."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(columns, dims, generator=generator, dtype=torch.float64)
    scale = 0.1 + 0.5 * torch.rand(columns, dims, generator=generator, dtype=torch.float64)
    noise = torch.randn(columns, dims, generator=generator, dtype=torch.float64)
    if case in ("quarter", "collapsed"):
        idle = torch.arange(dims) % 4 != 0 if case == "quarter" else torch.ones(dims) == 1
        mean[:, idle] *= 0.02
        scale[:, idle] = 0.98 + 0.02 * scale[:, idle]
    elif case == "sharp":
        scale *= 1e-3
    return mean, scale, mean + scale * noise


def fastest(timed: dict[str, Timed], repeats: int) -> dict[str, float]:
    """CPU seconds of each, minimum over repeats that take turns, so that noise hits all alike."""
    best = dict.fromkeys(timed, math.inf)
    for _ in range(repeats + 1):  # the first turn warms up; a minimum does not mind it
        for name, function in timed.items():
            start = time.thread_time()
            function()
            best[name] = min(best[name], time.thread_time() - start)
    return best


def peak(dtype: torch.dtype, dims: int) -> dict[str, tuple[Timed, float]]:
    """Matrix products and their flops: a large square one and one of the kernel's own shape."""
    square = torch.randn(1536, 1536).to(dtype)
    left, right = torch.randn(256, 2 * dims).to(dtype), torch.randn(2 * dims, 512).to(dtype)
    large, small = torch.empty_like(square), torch.empty(256, 512, dtype=dtype)

    def blocks() -> None:
        for _ in range(100):
            torch.mm(left, right, out=small)

    name = str(dtype).removeprefix("torch.")
    return {
        f"{name} square": (lambda: torch.mm(square, square, out=large), 2.0 * 1536**3),
        f"{name} blocks": (blocks, 100 * 2.0 * 256 * 512 * 2 * dims),
    }


def registers() -> dict[str, tuple[Timed, float]]:
    """Multiply-adds in registers and their flops; nothing where there is no compiler."""
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None or isinstance(native.library(), str):
        return {}
    source = Path(__file__).with_name("multiply_add.cpp")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "multiply_add.so")
        options = ["-O3", "-std=c++17", "-shared", "-fPIC", "-march=native"]
        subprocess.run([compiler, *options, "-o", str(made), str(source)], check=True)
        library = ctypes.CDLL(str(made))
    steps, timed = 200_000, {}
    for kind in ("float32", "float64"):
        chains = getattr(library, f"chains_{kind}")
        chains.argtypes, chains.restype = [ctypes.c_int64], ctypes.c_double
        count = getattr(library, f"flops_a_step_{kind}")
        count.restype = ctypes.c_int64
        timed[f"{kind} registers"] = (lambda run=chains: run(steps), float(steps * count()))
    return timed


def passes(dims: int) -> dict[str, Timed]:
    """What the float32 torch path takes at least: four passes over 512 x 512 pairs, 20 times."""
    left, right = torch.randn(512, 2 * dims + 2), torch.randn(2 * dims + 2, 512)
    block, sums = torch.empty(512, 512), torch.empty(512)
    exponents = -20 * torch.rand(512, 512)
    each: dict[str, Timed] = {
        "pass mm": lambda: torch.mm(left, right, out=block),
        "pass clamp": lambda: block.clamp_min_(-126.0),
        "pass exp2": lambda: torch.exp2(exponents, out=block),
        "pass sum": lambda: torch.sum(block, 1, out=sums),
    }
    return {name: lambda run=run: [run() for _ in range(20)] for name, run in each.items()}  # type: ignore[misc]


def broadcast(mean: Tensor, scale: Tensor, z: Tensor, megabytes: float) -> Tensor:
    """ln sum_j, by [rows, K, D] chunks of at most so many MB: what one writes first."""
    rows = max(1, int(megabytes * 1e6 / (mean.numel() * mean.element_size())))
    parts = []
    for chunk in z.split(rows):
        log_prob = -0.5 * ((chunk[:, None] - mean) / scale).square() - scale.log()
        log_prob = log_prob.sum(-1) - 0.5 * mean.shape[1] * math.log(2 * math.pi)
        parts.append(torch.logsumexp(log_prob, 1))
    return torch.cat(parts)


def minibatch_mi(mean: Tensor, logvar: Tensor) -> Tensor:
    """Mutual information of one batch by a [B, B, D] array: the usual code."""
    batch, dims = mean.shape
    negative_entropy = (-0.5 * dims * math.log(2 * math.pi) - 0.5 * (1 + logvar).sum(1)).mean()
    z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
    z = z.unsqueeze(1)
    mean, logvar = mean.unsqueeze(0), logvar.unsqueeze(0)
    variance = logvar.exp()
    deviation = z - mean
    log_density = -0.5 * (deviation**2 / variance).sum(-1) - 0.5 * (
        dims * math.log(2 * math.pi) + logvar.sum(-1)
    )
    log_aggregate = torch.logsumexp(log_density, 1) - math.log(batch)
    return negative_entropy - log_aggregate.mean()


def mixture_report(
    dims: int, size: Size, paths: list[str], flat_out: dict[str, tuple[Timed, float]]
) -> None:
    own = torch.arange(size.rows)
    products = peak(torch.float32, dims) | peak(torch.float64, dims)
    counted = products | flat_out
    timed: dict[str, Timed] = {name: function for name, (function, _) in counted.items()}
    timed |= passes(dims)
    levels = {}
    for case in CASES:
        mean, scale, z = data(size.columns, dims, case)
        z = z[: size.rows]
        for path in paths:
            columns = prepare(mean, scale, path)
            group = columns.groups[0]
            levels[case, path] = (
                columns.dtype
                + (f", {group.fixed.dims} int16" if group.fixed else "")
                + (", screened" if group.screen else "")
            )
            timed[f"{case} {path}"] = lambda c=columns, z=z: log_mixture_others(c, z, own)  # type: ignore[misc]
    mean, scale, z = data(size.columns, dims)
    small = [x.float() for x in (mean, scale, z[: size.naive_rows])]
    batch = max(64, size.batch * 32 // max(dims, 32))  # 3 arrays of [B, B, D]: at most 400 MB
    batch_mean, batch_logvar = small[0][:batch], 2 * small[1][:batch].log()
    for megabytes in CHUNKS_MB:
        timed[f"naive {megabytes}"] = lambda mb=megabytes: broadcast(*small, mb)  # type: ignore[misc]
    timed["minibatch"] = lambda: minibatch_mi(batch_mean, batch_logvar)
    best = fastest(timed, size.repeats)

    rate = {
        kind: max(flops / best[n] for n, (_, flops) in products.items() if n.startswith(kind))
        for kind in ("float32", "float64")
    }
    product = {kind: 4e9 * dims / rate[kind] for kind in rate}
    chunk = min(CHUNKS_MB, key=lambda mb: best[f"naive {mb}"])
    naive = best[f"naive {chunk}"] / (size.naive_rows * size.columns) * 1e9
    usual = best["minibatch"] / batch**2 * 1e9
    floors = {
        (n.split()[0], "compiled"): 4e9 * dims * best[n] / flops
        for n, (_, flops) in flat_out.items()
    }
    parts = {n: best[n] / (20 * 512**2) * 1e9 for n in best if n.startswith("pass ")}
    floors["float32", "torch"] = sum(parts.values())
    print(
        f"D = {dims}: torch.mm takes {product['float32']:.2f} ns for 4 D flops in float32 "
        f"({rate['float32'] / 1e9:.0f} GF/s), {product['float64']:.2f} ns in float64 "
        f"({rate['float64'] / 1e9:.0f}); naive float32 broadcast, best chunk {chunk} MB, "
        f"{naive:.0f} ns/pair; minibatch code, B = {batch}, {usual:.0f} ns/pair"
    )
    said = [f"{n.removeprefix('pass ')} {value:.2f}" for n, value in parts.items()]
    print(f"  floor torch float32: {' + '.join(said)} = {sum(parts.values()):.2f} ns/pair")
    for (kind, path), value in floors.items():
        if path == "compiled":
            print(
                f"  floor compiled {kind}: {value:.2f} ns/pair by multiply-adds alone "
                f"({4 * dims / value:.0f} GF/s), {value / product[kind]:.2f} x mm"
            )
    for (case, path), level in levels.items():
        nanoseconds = best[f"{case} {path}"] / (size.rows * size.columns) * 1e9
        # `mixed` counts against float32 too: that is the harder comparison.
        kind = "float64" if "float64" in level else "float32"
        against, floor = product[kind], floors.get((kind, path))
        above = "" if floor is None else f"{nanoseconds / floor:4.2f} x floor, "
        print(
            f"  {case:9s} {path:8s} {level:24s} {nanoseconds:6.2f} ns/pair, "
            f"{nanoseconds / against:5.2f} x mm ({against / nanoseconds:.2f} of its rate), {above}"
            f"naive {naive / nanoseconds:4.0f} x, minibatch {usual / nanoseconds:4.0f} x",
            flush=True,
        )


def threads_report(size: Size, dims: int) -> None:
    """The compiled path on two threads, by torch's setting and as tiles on an executor."""
    mean, scale, z = data(size.columns, dims)
    columns, rows = prepare(mean, scale, "compiled"), torch.arange(size.rows)
    z, middle = z[: size.rows], size.columns // 2

    def alone() -> None:
        log_mixture_others(columns, z, rows)

    def threads() -> None:
        torch.set_num_threads(2)
        log_mixture_others(columns, z, rows)
        torch.set_num_threads(1)

    def tiles() -> None:
        with ThreadPoolExecutor(2) as pool:
            spans = ((0, middle), (middle, size.columns))
            merge(*pool.map(lambda span: tile(columns, z, rows, *span), spans))

    wall, work = {}, {}
    for _ in range(2 * size.repeats):
        for run in (alone, threads, tiles):
            name, start = run.__name__, (time.perf_counter(), time.process_time())
            run()
            wall[name] = min(wall.get(name, math.inf), time.perf_counter() - start[0])
            work[name] = min(work.get(name, math.inf), time.process_time() - start[1])
    said = [
        f"{label} {wall['alone'] / wall[name]:.2f} x as fast by the clock, "
        f"{work[name] / work['alone']:.2f} x the CPU time"
        for name, label in (("threads", "2 threads"), ("tiles", "2 tiles on an executor"))
    ]
    print(f"D = {dims}, active, compiled, against 1 thread: {'; '.join(said)}", flush=True)


def marginals_report(columns: int, width: float, repeats: int) -> None:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(columns, 1, generator=generator, dtype=torch.float64)
    scale = torch.full_like(mean, width)
    z = mean + width * torch.randn(columns, 1, generator=generator, dtype=torch.float64)
    rows = z[:: max(1, columns // 256)].float()  # the naive code takes a second otherwise
    timed: dict[str, Timed] = {
        "ours": lambda: log_marginals(mean, scale, z),
        "naive": lambda: broadcast(mean.float(), scale.float(), rows, 2.0),
    }
    best = fastest(timed, repeats)
    naive = best["naive"] * len(z) / len(rows)
    print(
        f"marginals K=R={columns:<6d} s={width:<6g} {best['ours'] * 1e3:7.1f} ms/dimension, "
        f"{naive / best['ours']:.0f}x naive float32",
        flush=True,
    )


def memory_of(what: str, columns: int, dims: int) -> None:
    """Runs in a process of its own: prints the peak memory beside the inputs, MB."""
    path, _, case = what.partition("-")
    mean, scale, z = data(columns, dims, case or "active")
    own = torch.arange(columns)
    if what == "marginals":  # let the libraries make their own buffers first
        log_marginals(mean[:600, :1], scale[:600, :1], z[:600, :1])
    else:
        log_mixture_others(prepare(mean[:600], scale[:600], path), z[:600], own[:600])
    status = Path("/proc/self/status")
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak until now
        read = lambda: {  # noqa: E731
            k: int(v.split()[0]) / 1024
            for k, _, v in (line.partition(":") for line in status.read_text().splitlines())
            if k in ("VmHWM", "VmRSS")
        }
        before, peak_now = read()["VmRSS"], lambda: read()["VmHWM"]
    except OSError:
        import resource  # not on Windows

        unit = 2**20 if sys.platform == "darwin" else 2**10
        peak_now = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit  # noqa: E731
        before = peak_now()
    if what == "marginals":
        log_marginals(mean, scale, z)
    else:
        log_mixture_others(prepare(mean, scale, path), z, own)
    print(f"{peak_now() - before:.1f}")


def memory_report(columns: int, dims: int, paths: list[str]) -> None:
    found = []
    for what in (
        *(f"{path}-{case}" for path in paths for case in ("active", "sharp")),
        "marginals",
    ):
        command = [sys.executable, __file__, "--memory", what, str(columns), str(dims)]
        megabytes = float(subprocess.run(command, check=True, capture_output=True).stdout)
        found.append(f"{what.replace('-', ' ')} {megabytes:.0f} MB")
    naive = 3 * columns**2 * dims * 4 / 2**20
    print(
        f"peak extra memory, K=R={columns}, D={dims}: {', '.join(found)}; "
        f"[K, K, D] code {naive:,.0f} MB by count",
        flush=True,
    )


def processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        wanted = ("vendor_id", "cpu family", "model", "model name")
        found = dict(
            (part.strip() for part in line.split(":", 1))
            for line in info.read_text().split("\n\n")[0].splitlines()
            if ":" in line
        )
        return ", ".join(f"{name} {found[name]}" for name in wanted if name in found)
    return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, a few seconds")
    parser.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.memory:
        what, columns, dims = chosen.memory
        memory_of(what, int(columns), int(dims))
        return
    size = QUICK if chosen.quick else FULL
    library = native.library()
    paths = ["torch"] if isinstance(library, str) else list(native.PATHS)
    print(
        f"{processor()}; {os.cpu_count()} cores, 1 thread; torch {torch.__version__}; {size}; "
        f"compiled path: {library if isinstance(library, str) else 'yes'}"
    )
    flat_out = registers()
    for dims in (8, 32, 128):
        mixture_report(dims, size, paths, flat_out)
    if "compiled" in paths:
        threads_report(size, 32)
    for columns in (4096,) if chosen.quick else (4096, 16384, 50000):
        for width in (0.3, 0.01, 1e-4):
            marginals_report(columns, width, 2)
    if sys.platform != "win32":
        for dims in (8, 32, 128):
            memory_report(2048 if chosen.quick else 10000, dims, paths)


if __name__ == "__main__":
    main()
