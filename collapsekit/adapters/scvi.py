"""scvi-tools: ``scvi:DIR``, a folder that ``model.save(DIR, save_anndata=True)`` wrote, or a model.

The model brings its own data, cell by cell, with batches and covariates. Errors are the model's own
log-likelihood of the counts, at each cell's own library size.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collapsekit.adapters.evaluated import Evaluated
from collapsekit.adapters.opening import existing, library, needs_trust, trusted
from collapsekit.adapters.reading import Named
from collapsekit.errors import FileError, InputError, ModelError
from collapsekit.samples import Batch, Inputs

#: Models whose code is z ~ Normal(0, 1) with a diagonal Gaussian posterior qz.
_KNOWN = ("SCVI", "LinearSCVI")
_LOOK = 1024  # cells whose median library size stands for all


class ScviSamples:
    """Cells of an AnnData in the form that a model's module takes; read when they are needed.

    Parameters
    ----------
    model : scvi.model.SCVI
    adata : AnnData, optional
        The model's own by default; another one is set up as the model's was.
    labels : array [N], optional
    """

    random_access = True
    notes: tuple[str, ...] = ()

    def __init__(self, model: Any, adata: Any = None, labels: Any = None) -> None:
        adata = model.adata if adata is None else model._validate_anndata(adata)
        if adata is None:
            raise InputError(
                "the model has no cells of its own",
                got="a model without adata",
                expected="an AnnData",
                remedy="ScviSamples(model, adata), or model.save(DIR, save_anndata=True)",
            )
        manager = model.get_anndata_manager(adata, required=True)
        self._cells = manager.create_torch_dataset()
        self._labels = None if labels is None else np.asarray(labels)
        self.size = len(self._cells)
        self.description = f"AnnData [{adata.n_obs}, {adata.n_vars}]"
        if self._labels is not None and len(self._labels) != self.size:
            raise InputError(
                "labels have another length than the data",
                got=f"{len(self._labels)} labels",
                expected=f"{self.size}",
                remedy="pass one label a cell, in the order of the AnnData",
            )

    def take(self, index: np.ndarray) -> dict[str, Tensor]:
        """Cells with these numbers.

        Raises
        ------
        InputError
            A number outside 0 .. N - 1.
        """
        index = np.asarray(index)
        if len(index) and not (index.min() >= 0 and index.max() < self.size):
            raise InputError(
                "there is no sample of that number",
                got=f"{index.min()} to {index.max()}",
                expected=f"0 to {self.size - 1}",
                remedy="count cells from 0",
            )
        found = self._cells[index]
        return {key: torch.from_numpy(np.array(value)) for key, value in found.items()}

    def batches(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Cells start .. stop - 1, in order, `size` at a time."""
        end = self.size if stop is None else min(stop, self.size)
        for first in range(start, end, size):
            index = np.arange(first, min(first + size, end))
            labels = None if self._labels is None else self._labels[index]
            yield Batch(index, self.take(index), labels)


