"""Flax: linen and nnx, against the same weights in NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import collapsekit as ck
from collapsekit.adapters import as_adapter
from collapsekit.errors import FileError, InputError, ModelError
from collapsekit.testing import check_adapter

REASON = "is not installed: pip install 'collapsekit[jax]'"
jax = pytest.importorskip("jax", reason=f"jax {REASON}")
nn = pytest.importorskip("flax.linen", reason=f"flax {REASON}")
nnx = pytest.importorskip("flax.nnx", reason=f"flax {REASON}")
jnp = jax.numpy

X = np.random.default_rng(0).random((40, 6)).astype(np.float32)


class Linen(nn.Module):  # type: ignore[misc,name-defined,unused-ignore]
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.heads = nn.Dense(6, dtype=self.dtype)
        self.back = nn.Dense(6, dtype=self.dtype)
        self.drop = nn.Dropout(0.5)

    def encode(self, x: Any, train: bool = True) -> Any:
        mean, logvar = jnp.split(self.heads(self.drop(x, deterministic=not train)), 2, axis=-1)
        return mean, logvar

    def decode(self, z: Any) -> Any:
        return nn.sigmoid(self.back(z))

    def __call__(self, x: Any) -> Any:
        return self.decode(self.encode(x, train=False)[0])


class Noisy(Linen):
    def encode(self, x: Any) -> Any:
        mean, logvar = super().encode(x, train=False)
        return mean + jax.random.normal(self.make_rng("reparam"), mean.shape), logvar


class Nnx(nnx.Module):  # type: ignore[misc,name-defined,unused-ignore]
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.heads, self.back = nnx.Linear(6, 6, rngs=rngs), nnx.Linear(3, 6, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def encode(self, x: Any) -> Any:
        mean, logvar = jnp.split(self.heads(self.drop(x)), 2, axis=-1)
        return {"mu": mean, "logvar": logvar}

    def decode(self, z: Any) -> Any:
        return nnx.sigmoid(self.back(z))


def variables() -> Any:
    return Linen().init(jax.random.key(0), X[:1])


def expected(kernel: Any, bias: Any) -> Any:
    mean, logvar = np.split(X @ np.asarray(kernel) + np.asarray(bias), 2, axis=1)
    return ck.probes.kl(mean, np.exp(0.5 * logvar)).sum(axis=1)


def test_linen() -> None:
    held = variables()
    model = Linen().bind(held)
    check_adapter(model, X, parameterisation="logvar")
    audit = ck.audit(model, X, parameterisation="logvar", likelihood="bernoulli")
    heads = held["params"]["heads"]
    np.testing.assert_allclose(
        audit.samples["kl_total"], expected(heads["kernel"], heads["bias"]), rtol=1e-4
    )
    assert "swap_gap" in audit.summary.index


def test_nnx_is_audited_in_evaluation_mode_and_left_in_training() -> None:
    model = Nnx()
    check_adapter(model, X)
    audit = ck.audit(model, X)
    np.testing.assert_allclose(
        audit.samples["kl_total"], expected(model.heads.kernel, model.heads.bias), rtol=1e-4
    )
    assert model.drop.deterministic is False


def test_a_file_of_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flax import serialization

    (tmp_path / "a.msgpack").write_bytes(serialization.to_bytes(variables()))
    module = type("module", (), {"Linen": Linen})
    monkeypatch.setitem(__import__("sys").modules, "some_flax_module", module)
    spec = f"flax:some_flax_module:Linen,{tmp_path / 'a.msgpack'}"
    audit = ck.audit(spec, X, parameterisation="logvar")
    same = ck.audit(Linen().bind(variables()), X, parameterisation="logvar")
    np.testing.assert_array_equal(audit.samples["kl_total"], same.samples["kl_total"])
    (tmp_path / "b.msgpack").write_bytes(b"\xc1 no msgpack")
    with pytest.raises(FileError, match="cannot be read as flax variables"):
        as_adapter(f"flax:some_flax_module:Linen,{tmp_path / 'b.msgpack'}")
    with pytest.raises(InputError, match="cannot read the model spec"):
        as_adapter("flax:some_flax_module:Linen")


def test_bfloat16_reaches_the_audit() -> None:
    model = Linen(dtype=jnp.bfloat16).bind(variables())
    check_adapter(model, X, parameterisation="logvar")


def test_what_is_missing_is_asked_for() -> None:
    with pytest.raises(InputError, match="does not hold its parameters"):
        as_adapter(Linen())
    with pytest.raises(ModelError, match="asks for random numbers"):
        ck.audit(Noisy().bind(variables()), X)
    with pytest.raises(InputError, match="no encoder"):
        as_adapter(nn.Dense(3).bind(nn.Dense(3).init(jax.random.key(0), X)))
