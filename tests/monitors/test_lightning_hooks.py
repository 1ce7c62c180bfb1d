"""CollapseMonitor in a real Lightning trainer, and out of Lightning's way where there is none."""

from __future__ import annotations

import csv
import importlib.util
import math
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from collapsekit.errors import InputError
from collapsekit.monitors import CollapseMonitor, collapse_monitor

needs_lightning = pytest.mark.skipif(
    importlib.util.find_spec("lightning") is None, reason="lightning is not installed"
)
# Lightning's own advice about workers and loggers
pytestmark = pytest.mark.filterwarnings("ignore")


def test_it_imports_no_lightning() -> None:
    code = (
        "import sys, collapsekit as ck\n"
        "ck.monitors.CollapseMonitor(); ck.remedies.LatentReconstruction(1.0)\n"
        "print([m for m in sys.modules if 'lightning' in m.partition('.')[0]])"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def _model() -> Any:
    import lightning as L

    class Model(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.encoder, self.decoder = nn.Linear(6, 6), nn.Linear(3, 6)
            self.dropout = nn.Dropout(0.5)
            self.broken = False

        def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
            mean, raw = self.encoder(self.dropout(x)).chunk(2, dim=1)
            return mean * (math.nan if self.broken else 1.0), raw.sigmoid()

        def decode(self, z: Tensor) -> Tensor:
            x_hat: Tensor = self.decoder(z)
            return x_hat

        def training_step(self, batch: list[Tensor]) -> Tensor:
            mean, scale = self.encode(batch[0])
            z = mean + scale * torch.randn_like(scale)
            return (self.decode(z) - batch[0]).square().mean()

        def validation_step(self, batch: list[Tensor]) -> None:
            self.log("val", self.decode(self.encode(batch[0])[0]).square().mean())

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1e-2)

    return Model()


def _data(n: int = 48) -> torch.utils.data.TensorDataset:
    return torch.utils.data.TensorDataset(
        torch.randn(n, 6, generator=torch.Generator().manual_seed(0))
    )


def _fit(folder: Path, model: Any, callbacks: list[Any], validate: bool = False, **options: Any):  # type: ignore[no-untyped-def]
    import lightning as L

    trainer = L.Trainer(
        **{"max_epochs": 3, "logger": False, **options},
        callbacks=callbacks,
        default_root_dir=folder,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = torch.utils.data.DataLoader(_data(), batch_size=8)
    trainer.fit(model, loader, loader if validate else None)
    return trainer


@needs_lightning
@pytest.mark.parametrize("validate", [False, True])
def test_checks_once_an_epoch_and_logs_to_the_logger_there_is(
    tmp_path: Path, validate: bool
) -> None:
    from lightning.pytorch.loggers import CSVLogger

    monitor = CollapseMonitor(data=_data(64), likelihood=("gaussian", 1.0), budget=None)
    logger = CSVLogger(str(tmp_path))
    trainer = _fit(tmp_path, _model(), [monitor], validate, logger=logger)
    assert monitor.history["step"] == [6, 12, 18]
    told = trainer.callback_metrics
    for name in ("rate", "active_fraction_0.1", "mutual_information", "swap_gap", "fake_fraction"):
        assert float(told[f"collapse/{name}"]) == pytest.approx(monitor.history[name][-1], rel=1e-6)
    rows = list(csv.DictReader((Path(logger.log_dir) / "metrics.csv").open()))
    assert [float(row["collapse/rate"]) for row in rows if row["collapse/rate"]] == pytest.approx(
        monitor.history["rate"], rel=1e-5
    )


@needs_lightning
def test_training_is_the_same_with_and_without_it(tmp_path: Path) -> None:
    weights = []
    for callbacks in ([], [CollapseMonitor(data=_data(), budget=None)]):
        model = _model()
        torch.manual_seed(1)
        _fit(tmp_path, model, callbacks, True)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*weights)


@needs_lightning
def test_with_a_budget_the_first_and_the_last_state_are_seen(tmp_path: Path) -> None:
    from lightning.pytorch.loggers import CSVLogger

    monitor = CollapseMonitor(data=_data(), budget=1e-6)
    logger = CSVLogger(str(tmp_path))
    _fit(tmp_path, _model(), [monitor], max_epochs=4, logger=logger)
    assert monitor.history["step"] == [6, 24]
    rows = list(csv.DictReader((Path(logger.log_dir) / "metrics.csv").open()))
    logged = [float(row["collapse/rate"]) for row in rows if row["collapse/rate"]]
    assert logged == pytest.approx(monitor.history["rate"], rel=1e-5)


@needs_lightning
def test_history_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    monitor = CollapseMonitor(data=_data(), budget=None)
    trainer = _fit(tmp_path, _model(), [monitor], max_epochs=2)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed = CollapseMonitor(data=_data(), budget=None)
    import lightning as L

    again = L.Trainer(
        max_epochs=3, callbacks=[resumed], logger=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(_data(), batch_size=8)
    again.fit(_model(), loader, ckpt_path=tmp_path / "last.ckpt")
    assert resumed.history["step"] == [6, 12, 18]


@needs_lightning
def test_a_part_of_the_module_can_be_looked_at(tmp_path: Path) -> None:
    model = _model()
    monitor = CollapseMonitor(
        data=_data(), model=lambda module: (module.encode, module.decode), budget=None
    )
    _fit(tmp_path, model, [monitor], max_epochs=1)
    assert monitor.history["rate"][0] > 0


@needs_lightning
def test_a_diverging_training_is_not_ended_by_its_monitor(tmp_path: Path) -> None:
    import lightning as L

    class Break(L.Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            pl_module.broken = trainer.current_epoch > 0

    monitor = CollapseMonitor(data=_data(), budget=None)
    with pytest.warns(UserWarning, match=r"no collapse check at step 12.*no finite posterior"):
        trainer = _fit(tmp_path, _model(), [Break(), monitor])
    assert trainer.current_epoch == 3
    assert monitor.history["step"] == [6]


@needs_lightning
def test_made_before_lightning_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import lightning.pytorch  # noqa: F401

    with monkeypatch.context() as earlier:
        earlier.setattr(collapse_monitor, "libraries_in_use", lambda: ())
        monitor = CollapseMonitor(data=_data())
    with pytest.raises(InputError, match=r"before Lightning was imported[\s\S]*import lightning"):
        monitor.setup  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'updaet'"):
        monitor.updaet  # noqa: B018


@needs_lightning
def test_it_is_a_callback_of_either_library_and_pickles() -> None:
    import lightning.pytorch as lightning
    import pytorch_lightning

    monitor = CollapseMonitor(data=_data())
    for made in (monitor, pickle.loads(pickle.dumps(monitor))):
        assert isinstance(made, CollapseMonitor)
        assert isinstance(made, lightning.Callback)
        assert isinstance(made, pytorch_lightning.Callback)
        assert made.samples == 1024
        made.update(torch.zeros(8, 2), torch.ones(8, 2))
        assert made.compute()["rate"] == 0.0
