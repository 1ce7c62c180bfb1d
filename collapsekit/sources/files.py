"""Samples that lie in files: one, or many shards. Nothing is ever unpickled."""

from __future__ import annotations

import os
import pickle
import re
import stat
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collapsekit.errors import InputError
from collapsekit.sources import numpy_files, shards
from collapsekit.sources.arrays import ArraySamples
from collapsekit.sources.disk import HeldArray
from collapsekit.sources.images import IMAGES, ImageFolder
from collapsekit.sources.labels import LABELS
from collapsekit.sources.numpy_files import DAMAGE, Pickled, damaged
from collapsekit.sources.parquet import parquet
from collapsekit.sources.shards import Opened
from collapsekit.sources.stores import as_store
from collapsekit.sources.trees import leaves, map_leaves

#: The array of an .npz file that is taken without being asked for, in this order.
MAIN = ("images", "x", "data")
_NAMED = re.compile(r"(.+\.(?:npz|parquet)):([^:/\\]+)", re.IGNORECASE)


class FileSamples(ArraySamples):
    """Arrays of files. Pickled as their path, whose headers are read again."""

    _origin: tuple[str, Any]

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (*self._origin, self.size)


def _again(path: str, labels: Any, rows: int) -> FileSamples:
    """The same samples, in another process."""
    samples = open_path(path, labels)
    assert isinstance(samples, FileSamples)
    if samples.size != rows:
        raise InputError(
            f"{path} is another file here",
            got=f"{samples.size} samples",
            expected=f"{rows}, as where it was opened first",
            remedy="give all processes the same files, under the same path",
        )
    return samples


def open_path(path: str | os.PathLike[str], labels: Any = None) -> FileSamples | ImageFolder:
    """Samples of a file, of many, or of a folder of images.

    Parameters
    ----------
    path : path
        ``FILE.npy``; ``FILE.npz`` (its array images, x or data, or the only one) or
        ``FILE.npz:NAME``, or several, ``FILE.npz:x,c``; ``FILE.parquet`` (its list columns, or
        else its number columns) or ``FILE.parquet:NAME,NAME``; ``FILE.pt`` (a tensor, or tensors
        in a dict or tuple); a folder of such files of one kind, or a pattern such as
        ``DIR/x-*.npy``, read in natural order as one; or a folder of images. ``~`` is expanded.
    labels : array-like [N], optional
        Wins over labels found in the file, or in the folder's labels.npy.

    Raises
    ------
    InputError
        Missing, of another kind, pickled, damaged, or without an array that can be told to be
        the data; and what :class:`ArraySamples` says.

    Notes
    -----
    .npy, uncompressed .npz and parquet are read a batch at a time, .pt is mapped, compressed .npz
    is unpacked whole.
    """
    given = os.path.expanduser(os.fspath(path))
    asked = _NAMED.fullmatch(given)
    place, name = (Path(asked[1]), asked[2]) if asked else (Path(given), "")
    try:
        if place.is_dir() and not _holds_arrays(place):
            return ImageFolder(place, labels)
        files, beside = shards.found(place)
        opened = shards.joined(files, [_opened(file, name, len(files) > 1) for file in files])
        if beside is not None and labels is None:
            opened = opened._replace(labels=numpy_files.npy(_regular(beside)))
    except OSError as error:
        raise InputError(
            f"{place.name or place} cannot be read",
            got=f"{type(error).__name__}: {error.strerror or error}",
            expected="a file that may be read",
            remedy="check the path and its permissions",
        ) from error
    described = f"{place.name}:{name}" if name else place.name
    described += f" ({len(files)} files)" if len(files) > 1 else ""
    used = opened.labels if labels is None else labels
    samples = FileSamples(opened.data, used, name=described, notes=opened.notes)
    samples._origin = (os.path.abspath(place) + (f":{name}" if name else ""), labels)
    return samples


def _holds_arrays(folder: Path) -> bool:
    suffixes = {f.suffix.lower() for f in folder.iterdir() if not f.name.startswith(".")}
    if suffixes & shards.ARRAYS and suffixes & IMAGES:
        raise InputError(
            f"the folder {folder.name!r} holds images and arrays",
            got=", ".join(sorted(suffixes & (shards.ARRAYS | IMAGES))),
            expected="the one or the other",
            remedy=f"name the files that are meant, such as '{folder.name}/*.npy'",
        )
    return bool(suffixes & shards.ARRAYS)


