"""The labelled zoo: does the audit's verdict name the state that a model was driven into?

    python benchmarks/zoo.py [--split] [--states NAME ...] [--out FILE] [--quick]
    python benchmarks/zoo.py --table FILE

Some 70 small VAEs (digits, Fashion-MNIST, Omniglot; MLP and convolutional; Gaussian and Bernoulli),
each trained, some operated on afterwards, so that their state is known: healthy, partial, local,
total by the decoder, a lagging encoder, one constant posterior, fake units, variance-shrunk,
near-deterministic, prior mismatch, phantom dimensions, duplicated axes. The label comes from the
making, and is checked in plain torch before the audit is asked (`zoo_parts/facts.py`). Printed: the
confusion matrix and every disagreement with its evidence. A verdict is wrong where it is neither
among the state's words nor inconclusive; incomplete where a finding that the state needs is
missing, or one about units is raised on a model in order.

--split tells the two halves of the zoo apart, in every state by a hash of the name: thresholds were
tuned on one and are judged on the other. Trained networks are kept under build/zoo. Exit code 1
where the held-out half (or what was asked for) is less than 90 % right, more than 10 %
inconclusive, or has a wrong verdict. One thread; 8 minutes of CPU the first time, 4 afterwards.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.zoo_parts import facts, judging
from benchmarks.zoo_parts.images import NotThere, load
from benchmarks.zoo_parts.states import Animal, animals
from benchmarks.zoo_parts.training import cached, ink

KEPT = Path(__file__).resolve().parents[1] / "build" / "zoo"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--split", action="store_true", help="the two halves apart")
    parser.add_argument("--half", choices=["tune", "held out"], help="this half only")
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
    torch.set_num_threads(1)
    everyone = list(animals())
    half = judging.halves([a.name for a in everyone], {a.name: a.state.name for a in everyone})
    chosen = [a for a in everyone if _wanted(a, arguments, half)]
    record: dict[str, Any] = {
        "command": "python benchmarks/zoo.py --split",
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
        found |= {"half": half[animal.name], "made": repr(animal.recipe)}
        record["models"][animal.name] = found
        spent = time.process_time() - begin
        told = f"{animal.name:24s} {found.get('verdict', ''):18s} {found.get('outcome', '')}"
        print(f"{told} ({spent:.1f} s)", file=sys.stderr, flush=True)
    if arguments.train:
        return 0
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(tables(record, split=arguments.split))
    return 0 if good(record, arguments.split) else 1


def _wanted(animal: Animal, arguments: argparse.Namespace, half: dict[str, str]) -> bool:
    if arguments.quick:
        return animal.name.endswith(" 1")
    return (
        (arguments.half is None or half[animal.name] == arguments.half)
        and (arguments.states is None or animal.state.name in arguments.states)
        and (arguments.names is None or animal.name in arguments.names)
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
    seen = facts.measure(model, animal.recipe, images.audited, ink(images.train).median())
    if not animal.state.true(seen):
        raise RuntimeError(f"{animal.name} is not {animal.state.name}: {facts.told(seen)}")
    return {} if train_only else judging.told(animal, judging.audited(model, animal.recipe, images))


def tables(record: dict[str, Any], *, split: bool = True) -> str:
    """Confusion matrix, scores and disagreements, of each half where `split`."""
    models = record["models"]
    parts = []
    for half in ("tune", "held out") if split else (None,):
        mine = {n: r for n, r in models.items() if half is None or r["half"] == half}
        title = {"tune": "Tuning half", "held out": "Held-out half", None: "All models"}[half]
        counts = judging.score(list(mine.values()))
        told = ", ".join(f"{count} {word}" for word, count in counts.items() if word != "models")
        parts.append(f"### {title}\n\n{counts['models']} models: {told}.")
        parts.append(judging.confusion(list(mine.values())))
        for name, found in mine.items():
            if found["outcome"] != "right":
                parts.append(_disagreement(name, found))
    for name, why in record["left out"].items():
        parts.append(f"Left out: {name} ({why}).")
    return "\n\n".join(parts)


def _disagreement(name: str, found: dict[str, Any]) -> str:
    told = f"**{name}**: {found['outcome']}, verdict {found['verdict']}"
    if found["missed"]:
        told += f"; not raised: {', '.join(found['missed'])}"
    if found["false"]:
        told += f"; raised without cause: {', '.join(found['false'])}"
    return f"{told}. {' '.join(found['evidence'])}"


def good(record: dict[str, Any], split: bool) -> bool:
    """At least 90 % right, at most 10 % inconclusive, none wrong."""
    models = record["models"].values()
    counts = judging.score([r for r in models if not split or r["half"] == "held out"])
    n = counts["models"]
    return counts["right"] >= 0.9 * n and counts["inconclusive"] <= 0.1 * n and not counts["wrong"]


if __name__ == "__main__":
    sys.exit(main())