class Scvi:
    """A model of scvi-tools: posterior qz, likelihood px, conditions from batch and covariates.

    Parameters
    ----------
    model : scvi.model.SCVI
    samples : ScviSamples
        For the library size at which codes are decoded.
    device : optional
    notes : tuple of str

    Raises
    ------
    ModelError
        A model whose latent variables are of another kind.
    """

    def __init__(
        self, model: Any, samples: ScviSamples, device: Any = None, notes: tuple[str, ...] = ()
    ) -> None:
        name = _known(model)
        self.module = model.module
        self._held = Evaluated(model.module, device)
        self.description = f"scvi-tools {name}: {self._held.description}"
        first = samples.take(np.arange(min(_LOOK, samples.size)))
        self._example = {key: value[:1] for key, value in first.items()}
        counts = first["X"].sum(dim=1)
        self._library = torch.log(counts.median().clamp(min=1.0))
        # What the decoder is conditioned on beside the code; labels only where they matter to it.
        self._conditions = [
            key
            for key in self._example
            if key in ("batch", "extra_categorical_covs", "extra_continuous_covs", "size_factor")
            or (key == "labels" and self.module.dispersion == "gene-label")
        ]
        self.notes = (
            *notes,
            *self._held.notes,
            f"codes alone are decoded at the median library size, {counts.median():.0f} counts; "
            "errors use each cell's own",
        )
        if not getattr(model, "is_trained_", True):
            self.notes += ("scvi-tools says that this model is not trained",)

    def session(self) -> AbstractContextManager[None]:
        """Evaluation mode and device for the time of the audit."""
        return self._held.session()

    def _inference(self, x: Any) -> Any:
        tensors = self._held.moved(x)
        inputs = self.module._get_inference_input(tensors)
        return self._held.call(lambda: self.module.inference(**inputs))

    def encode(self, x: Inputs) -> Named:
        """The posterior qz of each cell."""
        q = self._inference(x)["qz"]
        return Named(q.loc, q.scale)

    def target(self, x: Mapping[str, Tensor]) -> Tensor:
        """The counts."""
        return x["X"]

    def context(self, x: Mapping[str, Tensor]) -> Tensor:
        """Batch and covariates, a row a cell."""
        parts = [x[key].to(torch.float64).reshape(len(x["X"]), -1) for key in self._conditions]
        return torch.cat(parts, dim=1)

    def _tensors(self, counts: Tensor, context: Tensor) -> dict[str, Tensor]:
        rows, found, at = len(counts), {"X": counts}, 0
        for key, example in self._example.items():
            if key in self._conditions:
                width = example[0].numel()
                value = context[:, at : at + width].reshape(rows, *example.shape[1:])
                found[key], at = value.to(example.dtype), at + width
            elif key != "X":
                found[key] = torch.zeros(rows, *example.shape[1:], dtype=example.dtype)
        return found

    def as_input(self, counts: Tensor, context: Tensor) -> dict[str, Tensor]:
        """Cells with these expected counts, of the same batches."""
        # A perturbed reconstruction may fall below 0, where no count is and no logarithm either.
        return self._tensors(
            counts.to(self._example["X"].dtype).clamp(min=0.0).cpu(), context.cpu()
        )

    def _generative(self, tensors: Any, z: Tensor, library_size: Tensor) -> Any:
        moved = self._held.moved(tensors)
        sizes = self._held.moved(library_size)
        outputs = {"z": self._held.moved(z), "library": sizes, "qz": None, "ql": None}
        inputs = self.module._get_generative_input(moved, outputs)
        return self._held.call(lambda: self.module.generative(**inputs))

    def decode(self, z: Tensor, context: Tensor) -> torch.distributions.Distribution:
        """The distribution of the counts, at the median library size."""
        empty = torch.zeros(len(z), *self._example["X"].shape[1:])
        size = self._library.expand(len(z), 1).to(torch.float32)
        return self._generative(self._tensors(empty, context), z, size)["px"]  # type: ignore[no-any-return]

    def log_likelihood(self, x: Any, z: Tensor) -> Tensor:
        """ln p(x | z) of the counts, at each cell's own library size, in nats."""
        found = self._inference(x)
        # Where the library size is latent, its posterior's location, so that nothing is drawn.
        size = found["library"] if found["ql"] is None else found["ql"].loc
        p = self._generative(x, z, size)["px"]
        value: Tensor = p.log_prob(self._held.moved(x["X"]))
        return value.sum(dim=1)


def _known(model: Any) -> str:
    name = type(model).__name__
    if name not in _KNOWN:
        raise ModelError(
            f"{name} of scvi-tools is not audited as it stands",
            got="latent variables, or a prior, of another kind",
            expected=" or ".join(_KNOWN),
            remedy="pass (encode, decode) of the part to audit, and prior= where it is not N(0, I)",
        )
    return name


def wrap(model: Any, *, device: Any = None) -> tuple[Scvi, ScviSamples]:
    """A model at hand, and its cells.

    Raises
    ------
    InputError
        A bare module, without its model.
    ModelError
        A model whose latent variables are of another kind.
    """
    if not hasattr(model, "module") or not hasattr(model, "adata"):
        raise InputError(
            "this object of scvi-tools is no model",
            got=type(model).__name__,
            expected="scvi.model.SCVI",
            remedy="pass the model, not its module",
        )
    _known(model)
    samples = ScviSamples(model)
    return Scvi(model, samples, device), samples


def open_spec(
    rest: str, *, device: Any = None, trust_code: bool = False
) -> tuple[Scvi, ScviSamples]:
    """Open a folder with model.pt and adata.h5ad.

    Raises
    ------
    InputError
        No trust was given: scvi-tools keeps its settings as pickled objects, always.
    FileError
        It is no such folder.
    """
    folder = existing(rest, "scvi-tools folder", folder=True)
    for name in ("model.pt", "adata.h5ad"):
        if not (folder / name).is_file():
            raise FileError(
                f"{rest} is no scvi-tools folder with its data",
                got=f"no {name} in it",
                expected="model.pt and adata.h5ad",
                remedy="model.save(DIR, save_anndata=True)",
            )
    if not trust_code:
        raise needs_trust(folder / "model.pt", "scvi-tools keeps its settings as pickled objects")
    models = library("scvi.model", "scvi")
    level = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        held = torch.load(folder / "model.pt", map_location="cpu", weights_only=False)
        name = str(held["attr_dict"]["registry_"]["model_name"])
        kind: Callable[..., Any] | None = getattr(models, name, None)
        if kind is None:
            raise InputError(
                f"scvi-tools has no model {name}",
                got=name,
                expected="scvi.model.SCVI",
                remedy="install the version of scvi-tools that saved the model",
            )
        model = kind.load(str(folder), accelerator="cpu")  # type: ignore[attr-defined]
    finally:
        logging.disable(level)
    samples = ScviSamples(model)
    return Scvi(model, samples, device, (trusted(folder),)), samples
