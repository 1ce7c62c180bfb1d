"""The LR loss against closed forms, and its behaviour where people use it."""

from __future__ import annotations

import copy
import io
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from collapsekit.errors import InputError
from collapsekit.remedies import LatentReconstruction, latent_reconstruction


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def attached(*shape: int, seed: int = 0) -> Tensor:
    return normal(*shape, seed=seed).requires_grad_()


class LinearVAE(nn.Module):
    """Smallest model with an encoder and a decoder of its own."""

    def __init__(self, pixels: int = 6, latent: int = 3) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(pixels, latent), nn.Linear(latent, pixels)


# --- closed forms ---------------------------------------------------------------------------------


def test_linear_gaussian_optimum_costs_the_sum_of_squared_posterior_variances() -> None:
    # A linear model: x = W z + noise with W'W = diag(w), w_j / s^2 = lam_j. At the optimum
    # E_mu(D(z)) = (1 - v) z and posterior variance v = 1 / (1 + lam), aggregate N(0, I).
    v = 1.0 / (1.0 + 10.0 ** (2.0 - 5.0 * torch.arange(32, dtype=torch.float64) / 31.0))
    exact = 16.411728702
    assert float((v**2).sum()) == pytest.approx(exact, abs=5e-10)
    n = 20_000
    z = (1.0 - v).sqrt() * normal(n, 32, seed=1, dtype=torch.float64)
    z = z + v.sqrt() * normal(n, 32, seed=2, dtype=torch.float64)
    per_sample = ((v * z) ** 2).sum(1)
    standard_error = float(per_sample.std() / n**0.5)
    lr = LatentReconstruction(1.0).eval()
    assert abs(float(lr(z, (1.0 - v) * z)) - exact) < 4 * standard_error
    # Per dimension E = v_j^2 with Var((v z)^2) = 2 v^4; 32 looks, so 5 standard errors.
    assert lr.components is not None
    assert ((lr.components.cost[0] - v**2).abs() < 5 * (2.0 / n) ** 0.5 * v**2).all()
    # An ignored dimension costs Var z_j = 1 (standard error sqrt(2/n)).
    assert ((lr.components.ignored_cost[0] - 1.0).abs() < 5 * (2.0 / n) ** 0.5).all()


def test_value_gradient_and_cost_by_hand() -> None:
    z = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    z_hat = torch.tensor([[1.0, 0.0], [2.0, 5.0]], requires_grad=True)
    lr = LatentReconstruction(0.5)
    loss = lr(z, z_hat)
    loss.backward()
    assert loss.item() == 0.5 * (0 + 4 + 1 + 1) / 2
    assert z_hat.grad is not None
    assert z.grad is not None
    assert z_hat.grad.tolist() == [[0.0, -1.0], [-0.5, 0.5]]  # 0.5 * 2 (z_hat - z) / 2
    assert torch.equal(z.grad, -z_hat.grad)
    assert lr.components is not None
    assert lr.components.cost[0].tolist() == [0.5, 2.5]
    assert lr.components.ignored_cost[0].tolist() == [1.0, 1.0]
    assert lr.components.loss.item() == loss.item()
    assert lr.components.weight == 0.5


def test_a_dimension_answered_with_its_mean_costs_exactly_its_ignored_cost() -> None:
    z = normal(50, 4)
    lr = LatentReconstruction(1.0).eval()
    lr(z, z.mean(0).expand_as(z))
    assert lr.components is not None
    assert torch.allclose(lr.components.cost[0], lr.components.ignored_cost[0], rtol=1e-5)


def test_mean_times_the_latent_size_is_the_sum_exactly() -> None:
    z, z_hat = normal(16, 32, seed=1), normal(16, 32, seed=2)
    for f in (lambda a, b, w, r: latent_reconstruction(a, b, w, reduction=r), _module_value):
        assert float(f(z, z_hat, 0.1, "sum")) == float(f(z, z_hat, 0.1 * 32, "mean"))
        assert float(f(z, z_hat, 1.0, "sum")) == float(f(z, z_hat, 1.0, "mean")) * 32


