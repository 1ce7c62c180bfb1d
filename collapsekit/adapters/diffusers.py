"""diffusers' variational autoencoders: ``diffusers:DIR``, or an AutoencoderKL at hand.

The latents are audited as encode returns them. Pipelines multiply them by ``scaling_factor``; that
changes no KL of the model itself, so it is told and not applied.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from collapsekit.adapters.evaluated import Evaluated
from collapsekit.adapters.opening import existing, library, load_weights
from collapsekit.adapters.reading import Named
from collapsekit.errors import FileError, InputError, ModelError
from collapsekit.samples import Inputs


class Diffusers:
    """A model whose ``encode(x).latent_dist`` is a diagonal Gaussian; codes keep their map shape.

    Parameters
    ----------
    model : diffusers.ModelMixin
    device : optional
    notes : tuple of str
        What loading it took.
    """

    def __init__(self, model: Any, device: Any = None, notes: tuple[str, ...] = ()) -> None:
        self.module: Any = model
        self._held = Evaluated(model, device)
        self._notes = (*notes, *self._held.notes)
        self._low: float | None = None
        self.description = f"diffusers {self._held.description}"
        for name in ("scaling_factor", "shift_factor"):
            value = getattr(model.config, name, None)
            if value is not None:
                self._notes += (f"{name} {value:g} is applied by pipelines, not in this audit",)

    @property
    def notes(self) -> tuple[str, ...]:
        """Factors that were not applied, and the range of the data where it is not the usual."""
        if self._low is not None and self._low >= 0:
            return (
                *self._notes,
                "no value below 0 was seen in the first batch: diffusers' image models are trained "
                "on images in -1 to 1, 2 * x - 1 of images in 0 to 1",
            )
        return self._notes

    def session(self) -> AbstractContextManager[None]:
        """Evaluation mode and device for the time of the audit."""
        return self._held.session()

    def encode(self, x: Inputs) -> Named:
        """Mean and standard deviation of the latent distribution.

        Raises
        ------
        ModelError
            The model has latents and no distribution over them.
        """
        if self._low is None and isinstance(x, Tensor) and x.numel():
            self._low = float(x.min())
        answer = self._held.call(self.module.encode, self._held.moved(x))
        q = getattr(answer, "latent_dist", None)
        if q is None or not hasattr(q, "std"):
            raise ModelError(
                "this diffusers model has no posterior",
                got=f"{type(self.module).__name__}, whose encode returns "
                f"{', '.join(getattr(answer, 'keys', list)()) or type(answer).__name__}",
                expected="encode(x).latent_dist with mean and std, as AutoencoderKL has",
                remedy="audit a variational model: without a width there is no collapse to find",
            )
        return Named(q.mean, q.std)

    def decode(self, z: Tensor) -> Tensor:
        """The reconstruction of unscaled latents."""
        return self._held.call(self.module.decode, self._held.moved(z)).sample  # type: ignore[no-any-return]


def wrap(model: Any, *, device: Any = None) -> tuple[Diffusers, None]:
    """A diffusers model at hand.

    Raises
    ------
    InputError
        A pipeline, or a model that does not encode.
    """
    if not isinstance(model, nn.Module) or not callable(getattr(model, "encode", None)):
        inner = getattr(model, "vae", None)
        raise InputError(
            "this object of diffusers is no autoencoder",
            got=type(model).__name__,
            expected="an Autoencoder model",
            remedy="pass pipeline.vae" if inner is not None else "pass the autoencoder itself",
        )
    return Diffusers(model, device), None


def open_spec(rest: str, *, device: Any = None, trust_code: bool = False) -> tuple[Diffusers, None]:
    """Open a folder with config.json and weights, or a pipeline's folder, whose vae is taken.

    Nothing is downloaded, and no code of the folder is executed: weights are safetensors, or a .bin
    file that passes torch's weights-only reader.

    Raises
    ------
    FileError
        It is no such folder.
    InputError
        The class is none of diffusers'; the weights would execute code; it is not installed.
    """
    folder = existing(rest, "diffusers folder", folder=True)
    notes: tuple[str, ...] = ()
    if not (folder / "config.json").is_file() and (folder / "vae" / "config.json").is_file():
        folder = folder / "vae"
        notes = ("the vae of a pipeline's folder was taken",)
    try:
        name = json.loads((folder / "config.json").read_text("utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError) as error:
        raise FileError(
            f"{rest} is no diffusers folder",
            got=f"{type(error).__name__}: {error}",
            expected="config.json with _class_name, and weights beside it",
            remedy="save_pretrained writes such a folder",
        ) from error
    kind = getattr(library("diffusers", "diffusers"), str(name), None)
    if kind is None or not hasattr(kind, "from_pretrained"):
        raise InputError(
            f"diffusers has no class {name}",
            got=str(name),
            expected="one of the classes of the installed version",
            remedy="pip install -U diffusers; code in a model's folder is never run",
        )
    safe = any(folder.glob("*.safetensors"))
    if not safe:
        for path in sorted(folder.glob("*.bin")):
            notes = (*notes, *load_weights(path, trust_code)[1])
    model = kind.from_pretrained(
        str(folder),
        local_files_only=True,
        use_safetensors=safe,
        low_cpu_mem_usage=False,
        torch_dtype=torch.float32,
    )
    return Diffusers(model, device, notes), None
