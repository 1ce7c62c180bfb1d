"""Models changed by hand after training: what is wrong with them is known exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.zoo_parts.images import Images
from benchmarks.zoo_parts.training import VAE, ink

Posterior = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Model:
    """What an audit is handed: an encoder and a decoder.

    Attributes
    ----------
    encode : callable
        Images to means [N, D] and standard deviations [N, D], or lower factors of covariances
        [N, D, D].
    decode : callable
    straight : Model or None
        The same model before its code was turned.
    """

    encode: Callable[[Tensor], Posterior]
    decode: Callable[[Tensor], Tensor]
    straight: Model | None = None


Surgery = Callable[[VAE, Images], Model]
#: Which base of a set, what is changed of it, and what is done to the trained network.
Made = tuple[int, dict[str, object], Surgery]


def intact(vae: VAE, images: Images) -> Model:
    """As trained."""
    return Model(vae.encode, vae.decode)


def gated(share: float, dims: slice = slice(None)) -> Surgery:
    """The palest `share` of the samples get the prior as their posterior, in these dimensions."""
    return gated_by(ink, share, dims=dims)


def gated_bright(share: float) -> Surgery:
    """The brightest `share` of the samples get the prior as their posterior."""
    return gated_by(lambda x: -ink(x), share)


def contrast(x: Tensor) -> Tensor:
    """Standard deviation over the pixels [N]."""
    return x.flatten(1).std(dim=1)


def lean(x: Tensor) -> Tensor:
    """How much brighter the left half is than the right one [N]."""
    left, right = x.flatten(1, 2).chunk(2, dim=2)
    return left.mean(dim=(1, 2)) - right.mean(dim=(1, 2))


def gated_by(
    score: Callable[[Tensor], Tensor], share: float, way: float = 1.0, dims: slice = slice(None)
) -> Surgery:
    """The `share` of the samples of the lowest score go this part of the `way` to the prior."""

    def operate(vae: VAE, images: Images) -> Model:
        bar = score(images.audited).quantile(share)

        def encode(x: Tensor) -> Posterior:
            mean, scale = (a.clone() for a in vae.encode(x))
            low = (score(x) < bar)[:, None]
            near_mean, near_scale = (1 - way) * mean, scale ** (1 - way)
            mean[:, dims] = torch.where(low, near_mean, mean)[:, dims]
            scale[:, dims] = torch.where(low, near_scale, scale)[:, dims]
            return mean, scale

        return Model(encode, vae.decode)

    return operate


def lagging(share: float, dims: slice = slice(None)) -> Surgery:
    """An encoder that has gone `share` of its way from the prior; the decoder is as trained."""

    def operate(vae: VAE, images: Images) -> Model:
        def encode(x: Tensor) -> Posterior:
            mean, scale = (a.clone() for a in vae.encode(x))
            mean[:, dims], scale[:, dims] = share * mean[:, dims], scale[:, dims] ** share
            return mean, scale

        return Model(encode, vae.decode)

    return operate


def constant(mean: float, scale: float) -> Surgery:
    """One posterior for every sample, away from the prior."""

    def operate(vae: VAE, images: Images) -> Model:
        def encode(x: Tensor) -> Posterior:
            own, _ = vae.encode(x)
            sign = torch.where(torch.arange(own.shape[1]) % 2 == 0, 1.0, -1.0)
            return (mean * sign).expand_as(own), torch.full_like(own, scale)

        return Model(encode, vae.decode)

    return operate


def settled(mean: float, scale: float, trace: float) -> Surgery:
    """As `constant`, with a `trace` of the encoder's own means in it: almost one posterior."""

    def operate(vae: VAE, images: Images) -> Model:
        still = constant(mean, scale)(vae, images)

        def encode(x: Tensor) -> Posterior:
            centre, width = still.encode(x)
            return centre + trace * vae.encode(x)[0], width

        return Model(encode, vae.decode)

    return operate


