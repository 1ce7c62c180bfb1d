"""JAX and Flax: the LR loss as a pure function inside jit and grad, the monitor fed with arrays.

    python examples/train_flax.py            10 seconds of CPU
    python examples/train_flax.py --quick    a few epochs, to see it run

Needs JAX, Flax and Optax: pip install "collapsekit[jax]".
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from sklearn.datasets import load_digits

import collapsekit as ck

LATENT, BATCH = 32, 128
BETA = 0.1  # the loss is 0.5 * SSE + BETA * KL
ADAM = optax.adam(1e-3)


class VAE(nn.Module):
    def setup(self) -> None:
        self.encoder = nn.Sequential(
            [nn.Dense(128), nn.relu, nn.Dense(64), nn.relu, nn.Dense(2 * LATENT)]
        )
        self.decoder = nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(128), nn.relu, nn.Dense(64)])

    def encode(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean, log_variance = jnp.split(self.encoder(x), 2, axis=1)
        return mean, jnp.exp(0.5 * log_variance)

    def decode(self, z: jax.Array) -> jax.Array:
        return self.decoder(z)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.decode(self.encode(x)[0])


MODEL = VAE()


def loss(weights: Any, x: jax.Array, key: jax.Array, alpha: jax.Array) -> jax.Array:
    draw, blur = jax.random.split(key)
    mean, scale = MODEL.apply(weights, x, method=VAE.encode)
    z = mean + scale * jax.random.normal(draw, scale.shape)
    x_hat = MODEL.apply(weights, z, method=VAE.decode)
    kl = 0.5 * (mean**2 + scale**2 - 1 - 2 * jnp.log(scale)).sum() / len(x)
    negative_elbo = 0.5 * ((x_hat - x) ** 2).sum() / len(x) + BETA * kl
    # The repair: encode the (slightly blurred) reconstruction, and ask for z back. No
    # stop_gradient on z.
    x_hat = x_hat + 0.1 * jax.random.normal(blur, x_hat.shape)
    z_hat = MODEL.apply(weights, x_hat, method=VAE.encode)[0]
    return negative_elbo + ck.remedies.latent_reconstruction(z, z_hat, alpha)


@jax.jit
def advance(weights: Any, state: Any, x: jax.Array, key: jax.Array, alpha: jax.Array) -> Any:
    updates, state = ADAM.update(jax.grad(loss)(weights, x, key, alpha), state)
    return optax.apply_updates(weights, updates), state


def train(x: np.ndarray, held_out: np.ndarray, epochs: int, alpha: float) -> dict[str, float]:
    key, order = jax.random.key(0), np.random.default_rng(0)
    weights = MODEL.init(key, x[:1])
    state = ADAM.init(weights)
    batches = len(x) // BATCH
    warmup = max(1, epochs * batches // 4)
    encode = jax.jit(partial(MODEL.apply, method=VAE.encode))
    decode = jax.jit(partial(MODEL.apply, method=VAE.decode))
    for step in range(epochs * batches):
        if step % batches == 0:
            rows = order.permutation(len(x))
        part = rows[step % batches * BATCH :][:BATCH]
        rising = jnp.float32(alpha * min(1.0, step / warmup))
        weights, state = advance(weights, state, x[part], jax.random.fold_in(key, step), rising)
    monitor = ck.monitors.CollapseMonitor(likelihood=("gaussian", BETA**0.5))
    for part in np.array_split(held_out, 4):
        monitor.update(*encode(weights, part), part)
    return monitor.compute(epochs * batches, decode=lambda z: decode(weights, z))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="3 epochs instead of 150")
    epochs = 3 if parser.parse_args().quick else 150
    digits = (load_digits().data / 16.0).astype(np.float32)
    digits = digits[np.random.default_rng(0).permutation(len(digits))]
    x, held_out = digits[:1437], digits[1437:]
    print(f"{'':8s} {'active':>7s} {'at 0.1':>7s} {'informative':>12s} {'rate':>6s}  (held out)")
    for name, alpha in (("vanilla", 0.0), ("LR", 3.0 * BETA)):
        told = train(x, held_out, epochs, alpha)
        print(
            f"{name:8s} {told['active_fraction']:7.2f} {told['active_fraction_0.1']:7.2f} "
            f"{told['informative_fraction']:12.2f} {told['rate']:6.1f}"
        )


if __name__ == "__main__":
    main()
