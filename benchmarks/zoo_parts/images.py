"""Small images of five kinds, split into those trained on and those audited."""

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
    """Float32 images [N, 1, side, side], to train on and to audit; in [0, 1] but for ``warp``."""

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
    ``omniglot b`` (3,640 and 1,200), and ``mnist`` (4,000 and 1,200). Of the held one, rows that
    neither has seen where there are such: ``digits c``, upside down and inverted (1,100 and 697);
    ``fashion c``, the middle 16 x 16 pixels (3,000 and 900); ``mnist c``, black or white (3,500 and
    1,100); ``omniglot c``, pooled by the maximum (3,800 and 1,040); ``warp``, made (2,000 and 600);
    ``mixed``, half MNIST and half Fashion-MNIST (3,000 and 800). Of the blind one, likewise:
    ``digits d``, a quarter turn (1,050 and 747); ``fashion d``, inverted, pooled by the maximum,
    left and right exchanged (2,400 and 800); ``mnist d``, pooled to 8 x 8 (2,600 and 750);
    ``omniglot d``, every second character, mirrored (1,700 and 720); ``blobs``, made (1,600 and
    700)."""
    if name.startswith("digits"):
        from sklearn.datasets import load_digits

        x = torch.as_tensor(load_digits().images / 16.0).float().unsqueeze(1)
        if name == "digits c":
            x = 1.0 - x.flip(2)
        if name == "digits d":
            x = x.rot90(1, (2, 3)).contiguous()
        cuts = {"digits": 1000, "digits b": 1250, "digits c": 1100, "digits d": 1050}
        return _cut(x, list(cuts).index(name), cuts[name])
    if name == "warp":
        return _warped()
    if name == "blobs":
        return _blobs()
    if name.startswith("omniglot"):
        strokes = _read(folder / "omniglot_small.npz")
        if name == "omniglot c":
            largest = nn.functional.max_pool2d(_unit(strokes), 2)
            return _cut(largest, 2, 3800)
        if name == "omniglot d":
            return _cut(_pooled(strokes)[1::2].flip(3).contiguous(), 3, 1700)
        return _cut(_pooled(strokes), *((0, 3872) if name == "omniglot" else (1, 3640)))
    mnist, fashion = (
        [folder / f"{kind}_{part}.npz" for part in ("train", "test")]
        for kind in ("mnist", "fashion_mnist")
    )
    if name == "mixed":
        rows = (slice(50_000, 51_500), slice(8000, 8400))
        kinds = [
            [_pooled(_read(file)[r]) for file, r in zip(files, rows, strict=True)]
            for files in (mnist, fashion)
        ]
        return Images(*(torch.cat(both) for both in zip(*kinds, strict=True)))
    train, test = (_read(file) for file in (mnist if name.startswith("mnist") else fashion))
    if name == "fashion":
        return Images(_pooled(train[:3000]), _pooled(test[:1000]))
    if name == "fashion c":
        middle = (slice(None), slice(None), slice(6, 22), slice(6, 22))
        return Images(_unit(train[45_000:48_000])[middle], _unit(test[6000:6900])[middle])
    if name == "mnist c":
        grey = [_pooled(x) for x in (train[10_000:13_500], test[5000:6100])]
        return Images(*((x > 0.5).float() for x in grey))
    if name == "fashion d":
        dark = [1.0 - _unit(x).flip(3) for x in (train[20_000:22_400], test[4000:4800])]
        return Images(*(nn.functional.max_pool2d(x, 2) for x in dark))
    if name == "mnist d":
        middle = (slice(None), slice(None), slice(2, 26), slice(2, 26))
        grey = [_unit(x)[middle] for x in (train[20_000:22_600], test[7000:7750])]
        return Images(*(nn.functional.avg_pool2d(x, 3) for x in grey))
    return Images(_pooled(train[30000:34000]), _pooled(test[2000:3200]))


def _warped() -> Images:
    """Five standard Gaussian factors, 24 rectified mixtures of them, 64 pixels, noise of 0.03."""
    generator = torch.Generator().manual_seed(11)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    hidden = torch.relu(normal(2600, 5) @ normal(5, 24) / 5**0.5 + 0.3 * normal(24))
    x = 0.4 + 0.25 * (hidden @ normal(24, 64) / 24**0.5) + 0.03 * normal(2600, 64)
    return Images(*x.view(-1, 1, 8, 8).split([2000, 600]))


def _blobs() -> Images:
    """One bright blob an image, 8 x 8: where it is, how wide and how bright; noise of 0.02."""
    generator = torch.Generator().manual_seed(12)
    across, down, width, height = torch.rand(4, 2300, 1, 1, generator=generator)
    axis = torch.linspace(0.0, 1.0, 8)
    far = (axis - 0.2 - 0.6 * across).square() + (axis[:, None] - 0.2 - 0.6 * down).square()
    x = (0.3 + 0.7 * height) * (-0.5 * far / (0.1 + 0.15 * width).square()).exp()
    x = (x + 0.02 * torch.randn(x.shape, generator=generator)).clamp(0, 1).unsqueeze(1)
    return Images(*x.split([1600, 700]))


def _cut(x: Tensor, seed: int, train: int) -> Images:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return Images(x[order[:train]], x[order[train:]])


def _read(file: Path) -> np.ndarray:
    if not file.exists():
        raise NotThere(f"{file.name} is not in the folder of data")
    with np.load(file) as found:
        return found["images"]


def _unit(images: np.ndarray) -> Tensor:
    return torch.as_tensor(images).float().div(255.0).unsqueeze(1)


def _pooled(images: np.ndarray) -> Tensor:
    return nn.functional.avg_pool2d(_unit(images), 2)
