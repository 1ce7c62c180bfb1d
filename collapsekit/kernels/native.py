"""The compiled loop: built from ``mixture.cpp`` by this machine's compiler when it first pays.

Nothing is built on import, nor for few columns. Where there is no compiler, no folder to keep the
library in, or its results are off, everything runs in torch, and results say so. The library lies
in the user's cache folder under a name made of the source, the compiler, its options and the
processor, and comes there by a rename, so that processes that build at once do each other no harm.

``COLLAPSEKIT_KERNEL=torch`` or ``=compiled`` takes one path for all.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import math
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from collapsekit.errors import InputError
from collapsekit.kernels.call import Call
from collapsekit.kernels.precision import LOG2E
from collapsekit.kernels.screen import FEWEST, choose_screen

if TYPE_CHECKING:
    from collapsekit.kernels.columns import Group

PATHS = ("torch", "compiled")
VARIABLE = "COLLAPSEKIT_KERNEL"

COMPILED_FROM = 16_384
"""Columns from which the compiled path is taken: K rows by so many columns take a second in torch,
about what the build takes, once. By size alone: if it also hung on whether a library lies in the
cache, the same audit would give other last digits after a large one than before."""

_PANEL_BYTES = 64  # as in mixture.cpp
_TILE = 256  # rows, as in mixture.cpp
_ROWS_AT_ONCE = 16 * _TILE  # per call at most: a call costs what some 50,000 pairs do
_OPTIONS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-fno-math-errno")
# Never -ffast-math or -Ofast: linked with them, a library turns subnormals off for the process.
_TUNING = (("-march=native",), ("-mcpu=native",), ())  # the first that the compiler takes
_PATIENCE = 120.0  # seconds for a build

_lock = threading.Lock()
_loaded: ctypes.CDLL | str | None = None  # the library, or why there is none


def choose_path(columns: int, device: torch.device, asked: str | None = None) -> tuple[str, str]:
    """The path for so many columns, and why not the compiled one where it would be due.

    Raises
    ------
    InputError
        An unknown path, or ``compiled`` asked for where it cannot be had.
    """
    wish = asked or os.environ.get(VARIABLE) or "auto"
    if wish not in (*PATHS, "auto"):
        raise InputError(
            "there is no such path through the mixture kernel",
            got=wish,
            expected=", ".join(PATHS),
            remedy=f"correct or unset {VARIABLE}" if asked is None else "",
        )
    if wish == "torch" or device.type != "cpu" or (wish == "auto" and columns < COMPILED_FROM):
        return "torch", ""
    found = library()
    if not isinstance(found, str):
        return "compiled", ""
    if wish == "compiled":
        raise InputError(
            "the mixture kernel cannot be compiled here",
            got=found,
            expected="a C++ compiler and a cache folder of one's own",
            remedy=f"install g++ or clang++, or unset {VARIABLE}",
        )
    return "torch", found


def panel_width(dtype: torch.dtype) -> int:
    """Columns in a panel."""
    return _PANEL_BYTES // dtype.itemsize


@dataclass(frozen=True)
class Rows:
    """Rows as the loop takes them, in the order of `MixtureColumns.ranking`.

    ``x`` in the panels' dtype, [n, D]; where a group has dimensions in fixed point, their integers
    and the bits that are common to all columns (`fixed.Fixed.features`); where it has a screen,
    the steps of `screen.Screen.features`.
    """

    x: Tensor
    factors: Tensor | None = None
    common: Tensor | None = None
    steps: Tensor | None = None


def sums(
    group: Group, rows: Callable[[slice], Rows], own: Tensor, span: slice, columns: int
) -> tuple[Tensor, Tensor] | None:
    """(M, S) of rows over the positions ``span`` of a group.

    Rows are shared out among as many threads as torch uses. A row's result does not depend on the
    rows beside it, so neither on the number of threads.

    Parameters
    ----------
    group : Group
        Of the path ``compiled``.
    rows : callable
        The rows of a slice.
    own : Tensor
        int64 [R]: the column of the panels to leave out; -1, or any that is not there, for none.
    span : slice
    columns : int
        Of the whole mixture. Terms that all together could not move a row's sum by more than two
        unit roundoffs are left out, and how small that is depends on how many they may be.

    Returns
    -------
    tuple of Tensor or None
        None where there is no library: panels may come from a machine that has one.
    """
    found = library()
    if isinstance(found, str):
        return None
    panels, fixed, screen = group.weights, group.fixed, group.screen
    dims = (panels.shape[1] - 1) // 2
    cut = cut_of(panels.dtype, columns)
    own = own.contiguous()
    exponent = torch.empty(len(own), dtype=torch.float64)
    total = torch.empty_like(exponent)

    threads = torch.get_num_threads()
    height = min(-(-len(own) // (threads * _TILE)) * _TILE, _ROWS_AT_ONCE)

    def block(top: int) -> None:
        part = slice(top, min(top + height, len(own)))
        given = rows(part)
        call = Call(
            count=len(given.x),
            dims=dims,
            first=span.start - group.start,
            last=span.stop - group.start,
            offset=group.offset,
            cut=cut,
        )
        if fixed is not None and given.factors is not None:
            call.take_fixed(fixed.weights, given.factors, fixed.unit)
        if screen is not None and given.steps is not None:
            call.take_screen(screen, given.steps)
        into = exponent[part], total[part]
        call.run(found, panels, given.x.contiguous(), own[part], into)
        if given.common is not None:
            into[0].sub_(given.common)

    tops = range(0, len(own), max(height, 1))
    if threads > 1 and len(tops) > 1:
        with ThreadPoolExecutor(min(threads, len(tops))) as pool:
            list(pool.map(block, tops))
    else:
        for top in tops:
            block(top)
    return exponent, total


def cut_of(dtype: torch.dtype, columns: int) -> int:
    """Bits below a row's best term from which on others are left out."""
    precision = 24 if dtype == torch.float32 else 53
    return precision + math.ceil(math.log2(max(columns, 2)))


