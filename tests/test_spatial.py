"""Spatial latents: channels, positions, and what they cost at 4 x 64 x 64."""

from __future__ import annotations

import resource
import time

import numpy as np
import pytest
import torch
from torch import Tensor

import collapsekit as ck
from collapsekit.probes import REGISTERED, DecoderUsage, RoundTrip

LAM = 24.0  # signal to noise of a written position: sigma^2 = 1 / 25


class Spatial:
    """Codes of the inputs' own shape. Channel 0 is written and read in its upper half, channel 1
    everywhere, channel 2 is written and not read, the last is at the prior and not read."""

    likelihood = ("gaussian", 0.2)

    def __init__(self, side: int) -> None:
        self.on = torch.ones(4, side, side)
        self.on[0, side // 2 :] = 0
        self.on[3] = 0
        self.reads = torch.tensor([1.0, 0.5, 0.0, 0.0])[:, None, None]

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        width = torch.where(self.on > 0, (1 / (1 + LAM)) ** 0.5, 1.0)
        return x * self.on * (LAM / (1 + LAM)) ** 0.5, width.expand_as(x)

    def decode(self, z: Tensor) -> Tensor:
        return z * self.reads


def images(n: int, side: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, 4, side, side)).astype(np.float32)


def test_channels_and_positions_in_closed_form() -> None:
    side = 8
    probes = [p for p in REGISTERED if not isinstance(p, DecoderUsage | RoundTrip)]
    probes += [DecoderUsage(limit=256), RoundTrip(limit=256)]
    audit = ck.audit(Spatial(side), images(300, side), probes=probes)
    places = audit.dimensions[["channel", "row", "column"]].to_numpy()
    np.testing.assert_array_equal(places, np.argwhere(np.ones((4, side, side))))
    channels = audit.tables["channels"].set_index("channel")
    assert list(channels["positions"]) == [side * side] * 4
    # A written position spends 0.5 ln(1 + lam) on average, the others nothing.
    nats = 0.5 * np.log(1 + LAM) * side * side
    np.testing.assert_allclose(channels["kl"], [nats / 2, nats, nats, 0.0], rtol=0.05, atol=1e-9)
    np.testing.assert_allclose(channels["active_share"], [0.5, 1, 1, 0])
    # Of the output's variance, 1 : 1/4 : 0 : 0.
    error = 4 * channels["decoder_usage_se"].to_numpy() + 1e-12
    assert (np.abs(channels["decoder_usage"] - [0.8, 0.2, 0, 0]) < error).all()
    cost = channels["shuffle_cost"].to_numpy()
    assert cost[0] > 1
    assert cost[1] > 1
    np.testing.assert_allclose(cost[2:], 0.0, atol=1e-9)
    kl = audit.arrays["kl_by_position"]
    assert kl.shape == (4, side, side)
    np.testing.assert_allclose(kl[0, side // 2 :], 0.0, atol=1e-9)
    np.testing.assert_allclose(kl.reshape(-1), audit.dimensions["kl"])
    number = audit.number("read_channels")
    assert (number.value, number.low, number.high) == (2, 2, 2)
    assert "on 4 channels of 256 dimensions" in number.note
    unread = next(f for f in audit.findings if f.code == "CK621")
    assert "written and not read: 2." in unread.message
    assert "decoder_usage" not in audit.dimensions  # a channel's value is not its positions'


def test_a_small_spatial_latent_is_measured_by_dimension() -> None:
    audit = ck.audit(Spatial(4), images(60, 4))
    assert audit.dimensions["decoder_usage"].notna().all()
    assert "decoder_usage" not in audit.tables["channels"]
    assert list(audit.tables["channels"]["positions"]) == [16] * 4


@pytest.mark.slow
def test_a_latent_of_4_by_64_by_64_within_bounds() -> None:
    torch.set_num_threads(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.process_time()
    # 16 samples: what the streams of the prior cost is all there, and is most of the time.
    audit = ck.audit(Spatial(64), images(16, 64), population=16)
    seconds = time.process_time() - begin
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert len(audit.dimensions) == 16_384
    assert list(audit.tables["channels"]["active_share"]) == [0.5, 1, 1, 0]
    assert audit.arrays["kl_by_position"].shape == (4, 64, 64)
    decodes = sum(n for k, n in audit.provenance["passes"].items() if k.endswith("decode"))
    assert decodes < 10_000
    print(f"{seconds:.0f} s CPU, {peak:.0f} MiB more, {decodes:,} decodes")
    assert peak < 2_000
