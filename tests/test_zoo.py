"""The labelled zoo's own machinery: labels that are true, sets, outcomes, tables."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

import collapsekit as ck
from benchmarks import zoo
from benchmarks.zoo_parts import facts, judging, surgery
from benchmarks.zoo_parts.images import Images, NotThere, load
from benchmarks.zoo_parts.nets import NETS
from benchmarks.zoo_parts.sets import APART, SETS, Animal, animals
from benchmarks.zoo_parts.states import STATES
from benchmarks.zoo_parts.training import cached, ink, kl_parts, output_width, train
from benchmarks.zoo_parts.tuning import BASES
from collapsekit.errors import InputError

RECORDS = Path(__file__).resolve().parents[1] / "reports" / "zoo"
SHORT = replace(BASES[0], epochs=2, seed=5)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def digits() -> Images:
    return load("digits")


@pytest.mark.parametrize("which", SETS)
def test_every_state_has_its_animals_and_they_differ(which: str) -> None:
    everyone = list(animals(which))
    assert len({a.name for a in everyone}) == len(everyone) >= 48
    assert len({a.recipe for a in everyone}) == len(everyone)  # each is trained by itself
    for state in STATES.values():
        mine = [a for a in everyone if a.state is state]
        assert len([a for a in mine if "omniglot" not in a.recipe.data]) >= 4
        assert len({a.recipe.net for a in mine}) >= 2
        assert {a.recipe.likelihood for a in mine} >= {"gaussian", "bernoulli"}


def test_sets_share_nothing() -> None:
    sets = [[a.recipe for a in animals(which)] for which in SETS]
    for one, other in itertools.combinations(sets, 2):
        for field in ("data", "net", "seed"):
            assert not {getattr(r, field) for r in one} & {getattr(r, field) for r in other}
    seeds = {r.seed for one in sets for r in one}
    apart = list(animals(APART))
    assert len({a.name for a in apart}) == len({a.state.name for a in apart}) == len(apart)
    assert not seeds & {a.recipe.seed for a in apart}
    assert all("inconclusive" in a.state.words for a in apart)


def test_cuts_of_the_images_do_not_mix(digits: Images) -> None:
    other = load("digits b")
    assert (len(other.train), len(other.audited)) == (1250, 547)
    for images in (digits, other):
        both = torch.cat([images.train, images.audited])
        assert len(both) == 1797
        assert both.sum() == pytest.approx(float(digits.train.sum() + digits.audited.sum()))
    assert not torch.equal(other.train[:1000], digits.train)
    turned = load("digits c")
    assert (len(turned.train), len(turned.audited)) == (1100, 697)
    every = torch.cat([turned.train, turned.audited])
    assert float(1797 * 64 - every.sum()) == pytest.approx(float(both.sum()), rel=1e-4)
    quarter = load("digits d")
    assert (len(quarter.train), len(quarter.audited)) == (1050, 747)
    every = torch.cat([quarter.train, quarter.audited])
    # a quarter turn: columns for rows
    torch.testing.assert_close(every.sum((0, 1, 2)), both.sum((0, 1, 3)), rtol=1e-4, atol=1e-2)


BLIND = ["fashion d", "mnist d", "omniglot d", "blobs"]


@pytest.mark.parametrize("name", ["fashion c", "mnist c", "mixed", "omniglot c", "warp", *BLIND])
def test_the_images_are_what_they_say(name: str) -> None:
    try:
        images = load(name)
    except NotThere:
        pytest.skip("the files of images are not part of this copy")
    counts = {"fashion c": (3000, 900), "mnist c": (3500, 1100), "mixed": (3000, 800)}
    counts |= {"omniglot c": (3800, 1040), "warp": (2000, 600)}
    counts |= {"fashion d": (2400, 800), "mnist d": (2600, 750)}
    counts |= {"omniglot d": (1700, 720), "blobs": (1600, 700)}
    assert (len(images.train), len(images.audited)) == counts[name]
    if name != "warp":
        assert 0 <= float(images.train.min()) <= float(images.train.max()) <= 1
    if name == "mnist c":
        assert set(images.train.unique().tolist()) == {0.0, 1.0}


def test_training_is_repeatable_and_kept(digits: Images, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    first = train(SHORT, digits).state_dict()
    kept = cached(SHORT, digits, tmp_path)
    again = cached(SHORT, digits, tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in first.items():
        assert torch.equal(value, kept.state_dict()[name])
        assert torch.equal(value, again.state_dict()[name])
    assert len(list(tmp_path.glob("*.pt"))) == 1


@pytest.mark.parametrize(
    ("method", "net"),
    sorted({(a.recipe.method, a.recipe.net) for which in SETS for a in animals(which)}),
)
def test_every_method_trains(method: str, net: str, digits: Images) -> None:
    recipe = replace(SHORT, epochs=1, latent=6, method=method, strength=0.5, net=net)
    vae = train(recipe, digits)
    assert all(bool(p.isfinite().all()) for p in vae.parameters())


@pytest.mark.parametrize("net", sorted(NETS))
@pytest.mark.parametrize("side", [8, 14, 16])
def test_every_network_gives_images_of_the_side_that_it_was_given(net: str, side: int) -> None:
    body, width, decoder = NETS[net](side, 3)
    assert body(torch.zeros(2, 1, side, side)).shape == (2, width)
    assert decoder(torch.zeros(2, 3)).shape == (2, 1, side, side)


def test_a_learned_width_is_that_of_the_errors(digits: Images) -> None:
    recipe = replace(SHORT, likelihood="learned", epochs=100, beta=1.0, latent=2)
    few = replace(digits, train=digits.train[:300])
    vae = train(recipe, few)
    width = output_width(recipe, vae)
    # ln s has its minimum where s^2 is the mean squared error, here that of noisy codes
    mean, scale = vae.encode(few.train)
    z = mean + scale * torch.randn(scale.shape, generator=torch.Generator().manual_seed(0))
    error = float((vae.decode(z) - few.train).square().mean().detach().sqrt())
    assert width == pytest.approx(error, rel=0.1)  # it begins at 0.37
    assert output_width(replace(SHORT, likelihood="bernoulli"), vae) is None
    assert output_width(replace(SHORT, beta=0.25), vae) == 0.5


def test_parts_of_a_full_kl_add_up() -> None:
    generator = torch.Generator().manual_seed(2)
    mean = torch.randn(5, 3, generator=generator)
    factor = torch.randn(5, 3, 3, generator=generator).tril()
    factor.diagonal(dim1=1, dim2=2).abs_().add_(0.1)
    posterior = MultivariateNormal(mean, scale_tril=factor)
    prior = MultivariateNormal(torch.zeros(3), torch.eye(3))
    torch.testing.assert_close(kl_parts(mean, factor).sum(1), kl_divergence(posterior, prior))
    scale = torch.rand(5, 3, generator=generator) + 0.1
    torch.testing.assert_close(
        kl_parts(mean, scale), kl_divergence(Normal(mean, scale), Normal(0.0, 1.0))
    )


def test_surgery_does_what_it_says(digits: Images) -> None:
    vae = train(SHORT, digits)
    x = digits.audited[:100]
    mean, _ = vae.encode(x)
    doubled = surgery.doubled(vae, digits)
    torch.testing.assert_close(doubled.encode(x)[0] @ torch.eye(4).repeat(2, 1) / 2**0.5, mean)
    torch.testing.assert_close(
        doubled.decode(torch.cat([mean, mean], dim=1) / 2**0.5), vae.decode(mean)
    )
    repeated = surgery.repeated(3)(vae, digits)
    assert int((torch.linalg.eigvalsh(repeated.encode(x)[0].double().T.cov()) > 1e-5).sum()) == 4
    torch.testing.assert_close(
        repeated.decode(repeated.encode(x)[0]), vae.decode(mean), atol=1e-4, rtol=1e-4
    )
    bright = surgery.gated_bright(0.3)(vae, digits).encode(x)[1] == 1
    assert torch.equal(bright.all(dim=1), ink(x) > ink(digits.audited).quantile(0.7))
    moved = surgery.moved(3.0, 1.0)(vae, digits)
    torch.testing.assert_close(moved.encode(x)[0], 3 * mean + 1)
    torch.testing.assert_close(moved.decode(moved.encode(x)[0]), vae.decode(mean))
    gated = surgery.gated(0.5)(vae, digits)
    at_prior = (gated.encode(x)[1] == 1).all(dim=1)
    assert torch.equal(at_prior, ink(x) < ink(digits.audited).quantile(0.5))
    whispered = surgery.whispered(3)(vae, digits)
    trace = whispered.encode(digits.train)[0][:, -3:]
    torch.testing.assert_close(trace.T.cov(), 0.08 * torch.eye(3), atol=1e-3, rtol=0)
    assert (whispered.decode(whispered.encode(x)[0]) - vae.decode(mean)).abs().max() < 0.2


def test_surgery_on_the_held_set_does_what_it_says(digits: Images) -> None:
    vae = train(SHORT, digits)
    x = digits.audited[:100]
    mean, scale = (a.detach() for a in vae.encode(x))
    wide = surgery.added(1.0, 0.5)(vae, digits)
    turned = surgery.turned(surgery.added(1.0, 0.5))(vae, digits)
    assert turned.straight is not None
    centre, factor = turned.encode(x)
    torch.testing.assert_close(turned.decode(centre), vae.decode(mean))
    # what a turn leaves as it is: KL from N(0, I), volume, and the model looked at for facts
    straight = kl_parts(*wide.encode(x)).sum(1)
    torch.testing.assert_close(kl_parts(centre, factor).sum(1), straight, rtol=1e-4, atol=1e-4)
    volume = factor.diagonal(dim1=1, dim2=2).log().sum(1)
    torch.testing.assert_close(volume, scale.log().sum(1) + math.log(0.5), rtol=1e-4, atol=1e-4)
    copied = surgery.copied(30.0)(vae, digits)
    torch.testing.assert_close(copied.decode(copied.encode(x)[0]), vae.decode(mean))
    part = surgery.gated_by(surgery.lean, 0.5, 0.75, slice(1, 3))(vae, digits)
    low = surgery.lean(x) < surgery.lean(digits.audited).quantile(0.5)
    torch.testing.assert_close(part.encode(x)[0][low][:, 1:3], 0.25 * mean[low][:, 1:3])
    torch.testing.assert_close(part.encode(x)[1][low][:, 1:3], scale[low][:, 1:3] ** 0.25)
    assert torch.equal(part.encode(x)[0][~low], mean[~low])
    assert torch.equal(part.encode(x)[0][:, 0], mean[:, 0])
    echoed = surgery.echoed(3)(vae, digits)
    variance = echoed.encode(digits.train)[0][:, -3:].var(dim=0)
    torch.testing.assert_close(variance, torch.full((3,), 0.06))
    settled = surgery.settled(0.5, 0.7, 0.01)(vae, digits)
    torch.testing.assert_close(settled.encode(x)[0].var(0), 1e-4 * mean.var(0))
    unset = surgery.unset(0.5)(vae, digits)
    torch.testing.assert_close(
        unset.decode(torch.cat([mean, mean[:, :1]], 1)),
        vae.decode(torch.cat([1.5 * mean[:, :1], mean[:, 1:]], 1)),
    )
    hushed = surgery.hushed(0.0)(vae, digits)
    assert bool((hushed.decode(mean) == hushed.decode(0 * mean)).all())


def test_the_audit_gets_what_the_model_declares(digits: Images) -> None:
    recipe = replace(SHORT, likelihood="learned", beta=1.0, latent=2)
    vae = train(recipe, digits)
    few = replace(digits, audited=digits.audited[:150])
    wide = surgery.extended(1, 0.5)
    for operate in (wide, surgery.turned(wide)):
        model = operate(vae, few)
        audit = judging.audited(model, recipe, output_width(recipe, vae), few)
        kl = kl_parts(*wide(vae, few).encode(few.audited)).sum(1).mean().item()
        assert audit.number("rate").value == pytest.approx(kl, rel=1e-4)


def test_a_label_that_is_not_true_is_refused(digits: Images, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(zoo, "KEPT", tmp_path)
    hatchling = Animal("near-deterministic 9", STATES["near-deterministic"], SHORT)
    with pytest.raises(RuntimeError, match="9 is not near-deterministic: cost"):
        zoo.meet(hatchling)


@pytest.mark.parametrize(
    ("state", "verdict", "codes", "outcome"),
    [
        ("healthy", "healthy", {}, "right"),
        ("healthy", "healthy", {"CK612": "repeats"}, "incomplete"),
        ("healthy", "inconclusive", {}, "inconclusive"),
        ("healthy", "local", {}, "wrong"),
        ("lagging encoder", "total", {"CK605": "only the inference is collapsed"}, "right"),
        ("lagging encoder", "total", {"CK605": "the model itself is collapsed"}, "incomplete"),
        ("phantom dimensions", "partial", {"CK611": "reads"}, "right"),
    ],
)
def test_outcomes(state: str, verdict: str, codes: dict[str, str], outcome: str) -> None:
    class Audit:
        findings = tuple(
            ck.Finding(code, ck.Severity.WARN, "title", message) for code, message in codes.items()
        )

        class verdict:
            name, codes = verdict, ()

        def number(self, name: str) -> ck.Number:
            raise InputError(f"no headline called {name!r}")

    told = judging.told(Animal("x", STATES[state], SHORT), Audit())
    assert told["outcome"] == outcome


def test_missing_images_are_told_and_left_out(tmp_path: Path, monkeypatch, capsys) -> None:
    def absent(name: str) -> Images:
        raise NotThere("omniglot_small.npz is not in the folder of data")

    monkeypatch.setattr(zoo, "load", absent)
    with pytest.raises(NotThere, match=r"fashion_mnist_train\.npz is not"):
        load("fashion", tmp_path)
    zoo.main(["--names", "healthy 1", "--out", str(tmp_path / "zoo.json")])
    assert json.loads((tmp_path / "zoo.json").read_text("utf-8"))["left out"]
    assert "Left out: healthy 1 (omniglot_small.npz is not" in capsys.readouterr().out


def test_facts_on_a_model_known_by_hand() -> None:
    # D(z) = z on two pixels; x is the code itself: 0.5 SSE
    x = torch.randn(4000, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    model = surgery.Model(
        lambda x: (x.flatten(1), torch.full((len(x), 2), 0.1)), lambda z: z.view(-1, 1, 1, 2)
    )
    seen = facts.measure(model, 1.0, x, torch.tensor(0.0))
    assert seen.error == pytest.approx(0.5 * 2 * 0.01, rel=0.1)
    # another sample's code: half of (x - x')^2 + 0.01, whose mean is 1; sd of the mean 1.4 / 63
    torch.testing.assert_close(seen.cost, torch.ones(2), atol=0.1, rtol=0)
    torch.testing.assert_close(seen.trace, torch.full((2,), 1 / 1.01), atol=1e-3, rtol=0)
    # KL(N(0, 1.01) || N(0, 1)); the variance of 4,000 samples is off by 2 % at one sd
    torch.testing.assert_close(seen.apart, torch.zeros(2), atol=2e-3, rtol=0)


@pytest.mark.skipif(not RECORDS.is_dir(), reason="reports/ is not part of this copy")
@pytest.mark.parametrize(
    "name", ["tuning", "fresh", "fresh-first", "held", "held-first", "blind", "blind-first", APART]
)
def test_the_records_are_whole_and_the_docs_show_them(name: str) -> None:
    record = json.loads((RECORDS / f"{name}.json").read_text("utf-8"))
    assert set(record["models"]) == {a.name for a in animals(record["set"])}
    assert record["commit"]
    # what came out first came out; the borderline list has no score
    assert name == APART or name.endswith("first") or zoo.good(record)
    text = (RECORDS.parents[1] / "docs" / "calibration.md").read_text("utf-8")
    assert zoo.tables(record) in text
    assert record["commit"].rstrip("+")[:7] in text
