"""diffusers: folders and models, against the library's own KL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import collapsekit as ck
from collapsekit.adapters import as_adapter
from collapsekit.doctor import inspect
from collapsekit.errors import FileError, InputError, ModelError
from collapsekit.testing import check_adapter

diffusers = pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install 'collapsekit[diffusers]'"
)
X = 2 * torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0)) - 1


def build() -> Any:
    torch.manual_seed(0)
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        sample_size=8,
    )


def test_laws() -> None:
    check_adapter(build(), X)


def test_the_audit_gives_the_librarys_own_kl(tmp_path: Path) -> None:
    model = build().eval()
    with torch.no_grad():
        q = model.encode(X).latent_dist
    model.save_pretrained(tmp_path / "m")
    for given in (model, f"diffusers:{tmp_path / 'm'}"):
        audit = ck.audit(given, X)
        np.testing.assert_allclose(audit.samples["kl_total"], q.kl().numpy(), rtol=1e-5)
        assert audit.provenance["latent_shape"] == [4, 4, 4]
        notes = audit.provenance["notes"]
        assert any("scaling_factor 0.18215 is applied by pipelines" in n for n in notes)
        assert not any("no value below 0" in n for n in notes)


def test_a_pipelines_folder_and_a_bin_file(tmp_path: Path) -> None:
    model = build()
    model.save_pretrained(tmp_path / "pipeline" / "vae", safe_serialization=False)
    adapter, _ = as_adapter(f"diffusers:{tmp_path / 'pipeline'}")
    assert "the vae of a pipeline's folder was taken" in adapter.notes
    with adapter.session(), torch.no_grad():
        told = adapter.encode(X)
    torch.testing.assert_close(told.mean, model.eval().encode(X).latent_dist.mean.detach())


class Code:
    def __reduce__(self) -> Any:
        return (print, ("executed",))


def test_a_pickle_with_code_is_not_executed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build().save_pretrained(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({"a": Code()}, tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(InputError, match="--trust-code"):
        as_adapter(f"diffusers:{tmp_path}")
    assert "executed" not in capsys.readouterr().out


def test_images_in_0_to_1_are_told() -> None:
    notes = ck.audit(build(), (X + 1) / 2).provenance["notes"]
    assert any("trained on images in -1 to 1" in note for note in notes)


def test_what_has_no_posterior() -> None:
    tiny = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1),
    )  # fmt: skip
    with pytest.raises(ModelError, match="no posterior") as caught:
        ck.audit(tiny, X)
    assert "AutoencoderTiny" in str(caught.value)


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no diffusers folder"):
        as_adapter(f"diffusers:{tmp_path}")
    (tmp_path / "config.json").write_text('{"_class_name": "NoSuchAutoencoder"}')
    with pytest.raises(InputError, match="no class NoSuchAutoencoder"):
        as_adapter(f"diffusers:{tmp_path}")


def test_the_doctor_draws_from_its_distribution() -> None:
    found = inspect(build(), X)
    assert not found.faults, found
