"""The LR loss's Lightning callback: without Lightning in words, with it in a real trainer."""

from __future__ import annotations

import importlib.util
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from collapsekit.errors import InputError
from collapsekit.remedies import LatentReconstruction, lightning_callback

needs_lightning = pytest.mark.skipif(
    importlib.util.find_spec("lightning") is None, reason="lightning is not installed"
)


def test_without_lightning_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lightning.pytorch", "pytorch_lightning"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "collapsekit\[lightning\]"'):
        lightning_callback()


def test_a_warm_up_is_a_share() -> None:
    with pytest.raises(InputError, match=r"got: +1000[\s\S]*LatentReconstruction's warmup_steps"):
        lightning_callback(warmup=1000)


def _fit(folder: Path, **options: Any) -> tuple[Any, Any]:
    import lightning as L

    class Model(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = nn.Linear(6, 3), nn.Linear(3, 6)
            self.lr = LatentReconstruction(2.0)
            self.weights: list[float] = []

        def training_step(self, batch: list[Tensor]) -> Tensor:
            (x,) = batch
            z = self.encoder(x)
            x_hat = self.decoder(z)
            loss = (x_hat - x).square().mean() + self.lr(z, self.encoder(x_hat))
            assert self.lr.components is not None
            self.weights.append(float(self.lr.components.weight))
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1e-3)

    data = torch.utils.data.TensorDataset(torch.randn(48, 6))
    model = Model()
    trainer = L.Trainer(
        max_epochs=2,
        callbacks=[lightning_callback(warmup=0.5)],
        default_root_dir=folder,
        accelerator="cpu",
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(model, torch.utils.data.DataLoader(data, batch_size=8))
    return model, trainer


@needs_lightning
@pytest.mark.filterwarnings("ignore")  # Lightning's own advice about workers and loggers
def test_warms_up_by_optimiser_steps_under_accumulation_and_logs(tmp_path: Path) -> None:
    model, trainer = _fit(tmp_path, accumulate_grad_batches=2, logger=False)
    # 2 epochs of 6 batches make 6 steps; half of them warm up.
    assert model.lr.warmup_steps == 3
    assert model.weights == pytest.approx(
        [2 * w for w in (0, 0, 1 / 3, 1 / 3, 2 / 3, 2 / 3)] + [2.0] * 6
    )
    told = trainer.callback_metrics
    assert {"lr/loss", "lr/weight", "lr/cost", "lr/unread"} <= set(told)
    parts = model.lr.components
    assert float(told["lr/cost"]) == pytest.approx(float(parts.cost[0].sum()))
    assert float(told["lr/weight"]) == 2.0


@needs_lightning
@pytest.mark.filterwarnings("ignore")
def test_survives_pickling_and_finds_nothing_in_words(tmp_path: Path) -> None:
    import lightning.pytorch as lightning

    callback = pickle.loads(pickle.dumps(lightning_callback(warmup=0.1, prefix="mine/")))
    assert isinstance(callback, lightning.Callback)
    assert (callback.warmup, callback.prefix) == (0.1, "mine/")
    with pytest.raises(InputError, match=r"self\.lr = LatentReconstruction"):
        callback.on_train_start(None, nn.Linear(1, 1))
