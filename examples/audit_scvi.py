"""Audit an scvi-tools model: it brings its own cells.

pip install 'collapsekit[scvi]'
"""

from __future__ import annotations

import anndata
import numpy as np
import scvi

import collapsekit as ck

# Stands for your trained model: two batches of cells, 20 genes, no training at all.
rng = np.random.default_rng(0)
adata = anndata.AnnData(rng.poisson(2.0, (200, 20)).astype("float32"))
adata.obs["batch"] = ["a", "b"] * 100
scvi.settings.seed = 0
scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
model = scvi.model.SCVI(adata, n_latent=3, n_hidden=8)

# Swapping codes between cells stays within a batch, since the decoder is told the batch. Saved
# models need trust, for scvi-tools pickles their settings:
# collapsekit audit scvi:FOLDER --trust-code
audit = ck.audit(model)
print(audit)
print("\n".join(audit.provenance["notes"]))
