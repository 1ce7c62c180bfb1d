"""Faulty models under every way to run an audit: the same answer everywhere, or a named error."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import collapsekit as ck
from collapsekit.results import Audit
from tests.fuzz.harness import FEW, explained, fuzz, lost, named_errors

N, P, D = 40, 3, 2
GENERATOR = torch.Generator().manual_seed(0)
W = torch.randn(D, P, generator=GENERATOR)
X = torch.randn(N, P, generator=GENERATOR)
X[:, 0] = torch.arange(N) / N  # by which a model knows a sample
GAUSSIAN = ("gaussian", 0.5)

#: What an encoder does on certain samples, so that exactly these are lost.
ENCODER = (
    "mean is NaN", "mean is infinite", "scale is NaN", "scale is 0", "scale is negative",
    "raises", "runs out of memory", "one row less", "one row more", "one dimension",
    "another type", "nothing", "asserts", "recursion",
)  # fmt: skip
#: What a decoder does wherever a code lies far out: it may cost any number that needs it.
DECODER = ("NaN", "infinite", "huge", "raises", "one row less", "one value less", "another type")


class Odd(Exception):
    """An error that cannot be pickled, and whose text has no end."""

    def __init__(self, a: object, b: object) -> None:
        super().__init__("x" * 5_000)
        self.held = (a, b, lambda: None)


@dataclass(frozen=True)
class Faulty:
    """A linear VAE that does one thing wrong, on the samples `rows`."""

    rows: frozenset[int] = frozenset()
    encoder: str = ""
    decoder: str = ""
    bar: float = 1.0

    def encode(self, x: torch.Tensor) -> Any:
        mean = x @ W.T
        scale = torch.full_like(mean, 0.5)
        number = torch.round(x[:, 0] * N).long()
        bad = torch.isin(number, torch.tensor(sorted(self.rows), dtype=torch.long))
        if not bool(bad.any()):
            return mean, scale
        match self.encoder:
            case "mean is NaN":
                mean[bad] = torch.nan
            case "mean is infinite":
                mean[bad] = -torch.inf
            case "scale is NaN":
                scale[bad, 0] = torch.nan
            case "scale is 0":
                scale[bad] = 0.0
            case "scale is negative":
                scale[bad, 1] = -1.0
            case "raises":
                raise Odd(x, mean)
            case "runs out of memory":
                raise MemoryError("none is left")
            case "asserts":
                raise AssertionError
            case "recursion":
                return self.encode(x)
            case "one row less":
                return mean[:-1], scale[:-1]
            case "one row more":
                return torch.cat([mean, mean[:1]]), torch.cat([scale, scale[:1]])
            case "one dimension":
                return mean[:, :1], scale[:, :1]
            case "another type":
                return mean + 1j, scale
            case "nothing":
                return None
        return mean, scale

    def decode(self, z: torch.Tensor) -> Any:
        out = z @ W.to(z.dtype)
        far = (z.abs() > self.bar).any(dim=1)
        if not self.decoder or not bool(far.any()):
            return out
        match self.decoder:
            case "NaN":
                out[far] = torch.nan
            case "infinite":
                out[far] = torch.inf
            case "huge":
                out[far] = 1e30
            case "raises":
                raise Odd(z, out)
            case "one row less":
                return out[:-1]
            case "one value less":
                return out[:, :-1]
            case "another type":
                return out.long()
        return out


@st.composite
def faulty(draw: st.DrawFn) -> Faulty:
    rows = draw(st.one_of(st.sets(st.integers(0, N - 1), max_size=6), tail()))
    return Faulty(
        rows=frozenset(rows),
        encoder=draw(st.sampled_from(ENCODER)),
        decoder=draw(st.sampled_from(("", "", *DECODER))),
        bar=draw(st.sampled_from([0.5, 1.5, 2.5])),
    )


def tail() -> st.SearchStrategy[set[int]]:
    """The last samples: a last batch that is shorter and fails."""
    return st.integers(1, N - 1).map(lambda first: set(range(N - first, N)))


@st.composite
def plans(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "batch": draw(st.integers(1, N)),
        "shards": draw(st.one_of(st.none(), st.integers(1, 9))),
        "population": draw(st.one_of(st.none(), st.integers(1, N))),
        "seed": draw(st.integers(0, 2**31)),
        "likelihood": draw(st.sampled_from([None, GAUSSIAN])),
    }


@pytest.fixture(scope="module")
def executors() -> Iterator[dict[str, Executor]]:
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(2, mp_context=fork) as processes, ThreadPoolExecutor(3) as threads:
        processes.submit(os.getpid).result()
        yield {"processes": processes, "threads": threads}


def audited(model: Any, policy: str, plan: dict[str, Any], **more: Any) -> Audit | Exception:
    """The audit, or the named error that it ends in."""
    with named_errors() as errors:
        audit = ck.audit(model, X, probes=FEW, on_bad_sample=policy, **plan, **more)  # type: ignore[arg-type]
        explained(audit)
    return errors[0] if errors else audit


def alike(a: Audit | Exception, b: Audit | Exception) -> None:
    """Equal to the last bit; of two errors the kind and what is wrong."""
    assert type(a) is type(b), (a, b)
    if isinstance(a, Exception) or isinstance(b, Exception):
        assert str(a).splitlines()[0] == str(b).splitlines()[0]
        return
    for name in ("summary", "samples", "dimensions"):
        left, right = getattr(a, name), getattr(b, name)
        assert left.equals(right), (name, left.compare(right) if left.shape == right.shape else "")
    assert a.verdict.name == b.verdict.name
    damaged = "CK013"  # that a shard was computed again
    mine, theirs = (
        [(f.code, f.samples) for f in audit.findings if f.code != damaged] for audit in (a, b)
    )
    assert mine == theirs
    assert a.skipped == b.skipped


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@given(
    model=faulty(),
    plan=plans(),
    policy=st.sampled_from(["finding", "skip", "raise"]),
    kind=st.sampled_from(["processes", "processes", "threads"]),
)
@fuzz(15, shrink=False)
def test_workers_say_what_one_process_says(
    executors: dict[str, Executor], model: Faulty, plan: dict[str, Any], policy: str, kind: str
) -> None:
    alone = audited(model, policy, plan)
    alike(alone, audited(model, policy, plan, executor=executors[kind]))
    if isinstance(alone, Exception):
        # What a decoder gives in the rehearsal may not fit what was declared.
        assert policy == "raise" or model.decoder or model.rows
    elif policy == "finding" or not model.decoder:
        assert lost(alone) == model.rows


@dataclass
class Interrupted:
    """Presses Ctrl-C, or ends with an error of the system, at a certain call."""

    model: Faulty
    left: int
    error: type[BaseException]
    calls: list[int] = field(default_factory=lambda: [0])
    description: str = "interrupted"

    def _count(self) -> None:
        self.calls[0] += 1
        if self.calls[0] == self.left:
            raise self.error("now")

    def encode(self, x: torch.Tensor) -> Any:
        self._count()
        return self.model.encode(x)

    def decode(self, z: torch.Tensor) -> Any:
        self._count()
        return self.model.decode(z)


@given(
    model=faulty(),
    plan=plans(),
    policy=st.sampled_from(["finding", "skip"]),
    left=st.integers(3, 60),
    again=st.integers(3, 60),
    error=st.sampled_from([KeyboardInterrupt, SystemExit]),
    damage=st.sampled_from([None, "cut", "emptied", "gone", "changed"]),
    pick=st.integers(0, 10**6),
)
@fuzz(8, shrink=False)
def test_what_was_broken_off_goes_on(
    tmp_path_factory: pytest.TempPathFactory,
    model: Faulty,
    plan: dict[str, Any],
    policy: str,
    left: int,
    again: int,
    error: type[BaseException],
    damage: str | None,
    pick: int,
) -> None:
    folder = tmp_path_factory.mktemp("checkpoint")
    whole = audited(Interrupted(model, 0, error), policy, plan)
    for call in (left, again):
        try:
            audited(Interrupted(model, call, error), policy, plan, checkpoint=folder)
        except error:
            harm(folder, damage, pick)
    found = audited(Interrupted(model, 0, error), policy, plan, checkpoint=folder)
    alike(whole, found)


def harm(folder: Path, damage: str | None, pick: int) -> None:
    """Do something to one of the files of finished shards."""
    files = sorted(p for p in folder.iterdir() if p.suffix in (".state", ".parquet"))
    if damage is None or not files:
        return
    file = files[pick % len(files)]
    raw = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    elif damage == "emptied":
        file.write_bytes(b"")
    elif damage == "cut":
        file.write_bytes(raw[: pick % max(len(raw), 1)])
    elif raw:
        raw[pick % len(raw)] ^= 1 + pick % 255
        file.write_bytes(raw)


@dataclass
class Restless:
    """Answers that change from call to call, in one of several ways."""

    kind: str
    after: int
    calls: int = 0

    def encode(self, x: torch.Tensor) -> Any:
        self.calls += 1
        mean = x @ W.T
        scale = torch.full_like(mean, 0.5)
        late = self.calls > self.after
        match self.kind:
            case "random":
                mean = mean + torch.randn_like(mean)
            case "reseeds":
                torch.manual_seed(0)
                np.random.seed(0)
            case "drifts":
                mean = mean + 0.01 * self.calls
            case "fails late" if late:
                raise RuntimeError("the device is gone")
            case "NaN late" if late:
                mean = mean * torch.nan
            case "other dimensions late" if late:
                return mean.repeat(1, 2), scale.repeat(1, 2)
            case "other dtype late" if late:
                return mean.double(), scale.double()
            case "half late" if late:
                return mean.half(), scale.half()
            case "a Normal late" if late:
                return torch.distributions.Normal(mean, scale)
            case "gradients on":
                torch.set_grad_enabled(True)
            case "threads":
                torch.set_num_threads(1 + self.calls % 2)
        return mean, scale

    def decode(self, z: torch.Tensor) -> Any:
        self.calls += 1
        out = z @ W.to(z.dtype)
        if self.kind == "decoder fails late" and self.calls > self.after:
            raise RuntimeError("the device is gone")
        if self.kind == "random decoder":
            out = out + torch.randn_like(out)
        return out


RESTLESS = (
    "random", "reseeds", "drifts", "fails late", "NaN late", "other dimensions late",
    "other dtype late", "half late", "a Normal late", "gradients on", "threads",
    "decoder fails late", "random decoder",
)  # fmt: skip


@given(
    kind=st.sampled_from(RESTLESS),
    after=st.integers(0, 40),
    plan=plans(),
    policy=st.sampled_from(["finding", "skip", "raise"]),
)
@fuzz(15, shrink=False)
def test_models_that_change(kind: str, after: int, plan: dict[str, Any], policy: str) -> None:
    """A named error or an explained audit; the caller's state of mind is left alone."""
    torch.manual_seed(7)
    before, gradients = torch.random.get_rng_state(), torch.is_grad_enabled()
    threads = torch.get_num_threads()
    try:
        audit = audited(Restless(kind, after), policy, plan)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.is_grad_enabled() == gradients
    if isinstance(audit, Audit):
        codes = {f.code for f in audit.findings}
        assert kind != "random" or "CK005" in codes
        if kind in ("reseeds", "gradients on", "threads"):
            assert audit.number("rate").n == N
