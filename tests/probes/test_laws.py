"""The laws, on every registered probe."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import collapsekit as ck
from collapsekit.door import Door
from collapsekit.probe import Probe
from collapsekit.probes import REGISTERED
from collapsekit.samples import Samples, as_samples
from tests import laws, models

NAMES = [probe.name for probe in REGISTERED]


def linear() -> tuple[Door, Samples]:
    model = models.LinearVAE((30.0, 3.0, 0.5, 0.0))
    return Door(model, likelihood=("gaussian", 0.5)), as_samples(model.sample(83, 0))


def network() -> tuple[Door, Samples]:
    from collapsekit.adapters import as_adapter

    module = models.TinyVAE().double().eval()
    adapter, _ = as_adapter(module)
    x = np.random.default_rng(0).random((61, 6))
    return Door(adapter, likelihood="bernoulli"), as_samples(x)


class Conditional:
    """Three classes and one sample that is alone in its own; the condition is the last column."""

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x[:, :2] * 0.9, torch.full((len(x), 2), 0.4, dtype=torch.float64)

    def context(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 2:]

    def decode(self, z: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return torch.cat([z, context], dim=1)


def conditional() -> tuple[Door, Samples]:
    x = np.random.default_rng(0).normal(size=(61, 3))
    x[:, 2] = np.arange(61) % 3
    x[17, 2] = 9
    return Door(Conditional(), likelihood=("gaussian", 0.5)), as_samples(x)


WITHHELD = {"principal_variances"}  # under a condition


@pytest.mark.parametrize("make", [linear, network, conditional])
@pytest.mark.parametrize("probe", REGISTERED, ids=NAMES)
def test_laws(probe: Probe, make: object) -> None:
    door, samples = make()  # type: ignore[operator]
    if make is conditional and probe.name in WITHHELD:
        with pytest.raises(ck.Unavailable):
            laws.check_probe(probe, door, samples)
        return
    laws.check_probe(probe, door, samples)


@pytest.mark.parametrize("probe", REGISTERED, ids=NAMES)
def test_float32_inputs_change_nothing_but_rounding(probe: Probe) -> None:
    model = models.LinearVAE((30.0, 3.0, 0.5, 0.0))
    x = model.sample(83, 0).float()
    results = []
    for data in (x, x.double()):
        door = Door(model, likelihood=("gaussian", 0.5))
        parts = laws.observations(probe, door, as_samples(data), [20, 20])
        results.append(probe.conclude(laws.total(laws.states_of(probe, parts))))
    laws.assert_same(*results, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("probe", REGISTERED, ids=NAMES)
def test_the_protocol(probe: Probe) -> None:
    assert isinstance(probe, Probe)
    assert dataclasses.is_dataclass(probe)
    with pytest.raises(dataclasses.FrozenInstanceError):
        probe.name = "another"  # type: ignore[misc]
    assert all(code.meaning and code.formula and code.source for code in probe.codes)


def test_names_and_codes_are_unique() -> None:
    from collapsekit import readings, troubles

    assert len(set(NAMES)) == len(NAMES)
    codes = [code for probe in REGISTERED for code in probe.codes]
    codes += [code for reading in readings.REGISTERED for code in reading.codes]
    by_id = {code.id: code for code in [*codes, *troubles.CODES]}
    assert len(by_id) == len(set(codes) | set(troubles.CODES))


def test_no_probe_touches_the_global_generator() -> None:
    door, samples = linear()
    before = torch.get_rng_state()
    for probe in REGISTERED:
        laws.states_of(probe, laws.observations(probe, door, samples, [40]))
    assert torch.equal(before, torch.get_rng_state())
