"""Model cards: front matter that a YAML parser reads, with the fields that the hub documents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collapsekit.number import Number
from collapsekit.results import Audit
from collapsekit.tables import summary_table
from tests import audits

yaml = pytest.importorskip("yaml", reason="a YAML parser reads the card's front matter")
AUDIT = audits.made_up("partial", n=40, d=4, pictures="none")


def front(audit: Audit) -> dict[str, Any]:
    card = audit.to_model_card()
    assert card.startswith("---\n")
    matter, _, body = card[4:].partition("\n---\n")
    assert body.startswith("\n## ")
    read: dict[str, Any] = yaml.safe_load(matter)
    return read


def result(audit: Audit) -> dict[str, Any]:
    (model,) = front(audit)["model-index"]
    assert set(model) == {"name", "results"}
    (found,) = model["results"]
    return dict(found)


def test_the_fields_are_those_of_the_hub_and_the_required_ones_are_there() -> None:
    # huggingface/hub-docs, modelcard.md: type is required of task, dataset and metric, a name of
    # the dataset, a value of the metric.
    assert set(front(AUDIT)) == {"tags", "model-index"}
    found = result(AUDIT)
    assert set(found) == {"task", "dataset", "metrics"}
    assert set(found["task"]) == {"type", "name"}
    assert set(found["dataset"]) == {"type", "name"}
    for metric in found["metrics"]:
        assert {"type", "value"} <= set(metric) <= {"type", "value", "name"}
        assert isinstance(metric["type"], str)


def test_metrics_are_the_verdict_and_the_headlines() -> None:
    verdict, *metrics = result(AUDIT)["metrics"]
    assert verdict == {"type": "verdict", "value": "partial"}
    told = {metric["type"]: metric["value"] for metric in metrics}
    assert list(told) == [name for name in AUDIT.summary.index if AUDIT.number(name).known]
    for name, value in told.items():
        assert value == pytest.approx(AUDIT.number(name).value, rel=1e-5)


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-5, 1.5e-7, 1e20, 123456789.0, 0.1])
def test_numbers_of_any_size_are_numbers(value: float) -> None:
    number = Number("rate", value, value, value, "nats", 10)
    (_, metric) = result(replace(AUDIT, summary=summary_table([number])))["metrics"]
    assert isinstance(metric["value"], float)
    assert metric["value"] == pytest.approx(value, rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_no_name_breaks_out_of_its_field(text: str) -> None:
    told = {**AUDIT.provenance, "model": text, "data": f'"\n---\nlicense: {text}'}
    found = front(replace(AUDIT, provenance=told))
    assert set(found) == {"tags", "model-index"}
    assert isinstance(found["model-index"][0]["name"], str)


def test_a_card_is_written_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    assert AUDIT.to_model_card(path) == path.read_text("utf-8")


def test_an_audit_that_measured_nothing_has_a_card() -> None:
    assert result(audits.bare())["metrics"] == [{"type": "verdict", "value": "inconclusive"}]
