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
    """What an audit is handed: an encoder (mean, scale) and a decoder."""

    encode: Callable[[Tensor], Posterior]
    decode: Callable[[Tensor], Tensor]


Surgery = Callable[[VAE, Images], Model]


def intact(vae: VAE, images: Images) -> Model:
    """As trained."""
    return Model(vae.encode, vae.decode)


def gated(share: float, dims: slice = slice(None)) -> Surgery:
    """The palest `share` of the samples get the prior as their posterior, in these dimensions."""

    def operate(vae: VAE, images: Images) -> Model:
        bar = ink(images.audited).quantile(share)

        def encode(x: Tensor) -> Posterior:
            mean, scale = (a.clone() for a in vae.encode(x))
            pale = ink(x) < bar
            mean[:, dims] = mean[:, dims].masked_fill(pale[:, None], 0.0)
            scale[:, dims] = scale[:, dims].masked_fill(pale[:, None], 1.0)
            return mean, scale

        return Model(encode, vae.decode)

    return operate


def gated_bright(share: float) -> Surgery:
    """The brightest `share` of the samples get the prior as their posterior."""

    def operate(vae: VAE, images: Images) -> Model:
        bar = ink(images.audited).quantile(1 - share)

        def encode(x: Tensor) -> Posterior:
            mean, scale = vae.encode(x)
            bright = (ink(x) > bar)[:, None]
            return mean.masked_fill(bright, 0.0), scale.masked_fill(bright, 1.0)

        return Model(encode, vae.decode)

    return operate


def lagging(share: float) -> Surgery:
    """An encoder that has gone `share` of its way from the prior; the decoder is as trained."""

    def operate(vae: VAE, images: Images) -> Model:
        def encode(x: Tensor) -> Posterior:
            mean, scale = vae.encode(x)
            return share * mean, scale**share

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


def doubled(vae: VAE, images: Images) -> Model:
    """Every dimension becomes two of mean / sqrt 2; the decoder reads (a + b) / sqrt 2."""

    def encode(x: Tensor) -> Posterior:
        mean, scale = vae.encode(x)
        return torch.cat([mean, mean], dim=1) / math.sqrt(2), torch.cat([scale, scale], dim=1)

    def decode(z: Tensor) -> Tensor:
        first, second = z.chunk(2, dim=1)
        return vae.decode((first + second) / math.sqrt(2))

    return Model(encode, decode)


def repeated(times: int) -> Surgery:
    """Every dimension `times` over, turned by an orthogonal matrix: copies along no axis."""

    def operate(vae: VAE, images: Images) -> Model:
        dims = vae.encode(images.audited[:2])[0].shape[1]
        generator = torch.Generator().manual_seed(dims)
        turn, _ = torch.linalg.qr(torch.randn(dims * times, dims * times, generator=generator))

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

    def operate(vae: VAE, images: Images) -> Model:
        def encode(x: Tensor) -> Posterior:
            mean, own = vae.encode(x)
            more = mean.new_zeros(len(mean), count)
            return torch.cat([mean, more], dim=1), torch.cat([own, more + scale], dim=1)

        return Model(encode, lambda z: vae.decode(z[:, :-count]))

    return operate


def whispered(count: int) -> Surgery:
    """`count` more dimensions whose means are a faint trace of the image's dullest pixels.

    Their means have variance 0.08 at a posterior standard deviation of 0.96: active, 0.04 nat each.
    The decoder writes them back into those pixels, at an amplitude that nobody sees.
    """

    def operate(vae: VAE, images: Images) -> Model:
        flat = images.train.flatten(1)
        spread = flat.std(dim=0)
        dull = torch.where(spread > 0.02, spread, torch.inf).argsort()[:count]
        # Standardised and made uncorrelated: a trace of its own for every dimension.
        values = flat[:, dull]
        centre = values.mean(dim=0)
        whiten = torch.linalg.inv(torch.linalg.cholesky(torch.cov(values.T))).T
        gain, faint = math.sqrt(0.08), 0.02

        def encode(x: Tensor) -> Posterior:
            mean, own = vae.encode(x)
            trace = gain * ((x.flatten(1)[:, dull] - centre) @ whiten)
            width = torch.full_like(trace, 0.96)
            return torch.cat([mean, trace], dim=1), torch.cat([own, width], dim=1)

        def decode(z: Tensor) -> Tensor:
            x_hat = vae.decode(z[:, :-count]).clone()
            flat_hat = x_hat.flatten(1)
            flat_hat[:, dull] = flat_hat[:, dull] + faint * z[:, -count:].to(flat_hat.dtype)
            return flat_hat.view_as(x_hat)

        return Model(encode, decode)

    return operate
