"""A pair of functions, or an encoder alone, as an adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from torch import Tensor, nn

from collapsekit.adapters.evaluated import Evaluated
from collapsekit.errors import ModelError
from collapsekit.samples import Inputs


class Functions:
    """(encode, decode) of any framework that reads torch tensors or NumPy arrays.

    Functions are called with torch tensors first; where that raises, with NumPy arrays, and what
    worked is kept. Codes go back to decode in the kind in which encode returned its means.

    Parameters
    ----------
    encode : callable
        From a batch to (mean, scale).
    decode : callable, optional
        From codes to outputs.
    """

    def __init__(
        self, encode: Callable[[Any], Any], decode: Callable[[Any], Any] | None = None
    ) -> None:
        self._encode = encode
        self._numpy: bool | None = None
        if decode is not None:
            self.decode = decode
        # Bound methods of a module, or modules themselves, are held in evaluation mode as a module
        # handed in whole would be: batch norm in training mode would change them under our hands.
        owners = (getattr(f, "__self__", f) for f in (encode, decode))
        self._modules = {id(m): Evaluated(m) for m in owners if isinstance(m, nn.Module)}
        self.notes = tuple(dict.fromkeys(n for held in self._modules.values() for n in held.notes))
        names = [getattr(f, "__name__", type(f).__name__) for f in (encode, decode) if f]
        self.description = "functions " + ", ".join(names)

    @contextmanager
    def session(self) -> Iterator[None]:
        """Evaluation mode for the modules behind the functions."""
        with ExitStack() as stack:
            for held in self._modules.values():
                stack.enter_context(held.session())
            yield

    def encode(self, x: Inputs) -> Any:
        """Call the encoder, in the array kind that it takes."""
        if self._numpy is not None:
            return self._encode(_numpy(x) if self._numpy else x)
        try:
            answer = self._encode(x)
            self._numpy = False
        except Exception as with_torch:
            try:
                answer = self._encode(_numpy(x))
            except Exception as with_numpy:
                raise ModelError(
                    "encode failed on torch tensors and on NumPy arrays",
                    got=f"{type(with_torch).__name__}: {with_torch}; with NumPy "
                    f"{type(with_numpy).__name__}: {with_numpy}",
                    expected="(mean, scale) of a batch",
                    remedy="try encode(data[:2]) by hand",
                ) from with_torch
            self._numpy = True
        return answer


def _numpy(x: Any) -> Any:
    if isinstance(x, Tensor):
        return x.cpu().numpy()
    if isinstance(x, dict):
        return {key: _numpy(value) for key, value in x.items()}
    if isinstance(x, tuple):
        return tuple(_numpy(value) for value in x)
    return np.asarray(x) if isinstance(x, list) else x
