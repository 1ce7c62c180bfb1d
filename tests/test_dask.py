"""dask.distributed as the executor: the audit of one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import collapsekit as ck
from tests.test_cli import Run, run
from tests.test_executors import LINEAR, N, alone, audited, same_and_all

__all__ = ["alone", "run"]

distributed = pytest.importorskip(
    "distributed", reason="dask.distributed is not installed (collapsekit[dask])"
)
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True
    ) as cluster:
        yield cluster


@pytest.mark.parametrize("pure", [False, True])
def test_two_dask_workers_say_the_same(alone: ck.Audit, cluster: Any, pure: bool) -> None:
    """Also where dask takes equal calls for one call, as it does unless told otherwise."""
    with (
        distributed.Client(cluster) as client,
        client.get_executor(pure=pure) as executor,
    ):
        same_and_all(alone, audited(executor))
        served = client.run(lambda: len(__import__("collapsekit.pool").pool._KEPT))
    assert len(served) == 2
    assert all(served.values())  # each has had a part in it


def test_the_command_line_finds_the_scheduler(cluster: Any, run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", LINEAR.sample(N, 0).numpy())
    common = ["audit", "tests.test_executors:linear", "--data", tmp_path / "x.npy"]
    common += ["--likelihood", "gaussian:0.5", "--batch", "50"]
    on_two = run(*common, "--dask", cluster.scheduler_address, "--out", tmp_path / "two.audit")
    here = run(*common, "--out", tmp_path / "one.audit")
    assert on_two.code == here.code, on_two.err
    one, two = ck.load(tmp_path / "one.audit"), ck.load(tmp_path / "two.audit")
    same_and_all(one, two)
    stages = two.run["timings"]
    assert "prior and population" in stages  # both streams at once: workers took the rows
