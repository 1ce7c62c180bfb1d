"""Executors: worker processes on this machine, and the workers of a dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from collapsekit.errors import InputError, brief


def workers(executor: Executor) -> int:
    """How many tasks an executor runs at a time, as far as it tells."""
    count = getattr(executor, "_max_workers", None)
    if isinstance(count, int) and count > 0:
        return count
    client = getattr(executor, "_client", None)  # dask's
    try:
        return max(1, sum(client.nthreads().values())) if client is not None else 8
    except Exception:
        return 8


@contextmanager
def on_cluster(address: str) -> Iterator[Executor]:
    """The workers of a dask cluster as an executor.

    Parameters
    ----------
    address : str
        Of its scheduler, ``tcp://host:8786``, or the path of a scheduler file (.json).

    Raises
    ------
    InputError
        dask.distributed is not installed, or nobody answers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError(
            "dask.distributed is not installed",
            got=str(error),
            expected="dask.distributed beside collapsekit, here and on the workers",
            remedy="pip install 'collapsekit[dask]'",
        ) from error
    where = {"scheduler_file": address} if address.endswith(".json") else {"address": address}
    try:
        client = Client(**where)
    except (OSError, ValueError) as error:
        raise InputError(
            "the cluster cannot be reached",
            got=f"{address}: {brief(error)}",
            expected="the address of a dask scheduler, such as tcp://host:8786",
            remedy="dask scheduler; dask worker ADDRESS --nthreads 1",
        ) from error
    with client, client.get_executor(pure=False) as executor:
        yield executor


class LocalProcesses(Executor):
    """Worker processes on this machine, begun anew when one of them dies.

    Parameters
    ----------
    count : int
    """

    def __init__(self, count: int) -> None:
        self._max_workers = count
        self._pool = self._begin()

    def _begin(self) -> ProcessPoolExecutor:
        import multiprocessing

        # Spawned: a forked child inherits locks and thread pools in whatever state they are.
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self._max_workers, mp_context=context)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a call on a worker."""
        try:
            return self._pool.submit(fn, *args, **kwargs)
        except BrokenProcessPool:
            self._pool.shutdown(wait=False)
            self._pool = self._begin()
            return self._pool.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers."""
        self._pool.shutdown(wait, cancel_futures=cancel_futures)
