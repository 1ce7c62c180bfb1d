"""The labelled zoo's own machinery: labels that are true, sets, outcomes, tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import collapsekit as ck
from benchmarks import zoo
from benchmarks.zoo_parts import facts, judging, surgery
from benchmarks.zoo_parts.images import Images, NotThere, load
from benchmarks.zoo_parts.states import BASES, SETS, STATES, Animal, animals
from benchmarks.zoo_parts.training import Recipe, cached, ink, train

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
        assert len({a.recipe.net for a in mine}) == 2
        assert {a.recipe.likelihood for a in mine} == {"gaussian", "bernoulli"}


def test_the_fresh_set_shares_nothing_with_the_tuning_set() -> None:
    tuning, fresh = ([a.recipe for a in animals(which)] for which in SETS)
    for field in ("data", "net", "seed"):
        assert not {getattr(r, field) for r in tuning} & {getattr(r, field) for r in fresh}


def test_cuts_of_the_images_do_not_mix(digits: Images) -> None:
    other = load("digits b")
    assert (len(other.train), len(other.audited)) == (1250, 547)
    for images in (digits, other):
        both = torch.cat([images.train, images.audited])
        assert len(both) == 1797
        assert both.sum() == pytest.approx(float(digits.train.sum() + digits.audited.sum()))
    assert not torch.equal(other.train[:1000], digits.train)


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
            raise KeyError(name)

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
    # D(z) = z on two pixels; x is the code itself: 0.5 SSE / beta with beta 1
    x = torch.randn(4000, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    model = surgery.Model(
        lambda x: (x.flatten(1), torch.full((len(x), 2), 0.1)), lambda z: z.view(-1, 1, 1, 2)
    )
    recipe = Recipe("digits", "mlp", "gaussian", 2, 1.0, 1, 0)
    seen = facts.measure(model, recipe, x, torch.tensor(0.0))
    assert seen.error == pytest.approx(0.5 * 2 * 0.01, rel=0.1)
    # another sample's code: half of (x - x')^2 + 0.01, whose mean is 1; sd of the mean 1.4 / 63
    torch.testing.assert_close(seen.cost, torch.ones(2), atol=0.1, rtol=0)
    torch.testing.assert_close(seen.trace, torch.full((2,), 1 / 1.01), atol=1e-3, rtol=0)


@pytest.mark.skipif(not RECORDS.is_dir(), reason="reports/ is not part of this copy")
@pytest.mark.parametrize("name", ["tuning", "fresh", "fresh-first"])
def test_the_records_are_whole_and_the_docs_show_them(name: str) -> None:
    record = json.loads((RECORDS / f"{name}.json").read_text("utf-8"))
    assert set(record["models"]) == {a.name for a in animals(record["set"])}
    assert record["commit"]
    assert zoo.good(record) or name == "fresh-first"  # what came out, came out
    text = (RECORDS.parents[1] / "docs" / "calibration.md").read_text("utf-8")
    assert zoo.tables(record) in text
    assert record["commit"].rstrip("+")[:7] in text
