"""Audit a Flax model: a linen module and its variables.

pip install 'collapsekit[jax]'
"""

from __future__ import annotations

import flax.linen as nn
import jax
import numpy as np

import collapsekit as ck


class VAE(nn.Module):
    def setup(self) -> None:
        self.heads, self.back = nn.Dense(6), nn.Dense(16)

    def encode(self, x: jax.Array) -> dict[str, jax.Array]:
        mean, logvar = jax.numpy.split(self.heads(x), 2, axis=-1)
        return {"mean": mean, "logvar": logvar}  # named, so nothing has to be declared

    def decode(self, z: jax.Array) -> jax.Array:
        return nn.sigmoid(self.back(z))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.decode(self.encode(x)["mean"])


x = np.random.default_rng(0).random((200, 16)).astype(np.float32)
model = VAE()
variables = model.init(jax.random.key(0), x[:1])

# Parameters are separate from a linen module; `bind` puts them together. nnx modules go in as they
# are. On the command line: collapsekit audit flax:my_models:VAE,variables.msgpack --data x.npy
audit = ck.audit(model.bind(variables), x, likelihood="bernoulli")
print(audit)
