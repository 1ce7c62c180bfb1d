"""The LR loss in pythae's models: in words without pythae, with it in its own trainer."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from collapsekit.errors import InputError
from collapsekit.remedies import LatentReconstruction, latent_reconstruction, repair_pythae

# Its import and its trainers warn about many things of their own.
pytestmark = pytest.mark.filterwarnings("ignore")
needs_pythae = pytest.mark.skipif(
    importlib.util.find_spec("pythae") is None, reason="pythae is not installed"
)


class Output(dict[str, Any]):
    """As pythae's ModelOutput."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Output:
        mean, log_variance = self.layer(x).chunk(2, dim=1)
        return Output(embedding=mean, log_covariance=log_variance)


class LikePythae(nn.Module):
    """A VAE of pythae's shape, so that the wrapper is tested where pythae is absent."""

    model_config = None
    flow = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(), nn.Linear(3, 6)

    def _sample_gauss(self, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        noise = torch.randn_like(scale)
        return mean + scale * noise, noise

    def forward(self, inputs: dict[str, Tensor], **_: Any) -> Output:
        code = self.encoder(inputs["data"])
        z, _ = self._sample_gauss(code.embedding, (0.5 * code.log_covariance).exp())
        z = z + self.flow
        x_hat = self.decoder(z)
        loss = (x_hat - inputs["data"]).square().sum(1).mean()
        return Output(loss=loss, recon_x=x_hat, z=z)


def _batch() -> dict[str, Tensor]:
    return {"data": torch.randn(8, 6, generator=torch.Generator().manual_seed(0))}


def test_value_at_full_weight_gradient_at_the_warm_ups() -> None:
    torch.manual_seed(0)
    model = LikePythae()
    plain = copy.deepcopy(model)
    repaired = repair_pythae(model, LatentReconstruction(3.0, warmup_steps=2))
    assert repaired is model
    assert isinstance(model, LikePythae)

    def gradient(of: nn.Module) -> tuple[Output, list[Tensor]]:
        torch.manual_seed(1)
        of.zero_grad()
        output = of(_batch())
        output.loss.backward()
        return output, [p.grad.clone() for p in of.parameters() if p.grad is not None]

    reference, unrepaired = gradient(plain)
    x_hat, z = reference.recon_x, reference.z
    term = latent_reconstruction(z, plain.encoder(x_hat).embedding, 3.0).item()
    seen = []
    for share in (0.0, 0.5, 1.0, 1.0):
        output, gradients = gradient(model)
        assert output.loss.item() == pytest.approx(reference.loss.item() + term, rel=1e-5)
        assert float(model.lr.components.weight) == pytest.approx(3.0 * share)
        seen.append(
            sum(float((a - b).abs().sum()) for a, b in zip(gradients, unrepaired, strict=True))
        )
    # linear in the weight
    assert seen[0] == 0.0
    assert seen[1] == pytest.approx(seen[2] / 2, rel=1e-4)
    assert seen[2] == pytest.approx(seen[3], rel=1e-6)


def test_the_state_dict_stays_pythaes_and_copies_can_be_made() -> None:
    model = LikePythae()
    names = set(model.state_dict())
    repair_pythae(model, LatentReconstruction(1.0))
    model(_batch()).loss.backward()
    assert set(model.state_dict()) == names
    twin = copy.deepcopy(model)  # pythae keeps its best model so
    assert twin.lr is not model.lr
    twin(_batch())


def test_a_flow_is_compared_before_the_flow() -> None:
    torch.manual_seed(0)
    model = LikePythae()
    model.flow = 100.0
    repair_pythae(model, LatentReconstruction(1.0))
    model(_batch())
    # The code that is read back is the Gaussian's; the flowed one would cost 100^2 per dimension.
    assert float(model.lr.components.ignored_cost[0].sum()) < 100.0
    torch.manual_seed(3)
    code = model.encoder(_batch()["data"])
    z, _ = LikePythae._sample_gauss(model, code.embedding, (0.5 * code.log_covariance).exp())
    torch.manual_seed(3)
    output = model(_batch())
    z_hat = model.encoder(output.recon_x).embedding
    assert torch.allclose(model.lr.components.cost[0], (z_hat - z).square().mean(0), rtol=1e-4)


def test_refusals() -> None:
    with pytest.raises(InputError, match=r"no pythae VAE[\s\S]*got: +Linear"):
        repair_pythae(nn.Linear(1, 1), LatentReconstruction(1.0))

    class Several(LikePythae):
        def forward(self, inputs: dict[str, Tensor], **_: Any) -> Output:
            output = super().forward(inputs)
            return Output(encoder_loss=output.loss, recon_x=output.recon_x, z=output.z)

    with pytest.raises(InputError, match=r"several losses[\s\S]*encoder_loss"):
        repair_pythae(Several(), LatentReconstruction(1.0))(_batch())


@needs_pythae
@pytest.mark.parametrize(
    "name",
    ["VAE", "BetaVAE", "BetaTCVAE", "DisentangledBetaVAE", "IWAE", "CIWAE", "MIWAE", "VAMP",
     "VAE_IAF", "VAE_LinNF", "HVAE", "SVAE", "INFOVAE_MMD", "FactorVAE", "Adversarial_AE"],
)  # fmt: skip
def test_any_of_pythaes_vaes(name: str) -> None:
    from pythae import models

    config = getattr(models, f"{name}Config", None) or getattr(models, f"{name}_Config")
    torch.manual_seed(0)
    model = getattr(models, name)(config(input_dim=(1, 8, 8), latent_dim=4))
    repair_pythae(model, LatentReconstruction(5.0)).train()
    output = model({"data": torch.rand(8, 1, 8, 8)}, epoch=1, dataset_size=8)
    loss = output["loss"] if "loss" in output else output["autoencoder_loss"]
    loss.backward()
    assert model.lr.components.cost[0].shape == (4,)
    assert all(
        p.grad is not None for p in [*model.encoder.parameters(), *model.decoder.parameters()]
    )


@needs_pythae
def test_trained_by_pythaes_own_trainer_and_loaded_without_us(tmp_path: Path) -> None:
    from pythae.models import VAE, AutoModel, VAEConfig
    from pythae.pipelines import TrainingPipeline
    from pythae.trainers import BaseTrainerConfig

    torch.manual_seed(0)
    images = torch.rand(96, 1, 8, 8)
    model = VAE(VAEConfig(input_dim=(1, 8, 8), latent_dim=4))
    repair_pythae(model, LatentReconstruction(5.0, warmup_steps=4))
    config = BaseTrainerConfig(
        output_dir=str(tmp_path), num_epochs=2, per_device_train_batch_size=32, no_cuda=True
    )
    TrainingPipeline(model=model, training_config=config)(train_data=images)
    assert float(model.lr.components.weight) == 5.0
    (folder,) = tmp_path.glob("*/final_model")
    loaded = AutoModel.load_from_folder(str(folder))
    assert type(loaded) is VAE
