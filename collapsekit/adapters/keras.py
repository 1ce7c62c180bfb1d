"""Keras 3, any backend: ``keras:ENC.keras,DEC.keras``, one file with both, or a model at hand."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor

from collapsekit.adapters.opening import existing, library, needs_trust, trusted
from collapsekit.adapters.reading import Reader
from collapsekit.adapters.torch_module import output_of
from collapsekit.errors import InputError
from collapsekit.samples import Inputs, map_tensors


class Keras:
    """An encoder and a decoder of Keras, called with ``training=False``.

    The posterior is found in the encoder's outputs by their names, which are those of the layers
    (z_mean, z_log_var), or else by their places.

    Parameters
    ----------
    encoder : callable
        A keras Model, or a method of one.
    decoder : callable, optional
    owner : keras.Model
        Whose random states are put back after a session.
    name : str
    notes : tuple of str
    """

    def __init__(
        self,
        encoder: Any,
        decoder: Any,
        owners: tuple[Any, ...],
        name: str,
        notes: tuple[str, ...] = (),
    ) -> None:
        self._owners, self._notes = owners, notes
        self._keras = _keras()
        call = self._called(encoder)
        names = list(getattr(encoder, "output_names", None) or ())

        def by_name(x: Any) -> Any:
            answer = call(x)
            if isinstance(answer, list | tuple) and len(answer) == len(names):
                return dict(zip(names, answer, strict=True))
            return answer

        self.reader = Reader({"the encoder's outputs": by_name, "the encoder's places": call})
        if decoder is not None:
            back = self._called(decoder)
            self.decode: Callable[[Any], Any] = lambda z: output_of(back(z))
        self.description = f"keras {name}, backend {self._keras.backend.backend()}"

    @property
    def notes(self) -> tuple[str, ...]:
        """How the posterior is read, and what loading it took."""
        return (*self._notes, *([self.reader.told] if self.reader.told else []))

    @contextmanager
    def session(self) -> Iterator[None]:
        """Seed generators and statistics, which are variables of a model, are put back after."""
        variables = {
            id(v): v
            for owner in self._owners
            for layer in owner._flatten_layers()
            for v in (
                *layer.non_trainable_variables,
                *(g.state for g in getattr(layer, "_seed_generators", ())),
            )
        }
        kept = {key: np.array(self._numpy(v)) for key, v in variables.items()}
        try:
            yield
        finally:
            for key, v in variables.items():
                if not np.array_equal(kept[key], self._numpy(v)):
                    v.assign(kept[key])

    def encode(self, x: Inputs) -> Any:
        """The posterior of a batch."""
        return self.reader(x)

    def _called(self, part: Any) -> Callable[[Any], Any]:
        ops = self._keras.ops

        def given(array: Any) -> Any:
            # A copy: backends alias, and an alias of the user's array could be written to.
            return ops.convert_to_tensor(
                np.array(array.cpu().numpy() if isinstance(array, Tensor) else array)
            )

        def call(x: Any) -> Any:
            fed = map_tensors(given, x) if not isinstance(x, np.ndarray) else given(x)
            model = isinstance(part, self._keras.layers.Layer)
            answer = part(fed, training=False) if model else part(fed)
            return self._keras.tree.map_structure(self._numpy, answer)

        return call

    def _numpy(self, tensor: Any) -> Any:
        array = np.asarray(self._keras.ops.convert_to_numpy(tensor))
        # NumPy has no bfloat16 that torch could read.
        return array.astype(np.float32) if array.dtype.name in ("bfloat16", "float16") else array


def _keras() -> Any:
    if "keras" not in sys.modules and not importlib.util.find_spec("tensorflow"):
        # Keras would look for tensorflow; torch is always here, and models do not depend on it.
        os.environ.setdefault("KERAS_BACKEND", "torch")
    return library("keras", "keras")


def wrap(model: Any, *, device: Any = None, notes: tuple[str, ...] = ()) -> tuple[Keras, None]:
    """A model with encoder and decoder, or encode and decode; any other model is an encoder."""
    name = type(model).__name__ if type(model).__name__ != "Functional" else str(model.name)
    for first, second in (("encoder", "decoder"), ("encode", "decode")):
        encoder = getattr(model, first, None)
        if callable(encoder):
            return Keras(encoder, getattr(model, second, None), (model,), name, notes), None
    return Keras(model, None, (model,), name, notes), None


def open_spec(rest: str, *, device: Any = None, trust_code: bool = False) -> tuple[Keras, None]:
    """Open ``[pkg.module,]ENC.keras[,DEC.keras]``.

    A module named first is imported: it registers the layers of one's own
    (``keras.saving.register_keras_serializable``).

    Raises
    ------
    FileError
        A file is missing.
    InputError
        A file holds pickled functions and is not trusted, or layers that are not registered; Keras
        is not installed.
    """
    parts = rest.split(",")
    files = [part for part in parts if part.endswith((".keras", ".h5", ".hdf5"))]
    if not 1 <= len(files) <= 2:
        raise InputError(
            f"cannot read the model spec 'keras:{rest}'",
            got=f"{len(files)} files",
            expected="keras:ENC.keras,DEC.keras or keras:VAE.keras",
            remedy="modules that register layers go first: keras:pkg.module,ENC.keras,DEC.keras",
        )
    paths = [existing(file, "Keras file") for file in files]
    keras = _keras()
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for part in parts:
        if part not in files:
            importlib.import_module(part)
    models, notes = [], []
    for path in paths:
        if path.suffix != ".keras" and not trust_code:
            raise needs_trust(path, "a legacy HDF5 model, which may hold marshalled functions")
        try:
            models.append(keras.saving.load_model(path, compile=False, safe_mode=True))
        except Exception as error:
            text = " ".join(str(error).split())
            if "safe_mode" not in text and "unsafe" not in text.lower():
                raise InputError(
                    f"{path.name} cannot be built",
                    got=f"{type(error).__name__}: {text[:300]}",
                    expected="layers of Keras, or registered ones",
                    remedy=f"name the module that registers them first: keras:pkg.module,{rest}",
                ) from error
            if not trust_code:
                raise needs_trust(path, "a Lambda layer: a marshalled function") from error
            models.append(keras.saving.load_model(path, compile=False, safe_mode=False))
            notes.append(trusted(path))
    if len(models) == 2:
        name = ", ".join(path.name for path in paths)
        return Keras(models[0], models[1], (models[0], models[1]), name, tuple(notes)), None
    return wrap(models[0], notes=tuple(notes))
