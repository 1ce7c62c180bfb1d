"""Samples that cannot be read: told by number, and the others are as if they had been alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import collapsekit as ck
from collapsekit import probes
from collapsekit.errors import ModelError
from collapsekit.results import Audit
from tests import models

MODEL = models.LinearVAE([0.9, 0.5, 0.1])
X = MODEL.sample(100, 0).float()
BAD = (0, 41, 42, 99)
FEW = tuple(p for p in probes.REGISTERED if p.name in ("kl", "active_units", "mutual_information"))


class Items(Dataset[Any]):
    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        if i in BAD:
            raise OSError("the disk has a bad sector")
        return X[i], i % 3


class Batches:
    """An iterable whose second batch cannot be read; it goes on afterwards."""

    def __iter__(self) -> Iterator[Tensor]:
        return Reader()


class Reader(Iterator[Tensor]):
    def __init__(self) -> None:
        self.at = -1

    def __next__(self) -> Tensor:
        self.at += 1
        if self.at == 1:
            raise OSError("the disk has a bad sector")
        if self.at == 5:
            raise StopIteration
        return X[20 * self.at : 20 * self.at + 20]


def lost(audit: Audit) -> tuple[int, ...]:
    return tuple(sorted(i for f in audit.findings if f.code == "CK001" for i in f.samples))


def rate(x: Tensor) -> Any:
    return pytest.approx(ck.audit(MODEL, x, probes=FEW).number("rate").value, rel=1e-9)


@pytest.mark.parametrize("data", [Items(), DataLoader(Items(), batch_size=8)])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_items_that_raise_are_lost_alone(data: Any, batch: int) -> None:
    audit = ck.audit(MODEL, data, probes=FEW, batch=batch)
    assert lost(audit) == BAD
    kept = np.setdiff1d(np.arange(100), BAD)
    assert audit.number("rate").n == 96
    assert audit.number("rate").value == rate(X[kept])
    assert audit.samples["kl_total"].isna().to_numpy().nonzero()[0].tolist() == list(BAD)
    assert (audit.samples["label"].to_numpy()[kept].astype(int) == kept % 3).all()
    assert any("bad sector" in f.message for f in audit.findings)


def test_a_shuffling_loader_loses_the_batch() -> None:
    loader = DataLoader(Items(), batch_size=5, shuffle=True)
    audit = ck.audit(MODEL, loader, probes=FEW)
    assert len(audit.samples) == 100
    assert audit.number("rate").n == 100 - len(lost(audit))
    assert 5 <= len(lost(audit)) <= 20
    assert len(lost(audit)) % 5 == 0


def test_a_stream_goes_on_after_a_batch_that_fails() -> None:
    audit = ck.audit(MODEL, Batches(), probes=FEW)
    assert lost(audit) == (20,)
    assert audit.number("rate").value == rate(torch.cat([X[:20], X[40:]]))


@pytest.mark.parametrize("batch", [4, 16, 200])
def test_a_shard_that_is_cut_short_while_it_is_read(tmp_path: Path, batch: int) -> None:
    for part in range(4):
        np.save(tmp_path / f"x-{part}.npy", X[25 * part : 25 * part + 25].numpy())
    samples = ck.samples.as_samples(tmp_path)
    file = tmp_path / "x-2.npy"
    file.write_bytes(file.read_bytes()[: -10 * X[0].numel() * 4])
    audit = ck.audit(MODEL, samples, probes=FEW, batch=batch)
    assert lost(audit) == tuple(range(65, 75))
    assert audit.number("rate").value == rate(torch.cat([X[:65], X[75:]]))


def test_policies() -> None:
    with pytest.raises(ModelError, match="bad sector"):
        ck.audit(MODEL, Items(), probes=FEW, on_bad_sample="raise")
    audit = ck.audit(MODEL, Items(), probes=FEW, on_bad_sample="skip")
    assert tuple(audit.tables["quarantined"]["sample"]) == BAD


def test_a_checkpoint_of_data_with_holes(tmp_path: Path) -> None:
    one, two = (ck.audit(MODEL, Items(), probes=FEW, checkpoint=tmp_path) for _ in range(2))
    assert lost(one) == lost(two) == BAD
