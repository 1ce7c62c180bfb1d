"""The demo's auditing half: from two trained models to reports and a text for a stranger."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm import tqdm

from collapsekit.cli.gate import say
from collapsekit.comparison import compare
from collapsekit.demo import Setting, digits, train
from collapsekit.engine import audit
from collapsekit.errors import FileError
from collapsekit.findings import Severity
from collapsekit.rendering.text import table
from collapsekit.rendering.wording import STATE
from collapsekit.results import Audit

VANILLA, REPAIRED = "vanilla", "LR"
#: What the demo is known to show: share of units active at a threshold of 0.1.
AT, AT_MOST, AT_LEAST = 0.1, 0.20, 0.70
_WIDTH = 88


def audits(seed: int, setting: Setting | None = None) -> dict[str, Audit]:
    """Train both models and audit them on the held-out digits.

    Parameters
    ----------
    seed : int
        Of both trainings and both audits.
    setting : Setting, optional
        Of both trainings.

    Returns
    -------
    dict
        The audits, by the names that the demo gives the models.
    """
    chosen = Setting() if setting is None else setting
    found = {}
    with _one_thread():
        for name, repaired in ((VANILLA, False), (REPAIRED, True)):
            found[name] = _audited(name, repaired, seed, chosen)
    return found


def _audited(name: str, repaired: bool, seed: int, setting: Setting) -> Audit:
    images, _, held_out, labels = digits()
    say(f"training {name}: {setting.epochs} epochs on {len(images):,} digits")
    with _bar(setting.epochs) as told:
        model = train(images, repaired=repaired, seed=seed, setting=setting, progress=told)
    say(f"auditing {name} on {len(held_out):,} held-out digits")
    done = audit(
        model,
        held_out,
        labels=labels,
        # 0.5 SSE + beta KL is, up to a factor, the ELBO of a Gaussian of variance beta.
        likelihood=("gaussian", math.sqrt(setting.beta)),
        beta=setting.beta,
        seed=seed,
    )
    done.provenance["model"] = f"{name}: {done.provenance['model']}"
    done.provenance["command"] = f"collapsekit demo --seed {seed}"
    return done


@contextmanager
def _one_thread() -> Iterator[None]:
    # Layers of 64 x 128 are too small to share: on a busy machine two threads took 20 times as
    # long as one. And the weights are the same whatever the number of cores.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int, int], None]]:
    # As the engine's own: quiet wherever stderr is no terminal.
    quiet = True if os.environ.get("CI") else None
    with tqdm(total=total, disable=quiet, leave=False, unit="epoch") as bar:

        def told(done: int, _: int) -> None:
            bar.update(done - bar.n)

        yield told


def prepare(folder: Path) -> None:
    """Make the folder, before anything is trained.

    Raises
    ------
    FileError
        It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            f"the folder {folder} cannot be made",
            got=f"{type(error).__name__}: {error.strerror}",
            expected="a path where a folder can be made",
            remedy="choose another one: --out DIR",
        ) from error


def write(found: Mapping[str, Audit], folder: Path) -> None:
    """Both reports, both audits and the comparison, into a folder that is there.

    Raises
    ------
    FileError
        It cannot be written to.
    """
    for name, done in found.items():
        say(f"writing {name}'s report")
        done.to_html(folder / f"{name.lower()}.html")
        done.save(folder / f"{name.lower()}.audit")
    say("writing the comparison")
    compare(dict(found)).to_html(folder / "compare.html")


def text(found: Mapping[str, Audit], folder: Path) -> str:
    """What was done, what came out, what it means, and where the reports lie."""
    vanilla, repaired = found[VANILLA], found[REPAIRED]
    intro = (
        "Two small VAEs were trained on handwritten digits: the same network with "
        f"{len(vanilla.dimensions)} latent dimensions, the same data, the same seed. "
        f'"{VANILLA}" minimises the usual loss, the negative ELBO; "{REPAIRED}" adds the latent '
        "reconstruction loss: a code has to be readable from the image that it makes. Both were "
        f"audited on {vanilla.provenance['n']:,} digits that they had not seen."
    )
    parts = [
        _filled(intro),
        *(_filled(f"{name}: {_verdict(done)}") for name, done in found.items()),
        _table(vanilla, repaired),
        _filled(_lesson(vanilla, repaired)),
        _places(folder),
    ]
    return "\n\n".join(parts)


