"""Faces: a convolutional VAE on CelebA or FFHQ, with and without the LR loss, trained and audited.

    python examples/faces.py FOLDER [--size 64] [--beta 1] [--out faces-report]

FOLDER holds images of any size, in itself or in sub-folders, so either set as it is unpacked:

    CelebA  img_align_celeba/000001.jpg ... 202599.jpg, 178 x 218: "Align&Cropped Images" of
            mmlab.ie.cuhk.edu.hk/projects/CelebA.html. The papers crop the middle 148 pixels:
                python examples/faces.py img_align_celeba --crop 148
    FFHQ    00000/00000.png ... 69000/69999.png: images1024x1024 or thumbnails128x128 of
            github.com/NVlabs/ffhq-dataset:
                python examples/faces.py thumbnails128x128

The last tenth of the files in the order of their names is held out and audited; both sets' own
partitions are in that order as well. The out folder gets compare.html (begin there), a report, an
audit file and the weights of each model. Needs Pillow: pip install 'collapsekit[images]'.

The defaults are a start, not a result: this was only ever run on small made-up faces. beta is the
variance of the Gaussian likelihood; look at the reconstructions in the report, and lower it first
if they are what you want.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

import collapsekit as ck

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


class Faces(Dataset[Tensor]):
    """Images of a folder and its sub-folders as float32 [3, size, size] in [0, 1].

    Sub-folders are no classes here (FFHQ's are only shelves of a thousand); names give the order.
    ``crop`` is the side of the middle square that is kept, all of the shorter side by default.
    """

    def __init__(self, folder: Path, size: int = 64, crop: int | None = None) -> None:
        files = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        # macOS leaves "._name.jpg" files beside the images of an unpacked archive.
        names = sorted(p.relative_to(folder) for p in files if not p.name.startswith("."))
        if not names:
            raise ck.InputError(
                "there are no images",
                got=f"the folder {folder.name!r}",
                expected="CelebA's img_align_celeba or FFHQ's sub-folders, unpacked",
                remedy=f"name the folder that holds them ({' '.join(sorted(SUFFIXES))})",
            )
        self.folder, self.names, self.size, self.crop = folder, names, size, crop

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor:
        from PIL import Image

        name = self.names[index]
        try:
            with Image.open(self.folder / name) as image:
                # Cropped before it is resized: the filter would look across the box's edge.
                small = image.crop(_middle(image.size, self.crop)).convert("RGB")
                small = small.resize((self.size, self.size), Image.Resampling.LANCZOS)
        except OSError as error:
            raise ck.InputError(
                f"{name.as_posix()} cannot be read",
                got=f"{type(error).__name__}: {error}".replace(str(self.folder), self.folder.name),
                expected="an image file, whole",
                remedy="unpack the archive again",
            ) from error
        return torch.from_numpy(np.asarray(small, np.float32) / 255.0).permute(2, 0, 1).contiguous()


def _middle(size: tuple[int, int], crop: int | None) -> tuple[int, int, int, int]:
    """Left, upper, right, lower of the middle square."""
    width, height = size
    side = min(width, height, crop or width)
    left, upper = (width - side) // 2, (height - side) // 2
    return left, upper, left + side, upper + side


class FaceVAE(nn.Module):
    """Strided convolutions down to 4 x 4 or less, and back; any size of 8 or more.

    No batch norm: the LR loss encodes reconstructions as well, and the running statistics, which
    the audit uses, would become a mixture of both.
    """

    def __init__(self, size: int = 64, latent: int = 64, width: int = 32) -> None:
        super().__init__()
        sides = [size]
        while sides[-1] > 4:
            sides.append((sides[-1] + 1) // 2)  # what a 3 x 3 convolution of stride 2 leaves
        channels = [3] + [width * min(2**i, 8) for i in range(len(sides) - 1)]
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for i in range(1, len(sides)):
            down += [nn.Conv2d(channels[i - 1], channels[i], 3, 2, 1), nn.ReLU()]
            grow = [nn.Upsample(size=(sides[i - 1], sides[i - 1]))]
            grow += [nn.Conv2d(channels[i], channels[i - 1], 3, 1, 1)]
            up = [*grow, *([nn.ReLU()] if i > 1 else []), *up]
        deep = (channels[-1], sides[-1], sides[-1])
        flat = deep[0] * deep[1] * deep[2]
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(flat, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, flat), nn.ReLU(), nn.Unflatten(1, deep), *up)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return mean, (0.5 * log_variance).exp()

    def decode(self, z: Tensor) -> Tensor:
        x_hat: Tensor = self.decoder(z)
        return x_hat


@dataclass(frozen=True)
class Setting:
    """One training. ``beta`` multiplies the KL beside 0.5 * SSE; ``weight`` multiplies beta."""

    latent: int = 64
    width: int = 32
    beta: float = 1.0
    weight: float = 5.0
    noise: float = 0.1
    warmup: float = 0.25  # share of all steps
    epochs: int = 20
    batch: int = 128
    rate: float = 1e-3
    workers: int = 0
    seed: int = 0


def train(images: Dataset[Tensor], size: int, setting: Setting, *, repaired: bool) -> FaceVAE:
    """Train one VAE on a GPU where there is one; ``repaired`` adds the LR loss."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(setting.seed)  # both models: the same start, batches and noise
    vae = FaceVAE(size, setting.latent, setting.width).to(device)
    count = len(images)  # type: ignore[arg-type]
    loader = DataLoader(
        images,
        batch_size=min(setting.batch, count),
        shuffle=True,
        drop_last=True,  # a last small batch would take a full step on a noisier gradient
        num_workers=setting.workers,
    )
    lr = ck.remedies.LatentReconstruction(
        setting.weight,
        warmup_steps=int(setting.warmup * setting.epochs * len(loader)),
        beta=setting.beta,
        noise=setting.noise,
    )
    optimizer = torch.optim.Adam(vae.parameters(), lr=setting.rate)
    step = 0
    for epoch in range(setting.epochs):
        total = 0.0
        for batch in loader:
            x = batch.to(device, non_blocking=True)
            mean, scale = vae.encode(x)
            z = mean + scale * torch.randn_like(scale)
            x_hat = vae.decode(z)
            variance = scale.square()
            kl = 0.5 * (mean.square() + variance - 1.0 - variance.log()).sum() / len(x)
            error = 0.5 * (x_hat - x).square().sum() / len(x)
            loss = error + setting.beta * kl
            if repaired:
                loss = loss + lr(z, vae.encode(lr.perturb(x_hat))[0], step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(error.detach())
            step += 1
        print(f"{_name(repaired)} epoch {epoch + 1}: 0.5 SSE {total / len(loader):.1f}", flush=True)
    return vae.cpu().eval()


def main(argv: Sequence[str] | None = None) -> dict[str, ck.Audit]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="img_align_celeba, thumbnails128x128, ...")
    parser.add_argument("--size", type=int, default=64, help="pixels of a side, 8 or more")
    parser.add_argument("--crop", type=int, help="side of the middle square; the shorter side")
    parser.add_argument("--audited", type=int, default=10_000, help="held-out images at most")
    parser.add_argument("--out", type=Path, default=Path("faces-report"))
    for name, value in vars(Setting()).items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    given = parser.parse_args(argv)
    setting = Setting(**{name: getattr(given, name) for name in vars(Setting())})
    faces = Faces(given.folder, given.size, given.crop)
    if len(faces) < 10:
        parser.error(f"{len(faces)} images are too few to train on and to hold a tenth out")
    cut = len(faces) * 9 // 10
    held_out = Subset(faces, range(cut, min(len(faces), cut + given.audited)))
    given.out.mkdir(parents=True, exist_ok=True)
    audits: dict[str, ck.Audit] = {}
    for repaired in (False, True):
        name = _name(repaired)
        vae = train(Subset(faces, range(cut)), given.size, setting, repaired=repaired)
        torch.save(vae.state_dict(), given.out / f"{name}.pt")
        likelihood = ("gaussian", setting.beta**0.5)
        audit = ck.audit(vae, held_out, likelihood=likelihood, beta=setting.beta)
        audit.to_html(given.out / f"{name}.html")
        audit.save(given.out / f"{name}.audit")
        print(f"{name}: {audit.verdict.name}. {audit.verdict.sentence}", flush=True)
        audits[name] = audit
    ck.compare(audits).to_html(given.out / "compare.html")
    print(f"reports: {given.out / 'compare.html'}")
    return audits


def _name(repaired: bool) -> str:
    return "lr" if repaired else "vanilla"


if __name__ == "__main__":
    main()
