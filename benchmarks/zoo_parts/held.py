"""The held set: images, networks, likelihoods, seeds and doses that neither other set has.

Fixed, and its labels checked in plain torch, before any of it was audited.
"""

from __future__ import annotations

from benchmarks.zoo_parts import surgery
from benchmarks.zoo_parts.surgery import Made, intact
from benchmarks.zoo_parts.training import Recipe

#: Where every state begins: a small code that is used to the last dimension.
BASES = (
    Recipe("digits c", "residual", "learned", 3, 1.0, 50, 0),
    Recipe("digits c", "tanh", "bernoulli", 4, 0.15, 60, 0),
    Recipe("fashion c", "strided", "gaussian", 5, 0.05, 12, 0),
    Recipe("fashion c", "residual", "bernoulli", 3, 0.5, 15, 0),
    Recipe("mnist c", "strided", "bernoulli", 6, 0.3, 12, 0),
    Recipe("mnist c", "tanh", "gaussian", 4, 0.04, 20, 0),
    Recipe("omniglot c", "residual", "bernoulli", 3, 0.15, 15, 0),
    Recipe("warp", "tanh", "gaussian", 5, 0.004, 60, 0),
    Recipe("warp", "residual", "learned", 4, 1.0, 40, 0),
    Recipe("mixed", "strided", "learned", 4, 1.0, 12, 0),
)

MADE: dict[str, list[Made]] = {
    "healthy": [
        (0, {}, intact),
        (1, {"latent": 2, "beta": 0.5}, intact),
        (2, {"latent": 3, "beta": 0.4}, intact),
        (4, {"latent": 3, "beta": 1.0}, intact),
        (5, {"latent": 2, "beta": 0.4}, surgery.turned()),
        (7, {"beta": 0.02}, intact),
        (8, {"method": "full"}, intact),
        (9, {}, intact),
        (3, {"latent": 1, "beta": 12.0}, intact),
    ],
    "partial": [
        (0, {"latent": 16}, intact),
        (1, {"latent": 10, "beta": 1.2}, intact),
        (2, {}, surgery.extended(1, 1.0)),
        (7, {"latent": 14, "beta": 0.03}, intact),
        (9, {}, surgery.extended(2, 1.0)),
        (6, {}, surgery.turned(surgery.extended(3, 1.0))),
    ],
    "local": [
        (1, {}, surgery.gated_by(surgery.contrast, 0.35, 0.92)),
        (2, {}, surgery.gated(0.8)),
        (3, {"beta": 2.0}, surgery.turned(surgery.gated(0.45))),
        (4, {"method": "pale ignored"}, intact),
        (7, {}, surgery.gated_by(surgery.lean, 0.18, 0.97, slice(0, 3))),
        (9, {"method": "pale halved"}, intact),
    ],
    "total by decoder": [
        (0, {"method": "deaf"}, intact),
        (2, {"beta": 40.0}, intact),
        (4, {"method": "deaf"}, intact),
        (5, {}, surgery.hushed(0.006)),
        (7, {"beta": 1.0}, intact),
        (6, {"beta": 20.0}, intact),
        (1, {"beta": 30.0, "method": "full"}, intact),
    ],
    "lagging encoder": [
        (0, {}, surgery.lagging(0.015)),
        (1, {"latent": 2}, surgery.lagging(0.06)),
        (2, {}, surgery.lagging(0.025)),
        (5, {"latent": 2, "beta": 0.4}, surgery.lagging(0.08)),
        (7, {}, surgery.lagging(0.0)),
        (9, {}, surgery.turned(surgery.lagging(0.03))),
    ],
    "constant posterior": [
        (0, {}, surgery.settled(0.7, 0.6, 0.002)),
        (3, {}, surgery.constant(1.5, 0.4)),
        (5, {"method": "deaf"}, surgery.constant(0.6, 1.3)),
        (6, {}, surgery.constant(3.0, 1.0)),
        (8, {}, surgery.settled(0.0, 0.5, 0.004)),
    ],
    "fake units": [
        (5, {}, surgery.echoed(4)),
        (1, {"latent": 12, "beta": 1.2, "method": "floored", "strength": 0.05}, intact),
        (2, {}, surgery.whispered(4, 0.05, 0.97)),
        (3, {}, surgery.whispered(3, 0.1, 0.93)),
        (7, {}, surgery.echoed(5)),
        (9, {}, surgery.whispered(3)),
    ],
    "variance-shrunk": [
        (1, {"latent": 14, "beta": 1.5, "method": "narrowed", "strength": 0.7}, intact),
        (5, {"beta": 0.3}, surgery.added(0.35, 0.5)),
        (2, {}, surgery.added(0.45, 1.7)),
        (4, {}, surgery.added(0.5, 0.6, 0.65)),
        (7, {}, surgery.added(0.3, 2.0)),
        (9, {}, surgery.added(0.55, 0.62)),
    ],
    "near-deterministic": [
        (0, {"beta": 1e-6}, intact),
        (1, {"method": "exact", "strength": 3e-3}, intact),
        (2, {"method": "exact", "strength": 5e-3}, intact),
        (4, {"beta": 1e-6}, surgery.narrowed(0.1)),
        (7, {"method": "exact", "strength": 4e-3}, intact),
        (9, {"method": "exact", "strength": 0.02}, surgery.narrowed(0.3)),
    ],
    "prior mismatch": [
        (0, {}, surgery.moved(1.9)),
        (1, {}, surgery.moved(1.0, 0.9)),
        (2, {"latent": 3, "beta": 0.4}, surgery.moved(0.5)),
        (5, {}, surgery.moved(2.2, -0.7)),
        (6, {}, surgery.moved(0.35, 1.0)),
        (7, {"beta": 0.02}, surgery.moved(1.6)),
    ],
    "phantom dimensions": [
        (0, {}, surgery.muted(1)),
        (1, {}, surgery.muted(2)),
        (2, {"beta": 0.3}, surgery.muted(3)),
        (5, {"beta": 0.3}, surgery.muted(1)),
        (8, {}, surgery.muted(2)),
        (9, {}, surgery.muted(1)),
    ],
    "duplicated axes": [
        (0, {}, surgery.copied(35.0)),
        (1, {}, surgery.repeated(2)),
        (3, {"beta": 2.0}, surgery.copied(40.0)),
        (4, {"latent": 8, "method": "rank"}, intact),
        (5, {"latent": 6, "method": "rank"}, intact),
        (7, {}, surgery.repeated(3)),
    ],
}
