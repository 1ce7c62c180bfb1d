"""scvi-tools: models and folders, against the library's own numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import collapsekit as ck
from collapsekit.adapters import as_adapter
from collapsekit.errors import FileError, InputError, ModelError
from collapsekit.testing import check_adapter

# Its dependencies warn on import, about themselves.
pytestmark = pytest.mark.filterwarnings("ignore")
REASON = "is not installed (it needs pandas < 3): pip install 'collapsekit[scvi]'"
pytest.importorskip("scvi", reason=f"scvi-tools {REASON}")
anndata = pytest.importorskip("anndata", reason=f"anndata {REASON}")


def build(kind: str = "SCVI", sparse: bool = False, **settings: Any) -> Any:
    import scipy.sparse
    import scvi

    counts = np.random.default_rng(0).poisson(2.0, (40, 12)).astype(np.float32)
    adata = anndata.AnnData(scipy.sparse.csr_matrix(counts) if sparse else counts)
    adata.obs["batch"] = ["a", "b"] * 20
    torch.manual_seed(0)
    model = getattr(scvi.model, kind)
    model.setup_anndata(adata, batch_key="batch")
    return model(adata, n_latent=3, n_hidden=8, **settings)


@pytest.mark.parametrize(
    "settings", [{}, {"kind": "LinearSCVI"}, {"sparse": True, "use_observed_lib_size": False}],
    ids=["plain", "linear", "latent library"],
)  # fmt: skip
def test_laws(settings: Any) -> None:
    adapter, samples = as_adapter(build(**settings))
    check_adapter(adapter, samples)


def test_the_audit_gives_the_librarys_own_posterior() -> None:
    model = build()
    audit = ck.audit(model)
    model.is_trained_ = True
    model.module.eval()  # a model that was never trained is still in training mode
    mean, variance = model.get_latent_representation(return_dist=True)
    expected = ck.probes.kl(mean, np.sqrt(variance)).sum(axis=1)
    np.testing.assert_allclose(audit.samples["kl_total"], expected, rtol=1e-4)
    assert {"swap_gap", "reconstruction_error"} <= set(audit.summary.index)
    assert "own" in str(audit.provenance["likelihood"])
    assert any("median library size" in note for note in audit.provenance["notes"])


def test_the_log_likelihood_is_the_librarys_own() -> None:
    model = build()
    adapter, samples = as_adapter(model)
    assert samples is not None
    x = samples.take(np.arange(40))
    with torch.no_grad(), adapter.session():
        z = adapter.encode(x).mean
        told = adapter.log_likelihood(x, z)
        outputs = model.module.inference(**model.module._get_inference_input(x))
        outputs["z"] = z
        p = model.module.generative(**model.module._get_generative_input(x, outputs))["px"]
    torch.testing.assert_close(told, p.log_prob(x["X"]).sum(dim=1))


def test_a_folder_needs_trust(tmp_path: Path) -> None:
    model = build()
    model.save(str(tmp_path / "m"), save_anndata=True)
    with pytest.raises(InputError, match="--trust-code"):
        as_adapter(f"scvi:{tmp_path / 'm'}")
    adapter, samples = as_adapter(f"scvi:{tmp_path / 'm'}", trust_code=True)
    a, b = ck.audit(adapter, samples), ck.audit(model)
    np.testing.assert_allclose(a.samples["kl_total"], b.samples["kl_total"], rtol=1e-6)
    assert any("--trust-code" in finding.message for finding in a.findings)
    (tmp_path / "m" / "adata.h5ad").unlink()
    with pytest.raises(FileError, match=r"no adata\.h5ad"):
        as_adapter(f"scvi:{tmp_path / 'm'}", trust_code=True)


def test_models_of_another_kind_are_refused() -> None:
    import scvi

    class PEAKVI(scvi.model.SCVI):  # type: ignore[misc,name-defined,unused-ignore]
        pass

    model = build()
    model.__class__ = PEAKVI
    with pytest.raises(ModelError, match="PEAKVI of scvi-tools is not audited"):
        as_adapter(model)
    with pytest.raises(InputError, match="no model"):
        as_adapter(build().module)
