"""A space of models: a plain one, and everything about it that can be odd.

A `Case` is plain data, a word or a number a field, so that hypothesis can make it simpler and a
failure can be written down. `PLAIN` is a healthy linear VAE; `cases` changes a few of its fields.
"""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch import distributions as D

from collapsekit import probes
from tests.families import VonMisesFisher

#: Every probe, with fewer draws where the number of them is a field: a case costs tenths of a
#: second.
FEWER: dict[str, dict[str, int]] = {
    "model_information": {"draws": 64, "own_rows": 16, "own_draws": 16},
    "round_trip_prior": {"limit": 64},
    "decoder_usage": {"limit": 64},
    "inference_gap": {"draws": 24},
    "decoder_jacobian": {"limit": 8},
    "decoder_folds_prior": {"limit": 32},
}
ALL = tuple(
    dataclasses.replace(probe, **FEWER.get(probe.name, {}))  # type: ignore[type-var]
    for probe in probes.REGISTERED
)
#: Every fifth one: audits that take less, and have less to judge by.
SOME = tuple(ALL[first::5] for first in range(5))

Pair = namedtuple("Pair", "mean scale")


@dataclass(frozen=True)
class Case:
    """One model with its data and the way it is audited."""

    n: int = 24
    d: int = 2
    p: int = 3
    data: str = "normal"
    mean: str = "linear"
    scale: str = "half"
    family: str = "pair"
    dtype: str = "float64"
    parameterisation: str = "scale"
    encoder: str = "fine"
    decoder: str = "linear"
    prior: str = "none"
    likelihood: str = "gaussian 0.5"
    beta: float | None = None
    labels: bool = False
    batch: int | None = None
    population: int | None = None
    shards: int | None = None
    policy: str = "finding"
    probes: int = -1  # all of them, or one of `SOME`
    seed: int = 0

    def __repr__(self) -> str:
        fields = dataclasses.fields(self)
        changed = [f for f in fields if getattr(self, f.name) != f.default]
        return f"Case({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in changed)})"


PLAIN = Case()

CHOICES: dict[str, tuple[Any, ...]] = {
    "n": (1, 2, 3, 4, 5, 9, 10, 11, 13, 17, 31, 40, 64),
    "d": (1, 1, 3, 4, 7, 16),
    "p": (1, 2, 5, 12),
    "data": (
        "constant", "copies", "half copies", "unit", "binary", "tokens", "float16", "float32",
        "bytes", "image", "huge", "tiny", "far", "one wild", "some NaN", "one infinite", "sorted",
        "two values", "denormal",
    ),
    "mean": (
        "zero", "two", "half live", "one live", "weak", "huge", "1e30", "1e300", "denormal",
        "copied axis", "one row apart", "integers", "signs", "offset", "1e6 apart",
    ),
    "scale": (
        "one", "tiny", "1e-30", "1e-300", "denormal", "1e30", "1e300", "zero", "negative",
        "infinite", "NaN", "by row", "by dimension", "one sharp", "some zero", "half prior",
        "near one", "one tiny dimension",
    ),
    "family": (
        "list", "named tuple", "object", "Normal", "Independent", "full", "full of factor",
        "mixture", "mixture of one", "sphere", "Categorical", "OneHot", "Bernoulli",
        "RelaxedOneHot", "RelaxedBernoulli", "Laplace", "StudentT", "Gamma", "Beta", "Dirichlet",
        "Uniform", "VonMises", "LogNormal", "flow", "NumPy", "spatial", "three axes", "one axis",
        "module", "trained module", "chunk module", "LowRank", "Cauchy", "Kumaraswamy", "Poisson",
        "mixed dtypes", "groups",
    ),
    "dtype": ("float32", "float32", "float16", "bfloat16"),
    "parameterisation": ("logvar", "variance", "log_scale"),
    "encoder": (
        "random", "some NaN", "some infinite", "raises on some", "last batch wider",
        "last batch of other dtype", "one row less late", "with gradient", "writes", "one buffer",
        "raises late", "raises first", "raises always", "NaN always", "all but two NaN",
        "by batch", "reseeds",
    ),
    "decoder": (
        "none", "constant", "identity", "quadratic", "integers", "complex", "random", "raises",
        "raises late", "raises on some", "wrong shape late", "NaN on some", "NaN always",
        "infinite on some", "huge", "1e300", "tiny", "denormal", "steps", "one dimension", "NumPy",
        "float16", "with gradient", "Normal", "Normal of scale", "Bernoulli", "logits", "sigmoid",
        "classes", "two things", "writes", "threshold", "negative", "far", "bool", "own noise",
        "no grad", "inference mode", "saturated", "broken Normal late", "Laplace", "StudentT",
    ),
    "prior": (
        "standard", "learned", "wide", "narrow", "far", "Normal", "MVN", "mixture", "flow",
        "object", "broken object", "Laplace", "by row", "by row NaN", "zero scale", "NaN mean",
        "other dimensions", "word", "uniform", "1e-30", "1e30", "1e300", "mixture of one",
        "Categorical",
    ),
    "likelihood": (
        "none", "gaussian 1", "gaussian 1e-3", "gaussian 1e-30", "gaussian 1e30",
        "gaussian 1e-160", "gaussian 1e200", "gaussian 0", "gaussian -1", "gaussian nan",
        "gaussian inf", "bernoulli", "bernoulli_logits", "categorical", "own", "own NaN",
        "own wide", "own raises", "own infinite", "own late", "gaussian", "poisson",
    ),
    "beta": (0.0, 1.0, 4.0, 1e30, 1e-30),
    "labels": (True,),
    "batch": (1, 2, 5, 7, 24, 100),
    "population": (1, 2, 5, 20, 50),
    "shards": (1, 2, 3, 9),
    "policy": ("skip", "raise"),
    "seed": (1, 7, 2**31, -1),
}  # fmt: skip


