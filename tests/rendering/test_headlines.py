"""Every headline is made of numbers, and reads well where they are extreme."""

from __future__ import annotations

import numpy as np
import pytest

from collapsekit.rendering.facts import Facts
from collapsekit.rendering.sections import build_all
from collapsekit.rendering.sections.verdict import carriers
from collapsekit.rendering.wording import NBSP
from collapsekit.results import Audit
from tests import audits


def heads(audit: Audit) -> dict[str, str]:
    return {s.id: s.headline.replace(NBSP, " ") for s in build_all(Facts(audit))}


def with_active(audit: Audit, n: int) -> Audit:
    """The audit with exactly `n` active units, in every place that says so."""
    d = len(audit.dimensions)
    variance = np.where(np.arange(d) < n, 0.5, 1e-6)
    audit.dimensions["mean_variance"] = variance
    audit.dimensions["active"] = variance > 0.01
    for name, value in (("active_units", n), ("active_fraction", n / d)):
        audit.summary.loc[name, ["value", "low", "high"]] = float(value)
    grid = audit.tables["active_units_curve"]
    grid["count"] = (variance[None] > grid["threshold"].to_numpy()[:, None]).sum(1)
    return audit


@pytest.mark.parametrize(
    ("n", "said"),
    [
        (0, "None of the 32 units is active, whatever the threshold from 0.001 to 0.1."),
        (1, "1 of 32 units is active, whatever the threshold from 0.001 to 0.1."),
        (31, "31 of 32 units are active, whatever the threshold from 0.001 to 0.1."),
        (32, "All 32 units are active, whatever the threshold from 0.001 to 0.1."),
    ],
)
def test_active_units(n: int, said: str) -> None:
    assert heads(with_active(audits.made_up(n=40), n))["active-units"] == said


def test_active_units_where_the_threshold_decides() -> None:
    said = heads(audits.made_up())["active-units"]
    assert said == "15 units at the usual threshold; 8 to 24 over a factor of ten on either side."
    said = heads(audits.made_up("total"))["active-units"]
    assert said.startswith("No unit is active at the usual threshold; ")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("healthy", "All 32 dimensions are in use."),
        ("partial", "17 of 32 dimensions are dead. Four carry 85 % of the KL."),
        ("total", "The code says nothing about the input."),
        ("local", "45 % of the images are ignored. The others carry a median of 4.6 nats."),
        ("near-deterministic", "The encoder is all but deterministic."),
        ("contradictory", "The encoder says unused (KL 0.030 nats, 0 active units); the decoder"),
        ("inconclusive", "The numbers do not decide. Share of units active: 78 to 83 %, with the"),
    ],
)
def test_verdicts(kind: audits.Kind, said: str) -> None:
    assert heads(audits.made_up(kind))["verdict"].startswith(said)


def test_one_dimension() -> None:
    alive, dead = heads(audits.made_up("healthy", d=1)), heads(audits.made_up("total", d=1))
    assert alive["verdict"].startswith("The only dimension is in use. It carries at least")
    assert alive["dimensions"].startswith("One dimension, ")
    assert alive["map"] == "The one dimension is lit for nearly every image."
    assert "1 of 1" not in " ".join([*alive.values(), *dead.values()])


def test_few_samples() -> None:
    assert heads(audits.made_up(n=1))["samples"].startswith("The only image is not ignored")
    assert heads(audits.made_up(n=2))["gallery"] == "Weak or strong, all codes carry 5.6 nats."


