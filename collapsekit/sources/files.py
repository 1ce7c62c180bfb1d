"""Samples that lie in .npy, .npz and .pt files. Nothing is ever unpickled."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collapsekit.errors import InputError
from collapsekit.sources.arrays import ArraySamples
from collapsekit.sources.images import ImageFolder
from collapsekit.sources.labels import LABELS

#: The array of an .npz file that is taken without being asked for, in this order.
MAIN = ("images", "x", "data")
_NPZ = re.compile(r"(.+\.npz):([^:/\\]+)", re.IGNORECASE)


class FileSamples(ArraySamples):
    """Arrays of a file. Pickled as its path: a memory map would travel as the whole array."""

    _origin: tuple[str, Any]

    def __reduce__(self) -> tuple[Any, ...]:
        return open_path, self._origin


def open_path(path: str | os.PathLike[str], labels: Any = None) -> FileSamples | ImageFolder:
    """Samples of a file or folder.

    Parameters
    ----------
    path : path
        ``FILE.npy`` (mapped, not read), ``FILE.npz`` (its array images, x or data, or the only
        one), ``FILE.npz:NAME``, ``FILE.pt`` (a tensor, or tensors in a dict or tuple), or a folder
        of images. ``~`` is expanded.
    labels : array-like [N], optional
        Wins over labels found in the file.

    Raises
    ------
    InputError
        Missing, of another kind, pickled, damaged, or without an array that can be told to be
        the data; and what :class:`ArraySamples` says.
    """
    given = os.path.expanduser(os.fspath(path))
    asked = _NPZ.fullmatch(given)
    file, name = (Path(asked[1]), asked[2]) if asked else (Path(given), "")
    if not file.exists():
        raise InputError(
            "there is no such file or folder",
            got=os.fspath(path),
            expected="a .npy, .npz or .pt file, or a folder of images",
            remedy="check the path" if file.is_absolute() else "check the path and the directory",
        )
    if file.is_dir():
        return ImageFolder(file, labels)
    readers: dict[str, Callable[[], tuple[Any, Any, list[str]]]] = {
        ".npy": lambda: (_npy(file), None, []),
        ".npz": lambda: _npz(file, name),
        ".pt": lambda: (_pt(file), None, []),
        ".pth": lambda: (_pt(file), None, []),
    }
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise InputError(
            f"{file.name} is of a kind that is not read",
            got=f"suffix {file.suffix!r}",
            expected=".npy, .npz, .pt, or a folder of images",
            remedy="read it yourself and pass the array",
        )
    data, found, notes = reader()
    labels_used = found if labels is None else labels
    described = f"{file.name}:{name}" if name else file.name
    samples = FileSamples(data, labels_used, name=described, notes=notes)
    samples._origin = (os.path.abspath(file) + (f":{name}" if name else ""), labels)
    return samples


def _pickled(file: Path) -> InputError:
    return InputError(
        f"{file.name} holds pickled Python objects, and collapsekit does not unpickle:"
        " that would run whatever the file says",
        got=f"a pickle in {file.name}",
        expected="arrays of numbers only",
        remedy="where you trust the file, load it yourself and save its arrays with numpy.savez",
    )


def _damaged(file: Path, error: Exception) -> InputError:
    return InputError(
        f"{file.name} cannot be read as a {file.suffix} file",
        got=str(error).strip().split("\n")[0][:200] or type(error).__name__,
        expected=f"a whole {file.suffix} file",
        remedy="write or copy it again",
    )


def _npy(file: Path) -> np.ndarray:
    # numpy.load guesses what a file is, and leaves it open where it guessed wrong.
    try:
        array: np.ndarray = np.lib.format.open_memmap(file, mode="r")
    except (ValueError, EOFError) as error:
        raise _refused(file, error) from error
    return array


def _refused(file: Path, error: Exception) -> InputError:
    with file.open("rb") as stream:
        bare_pickle = stream.read(1) == b"\x80"
    objects = any(word in str(error) for word in ("pickle", "Python objects", "bject array"))
    return _pickled(file) if bare_pickle or objects else _damaged(file, error)


def _npz(file: Path, name: str) -> tuple[Any, Any, list[str]]:
    """(data, labels or None, notes)."""
    if not zipfile.is_zipfile(file):
        raise _refused(file, ValueError("not a zip archive"))
    try:
        with np.load(file, allow_pickle=False) as archive:
            names = list(archive.files)
            chosen = name or _main(file, names)
            if chosen not in names:
                raise InputError(
                    f"{file.name} has no array called {chosen!r}",
                    got=chosen,
                    expected=f"one of {', '.join(names)}",
                    remedy=f"name one of them, as in {file.name}:{names[0]}" if names else "",
                )
            data = archive[chosen]
            key = next((k for k in LABELS if k in names and k != chosen), None)
            labels = None if key is None else archive[key]
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise _refused(file, error) from error
    if name and labels is not None and labels.shape != data.shape[:1]:
        # Beside an array that was asked for, the labels may well be another array's.
        note = f"{key} {list(labels.shape)} is no label per sample of {name} and was left out"
        return data, None, [note]
    return data, labels, []


def _main(file: Path, names: list[str]) -> str:
    for wanted in MAIN:
        for name in names:
            if name.lower() == wanted:
                return name
    rest = [name for name in names if name not in LABELS]
    if len(rest) == 1:
        return rest[0]
    raise InputError(
        f"it is not clear which array of {file.name} is the data",
        got=", ".join(names) or "an empty archive",
        expected=f"an array called {', '.join(MAIN[:-1])} or {MAIN[-1]}, or only one beside labels",
        remedy=f"name it: {file.name}:{rest[0] if rest else 'NAME'}",
    )


def _pt(file: Path) -> Any:
    try:
        data = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _pickled(file) from error
    except (RuntimeError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise _damaged(file, error) from error
    if not isinstance(data, Tensor | dict | list | tuple):
        raise InputError(
            f"{file.name} holds no tensor",
            got=type(data).__name__,
            expected="a tensor, or a dict or tuple of tensors with one row per sample",
            remedy="save the tensor itself: torch.save(x, FILE)",
        )
    if isinstance(data, list) and any(isinstance(part, Tensor) for part in data):
        return torch.stack(data) if len({p.shape for p in data}) == 1 else tuple(data)
    return data
