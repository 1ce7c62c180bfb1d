"""Hierarchical models: each group against closed forms, and the laws on a group."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import collapsekit as ck
from collapsekit.errors import ModelError, Unavailable
from collapsekit.groups import GroupDoor, is_grouped
from collapsekit.noise import Noise
from collapsekit.probes import REGISTERED
from collapsekit.samples import as_samples
from tests import laws
from tests.test_engine import same


class Ladder:
    """z1 ~ N(0, 1), z2 | z1 ~ N(a z1, t^2), x | z2 ~ N(b z2, s^2), in each of two dimensions.

    Encoded by its exact posteriors: then E KL of z1 is I(x; z1), that of z2 is I(x; z2 | z1), and
    every aggregate is the prior.
    """

    likelihood = ("gaussian", 0.5)
    t, s = 0.7, 0.5

    def __init__(self, a: tuple[float, float] = (1.5, 1.0), b: tuple[float, float] = (1.0, 0.6)):
        self.a, self.b = (torch.tensor(v, dtype=torch.float64) for v in (a, b))

    @property
    def noise(self) -> Tensor:  # variance of x given z1
        return self.b**2 * self.t**2 + self.s**2

    @property
    def first(self) -> Tensor:  # variance of z1 given x
        return 1 / (1 + (self.a * self.b) ** 2 / self.noise)

    @property
    def precision(self) -> Tensor:  # of z2 given z1 and x
        return 1 / self.t**2 + self.b**2 / self.s**2

    def below(self, z1: Tensor) -> tuple[Tensor, Tensor]:
        return self.a * z1, torch.full_like(z1, self.t)

    def above(self, n: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(n, 2, dtype=torch.float64), torch.ones(n, 2, dtype=torch.float64)

    def encode(self, x: Tensor, draw: Any) -> None:
        mean = self.first * self.a * self.b / self.noise * x
        z1 = draw("z1", (mean, self.first.sqrt().expand_as(x)), self.above(len(x)))
        mean = (self.a * z1 / self.t**2 + self.b * x / self.s**2) / self.precision
        draw("z2", (mean, self.precision.rsqrt().expand_as(x)), self.below(z1))

    def generate(self, draw: Any, n: int, context: Any) -> Tensor:
        z1 = draw("z1", self.above(n))
        return self.b * draw("z2", self.below(z1))

    def sample(self, n: int, seed: int = 0) -> np.ndarray:
        e = np.random.default_rng(seed).normal(size=(3, n, 2))
        z2 = self.a.numpy() * e[0] + self.t * e[1]
        return self.b.numpy() * z2 + self.s * e[2]


FAST = tuple(p for p in REGISTERED if p.name in ("kl", "active_units", "mutual_information"))


def test_group_rates_and_information_in_closed_form() -> None:
    model = Ladder()
    audit = ck.audit(model, model.sample(4000), probes=FAST)
    first = 0.5 * float((1 / model.first).log().sum())
    second = 0.5 * float((model.t**2 * model.precision).log().sum())
    for name, truth in (("z1/rate", first), ("z2/rate", second), ("rate", first + second)):
        number = audit.number(name)
        assert number.low < truth < number.high, name
        assert number.high - number.low < 0.1 * truth
    # The whole: I(x; z1, z2) = I(x; z2) = 0.5 ln(1 + b^2 (a^2 + t^2) / s^2).
    spread = model.a**2 + model.t**2
    whole = 0.5 * float((1 + model.b**2 * spread / model.s**2).log().sum())
    assert whole == pytest.approx(first + second, rel=1e-12)
    # A group's posteriors are those given the drawn groups above: I(x, z1; z2) for the second.
    given = 0.5 * float((spread * model.precision).log().sum())
    for name, truth in (("z1", first), ("z2", given)):
        number = audit.number(f"{name}/mutual_information")
        assert number.low < truth < number.high, name
    assert given > second  # more than its rate, which bounds nothing where priors differ
    # The aggregate given z1 is the prior: the means keep of its variance what the widths leave.
    active = audit.groups["z2"].dimensions["mean_variance"].to_numpy()
    np.testing.assert_allclose(active, (1 - 1 / (model.t**2 * model.precision)), rtol=0.1)


class Echo:
    """z2 repeats z1's second dimension, which is noise: I(x; z2) = 0, I((x, z1); z2) is not."""

    def encode(self, x: Tensor, draw: Any) -> None:
        one = torch.ones(len(x), 1, dtype=torch.float64)
        mean, scale = torch.cat([0.95 * x, 0 * one], 1), torch.cat([0.3 * one, one], 1)
        z1 = draw("z1", (mean, scale), (0 * mean, torch.ones_like(mean)))
        draw("z2", (0.95 * z1[:, 1:], 0.3 * one), (0 * one, one))

    def generate(self, draw: Any, n: int, context: Any) -> Tensor:
        one = torch.ones(n, 1, dtype=torch.float64)
        pair = torch.cat([one, one], 1)
        z1 = draw("z1", (0 * pair, pair))
        draw("z2", (0 * one, one))
        return z1[:, :1]


