"""pythae: ``pythae:DIR``, a folder that ``model.save`` wrote, or one of its models."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch import Tensor

from collapsekit.adapters.evaluated import Evaluated
from collapsekit.adapters.opening import existing, library, load_weights, needs_trust, trusted
from collapsekit.adapters.reading import Named, scale_of
from collapsekit.errors import FileError, ModelError
from collapsekit.samples import Inputs

#: What makes the encoder's Gaussian not the posterior, or N(0, I) not the prior.
_OTHERWISE = {
    "VAMP": "its prior is a learned mixture, so KL and information against N(0, I) are not its own",
    "PoincareVAE": "its codes live on a hyperbolic manifold",
    "SVAE": "its codes live on a sphere (von Mises-Fisher)",
    "VAE_LinNF": "a normalising flow follows the encoder's Gaussian",
    "VAE_IAF": "a normalising flow follows the encoder's Gaussian",
    "HVAE": "Hamiltonian steps follow the encoder's Gaussian",
    "RHVAE": "Hamiltonian steps follow the encoder's Gaussian",
}
#: Their loss is the negative ELBO's own error: 0.5 SSE for "mse", the cross-entropy for "bce".
_SCORED = (
    *("VAE", "BetaVAE", "DisentangledBetaVAE", "BetaTCVAE", "FactorVAE", "INFOVAE_MMD"),
    *("IWAE", "MIWAE", "PIWAE", "CIWAE"),
)


class Pythae:
    """A pythae model: encoder, decoder, and the likelihood that its configuration declares.

    Parameters
    ----------
    model : pythae.models.BaseAE
    device : optional
    notes : tuple of str
        What loading it took.

    Raises
    ------
    ModelError
        Its posterior is no diagonal Gaussian, or its prior is not N(0, I).
    """

    def __init__(self, model: Any, device: Any = None, notes: tuple[str, ...] = ()) -> None:
        name = str(getattr(model, "model_name", type(model).__name__))
        if name in _OTHERWISE:
            raise ModelError(
                f"the posterior of pythae's {name} is not audited as it stands",
                got=_OTHERWISE[name],
                expected="a diagonal Gaussian posterior with the prior N(0, I)",
                remedy="pass (encode, decode) of the Gaussian part, and prior=, if that is wanted",
            )
        self.module: Any = model
        self._held = Evaluated(model, device)
        self.description = f"pythae {name}: {self._held.description}"
        self.notes = (*notes, *self._held.notes)
        loss = getattr(model.model_config, "reconstruction_loss", None)
        if name in _SCORED and loss in ("mse", "bce"):
            self.likelihood: Any = ("gaussian", 1.0) if loss == "mse" else "bernoulli"
            self.notes += (f"the likelihood is the model's reconstruction_loss={loss!r}",)
        beta = getattr(model.model_config, "beta", None)
        if beta is not None:
            self.notes += (f"the model's configuration says beta={beta:g}",)

    def session(self) -> AbstractContextManager[None]:
        """Evaluation mode and device for the time of the audit."""
        return self._held.session()

    def encode(self, x: Inputs) -> Named:
        """Mean and standard deviation from embedding and log_covariance, which is a log-variance.

        Raises
        ------
        ModelError
            The encoder returns an embedding alone: an autoencoder, not a variational one.
        """
        answer = self._held.call(self.module.encoder, self._held.moved(x))
        if "log_covariance" not in answer:
            raise ModelError(
                "this pythae model has no posterior",
                got=f"{type(self.module).__name__}, whose encoder returns {', '.join(answer)}",
                expected="embedding and log_covariance",
                remedy="audit a variational model: without a width there is no collapse to find",
            )
        return Named(answer["embedding"], scale_of(answer["log_covariance"], "logvar"))

    def decode(self, z: Tensor) -> Tensor:
        """The reconstruction."""
        answer = self._held.call(self.module.decoder, self._held.moved(z))
        return answer["reconstruction"]  # type: ignore[no-any-return]


def wrap(model: Any, *, device: Any = None) -> tuple[Pythae, None]:
    """A pythae model at hand."""
    return Pythae(model, device), None


def open_spec(rest: str, *, device: Any = None, trust_code: bool = False) -> tuple[Pythae, None]:
    """Open a folder with model_config.json and model.pt.

    Raises
    ------
    InputError
        The folder holds pickled networks, or weights with pickled objects, and is not trusted;
        pythae is not installed.
    FileError
        It is no such folder.
    """
    folder = existing(rest, "pythae folder", folder=True)
    for name in ("model_config.json", "model.pt"):
        if not (folder / name).is_file():
            raise FileError(
                f"{rest} is no pythae folder",
                got=f"no {name} in it",
                expected="model_config.json and model.pt, as model.save writes them",
                remedy="training writes them to .../final_model",
            )
    pickles = sorted(path.name for path in folder.glob("*.pkl"))
    if pickles and not trust_code:
        raise needs_trust(folder, f"{', '.join(pickles)}: pickled networks")
    # Read once by ourselves: the library loads with whatever torch's default is.
    _, notes = load_weights(folder / "model.pt", trust_code)
    library("pythae", "pythae")
    model = _load(folder)
    if pickles:
        notes = (*notes, trusted(folder))
    return Pythae(model, device, notes), None


def _load(folder: Path) -> Any:
    models = library("pythae.models", "pythae")
    # It talks on import and on loading; an audit's standard output is the result's.
    level = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        return models.AutoModel.load_from_folder(str(folder))
    finally:
        logging.disable(level)
