"""Teacher-forced text VAEs driven into known states, audited through log_likelihood alone."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

import collapsekit as ck

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "audit_text_vae.py"
MEASURED = (
    "rate",
    "swap_gap",
    "elbo",
    "log_likelihood_bound",
    "inference_gap",
    "model_information",
    "mutual_information",
)


@pytest.fixture(scope="module")
def text() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit_text_vae", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def audits(text: ModuleType) -> dict[str, ck.Audit]:
    tokens = text.sentences(600, seed=2)
    with torch.random.fork_rng():
        models = {"strong": text.train(1.0, 0), "dropped": text.train(0.5, 200)}
    return {name: ck.audit(model, tokens) for name, model in models.items()}


@pytest.mark.slow
def test_a_decoder_that_sees_every_word_collapses_the_code(audits: dict[str, ck.Audit]) -> None:
    audit = audits["strong"]
    assert audit.verdict.name == "total"
    assert audit.number("rate").high < 0.1
    assert audit.number("swap_gap").high < 0.1
    # by the decoder alone as well: it is the model that collapsed, not its inference
    assert audit.number("model_information").value < 0.5
    side = " ".join(f.message for f in audit.findings if f.code == "CK605")
    assert "only the inference" not in side


@pytest.mark.slow
def test_with_words_dropped_and_the_kl_warmed_up_the_code_is_used(
    audits: dict[str, ck.Audit],
) -> None:
    audit, strong = audits["dropped"], audits["strong"]
    assert audit.verdict.name != "total"
    assert audit.number("rate").low > 1
    assert audit.number("swap_gap").low > 1
    assert audit.number("mutual_information").low > 0.5
    for name in ("rate", "swap_gap", "model_information"):
        assert audit.number(name).low > strong.number(name).high
    assert audit.dimensions["shuffle_cost"].max() > 0.5


@pytest.mark.slow
def test_what_needs_no_decoder_is_measured_and_the_rest_is_told(
    audits: dict[str, ck.Audit],
) -> None:
    for audit in audits.values():
        assert set(MEASURED) <= set(audit.summary.index)
        assert audit.number("log_likelihood_bound").unit == "nats"
        assert audit.number("model_information").n == 128
        for name in ("round_trip", "decoder_usage", "traversals", "gallery"):
            assert "no decode" in audit.skipped[name]
        rows = audit.samples.dropna(subset="inference_gap")
        assert len(rows) == 256
        assert (rows["inference_gap"] >= 0).all()
        assert not [f for f in audit.findings if f.code == "CK003"]