def fast_integers() -> bool:
    """Whether 16-bit integers are multiplied and added faster than float32 here."""
    found = library()
    return not isinstance(found, str) and bool(found.collapsekit_fast_integers())


# --- building and loading -------------------------------------------------------------------------


class _Absent(Exception):
    """Why there is no library; ends up in a result's note."""


def library() -> ctypes.CDLL | str:
    """The library, built if need be; or why there is none. Found once in a process."""
    global _loaded
    with _lock:
        if _loaded is None:
            try:
                _loaded = _load()
            except _Absent as absent:
                _loaded = str(absent)
            except OSError as error:
                _loaded = f"the library cannot be kept or loaded ({error.strerror or error})"
        return _loaded


def _load() -> ctypes.CDLL:
    if sys.platform == "win32":
        raise _Absent("not on Windows")
    compiler = _compiler()
    source = resources.files("collapsekit.kernels").joinpath("mixture.cpp").read_bytes()
    file = _place(compiler, source)
    fresh = not file.exists()
    if fresh:
        _build(compiler, source, file)
    try:
        found = ctypes.CDLL(str(file))
    except OSError:
        if fresh:
            raise
        _build(compiler, source, file)  # what lay there was no library
        found = ctypes.CDLL(str(file))
    _check(found)
    if found.collapsekit_fast_integers():
        _check_screen(found)
    return found


def _place(compiler: list[str], source: bytes) -> Path:
    key = hashlib.sha256(source)
    for part in (*compiler, *_compiler_version(compiler[0]), *_OPTIONS, *_processor()):
        key.update(f"\n{part}".encode())
    return _folder() / f"mixture-{key.hexdigest()[:24]}.so"


def _compiler() -> list[str]:
    named = os.environ.get("CXX")
    for command in [shlex.split(named)] if named else [["c++"], ["g++"], ["clang++"]]:
        place = shutil.which(command[0]) if command else None
        if place:
            return [place, *command[1:]]
    raise _Absent(f"no C++ compiler{f' at CXX = {named}' if named else ''}")


def _compiler_version(place: str) -> tuple[str, ...]:
    """What changes when the compiler does, without the time that asking it would take."""
    real = os.path.realpath(place)
    status = os.stat(real)
    return real, str(status.st_size), str(status.st_mtime_ns)


def _processor() -> tuple[str, ...]:
    """What ``-march=native`` may look at: folders are shared between machines."""
    told = [sys.platform, platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):
        first = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").split("\n\n")[0]
        kinds = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU part")
        told += [line for line in first.splitlines() if line.partition(":")[0].strip() in kinds]
    return tuple(told)


