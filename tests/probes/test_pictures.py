"""What the report draws from: traversals, the latent plane, the gallery."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

import collapsekit as ck
from tests import models

LINEAR = models.LinearVAE((30.0, 3.0, 0.5, 0.0))


@pytest.fixture(scope="module")
def audit() -> ck.Audit:
    return ck.audit(LINEAR, LINEAR.sample(300, 0), likelihood=("gaussian", 0.5))


def test_traversals_move_one_dimension_at_a_time(audit: ck.Audit) -> None:
    images, table = audit.arrays["traversals"], audit.tables["traversals"]
    assert table["dimension"].tolist() == [0, 1, 2, 3]  # by falling KL
    shifts = audit.tables["traversal_steps"]["shift"].to_numpy()
    assert (shifts[0], shifts[3], shifts[-1]) == (-2.5, 0.0, 2.5)
    expected = np.einsum("t,jk->jtk", shifts, np.diag(LINEAR.loadings.numpy()))
    np.testing.assert_allclose(images, expected, atol=1e-12)


def test_the_latent_plane_is_the_principal_one(audit: ck.Audit) -> None:
    table = audit.tables["latent_view"]
    mean = LINEAR.encode(LINEAR.sample(300, 0))[0].numpy()[table["sample"]]
    pca = PCA(2).fit(mean)
    assert table["share"].iloc[0] == pytest.approx(pca.explained_variance_ratio_.sum())
    expected = np.abs(pca.transform(mean))
    np.testing.assert_allclose(np.abs(table[["x", "y"]]), expected, atol=1e-9)


def test_the_gallery_holds_the_extremes(audit: ck.Audit) -> None:
    table = audit.tables["gallery"]
    kl = audit.samples["kl_total"].sort_values(kind="stable")
    weakest = table.loc[table["group"] == "weakest", "sample"]
    strongest = table.loc[table["group"] == "strongest", "sample"]
    assert sorted(weakest) == sorted(kl.index[:8])
    assert sorted(strongest) == sorted(kl.index[-8:])
    typical = table.loc[table["group"] == "typical", "kl_total"]
    assert typical.between(kl.quantile(0.3), kl.quantile(0.7)).all()
    assert table["sample"].is_unique
    inputs = audit.arrays["gallery_inputs"]
    np.testing.assert_array_equal(inputs, LINEAR.sample(300, 0).numpy()[table["sample"]])
    np.testing.assert_array_equal(audit.arrays["gallery_empty"], np.zeros(4))
