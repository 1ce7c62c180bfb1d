"""What a model has to offer to be audited. Structural: nothing to inherit, nothing to register."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, runtime_checkable

from collapsekit.errors import Unavailable


@runtime_checkable
class Adapter(Protocol):
    """Two callables and whatever else the model can tell; only `encode` is required.

    Optional attributes, each of which widens the audit (`offers` asks for them):

    decode(z) -> array or torch Distribution
        The decoder. Called as ``decode(z, context)`` where `context` exists.
    prior
        (mean, scale); a torch distribution; any object with ``log_prob(z)`` and ``sample(shape)``
        (a flow, a VampPrior as MixtureSameFamily); or, where `context` exists, a function
        ``prior(context)`` that gives each row its own. N(0, I) otherwise; uniform for discrete
        codes and on the sphere.
    likelihood
        As the argument of `audit`; the argument wins.
    log_likelihood(x, z) -> [B]
        In nats, for decoders that see the input (teacher forcing); wins over `likelihood`.
    context(x) -> array [B, ...]
        The condition of a conditional model, one row a sample.
    target(x) -> array [B, ...]
        The part of `x` that decode reconstructs, where `x` is not one array.
    identity(x) -> array [B, ...]
        What makes a sample the same as another, where that is not all of `x`; raises `Unavailable`
        where nothing tells. Any other error is told, and no sample taken for a copy.
    as_input(reconstruction) -> x
        Turns a reconstruction (the decoder's mean in data space) into something that `encode`
        takes; ``as_input(reconstruction, context)`` where `context` exists.
    sample_posterior(x) -> array like the codes
        One draw a row by the model's own sampler, as its training draws; an audit checks it against
        the posterior that `encode` declares. Torch's and NumPy's generators are seeded before it
        is called. (``sample`` alone is what most models call generating data.)
    session() -> context manager
        Held open while the model is called: puts flags and devices right and restores them.
    description
        One line for the report.
    notes
        Sentences that the reader of the report must know.
    """

    def encode(self, x: Any, /) -> Any:
        """(mean, scale), an object with both, or a torch distribution; leading axis B.

        Families that are read as themselves: Normal, MultivariateNormal (of low rank, too),
        mixtures of diagonal Gaussians, von Mises-Fisher, Categorical, OneHotCategorical and
        Bernoulli (relaxed ones as their discrete counterparts); any other torch distribution by its
        own log_prob and draws.
        """
        ...


def offers(adapter: object, name: str) -> bool:
    """Whether the adapter has the optional piece `name`."""
    return getattr(adapter, name, None) is not None


def piece(adapter: object, name: str) -> Callable[..., Any]:
    """The optional callable `name` of the adapter.

    Raises
    ------
    Unavailable
        The adapter does not offer it.
    """
    found = getattr(adapter, name, None)
    if found is None:
        raise Unavailable(
            f"the model offers no {name}",
            expected=f"an adapter with {name}",
            remedy=f"hand in a model that has {name} to widen the audit",
        )
    return found  # type: ignore[no-any-return]


def session(adapter: object) -> AbstractContextManager[Any]:
    """The adapter's session, or one that does nothing."""
    opened = getattr(adapter, "session", None)
    return nullcontext() if opened is None else opened()