def _verdict(done: Audit) -> str:
    """The verdict with its first reasons; warnings beside it by their titles, reports tell them."""
    deciding = [f for f in done.findings if f.code in done.verdict.codes]
    parts = [f"{STATE[done.verdict.name].upper()}."]
    parts += [finding.message[:1].upper() + finding.message[1:] for finding in deciding[:2]]
    beside = {
        f.code: f"{f.title} ({f.code})"
        for f in done.findings
        if f.severity >= Severity.WARN and f.code not in done.verdict.codes
    }
    if beside:
        parts.append(f"Warnings beside it: {', '.join(beside.values())}.")
    return " ".join(parts)


def _table(vanilla: Audit, repaired: Audit) -> str:
    both = (vanilla, repaired)
    before, after = squared_error(vanilla), squared_error(repaired)
    rows = [
        ("", VANILLA, REPAIRED),
        ("verdict", *(done.verdict.name for done in both)),
        ("active units, at threshold 0.01", *(_active(done, 0.01) for done in both)),
        (f"active units, at threshold {AT:g}", *(_active(done, AT) for done in both)),
        (
            "reconstruction: squared error per image",
            f"{before:.2f}",
            f"{after:.2f} ({after / before - 1:+.0%})",
        ),
        ("rate: nats per image that the code spends", *_numbers("rate", both)),
        (
            "round trip: share of a code that comes back",
            *_numbers("robust_round_trip_r2", both),
        ),
    ]
    return table(rows)


def _active(done: Audit, threshold: float) -> str:
    count, units = active(done, threshold), len(done.dimensions)
    return f"{count} of {units} ({count / units:.2f})"


def active(done: Audit, threshold: float) -> int:
    """Units whose posterior mean varies by more than `threshold` prior variances."""
    return int((done.dimensions["mean_variance"] > threshold).sum())


def _numbers(name: str, found: Sequence[Audit]) -> list[str]:
    return [f"{done.number(name).value:.2f}" for done in found]


def squared_error(done: Audit) -> float:
    """The mean squared error of an image, which says more than the nats of a Gaussian density."""
    nats = done.number("reconstruction_error").value
    variance: float = done.provenance["beta"]
    pixels = int(digits()[2][0].size)
    return 2 * variance * (nats - 0.5 * pixels * math.log(2 * math.pi * variance))


def _lesson(vanilla: Audit, repaired: Audit) -> str:
    units = len(vanilla.dimensions)
    low, high = active(vanilla, AT) / units, active(repaired, AT) / units
    holds = low <= AT_MOST and high >= AT_LEAST
    return (
        "A unit is active when its code varies from image to image by more than the threshold; "
        "the others are collapsed: their code is nearly the same whatever the image. "
        f"At the threshold {AT:g} the demo expects a share of at most {AT_MOST:.2f} in {VANILLA} "
        f"and of at least {AT_LEAST:.2f} in {REPAIRED}; it found {low:.2f} and {high:.2f}, "
        + ("as expected." if holds else "which is NOT as expected.")
    )


def _places(folder: Path) -> str:
    pages = [
        (str(folder / "compare.html"), "both side by side: begin here"),
        (str(folder / "vanilla.html"), f"the report on {VANILLA}"),
        (str(folder / "lr.html"), f"the report on {REPAIRED}"),
    ]
    data = [
        (str(folder / "vanilla.audit"), f"collapsekit check {folder / 'vanilla.audit'}"),
        (str(folder / "lr.audit"), f'ck.load("{folder / "lr.audit"}") in Python'),
    ]
    return (
        f"Reports, for a browser:\n{table(pages)}\n\n"
        f"The same as data:\n{table(data)}\n\n"
        "Your own model: collapsekit audit package.module:factory --data test.npy --out report.html"
    )


def _filled(words: str) -> str:
    return textwrap.fill(words, _WIDTH)
