"""Round trip: the robust value is the worse of rounding and noise, in every dimension."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from collapsekit.probes.round_trip import RoundTrip
from collapsekit.streaming import Constant, Grouped, Paired


def test_the_robust_value_is_the_lower_one_of_each_dimension() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(400, 2, generator=generator, dtype=torch.float64)
    other = torch.randn(400, 2, generator=generator, dtype=torch.float64)
    group = np.arange(400) % 20

    def state(error: list[float]) -> Grouped:
        back: Tensor = z + other * torch.tensor(error, dtype=torch.float64)
        return Grouped.of(group, lambda rows: Paired.of(z[rows], back[rows]))

    states = {
        "clean": state([0.1, 0.1]),
        "rounded": state([0.2, 0.8]),  # 1 - 0.04 and 1 - 0.64
        "noisy": state([0.6, 0.3]),  # 1 - 0.36 and 1 - 0.09
        "image": Constant(True),
    }
    result = RoundTrip().conclude(states)
    assert result.dimensions is not None
    robust = result.dimensions["robust_round_trip_r2"].to_numpy()
    np.testing.assert_allclose(robust, [0.64, 0.36], atol=4 * 0.64 * np.sqrt(4 / 400))
    number = next(n for n in result.numbers if n.name == "robust_round_trip_r2")
    np.testing.assert_allclose(number.value, robust.mean())
