"""Arrays of .npy and .npz files by their headers; the values stay on disk."""

from __future__ import annotations

import math
import os
import struct
import tokenize
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from collapsekit.errors import InputError
from collapsekit.sources.disk import DiskArray, HeldArray, RawArray

#: What a damaged file makes NumPy and zipfile raise.
DAMAGE = (
    ValueError, EOFError, KeyError, RuntimeError, NotImplementedError, SyntaxError, TypeError,
    OverflowError, RecursionError, AttributeError, tokenize.TokenError, zlib.error, struct.error,
    zipfile.BadZipFile,
)  # fmt: skip
_LOCAL_HEADER = 30  # bytes of a zip entry's own header before its name


class Pickled(ValueError):
    """The file holds Python objects."""


def npy(path: Path) -> RawArray:
    """The array of an .npy file.

    Raises
    ------
    Pickled
        It holds Python objects.
    ValueError, and what else `DAMAGE` names
        It is no whole .npy file.
    """
    with path.open("rb") as file:
        if file.peek(1)[:1] == b"\x80":
            raise Pickled("a pickle")
        dtype, shape, fortran = _header(file)
        return _raw(path, dtype, shape, fortran, file.tell(), os.fstat(file.fileno()).st_size)


def npz_names(path: Path) -> list[str]:
    """The names of the arrays in an .npz file.

    Raises
    ------
    Pickled, ValueError, and what else `DAMAGE` names
        As `npy`.
    """
    with path.open("rb") as file:
        if file.read(1) == b"\x80":
            raise Pickled("a pickle")
    with zipfile.ZipFile(path) as archive:
        return [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]


def npz(path: Path, name: str) -> DiskArray:
    """One array of an .npz file: read in place where it is stored, unpacked where compressed.

    Raises
    ------
    Pickled, ValueError, and what else `DAMAGE` names
        As `npy`.
    InputError
        It is compressed and larger than half of the machine's memory.
    """
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(f"{name}.npy")
        with archive.open(entry) as member:
            dtype, shape, fortran = _header(member)
            skipped = member.tell()
    size = skipped + math.prod(shape) * dtype.itemsize
    if entry.file_size < size:
        raise ValueError(f"{name} has {entry.file_size:,} bytes of {size:,}")
    if entry.compress_type == zipfile.ZIP_STORED:
        with path.open("rb") as file:
            file.seek(entry.header_offset)
            lengths = struct.unpack("<HH", file.read(_LOCAL_HEADER)[26:30])
            begin = entry.header_offset + _LOCAL_HEADER + sum(lengths)
            whole = os.fstat(file.fileno()).st_size
        return _raw(path, dtype, shape, fortran, begin + skipped, whole)
    _fits(path, name, size)
    return HeldArray(Member(path.absolute(), entry.filename, entry.CRC), dtype, shape)


@dataclass(frozen=True)
class Member:
    """A compressed array of an .npz file, to be unpacked; `crc` tells two versions apart."""

    path: Path
    name: str
    crc: int

    def __call__(self) -> np.ndarray:
        """The array.

        Raises
        ------
        InputError
            It cannot be unpacked.
        """
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.name) as member:
                array: np.ndarray = np.lib.format.read_array(member, allow_pickle=False)
                return array
        except (*DAMAGE, OSError, MemoryError) as error:
            raise damaged(self.path, error) from error


def _header(file: IO[bytes] | Any) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    version = np.lib.format.read_magic(file)
    with warnings.catch_warnings():  # about headers as Python 2 wrote them, which are read
        warnings.simplefilter("ignore")
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
        else:  # 3.0 exists for records whose field names are not ASCII
            raise ValueError(f"format version {version[0]}.{version[1]}, expected 1.0 or 2.0")
    if dtype.hasobject:
        raise Pickled(f"dtype {dtype}")
    if dtype.subdtype is not None or any(side < 0 for side in shape):
        raise ValueError(f"dtype {dtype}, shape {list(shape)}")
    return dtype, tuple(shape), fortran


def _raw(
    path: Path,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    fortran: bool,
    offset: int,
    size: int,
) -> RawArray:
    wanted = offset + math.prod(shape) * dtype.itemsize
    if size < wanted:
        raise ValueError(f"cut off: {size:,} bytes of {wanted:,}")
    return RawArray(path.absolute(), dtype, shape, offset, fortran)


def _fits(path: Path, name: str, size: int) -> None:
    """Refuse a compressed array that would take most of the machine's memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if _HAS_SYSCONF else 1 << 34
    if size > memory // 2:
        raise InputError(
            f"the array {name!r} of {path.name} is compressed and too large to unpack",
            got=f"{size:,} bytes once unpacked; this machine has {memory:,}",
            expected="a compressed array of less than half the memory",
            remedy="save it uncompressed, as .npy or with numpy.savez: it is then read piecewise",
        )


_HAS_SYSCONF = hasattr(os, "sysconf")


def damaged(file: Path, error: BaseException) -> InputError:
    """The error for a file that is not what its suffix says."""
    return InputError(
        f"{file.name} cannot be read as a {file.suffix} file",
        got=str(error).strip().split("\n")[0][:200] or type(error).__name__,
        expected=f"a whole {file.suffix} file",
        remedy="write or copy it again",
    )
