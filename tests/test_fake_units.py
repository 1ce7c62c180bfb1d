"""The benchmark of fake units: its own sums, on models whose answer is known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks import fake_units


class Known:
    """Two units of a linear model, lam 30 and 0.1 (I = 1.72 and 0.048 nats), likelihood sd 0.5."""

    lam = torch.tensor([30.0, 0.1])

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        width = 1 / (1 + self.lam)
        return x * self.lam.sqrt() / 0.5 * width, width.sqrt().expand_as(x)

    def decode(self, z: Tensor) -> Tensor:
        return z * self.lam.sqrt() * 0.5


def test_a_weak_unit_is_told_with_what_it_says_and_is_worth() -> None:
    generator = torch.Generator().manual_seed(0)
    z, noise = (torch.randn(2000, 2, generator=generator) for _ in range(2))
    found = fake_units.looked_at(Known(), Known().decode(z) + 0.5 * noise, 0.25)
    assert (found["active"], found["fake"]) == (2, 1)
    assert found["together"] == pytest.approx(0.5 * math.log(1.1), abs=0.03)
    assert found["each"] == [pytest.approx(found["together"], abs=1e-3)] * 2
    # an exact posterior's draw misses by s^2, its centre by s^2 (1 + lam): half the difference
    assert found["worth"] == pytest.approx(float(Known.lam.sum()) / 2, rel=0.1)
    assert found["cost"] == pytest.approx(0.05, abs=0.06)  # 3 standard errors


def test_a_detached_model_has_to_be_warned_of_and_a_full_gradient_not() -> None:
    def said(detached: str, lr: str, name: str = "B1") -> bool:
        rows = [{"method": "detached", "CK604": detached}, {"method": "lr", "CK604": lr}]
        return fake_units.as_it_should({"name": name, "rows": rows})

    assert said("warn", "ok")
    assert said("warn", "inconclusive")
    assert not said("warn", "warn")
    assert not said("inconclusive", "ok")
    assert said("warn", "warn", name="digits")
    assert said("ok", "warn", name="MNIST2")


def test_a_record_and_its_table(tmp_path, monkeypatch, capsys) -> None:
    torch.set_num_threads(1)
    settings = fake_units.SETTINGS
    monkeypatch.setitem(settings, "digits", replace(settings["digits"], epochs=1))
    fake_units.main(["digits", "--seeds", "5", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert printed.count("| digits 8 x 8, beta 0.2 |") == 3
    assert fake_units.main(["--table", str(tmp_path)]) == 0
    assert capsys.readouterr().out == printed
