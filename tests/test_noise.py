"""Noise: a pure function of (seed, stream, index), and as random as it claims."""

from __future__ import annotations

import numpy as np
import scipy.stats
import torch

from collapsekit.noise import Noise, hash_index

INDEX = torch.arange(20_000)


def test_noise_is_a_function_of_seed_stream_and_index() -> None:
    whole = Noise(3, "posterior", INDEX).normal(5)
    some = torch.tensor([7, 19_999, 7])
    assert torch.equal(Noise(3, "posterior", some).normal(5), whole[some])
    assert not torch.equal(Noise(4, "posterior", INDEX).normal(5), whole)
    assert not torch.equal(Noise(3, "prior", INDEX).normal(5), whole)


def test_splitmix_reference_values() -> None:
    # The first outputs of SplitMix64 from state 0, as its authors' C code prints them.
    from collapsekit.noise import _GOLDEN, _mix

    state = torch.arange(1, 4) * _GOLDEN
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [int(v) % 2**64 for v in _mix(state)] == expected


def test_normals_are_standard_and_independent() -> None:
    z = Noise(0, "z", INDEX).normal(7).numpy()
    for column in z.T:
        assert scipy.stats.kstest(column, "norm").pvalue > 1e-4
    n = z.size
    assert abs(z.mean()) < 4 / np.sqrt(n)
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / n)
    correlation = np.corrcoef(z.T) - np.eye(7)
    assert abs(correlation).max() < 4.5 / np.sqrt(len(INDEX))
    assert abs((z[1:] * z[:-1]).mean()) < 4 / np.sqrt(n)


def test_streams_are_independent() -> None:
    a = Noise(0, "data/a", INDEX).normal(1)[:, 0]
    b = Noise(0, "data/b", INDEX).normal(1)[:, 0]
    assert abs(float((a * b).mean())) < 4 / np.sqrt(len(INDEX))


def test_uniforms_stay_inside_and_fill_the_interval() -> None:
    u = Noise(0, "u", INDEX).uniform(4)
    assert float(u.min()) > 0
    assert float(u.max()) < 1
    assert scipy.stats.kstest(u.flatten().numpy(), "uniform").pvalue > 1e-4


def test_bits_are_fair() -> None:
    words = Noise(0, "bits", INDEX[:2000]).bits(4)
    shares = ((words[:, :, None] >> torch.arange(64)) & 1).double().mean(dim=(0, 1))
    assert float((shares - 0.5).abs().max()) < 5 * 0.5 / np.sqrt(8000)


def test_keys_do_not_collide() -> None:
    keys = hash_index(0, "population", torch.arange(200_000))
    assert len(torch.unique(keys)) == 200_000