def hushed(gain: float) -> Surgery:
    """An encoder at the prior, before a decoder that hears next to nothing of its code."""

    def operate(vae: VAE, images: Images) -> Model:
        return Model(lagging(0.0)(vae, images).encode, lambda z: vae.decode(gain * z))

    return operate


def moved(factor: float = 1.0, shift: float = 0.0) -> Surgery:
    """The same model in other units: codes scaled and shifted, undone by the decoder."""

    def operate(vae: VAE, images: Images) -> Model:
        def encode(x: Tensor) -> Posterior:
            mean, scale = vae.encode(x)
            return factor * mean + shift, factor * scale

        return Model(encode, lambda z: vae.decode((z - shift) / factor))

    return operate


def narrowed(factor: float) -> Surgery:
    """Posterior widths multiplied by `factor`."""

    def operate(vae: VAE, images: Images) -> Model:
        def encode(x: Tensor) -> Posterior:
            mean, scale = vae.encode(x)
            return mean, factor * scale

        return Model(encode, vae.decode)

    return operate


def muted(count: int) -> Surgery:
    """The encoder sets the first `count` dimensions to the prior; the decoder still reads them."""

    def operate(vae: VAE, images: Images) -> Model:
        def encode(x: Tensor) -> Posterior:
            mean, scale = (a.clone() for a in vae.encode(x))
            mean[:, :count], scale[:, :count] = 0.0, 1.0
            return mean, scale

        return Model(encode, vae.decode)

    return operate


def unset(gain: float) -> Surgery:
    """One more dimension, always at the prior, that the decoder adds to its first, `gain` times."""

    def operate(vae: VAE, images: Images) -> Model:
        def decode(z: Tensor) -> Tensor:
            first = z[:, :1] + gain * z[:, -1:]
            return vae.decode(torch.cat([first, z[:, 1:-1]], dim=1))

        return Model(added(1.0)(vae, images).encode, decode)

    return operate


def doubled(vae: VAE, images: Images) -> Model:
    """Every dimension becomes two of mean / sqrt 2; the decoder reads (a + b) / sqrt 2."""

    def encode(x: Tensor) -> Posterior:
        mean, scale = vae.encode(x)
        return torch.cat([mean, mean], dim=1) / math.sqrt(2), torch.cat([scale, scale], dim=1)

    def decode(z: Tensor) -> Tensor:
        first, second = z.chunk(2, dim=1)
        return vae.decode((first + second) / math.sqrt(2))

    return Model(encode, decode)


