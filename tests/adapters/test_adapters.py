"""What a user hands in is wrapped, checked, and given back as it was."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import collapsekit as ck
from collapsekit.adapters import as_adapter
from collapsekit.adapters.functions import Functions
from collapsekit.adapters.torch_module import TorchModule
from collapsekit.errors import FileError, InputError, ModelError
from tests import models

X = np.random.default_rng(0).random((40, 6)).astype(np.float32)


def test_numpy_functions() -> None:
    weights = np.random.default_rng(1).normal(size=(6, 2))
    seen: list[type] = []

    def encode(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not isinstance(x, np.ndarray):
            raise TypeError("arrays only")
        return x @ weights, np.full((len(x), 2), 0.5)

    def decode(z: np.ndarray) -> np.ndarray:
        seen.append(type(z))
        return z @ weights.T

    audit = ck.audit((encode, decode), X, likelihood=("gaussian", 1.0))
    assert set(seen) == {np.ndarray}
    np.testing.assert_allclose(audit.dimensions["mean_variance"], (X @ weights).var(0, ddof=1))
    assert not audit.skipped


def test_what_fails_in_both_kinds_is_told() -> None:
    def encode(x: Any) -> Any:
        raise KeyError("no such layer")

    with pytest.raises(ModelError, match="no such layer"):
        ck.audit(encode, X)


@pytest.mark.parametrize(
    "answer",
    [
        lambda m, s: (m, s),
        lambda m, s: [m, s],
        lambda m, s: SimpleNamespace(mean=m, stddev=s),
        lambda m, s: SimpleNamespace(mean=m, scale=s),
        lambda m, s: torch.distributions.Normal(m, s),
        lambda m, s: torch.distributions.Independent(torch.distributions.Normal(m, s), 1),
    ],
)
def test_posteriors_in_any_of_their_forms(answer: Any) -> None:
    mean, scale = torch.from_numpy(X[:, :3]), torch.full((40, 3), 0.5)
    audit = ck.audit(lambda x: answer(x[:, :3], torch.full((len(x), 3), 0.5)), X)
    expected = ck.probes.kl(mean, scale).mean(axis=0)
    np.testing.assert_allclose(audit.dimensions["kl"], expected)


class Opaque(torch.distributions.Distribution):
    """A family that cannot be built from named parameters."""

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, location: Tensor) -> None:
        super().__init__(location.shape[:1], torch.Size([2]), validate_args=False)
        self.location = location


def test_families_that_cannot_be_taken_apart_are_refused_by_name() -> None:
    with pytest.raises(ModelError, match="Opaque"):
        ck.audit(lambda x: Opaque(x[:, :2]), X)


def test_a_named_scale_is_never_transformed() -> None:
    def encode(x: Tensor) -> Any:
        return torch.distributions.Normal(x[:, :2], 0.5 * torch.ones(len(x), 2))

    a, b = (ck.audit(encode, X, parameterisation=p).number("rate") for p in ("scale", "logvar"))
    assert a.value == b.value


class Parts(nn.Module):
    """encoder and decoder submodules, as most scripts have them."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Pair()
        self.decoder = nn.Linear(3, 6)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, logvar = self.linear(x).chunk(2, dim=1)
        return mean, logvar


def test_encoder_and_decoder_submodules() -> None:
    module = Parts().double()
    audit = ck.audit(module, X, parameterisation="logvar")
    assert "float64" not in str(audit.skipped)
    assert "swap_gap" in audit.summary.index
    assert "Parts" in audit.provenance["model"]


def test_a_module_without_encoder() -> None:
    with pytest.raises(InputError, match="no encoder"):
        ck.audit(nn.ModuleList([nn.Linear(6, 2)]), X)
    with pytest.raises(ModelError, match="one array, which is no posterior"):
        ck.audit(nn.Linear(6, 2), X)


def test_the_session_restores_flags_device_and_types() -> None:
    module = models.TinyVAE()
    module.train()
    module.dropout.eval()
    adapter = TorchModule(module, "cpu")
    with adapter.session():
        assert not any(m.training for m in module.modules())
    assert module.training
    assert not module.dropout.training
    assert next(module.parameters()).dtype == torch.float32


def test_the_session_restores_after_an_error() -> None:
    module = models.TinyVAE()
    with pytest.raises(RuntimeError, match="stop"), TorchModule(module).session():
        raise RuntimeError("stop")
    assert module.training


def test_optional_pieces_of_a_module_are_found() -> None:
    class Rich(models.TinyVAE):
        likelihood = "bernoulli"
        prior = (np.zeros(3), np.full(3, 2.0))

    audit = ck.audit(Rich(), X)
    assert audit.provenance["likelihood"] == "bernoulli"
    assert "given" in audit.provenance["prior"]


def test_log_likelihood_wins_over_likelihood() -> None:
    class Own(models.TinyVAE):
        def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
            return -(x - self.decode(z)).abs().sum(dim=1)

    module = Own()
    audit = ck.audit(module, X, likelihood="bernoulli")
    assert "own" in audit.provenance["likelihood"]
    assert 0 < audit.number("reconstruction_error").value < 6


def test_a_decoder_may_return_a_distribution() -> None:
    class Likely(models.TinyVAE):
        def decode(self, z: Tensor) -> Any:
            return torch.distributions.Normal(super().decode(z), 0.5)

    plain = ck.audit(models.TinyVAE(), X, likelihood=("gaussian", 0.5))
    audit = ck.audit(Likely(), X)
    assert audit.number("reconstruction_error").value == pytest.approx(
        plain.number("reconstruction_error").value, rel=1e-5
    )


