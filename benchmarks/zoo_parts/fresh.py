"""The fresh set: other images, networks, code sizes, weights, seeds and doses than the tuning set.

Fixed before any of them was audited.
"""

from __future__ import annotations

from benchmarks.zoo_parts import surgery
from benchmarks.zoo_parts.surgery import Made, intact
from benchmarks.zoo_parts.training import Recipe

#: Where every state begins: a small code that is used to the last dimension.
BASES = (
    Recipe("digits b", "deep", "bernoulli", 3, 0.05, 60, 0),
    Recipe("digits b", "upsampling", "gaussian", 2, 0.03, 40, 0),
    Recipe("fashion b", "deep", "gaussian", 4, 0.02, 20, 0),
    Recipe("fashion b", "upsampling", "bernoulli", 3, 0.4, 10, 0),
    Recipe("mnist", "deep", "gaussian", 6, 0.015, 20, 0),
    Recipe("mnist", "upsampling", "bernoulli", 3, 0.3, 10, 0),
    Recipe("omniglot b", "deep", "bernoulli", 2, 0.1, 20, 0),
)

_WIDE: dict[str, object] = {"latent": 14}
MADE: dict[str, list[Made]] = {
    "healthy": [
        (0, {}, intact),
        (1, {}, intact),
        (2, {}, intact),
        (5, {}, intact),
        (6, {}, intact),
        (4, {"latent": 2, "beta": 0.5}, intact),
    ],
    "partial": [
        (0, {**_WIDE, "beta": 0.8}, intact),
        (1, {"latent": 12, "beta": 0.2}, intact),
        (2, {"latent": 16, "beta": 0.6}, intact),
        (5, {**_WIDE, "beta": 1.5}, intact),
        (6, {}, surgery.extended(4, 1.0)),
    ],
    "local": [
        (0, {"method": "pale ignored"}, intact),
        (1, {}, surgery.gated_bright(0.2)),
        (2, {}, surgery.gated(0.55, slice(1, 4))),
        (3, {"method": "pale ignored"}, intact),
        (5, {}, surgery.gated_bright(0.45)),
    ],
    "total by decoder": [
        (0, {"beta": 300.0}, intact),
        (1, {"method": "deaf", "beta": 0.2}, intact),
        (4, {"beta": 80.0}, intact),
        (3, {"method": "deaf"}, intact),
        (6, {"beta": 100.0}, intact),
    ],
    "lagging encoder": [
        (0, {}, surgery.lagging(0.025)),
        (1, {}, surgery.lagging(0.03)),
        (2, {}, surgery.lagging(0.01)),
        (5, {}, surgery.lagging(0.0)),
        (6, {}, surgery.lagging(0.02)),
    ],
    "constant posterior": [
        (0, {}, surgery.constant(0.5, 0.8)),
        (1, {}, surgery.constant(2.5, 0.2)),
        (4, {"method": "deaf"}, surgery.constant(0.0, 1.6)),
        (3, {}, surgery.constant(0.0, 0.6)),
        (6, {"method": "deaf"}, surgery.constant(1.2, 1.0)),
    ],
    "fake units": [
        (4, {"latent": 10, "beta": 0.1, "method": "detached", "strength": 0.5}, intact),
        (2, {"latent": 10, "beta": 0.1, "method": "detached", "strength": 0.5}, intact),
        (4, {"latent": 8, "beta": 0.2, "method": "floored", "strength": 0.04}, intact),
        (1, {}, surgery.whispered(3)),
        (3, {}, surgery.whispered(6)),
    ],
    "variance-shrunk": [
        (0, {"latent": 14, "beta": 0.8, "method": "narrowed", "strength": 0.8}, intact),
        (4, {"latent": 18, "beta": 0.3, "method": "narrowed", "strength": 0.8}, intact),
        (1, {}, surgery.extended(1, 0.4)),
        (3, {}, surgery.extended(4, 0.55)),
        (6, {}, surgery.extended(2, 1.8)),
    ],
    "near-deterministic": [
        (0, {"beta": 1e-6}, intact),
        (1, {"method": "exact", "strength": 2e-3}, intact),
        (4, {"method": "exact", "strength": 5e-3}, surgery.narrowed(0.2)),
        (3, {"method": "exact", "strength": 1e-2}, surgery.moved(0.2)),
        (6, {"beta": 1e-6}, surgery.narrowed(0.05)),
    ],
    "prior mismatch": [
        (0, {}, surgery.moved(2.0)),
        (1, {}, surgery.moved(1.0, 1.5)),
        (2, {}, surgery.moved(0.25)),
        (5, {}, surgery.moved(0.5, -2.0)),
        (6, {"beta": 0.05}, surgery.moved(4.0, 3.0)),
    ],
    "phantom dimensions": [
        (0, {}, surgery.muted(2)),
        (1, {}, surgery.muted(1)),
        (2, {}, surgery.muted(1)),
        (3, {}, surgery.muted(2)),
        (4, {}, surgery.muted(4)),
    ],
    "duplicated axes": [
        (0, {}, surgery.repeated(2)),
        (1, {}, surgery.repeated(3)),
        (2, {"latent": 9, "method": "rank"}, intact),
        (5, {"latent": 7, "method": "rank"}, intact),
        (6, {}, surgery.doubled),
    ],
}
