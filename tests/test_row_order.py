"""Identical samples and the order of rows do not fool the verdict."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import collapsekit as ck
from tests import models

PROBES = [
    p
    for p in ck.probes.REGISTERED
    if p.name not in ("kl_distribution", "gallery", "traversals", "latent_view")
]


class Gated(models.LinearVAE):
    """The exact posterior where the first feature is positive, the prior elsewhere."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, scale = super().encode(x)
        heard = x[:, :1] > 0
        return torch.where(heard, mean, 0.0), torch.where(heard, scale, 1.0)


MODELS = {
    "healthy": models.LinearVAE((30.0, 8.0)),
    "partial": models.LinearVAE((30.0, 8.0, 0.0)),
    "local": Gated((30.0, 8.0)),
    "total": models.LinearVAE((0.0, 0.0)),
}
ORDERS: dict[str, Callable[[Tensor], Tensor]] = {
    "as drawn": lambda x: x,
    "sorted": lambda x: x[x[:, 0].argsort()],
    "shuffled": lambda x: x[torch.randperm(len(x), generator=torch.Generator().manual_seed(3))],
    "every sample twice, side by side": lambda x: x.repeat_interleave(2, dim=0),
    "the data set twice, sorted and not": lambda x: torch.cat([x[x[:, 0].argsort()], x]),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("word", MODELS)
def test_the_verdict_stays(word: str, order: str) -> None:
    x = ORDERS[order](MODELS[word].sample(300, 5))
    audit = ck.audit(MODELS[word], x, likelihood=("gaussian", 0.5), probes=PROBES)
    assert audit.verdict.name == word


def test_copies_add_no_information() -> None:
    """The same forty samples once and ten times: the ceiling is ln 40 either way."""
    model = models.LinearVAE((3000.0,) * 4)
    x = model.sample(40, 5)
    for data in (x, x.repeat(10, 1)):
        audit = ck.audit(model, data, likelihood=("gaussian", 0.5), probes=PROBES)
        number = audit.number("mutual_information")
        assert number.value == pytest.approx(torch.tensor(40.0).log().item(), abs=1e-2)