def test_conditional_models_get_their_context() -> None:
    class Conditional:
        def encode(self, x: Any) -> Any:
            return x["x"][:, :2] - x["condition"], torch.ones(len(x["x"]), 2)

        def context(self, x: Any) -> Tensor:
            return x["condition"]  # type: ignore[no-any-return]

        def target(self, x: Any) -> Tensor:
            return x["x"]  # type: ignore[no-any-return]

        def decode(self, z: Tensor, context: Tensor) -> Tensor:
            return torch.cat([z + context, torch.zeros(len(z), 4)], dim=1)

        def as_input(self, output: Tensor, context: Tensor) -> Any:
            return {"x": output, "condition": context}

    data = {"x": torch.from_numpy(X), "condition": (torch.arange(40) % 2).float()[:, None]}
    audit = ck.audit(Conditional(), data)
    # E(D(z, c), c) = z exactly: every dimension comes back
    np.testing.assert_allclose(audit.dimensions["round_trip_r2"], 1.0, atol=1e-6)
    np.testing.assert_allclose(audit.dimensions["round_trip_r2_prior"], 1.0, atol=1e-6)
    assert audit.samples["swap_gap"].notna().all()


def test_spatial_latents_go_back_in_their_shape() -> None:
    shapes: set[tuple[int, ...]] = set()

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :, ::2, ::2], torch.full((len(x), 1, 2, 2), 0.3)

    def decode(z: Tensor) -> Tensor:
        shapes.add(tuple(z.shape[1:]))
        return nn.functional.interpolate(z, scale_factor=2.0)

    audit = ck.audit((encode, decode), models.images())
    assert shapes == {(1, 2, 2)}
    assert len(audit.dimensions) == 4
    assert audit.provenance["latent_shape"] == [1, 2, 2]


def test_posteriors_file(tmp_path: Path) -> None:
    mean, scale = X[:, :2].astype(float), np.full((40, 2), 0.5)
    labels = np.arange(40) % 3
    np.savez(tmp_path / "a.npz", mean=mean, scale=scale, x=X, labels=labels)
    audit = ck.audit(f"posteriors:{tmp_path / 'a.npz'}")
    np.testing.assert_allclose(audit.samples["kl_total"], ck.probes.kl(mean, scale).sum(axis=1))
    assert audit.samples["label"].tolist() == labels.tolist()
    assert "collision_fraction" in audit.summary.index
    assert "swap_gap" in audit.skipped
    np.savez(tmp_path / "b.npz", mean=mean, scale=scale)
    assert "no inputs" in ck.audit(f"posteriors:{tmp_path / 'b.npz'}").skipped["collisions"] or (
        "posteriors alone" in ck.audit(f"posteriors:{tmp_path / 'b.npz'}").skipped["collisions"]
    )


def test_posteriors_files_that_are_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", mu=X)
    with pytest.raises(InputError, match="does not hold posteriors"):
        ck.audit(f"posteriors:{tmp_path / 'a.npz'}")
    (tmp_path / "b.npz").write_bytes(b"no zip at all")
    with pytest.raises(FileError, match="cannot be read"):
        ck.audit(f"posteriors:{tmp_path / 'b.npz'}")
    with pytest.raises(FileError, match="cannot be read"):
        ck.audit(f"posteriors:{tmp_path / 'missing.npz'}")
    np.savez(tmp_path / "c.npz", mean=X, scale=X[:, :2])
    with pytest.raises(ModelError, match="differ in shape"):
        ck.audit(f"posteriors:{tmp_path / 'c.npz'}")


def test_factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_factory_module.py").write_text(
        "from tests.models import TinyVAE\ndef build():\n    return TinyVAE()\nready = TinyVAE()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("build", "ready"):
        adapter, data = as_adapter(f"my_factory_module:{name}")
        assert isinstance(adapter, TorchModule)
        assert data is None
    with pytest.raises(InputError, match="has no missing"):
        as_adapter("my_factory_module:missing")
    with pytest.raises(InputError, match="no module named"):
        as_adapter("no_such_package_anywhere:build")
    with pytest.raises(InputError, match="cannot read the model spec"):
        as_adapter("just-a-word")


def test_what_is_no_model() -> None:
    with pytest.raises(InputError, match="no model"):
        as_adapter(3)
    with pytest.raises(InputError, match="callable"):
        as_adapter((1, 2))
    adapter, _ = as_adapter((lambda x: x, None))
    assert isinstance(adapter, Functions)
    assert not hasattr(adapter, "decode")


def test_an_adapter_passes_through() -> None:
    adapter = models.Constant()
    assert as_adapter(adapter) == (adapter, None)


def test_hostile_arrays_reach_the_model_safely() -> None:
    flipped = X[:, ::-1]  # negative strides abort the process inside torch.from_dlpack
    frozen = X.copy()
    frozen.flags.writeable = False
    big = X.astype(">f4")

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :2], torch.ones(len(x), 2)

    expected = ck.audit(encode, X).number("rate").value
    assert ck.audit(encode, frozen).number("rate").value == expected
    assert ck.audit(encode, big).number("rate").value == expected
    assert np.isfinite(ck.audit(encode, flipped).number("rate").value)

    def answers(x: Any) -> Any:
        return np.asarray(x)[:, 1::-1], np.ones((len(x), 2))

    assert np.isfinite(ck.audit(answers, X).number("rate").value)


def test_a_model_cannot_write_into_the_users_array() -> None:
    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        x.zero_()
        return x[:, :2], torch.ones(len(x), 2)

    data = X.copy()
    ck.audit(encode, data)
    np.testing.assert_array_equal(data, X)
