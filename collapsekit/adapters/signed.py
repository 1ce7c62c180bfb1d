"""Scale heads without a positivity constraint: their size is taken, and that is told."""

from __future__ import annotations

from typing import Any

import torch

from collapsekit.adapters import as_adapter
from collapsekit.readers import as_tensor, pair


class AbsoluteScale:
    """An adapter whose signed second output is read as a scale of that size.

    A model that samples ``mean + s * noise`` has, with s negative, the posterior of |s|: noise is
    symmetric. The audit's report carries the share that was negative.
    """

    def __init__(self, adapter: Any) -> None:
        self._inner = adapter
        self._negative = self._seen = 0

    def __getattr__(self, name: str) -> Any:
        # decode, context, session, prior, ...: whatever the wrapped adapter offers, and no more.
        if name == "_inner":
            raise AttributeError(name)
        return getattr(self._inner, name)

    def encode(self, x: Any) -> Any:
        """Mean, and the size of the second output."""
        mean, second, _ = pair(self._inner.encode(x))
        signed = as_tensor(second)
        self._negative += int((signed < 0).sum())
        self._seen += signed.numel()
        return mean, torch.abs(signed)

    @property
    def notes(self) -> tuple[str, ...]:
        """The share that was negative, and the wrapped adapter's own notes."""
        share = self._negative / max(self._seen, 1)
        told = (
            f"the absolute value of the encoder's scale was taken: {share:.0%} of its values were "
            "negative, since its head has no positivity constraint"
        )
        return (told, *getattr(self._inner, "notes", ()))


def absolute_scale(model: Any, *, device: Any = None) -> AbsoluteScale:
    """Read a signed second output as a scale of that size, and say so in the report.

    Parameters
    ----------
    model : object
        As `collapsekit.audit`'s.
    device : optional
    """
    return AbsoluteScale(as_adapter(model, device=device)[0])
