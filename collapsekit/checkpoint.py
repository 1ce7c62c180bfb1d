"""A checkpoint: finished shards on disk, from which an interrupted audit goes on.

A shard is two files, its per-sample columns (parquet) and everything else (a state file, whose
appearance says that the shard is finished). Both are written under another name, brought to the
disk and renamed, so that a kill at any moment leaves finished shards and no half ones. A state file
is unpickled only after its checksum, and only into this package's states and NumPy arrays: a file
that somebody else wrote can give wrong numbers, but can run nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from collapsekit.errors import FileError, InputError
from collapsekit.probe import Probe
from collapsekit.shards import Outcome
from collapsekit.spool import Spool, atomically, writing
from collapsekit.streaming import Array, to_numpy

SCHEMA = "collapsekit-checkpoint/2"
HEAD = "checkpoint.json"
#: Beside the streams' shards: the passes that the population's products took.
PRODUCTS = "products"
_DAMAGE = (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, IndexError)
_EXACT = 1e-4  # relative difference of the encoder's answers, within which it is the same model


class Checkpoint:
    """A folder that holds the finished shards of one audit.

    Parameters
    ----------
    folder : path
        Made if it is missing.
    facts : dict
        Everything that determines the results, JSON-ready: an audit goes on only where all of it
        is as it was.
    answers : dict of ndarray
        What the encoder says of the first sample, compared within rounding.
    probes : sequence of Probe
        Their modules may define states of their own.

    Raises
    ------
    InputError
        The folder belongs to another audit, and holds what is not the same.
    FileError
        It cannot be written, or another process is using it.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        facts: dict[str, Any],
        answers: dict[str, Array],
        probes: Sequence[Probe],
    ) -> None:
        self.folder = Path(folder)
        self.damaged: list[str] = []
        self._modules = frozenset(type(probe).__module__ for probe in probes)
        with _usable(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.folder)
        try:
            self._begin(facts, answers)
        except BaseException:
            self.close()
            raise

    def _begin(self, facts: dict[str, Any], answers: dict[str, Array]) -> None:
        with _usable(self.folder):
            mine = {
                "schema": SCHEMA,
                "facts": json.loads(json.dumps(facts)),
                "answers": {name: value.tolist() for name, value in answers.items()},
            }
            head = self.folder / HEAD
            if head.exists():
                self._compare(_json(head), mine)
            elif stray := [p.name for p in self.folder.iterdir() if p.name != _LOCK]:
                raise InputError(
                    f"{self.folder} is no checkpoint and is not empty",
                    got=", ".join(sorted(stray)[:3]),
                    expected="an empty or new folder, or one that an audit left",
                    remedy="name another folder",
                )
            else:
                text = json.dumps(mine, indent=1, sort_keys=True)
                atomically(head, lambda partial: partial.write_text(text, encoding="utf-8"))

    def spool(self) -> Spool:
        """Where the per-sample columns of this audit go."""
        return Spool(self.folder)

    def write(
        self, stream: str, number: int, key: str, outcome: Outcome, rows: Path | None
    ) -> None:
        """Record a finished shard, whose columns are in the file `rows` already.

        `key` says what else the shard depends on; under another one it is not found again.
        """
        body = _dumped(outcome)
        digests = {"key": key, "state": hashlib.sha256(body).hexdigest()}
        if rows is not None:
            digests["rows"] = _digest(rows)
        head = json.dumps({"schema": SCHEMA, **digests}, sort_keys=True).encode()
        path = self._path(stream, number)
        with writing(path):
            atomically(path, lambda partial: partial.write_bytes(head + b"\n" + body))

    def read(self, stream: str, number: int, key: str) -> tuple[Outcome, Path | None] | None:
        """A finished shard; None where it is missing, or damaged (then told in `damaged`)."""
        path = self._path(stream, number)
        if not path.exists():
            return None
        try:
            with path.open("rb") as file:
                head, body = json.loads(file.readline()), file.read()
            if hashlib.sha256(body).hexdigest() != head["state"]:
                raise ValueError("its checksum is wrong")
            if head["key"] != key:
                return None
            rows = self.folder / f"data-{number:06d}.parquet" if "rows" in head else None
            if rows is not None and _digest(rows) != head["rows"]:
                raise ValueError("the checksum of its columns is wrong")
            outcome = _loaded(body, self._modules)
        except (*_DAMAGE, pickle.UnpicklingError) as error:
            self.damaged.append(f"{path.name}: {error}")
            return None
        return outcome, rows

    def how_to_go_on(self) -> str:
        """For whoever interrupted."""
        kept = {path.name for path in self.folder.glob("*.state")}
        done = len(kept - {self._path(PRODUCTS, 0).name})
        return (
            f"interrupted; {done} finished shards are in {self.folder}. To go on, run the same "
            f"audit again with checkpoint={str(self.folder)!r} (--resume {self.folder})."
        )

    def close(self) -> None:
        """Let others use the folder."""
        if self._lock is not None:
            self._lock.close()

    def _path(self, stream: str, number: int) -> Path:
        return self.folder / f"{stream}-{number:06d}.state"

    def _compare(self, theirs: dict[str, Any], mine: dict[str, Any]) -> None:
        differing: list[str] = []
        if theirs.get("schema") != SCHEMA:
            differing.append(f"schema {theirs.get('schema')!r}, here {SCHEMA!r}")
        old, new = theirs.get("facts", {}), mine["facts"]
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name):
                differing.append(f"{name}: {_short(old.get(name))}, now {_short(new.get(name))}")
        for name, value in mine["answers"].items():
            before = np.asarray(theirs.get("answers", {}).get(name, []), dtype=np.float64)
            now = np.asarray(value, dtype=np.float64)
            if before.shape != now.shape or not np.allclose(now, before, _EXACT, 1e-7):
                differing.append(f"the encoder's {name} of the first sample")
        if differing:
            raise InputError(
                f"{self.folder} holds the shards of another audit",
                got="; ".join(differing[:5]),
                expected="the same model, data, seed, probes and version as when it was begun",
                remedy="run it again as it was begun, or name another folder",
            )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise TypeError(f"it holds a {type(found).__name__}")
    except (ValueError, TypeError) as error:
        raise FileError(
            f"{path} cannot be read",
            got=str(error),
            expected="what an audit wrote there",
            remedy="name another folder",
        ) from error
    return found