def _module_value(z: Tensor, z_hat: Tensor, weight: float, reduction: str) -> Tensor:
    lr = LatentReconstruction(weight, reduction=reduction).eval()  # type: ignore[arg-type]
    result: Tensor = lr(z, z_hat)
    return result


# --- the pure function ----------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_pure_function_on_numpy_equals_torch_and_the_module(reduction: str) -> None:
    z, z_hat = normal(7, 3, 2, 2, seed=1).double(), normal(7, 3, 2, 2, seed=2).double()
    torch_value = latent_reconstruction(z, z_hat, 0.3, reduction=reduction)  # type: ignore[arg-type]
    numpy_value = latent_reconstruction(z.numpy(), z_hat.numpy(), 0.3, reduction=reduction)  # type: ignore[arg-type]
    assert isinstance(numpy_value, np.floating)
    assert float(numpy_value) == pytest.approx(float(torch_value), rel=1e-14)
    assert float(_module_value(z, z_hat, 0.3, reduction)) == pytest.approx(
        float(torch_value), rel=1e-14
    )


def test_pure_function_under_jax_jit_and_grad() -> None:
    jax = pytest.importorskip("jax")
    z, z_hat = normal(5, 3, seed=1), normal(5, 3, seed=2)
    value, gradient = jax.jit(jax.value_and_grad(latent_reconstruction))(
        jax.numpy.asarray(z.numpy()), jax.numpy.asarray(z_hat.numpy()), 0.5
    )
    assert float(value) == pytest.approx(float(latent_reconstruction(z, z_hat, 0.5)), rel=1e-5)
    assert np.allclose(np.asarray(gradient), (-2 * 0.5 / 5 * (z_hat - z)).numpy(), rtol=1e-5)


# --- gradients ------------------------------------------------------------------------------------


def test_gradient_reaches_z_encoder_and_decoder() -> None:
    torch.manual_seed(0)
    vae, lr = LinearVAE(), LatentReconstruction(1.0, noise=0.1)
    z = vae.encoder(normal(8, 6))
    z.retain_grad()
    lr(z, vae.encoder(lr.perturb(vae.decoder(z)))).backward()
    assert z.grad is not None
    assert z.grad.abs().sum() > 0
    for parameter in vae.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def test_components_hold_no_graph() -> None:
    lr = LatentReconstruction(1.0, warmup_steps=4)
    lr(attached(4, 3), attached(4, 3, seed=1), torch.tensor(2))
    assert lr.components is not None
    loss, weight, cost, ignored = lr.components
    assert not any(t.requires_grad for t in (loss, *cost, *ignored))
    assert float(weight) == 0.5


# --- weight and warm-up ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "share"), [(0, 0.0), (1, 0.1), (5, 0.5), (9, 0.9), (10, 1.0), (99, 1.0)]
)
def test_warm_up_is_linear_in_the_step(step: int, share: float) -> None:
    lr = LatentReconstruction(2.0, warmup_steps=10).eval()
    z, z_hat = normal(4, 3), normal(4, 3, seed=1)
    full = float(latent_reconstruction(z, z_hat, 2.0))
    assert float(lr(z, z_hat, step)) == pytest.approx(share * full, rel=1e-6)
    assert float(lr(z, z_hat, torch.tensor(step))) == pytest.approx(share * full, rel=1e-6)
    assert lr.components is not None
    assert float(lr.components.weight) == pytest.approx(2.0 * share)


def test_weight_relative_to_beta() -> None:
    z, z_hat = normal(4, 3), normal(4, 3, seed=1)
    relative, absolute = LatentReconstruction(5.0, beta=0.1), LatentReconstruction(0.5)
    assert relative.alpha == absolute.alpha == 0.5
    assert torch.equal(relative.eval()(z, z_hat), absolute.eval()(z, z_hat))


