"""Train the models of this folder's reports, audit them, and write the finished pages.

    python reports/make.py [fashion] [omniglot] [mnist] [--data DIR] [--out DIR]

Each name trains one vanilla VAE and, where it is to be repaired, the same with the latent
reconstruction loss; audits both on images that neither saw; and writes, per model, the page
(.html), the audit as Markdown (.md) and as JSON (.json), and per pair a comparison. Nets, weights
and schedules are those of `benchmarks/lr` (B2, B4, MNIST2), at the first of their seeds, so that
`reports/lr` has the same models' rows. About 4 minutes of CPU for all three, one thread.

SOURCE_DATE_EPOCH fixes the date and the times in the pages: the same bytes on the same machine.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import collapsekit as ck
from benchmarks.lr.data import Part, official_test
from benchmarks.lr.measuring import audited
from benchmarks.lr.running import trainer
from benchmarks.lr.settings import BENCHMARKS
from benchmarks.lr.training import Method

SEED = 21
FASHION = (
    *("T-shirt", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Boot"),
)


@dataclass(frozen=True)
class Model:
    """One report: its file's name, its name in a comparison, how it is trained.

    `weight` multiplies beta; it is what validation chose in `reports/lr`.
    """

    file: str
    name: str
    method: Method
    weight: float = 0.0


@dataclass(frozen=True)
class Story:
    """Models that are told together, on one benchmark's data."""

    bench: str
    data: str
    classes: tuple[str, ...]
    models: tuple[Model, ...]
    official: tuple[str, str] | None = None  # all official test images, by their names on disk


STORIES = {
    "fashion": Story(
        "B2",
        "Fashion-MNIST, the official test images",
        FASHION,
        (
            Model("fashion-collapsed", "vanilla", "vanilla"),
            Model("fashion-repaired", "LR", "lr", 3.0),
        ),
        ("fashion_mnist", "Fashion-MNIST"),
    ),
    "omniglot": Story(
        "B4",
        "Omniglot, images held out",
        (),
        (
            Model("omniglot-collapsed", "vanilla", "vanilla"),
            Model("omniglot-repaired", "LR", "lr", 1.0),
        ),
    ),
    "mnist": Story(
        "MNIST2",
        "MNIST, the official test images",
        tuple("0123456789"),
        (Model("mnist-beta2", "vanilla", "vanilla"),),
        ("mnist", "mnist_784"),
    ),
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(STORIES)}")
    default = ROOT.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=default, help="folder of the .npz files")
    parser.add_argument("--out", type=Path, default=ROOT / "reports")
    arguments = parser.parse_args(argv)
    for name in arguments.names:
        if name not in STORIES:
            parser.error(f"{name} is not one of {', '.join(STORIES)}")
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or STORIES:
        tell(name, arguments.data, arguments.out)
    return 0


def tell(name: str, folder: Path, out: Path) -> None:
    """Train, audit and write one story."""
    story = STORIES[name]
    found: dict[str, ck.Audit] = {}
    for model in story.models:
        audit = told(name, story, model, folder)
        audit.to_html(out / f"{model.file}.html")
        (out / f"{model.file}.md").write_text(audit.to_markdown(), encoding="utf-8")
        (out / f"{model.file}.json").write_text(audit.to_json(), encoding="utf-8")
        found[model.name] = audit
        print(f"{model.file}: {audit.verdict.name}", file=sys.stderr, flush=True)
    if len(found) > 1:
        ck.compare(found).to_html(out / f"{name}-compared.html")


def told(name: str, story: Story, model: Model, folder: Path) -> ck.Audit:
    """One trained model's audit, with the words by which a reader knows it."""
    bench = BENCHMARKS[story.bench]
    data = bench.data(folder)
    training = trainer(bench, model.method, model.weight, data.train, SEED)
    training.run()
    part = data.test if story.official is None else official_test(folder, *story.official)
    if story.classes:
        part = Part(part.x, np.asarray(story.classes)[part.y])
    audit = audited(training.vae, part, bench.beta)
    widths = "-".join(str(width) for width in (*bench.widths, training.latent))
    loss = "0.5 SSE + β KL"
    if model.method == "lr":
        loss += f" + {model.weight:g} β LR"
    audit.provenance["model"] = f"MLP-VAE {widths}, {loss}, {bench.epochs} epochs"
    audit.provenance["data"] = story.data
    audit.provenance["command"] = f"python reports/make.py {name}"
    return audit


if __name__ == "__main__":
    raise SystemExit(main())
