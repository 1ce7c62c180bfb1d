"""The tuning set: thresholds were chosen on it."""

from __future__ import annotations

from benchmarks.zoo_parts import surgery
from benchmarks.zoo_parts.surgery import Made, Surgery, intact
from benchmarks.zoo_parts.training import Recipe

#: Settings in which a small code is used to the last dimension.
BASES = (
    Recipe("digits", "mlp", "gaussian", 4, 0.02, 60, 0),
    Recipe("digits", "conv", "bernoulli", 3, 0.2, 50, 0),
    Recipe("fashion", "mlp", "gaussian", 4, 0.03, 20, 0),
    Recipe("fashion", "conv", "bernoulli", 4, 0.2, 15, 0),
    Recipe("omniglot", "mlp", "bernoulli", 2, 0.2, 16, 0),
    Recipe("omniglot", "conv", "gaussian", 3, 0.02, 12, 0),
)


def _by(operations: list[Surgery]) -> list[Made]:
    return [(base, {}, operate) for base, operate in enumerate(operations)]


_WIDE: dict[str, object] = {"latent": 20}
MADE: dict[str, list[Made]] = {
    "healthy": [
        (0, {}, intact),
        # One dimension of little more than a nat: weak, and not collapsed for anybody.
        (0, {"latent": 1, "beta": 0.3}, intact),
        (1, {}, intact),
        (2, {}, intact),
        (3, {}, intact),
        (3, {"latent": 1, "beta": 8.0}, intact),
        (4, {}, intact),
        (5, {}, intact),
    ],
    "partial": [
        (0, {**_WIDE, "beta": 0.1}, intact),
        (1, {**_WIDE, "beta": 1.0}, intact),
        (2, {**_WIDE, "beta": 0.2}, intact),
        (3, {**_WIDE, "beta": 1.0}, intact),
        (4, {}, surgery.extended(2, 1.0)),
        (5, {}, surgery.extended(3, 1.0)),
    ],
    "local": [
        (0, {"method": "pale ignored"}, intact),
        (1, {}, surgery.gated(0.3)),
        (2, {}, surgery.gated(0.5, slice(0, 2))),
        (3, {"method": "pale ignored"}, intact),
        (2, {"method": "pale halved"}, intact),
        (5, {}, surgery.gated(0.6)),
    ],
    "total by decoder": [
        (0, {"method": "deaf"}, intact),
        (1, {"beta": 200.0}, intact),
        (2, {"beta": 50.0}, intact),
        (3, {"method": "deaf", "beta": 1.0}, intact),
        (4, {"beta": 200.0}, intact),
        (5, {"method": "deaf"}, intact),
    ],
    "lagging encoder": _by(
        [
            surgery.lagging(0.0),
            surgery.lagging(0.03),
            surgery.lagging(0.02),
            surgery.lagging(0.0),
            surgery.lagging(0.02),
            surgery.lagging(0.0),
        ]
    ),
    "constant posterior": [
        (0, {}, surgery.constant(1.5, 0.5)),
        (1, {"method": "deaf"}, surgery.constant(0.0, 0.4)),
        (2, {}, surgery.constant(0.8, 1.0)),
        (3, {"method": "deaf"}, surgery.constant(2.0, 0.3)),
        (4, {}, surgery.constant(1.0, 0.7)),
        (5, {"method": "deaf"}, surgery.constant(1.0, 2.0)),
    ],
    "fake units": [
        (0, {"latent": 16, "beta": 0.1, "method": "floored", "strength": 0.05}, intact),
        (1, {}, surgery.whispered(4)),
        (2, {"latent": 24, "beta": 0.2, "method": "detached", "strength": 1.0}, intact),
        (2, {"latent": 16, "beta": 0.2, "method": "detached", "strength": 1.0}, intact),
        (4, {}, surgery.whispered(5)),
        (5, {}, surgery.whispered(4)),
    ],
    "variance-shrunk": [
        (0, {"latent": 20, "beta": 0.2, "method": "narrowed", "strength": 0.6}, intact),
        (1, {}, surgery.extended(2, 0.5)),
        (2, {"latent": 20, "beta": 0.5, "method": "narrowed", "strength": 0.6}, intact),
        (3, {}, surgery.extended(3, 0.3)),
        (4, {"latent": 20, "beta": 1.0, "method": "narrowed", "strength": 0.6}, intact),
        (5, {"latent": 4}, surgery.extended(2, 0.6)),
    ],
    "near-deterministic": [
        (0, {"method": "exact", "strength": 1e-3}, intact),
        (1, {"method": "exact", "strength": 1e-2}, surgery.narrowed(0.1)),
        (2, {"method": "exact", "strength": 1e-3}, intact),
        (3, {"beta": 1e-6}, intact),
        (4, {"method": "exact", "strength": 1e-2}, surgery.moved(0.1)),
        (5, {"beta": 1e-6}, surgery.narrowed(0.1)),
    ],
    "prior mismatch": [
        (0, {}, surgery.moved(3.0)),
        (1, {}, surgery.moved(1.0, 2.0)),
        (2, {}, surgery.moved(0.3)),
        (3, {}, surgery.moved(2.0, 1.0)),
        (4, {}, surgery.moved(0.25, 1.5)),
        (5, {}, surgery.moved(2.5)),
    ],
    "phantom dimensions": _by(
        [
            surgery.muted(1),
            surgery.muted(1),
            surgery.muted(2),
            surgery.muted(2),
            surgery.muted(1),
            surgery.muted(2),
        ]
    ),
    "duplicated axes": [
        (0, {}, surgery.doubled),
        (1, {"latent": 6, "method": "rank"}, intact),
        (2, {}, surgery.doubled),
        (3, {"latent": 6, "method": "rank"}, intact),
        (4, {}, surgery.doubled),
        (5, {"latent": 8, "method": "rank"}, intact),
    ],
}
