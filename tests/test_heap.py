"""Freed memory: kept in workers, handed back between pieces, and neither without glibc."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from collapsekit import heap

FAULTS = """
import resource, sys
import numpy as np
from collapsekit import heap

if sys.argv[1] == "keep":
    heap.keep()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(200):
    np.ones(1 << 17)  # 1 MB, freed at once
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(heap._set is None, reason="there is no glibc")
def test_a_worker_fetches_its_memory_once() -> None:
    """As dask starts its workers: 200 arrays of 256 pages, each fetched anew or one for all."""

    def faults(how: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, how],
            env={**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"},
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stdout)

    assert faults("as it is") > 200 * 200
    assert faults("keep") < 10 * 256


@pytest.mark.parametrize("library", [object(), OSError, TypeError])
def test_another_c_library_changes_nothing(
    library: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(_: None) -> object:
        if isinstance(library, type):
            raise library
        return library

    monkeypatch.setattr(heap.ctypes, "CDLL", opened)
    assert heap._found("malloc_trim") is None
    monkeypatch.setattr(heap, "_trim", None)
    monkeypatch.setattr(heap, "_set", None)
    heap.give_back()
    heap.keep()
