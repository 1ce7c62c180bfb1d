"""dask.distributed as the executor: the audit of one process."""

from __future__ import annotations

import pytest

from tests.test_executors import alone, audited, same_and_all

__all__ = ["alone"]

distributed = pytest.importorskip(
    "distributed", reason="dask.distributed is not installed (collapsekit[dask])"
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_dask_workers_say_the_same(alone) -> None:  # type: ignore[no-untyped-def]
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True
        ) as cluster,
        distributed.Client(cluster) as client,
        client.get_executor() as executor,
    ):
        same_and_all(alone, audited(executor))