def _opened(file: Path, name: str, is_shard: bool) -> Opened:
    _regular(file)
    try:
        match file.suffix.lower():
            case ".npy":
                return Opened(numpy_files.npy(file))
            case ".npz":
                return _npz(file, name)
            case ".parquet":
                data, labels, notes = parquet(file, name)
                return Opened(data, labels, tuple(notes))
            case ".pt" | ".pth":
                return Opened(_pt_shard(file) if is_shard else _pt(file))
    except Pickled as error:
        raise _pickled(file) from error
    except InputError:
        raise
    except (*DAMAGE, MemoryError) as error:
        raise damaged(file, error) from error
    raise InputError(
        f"{file.name} is of a kind that is not read",
        got=f"suffix {file.suffix!r}",
        expected=".npy, .npz, .parquet, .pt, or a folder of images",
        remedy="read it yourself and pass the array",
    )


def _regular(file: Path) -> Path:
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise InputError(
            "there is no such file or folder",
            got=os.fspath(file).replace("\0", "\\0"),
            expected="a .npy, .npz, .parquet or .pt file, a folder of them, or one of images",
            remedy="check the path" if file.is_absolute() else "check the path and the directory",
        ) from error
    if not stat.S_ISREG(mode):  # a pipe would be waited for, a device might never end
        raise InputError(
            f"{file.name} is no regular file",
            got="a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device",
            expected="a file, which can be read from any place",
            remedy="write the data to a file first",
        )
    return file


def _pickled(file: Path) -> InputError:
    return InputError(
        f"{file.name} holds pickled Python objects, and collapsekit does not unpickle:"
        " that would run whatever the file says",
        got=f"a pickle in {file.name}",
        expected="arrays of numbers only",
        remedy="where you trust the file, load it yourself and save its arrays with numpy.savez",
    )


def _npz(file: Path, name: str) -> Opened:
    names = numpy_files.npz_names(file)
    asked = [n.strip() for n in name.split(",")] if name else [_main(file, names)]
    for chosen in asked:
        if chosen not in names:
            raise InputError(
                f"{file.name} has no array called {chosen!r}",
                got=chosen,
                expected=f"one of {', '.join(names)}",
                remedy=f"name one of them, as in {file.name}:{names[0]}" if names else "",
            )
    parts = {chosen: numpy_files.npz(file, chosen) for chosen in asked}
    data = parts[asked[0]]
    key = next((k for k in LABELS if k in names and k not in asked), None)
    labels = None if key is None else numpy_files.npz(file, key)
    if len(parts) > 1:  # an input and its condition: the samples of a mapping
        return Opened(parts, labels)
    if name and labels is not None and labels.shape != data.shape[:1]:
        # Beside an array that was asked for, the labels may well be another array's.
        note = f"{key} {list(labels.shape)} is no label per sample of {name} and was left out"
        return Opened(data, None, (note,))
    return Opened(data, labels)


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
    """What torch.save wrote, mapped where the format allows it."""
    try:
        mapped = zipfile.is_zipfile(file)
        with warnings.catch_warnings():  # about pickles of other versions, which are then refused
            warnings.simplefilter("ignore")
            data = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise _pickled(file) from error
    except Exception as error:  # anything comes out of an unpickler that is given damage
        raise damaged(file, error) from error
    if not isinstance(data, Tensor | Mapping | list | tuple):
        raise InputError(
            f"{file.name} holds no tensor",
            got=type(data).__name__,
            expected="a tensor, or a dict or tuple of tensors with one row per sample",
            remedy="save the tensor itself: torch.save(x, FILE)",
        )
    if isinstance(data, list) and any(isinstance(part, Tensor) for part in data):
        alike = len({p.shape for p in data if isinstance(p, Tensor)}) == 1
        return torch.stack(data) if alike else tuple(data)
    return data


def _pt_shard(file: Path) -> Any:
    """The same as arrays on disk, so that no more than a few shards are open at a time."""

    def leaf(name: str, data: Any) -> HeldArray:
        array = _as_array(data, name)
        part = TorchPart(file.absolute(), name, file.stat().st_mtime_ns)
        return HeldArray(part, array.dtype, array.shape)

    return map_leaves(leaf, _pt(file))


@dataclass(frozen=True)
class TorchPart:
    """A tensor inside a .pt file, to be opened; `written` tells two versions apart."""

    path: Path
    name: str
    written: int

    def __call__(self) -> np.ndarray:
        """The tensor as an array, mapped."""
        return _as_array(dict(leaves(_pt(self.path)))[self.name], self.name)


def _as_array(data: Any, name: str) -> np.ndarray:
    store = as_store(data, f"the part {name!r}" if name else "the data")
    if isinstance(store, Tensor):
        # NumPy has no bfloat16; float32 is what it would be read as.
        narrow = store.is_floating_point() and store.element_size() < 4
        return (store.float() if narrow else store).numpy()
    return np.asarray(store)