def test_information_of_a_lower_group_is_told_to_be_about_the_groups_above_too() -> None:
    audit = ck.audit(Echo(), np.random.default_rng(0).normal(size=(600, 1)), probes=FAST)
    told = {g: next(f for f in a.findings if f.code == "CK401") for g, a in audit.groups.items()}
    assert told["z1"].message.endswith("nats about the input.")
    assert told["z2"].message.endswith("about the input and the groups above it, together.")
    notes = {g: audit.number(f"{g}/mutual_information").note for g in ("z1", "z2")}
    assert "groups above" in notes["z2"]
    assert "groups above" not in notes["z1"]
    # below the top each sample has a prior of its own: the rate then bounds no information
    assert "inf" not in notes["z2"]
    assert "the rate is no bound" in notes["z2"]
    assert ", rate = " in notes["z1"]
    joint = math.log(1 / 0.3)  # the aggregate of 0.95 z + 0.3 e is N(0, 1) nearly
    assert audit.number("z2/mutual_information").low < joint
    assert audit.number("z2/mutual_information").value > 1


def test_a_collapsed_group_is_named_and_the_other_is_not() -> None:
    model = Ladder(a=(0.0, 0.0))
    audit = ck.audit(model, model.sample(600), seed=1)
    assert audit.groups["z1"].verdict.name == "total"
    assert audit.groups["z2"].verdict.name not in ("total", "contradictory")
    assert audit.verdict.name == "total"
    assert audit.verdict.sentence.startswith("Group z1. Total collapse")
    assert audit.number("z1/rate").value == pytest.approx(0.0, abs=1e-12)
    assert list(audit.dimensions["group"]) == ["z1", "z1", "z2", "z2"]
    assert {"z1/kl_total", "z2/kl_total", "z2/swap_gap"} <= set(audit.samples)
    assert set(audit.groups["z1"].dimensions["role"]) == {"dead"}


def test_groups_below_follow_the_code_by_their_own_priors() -> None:
    # x = b z2 and z2 = a z1 + t e: with e held, dx / dz1 = a b, though x reads z2 alone.
    model = Ladder()
    x = torch.as_tensor(model.sample(50))
    index = torch.arange(50)
    door = GroupDoor(model, group="z1", names=("z1", "z2"), seed=3)
    posterior = door.encode(x, "data", index).posterior
    context = door.context(x, index)
    z, _ = posterior.draw(Noise(3, "posterior", index))
    seen: dict[str, Tensor] = {}

    def draw(name: str, first: Any, second: Any = None) -> Tensor:
        mean, scale = first
        stream = "posterior" if name == "z1" else f"group/{name}"
        seen[name] = mean + scale * Noise(3, stream, index).normal(2)
        return seen[name]

    model.encode(x, draw)
    torch.testing.assert_close(z, seen["z1"])
    torch.testing.assert_close(door.decode(z, context, "data"), model.b * seen["z2"])
    moved = door.decode(z + 0.5, context, "data") - door.decode(z, context, "data")
    torch.testing.assert_close(moved, (0.5 * model.a * model.b).expand(50, 2))
    at = z.clone().requires_grad_()
    (slope,) = torch.autograd.grad(door.decode_attached(at, context).sum(), at)
    torch.testing.assert_close(slope, (model.a * model.b).expand(50, 2))


def test_a_ladder_of_exact_posteriors_is_healthy_in_both_groups() -> None:
    model = Ladder()
    audit = ck.audit(model, model.sample(600), seed=1)
    assert audit.verdict.name == "healthy", audit.verdict
    assert set(audit.groups["z1"].dimensions["role"]) <= {"healthy", "entangled"}
    # What another code of the upper group costs is an integral over the lower: it is not measured.
    assert {"swap_gap", "model_information", "inference_gap"} <= set(audit.groups["z1"].skipped)
    assert "elbo" not in audit.groups["z1"].summary.index


def test_the_bound_of_the_whole_is_the_evidence_under_exact_posteriors() -> None:
    model = Ladder()
    probes = tuple(p for p in REGISTERED if p.name in ("kl", "reconstruction"))
    audit = ck.audit(model, model.sample(4000), probes=probes)
    spread = model.b**2 * (model.a**2 + model.t**2) + model.s**2
    truth = -0.5 * float((1 + (2 * math.pi * spread).log()).sum())
    elbo = audit.number("elbo")
    assert elbo.low < truth < elbo.high
    assert elbo.high - elbo.low < 0.3


