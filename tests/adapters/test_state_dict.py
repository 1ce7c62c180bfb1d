"""Weights in files: plain state dicts and Lightning checkpoints; nothing runs without trust."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import collapsekit as ck
from collapsekit.adapters import as_adapter
from collapsekit.errors import FileError, InputError, ModelError
from collapsekit.testing import check_adapter

X = np.random.default_rng(0).random((40, 6)).astype(np.float32)


class Net(nn.Module):
    def __init__(self, dims: int = 3) -> None:
        super().__init__()
        self.heads, self.back = nn.Linear(6, 2 * dims), nn.Linear(dims, 6)

    def encode(self, x: Tensor) -> Any:
        mean, logvar = self.heads(x).chunk(2, dim=1)
        return {"mean": mean, "logvar": logvar}

    def decode(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.back(z))


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ModuleType("some_strangers_models")
    found.Net = Net  # type: ignore[attr-defined]
    found.five = lambda: Net(5)  # type: ignore[attr-defined]
    found.text = lambda: "no module"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "some_strangers_models", found)


def trained() -> Net:
    torch.manual_seed(3)
    return Net()


@functools.cache
def expected() -> Any:
    return ck.audit(trained(), X).samples["kl_total"]


@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "model"])
def test_a_state_dict_and_where_scripts_keep_it(tmp_path: Path, key: str | None) -> None:
    weights = trained().state_dict()
    torch.save(weights if key is None else {key: weights, "epoch": 3}, tmp_path / "a.pt")
    spec = f"state_dict:some_strangers_models:Net,{tmp_path / 'a.pt'}"
    adapter, _ = as_adapter(spec)
    check_adapter(adapter, X)
    np.testing.assert_array_equal(ck.audit(spec, X).samples["kl_total"], expected())


def test_safetensors(tmp_path: Path) -> None:
    safetensors = pytest.importorskip(
        "safetensors.torch", reason="safetensors is not installed: pip install safetensors"
    )
    safetensors.save_file(trained().state_dict(), tmp_path / "a.safetensors")
    spec = f"state_dict:some_strangers_models:Net,{tmp_path / 'a.safetensors'}"
    np.testing.assert_array_equal(ck.audit(spec, X).samples["kl_total"], expected())


def test_missing_and_unexpected_names_are_told(tmp_path: Path) -> None:
    weights = trained().state_dict()
    del weights["back.weight"]
    weights["ema.decay"] = torch.ones(1)
    torch.save(weights, tmp_path / "a.pt")
    audit = ck.audit(f"state_dict:some_strangers_models:Net,{tmp_path / 'a.pt'}", X)
    told = "\n".join(f.message for f in audit.findings)
    assert "1 of the model's 4 arrays are not in a.pt" in told
    assert "kept the values of a fresh model: back.weight" in told
    assert "1 arrays in a.pt have no place in the model and were left out: ema.decay" in told


def test_files_of_another_model(tmp_path: Path) -> None:
    torch.save({f"module.{k}": v for k, v in trained().state_dict().items()}, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"no name in a\.pt is one of the model's"):
        as_adapter(f"state_dict:some_strangers_models:Net,{tmp_path / 'a.pt'}")
    torch.save(trained().state_dict(), tmp_path / "b.pt")
    with pytest.raises(InputError, match="another shape") as caught:
        as_adapter(f"state_dict:some_strangers_models:five,{tmp_path / 'b.pt'}")
    assert "back.weight (6, 3)" in str(caught.value)
    assert "back.weight (6, 5)" in str(caught.value)
    with pytest.raises(InputError, match="does not build a torch Module"):
        as_adapter(f"state_dict:some_strangers_models:text,{tmp_path / 'b.pt'}")
    torch.save([1, 2], tmp_path / "c.pt")
    with pytest.raises(InputError, match="does not hold a state dict"):
        as_adapter(f"state_dict:some_strangers_models:Net,{tmp_path / 'c.pt'}")
    (tmp_path / "d.pt").write_bytes(b"nothing of torch's")
    with pytest.raises(FileError, match="cannot be read as weights"):
        as_adapter(f"state_dict:some_strangers_models:Net,{tmp_path / 'd.pt'}")
    with pytest.raises(InputError, match="cannot read the model spec"):
        as_adapter("state_dict:some_strangers_models:Net")
    with pytest.raises(FileError, match="no weights file"):
        as_adapter("state_dict:some_strangers_models:Net,nowhere.pt")


RAN: list[str] = []


class Code:
    def __reduce__(self) -> Any:
        return (RAN.append, ("executed",))


def test_a_pickle_runs_only_when_it_is_trusted(tmp_path: Path) -> None:
    torch.save({"state_dict": trained().state_dict(), "config": Path("a")}, tmp_path / "a.pt")
    spec = f"state_dict:some_strangers_models:Net,{tmp_path / 'a.pt'}"
    with pytest.raises(InputError, match="would execute code") as caught:
        as_adapter(spec)
    assert "--trust-code" in str(caught.value)
    adapter, _ = as_adapter(spec, trust_code=True)
    audit = ck.audit(adapter, X)
    assert any("a.pt was executed (--trust-code)" in f.message for f in audit.findings)
    np.testing.assert_array_equal(audit.samples["kl_total"], expected())
    torch.save({"state_dict": trained().state_dict(), "hook": Code()}, tmp_path / "b.pt")
    with pytest.raises(InputError, match="--trust-code"):
        as_adapter(f"lightning:some_strangers_models:Net,{tmp_path / 'b.pt'}")
    assert not RAN


def test_a_checkpoint_builds_its_class(tmp_path: Path) -> None:
    torch.manual_seed(3)
    net = Net(5)
    hyper = {"dims": 5, "learning_rate": 0.1}
    torch.save({"state_dict": net.state_dict(), "hyper_parameters": hyper}, tmp_path / "a.ckpt")
    adapter, _ = as_adapter(f"lightning:some_strangers_models:Net,{tmp_path / 'a.ckpt'}")
    check_adapter(adapter, X)
    assert len(ck.audit(adapter, X).dimensions) == 5
    torch.save({"weights": 1}, tmp_path / "b.ckpt")
    with pytest.raises(InputError, match="no Lightning checkpoint"):
        as_adapter(f"lightning:some_strangers_models:Net,{tmp_path / 'b.ckpt'}")

    class Needs(Net):
        def __init__(self, width: int) -> None:
            super().__init__(width)

    sys.modules["some_strangers_models"].Needs = Needs  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="hyperparameters"):
        as_adapter(f"lightning:some_strangers_models:Needs,{tmp_path / 'a.ckpt'}")


def test_a_checkpoint_that_lightning_wrote(tmp_path: Path) -> None:
    lightning = pytest.importorskip(
        "lightning", reason="lightning is not installed: pip install 'collapsekit[lightning]'"
    )

    class Module(lightning.LightningModule):  # type: ignore[misc,name-defined,unused-ignore]
        def __init__(self, dims: int = 3) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = Net(dims)

        def encode(self, x: Tensor) -> Any:
            return self.net.encode(x)

        def decode(self, z: Tensor) -> Any:
            return self.net.decode(z)

    torch.manual_seed(3)
    module = Module(dims=4)
    check_adapter(module, X)
    trainer = lightning.Trainer(
        logger=False, enable_progress_bar=False, accelerator="cpu", default_root_dir=tmp_path
    )
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    sys.modules["some_strangers_models"].Module = Module  # type: ignore[attr-defined]
    spec = f"lightning:some_strangers_models:Module,{tmp_path / 'a.ckpt'}"
    np.testing.assert_array_equal(
        ck.audit(spec, X).samples["kl_total"], ck.audit(module, X).samples["kl_total"]
    )


def test_others_ship_adapters_as_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    theirs = ModuleType("their_adapter")

    def open_spec(rest: str, *, device: Any = None, trust_code: bool = False) -> Any:
        return trained(), (rest, trust_code)

    theirs.open_spec = open_spec  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "their_adapter", theirs)
    point = metadata.EntryPoint("theirs", "their_adapter", "collapsekit.adapters")

    def entry_points(*, group: str, name: str) -> Any:
        return metadata.EntryPoints([point]).select(group=group, name=name)

    monkeypatch.setattr(metadata, "entry_points", entry_points)
    assert as_adapter("theirs:a/b", trust_code=True)[1] == ("a/b", True)  # type: ignore[comparison-overlap]
    with pytest.raises(InputError, match="cannot read the model spec"):
        as_adapter("others:a/b")