@st.composite
def cases(draw: st.DrawFn, most: int = 5, among: tuple[str, ...] = tuple(CHOICES)) -> Case:
    """`PLAIN` with up to `most` of its fields changed, all probes in one of six."""
    changed = draw(st.lists(st.sampled_from(among), unique=True, min_size=1, max_size=most))
    values = {name: draw(st.sampled_from(CHOICES[name])) for name in changed}
    return dataclasses.replace(PLAIN, probes=draw(st.integers(-1, len(SOME) - 1)), **values)


# -- data ------------------------------------------------------------------------------------------


def data_of(case: Case) -> np.ndarray:
    """[N, P] or, of images, [N, 1, 2, P]."""
    rng = np.random.default_rng(5)
    width = 2 * case.p if case.data == "image" else case.p
    x = rng.normal(size=(case.n, width))
    some = np.arange(case.n) % 5 == 3
    match case.data:
        case "constant":
            x[:] = 0.7
        case "copies":
            x[:] = x[np.arange(case.n) % 4]
        case "half copies":
            x[: case.n // 2] = x[0]
        case "unit" | "image":
            x = 1 / (1 + np.exp(-x))
        case "binary":
            x = (x > 0).astype(np.float64)
        case "tokens":
            return rng.integers(0, 3, size=(case.n, width))
        case "float16":
            return x.astype(np.float16)
        case "float32":
            return x.astype(np.float32)
        case "bytes":
            return rng.integers(0, 256, size=(case.n, width)).astype(np.uint8)
        case "huge":
            x *= 1e150
        case "tiny":
            x *= 1e-150
        case "denormal":
            x *= 1e-310
        case "far":
            x += 1e9
        case "one wild":
            x[-1] = 1e6
        case "some NaN":
            x[some] = np.nan
        case "one infinite":
            x[case.n // 2, 0] = np.inf
        case "sorted":
            x = np.sort(x, axis=0)
        case "two values":
            x = np.where(x > 0, 1.0, -2.0)
    return x.reshape(case.n, 1, 2, case.p) if case.data == "image" else x


# -- encoders --------------------------------------------------------------------------------------


def weights(rows: int, columns: int) -> Tensor:
    generator = torch.Generator().manual_seed(rows * 31 + columns)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)


class Model:
    """The model of a case: what each word of its fields means."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.calls = self.decodes = 0
        self.buffer: Tensor | None = None
        if case.decoder == "none":
            self.decode: Any = None
        if case.prior == "by row" or case.prior == "by row NaN":
            self.context = lambda x: flat(x)[:, :1]
            self.prior = self._by_row
            if case.decoder != "none":
                self.decode = lambda z, context: Model.decode(self, z)
        if case.likelihood.startswith("own"):
            self.log_likelihood = self._log_likelihood

    # A class attribute that an instance hides where the case has no decoder.
    def encode(self, x: Any) -> Any:
        self.calls += 1
        case, flat_x = self.case, flat(x)
        if case.encoder == "raises always" or (case.encoder == "raises first" and self.calls < 2):
            raise RuntimeError("no")
        if case.encoder == "raises late" and self.calls > 3:
            raise RuntimeError("the device is gone")
        mean, scale = self.parameters(flat_x)
        mean, scale = self.faulty(flat_x, mean, scale)
        if case.encoder == "writes" and isinstance(x, Tensor) and x.is_floating_point():
            x.fill_(torch.nan)
        return FAMILIES[case.family](mean, self.parameterised(scale), self)

    def parameterised(self, scale: Tensor) -> Tensor:
        match self.case.parameterisation:
            case "logvar":
                return 2 * scale.log()
            case "variance":
                return scale.square()
            case "log_scale":
                return scale.log()
        return scale

    def parameters(self, x: Tensor) -> tuple[Tensor, Tensor]:
        case = self.case
        mean = torch.tanh(torch.nan_to_num(x)) @ weights(x.shape[1], case.d)
        if case.data in ("some NaN", "one infinite"):
            mean = x.double() @ weights(x.shape[1], case.d)
        live = (torch.nan_to_num(x[:, :1]) > 0).double()
        match case.mean:
            case "zero":
                mean = mean * 0
            case "two":
                mean = mean * 0 + 2
            case "half live":
                mean = 3 * mean * live
            case "one live":
                mean = mean * (torch.arange(case.d) == 0)
            case "weak":
                mean = 1e-3 * mean
            case "huge":
                mean = 1e6 * mean
            case "1e6 apart":
                mean = mean + 1e6
            case "1e30" | "1e300":
                mean = float(case.mean) * mean
            case "denormal":
                mean = 1e-310 * mean
            case "copied axis":
                mean = mean[:, :1].expand(-1, case.d).clone()
            case "one row apart":
                mean = mean * 0 + 100 * (torch.arange(len(x)) == len(x) - 1)[:, None]
            case "integers":
                mean = mean.round()
            case "signs":
                mean = mean.sign()
            case "offset":
                mean = mean + 30
        return mean, self.scales(x, mean, live)

    def scales(self, x: Tensor, mean: Tensor, live: Tensor) -> Tensor:
        scale = torch.full_like(mean, 0.5)
        words = {
            "one": 1.0, "tiny": 1e-8, "denormal": 1e-310, "zero": 0.0, "negative": -0.5,
            "infinite": torch.inf, "NaN": torch.nan, "near one": 1 - 1e-9,
        }  # fmt: skip
        match self.case.scale:
            case "by row":
                scale = scale * (1 + torch.tanh(torch.nan_to_num(x[:, :1])).abs())
            case "by dimension":
                scale = scale * torch.logspace(-3, 1, mean.shape[1])
            case "one sharp":
                scale[-1] = 1e-12
            case "one tiny dimension":
                scale[:, 0] = 1e-12
            case "some zero":
                scale = torch.where(live > 0, scale, 0.0)
            case "half prior":
                scale = torch.where(live > 0, scale, 1.0)
            case word if word in words:
                scale = torch.full_like(mean, words[word])
            case word if word != "half":
                scale = torch.full_like(mean, float(word))
        return scale

    def faulty(self, x: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        some = torch.nan_to_num(x[:, -1]) > 0.9
        last = len(x) == self.case.n % (self.case.batch or 10**9) and self.case.batch
        match self.case.encoder:
            case "random":
                mean = mean + torch.randn_like(mean)
            case "by batch":
                mean = mean - mean.mean(dim=0)
            case "some NaN":
                mean = torch.where(some[:, None], torch.nan, mean)
            case "some infinite":
                scale = torch.where(some[:, None], torch.inf, scale)
            case "NaN always":
                mean = mean * torch.nan
            case "all but two NaN":
                mean = torch.where((x[:, 0] == x[:, 0].max())[:, None], mean, torch.nan)
            case "raises on some" if bool(some.any()):
                raise ValueError("one of those")
            case "last batch wider" if last:
                mean, scale = mean.repeat(1, 2), scale.repeat(1, 2)
            case "last batch of other dtype" if last:
                mean, scale = mean.half(), scale.half()
            case "one row less late" if self.calls > 3:
                mean, scale = mean[:-1], scale[:-1]
            case "with gradient":
                mean = mean.requires_grad_() * 1
            case "reseeds":
                torch.manual_seed(0)
                np.random.seed(0)
            case "one buffer":
                if self.buffer is None or self.buffer.shape[1:] != mean.shape[1:]:
                    self.buffer = torch.empty(4096, *mean.shape[1:], dtype=mean.dtype)
                mean = self.buffer[: len(mean)].copy_(mean)
        kind = getattr(torch, self.case.dtype)
        return mean.to(kind), scale.to(kind)

    # -- decoder ---------------------------------------------------------------------------------

    def decode(self, z: Any) -> Any:
        self.decodes += 1
        return DECODERS[self.case.decoder](self, flat(torch.as_tensor(z)))

    def shaped(self, out: Tensor) -> Tensor:
        return out.reshape(len(out), 1, 2, self.case.p) if self.case.data == "image" else out

    def linear(self, z: Tensor) -> Tensor:
        width = 2 * self.case.p if self.case.data == "image" else self.case.p
        return self.shaped(z.double() @ weights(z.shape[1], width))

    # -- the rest --------------------------------------------------------------------------------

    def _by_row(self, context: Tensor) -> Any:
        mean = (context.double() * 0.1).expand(-1, self.case.d)
        if self.case.prior == "by row NaN":
            mean = torch.where(mean > 0.05, torch.nan, mean)
        return mean, torch.full_like(mean, 0.9)

    def _log_likelihood(self, x: Any, z: Any) -> Any:
        value = -0.5 * (flat(x) - flat(self.linear(flat(z)))).square().sum(dim=1)
        match self.case.likelihood:
            case "own NaN":
                value = torch.where(flat(x)[:, 0] > 0.5, torch.nan, value)
            case "own infinite":
                value = torch.where(flat(z)[:, 0] > 0.5, -torch.inf, value)
            case "own wide":
                value = value[:, None].expand(-1, 2)
            case "own raises":
                raise RuntimeError("no")
            case "own late":
                self.decodes += 1
                if self.decodes > 3:
                    raise RuntimeError("no more")
        return value


def flat(x: Any) -> Tensor:
    tensor = torch.as_tensor(x)
    wide = tensor.reshape(len(tensor), -1)
    return wide if wide.is_complex() else wide.double()


@dataclass
class Named:
    mean: Tensor
    stddev: Tensor


def _positive(mean: Tensor) -> Tensor:
    return torch.nn.functional.softplus(mean) + 0.1


def _full(mean: Tensor, scale: Tensor, model: Model) -> Any:
    return D.MultivariateNormal(mean, torch.diag_embed(scale.square()))


def _factor(mean: Tensor, scale: Tensor, model: Model) -> Any:
    d = mean.shape[1]
    lower = torch.tril(torch.full((d, d), 0.3, dtype=mean.dtype), -1)
    return D.MultivariateNormal(mean, scale_tril=torch.diag_embed(scale) + lower)


def _mixture(mean: Tensor, scale: Tensor, model: Model) -> Any:
    means, scales = torch.stack([mean, -mean], dim=1), torch.stack([scale, scale], dim=1)
    components = D.Independent(D.Normal(means, scales), 1)
    return D.MixtureSameFamily(D.Categorical(logits=means.sum(dim=2) * 0), components)


def _mixture_of_one(mean: Tensor, scale: Tensor, model: Model) -> Any:
    components = D.Independent(D.Normal(mean[:, None], scale[:, None]), 1)
    return D.MixtureSameFamily(D.Categorical(logits=mean[:, :1] * 0), components)


def _flow(mean: Tensor, scale: Tensor, model: Model) -> Any:
    base = D.Independent(D.Normal(mean, scale), 1)
    return D.TransformedDistribution(base, [D.transforms.TanhTransform()])


def _one_hot(mean: Tensor) -> Tensor:
    return torch.stack([mean, -mean, mean * 0], dim=2)


class Net(nn.Module):
    """A module with dropout and batch norm behind the encoder of a case."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.held = model
        self.norm, self.drop = nn.BatchNorm1d(model.case.d).double(), nn.Dropout(0.5)

    def encode(self, x: Tensor) -> Any:
        mean, scale = self.held.encode(x)
        mean = self.drop(self.norm(mean.double())) if len(mean) > 1 or not self.training else mean
        return mean, scale

    def decode(self, z: Tensor) -> Any:
        return self.held.decode(self.drop(z))


class Groups:
    """Two groups of latents: the case's own and a standard one below it."""

    likelihood = ("gaussian", 0.5)

    def __init__(self, model: Model) -> None:
        self.held = model

    def encode(self, x: Tensor, draw: Any) -> None:
        mean, scale = self.held.encode(x)
        z1 = draw("a", (mean, scale), (torch.zeros_like(mean), torch.ones_like(mean)))
        below = (torch.tanh(z1.double()) * 0.5, torch.ones_like(z1.double()))
        draw("b", (below[0] + mean.double() * 0.1, below[1] * 0.4), below)

    def generate(self, draw: Any, n: int, context: Any) -> Any:
        zero = torch.zeros(n, self.held.case.d, dtype=getattr(torch, self.held.case.dtype))
        z1 = draw("a", (zero, torch.ones_like(zero)))
        z2 = draw("b", (torch.tanh(z1.double()) * 0.5, torch.ones_like(z1.double())))
        return self.held.decode(z1.double() + z2)


Make = Callable[[Tensor, Tensor, Model], Any]
FAMILIES: dict[str, Make] = {
    "pair": lambda mean, scale, _: (mean, scale),
    "module": lambda mean, scale, _: (mean, scale),
    "trained module": lambda mean, scale, _: (mean, scale),
    "chunk module": lambda mean, scale, _: (mean, scale),
    "groups": lambda mean, scale, _: (mean, scale),
    "list": lambda mean, scale, _: [mean, scale],
    "named tuple": lambda mean, scale, _: Pair(mean, scale),
    "object": lambda mean, scale, _: Named(mean, scale),
    "mixed dtypes": lambda mean, scale, _: (mean.float(), scale.double()),
    "NumPy": lambda mean, scale, _: (mean.double().numpy(), scale.double().numpy()),
    "Normal": lambda mean, scale, _: D.Normal(mean, scale),
    "Independent": lambda mean, scale, _: D.Independent(D.Normal(mean, scale), 1),
    "full": _full,
    "full of factor": _factor,
    "LowRank": lambda mean, scale, _: D.LowRankMultivariateNormal(
        mean, mean[:, :, None] * 0.1, scale.square()
    ),
    "mixture": _mixture,
    "mixture of one": _mixture_of_one,
    "flow": _flow,
    "sphere": lambda mean, scale, _: VonMisesFisher(mean, scale[:, :1]),
    "Categorical": lambda mean, scale, _: D.Categorical(logits=_one_hot(mean)),
    "OneHot": lambda mean, scale, _: D.OneHotCategorical(logits=_one_hot(mean)),
    "Bernoulli": lambda mean, scale, _: D.Bernoulli(logits=mean),
    "RelaxedOneHot": lambda mean, scale, _: D.RelaxedOneHotCategorical(
        torch.tensor(0.5).to(mean), logits=_one_hot(mean)
    ),
    "RelaxedBernoulli": lambda mean, scale, _: D.RelaxedBernoulli(
        torch.tensor(0.5).to(mean), logits=mean
    ),
    "Laplace": lambda mean, scale, _: D.Laplace(mean, scale),
    "Cauchy": lambda mean, scale, _: D.Cauchy(mean, scale),
    "StudentT": lambda mean, scale, _: D.StudentT(5.0, mean, scale),
    "Gamma": lambda mean, scale, _: D.Gamma(_positive(mean), _positive(scale)),
    "Beta": lambda mean, scale, _: D.Beta(_positive(mean), _positive(scale)),
    "Kumaraswamy": lambda mean, scale, _: D.Kumaraswamy(_positive(mean), _positive(scale)),
    "Dirichlet": lambda mean, scale, _: D.Dirichlet(_positive(mean)),
    "Uniform": lambda mean, scale, _: D.Uniform(mean, mean + scale),
    "VonMises": lambda mean, scale, _: D.VonMises(mean, scale),
    "LogNormal": lambda mean, scale, _: D.LogNormal(mean, scale),
    "Poisson": lambda mean, scale, _: D.Poisson(_positive(mean)),
    "spatial": lambda mean, scale, _: (mean[:, :, None, None], scale[:, :, None, None]),
    "three axes": lambda mean, scale, _: (mean[:, None], scale[:, None]),
    "one axis": lambda mean, scale, _: (mean[:, 0], scale[:, 0]),
}  # fmt: skip


# -- decoders --------------------------------------------------------------------------------------


def _raises(model: Model, z: Tensor) -> Any:
    raise ZeroDivisionError("the decoder")


def _late(good: str, bad: Callable[[Model, Tensor], Any]) -> Callable[[Model, Tensor], Any]:
    def decode(model: Model, z: Tensor) -> Any:
        return bad(model, z) if model.decodes > 4 else DECODERS[good](model, z)

    return decode


def _writes(model: Model, z: Tensor) -> Tensor:
    out = model.linear(z)
    z.zero_()
    return out


def _inference(model: Model, z: Tensor) -> Tensor:
    with torch.inference_mode():
        return model.linear(z)


def _where(z: Tensor, bad: float, out: Tensor) -> Tensor:
    far = (z[:, :1] > 0.7).reshape(-1, *[1] * (out.ndim - 1))
    return torch.where(far, bad, out)


DECODERS: dict[str, Callable[[Model, Tensor], Any]] = {
    "none": _raises,
    "linear": Model.linear,
    "constant": lambda m, z: m.linear(z) * 0 + 0.25,
    "identity": lambda m, z: z,
    "quadratic": lambda m, z: m.linear(z.square()),
    "integers": lambda m, z: m.linear(z).long(),
    "bool": lambda m, z: m.linear(z) > 0,
    "complex": lambda m, z: m.linear(z) + 1j,
    "random": lambda m, z: m.linear(z) + torch.randn_like(m.linear(z)),
    "own noise": lambda m, z: torch.randn_like(m.linear(z)),
    "raises": _raises,
    "raises late": _late("linear", _raises),
    "raises on some": lambda m, z: m.linear(z) if bool((z < 1.5).all()) else _raises(m, z),
    "wrong shape late": _late("linear", lambda m, z: m.linear(z)[..., :-1]),
    "NaN on some": lambda m, z: _where(z, torch.nan, m.linear(z)),
    "NaN always": lambda m, z: m.linear(z) * torch.nan,
    "infinite on some": lambda m, z: _where(z, torch.inf, m.linear(z)),
    "huge": lambda m, z: m.linear(z) * 1e30,
    "1e300": lambda m, z: m.linear(z) * 1e300,
    "tiny": lambda m, z: m.linear(z) * 1e-30,
    "denormal": lambda m, z: m.linear(z) * 1e-310,
    "steps": lambda m, z: m.linear(z).round(),
    "threshold": lambda m, z: (m.linear(z) > 0).double(),
    "one dimension": lambda m, z: m.linear(z * (torch.arange(z.shape[1]) == 0)),
    "NumPy": lambda m, z: m.linear(z).numpy(),
    "float16": lambda m, z: m.linear(z).half(),
    "with gradient": lambda m, z: m.linear(z).requires_grad_() * 1,
    "no grad": lambda m, z: m.linear(z.detach()).detach(),
    "inference mode": _inference,
    "Normal": lambda m, z: D.Normal(m.linear(z), 0.5),
    "Normal of scale": lambda m, z: D.Normal(m.linear(z), m.linear(z).abs() + 1e-3),
    "broken Normal late": _late("Normal", lambda m, z: D.Normal(m.linear(z), -1.0)),
    "Laplace": lambda m, z: D.Laplace(m.linear(z), 0.5),
    "StudentT": lambda m, z: D.StudentT(1.0, m.linear(z), 0.5),
    "Bernoulli": lambda m, z: D.Bernoulli(logits=m.linear(z)),
    "logits": lambda m, z: m.linear(z),
    "sigmoid": lambda m, z: m.linear(z).sigmoid(),
    "saturated": lambda m, z: (m.linear(z) * 1e3).sigmoid().round(),
    "classes": lambda m, z: torch.stack([m.linear(z), -m.linear(z), m.linear(z) * 0], dim=1),
    "two things": lambda m, z: (m.linear(z), m.linear(z)),
    "writes": _writes,
    "negative": lambda m, z: -m.linear(z),
    "far": lambda m, z: m.linear(z) + 1e9,
}


# -- priors and likelihoods ------------------------------------------------------------------------


class Opaque:
    """A prior of which only log_prob and sample are known."""

    def __init__(self, d: int, broken: bool = False) -> None:
        self.law = D.Independent(D.Normal(torch.zeros(d).double(), 1.5), 1)
        self.broken = broken

    def log_prob(self, z: Tensor) -> Tensor:
        value = self.law.log_prob(z)
        return torch.where(value < value.median(), torch.nan, value) if self.broken else value

    def sample(self, shape: Any) -> Tensor:
        return self.law.sample(shape)


def prior_of(case: Case) -> Any:
    """The argument `prior` of a case; called where errors of making it count as torch's own."""
    zero, one = torch.zeros(case.d).double(), torch.ones(case.d).double()
    steps = torch.linspace(-1, 1, case.d).double()
    means = torch.stack([zero - 1, zero + 1, steps])
    made: dict[str, Callable[[], Any]] = {
        "none": lambda: None,
        "by row": lambda: None,
        "by row NaN": lambda: None,
        "standard": lambda: (zero, one),
        "learned": lambda: (steps, one + 0.5 * steps),
        "wide": lambda: (zero, one * 50),
        "narrow": lambda: (zero, one * 0.02),
        "far": lambda: (zero + 1e4, one),
        "1e-30": lambda: (zero, one * 1e-30),
        "1e30": lambda: (zero, one * 1e30),
        "1e300": lambda: (zero, one * 1e300),
        "Normal": lambda: D.Normal(steps, one * 2),
        "MVN": lambda: D.MultivariateNormal(zero, torch.eye(case.d).double() + 0.5),
        "mixture": lambda: D.MixtureSameFamily(
            D.Categorical(torch.tensor([0.5, 0.3, 0.2]).double()),
            D.Independent(D.Normal(means, 0.7), 1),
        ),
        "mixture of one": lambda: D.MixtureSameFamily(
            D.Categorical(torch.ones(1).double()), D.Independent(D.Normal(zero[None], 1.0), 1)
        ),
        "flow": lambda: D.TransformedDistribution(
            D.Independent(D.Normal(zero, one), 1),
            [D.transforms.TanhTransform(), D.transforms.AffineTransform(zero, 4.0)],
        ),
        "object": lambda: Opaque(case.d),
        "broken object": lambda: Opaque(case.d, True),
        "Laplace": lambda: D.Laplace(zero, 1.0),
        "uniform": lambda: D.Uniform(zero - 3, zero + 3),
        "Categorical": lambda: D.Categorical(logits=torch.zeros(case.d, 3).double()),
        "zero scale": lambda: (zero, zero),
        "NaN mean": lambda: (zero * torch.nan, one),
        "other dimensions": lambda: (torch.zeros(case.d + 2), torch.ones(case.d + 2)),
        "word": lambda: "standard",
    }
    return made[case.prior]()


def likelihood_of(case: Case) -> Any:
    word, _, value = case.likelihood.partition(" ")
    if word == "none" or word == "own":
        return None
    return (word, float(value)) if value else word


def model_of(case: Case) -> Any:
    """What is handed to the audit."""
    model = Model(case)
    match case.family:
        case "module":
            return Net(model).eval()
        case "trained module":
            return Net(model).train()
        case "chunk module":
            # Functions are handed in alone: no condition comes with them.
            return (
                (model.encode, lambda z: Model.decode(model, z)) if model.decode else model.encode
            )
        case "groups":
            return Groups(model)
    return model


def arguments(case: Case) -> dict[str, Any]:
    """What else is handed to it."""
    given: dict[str, Any] = {
        "parameterisation": case.parameterisation, "prior": prior_of(case),
        "likelihood": likelihood_of(case), "beta": case.beta, "seed": case.seed,
        "batch": case.batch, "population": case.population, "shards": case.shards,
        "on_bad_sample": case.policy, "probes": ALL if case.probes < 0 else SOME[case.probes],
    }  # fmt: skip
    if case.labels:
        given["labels"] = np.arange(case.n) % 3
    return given
