"""The compiled path: what torch finds, bit for bit the same however rows are cut, built safely."""

from __future__ import annotations

import math
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from torch import Tensor

from collapsekit.errors import InputError
from collapsekit.kernels import native
from collapsekit.kernels.mixture import (
    finish,
    log_mixture_others,
    merge,
    prepare,
    spot_check,
    tile,
)

CPU = torch.device("cpu")
compiled = pytest.mark.usefixtures("has_library")


@pytest.fixture(scope="session")
def has_library() -> None:
    if isinstance(native.library(), str):
        pytest.skip(f"no compiled kernel here: {native.library()}")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """As in a new process with an empty cache; returns the cache's place."""
    monkeypatch.setattr(native, "_loaded", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(native.VARIABLE, raising=False)
    return tmp_path / "collapsekit" / "kernels"


def data(k: int, dims: int, seed: int = 0, width: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    mean = torch.randn(k, dims, generator=random, dtype=torch.float64)
    scale = width * (0.1 + 0.5 * torch.rand(k, dims, generator=random, dtype=torch.float64))
    return mean, scale, mean + scale * torch.randn(k, dims, generator=random, dtype=torch.float64)


def reference(mean: Tensor, scale: Tensor, z: Tensor, own: Tensor) -> np.ndarray:
    """By NumPy and SciPy in float64."""
    t = (z.numpy()[:, None] - mean.numpy()) / scale.numpy()
    terms = -0.5 * (t**2).sum(-1) - np.log(scale.numpy()).sum(1)
    terms -= 0.5 * mean.shape[1] * math.log(2 * math.pi)
    terms[np.arange(len(mean)) == own.numpy()[:, None]] = -np.inf
    with np.errstate(divide="ignore"):
        found: np.ndarray = logsumexp(terms, axis=1)
    return found


@compiled
@settings(max_examples=150, deadline=None)
@given(
    k=st.integers(1, 70),
    dims=st.sampled_from([1, 2, 7, 8, 9, 16, 17, 33, 70]),
    rows=st.integers(1, 70),
    width=st.sampled_from([1.0, 30.0, 1e-2, 1e-4, 1e-12]),
    copies=st.integers(1, 9),
    far=st.sampled_from([0.0, 3.0, 1e4]),
    seed=st.integers(0, 2**31),
)
def test_any_shape_gives_what_scipy_gives(
    k: int, dims: int, rows: int, width: float, copies: int, far: float, seed: int
) -> None:
    mean, scale, z = data(max(k, rows), dims, seed, width)
    mean, scale, z = mean[:k].repeat(copies, 1), scale[:k].repeat(copies, 1), z[:rows] + far
    own = torch.randint(-1, k, (rows,), generator=torch.Generator().manual_seed(seed))
    columns = prepare(mean, scale, "compiled")
    found, truth = log_mixture_others(columns, z, own).numpy(), reference(mean, scale, z, own)
    finite = np.isfinite(truth)
    assert (found[~finite] == truth[~finite]).all()
    roundoff = 2.0**-24 if columns.dtype != "direct float64" else 2.0**-53
    size = 1 + np.abs(truth[finite])
    allowed = columns.bound * np.sqrt(1 + size / 1000) + (8 + dims) * roundoff * (
        size + abs(np.log(width)) * dims
    )
    assert (np.abs(found[finite] - truth[finite]) <= allowed).all()


@compiled
@pytest.mark.parametrize(("width", "level"), [(1.0, "direct float32"), (1e-5, "direct float64")])
def test_a_row_does_not_depend_on_the_rows_beside_it(width: float, level: str) -> None:
    mean, scale, z = data(1500, 13, 1, width)
    own = torch.arange(1500)
    columns = prepare(mean, scale, "compiled")
    assert columns.dtype == level
    whole = log_mixture_others(columns, z, own)
    order = torch.randperm(1500, generator=torch.Generator().manual_seed(2))
    assert torch.equal(log_mixture_others(columns, z[order], own[order]), whole[order])
    for size in (1, 3, 64, 257):
        parts = [
            log_mixture_others(columns, z[top : top + size], own[top : top + size])
            for top in range(0, 600, size)
        ]
        assert torch.equal(torch.cat(parts)[:600], whole[:600])


@compiled
def test_threads_change_no_bit() -> None:
    mean, scale, z = data(1100, 9, 3)
    own = torch.arange(1100)
    columns = prepare(mean, scale, "compiled")
    one = log_mixture_others(columns, z, own)
    torch.set_num_threads(3)
    assert torch.equal(log_mixture_others(columns, z, own), one)


@compiled
def test_terms_that_are_left_out_could_not_be_seen() -> None:
    # One near column among many at 30 to 60 bits below: all of them together count, none is lost.
    far = torch.linspace(math.sqrt(2 * 30 * math.log(2)), math.sqrt(2 * 60 * math.log(2)), 4000)
    mean = torch.cat([torch.zeros(1), far]).double()[:, None]
    scale, z, own = torch.ones_like(mean), torch.zeros(1, 1).double(), torch.tensor([-1])
    truth = reference(mean, scale, z, own)
    found = log_mixture_others(prepare(mean, scale, "compiled"), z, own).numpy()
    assert abs(found - truth) <= 4 * 2.0**-24 * (1 + abs(truth))
    # and without the near one the others are the sum
    away = log_mixture_others(prepare(mean, scale, "compiled"), z, torch.tensor([0])).numpy()
    alone = reference(mean, scale, z, torch.tensor([0]))
    assert abs(away - alone) <= 1e-5 < 1 < abs(alone - truth)


@compiled
def test_columns_that_come_where_there_is_no_library_are_computed_in_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mean, scale, z = data(300, 6, 4)
    scale[::3] *= 1e-8  # two levels
    own = torch.arange(300)
    columns = prepare(mean, scale, "compiled")
    assert columns.dtype == "mixed"
    here = [tile(columns, z, own, 0, 130), tile(columns, z, own, 130, 300)]
    sent = pickle.loads(pickle.dumps(columns))
    monkeypatch.setattr(native, "_loaded", "no C++ compiler")
    there = [tile(sent, z, own, 0, 130), tile(sent, z, own, 130, 300)]
    for mixed in ((here[0], there[1]), (there[0], here[1])):
        found = finish(merge(*mixed)).numpy()
        np.testing.assert_allclose(found, reference(mean, scale, z, own), rtol=1e-6, atol=1e-4)


# --- which path is taken, and what is said of it --------------------------------------------------


def test_few_columns_never_ask_for_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> str:
        raise AssertionError("the library was asked for")

    monkeypatch.delenv(native.VARIABLE, raising=False)
    monkeypatch.setattr(native, "library", refuse)
    assert native.choose_path(native.COMPILED_FROM - 1, CPU) == ("torch", "")
    assert native.choose_path(10**9, torch.device("meta")) == ("torch", "")
    monkeypatch.setenv(native.VARIABLE, "torch")
    assert native.choose_path(10**9, CPU) == ("torch", "")


@compiled
def test_many_columns_take_the_compiled_path_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(native.VARIABLE, raising=False)
    assert native.choose_path(native.COMPILED_FROM, CPU) == ("compiled", "")
    mean, scale, z = data(40, 2, 5)
    columns = prepare(mean, scale, "compiled")
    own = torch.arange(40)
    checked = spot_check(columns, z, own, log_mixture_others(columns, z, own))
    assert checked.dtype == "direct float32, compiled"
    assert checked.max_deviation < 1e-4


def test_an_unknown_path_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.VARIABLE, "fast")
    with pytest.raises(InputError, match=r"fast[\s\S]*torch, compiled[\s\S]*COLLAPSEKIT_KERNEL"):
        native.choose_path(10, CPU)


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda m, d: m.setenv("CXX", "no-such-compiler"), "no C.. compiler at CXX"),
        (lambda m, d: m.setenv("CXX", "false"), "failed"),
        (lambda m, d: m.setenv("CXX", "true"), "failed"),  # says it worked, and made nothing
        (lambda m, d: d.mkdir(parents=True) or d.chmod(0o777), "writable for others"),
        (lambda m, d: d.parent.write_text("a file"), "cannot be kept"),
        (lambda m, d: m.setattr(sys, "platform", "win32"), "not on Windows"),
    ],
)
def test_whatever_is_missing_torch_computes_and_says_why(
    break_it: object, says: str, unloaded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_it(monkeypatch, unloaded)  # type: ignore[operator]
    monkeypatch.setattr(native, "COMPILED_FROM", 30)
    mean, scale, z = data(40, 3, 6)
    own = torch.arange(40)
    columns = prepare(mean, scale)
    assert columns.path == "torch"
    checked = spot_check(columns, z, own, log_mixture_others(columns, z, own))
    assert re.match(f"float32, not compiled: .*{says}", checked.dtype)
    with pytest.raises(InputError, match="cannot be compiled"):
        prepare(mean, scale, "compiled")


@compiled
def test_a_folder_that_cannot_be_written_is_no_error(
    unloaded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)  # root may write anywhere, so modes would not do
    found = native.library()
    assert isinstance(found, str)
    assert "Permission denied" in found


@compiled
def test_a_build_that_takes_too_long_is_given_up(
    unloaded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "_PATIENCE", 1e-3)
    assert "took more than" in str(native.library())
    assert list(unloaded.iterdir()) == []


@compiled
def test_a_library_that_is_off_is_not_used(
    unloaded: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = (Path(native.__file__).parent / "mixture.cpp").read_text()
    wrong = source.replace("energy[r][part] += t * t", "energy[r][part] += t")
    assert wrong != source
    (tmp_path / "mixture.cpp").write_text(wrong)
    monkeypatch.setattr(native.resources, "files", lambda _: tmp_path)
    assert "other results" in str(native.library())


@compiled
def test_what_is_no_library_is_built_again(unloaded: Path) -> None:
    source = (Path(native.__file__).parent / "mixture.cpp").read_bytes()
    file = native._place(native._compiler(), source)
    file.write_bytes(b"\x7fELF, cut off")
    assert not isinstance(native.library(), str)
    assert len(file.read_bytes()) > 1000


@compiled
@pytest.mark.slow
def test_processes_that_build_at_once_get_along(unloaded: Path) -> None:
    code = (
        "from collapsekit.kernels import native; found = native.library(); "
        "raise SystemExit(found if isinstance(found, str) else 0)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in running:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert [file.suffix for file in unloaded.iterdir()] == [".so"]  # one library, nothing half done


@compiled
def test_a_compiler_is_a_command_not_a_line_for_a_shell(
    unloaded: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", f"c++; touch {tmp_path / 'harm'}")
    assert isinstance(native.library(), str)
    assert not (tmp_path / "harm").exists()
