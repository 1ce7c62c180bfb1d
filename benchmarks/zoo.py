"""The labelled zoo: does the audit's verdict name the state that a model was driven into?

    python benchmarks/zoo.py SET [--states NAME ...] [--names NAME ...] [--out FILE] [--quick]
    python benchmarks/zoo.py SET --train
    python benchmarks/zoo.py --table FILE

Small VAEs, each trained, some operated on afterwards, so that their state is known: healthy,
partial, local, total by the decoder, a lagging encoder, one constant posterior, fake units,
variance-shrunk, near-deterministic, prior mismatch, phantom dimensions, duplicated axes. The label
comes from the making, and is checked in plain torch before the audit is asked
(`zoo_parts/facts.py`). Printed: the confusion matrix and every disagreement with its evidence. A
verdict is wrong where it is neither among the state's words nor inconclusive; incomplete where a
finding that the state needs is missing, or one about units is raised on a model in order.

SET is "tuning", 74 models on which thresholds were chosen (digits, Fashion-MNIST, Omniglot);
"fresh", 61 of other images (MNIST too), networks, code sizes, weights, seeds and doses
(`zoo_parts/fresh.py`); "held", 75 of still others, with learned output widths, posteriors of full
covariance and made data (`zoo_parts/held.py`); "blind", 60 of yet others (`zoo_parts/blind.py`); or
"borderline", 10 near a threshold that more than one word is right of (`zoo_parts/borderline.py`),
which have no score. Trained networks are kept under build/zoo. Exit code 1 where less than 90 % are
right, more than 10 % inconclusive, or one is wrong; a record whose name ends in "first" is never
written twice. One thread; a set takes 8 minutes of CPU the first time, 4 afterwards.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.zoo_parts import facts, judging
from benchmarks.zoo_parts.images import NotThere, load
from benchmarks.zoo_parts.sets import APART, SETS, Animal, animals
from benchmarks.zoo_parts.training import cached, ink, output_width
from collapsekit.intervals import wilson

KEPT = Path(__file__).resolve().parents[1] / "build" / "zoo"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("set", nargs="?", choices=(*SETS, APART), default="tuning")
    parser.add_argument("--states", nargs="+", metavar="NAME", help="these states only")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="these models only")
    parser.add_argument("--train", action="store_true", help="train and check; no audits")
    parser.add_argument("--out", type=Path, help="write the record, JSON")
    parser.add_argument("--table", type=Path, help="print this record's tables and stop")
    parser.add_argument("--quick", action="store_true", help="one model a state, digits only")
    arguments = parser.parse_args(argv)
    if arguments.table is not None:
        print(tables(json.loads(arguments.table.read_text("utf-8"))))
        return 0
    out = arguments.out
    if out is not None and out.stem.endswith("first") and out.exists():
        parser.error(f"{out} is a first record, and stays as it is")
    torch.set_num_threads(1)
    chosen = [a for a in animals(arguments.set) if _wanted(a, arguments)]
    record: dict[str, Any] = {
        "command": f"python benchmarks/zoo.py {arguments.set}",
        "set": arguments.set,
        "commit": _commit(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "models": {},
        "left out": {},
    }
    for animal in chosen:
        begin = time.process_time()
        try:
            found = meet(animal, train_only=arguments.train)
        except NotThere as missing:
            record["left out"][animal.name] = str(missing)
            continue
        found |= {"made": repr(animal.recipe)}
        record["models"][animal.name] = found
        spent = time.process_time() - begin
        told = f"{animal.name:24s} {found.get('verdict', ''):18s} {found.get('outcome', '')}"
        print(f"{told} ({spent:.1f} s)", file=sys.stderr, flush=True)
    if arguments.train:
        return 0
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(tables(record))
    return 0 if arguments.set == APART or good(record) else 1


def _commit() -> str:
    """The commit that is audited, "+" after it where files differ from it; empty without git."""
    told = ["git", "-C", str(KEPT.parents[1]), "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        return subprocess.run(told, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _wanted(animal: Animal, arguments: argparse.Namespace) -> bool:
    if arguments.quick:
        return animal.name.endswith(" 1")
    return (arguments.states is None or animal.state.name in arguments.states) and (
        arguments.names is None or animal.name in arguments.names
    )


def meet(animal: Animal, *, train_only: bool = False) -> dict[str, Any]:
    """Train or fetch one model, see that it is what its label says, and have it audited.

    Raises
    ------
    RuntimeError
        The label is not true of the model: the zoo's fault, not the audit's.
    """
    images = load(animal.recipe.data)
    vae = cached(animal.recipe, images, KEPT)
    model = animal.operate(vae, images)
    width = output_width(animal.recipe, vae)
    seen = facts.measure(model, width, images.audited, ink(images.train).median())
    if not animal.state.true(seen):
        raise RuntimeError(f"{animal.name} is not {animal.state.name}: {facts.told(seen)}")
    if train_only:
        return {}
    audit = judging.audited(model, animal.recipe, width, images)
    return judging.told(animal, audit) | {"seen": facts.told(seen)}


def tables(record: dict[str, Any]) -> str:
    """Confusion matrix, scores and disagreements."""
    models = record["models"]
    if record["set"] == APART:
        parts = [judging.listed(models)]
    else:
        parts = [_scored(models), judging.confusion(list(models.values()))]
    parts += [_disagreement(n, found) for n, found in models.items() if found["outcome"] != "right"]
    parts += [f"Left out: {name} ({why})." for name, why in record["left out"].items()]
    return "\n\n".join(parts)


def _scored(models: dict[str, Any]) -> str:
    counts = judging.score(list(models.values()))
    n, right = counts.pop("models"), counts.pop("right")
    if not n:
        return "0 models."
    low, high = wilson(right, n)
    rest = ", ".join(f"{count} {word}" for word, count in counts.items())
    share = f"{100 * right / n:.0f} %, 95 % interval {100 * low:.0f} to {100 * high:.0f}"
    return f"{n} models: {right} right ({share}), {rest}."


def _disagreement(name: str, found: dict[str, Any]) -> str:
    told = f"**{name}**: {found['outcome']}, verdict {found['verdict']}"
    if found["missed"]:
        told += f"; not raised: {', '.join(found['missed'])}"
    if found["false"]:
        told += f"; raised without cause: {', '.join(found['false'])}"
    return f"{told}. {' '.join(found['evidence'])}"


def good(record: dict[str, Any]) -> bool:
    """At least 90 % right, at most 10 % inconclusive, none wrong."""
    counts = judging.score(list(record["models"].values()))
    n = counts["models"]
    return counts["right"] >= 0.9 * n and counts["inconclusive"] <= 0.1 * n and not counts["wrong"]


if __name__ == "__main__":
    sys.exit(main())