def test_follow_counts_optimiser_steps_not_calls() -> None:
    torch.manual_seed(0)
    vae, lr = LinearVAE(), LatentReconstruction(1.0, warmup_steps=4)
    optimizer = torch.optim.SGD(vae.parameters(), lr=0.0)
    lr.follow(optimizer)
    weights = []
    for call in range(12):  # gradient accumulation: three calls per optimiser step
        z = vae.encoder(normal(8, 6))
        lr(z, vae.encoder(vae.decoder(z))).backward()
        assert lr.components is not None
        weights.append(float(lr.components.weight))
        if call % 3 == 2:
            optimizer.step()
    assert weights == [0.0] * 3 + [0.25] * 3 + [0.5] * 3 + [0.75] * 3
    lr.follow(optimizer)  # again: still one count per step
    optimizer.step()
    assert int(lr.steps) == 5


def test_a_copy_no_longer_follows_and_says_so() -> None:
    optimizer = torch.optim.SGD(LinearVAE().parameters(), lr=0.1)
    lr = LatentReconstruction(1.0, warmup_steps=4)
    lr.follow(optimizer)
    lr(attached(4, 3), attached(4, 3, seed=1))
    for twin in (copy.deepcopy(lr), pickle.loads(pickle.dumps(lr))):
        with pytest.raises(InputError, match=r"lr\.follow\(optimizer\)"):
            twin(attached(4, 3), attached(4, 3, seed=1))
        assert twin(attached(4, 3), attached(4, 3, seed=1), 4).item() > 0


def test_state_dict_resumes_the_warm_up() -> None:
    optimizer = torch.optim.SGD(LinearVAE().parameters(), lr=0.1)
    lr = LatentReconstruction(1.0, warmup_steps=10)
    lr.follow(optimizer)
    for _ in range(3):
        optimizer.step()
    file = io.BytesIO()
    torch.save(lr.state_dict(), file)
    file.seek(0)
    resumed = LatentReconstruction(1.0, warmup_steps=10)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    resumed.follow(optimizer)
    optimizer.step()
    resumed(attached(4, 3), attached(4, 3, seed=1))
    assert resumed.components is not None
    assert float(resumed.components.weight) == pytest.approx(0.4)


# --- noise ----------------------------------------------------------------------------------------


def test_perturb_adds_noise_of_the_given_sd_while_training() -> None:
    lr = LatentReconstruction(1.0, noise=0.1)
    x_hat = attached(200, 100)
    state = torch.get_rng_state()
    out = lr.perturb(x_hat, torch.Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), state)
    # n = 20,000: standard error of an sd is sd / sqrt(2 n)
    noise = (out - x_hat).detach()
    assert abs(float(noise.std()) - 0.1) < 4 * 0.1 / (2 * 20_000) ** 0.5
    assert abs(float(noise.mean())) < 4 * 0.1 / 20_000**0.5
    assert torch.equal(out, lr.perturb(x_hat, torch.Generator().manual_seed(3)))
    out.sum().backward()
    assert x_hat.grad is not None
    assert torch.equal(x_hat.grad, torch.ones_like(x_hat))
    assert lr.perturb(x_hat.bfloat16()).dtype == torch.bfloat16


def test_perturb_leaves_x_hat_alone_in_evaluation_and_without_noise() -> None:
    x_hat = normal(4, 6)
    assert LatentReconstruction(1.0, noise=0.1).eval().perturb(x_hat) is x_hat
    assert LatentReconstruction(1.0).perturb(x_hat) is x_hat


# --- groups and spatial latents -------------------------------------------------------------------