def copied(degrees: float) -> Surgery:
    """Every dimension becomes two, cos and sin of it: two copies that are not alike."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))

    def operate(vae: VAE, images: Images) -> Model:
        def encode(x: Tensor) -> Posterior:
            mean, scale = vae.encode(x)
            return torch.cat([cos * mean, sin * mean], dim=1), torch.cat([scale, scale], dim=1)

        def decode(z: Tensor) -> Tensor:
            first, second = z.chunk(2, dim=1)
            return vae.decode(cos * first + sin * second)

        return Model(encode, decode)

    return operate


def turned(operate: Surgery = intact) -> Surgery:
    """The same model with its code turned: posteriors of full covariance, no axis its own."""

    def turn(vae: VAE, images: Images) -> Model:
        straight = operate(vae, images)
        dims = straight.encode(images.audited[:2])[0].shape[1]
        axes = _orthogonal(dims, seed=100 + dims)

        def encode(x: Tensor) -> Posterior:
            mean, scale = straight.encode(x)
            covariance = (axes.T * scale.square().unsqueeze(1)) @ axes
            return mean @ axes, torch.linalg.cholesky(covariance)

        return Model(encode, lambda z: straight.decode(z @ axes.T.to(z.dtype)), straight)

    return turn


def _orthogonal(dims: int, *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(dims, dims, generator=generator))
    return turn


def repeated(times: int) -> Surgery:
    """Every dimension `times` over, turned by an orthogonal matrix: copies along no axis."""

    def operate(vae: VAE, images: Images) -> Model:
        dims = vae.encode(images.audited[:2])[0].shape[1]
        turn = _orthogonal(dims * times, seed=dims)

        def encode(x: Tensor) -> Posterior:
            mean, scale = vae.encode(x)
            spread = torch.cat([mean] * times, dim=1) / math.sqrt(times)
            # One width for all, so that the turned posterior stays diagonal.
            width = scale.square().mean(dim=1, keepdim=True).sqrt()
            return spread @ turn, width.expand_as(spread)

        def decode(z: Tensor) -> Tensor:
            parts = (z @ turn.T.to(z.dtype)).unflatten(1, (times, dims))
            return vae.decode(parts.sum(dim=1) / math.sqrt(times))

        return Model(encode, decode)

    return operate


def extended(count: int, scale: float) -> Surgery:
    """`count` more dimensions of mean 0 and one `scale`, which the decoder never sees."""
    return added(*[scale] * count)


def added(*scales: float) -> Surgery:
    """More dimensions of mean 0 and these scales, which the decoder never sees."""

    def operate(vae: VAE, images: Images) -> Model:
        def encode(x: Tensor) -> Posterior:
            mean, own = vae.encode(x)
            width = torch.tensor(scales, dtype=own.dtype).expand(len(own), -1)
            return torch.cat([mean, 0.0 * width], dim=1), torch.cat([own, width], dim=1)

        return Model(encode, lambda z: vae.decode(z[:, : -len(scales)]))

    return operate


def echoed(count: int) -> Surgery:
    """`count` more dimensions that faintly repeat bends of the code, and that nobody reads.

    Means of variance 0.06 at a posterior standard deviation of 0.95: active, 0.03 nat each.
    """

    def operate(vae: VAE, images: Images) -> Model:
        dims = vae.encode(images.audited[:2])[0].shape[1]
        mix = torch.randn(dims, count, generator=torch.Generator().manual_seed(count))

        def bent(mean: Tensor) -> Tensor:
            return (mean @ mix).tanh()

        own = bent(vae.encode(images.train)[0].detach())
        centre, gain = own.mean(dim=0), math.sqrt(0.06) / own.std(dim=0)

        def encode(x: Tensor) -> Posterior:
            mean, scale = vae.encode(x)
            more = gain * (bent(mean) - centre)
            width = torch.full_like(more, 0.95)
            return torch.cat([mean, more], dim=1), torch.cat([scale, width], dim=1)

        return Model(encode, lambda z: vae.decode(z[:, :-count]))

    return operate


def whispered(count: int, variance: float = 0.08, width: float = 0.96) -> Surgery:
    """`count` more dimensions whose means are a faint trace of the image's dullest pixels.

    Their means have this `variance` at this posterior standard deviation: active, 0.04 nat each.
    The decoder writes them back into those pixels, at an amplitude that nobody sees.
    """

    def operate(vae: VAE, images: Images) -> Model:
        flat = images.train.flatten(1)
        spread = flat.std(dim=0)
        dull = torch.where(spread > 0.02, spread, torch.inf).argsort()[:count]
        # Standardised and made uncorrelated: a trace of its own for every dimension.
        values = flat[:, dull]
        centre, cov = values.mean(dim=0), torch.cov(values.T).reshape(count, count)
        whiten = torch.linalg.inv(torch.linalg.cholesky(cov)).T
        gain, faint = math.sqrt(variance), 0.02

        def encode(x: Tensor) -> Posterior:
            mean, own = vae.encode(x)
            trace = gain * ((x.flatten(1)[:, dull] - centre) @ whiten)
            widths = torch.full_like(trace, width)
            return torch.cat([mean, trace], dim=1), torch.cat([own, widths], dim=1)

        def decode(z: Tensor) -> Tensor:
            x_hat = vae.decode(z[:, :-count]).clone()
            flat_hat = x_hat.flatten(1)
            flat_hat[:, dull] = flat_hat[:, dull] + faint * z[:, -count:].to(flat_hat.dtype)
            return flat_hat.view_as(x_hat)

        return Model(encode, decode)

    return operate
