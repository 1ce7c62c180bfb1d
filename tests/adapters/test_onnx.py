"""ONNX files: against the same functions in NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import collapsekit as ck
from collapsekit.adapters import as_adapter
from collapsekit.doctor import inspect
from collapsekit.errors import FileError, ModelError
from collapsekit.testing import check_adapter

REASON = "is not installed: pip install 'collapsekit[onnx]'"
onnx = pytest.importorskip("onnx", reason=f"onnx {REASON}")
pytest.importorskip("onnxruntime", reason=f"onnxruntime {REASON}")

RNG = np.random.default_rng(0)
X = RNG.random((40, 6)).astype(np.float32)
W, V, B = (RNG.normal(size=s).astype(np.float32) for s in ((6, 3), (6, 3), (3, 6)))


def save(path: Path, nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any]) -> Path:
    """A graph from its nodes; the weights are W, V and B."""
    from onnx import TensorProto, helper, numpy_helper

    def value(name: str, shape: Any) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    used = {name for node in nodes for name in node.input}
    weights = [
        numpy_helper.from_array(array, name)
        for name, array in {"W": W, "V": V, "B": B, "half": np.float32([0.5])}.items()
        if name in used
    ]
    graph = helper.make_graph(
        nodes, "g", [value(*p) for p in inputs.items()], [value(*p) for p in outputs.items()],
        initializer=weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, str(path))
    return path


def node(kind: str, inputs: str, output: str, **settings: Any) -> Any:
    from onnx import helper

    return helper.make_node(kind, inputs.split(), [output], **settings)


def encoder(path: Path, mean: str = "mean", second: str = "logvar", batch: Any = "n") -> Path:
    nodes = [node("MatMul", "x W", mean), node("MatMul", "x V", second)]
    return save(path, nodes, {"x": [batch, 6]}, {mean: [batch, 3], second: [batch, 3]})


def decoder(path: Path) -> Path:
    nodes = [node("MatMul", "z B", "logits"), node("Sigmoid", "logits", "out")]
    return save(path, nodes, {"z": ["n", 3]}, {"out": ["n", 6]})


EXPECTED = ck.probes.kl(X @ W, np.exp(0.5 * (X @ V))).sum(axis=1)


def test_two_files(tmp_path: Path) -> None:
    spec = f"onnx:{encoder(tmp_path / 'e.onnx')},{decoder(tmp_path / 'd.onnx')}"
    check_adapter(as_adapter(spec)[0], X)
    audit = ck.audit(spec, X, likelihood="bernoulli")
    np.testing.assert_allclose(audit.samples["kl_total"], EXPECTED, rtol=1e-5)
    assert "swap_gap" in audit.summary.index
    assert any("by their names as logvar" in note for note in audit.provenance["notes"])
    assert not inspect(spec, X).faults


def test_names_that_say_nothing_are_read_by_place(tmp_path: Path) -> None:
    spec = f"onnx:{encoder(tmp_path / 'e.onnx', 'output_0', '17')}"
    audit = ck.audit(spec, X, parameterisation="logvar")
    np.testing.assert_allclose(audit.samples["kl_total"], EXPECTED, rtol=1e-5)
    assert "swap_gap" in audit.skipped


def test_a_fixed_batch_is_served_in_its_own_size(tmp_path: Path) -> None:
    spec = f"onnx:{encoder(tmp_path / 'e.onnx', batch=7)},{decoder(tmp_path / 'd.onnx')}"
    check_adapter(as_adapter(spec)[0], X)
    np.testing.assert_allclose(ck.audit(spec, X).samples["kl_total"], EXPECTED, rtol=1e-5)


def test_one_file_with_both_is_cut_at_the_code(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", "x W", "mu"), node("MatMul", "x V", "logvar"),
        node("Mul", "logvar half", "h"), node("Exp", "h", "sd"),
        node("RandomNormalLike", "mu", "eps"), node("Mul", "sd eps", "noise"),
        node("Add", "mu noise", "z"),
        node("MatMul", "z B", "logits"), node("Sigmoid", "logits", "recon"),
    ]  # fmt: skip
    shapes = {"recon": ["n", 6], "z": ["n", 3], "mu": ["n", 3], "logvar": ["n", 3]}
    path = save(tmp_path / "vae.onnx", nodes, {"x": ["n", 6]}, shapes)
    adapter, _ = as_adapter(f"onnx:{path}")
    check_adapter(adapter, X)
    assert "the decoder is the part of vae.onnx from z to recon" in adapter.notes
    z = RNG.normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_allclose(adapter.decode(z), 1 / (1 + np.exp(-(z @ B))), rtol=1e-4)
    np.testing.assert_allclose(ck.audit(adapter, X).samples["kl_total"], EXPECTED, rtol=1e-5)


def test_swapped_files_are_told(tmp_path: Path) -> None:
    spec = f"onnx:{decoder(tmp_path / 'd.onnx')},{encoder(tmp_path / 'e.onnx')}"
    with pytest.raises(ModelError, match="does not take this input") as caught:
        ck.audit(spec, X)
    assert "encoder first, decoder second" in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no ONNX file"):
        as_adapter("onnx:nowhere.onnx")
    (tmp_path / "a.onnx").write_bytes(b"no graph")
    with pytest.raises(FileError, match="cannot be read as an ONNX model"):
        as_adapter(f"onnx:{tmp_path / 'a.onnx'}")