def test_groups_add_up_and_keep_their_own_costs() -> None:
    z = [attached(8, 3), attached(8, 2, 4, 4, seed=1)]
    z_hat = (attached(8, 3, seed=2), attached(8, 2, 4, 4, seed=3))
    lr = LatentReconstruction(0.7)
    loss = lr(z, z_hat)
    parts = [latent_reconstruction(a, b, 0.7).item() for a, b in zip(z, z_hat, strict=True)]
    assert loss.item() == pytest.approx(sum(parts), rel=1e-6)
    assert lr.components is not None
    assert [tuple(c.shape) for c in lr.components.cost] == [(3,), (2, 4, 4)]
    mean = LatentReconstruction(0.7, reduction="mean")
    assert mean(z, z_hat).item() == pytest.approx(loss.item() / 35, rel=1e-6)
    assert latent_reconstruction(z, z_hat, 0.7).item() == pytest.approx(loss.item(), rel=1e-6)


def test_a_spatial_latent_is_the_flat_one() -> None:
    z, z_hat = attached(8, 2, 4, 4), attached(8, 2, 4, 4, seed=1)
    lr = LatentReconstruction(1.0)
    spatial = lr(z, z_hat)
    assert spatial.item() == pytest.approx(lr(z.flatten(1), z_hat.flatten(1)).item(), rel=1e-6)


def test_a_convolutional_model_with_a_spatial_latent_trains_through_it() -> None:
    torch.manual_seed(0)
    encoder = nn.Conv2d(1, 2 * 3, 4, stride=4)
    decoder = nn.ConvTranspose2d(3, 1, 4, stride=4)
    lr = LatentReconstruction(1.0, noise=0.1)
    mean, scale = encoder(normal(8, 1, 16, 16)).chunk(2, dim=1)
    z = mean + scale.exp() * normal(8, 3, 4, 4, seed=1)
    lr(z, encoder(lr.perturb(decoder(z))).chunk(2, dim=1)[0]).backward()
    assert lr.components is not None
    assert lr.components.cost[0].shape == lr.components.ignored_cost[0].shape == (3, 4, 4)
    for parameter in (*encoder.parameters(), *decoder.parameters()):
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


# --- conditional models ---------------------------------------------------------------------------


def test_a_conditional_model_is_read_under_the_condition_it_was_written_under() -> None:
    # decode(z, c) = z + c and encode(x, c) = x - c: the round trip is exact under one's own c.
    z, condition = attached(8, 3), normal(8, 3, seed=1)
    lr = LatentReconstruction(1.0)
    x_hat = z + condition
    assert lr(z, x_hat - condition).item() < 1e-12
    other = condition.roll(1, dims=0)
    expected = (condition - other).square().sum(1).mean().item()
    assert lr(z, x_hat - other).item() == pytest.approx(expected, rel=1e-5)


# --- gradient accumulation and data-parallel training ---------------------------------------------


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    torch.manual_seed(0)
    vae, lr = LinearVAE().double(), LatentReconstruction(0.7)
    x = normal(12, 6, dtype=torch.float64)

    def gradients(parts: int) -> list[Tensor]:
        vae.zero_grad()
        for part in x.chunk(parts):
            z = vae.encoder(part)
            (lr(z, vae.encoder(vae.decoder(z))) / parts).backward()
        return [p.grad.clone() for p in vae.parameters() if p.grad is not None]

    for whole, accumulated in zip(gradients(1), gradients(3), strict=True):
        assert torch.allclose(whole, accumulated, rtol=1e-12)