def test_a_model_may_score_its_input_itself() -> None:
    class Scores(Ladder):
        likelihood = None  # type: ignore[assignment]

        def log_likelihood(self, x: Tensor, draw: Any) -> Tensor:
            mean = self.generate(draw, len(x), None)
            return torch.distributions.Normal(mean, self.s).log_prob(x).sum(dim=1)

    x = Ladder().sample(200)
    given, scored = ck.audit(Ladder(), x), ck.audit(Scores(), x)
    assert scored.verdict.name == given.verdict.name
    for name in ("z2/reconstruction_error", "z2/swap_gap", "z2/inference_gap", "elbo", "rate"):
        assert scored.number(name).value == pytest.approx(given.number(name).value, rel=1e-9), name


def test_a_group_that_cannot_follow_is_told() -> None:
    class Mixed(Ladder):
        def below(self, z1: Tensor) -> Any:
            both = torch.stack([self.a * z1, self.a * z1], dim=1)
            normal = torch.distributions.Normal(both, torch.full_like(both, self.t))
            weights = torch.distributions.Categorical(torch.ones(len(z1), 2, dtype=z1.dtype))
            parts = torch.distributions.Independent(normal, 1)
            return torch.distributions.MixtureSameFamily(weights, parts)

    audit = ck.audit(Mixed(), Mixed().sample(60))
    told = audit.groups["z1"].skipped["decoder_usage"]
    assert "'z2' below 'z1' cannot follow" in told
    assert "swap_gap" in audit.groups["z2"].summary.index
    assert audit.verdict.name not in ("partial", "total", "contradictory")


def test_a_group_at_its_own_prior_is_collapsed_though_its_codes_move() -> None:
    # b = 0 makes q(z2 | z1, x) = p(z2 | z1): its means follow z1, which is none of its merit.
    model = Ladder(b=(0.0, 0.0))
    audit = ck.audit(model, model.sample(600))
    lower = audit.groups["z2"]
    assert lower.number("rate").value == pytest.approx(0.0, abs=1e-12)
    assert lower.number("active_units").value == 0
    gap = lower.number("swap_gap")  # the decoder gets b = 0
    assert abs(gap.value) < 1e-9
    assert lower.verdict.name == "total"


@pytest.mark.parametrize("group", ["z1", "z2"])
def test_laws(group: str) -> None:
    model, lacking = Ladder(), set()
    samples = as_samples(model.sample(13))
    for probe in REGISTERED:
        try:
            laws.check_probe(probe, GroupDoor(model, group=group, names=("z1", "z2")), samples)
        except Unavailable:
            lacking.add(probe.name)
    # Under a prior of its own a sample's rate has no split; above others no code has a likelihood.
    rescored = {"model_information", "inference_gap", "swap_gap", "shuffle_cost"}
    # The data's variance holds what the other group explains.
    assert lacking - {"principal_variances"} == (
        {"information_budget"} if group == "z2" else rescored
    )
    assert "principal_variances" in lacking


def test_a_groups_bounds_say_what_they_are_given() -> None:
    # ln p(x | z1) is far above ln p(x): not to be read as a bound of it.
    model = Ladder()
    kept = [p for p in REGISTERED if p.name in ("kl", "reconstruction", "inference_gap")]
    audit = ck.audit(model, model.sample(60), probes=kept)
    for name in ("z2/elbo", "z2/log_likelihood_bound"):
        assert "of ln p(x) given the codes of the groups above" in audit.number(name).note, name
    assert "given" not in audit.number("elbo").note


def test_other_cuts_and_runs_give_the_same_numbers() -> None:
    model = Ladder()
    x = model.sample(50)
    first, second = (ck.audit(model, x, batch=batch) for batch in (50, 7))
    assert list(first.summary.index) == list(second.summary.index)
    np.testing.assert_allclose(
        first.summary["value"].astype(float), second.summary["value"].astype(float), rtol=1e-9
    )


def test_saved_and_loaded_with_its_groups(tmp_path: Path) -> None:
    model = Ladder()
    audit = ck.audit(model, model.sample(60), labels=["a", "b"] * 30, probes=FAST)
    again = ck.load(audit.save(tmp_path / "ladder.audit"))
    assert list(again.groups) == ["z1", "z2"]
    assert again.groups["z2"].number("rate") == audit.groups["z2"].number("rate")
    assert again.verdict == audit.verdict
    assert list(again.samples.columns).count("label") == 1
    page = again.to_html()
    assert "z2" in page


