"""The section on injectivity, from real audits: nearby, far away, and by samples compared."""

from __future__ import annotations

import pytest
import torch

import collapsekit as ck
from collapsekit.rendering import page
from collapsekit.rendering.blocks import Figure, Fold, Note, Section, Subheading, Table
from collapsekit.rendering.facts import Facts
from collapsekit.rendering.sections import injectivity
from collapsekit.results import Audit
from tests import models
from tests.rendering.pages import Page


@pytest.fixture(scope="module")
def linear() -> Audit:
    model = models.LinearVAE((30.0, 3.0, 0.5, 0.0))
    return ck.audit(model, model.sample(500, 0), likelihood=("gaussian", 0.5))


def section(audit: Audit) -> Section:
    found = injectivity.build(Facts(audit))
    assert found is not None
    return found


def test_every_part_is_there_with_its_data(linear: Audit) -> None:
    blocks = section(linear).blocks
    assert len([b for b in blocks if isinstance(b, Subheading)]) == 3
    names = [b.drawing.name for b in blocks if isinstance(b, Figure)]
    assert names == ["round-trip", "decoder-spectrum"]
    folds = [b.summary for b in blocks if isinstance(b, Fold)]
    assert "Data: share in a collision by samples compared" in folds
    assert "Data: the decoder's directions" in folds
    (data,) = [b for b in blocks if isinstance(b, Fold) and "decoder's" in b.summary]
    assert [len(table.rows) for table in data.blocks if isinstance(table, Table)] == [5, 4]


def test_captions_state_the_result(linear: Audit) -> None:
    blocks = section(linear).blocks
    (spectrum,) = [
        b for b in blocks if isinstance(b, Figure) and b.drawing.name == "decoder-spectrum"
    ]
    # Loadings sqrt(30, 3, 0.5, 0) / 2: the third is 0.129 of the first.
    assert spectrum.result.startswith("At the median code the decoder reads 3 of 4 directions")
    (encoder,) = [b for b in blocks if isinstance(b, Table) and "Encoder" in b.caption]
    assert "directions in which its neighbours differ" in encoder.note
    assert any("No code was found whose output" in b.text for b in blocks if isinstance(b, Note))


def test_a_fold_is_told() -> None:
    class Square:
        def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            mean = x.clamp(min=0).sqrt()
            return mean, torch.full_like(mean, 0.05)

        def decode(self, z: torch.Tensor) -> torch.Tensor:
            return z**2

    x = torch.randn(400, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 2
    notes = [b.text for b in section(ck.audit(Square(), x)).blocks if isinstance(b, Note)]
    assert any("draws of the prior have a second code" in n.replace("\u00a0", " ") for n in notes)


def test_it_renders(linear: Audit) -> None:
    text = page.render(linear)
    assert "decoder-spectrum" in text or "Singular values of the decoder" in text
    Page(text)
