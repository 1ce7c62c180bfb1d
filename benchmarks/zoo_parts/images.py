"""Small images of three kinds, split into those trained on and those audited."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

#: Where the .npz files are looked for; the digits come with scikit-learn.
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@dataclass(frozen=True)
class Images:
    """Float32 images in [0, 1], [N, 1, side, side], to train on and to audit."""

    train: Tensor
    audited: Tensor

    @property
    def side(self) -> int:
        return self.train.shape[-1]


class NotThere(Exception):
    """The file of a data set is absent; its models are told and left out."""


@cache
def load(name: str, folder: Path = DATA) -> Images:
    """Of the tuning set: ``digits`` 8 x 8 (1,000 and 797), ``fashion`` (3,000 and 1,000) and
    ``omniglot`` (3,872 and 968, de-duplicated), both pooled to 14 x 14. Of the fresh one: other
    cuts, ``digits b`` (1,250 and 547), ``fashion b`` (4,000 and 1,200, none of them above) and
    ``omniglot b`` (3,640 and 1,200), and ``mnist`` (4,000 and 1,200)."""
    if name in ("digits", "digits b"):
        from sklearn.datasets import load_digits

        x = torch.as_tensor(load_digits().images / 16.0).float().unsqueeze(1)
        return _cut(x, *((0, 1000) if name == "digits" else (1, 1250)))
    if name in ("omniglot", "omniglot b"):
        x = _pooled(_read(folder / "omniglot_small.npz"))
        return _cut(x, *((0, 3872) if name == "omniglot" else (1, 3640)))
    file = "mnist" if name == "mnist" else "fashion_mnist"
    train, test = (_read(folder / f"{file}_{part}.npz") for part in ("train", "test"))
    if name == "fashion":
        return Images(_pooled(train[:3000]), _pooled(test[:1000]))
    return Images(_pooled(train[30000:34000]), _pooled(test[2000:3200]))


def _cut(x: Tensor, seed: int, train: int) -> Images:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return Images(x[order[:train]], x[order[train:]])


def _read(file: Path) -> np.ndarray:
    if not file.exists():
        raise NotThere(f"{file.name} is not in the folder of data")
    with np.load(file) as found:
        return found["images"]


def _pooled(images: np.ndarray) -> Tensor:
    return nn.functional.avg_pool2d(torch.as_tensor(images).float().div(255.0).unsqueeze(1), 2)