# Two ranks, two accumulated parts each, against one process with the whole batch; the warm-up
# follows the optimiser. Weights after three steps have to agree, and no step may hang.
_RANK = """
import sys
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from collapsekit.remedies import LatentReconstruction

rank, meeting = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder = nn.Linear(6, 6), nn.Linear(3, 6)
        self.lr = LatentReconstruction(1.0, warmup_steps=2)

    def encode(self, x):
        mean, log_scale = self.encoder(x).chunk(2, dim=1)
        return mean, log_scale.exp()

    def forward(self, x, noise):
        mean, scale = self.encode(x)
        z = mean + scale * noise
        x_hat = self.decoder(z)
        return (x_hat - x).square().sum(1).mean() + self.lr(z, self.encode(x_hat)[0])


def optimise(model, inner, parts, begin):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    inner.lr.follow(optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        for place, (x, noise) in enumerate(parts):
            with begin(place):
                (model(x, noise) / len(parts)).backward()
        optimizer.step()
    assert int(inner.lr.steps) == 3, inner.lr.steps
    assert float(inner.lr.components.weight) == 1.0
    return [p.detach().clone() for p in inner.parameters()]


draw = torch.Generator().manual_seed(1)
x, noise = torch.randn(16, 6, generator=draw), torch.randn(16, 3, generator=draw)
parts = list(zip(x.chunk(4), noise.chunk(4)))
from contextlib import nullcontext

inner = Model()
parallel = DistributedDataParallel(inner)
ours = optimise(
    parallel,
    inner,
    parts[2 * rank : 2 * rank + 2],
    lambda place: parallel.no_sync() if place == 0 else nullcontext(),
)
alone = Model()
whole = optimise(alone, alone, [(x, noise)], lambda place: nullcontext())
for a, b in zip(ours, whole):
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_ranks_make_the_steps_of_one_process(tmp_path: Path) -> None:
    if not torch.distributed.is_available():
        pytest.skip("this torch was built without torch.distributed")
    meeting = (tmp_path / "meeting").as_uri()
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", _RANK, str(rank), meeting],
            cwd=Path(__file__).resolve().parents[2],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        told = [process.communicate(timeout=120)[0] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    for process, output in zip(ranks, told, strict=True):
        assert process.returncode == 0, output


# --- refusals -------------------------------------------------------------------------------------


def test_detached_z_is_refused_and_told_why() -> None:
    lr = LatentReconstruction(1.0)
    z, z_hat = attached(4, 3), attached(4, 3, seed=1)
    with pytest.raises(InputError) as caught:
        lr(z.detach(), z_hat)
    message = str(caught.value)
    assert message.splitlines()[0] == "LatentReconstruction was given a z without gradient"
    for part in ("got:", "(4, 3)", "expected:", "do:", "rsample()", "steganography"):
        assert part in message
    assert "active units rise, information does not" in message
    assert "allow_detached=True" in message
    with pytest.raises(InputError, match="a z_hat without gradient"):
        lr(z, z_hat.detach())
    with pytest.raises(InputError, match="a z without gradient"):  # one of several groups
        lr([z, z.detach()], [z_hat, z_hat])


def test_detached_z_is_accepted_in_evaluation_without_grad_mode_and_on_demand() -> None:
    z, z_hat = normal(4, 3), normal(4, 3, seed=1)
    assert float(LatentReconstruction(1.0).eval()(z, z_hat)) > 0
    assert float(LatentReconstruction(1.0, allow_detached=True)(z, z_hat)) > 0
    with torch.no_grad():
        assert float(LatentReconstruction(1.0)(z, z_hat)) > 0


@pytest.mark.parametrize(
    ("z", "z_hat", "got"),
    [
        ((4, 3), (4, 1), "z one array of shape (4, 3), z_hat one array of shape (4, 1)"),
        ((4, 3), (4,), "z_hat one array of shape (4,)"),
        ((4, 3), [(4, 3), (4, 3)], "z_hat 2 group(s) of shapes (4, 3), (4, 3)"),
        ((4, 3), [(4, 3)], "z_hat 1 group(s) of shapes (4, 3)"),
        ([(4, 3), (4, 2)], [(4, 3)], "z 2 group(s) of shapes (4, 3), (4, 2)"),
    ],
)
def test_shapes_that_differ_are_refused(z: Any, z_hat: Any, got: str) -> None:
    def build(shape: Any) -> Any:
        return [build(s) for s in shape] if isinstance(shape, list) else attached(*shape)

    for f in (LatentReconstruction(1.0), latent_reconstruction):
        with pytest.raises(InputError) as caught:
            f(build(z), build(z_hat))
        assert got in str(caught.value)
        assert "vae.encode(x_hat)[0]" in str(caught.value)


def test_other_refusals() -> None:
    z = attached(4, 3)
    with pytest.raises(InputError, match="a warm-up but no step"):
        LatentReconstruction(1.0, warmup_steps=5)(z, z)
    with pytest.raises(InputError, match="step cannot be used"):
        LatentReconstruction(1.0, warmup_steps=5)(z, z, -1)
    with pytest.raises(InputError, match="z has no samples"):
        latent_reconstruction(torch.zeros(0, 3), torch.zeros(0, 3))
    with pytest.raises(InputError, match="z has no samples"):
        latent_reconstruction(torch.zeros(()), torch.zeros(()))
    with pytest.raises(InputError, match="z has no samples"):
        latent_reconstruction([], [])
    with pytest.raises(InputError, match=r"got: +Normal"):
        LatentReconstruction(1.0)(z, torch.distributions.Normal(z, 1.0))
    with pytest.raises(InputError, match="reduction is not known"):
        LatentReconstruction(1.0, reduction="none")  # type: ignore[arg-type]
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="weight cannot be used"):
            LatentReconstruction(bad)
        with pytest.raises(InputError, match="noise cannot be used"):
            LatentReconstruction(1.0, noise=bad)
        with pytest.raises(InputError, match="beta cannot be used"):
            LatentReconstruction(1.0, beta=bad)
        with pytest.raises(InputError, match="warmup_steps cannot be used"):
            LatentReconstruction(1.0, warmup_steps=bad)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="warmup_steps cannot be used"):
        LatentReconstruction(1.0, warmup_steps=2.5)  # type: ignore[arg-type]


# --- precision and compilers ----------------------------------------------------------------------


def test_autocast_computes_in_float32() -> None:
    torch.manual_seed(0)
    vae, lr = LinearVAE(), LatentReconstruction(1.0, noise=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = vae.encoder(normal(256, 6))
        z_hat = vae.encoder(lr.perturb(vae.decoder(z)))
        assert z.dtype == z_hat.dtype == torch.bfloat16
        loss = lr(z, z_hat)
    loss.backward()
    assert loss.dtype == torch.float32
    assert lr.components is not None
    assert all(t.dtype == torch.float32 for t in lr.components.cost + lr.components.ignored_cost)
    # float32 sums of the bfloat16 values, not bfloat16 sums
    exact = ((z_hat.double() - z.double()) ** 2).sum(1).mean().item()
    assert float(loss.detach()) == pytest.approx(exact, rel=1e-5)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vae.parameters())


def test_double_precision_stays_double() -> None:
    z = normal(4, 3, dtype=torch.float64)
    assert LatentReconstruction(1.0).eval()(z, z).dtype == torch.float64


# torch's own: its compiler imports a part that it has deprecated itself.
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")  # of Python 3.13.0
def test_compiles_as_one_graph_and_follows_the_step() -> None:
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        pytest.skip("torch.compile on a CPU needs a C++ compiler, and none is on the path")
    lr = LatentReconstruction(1.0, warmup_steps=4)
    z, z_hat = attached(8, 3), attached(8, 3, seed=1)
    full = float(latent_reconstruction(z.detach(), z_hat.detach()))
    torch._dynamo.reset()
    compiled = torch.compile(lr, fullgraph=True)
    for step in (0, 1, 2, 4, 7):
        loss = compiled(z, z_hat, step)
        assert float(loss.detach()) == pytest.approx(full * min(1.0, step / 4), rel=1e-5)
        assert lr.components is not None
        assert float(lr.components.weight) == min(1.0, step / 4)
    loss.backward()
    assert z.grad is not None
    assert torch.allclose(z.grad, -2 / 8 * (z_hat - z).detach(), rtol=1e-5)
    optimizer = torch.optim.SGD([z], lr=0.0)
    lr.follow(optimizer)
    for steps in (0, 1):
        compiled(z, z_hat)
        assert lr.components is not None
        assert float(lr.components.weight) == steps / 4
        optimizer.step()
