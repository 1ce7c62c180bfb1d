"""What comes in an order of its own is numbered by the reader, and can be sent elsewhere."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from collapsekit.errors import InputError
from collapsekit.samples import Samples, as_samples, concatenate

N = 23
X = torch.arange(N * 2, dtype=torch.float32).reshape(N, 2)


class Rows(Dataset[Any]):
    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> Any:
        return X[i], i


class Shared(IterableDataset[Any]):
    """Each worker gives its own rows."""

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return iter(X[first::step])


class Whole(IterableDataset[Any]):
    """Each worker gives all rows: the classic mistake."""

    def __iter__(self) -> Iterator[Any]:
        return iter(X)


def batches() -> Iterator[torch.Tensor]:
    """A generator of batches of 9 rows."""
    yield from X.split(9)


def read(samples: Samples, size: int = 5) -> tuple[torch.Tensor, np.ndarray]:
    parts = list(samples.batches(size))
    x = concatenate([part.x for part in parts])
    assert isinstance(x, torch.Tensor)
    return x, np.concatenate([part.index for part in parts])


@pytest.mark.parametrize(
    "data",
    [batches, Shared(), DataLoader(Shared(), batch_size=4), DataLoader(Rows(), batch_size=4)],
    ids=["function", "stream", "loader of a stream", "loader"],
)
def test_streams_are_read_again_and_sent_elsewhere(data: Any) -> None:
    samples = as_samples(data)
    for again in (samples, pickle.loads(pickle.dumps(samples)), samples):
        x, index = read(again)
        torch.testing.assert_close(x, X, rtol=0, atol=0)
        np.testing.assert_array_equal(index, np.arange(N))
    assert samples.size == N


def test_a_function_is_named_in_the_description() -> None:
    samples = as_samples(batches)
    read(samples)
    assert samples.description == "batches float32 [N, 2]"


def test_a_generator_is_refused_with_the_way_out() -> None:
    with pytest.raises(InputError, match=r"only once[\s\S]*the function that makes the generator"):
        as_samples(batches())


def test_workers_keep_the_order_of_a_dataset() -> None:
    samples = as_samples(DataLoader(Rows(), batch_size=4, num_workers=2))
    x, index = read(samples, 6)
    torch.testing.assert_close(x, X, rtol=0, atol=0)
    np.testing.assert_array_equal(index, np.arange(N))


@pytest.mark.parametrize("stream, rows", [(Shared, N), (Whole, 2 * N)])
def test_workers_of_a_stream_have_one_order_and_are_told(stream: Any, rows: int) -> None:
    samples = as_samples(DataLoader(stream(), batch_size=4, num_workers=2))
    x, index = read(samples)
    again, _ = read(samples, 7)
    torch.testing.assert_close(again, x, rtol=0, atol=0)
    np.testing.assert_array_equal(index, np.arange(rows))
    assert any("each came 2 times" in note for note in samples.notes)
