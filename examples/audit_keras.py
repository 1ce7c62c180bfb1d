"""Audit a Keras 3 model: encoder and decoder, on whichever backend.

pip install 'collapsekit[keras]'
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np

import collapsekit as ck

keras.utils.set_random_seed(0)
x = np.random.default_rng(0).random((200, 16)).astype("float32")

inputs = keras.Input((16,))
hidden = keras.layers.Dense(8, activation="relu")(inputs)
# The layers' names are the outputs' names: z_log_var is read as a log-variance.
encoder = keras.Model(
    inputs,
    [
        keras.layers.Dense(3, name="z_mean")(hidden),
        keras.layers.Dense(3, name="z_log_var")(hidden),
    ],
)
codes = keras.Input((3,))
decoder = keras.Model(codes, keras.layers.Dense(16, activation="sigmoid")(codes))


class VAE(keras.Model):  # type: ignore[misc,unused-ignore]
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder


# From files: collapsekit audit keras:encoder.keras,decoder.keras --data x.npy
audit = ck.audit(VAE(), x, likelihood="bernoulli")
print(audit)
