"""Data cut into many files: found in natural order, joined by their headers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import Any, NamedTuple

from collapsekit.errors import InputError
from collapsekit.sources.disk import DiskArray, JoinedArray
from collapsekit.sources.labels import LABELS
from collapsekit.sources.trees import leaves, map_leaves, shown

#: Files that hold arrays.
ARRAYS = frozenset({".npy", ".npz", ".parquet", ".pt", ".pth"})


class Opened(NamedTuple):
    """What a file holds: arrays as a tree, labels, what is to be told."""

    data: Any
    labels: Any = None
    notes: tuple[str, ...] = ()


def found(place: Path) -> tuple[list[Path], Path | None]:
    """(array files in natural order, labels file or None) of a folder or a pattern.

    A folder's file ``labels.npy`` (or label, y, target) holds the labels of all the others.

    Raises
    ------
    InputError
        A pattern that fits nothing; files of several kinds.
    """
    if place.is_dir():
        files = [f for f in place.iterdir() if f.suffix.lower() in ARRAYS and f.name[0] != "."]
    elif has_magic(str(place)) and not place.exists():
        files = [Path(f) for f in glob(str(place), recursive=True)]
        if not files:
            raise InputError(
                "no file fits this pattern",
                got=str(place),
                expected="a pattern such as DIR/x-*.npy",
                remedy="check the path; * does not go into sub-folders, ** does",
            )
    else:
        return [place], None
    named = [f for f in files if f.stem in LABELS and f.suffix == ".npy"] if place.is_dir() else []
    beside = named[0] if len(named) == 1 and len(files) > 1 else None
    files = sorted((f for f in files if f != beside), key=lambda f: _natural(str(f)))
    kinds = sorted({f.suffix.lower() for f in files})
    if len(kinds) > 1:
        raise InputError(
            f"{place.name} holds files of several kinds",
            got=", ".join(kinds),
            expected="shards of one kind",
            remedy=f"name those that are meant, such as '{place.name}/*{kinds[0]}'",
        )
    return files, beside


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Sorts part-2 before part-10."""
    parts = re.split(r"(\d+)", name)
    return [(p.isdigit(), int(p) if p.isdigit() else 0, p) for p in parts]


def joined(files: Sequence[Path], opened: Sequence[Opened]) -> Opened:
    """Shards as one.

    Raises
    ------
    InputError
        Two that do not fit together.
    """
    if len(opened) == 1:
        return opened[0]
    # An empty shard may not know the shape of the rows that it lacks.
    filled = [i for i, shard in enumerate(opened) if any(map(_rows, leaves(shard.data)))]
    if len(filled) < len(opened):
        some = filled or [0]
        return joined([files[i] for i in some], [opened[i] for i in some])
    parts = [dict(leaves(shard.data)) for shard in opened]
    _alike(files, parts)
    labels = None
    if all(shard.labels is not None for shard in opened):
        labels = JoinedArray([shard.labels for shard in opened])
    notes = tuple(dict.fromkeys(note for shard in opened for note in shard.notes))
    if labels is None and any(shard.labels is not None for shard in opened):
        notes += ("only some of the files hold labels: they were left out",)
    data = map_leaves(lambda name, _: JoinedArray([p[name] for p in parts]), opened[0].data)
    return Opened(data, labels, notes)


def _rows(leaf: tuple[str, DiskArray]) -> bool:
    array = leaf[1]
    return not array.ndim or len(array) > 0


def _alike(files: Sequence[Path], parts: Sequence[dict[str, Any]]) -> None:
    first = {name: (leaf.dtype, leaf.shape[1:], leaf.ndim) for name, leaf in parts[0].items()}
    for file, part in zip(files, parts, strict=True):
        kinds = {name: (leaf.dtype, leaf.shape[1:], leaf.ndim) for name, leaf in part.items()}
        if kinds != first or not all(leaf.ndim for leaf in part.values()):
            raise InputError(
                f"{file.name} does not fit the files before it",
                got=", ".join(f"{name} {shown(leaf)}".strip() for name, leaf in part.items()),
                expected=", ".join(f"{n} {shown(a, 0)}".strip() for n, a in parts[0].items())
                + f", as in {files[0].name}, with any number of rows",
                remedy=f"name the files that belong together, such as '{file.parent.name}/x-*"
                f"{file.suffix}'",
            )