@pytest.mark.parametrize(
    ("ignored", "said"),
    [
        (0, "No image is ignored; the weakest code carries "),
        (1, "One of 50 images is ignored, with less than 1 nat."),
        (3, "Three of 50 images are ignored, with less than 1 nat."),
        (20, "40 % of the images are ignored: 20 of 50 carry less than 1 nat."),
        (50, "Every image is ignored: all 50 carry less than 1 nat."),
    ],
)
def test_who_is_ignored(ignored: int, said: str) -> None:
    audit = audits.made_up(n=50, d=8)
    audit.samples["locally_collapsed"] = np.arange(50) < ignored
    assert heads(audit)["samples"].startswith(said)


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        (["healthy"] * 4, "The decoder reads all four dimensions, and recovers every one."),
        (["dead"] * 4, "The decoder reads none of the 4 dimensions."),
        (
            ["phantom"] * 4,
            "The decoder reads all four dimensions, none of which the encoder writes.",
        ),
        (
            ["healthy", "ignored", "ignored", "dead"],
            "The decoder reads one dimension; two more are written but ignored.",
        ),
        (
            ["healthy", "healthy", "phantom", "dead"],
            "The decoder reads three dimensions; one of them is never written.",
        ),
        (
            ["healthy", "entangled", "dead", "dead"],
            "The decoder reads two dimensions; one of them does not survive the round trip.",
        ),
        (
            ["healthy", "dead", "dead", "dead"],
            "The decoder reads one dimension and every one that is written; three are dead.",
        ),
    ],
)
def test_writes_and_reads(roles: list[str], said: str) -> None:
    audit = audits.made_up(n=40, d=4)
    audit.dimensions["role"] = roles
    assert heads(audit)["writes-reads"] == said


def test_a_decoder_that_does_not_move() -> None:
    audit = audits.made_up(n=40, d=4)
    audit.dimensions["decoder_usage"] = 0.0
    assert heads(audit)["writes-reads"] == "The decoder ignores the code: its output does not move."


def test_traversals() -> None:
    audit = audits.made_up(n=40, d=4)
    audit.arrays["traversals"] = np.zeros((4, 7, 8, 8))
    assert heads(audit)["traversals"] == "No dimension moves the output."
    audit.arrays["traversals"][0] += np.arange(7)[:, None, None]
    assert heads(audit)["traversals"] == (
        "One of the four dimensions shown moves the output; three hardly do."
    )
    audit.arrays["traversals"] += np.arange(7)[None, :, None, None]
    assert heads(audit)["traversals"] == "All four dimensions shown move the output."


def test_the_plane_of_codes() -> None:
    audit = audits.made_up(n=40, d=4)
    view = audit.tables["latent_view"]
    assert heads(audit)["latent"] == "Two axes show 47 % of the codes’ spread."
    view["y"] = 0.0
    assert heads(audit)["latent"].endswith(": a line.")
    view["x"] = 0.01 * view["x"]
    assert heads(audit)["latent"].endswith(": a point, far narrower than the prior.")
    view["x"] = 0.0
    assert "latent" not in heads(audit)
    assert "latent" not in heads(audits.made_up("healthy", n=40, d=1))


def test_information() -> None:
    assert heads(audits.made_up())["information"] == (
        "Of 5.39 nats, 92 % is information about the input."
    )
    assert heads(audits.made_up("total"))["information"].startswith(
        "The code holds no information about the input: at most 0.030 nats."
    )
    assert heads(audits.made_up("near-deterministic"))["information"] == (
        "At least 5.9 of 1,214 nats are information; N is too small to tell more."
    )


def test_findings_are_counted() -> None:
    assert heads(audits.made_up())["findings"] == "Two checks fail, one warns, three pass."
    assert heads(audits.bare())["findings"] == "No check ran."


def test_a_healthy_model_without_advice_has_no_remedy_section() -> None:
    audit = audits.made_up("healthy", n=40)
    kept = tuple(f for f in audit.findings if not f.advice)
    from dataclasses import replace

    assert "remedy" not in heads(replace(audit, findings=kept))


def test_carriers() -> None:
    assert carriers(np.array([8.0, 1.0, 1.0])) == (1, pytest.approx(0.8))
    assert carriers(np.zeros(3)) == (0, 0.0)
    assert carriers(np.array([1.0, np.nan, 1.0])) == (2, pytest.approx(1.0))


def test_numbered_labels_are_introduced_as_labels() -> None:
    section = next(
        s for s in build_all(Facts(audits.made_up(labels=("0", "1", "2")))) if s.id == "samples"
    )
    results = [getattr(block, "result", "") for block in section.blocks]
    assert any(result.startswith("Label ") for result in results)