@contextlib.contextmanager
def _usable(folder: Path) -> Iterator[None]:
    try:
        yield
    except (FileError, InputError):
        raise
    except OSError as error:
        raise FileError(
            "the checkpoint folder cannot be used",
            got=f"{type(error).__name__} for {folder}: {error.strerror or error}",
            expected="a folder that can be made or written to",
            remedy="name another folder; nothing was computed yet",
        ) from error


_LOCK = "in-use"


def _locked(folder: Path) -> IO[bytes] | None:
    """Hold the folder: two audits in one would take each other's shards for their own.

    The kernel lets go of it when the process ends, however it ends.
    """
    if sys.platform == "win32":
        return None
    import fcntl

    lock = (folder / _LOCK).open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise FileError(
            f"{folder} is in use",
            got="another audit that is writing its shards there",
            expected="one audit a folder",
            remedy="wait for it, end it, or name another folder",
        ) from error
    return lock


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- states as bytes -------------------------------------------------------------------------------


class _Pickler(pickle.Pickler):
    """Tensors travel as arrays: torch's own way of unpickling them can run code."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, torch.Tensor):
            return _tensor, (to_numpy(obj),)
        return NotImplemented


def _tensor(array: Array) -> torch.Tensor:
    return torch.from_numpy(np.array(array))


#: Modules whose classes a state may consist of. They are data: making one runs nothing else.
_STATES = (
    "collapsekit.streaming",
    "collapsekit.shards",
    "collapsekit.subset",
    "collapsekit.posteriors",
    "collapsekit.number",
)
_NUMPY = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("collections", "Counter"),
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: IO[bytes], modules: frozenset[str]) -> None:
        super().__init__(stream)
        self._modules = modules

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _NUMPY:
            return super().find_class(module, name)
        if (module, name) == (__name__, "_tensor"):
            return _tensor
        # Classes alone, and no dotted names: those reach whatever a module has imported.
        known = module in self._modules or module.startswith(_STATES)
        if "." not in name and known:
            found = getattr(sys.modules.get(module), name, None)
            if isinstance(found, type) and found.__module__ == module:
                return found
        if module.startswith("torch.distributions.") and "." not in name:
            found = getattr(sys.modules.get(module), name, None)  # the family that rows are of
            if isinstance(found, type) and issubclass(found, torch.distributions.Distribution):
                return found
        if module == "builtins" and name in ("set", "frozenset", "slice", "complex"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no state")


def _dumped(outcome: Outcome) -> bytes:
    stream = io.BytesIO()
    _Pickler(stream, protocol=5).dump(outcome)
    return stream.getvalue()


def _loaded(body: bytes, modules: frozenset[str]) -> Outcome:
    found = _Unpickler(io.BytesIO(body), modules).load()
    if not isinstance(found, Outcome):
        raise TypeError(f"it holds a {type(found).__name__}")
    return found
