"""Copies in the data are told, and show no more information than the distinct samples do."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import collapsekit as ck
from benchmarks.coverage_parts import audits
from collapsekit.intervals import wilson
from tests import models
from tests.test_groups import Ladder

DISTINCT, TIMES, DIMS, WIDTH = 200, 5, 2, 0.05
LIKELIHOOD = ("gaussian", 0.5)
FEW = [p for p in audits.all_probes() if not p.name.startswith("decoder_jacobian")]
TRUTH = -DIMS * math.log(WIDTH)  # means N(0, 1 - WIDTH^2): the aggregate is N(0, I)


def samples() -> Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randn(DISTINCT, DIMS, generator=g, dtype=torch.float64)


def encode(x: Tensor) -> tuple[Tensor, Tensor]:
    return x * (1 - WIDTH**2) ** 0.5, torch.full_like(x, WIDTH)


def audited(x: Tensor, encode: Any = encode) -> ck.Audit:
    probes = [ck.probes.KL(), ck.probes.MutualInformation(), ck.probes.InformationBudget()]
    return ck.audit(encode, x, probes=probes)


def test_copies_do_not_narrow_the_information() -> None:
    audit = audited(samples().repeat(TIMES, 1))
    information = audit.number("mutual_information")
    assert information.low <= math.log(DISTINCT)
    assert information.low < TRUTH < information.high
    codes = {f.code: f for f in audit.findings}
    assert "200 distinct samples can show at most 5.30 nats" in codes["CK402"].message
    told = codes["CK014"].message
    assert "800 of 1,000 samples are copies" in told
    assert "200 independent ones" in told
    assert "2.24 times as long" in told  # sqrt(5)


def test_unequal_copies_count_as_kish_has_it() -> None:
    x = torch.cat([samples(), samples()[:50].repeat(3, 1)])
    told = next(f for f in audited(x).findings if f.code == "CK014").message
    effective = 350**2 / (150 + 50 * 4**2)
    assert f"{effective:.0f} independent ones" in told
    short = math.sqrt(4 * effective / 350)
    assert f"there 4 times they may still be {short:.2f} times too short" in told
    assert (
        "too short"
        not in next(
            f for f in audited(samples().repeat(3, 1)).findings if f.code == "CK014"
        ).message
    )


def test_rare_samples_that_alone_were_multiplied_err_as_much_as_is_told() -> None:
    """Of 400 a twentieth, four times each: the error of their share, against what is told."""
    rng = np.random.default_rng(0)
    shares, told = [], []
    for rare in rng.binomial(400, 0.05, size=4000):
        rows, squares = 400 + 3 * rare, 400 + 15 * rare
        share = 4 * rare / rows
        shares.append(share)
        told.append(math.sqrt(share * (1 - share) * squares) / rows)  # rows / alike of them
    most = math.sqrt(4 * 460 / (400 + 15 * 20))  # as the finding has it, at 20 of 400
    assert 1.1 < np.std(shares) / np.mean(told) < most


def test_an_input_that_stands_out_is_a_value_of_the_data() -> None:
    """A sixth of the samples are blank: drawn from a law with an atom, and as many as they are."""
    x = torch.cat([samples(), torch.zeros(40, DIMS, dtype=torch.float64)])
    audit = audited(x)
    (told,) = [f for f in audit.findings if f.code == "CK014"]
    assert told.severity is ck.Severity.OK
    assert "40 of 240 samples" in told.message
    assert audit.provenance["rows_alike"] == 1.0
    # beside copies, these are counted without it
    audit = audited(torch.cat([samples(), x]))
    copied, common = [f for f in audit.findings if f.code == "CK014"]
    assert "40 of 440 samples" in common.message
    assert "200 of 440 samples are copies" in copied.message
    assert f"{440**2 / (200 * 2**2 + 40):.0f} independent ones" in copied.message


@pytest.mark.parametrize("collapsed", [True, False])
def test_distinct_samples_are_no_copies(collapsed: bool) -> None:
    """Nor are they where every posterior is the prior."""

    def constant(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(x), torch.ones_like(x)

    audit = audited(samples(), constant if collapsed else encode)
    assert not [f for f in audit.findings if f.code == "CK014"]


def test_copies_under_a_constant_posterior_are() -> None:
    x = samples().repeat(2, 1)
    audit = audited(x, lambda x: (torch.zeros_like(x), torch.ones_like(x)))
    assert [f for f in audit.findings if f.code == "CK014"]


def test_data_of_few_values_are_their_own_law() -> None:
    x = samples()[:4].repeat(100, 1)
    audit = audited(x)
    assert not [f for f in audit.findings if f.code == "CK014"]
    information = audit.number("mutual_information")
    assert information.high - information.low < 0.1
    assert information.low <= math.log(4) <= information.high + 1e-9


def test_single_precision_makes_copies_no_others() -> None:
    """An encoder whose rounding depends on the place in the batch."""
    weights = np.random.default_rng(0).normal(size=(DIMS, DIMS)).astype(np.float32)

    def single(x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x.float() @ torch.from_numpy(weights) + 1e-7 * torch.rand(len(x), DIMS)
        return mean, torch.full_like(mean, WIDTH)

    told = [f for f in audited(samples().repeat(2, 1), single).findings if f.code == "CK014"]
    assert "200 of 400" in told[0].message


LINEAR = models.LinearVAE((30.0, 3.0, 0.5, 0.0))
#: Measured among nearest neighbours, whose places copies take: other numbers, not other errors.
AMONG_NEIGHBOURS = ("lower_lipschitz", "lower_lipschitz_low", "encoder_rank", "tangent_rank")
#: Five copies share a sample's identity.
PER_COPY = ("reidentification",)
#: Quadratic where it stands: its error is that of the codes' mean squared, which draws of copies
#: lessen, so that it may be shorter.
SHORTER = ("round_trip_r2",)


def test_data_five_times_over_have_the_intervals_of_the_data_once() -> None:
    """Every headline of samples, over eight data sets: copies drawn anew tell a little more."""
    ratios: dict[str, list[float]] = {}
    for seed in range(8):
        x = LINEAR.sample(40, seed)  # 200 rows five times over: within every probe's limit
        once, often = (
            audits.audited(LINEAR, x.repeat(times, 1), seed, likelihood=LIKELIHOOD, probes=FEW)
            for times in (1, TIMES)
        )
        assert often.provenance["rows_alike"] == pytest.approx(TIMES)
        for name in once.summary.index:
            a, b = once.number(name), often.number(name)
            assert (a.high > a.low) or (b.high == b.low), name
            if a.high > a.low and b.n > a.n:  # not draws from the prior, nor distinct samples
                factor = TIMES if name in PER_COPY else 1
                ratios.setdefault(name, []).append(factor * (b.high - b.low) / (a.high - a.low))
    assert {"rate", "swap_gap", "round_trip_r2", "collision_fraction"} <= set(ratios)
    for name, found in ratios.items():
        if name in AMONG_NEIGHBOURS:
            continue
        # Jackknives of 20 groups: their lengths vary by a sixth each.
        error = float(np.std(found, ddof=1)) / math.sqrt(len(found))
        least = 0.0 if name in SHORTER else 0.95 - 4 * error
        assert least < np.mean(found) < 1.05 + 4 * error, (name, found)
        assert error < 0.15, name


def test_a_probe_of_a_few_rows_meets_few_of_their_copies() -> None:
    """64 of 500 rows hold 0.5 copies of each: r / a with a = 1 + 4 (r - 1) / (n - 1)."""
    x = LINEAR.sample(100, 0).repeat(TIMES, 1)
    probe = ck.probes.InferenceGap(limit=64)
    audit = audits.audited(LINEAR, x, 0, likelihood=LIKELIHOOD, probes=[probe])
    number = audit.number("unreliable_weights_fraction")
    assert (number.value, number.n) == (0.0, 64)
    expected = wilson(0.0, 64 / (1 + 4 * 63 / 499))
    assert (number.low, number.high) == pytest.approx(expected)


def test_the_subset_tells_of_copies_outside_it() -> None:
    """Of 2,000 rows, each input four times, 500 are looked at: a quarter of the copies."""
    x = LINEAR.sample(500, 3).repeat(4, 1)
    audit = ck.audit(LINEAR, x, probes=["kl"], population=500)
    assert audit.provenance["rows_alike"] == pytest.approx(4, rel=0.25)
    once = ck.audit(LINEAR, LINEAR.sample(500, 3), probes=["kl"])
    lengths = [a.number("rate").high - a.number("rate").low for a in (audit, once)]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.15)


def test_groups_of_copied_samples_have_wider_bounds_together() -> None:
    model = Ladder()
    x = model.sample(100)
    once, often = (ck.audit(model, np.tile(x, (times, 1)), probes=["kl"]) for times in (1, TIMES))
    lengths = [a.number("rate").high - a.number("rate").low for a in (once, often)]
    assert lengths[1] == pytest.approx(lengths[0], rel=0.15)  # its codes are drawn anew


def test_equal_posteriors_of_a_file_are_no_copies(tmp_path: Path) -> None:
    mean, scale = np.zeros((90, 3)), np.ones((90, 3))
    mean[:45] = np.arange(45.0)[:, None] // 3
    np.savez(tmp_path / "alone.npz", mean=mean, scale=scale)
    told = ck.audit(f"posteriors:{tmp_path / 'alone.npz'}").findings
    assert not [f for f in told if f.code == "CK014"]
    np.savez(tmp_path / "given.npz", mean=mean, scale=scale, x=np.arange(90) // 2)
    told = ck.audit(f"posteriors:{tmp_path / 'given.npz'}").findings
    assert next(f.message for f in told if f.code == "CK014").startswith("45 of 90 samples are")


class Named:
    """An adapter with an identity of its own."""

    def __init__(self, identity: Any) -> None:
        self.identity = identity

    encode = staticmethod(encode)


def fails(x: Tensor) -> Tensor:
    raise KeyError("no such patient")


@pytest.mark.parametrize("shards", [None, 3])
@pytest.mark.parametrize(
    ("identity", "told"),
    [
        (fails, "KeyError: 'no such patient'"),
        (lambda x: x[:1], "got: (1, 2) for"),
        (lambda x: "patient", "TypeError"),
    ],
)
def test_an_identity_that_fails_is_told_and_costs_nothing_else(
    identity: Any, told: str, shards: int | None
) -> None:
    x = samples().repeat(TIMES, 1)
    probes = [ck.probes.KL(), ck.probes.MutualInformation()]
    audit = ck.audit(Named(identity), x, probes=probes, shards=shards)
    found = [f for f in audit.findings if f.code == "CK014"]
    assert len(found) == 1
    assert found[0].severity is ck.Severity.WARN
    assert "copies were not looked for" in found[0].message
    assert told in found[0].message
    assert found[0].advice
    # What an audit without copies would say: every sample by itself.
    apart = ck.audit(Named(lambda x: torch.rand(len(x))), x, probes=probes)
    assert not [f for f in apart.findings if f.code == "CK014"]
    assert audit.summary.equals(apart.summary)


def test_an_identity_says_what_is_a_copy() -> None:
    x = torch.cat([samples().repeat(2, 1), torch.arange(2.0 * DISTINCT)[:, None]], dim=1)

    def alike(x: Tensor) -> tuple[Tensor, Tensor]:
        return encode(x[:, :DIMS])

    def audited_by(identity: Any) -> list[str]:
        model = Named(identity)
        model.encode = alike  # type: ignore[method-assign]
        found = ck.audit(model, x, probes=["kl"]).findings
        return [f.message for f in found if f.code == "CK014"]

    assert not audited_by(None)  # the third column tells every sample apart
    assert audited_by(lambda x: x[:, :DIMS])[0].startswith("200 of 400 samples are copies")

    def nothing(x: Tensor) -> Tensor:
        raise ck.Unavailable("nothing tells samples apart")

    assert not audited_by(nothing)


def test_inputs_that_cannot_be_read_again_are_told(tmp_path: Path) -> None:
    class Once:
        """A data set whose disk fails after the first pass."""

        reads = 0

        def __len__(self) -> int:
            return 50

        def __getitem__(self, i: int) -> Tensor:
            self.reads += 1
            if self.reads > 70:  # the rehearsal, and the pass over the data
                raise OSError("the disk is gone")
            return torch.zeros(DIMS)

    audit = audited(Once())  # type: ignore[arg-type]
    assert audit.number("rate").n == 50
    found = [f.message for f in audit.findings if f.code == "CK014"]
    assert "copies were not looked for (OSError: the disk is gone)" in found[0]
    assert audit.provenance["data_fingerprint"] is None
    assert "OSError: the disk is gone" in audit.provenance["notes"][-1]
    assert "taken on trust" in ck.compare({"a": audit, "b": audit}).notes[0]
    assert audit.to_html()
    assert ck.load(audit.save(tmp_path / "a.audit")).to_json() == audit.to_json()


@pytest.mark.parametrize("times", [4, 15])
def test_copies_do_not_crowd_out_a_samples_neighbours(times: int) -> None:
    """Ten nearest of which nine are copies tell of one direction: the rank read 2 of 4."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(100, 4, generator=g, dtype=torch.float64)
    x[50:] = x[:50] * torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=torch.float64)

    def folded(x: Tensor) -> tuple[Tensor, Tensor]:  # both signs of the first value: one code
        mean = torch.cat([x[:, :1].abs(), x[:, 1:]], dim=1)
        return mean, torch.full_like(mean, 0.02)

    probes = [ck.probes.LowerLipschitz(), ck.probes.EncoderRank(), ck.probes.Collisions()]
    once, many = (ck.audit(folded, data, probes=probes) for data in (x, x.repeat(times, 1)))
    for name in ("lower_lipschitz", "encoder_rank", "tangent_rank"):
        of_first = many.samples[name].iloc[:100].to_numpy(np.float64)
        np.testing.assert_allclose(of_first, once.samples[name].to_numpy(np.float64), rtol=1e-9)
    # Whoever shares a code with a far input is found behind any number of copies of himself.
    shared = (many.samples["collides"].iloc[:100] == once.samples["collides"]).mean()
    assert shared > 0.9  # what counts as far is estimated from random pairs
    assert once.samples["collides"].sum() > 10