def _folder() -> Path:
    """The user's own cache folder; anybody else's could hold anybody's code."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    except RuntimeError:
        base = Path()
    if os.path.isabs(home):
        base = Path(home)
    if not base.is_absolute():
        raise _Absent("no cache folder: there is no home")
    folder = base / "collapsekit" / "kernels"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise _Absent(f"{folder} is writable for others")
    return folder


def _build(compiler: list[str], source: bytes, file: Path) -> None:
    said = ""
    with tempfile.TemporaryDirectory(dir=file.parent, prefix="build-") as name:
        text, made = Path(name, "mixture.cpp"), Path(name, "mixture.so")
        text.write_bytes(source)
        for tuning in _TUNING:
            command = [*compiler, *_OPTIONS, *tuning, "-o", str(made), str(text)]
            try:
                done = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    timeout=_PATIENCE,
                )
            except subprocess.TimeoutExpired:
                raise _Absent(f"{compiler[0]} took more than {_PATIENCE:.0f} s") from None
            if done.returncode == 0 and made.exists():
                made.replace(file)
                return
            said = said or done.stdout.decode("utf-8", errors="replace").strip()
    lines = [line for line in said.splitlines() if "error" in line] or said.splitlines() or ["?"]
    raise _Absent(f"{compiler[0]} failed ({lines[0][:120]})")


def _check(found: ctypes.CDLL) -> None:
    """A small sum with a known result: a compiler or processor may be new to the source."""
    dims, count, rows = 11, 37, 9
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        width = panel_width(dtype)
        grid = torch.linspace(-1.0, 1.0, count * dims, dtype=torch.float64).view(count, dims)
        rate, centre = (1.5 + torch.cos(9 * grid)).to(dtype), torch.sin(40 * grid).to(dtype)
        z = torch.cos(23 * grid[:rows]).to(dtype)
        energy = ((z[:, None].double() - centre.double()) * rate.double()).square().sum(-1)
        panels = torch.zeros((-(-count // width) * width, 2 * dims + 1), dtype=dtype)
        panels[count:, 0] = math.inf
        panels[:count, 1::2] = rate
        panels[:count, 2::2] = centre * rate if dtype == torch.float32 else centre
        panels = panels.view(-1, width, 2 * dims + 1).transpose(1, 2).contiguous()
        call = Call(count=rows, dims=dims, first=1, last=count - 1, offset=0.0, cut=80)
        if dtype == torch.float32:  # three dimensions more in fixed point
            low, high = (torch.cos(k * grid[:, :3]).mul_(12_000).round() for k in (5, 7))
            energy += 1e-8 * (low[:rows] @ low.T + high[:rows] @ high.T + 2.0**30)
            packed = (high.int() << 16) | (low.int() & 0xFFFF)
            weights = torch.zeros((len(panels) * width, 4), dtype=torch.int32)
            weights[:, 0], weights[:count, 1:] = 2**30, packed
            weights = weights.view(-1, width, 4).transpose(1, 2).contiguous()
            call.take_fixed(weights, packed[:rows].contiguous(), 1e-8)
        own = torch.arange(rows)
        energy[own, own] = math.inf
        exponent = torch.empty(rows, dtype=torch.float64)
        total = torch.empty_like(exponent)
        call.run(found, panels, z, own, (exponent, total))
        expected = torch.logsumexp(-energy[:, 1 : count - 1] * math.log(2.0), 1) / math.log(2.0)
        if not bool(((exponent + total.log2() - expected).abs() < tolerance).all()):
            raise _Absent(_OTHER)


def _check_screen(found: ctypes.CDLL) -> None:
    """Twins in a crowd of columns far apart: a screen that left a near one out would show."""
    dims, count, rows = FEWEST, 256, 128
    width = panel_width(torch.float32)
    grid = torch.linspace(-1.0, 1.0, count * dims, dtype=torch.float64).view(count, dims)
    mean, scale = torch.sin(4_000 * grid), 0.02 + 0.01 * torch.cos(50 * grid)
    mean[1::2] = mean[0::2] + scale[0::2]
    z = (mean[:rows] + 0.5 * scale[:rows] * torch.cos(300 * grid[:rows])).float()
    rate = math.sqrt(0.5 * LOG2E) / scale
    energy = ((z[:, None].double() - mean) * rate).square().sum(-1)
    own = torch.arange(rows)
    energy[own, own] = math.inf
    screen = choose_screen(mean, scale, torch.zeros_like(mean[:, 0]), torch.arange(dims), 32, width)
    assert screen is not None  # these columns are the same everywhere
    panels = torch.zeros((count, 2 * dims + 1))
    panels[:, 1::2], panels[:, 2::2] = rate, mean * rate
    panels = panels.view(-1, width, 2 * dims + 1).transpose(1, 2).contiguous()
    exponent = torch.empty(rows, dtype=torch.float64)
    total = torch.empty_like(exponent)
    call = Call(count=rows, dims=dims, first=0, last=count, offset=0.0, cut=32)
    call.take_screen(screen, screen.features(z.double()))
    call.run(found, panels, z, own, (exponent, total))
    expected = torch.logsumexp(-energy * math.log(2.0), 1) / math.log(2.0)
    if not bool(((exponent + total.log2() - expected).abs() < 1e-3).all()):
        raise _Absent(_OTHER)


_OTHER = "the compiled loop gives other results on this processor"