class Module(nn.Module):
    """The same as a torch module in single precision, with dropout to be switched off."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.up, self.down = nn.Linear(4, 6), nn.Linear(3, 4)
            self.inner = nn.Linear(3, 6)
        self.dropout = nn.Dropout(0.5)

    def encode(self, x: Tensor, draw: Any) -> None:
        mean, raw = self.up(self.dropout(x)).chunk(2, dim=1)
        z1 = draw("top", (mean, raw.exp()), (torch.zeros_like(mean), torch.ones_like(mean)))
        mean, raw = self.inner(z1).chunk(2, dim=1)
        draw("bottom", (mean + 0.1, 0.5 * raw.exp()), (mean, raw.exp()))

    def generate(self, draw: Any, n: int, context: Any) -> Tensor:
        z1 = draw("top", (torch.zeros(n, 3), torch.ones(n, 3)))
        mean, raw = self.inner(z1).chunk(2, dim=1)
        return self.down(draw("bottom", (mean, raw.exp())))


def test_a_torch_module_of_two_groups() -> None:
    module = Module().train()
    audit = ck.audit(module, np.random.default_rng(0).random((40, 4)))
    assert module.training
    assert list(audit.groups) == ["top", "bottom"]
    assert not [f for f in audit.findings if f.code in ("CK003", "CK005")]
    scale = math.log(2) + 0.125 - 0.5  # of every dimension, beside the shift 0.1 in prior scales
    assert audit.number("bottom/rate").low > 3 * scale


def test_beta_reaches_the_groups_and_a_prior_of_ones_own_is_refused() -> None:
    model = Ladder()
    x = model.sample(200)
    kept = [p for p in REGISTERED if p.name in ("kl", "model_information")]
    for beta, tempers in ((None, False), (0.25, False), (3.0, True)):  # 0.25 is scale^2
        told = ck.audit(model, x, beta=beta, probes=kept)
        assert ("z2/tempered_information" in told.summary.index) is tempers
    with pytest.raises(ck.InputError, match="a hierarchical model has priors of its own"):
        ck.audit(model, x, prior=(0.0, 7.0))


def test_models_that_are_not_consistent_are_told() -> None:
    class Different(Ladder):
        def generate(self, draw: Any, n: int, context: Any) -> Tensor:
            z1 = draw("z1", self.above(n))
            return self.b * draw("z2", (2 * self.a * z1, torch.full_like(z1, self.t)))

    class Renamed(Ladder):
        def generate(self, draw: Any, n: int, context: Any) -> Tensor:
            return self.b * draw("other", self.above(n))

    class Twice(Ladder):
        def encode(self, x: Tensor, draw: Any) -> None:
            draw("z1", (x, x * 0 + 1), self.above(len(x)))
            draw("z1", (x, x * 0 + 1), self.above(len(x)))

    class Silent(Ladder):
        def encode(self, x: Tensor, draw: Any) -> None:
            pass

    x = Ladder().sample(20)
    for model, message in (
        (Different(), "differs between encode and generate"),
        (Renamed(), "encode does not"),
        (Twice(), "drawn twice"),
        (Silent(), "drew no group"),
    ):
        with pytest.raises(ModelError, match=message):
            ck.audit(model, x)
    assert is_grouped(Ladder())
    assert not is_grouped(nn.Linear(2, 2))


def same_groups(a: ck.Audit, b: ck.Audit) -> None:
    same(a, b, rtol=0)
    assert a.groups.keys() == b.groups.keys() == {"z1", "z2"}
    for name, group in a.groups.items():
        same(group, b.groups[name], rtol=0)


def test_groups_say_the_same_on_threads() -> None:
    model = Ladder()
    x, cut = model.sample(300), {"batch": 20, "shards": 5}
    with ThreadPoolExecutor(2) as pool:
        same_groups(
            ck.audit(model, x, probes=FAST, **cut),
            ck.audit(model, x, probes=FAST, executor=pool, **cut),
        )


class Stops(Ladder):
    """Presses Ctrl-C after some encoded batches."""

    left = 10**9

    def encode(self, x: Tensor, draw: Any) -> None:
        Stops.left -= 1
        if Stops.left < 0:
            raise KeyboardInterrupt
        super().encode(x, draw)


@pytest.mark.parametrize("group", [0, 1])
def test_groups_go_on_after_an_interruption_in_any_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    model = Stops()
    x, cut = model.sample(300), {"batch": 20, "shards": 5, "probes": FAST}
    monkeypatch.setattr(Stops, "left", 10**9)
    whole = ck.audit(model, x, **cut)
    each = (10**9 - Stops.left) // 2  # passes of a group, about
    Stops.left = group * each + each // 2
    with pytest.raises(KeyboardInterrupt):
        ck.audit(model, x, checkpoint=tmp_path, **cut)
    folders = sorted(path.name for path in tmp_path.iterdir())
    assert folders == [f"group-{place}" for place in range(group + 1)]
    finished = list((tmp_path / f"group-{group}").glob("data-*.state"))
    assert finished
    Stops.left = 10**9
    same_groups(whole, ck.audit(model, x, checkpoint=tmp_path, **cut))
    assert 10**9 - Stops.left < 2 * each  # what was finished was not computed again
