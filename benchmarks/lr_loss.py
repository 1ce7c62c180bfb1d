"""What the LR loss buys and what it costs: benchmarks B1 to B4, and MNIST.

    python benchmarks/lr_loss.py [B1 ... MNIST1] [--data DIR] [--seeds 21 22] [--out DIR] [--quick]
    python benchmarks/lr_loss.py --table DIR

One JSON record per benchmark, in DIR or on standard output, with a comparison page beside those of
B3 and B4; progress on stderr. --table prints the records of a folder as Markdown. Exit code 1 where
a bar is missed. One thread, CPU time.

Loss: 0.5 * SSE summed over pixels + beta * KL + the method's own term, Adam 1e-3, batch 128. The LR
loss's weight is chosen from a small grid on validation images (`lr/running.py` has the rule, the
record has every value tried); what is reported is measured on test images, with seeds that neither
LR.md nor the choice has used. Columns: `lr/measuring.py`. Without --data, ../shared/data beside the
repository; Fashion-MNIST and MNIST are asked of OpenML where they are not in the folder.

Methods: vanilla; lr; sigma (the LR loss's effect on the posterior's width alone). B1 has more:
detached (the negative control, which the audit has to call fake), and what else is done about
collapse: half beta, KL annealing, free bits, batch norm of the mean.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.lr.data import NotThere
from benchmarks.lr.running import run, tell
from benchmarks.lr.settings import BENCHMARKS
from benchmarks.lr.table import tables

ROOT = Path(__file__).resolve().parents[1]
QUICK = ("vanilla", "lr", "sigma", "detached")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    default = ROOT.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=default, help="folder of the .npz files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22, 23])
    parser.add_argument("--out", type=Path, help="folder for the records; else standard output")
    parser.add_argument("--table", type=Path, help="print this folder's records and stop")
    quick = "B1 and B3, one seed, LR.md's weights, fewer methods"
    parser.add_argument("--quick", action="store_true", help=quick)
    arguments = parser.parse_args(argv)
    if arguments.table is not None:
        print(tables(arguments.table))
        return 0
    for name in arguments.names:
        if name not in BENCHMARKS:
            parser.error(f"{name} is not one of {', '.join(BENCHMARKS)}")
    names = arguments.names or (["B1", "B3"] if arguments.quick else list(BENCHMARKS))
    torch.set_num_threads(1)
    os.environ.setdefault("TQDM_DISABLE", "1")
    records = {name: record(name, arguments) for name in names}
    if arguments.out is None:
        json.dump(records, sys.stdout, indent=1)
        print()
    missed = [name for name, r in records.items() if not all(b["met"] for b in r.get("bars", ()))]
    return 1 if missed else 0


def record(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one benchmark; written at once where there is a folder, so that none is lost."""
    bench, out = BENCHMARKS[name], arguments.out
    seeds = arguments.seeds[:1] if arguments.quick else arguments.seeds
    methods = [m for m in bench.methods if m in QUICK or not arguments.quick]
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "command": f"python benchmarks/lr_loss.py {name}",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "machine": f"{platform.machine()}, 1 thread",
        "seeds": seeds,
    }
    try:
        page = None if out is None else out / f"{name}.html"
        search = not arguments.quick
        found |= run(name, bench, arguments.data, seeds, methods, search=search, page=page)
    except NotThere as missing:
        tell(f"{name} skipped: {missing}")
        return found | {"skipped": str(missing)}
    if out is not None:
        (out / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


if __name__ == "__main__":
    sys.exit(main())
