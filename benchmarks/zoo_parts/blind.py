"""The blind set: images, networks, seeds and doses that no other set has.

Fixed, and its labels checked in plain torch, before any of it was audited.
"""

from __future__ import annotations

from benchmarks.zoo_parts import surgery
from benchmarks.zoo_parts.surgery import Made, intact
from benchmarks.zoo_parts.training import Recipe

#: Where every state begins: a small code that is used to the last dimension.
BASES = (
    Recipe("digits d", "skipping", "bernoulli", 4, 0.12, 50, 0),
    Recipe("digits d", "patches", "learned", 3, 1.0, 40, 0),
    Recipe("fashion d", "patches", "gaussian", 4, 0.06, 12, 0),
    Recipe("fashion d", "shallow", "bernoulli", 3, 0.6, 15, 0),
    Recipe("mnist d", "skipping", "gaussian", 5, 0.02, 18, 0),
    Recipe("mnist d", "shallow", "bernoulli", 4, 0.2, 20, 0),
    Recipe("omniglot d", "skipping", "bernoulli", 3, 0.15, 20, 0),
    Recipe("blobs", "shallow", "gaussian", 3, 0.006, 50, 0),
    Recipe("blobs", "skipping", "learned", 4, 1.0, 40, 0),
)

MADE: dict[str, list[Made]] = {
    "healthy": [
        (0, {}, intact),
        (2, {"latent": 2, "beta": 0.2}, intact),
        (4, {"latent": 3, "beta": 0.05}, surgery.turned()),
        (5, {"latent": 1, "beta": 0.5}, intact),
        (6, {}, intact),
        (8, {"method": "full"}, intact),
    ],
    "partial": [
        (0, {"latent": 15, "beta": 0.9}, intact),
        (1, {"latent": 12}, intact),
        (4, {"latent": 16, "beta": 0.2}, intact),
        (3, {}, surgery.extended(2, 1.0)),
        (7, {}, surgery.turned(surgery.extended(2, 1.0))),
    ],
    "local": [
        (5, {}, surgery.gated_by(surgery.contrast, 0.6, 0.95)),
        (3, {}, surgery.turned(surgery.gated(0.4))),
        (2, {}, surgery.gated_bright(0.3)),
        (4, {"method": "pale halved"}, intact),
        (7, {}, surgery.gated_by(surgery.lean, 0.25, 0.98, slice(0, 2))),
    ],
    "total by decoder": [
        (0, {"method": "deaf", "beta": 0.5}, intact),
        (1, {}, surgery.hushed(0.004)),
        (2, {"beta": 60.0}, intact),
        (5, {"beta": 40.0}, intact),
        (8, {"method": "deaf"}, intact),
    ],
    "lagging encoder": [
        (0, {}, surgery.lagging(0.02)),
        (1, {}, surgery.lagging(0.0)),
        (3, {}, surgery.lagging(0.035)),
        (4, {}, surgery.turned(surgery.lagging(0.015))),
        (6, {"latent": 2}, surgery.lagging(0.05)),
    ],
    "constant posterior": [
        (0, {}, surgery.settled(1.1, 0.45, 0.003)),
        (2, {}, surgery.constant(0.9, 0.6)),
        (5, {"method": "deaf"}, surgery.constant(0.4, 1.7)),
        (7, {}, surgery.constant(2.0, 0.9)),
    ],
    "fake units": [
        (5, {"latent": 12, "beta": 1.0, "method": "floored", "strength": 0.06}, intact),
        (2, {}, surgery.echoed(3)),
        (3, {}, surgery.whispered(4, 0.07, 0.95)),
        (4, {"latent": 12, "beta": 0.15, "method": "detached", "strength": 0.7}, intact),
        (8, {}, surgery.echoed(4)),
    ],
    "variance-shrunk": [
        (0, {"latent": 16, "beta": 1.8, "method": "narrowed", "strength": 0.75}, intact),
        (1, {}, surgery.added(0.4)),
        (2, {}, surgery.added(0.5, 1.9)),
        (5, {}, surgery.added(0.6, 0.45, 0.35)),
        (8, {}, surgery.added(1.75, 1.75)),
    ],
    "near-deterministic": [
        (0, {"method": "exact", "strength": 2e-3}, intact),
        (1, {"beta": 1e-6}, intact),
        (2, {"method": "exact", "strength": 8e-3}, surgery.narrowed(0.25)),
        (5, {"beta": 1e-6}, surgery.narrowed(0.2)),
        (7, {"method": "exact", "strength": 3e-3}, intact),
    ],
    "prior mismatch": [
        (0, {}, surgery.moved(1.7)),
        (1, {}, surgery.moved(1.0, -1.2)),
        (6, {}, surgery.moved(0.4, 0.6)),
        (4, {}, surgery.moved(2.6)),
        (7, {}, surgery.moved(0.6, 1.6)),
    ],
    "phantom dimensions": [
        (0, {}, surgery.muted(1)),
        (2, {}, surgery.muted(2)),
        (3, {}, surgery.muted(1)),
        (4, {}, surgery.muted(2)),
        (8, {}, surgery.unset(0.8)),
    ],
    "duplicated axes": [
        (0, {}, surgery.copied(38.0)),
        (1, {}, surgery.repeated(2)),
        (4, {"latent": 7, "method": "rank"}, intact),
        (5, {"latent": 6, "method": "rank"}, intact),
        (7, {}, surgery.doubled),
    ],
}
