"""Keras 3: models and files, against the same weights in NumPy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import collapsekit as ck
from collapsekit.adapters import as_adapter
from collapsekit.errors import InputError
from collapsekit.testing import check_adapter

os.environ.setdefault("KERAS_BACKEND", "torch")
# Its torch backend meets NumPy 2.4 with an old __array__; that is no warning about us.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
keras = pytest.importorskip(
    "keras", reason="keras is not installed: pip install 'collapsekit[keras]'"
)
X = np.random.default_rng(0).random((40, 6)).astype(np.float32)


@keras.saving.register_keras_serializable("collapsekit_tests")
class Sampling(keras.layers.Layer):  # type: ignore[misc,name-defined,unused-ignore]
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.seed_generator = keras.random.SeedGenerator(1)

    def call(self, inputs: Any) -> Any:
        mean, logvar = inputs
        noise = keras.random.normal(keras.ops.shape(mean), seed=self.seed_generator)
        return mean + keras.ops.exp(0.5 * logvar) * noise


def encoder(named: bool = True) -> Any:
    keras.utils.set_random_seed(0)
    x = keras.Input((6,))
    mean = keras.layers.Dense(3, name="z_mean" if named else "dense_a")(x)
    logvar = keras.layers.Dense(3, name="z_log_var" if named else "dense_b")(x)
    return keras.Model(x, [mean, logvar, Sampling(name="z")([mean, logvar])])


def decoder() -> Any:
    keras.utils.set_random_seed(1)
    z = keras.Input((3,))
    h = keras.layers.Dropout(0.5)(keras.layers.Dense(6)(z))
    return keras.Model(z, keras.layers.Activation("sigmoid")(h))


class VAE(keras.Model):  # type: ignore[misc,name-defined,unused-ignore]
    def __init__(self, encoder: Any, decoder: Any) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder


def expected(model: Any) -> Any:
    weights = [np.asarray(w) for w in model.get_weights()[:4]]
    mean, logvar = X @ weights[0] + weights[1], X @ weights[2] + weights[3]
    return ck.probes.kl(mean, np.exp(0.5 * logvar)).sum(axis=1)


def test_a_model_with_encoder_and_decoder() -> None:
    model = VAE(encoder(), decoder())
    check_adapter(model, X)
    audit = ck.audit(model, X, likelihood="bernoulli")
    np.testing.assert_allclose(audit.samples["kl_total"], expected(model.encoder), rtol=1e-4)
    assert "swap_gap" in audit.summary.index
    assert any("z_mean and z_log_var" in note for note in audit.provenance["notes"])


def test_outputs_without_telling_names_are_found_by_what_they_do() -> None:
    model = encoder(named=False)
    audit = ck.audit(model, X, parameterisation="logvar")
    np.testing.assert_allclose(audit.samples["kl_total"], expected(model), rtol=1e-4)
    assert any("a draw at 2" in note for note in audit.provenance["notes"])


def test_two_files(tmp_path: Path) -> None:
    one, two = encoder(), decoder()
    one.save(tmp_path / "e.keras")
    two.save(tmp_path / "d.keras")
    spec = f"keras:{tmp_path / 'e.keras'},{tmp_path / 'd.keras'}"
    check_adapter(as_adapter(spec)[0], X)
    np.testing.assert_allclose(ck.audit(spec, X).samples["kl_total"], expected(one), rtol=1e-4)


def test_a_marshalled_function_needs_trust(tmp_path: Path) -> None:
    x = keras.Input((6,))
    h = keras.layers.Lambda(lambda t: t * 2.0)(x)
    heads = [keras.layers.Dense(3, name=n)(h) for n in ("z_mean", "z_log_var")]
    keras.Model(x, heads).save(tmp_path / "l.keras")
    with pytest.raises(InputError, match="--trust-code"):
        as_adapter(f"keras:{tmp_path / 'l.keras'}")
    adapter, _ = as_adapter(f"keras:{tmp_path / 'l.keras'}", trust_code=True)
    assert "code in l.keras was executed (--trust-code)" in adapter.notes
    check_adapter(adapter, X)


def test_specs_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the model spec"):
        as_adapter("keras:nothing")
    (tmp_path / "a.h5").write_bytes(b"")
    with pytest.raises(InputError, match="legacy HDF5"):
        as_adapter(f"keras:{tmp_path / 'a.h5'}")
