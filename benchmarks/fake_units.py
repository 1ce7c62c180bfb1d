"""Are fake units fake? What the units that CK604 counts say and are worth, alone and together.

    python benchmarks/fake_units.py [B4 MNIST2 B1 B3 digits] [--seeds 31 32] [--out DIR]
    python benchmarks/fake_units.py --table DIR

Models of benchmarks/lr_loss.py (`lr/settings.py`), fresh seeds, held-out images, plain torch: a
unit is fake where its mean's variance is above 0.01 and it tells, or costs when shuffled, 0.1 nat
at most. Fake units of a model that hides its code say little and are worth nothing; weak units of
an honest one say, and are worth, what their KL pays for. Beside it whether the audit warns: of the
LR loss with z detached (B1: Fashion-MNIST 14 x 14; digits without noise) it has to, of the full
gradient at its recommended setting (B1, B3: digits with noise) it must not. One JSON record per
benchmark; exit code 1 where that is not so. One thread; 4 minutes of CPU for all, one seed.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import collapsekit as ck
from benchmarks.lr.data import Data
from benchmarks.lr.measuring import ImageVAE, information
from benchmarks.lr.settings import BATCH, BENCHMARKS, LATENT, RATE, WARMUP
from benchmarks.lr.training import VAE, Method, Trainer

ROOT = Path(__file__).resolve().parents[1]
#: LR.md's digits at which z detached writes units and no information: B3 without its noise, which
#: keeps the code out of hidden places, and beta 0.2.
SETTINGS = BENCHMARKS | {
    "digits": replace(
        BENCHMARKS["B3"], title="digits 8 x 8, beta 0.2", beta=0.2, noise=0.0, weight=3.0
    )
}
#: Where the negative control is trained too, by this weight (of beta).
CONTROLLED = {"B1": 1.0, "B3": 1.0, "digits": 0.15}
#: What the audit has to say. Of B3 detached and digits' full gradient nothing is asked: with noise
#: the detached loss makes units that inform, at beta 0.2 the full gradient makes some that do not.
WARNED = {("B1", "detached"), ("digits", "detached")}
NOT_WARNED = {("B1", "lr"), ("B3", "lr")}
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
    for name in arguments.names or ["B4", "MNIST2", *CONTROLLED]:
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
    bench, begin = SETTINGS[name], time.process_time()
    data = bench.data(folder)
    methods: list[Method] = ["vanilla", "lr"]
    if name in CONTROLLED:
        methods.append("detached")
    rows = []
    for seed in seeds:
        for method in methods:
            model = Trainer(
                bench,
                method,
                CONTROLLED[name] if method == "detached" else bench.weight,
                data.train.x,
                seed,
                latent=LATENT,
                batch=BATCH,
                rate=RATE,
                warmup=WARMUP,
            )
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
    """Whether every model of `WARNED` is warned of and none of `NOT_WARNED`."""
    said = [((record["name"], r["method"]), r["CK604"] == "warn") for r in record["rows"]]
    return all(w for m, w in said if m in WARNED) and not any(w for m, w in said if m in NOT_WARNED)


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
