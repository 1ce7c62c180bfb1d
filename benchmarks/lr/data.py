"""Images and labels of the benchmarks: from a folder of .npz files, else from OpenML.

Every benchmark has four parts. Hyper-parameters are chosen on `validation` with models trained on
`fit`; what is reported comes from models trained on `train`, measured on `test`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from collapsekit.demo import digits as load_digits

Arrays = tuple[np.ndarray, np.ndarray]  # images uint8 [N, 28, 28], labels int64 [N]


@dataclass(frozen=True)
class Part:
    """Images [N, side * side], float32 in [0, 1], and their classes [N]."""

    x: Tensor
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    def rows(self, start: int, stop: int) -> Part:
        return Part(self.x[start:stop], self.y[start:stop])


@dataclass(frozen=True)
class Data:
    fit: Part
    validation: Part
    train: Part
    test: Part
    split: str  # in words, for the record


class NotThere(Exception):
    """Neither in the folder nor to be downloaded; the message says what and why."""


Load = Callable[[Path], Data]


def fashion(folder: Path) -> Data:
    return _official(folder, "fashion_mnist", "Fashion-MNIST", 20_000)


def fashion14(folder: Path) -> Data:
    return _official(folder, "fashion_mnist", "Fashion-MNIST", 20_000, pool=2)


def mnist(folder: Path) -> Data:
    return _official(folder, "mnist", "mnist_784", 8_000)


def omniglot(folder: Path) -> Data:
    """De-duplicated; OpenML has no copy of these images."""
    file = folder / "omniglot_small.npz"
    if not file.exists():
        raise NotThere(f"{file.name} is not in --data, and OpenML does not have it")
    with np.load(file) as found:
        whole = _part(found["images"], found["labels"])  # sorted by class
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))
    whole = Part(whole.x[order], whole.y[order.numpy()])
    return _refit(whole.rows(0, 3_872), whole.rows(3_872, len(whole)), "one fixed shuffle; ")


def digits(folder: Path) -> Data:
    """8 x 8 digits that ship with scikit-learn: no file, no network."""
    train_x, train_y, test_x, test_y = load_digits()
    train, test = (
        Part(torch.as_tensor(x).flatten(1), y) for x, y in ((train_x, train_y), (test_x, test_y))
    )
    return _refit(train, test, "one fixed shuffle; ")


def official_test(folder: Path, stem: str, openml: str) -> Part:
    """All 10,000 official test images: none of them trains or validates anything."""
    return _part(*_arrays(folder, stem, openml)[1])


def _official(folder: Path, stem: str, openml: str, count: int, pool: int = 1) -> Data:
    """First `count` official training images; the next 2,000; the last 2,000 official test ones."""
    train, test = _arrays(folder, stem, openml)
    whole = _part(train[0][: count + 2_000], train[1][: count + 2_000], pool)
    return Data(
        fit=whole.rows(0, count),
        validation=whole.rows(count, count + 2_000),
        train=whole.rows(0, count),
        test=_part(test[0][-2_000:], test[1][-2_000:], pool),
        split=f"train: rows 0 to {count - 1} of the official training images; validation: its next "
        "2,000; test: the last 2,000 official test images",
    )


def _refit(train: Part, test: Part, told: str) -> Data:
    """Small data: a fifth of the training images validates, and is trained on afterwards."""
    cut = len(train) * 4 // 5
    return Data(
        fit=train.rows(0, cut),
        validation=train.rows(cut, len(train)),
        train=train,
        test=test,
        split=f"{told}weight chosen on the last fifth of the {len(train)} training images with "
        f"models of the other four, then trained on all of them; test: {len(test)} others",
    )


def _arrays(folder: Path, stem: str, openml: str) -> tuple[Arrays, Arrays]:
    files = [folder / f"{stem}_{part}.npz" for part in ("train", "test")]
    if all(file.exists() for file in files):
        train, test = (_npz(file) for file in files)
        return train, test
    return _download(openml)


def _npz(file: Path) -> Arrays:
    with np.load(file) as found:
        return found["images"], found["labels"]


def _download(openml: str) -> tuple[Arrays, Arrays]:
    """The 70,000 images in their official order: 60,000 for training, 10,000 for testing."""
    from sklearn.datasets import fetch_openml

    print(f"{openml}: not in --data, asking OpenML", file=sys.stderr, flush=True)
    try:
        found = fetch_openml(openml, version=1, as_frame=False, parser="liac-arff")
    except (OSError, ValueError) as error:  # no network; or OpenML no longer knows the name
        raise NotThere(f"{openml} is not in --data, and OpenML: {type(error).__name__}") from error
    images = np.asarray(found.data).astype(np.uint8).reshape(-1, 28, 28)
    labels = np.asarray(found.target).astype(np.int64)
    return (images[:60_000], labels[:60_000]), (images[60_000:], labels[60_000:])


def _part(images: np.ndarray, labels: np.ndarray, pool: int = 1) -> Part:
    x = torch.as_tensor(images).float().div(255.0).unsqueeze(1)
    return Part(nn.functional.avg_pool2d(x, pool).flatten(1), np.asarray(labels))
