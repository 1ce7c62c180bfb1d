"""pythae: folders and models, against the library's own numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import collapsekit as ck
from collapsekit.adapters import as_adapter
from collapsekit.adapters.pythae import Pythae
from collapsekit.doctor import inspect
from collapsekit.errors import FileError, InputError, ModelError
from collapsekit.testing import check_adapter

models = pytest.importorskip(
    "pythae.models", reason="pythae is not installed: pip install 'collapsekit[pythae]'"
)
X = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def build(name: str = "VAE", **settings: Any) -> Any:
    torch.manual_seed(0)
    kind = getattr(models, f"{name}Config", None) or getattr(models, f"{name}_Config")
    config = kind(input_dim=(1, 4, 4), latent_dim=3, **settings)
    return getattr(models, name)(config)


def test_laws() -> None:
    check_adapter(build(), X)


@pytest.mark.parametrize("loss", ["bce", "mse"])
def test_the_audit_gives_the_librarys_own_elbo_terms(loss: str) -> None:
    model = build(reconstruction_loss=loss)
    audit = ck.audit(model, X)
    model.eval()
    with torch.no_grad():
        out = model({"data": X})
        encoded = model.encoder(X)
    # Its reg_loss is the mean KL, in nats.
    assert audit.number("rate").value == pytest.approx(float(out.reg_loss), rel=1e-5)
    assert ("gaussian" if loss == "mse" else "bernoulli") in str(
        audit.provenance["likelihood"]
    ).lower()
    # A decoder of the mean: the mean of the posterior reaches it in the type it was trained with.
    adapter = as_adapter(model)[0]
    torch.testing.assert_close(
        adapter.decode(encoded.embedding.double()).detach(),
        model.decoder(encoded.embedding).reconstruction.detach(),
    )


def test_a_folder_gives_the_same_bits(tmp_path: Path) -> None:
    model = build("BetaVAE", beta=4.0)
    model.save(str(tmp_path / "m"))
    a, b = ck.audit(model, X), ck.audit(f"pythae:{tmp_path / 'm'}", X)
    np.testing.assert_array_equal(a.samples["kl_total"], b.samples["kl_total"])
    assert "the model's configuration says beta=4" in b.provenance["notes"]


@pytest.mark.parametrize("name", ["AE", "VQVAE", "WAE_MMD"])
def test_what_has_no_width_is_no_posterior(name: str) -> None:
    with pytest.raises(ModelError, match="no posterior"):
        ck.audit(build(name), X)


@pytest.mark.parametrize("name, text", [("VAMP", "learned mixture"), ("PoincareVAE", "hyperbolic"),
                                        ("VAE_IAF", "flow"), ("HVAE", "Hamiltonian")])  # fmt: skip
def test_what_is_not_gaussian_is_refused_with_its_reason(name: str, text: str) -> None:
    with pytest.raises(ModelError, match="not audited as it stands") as caught:
        Pythae(build(name))
    assert text in str(caught.value)


def test_pickled_networks_need_trust(tmp_path: Path) -> None:
    from pythae.models.nn import BaseEncoder

    class Own(BaseEncoder):  # type: ignore[misc,unused-ignore]
        def __init__(self, config: Any) -> None:
            BaseEncoder.__init__(self)
            self.linear = nn.Linear(16, 6)

        def forward(self, x: torch.Tensor) -> Any:
            from pythae.models.base.base_utils import ModelOutput

            mean, logvar = self.linear(x.flatten(1)).chunk(2, dim=1)
            return ModelOutput(embedding=mean, log_covariance=logvar)

    config = models.VAEConfig(input_dim=(1, 4, 4), latent_dim=3)
    model = models.VAE(config, encoder=Own(config))
    check_adapter(model, X)
    model.save(str(tmp_path / "m"))
    with pytest.raises(InputError, match="--trust-code"):
        as_adapter(f"pythae:{tmp_path / 'm'}")
    adapter, _ = as_adapter(f"pythae:{tmp_path / 'm'}", trust_code=True)
    assert "code in m was executed (--trust-code)" in adapter.notes
    np.testing.assert_array_equal(
        ck.audit(adapter, X).samples["kl_total"], ck.audit(model, X).samples["kl_total"]
    )


def test_what_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no pythae folder at"):
        as_adapter("pythae:nowhere")
    with pytest.raises(FileError, match="no model_config"):
        as_adapter(f"pythae:{tmp_path}")


def test_the_doctor_reads_it() -> None:
    found = inspect(build(), X)
    assert not found.faults
    assert "named by the model" in str(found)
