"""Samples that are the images of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from collapsekit.errors import InputError
from collapsekit.sources.arrays import refuse_empty
from collapsekit.sources.batches import Batch, Part, checked_index, read_batch, stretch
from collapsekit.sources.labels import as_labels
from collapsekit.sources.trees import Inputs

#: Suffixes that are taken for images.
IMAGES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
)


class ImageFolder:
    """A folder of images in the order of their names; sub-folders are class labels.

    Parameters
    ----------
    folder : Path
    labels : array-like [N], optional
        In the order of the sorted paths; wins over the sub-folders' names.

    Raises
    ------
    InputError
        No images, images of several sizes or kinds, an image that cannot be read (both name the
        file), Pillow not installed.

    Notes
    -----
    Samples are float32 [C, H, W] in [0, 1]: grey images have one channel, colour images three, and
    four with transparency. Files are opened when their batch is read.
    """

    random_access = True

    def __init__(self, folder: Path, labels: Any = None) -> None:
        self._folder, self._given = folder, labels
        found = sorted(p.relative_to(folder) for p in folder.rglob("*") if _is_image(p, folder))
        refuse_empty(len(found), f"the folder {folder.name!r} (images: {' '.join(sorted(IMAGES))})")
        self._files = found
        self.size = len(found)
        self._mode, (width, height), self.notes = self._look()
        tops = [file.parts[0] if len(file.parts) > 1 else None for file in found]
        by_folder = None if None in tops else np.array(tops, dtype=str)
        self._labels = by_folder if labels is None else as_labels(labels, self.size)
        channels = {"L": 1, "I;16": 1, "F": 1, "LA": 2, "RGB": 3, "RGBA": 4}[self._mode]
        shape = [self.size, channels, height, width]
        self.description = f"folder {folder.name} {self._mode} images {shape}"

    def __reduce__(self) -> tuple[Any, ...]:
        return ImageFolder, (Path(os.path.abspath(self._folder)), self._given)

    def batches(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Batches of images start .. stop - 1 in the order of their paths."""
        start, end = stretch(size, start, stop, self.size)
        return self._batches(size, start, self.size if end is None else end)

    def _batches(self, size: int, start: int, stop: int) -> Iterator[Batch]:
        for low in range(start, stop, size):
            index = np.arange(low, min(low + size, stop), dtype=np.int64)
            yield read_batch(index, self._part, alone=True)

    def _part(self, index: np.ndarray) -> Part:
        return self.take(index), None if self._labels is None else self._labels[index]

    def take(self, index: np.ndarray) -> Inputs:
        """Images with these numbers, float32 [n, C, H, W]."""
        numbers = checked_index(index, self.size)
        images = [self._read(self._files[i]) for i in (numbers if len(numbers) else [0])]
        return torch.from_numpy(np.stack(images))[: len(numbers)]

    def _look(self) -> tuple[str, tuple[int, int], tuple[str, ...]]:
        """(mode, (width, height), notes) of all images, from their headers."""
        first, notes = None, []
        for file in self._files:
            with self._opened(file) as image:
                mode, size = _mode(image.mode), image.size
                if image.mode not in (mode, "1") and not mode.startswith("I"):
                    notes.append(f"{image.mode} images were converted to {mode}")
            if first is None:
                first = (mode, size)
            elif first != (mode, size):
                raise InputError(
                    f"{file.as_posix()} is not like the other images in {self._folder.name!r}",
                    got=f"{mode} {size[0]} x {size[1]}",
                    expected=f"{first[0]} {first[1][0]} x {first[1][1]}"
                    f", as in {self._files[0].as_posix()}",
                    remedy="resize, crop or convert them, as the model was trained on them",
                )
        assert first is not None
        if first[0] != "F":
            depth = ("uint16", 65535) if first[0] == "I;16" else ("uint8", 255)
            notes.append("{} images were divided by {}".format(*depth))
        return *first, tuple(dict.fromkeys(notes))

    def _read(self, file: Path) -> np.ndarray:
        with self._opened(file) as image:
            try:
                plain = self._mode in ("I;16", "F") or image.mode == self._mode
                pixels = np.asarray(image if plain else image.convert(self._mode))
            except OSError as error:
                raise self._unreadable(file, error) from error
        top = {"I;16": 65535, "F": 1}.get(self._mode, 255)
        scaled: np.ndarray = np.divide(pixels, np.float32(top), dtype=np.float32)
        channels = scaled[None] if scaled.ndim == 2 else scaled.transpose(2, 0, 1)
        return channels

    def _opened(self, file: Path) -> Any:
        try:
            from PIL import Image
        except ImportError as error:
            raise InputError(
                "a folder of images is read by Pillow, which is not installed",
                got=str(self._folder.name),
                expected="the package pillow",
                remedy="pip install 'collapsekit[images]'",
            ) from error
        try:
            return Image.open(self._folder / file)
        except OSError as error:
            raise self._unreadable(file, error) from error

    def _unreadable(self, file: Path, error: OSError) -> InputError:
        return InputError(
            f"{file.as_posix()} in {self._folder.name!r} cannot be read as an image",
            got=str(error).replace(str(self._folder), self._folder.name)[:200],
            expected="a whole image file",
            remedy="write or copy it again, or move it out of the folder",
        )


def _is_image(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.suffix.lower() in IMAGES and not hidden and path.is_file()


def _mode(mode: str) -> str:
    """The kind in which an image of this Pillow mode is read."""
    if mode in ("L", "LA", "RGB", "RGBA", "F"):
        return mode
    if mode == "1":
        return "L"
    # 16-bit grey; older Pillows open such files as 32-bit integers.
    return "I;16" if mode == "I" or mode.startswith("I;16") else "RGB"
