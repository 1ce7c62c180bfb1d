"""Are fake units fake? What the units that CK604 counts say and are worth, alone and together.

    python benchmarks/fake_units.py [B4 MNIST2 MNIST1 B1 B3] [--seeds 31 32] [--out DIR]
    python benchmarks/fake_units.py --table DIR

Models of benchmarks/lr_loss.py (`lr/settings.py`), fresh seeds, held-out images, plain torch: a
unit is fake where its mean's variance is above 0.01 and it tells, or costs when shuffled, 0.1 nat
at most. Fake units of a model that hides its code say little and are worth nothing; weak units of
an honest one say, and are worth, what their KL pays for. Beside it whether the audit warns: of the
LR loss with z detached (B1: Fashion-MNIST 14 x 14, B3: digits) it has to, of the full gradient
there it must not. One JSON record per benchmark; exit code 1 where that is not so. One thread; 5
minutes of CPU for all, one seed.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import collapsekit as ck
from benchmarks.lr.data import Data
from benchmarks.lr.measuring import ImageVAE, information
from benchmarks.lr.running import trainer
from benchmarks.lr.settings import BENCHMARKS
from benchmarks.lr.training import VAE, Method

ROOT = Path(__file__).resolve().parents[1]
#: Where the negative control is trained too, and the audit has a right answer.
CONTROLLED = ("B1", "B3")
PROBES = ("kl", "active_units", "mutual_information", "information_budget", "shuffle_cost")
DRAWS = 4


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    default = ROOT.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=default, help="folder of the .npz files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[31])
    parser.add_argument("--out", type=Path, help="folder for the records")
    parser.add_argument("--table", type=Path, help="print this folder's records and stop")
    arguments = parser.parse_args(argv)
    if arguments.table is not None:
        files = sorted(arguments.table.glob("*.json"))
        print(table([json.loads(file.read_text("utf-8")) for file in files]))
        return 0
    torch.set_num_threads(1)
    records = []
    for name in arguments.names or ["B4", "MNIST2", "MNIST1", *CONTROLLED]:
        found = record(name, arguments.data, arguments.seeds)
        records.append(found)
        if arguments.out is not None:
            arguments.out.mkdir(parents=True, exist_ok=True)
            (arguments.out / f"{name}.json").write_text(
                json.dumps(found, indent=1) + "\n", encoding="utf-8"
            )
    print(table(records))
    return 0 if all(as_it_should(r) for r in records) else 1


def record(name: str, folder: Path, seeds: list[int]) -> dict[str, Any]:
    """Train vanilla, LR and, where controlled, LR detached; look at their fake units."""
    bench, begin = BENCHMARKS[name], time.process_time()
    data = bench.data(folder)
    methods: list[Method] = ["vanilla", "lr"]
    if name in CONTROLLED:
        methods.append("detached")
    rows = []
    for seed in seeds:
        for method in methods:
            model = trainer(bench, method, bench.weight, data.train, seed)
            model.run()
            row = looked_at(model.vae, data.test.x, bench.beta)
            row |= {"seed": seed, "method": method} | warned(model.vae, data, bench.beta)
            rows.append(row)
            print(f"{name} {row}", file=sys.stderr, flush=True)
    return {
        "command": f"python benchmarks/fake_units.py {name}",
        "name": name,
        "title": bench.title,
        "beta": bench.beta,
        "weight": bench.weight,
        "images": len(data.test),
        "rows": rows,
        "cpu_seconds": time.process_time() - begin,
    }


@torch.no_grad()
def looked_at(vae: VAE, x: Tensor, beta: float) -> dict[str, Any]:
    """Counts, and nats: `each` from least to most, `together` and `all` are information; `cost` is
    what holding the fake units at their mean loses in likelihood, `worth` the same of all units."""
    generator = torch.Generator().manual_seed(1)
    mean, scale = vae.encode(x)
    centre = mean.mean(dim=0).expand_as(mean)

    def error(z: Tensor) -> float:
        return float(0.5 * (vae.decode(z) - x).square().sum(dim=1).double().mean()) / beta

    shuffled = torch.zeros(mean.shape[1])
    for _ in range(DRAWS):
        z = mean + scale * torch.randn(scale.shape, generator=generator)
        other = torch.randperm(len(x), generator=generator)
        own = error(z)
        for j in range(z.shape[1]):
            mixed = z.clone()
            mixed[:, j] = z[other, j]
            shuffled[j] += (error(mixed) - own) / DRAWS
    whole, each = information(mean, scale, z)
    active = mean.var(dim=0) > 0.01
    fake = active & ~((each > 0.1) & (shuffled > 0.1))
    told: dict[str, Any] = {"active": int(active.sum()), "fake": int(fake.sum()), "all": whole}
    told["worth"] = error(centre) - own
    if fake.any():
        told["each"] = [float(each[fake].min()), float(each[fake].max())]
        told["together"] = information(mean[:, fake], scale[:, fake], z[:, fake])[0]
        told["cost"] = error(torch.where(fake, centre, z)) - own
    return told


def warned(vae: VAE, data: Data, beta: float) -> dict[str, Any]:
    """What the audit says of fake units."""
    side = math.isqrt(data.test.x.shape[1])
    audit = ck.audit(
        ImageVAE(vae, side).eval(),
        data.test.x.unflatten(1, (1, side, side)),
        likelihood=("gaussian", math.sqrt(beta)),
        beta=beta,
        probes=[p for p in ck.probes.REGISTERED if p.name in PROBES],
    )
    finding = next(f for f in audit.findings if f.code == "CK604")
    return {"CK604": finding.severity.word, "message": finding.message}


def as_it_should(record: dict[str, Any]) -> bool:
    """Where it is controlled: every detached model is warned of, no full gradient is."""
    if record["name"] not in CONTROLLED:
        return True
    said = {(r["method"], r["CK604"]) for r in record["rows"]}
    return {c for m, c in said if m == "detached"} == {"warn"} and ("lr", "warn") not in said


def table(records: list[dict[str, Any]]) -> str:
    """All rows, a Markdown table."""
    names = {"vanilla": "vanilla", "lr": "LR loss", "detached": "LR loss, z detached"}
    lines = [
        "| data | model | fake units | they say, each | together | of all | held fixed, they cost "
        "| of what the code is worth | CK604 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for found in records:
        for row in found["rows"]:
            cells = [found["title"], names[row["method"]], f"{row['fake']} of {row['active']}"]
            if row["fake"]:
                low, high = row["each"]
                cells += [f"{low:.2f} to {high:.2f}", f"{row['together']:.2f}", f"{row['all']:.2f}"]
                cells += [f"{row['cost']:.2f}", f"{row['worth']:.2f}"]
            else:
                cells += ["", "", f"{row['all']:.2f}", "", f"{row['worth']:.2f}"]
            lines.append(f"| {' | '.join([*cells, row['CK604']])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
