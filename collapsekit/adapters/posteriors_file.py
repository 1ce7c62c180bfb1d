"""A file of posteriors: arrays mean and scale, optionally x and labels. No model needed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from collapsekit.errors import FileError, InputError, ModelError, Unavailable
from collapsekit.samples import Samples, as_samples
from collapsekit.sources.disk import DiskArray
from collapsekit.sources.numpy_files import DAMAGE, npz, npz_names


class PosteriorsFile:
    """Reads what the file holds for each batch; its samples are the posteriors themselves."""

    def __init__(self, description: str, has_inputs: bool) -> None:
        self.description = description
        self._has_inputs = has_inputs

    def encode(self, x: Any) -> Any:
        """The stored posterior."""
        return x["mean"], x["scale"]

    def target(self, x: Any) -> Any:
        """The stored input.

        Raises
        ------
        Unavailable
            The file holds posteriors alone.
        """
        if not self._has_inputs:
            raise Unavailable(
                "the file holds posteriors alone",
                expected="an array x beside mean and scale",
                remedy="add the array x to the file",
            )
        return x["x"]

    def identity(self, x: Any) -> Any:
        """The stored input: equal posteriors make no copies."""
        return self.target(x)


def open_spec(
    path: str | os.PathLike[str], *, device: Any = None, trust_code: bool = False
) -> tuple[PosteriorsFile, Samples]:
    """Open FILE.npz with arrays mean and scale [N, D], and optionally x [N, ...] and labels [N].

    Raises
    ------
    FileError
        The file is missing or no npz archive of plain arrays.
    InputError
        An array is missing or has another length.
    """
    try:
        if not Path(path).is_file():  # a pipe would be waited for
            raise FileNotFoundError("no such file")
        arrays = {name: npz(Path(path), name) for name in npz_names(Path(path))}
    except (OSError, *DAMAGE) as error:
        raise FileError(
            f"{path} cannot be read as posteriors",
            got=f"{type(error).__name__}: {error}",
            expected="an .npz file of plain arrays",
            remedy='numpy.savez("FILE.npz", mean=mean, scale=scale)',
        ) from error
    if not {"mean", "scale"} <= arrays.keys():
        other = sorted(arrays.keys() & {"logvar", "variance", "log_scale", "log_var", "std"})
        remedy = "store the posterior standard deviations as scale"
        if other:
            remedy += f"; the file's {other[0]!r} has to be turned into them first"
        raise InputError(
            f"{path} does not hold posteriors",
            got=f"arrays {', '.join(sorted(arrays)) or 'none'}",
            expected="mean and scale, optionally x and labels",
            remedy=remedy,
        )
    mean, scale = (_columns(arrays[name]) for name in ("mean", "scale"))
    if mean.shape != scale.shape:
        raise ModelError(
            "mean and scale differ in shape",
            got=f"{mean.shape} and {scale.shape}",
            expected="one shape [N, D]",
            remedy="store both for the same samples and dimensions",
        )
    parts: dict[str, Any] = {"mean": mean, "scale": scale}
    if "x" in arrays:
        if len(arrays["x"]) != len(mean):
            raise InputError(
                "x has another length than mean",
                got=f"{len(arrays['x'])} and {len(mean)}",
                expected="a row of x for every posterior",
                remedy="save x, mean and scale of the same samples in the same order",
            )
        # A name that as_samples would not take for labels or for the only input.
        parts["x"] = arrays["x"]
    samples = as_samples(parts, arrays.get("labels"))
    described = f"posteriors file {os.fspath(path)} [{len(mean)}, {mean.shape[1]}]"
    return PosteriorsFile(described, "x" in arrays), samples


def _columns(array: DiskArray) -> DiskArray | np.ndarray:
    if array.ndim == 2 or not array.ndim or not len(array):
        return array
    return array[:].reshape(len(array), -1)
