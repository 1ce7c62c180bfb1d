"""Posteriors of known answer, each worked out here in two independent ways in float64.

Closed form against quadrature, or quadrature against another quadrature; the two agree to 1e-7
before the audit is held against them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

import collapsekit as ck
from collapsekit.results import Audit
from tests import models

N = 2_000
Pair = tuple[float, float]
GRID = np.linspace(-14, 14, 112_001)
NORMAL = scipy.stats.norm


@dataclass(frozen=True)
class Case:
    make: Callable[[int], models.Arrays]
    information: Callable[[], Pair]
    rate: Callable[[], Pair]
    prior: tuple[float, float] | None = None


def kl(mean: float, variance: float) -> float:
    """KL of N(mean, variance) from N(0, 1), closed."""
    return 0.5 * (mean**2 + variance - 1 - math.log(variance))


def kl_by_quadrature(mean: float, scale: float) -> float:
    q = NORMAL.pdf(GRID, mean, scale)
    return integral(q * (NORMAL.logpdf(GRID, mean, scale) - NORMAL.logpdf(GRID)))


def integral(values: np.ndarray, grid: np.ndarray = GRID) -> float:
    return float(scipy.integrate.simpson(values, x=grid))


def entropy(density: np.ndarray, grid: np.ndarray = GRID) -> float:
    return -integral(scipy.special.xlogy(density, density), grid)


def width_entropy(scale: float, dims: int = 1) -> float:
    """Differential entropy of N(m, scale^2 I)."""
    return dims * (0.5 * math.log(2 * math.pi * math.e) + math.log(scale))


def mixture(means: list[float], weights: list[float], scale: float) -> np.ndarray:
    return sum(
        (w * NORMAL.pdf(GRID, m, scale) for m, w in zip(means, weights, strict=True)),
        start=np.zeros_like(GRID),
    )


# -- information and rate, twice each --------------------------------------------------------------

SYMBOLS, CHANCES = [-3.0, -1.0, 1.0, 3.0], [0.5, 0.25, 0.125, 0.125]


def symbols_information() -> Pair:
    # Codes 100 widths apart: the information is the entropy of the symbols, 1.75 bits.
    return 1.75 * math.log(2), entropy(mixture(SYMBOLS, CHANCES, 0.02)) - width_entropy(0.02)


def symbols_rate() -> Pair:
    closed = sum(p * kl(m, 0.02**2) for m, p in zip(SYMBOLS, CHANCES, strict=True))
    brute = sum(p * kl_by_quadrature(m, 0.02) for m, p in zip(SYMBOLS, CHANCES, strict=True))
    return closed, brute


def coin_information() -> Pair:
    # ln 2 - E ln(1 + e^-2(1 + u)), u ~ N(0, 1), by Gauss and Hermite
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    told = np.logaddexp(0.0, -2 * (1 + nodes))
    hermite = math.log(2) - float((weights * told).sum() / math.sqrt(2 * math.pi))
    return hermite, entropy(mixture([-1.0, 1.0], [0.5, 0.5], 1.0)) - width_entropy(1.0)


def off_unit_both() -> Pair:
    # In units of the prior: mu ~ N(0, 0.6), sigma^2 = 0.4; the aggregate is the prior.
    spread = NORMAL.pdf(GRID, 0, math.sqrt(0.6))
    return 0.5 * math.log(1 / 0.4), integral(spread * 0.5 * (GRID**2 + 0.4 - 1 - math.log(0.4)))


def laplace_information() -> Pair:
    b, s = 0.6, 0.5
    # Laplace plus Gaussian in closed form (two scaled complementary error functions) ...
    gaussian = np.exp(-(GRID**2) / (2 * s**2))
    sides = [scipy.special.erfcx((s / b + sign * GRID / s) / math.sqrt(2)) for sign in (-1, 1)]
    with np.errstate(over="ignore", invalid="ignore"):
        density = np.nan_to_num(gaussian * (sides[0] + sides[1]) / (4 * b))
    far = abs(GRID) > 6  # there erfcx overflows against exp's underflow; the tail is exponential
    density[far] = np.exp(0.5 * (s / b) ** 2 - abs(GRID[far]) / b) / (2 * b)
    # ... and as the entropy of a scale mixture: Laplace is Gaussian with exponential variance.
    grid = np.linspace(-14, 14, 14_001)
    t, w = np.polynomial.legendre.leggauss(400)
    t, w = 0.5 * (t + 1), 0.5 * w
    variance = 2 * b**2 * (t / (1 - t)) ** 2  # v / 2 b^2 exponential; u = (t / (1 - t))^2
    jacobian = 2 * t / (1 - t) ** 3
    other = np.zeros_like(grid)
    for v, weight in zip(variance, w * jacobian * np.exp(-variance / (2 * b**2)), strict=True):
        other += weight * NORMAL.pdf(grid, 0, math.sqrt(v + s**2))
    return entropy(density) - width_entropy(s), entropy(other, grid) - width_entropy(s)


def laplace_rate() -> Pair:
    b, s = 0.6, 0.5
    density = scipy.stats.laplace.pdf(GRID, 0, b)
    return kl(math.sqrt(2) * b, s**2), integral(density * 0.5 * GRID**2) + kl(0.0, s**2)


def equicorrelated_information() -> Pair:
    covariance = models.EQUICORRELATED
    whole = 0.5 * np.linalg.slogdet(np.eye(3) + covariance / 0.2)[1]
    # the chain rule: what each dimension adds, given those before it
    aggregate, chain = covariance + 0.2 * np.eye(3), 0.0
    for j in range(3):
        before, cross = aggregate[:j, :j], aggregate[:j, j]
        left = aggregate[j, j] - (cross @ np.linalg.solve(before, cross) if j else 0.0)
        chain += 0.5 * math.log(left / 0.2)
    return float(whole), chain


def equicorrelated_rate() -> Pair:
    return 3 * kl(math.sqrt(0.8), 0.2), 1.5 * math.log(1 / 0.2)


def half_sharp_both() -> Pair:
    # The aggregate is the prior, so information and rate are one; 0.25 ln 10^4 in closed form.
    spread = NORMAL.pdf(GRID, 0, math.sqrt(1 - 1e-4))
    brute = 0.5 * integral(spread * 0.5 * (GRID**2 + 1e-4 - 1 - math.log(1e-4)))
    return 0.25 * math.log(1e4), brute


def classes_information() -> Pair:
    # Three independent dimensions with codes at -1 and 1, twenty widths apart: ln 2 each.
    one = entropy(mixture([-1.0, 1.0], [0.5, 0.5], 0.1)) - width_entropy(0.1)
    return math.log(8), 3 * one


def classes_rate() -> Pair:
    return 3 * kl(1.0, 0.01), 3 * kl_by_quadrature(-1.0, 0.1)


def repeated_information() -> Pair:
    places = [k - 9.5 for k in range(20)]
    return math.log(20), entropy(mixture(places, [0.05] * 20, 0.05)) - width_entropy(0.05)


def repeated_rate() -> Pair:
    places = [k - 9.5 for k in range(20)]
    # the mean of squares of 20 steps about their centre is (20^2 - 1) / 12
    closed = kl(math.sqrt(399 / 12), 0.05**2)
    return closed, sum(kl_by_quadrature(m, 0.05) for m in places) / 20


NU, TAU2 = 5.0, 0.3


def student_information() -> Pair:
    digamma = scipy.special.digamma
    spread = (NU + 1) / 2 * (digamma((NU + 1) / 2) - digamma(NU / 2))
    spread += 0.5 * math.log(NU * TAU2) + scipy.special.betaln(NU / 2, 0.5)
    log_variance = math.log(NU * TAU2 / 2) - digamma(NU / 2)
    closed = spread - 0.5 * (math.log(2 * math.pi * math.e) + log_variance)
    aggregate = scipy.stats.t(NU, scale=math.sqrt(TAU2))
    widths = scipy.stats.invgamma(NU / 2, scale=NU * TAU2 / 2)
    mean_log = widths.expect(np.log, epsabs=1e-12, epsrel=1e-12)
    brute = aggregate.entropy() - 0.5 * (math.log(2 * math.pi * math.e) + mean_log)
    return float(closed), float(brute)


def student_rate() -> Pair:
    log_variance = math.log(NU * TAU2 / 2) - scipy.special.digamma(NU / 2)
    closed = 0.5 * (NU * TAU2 / (NU - 2) - 1 - log_variance)
    widths = scipy.stats.invgamma(NU / 2, scale=NU * TAU2 / 2)
    brute = widths.expect(lambda v: 0.5 * (v - 1 - np.log(v)), epsabs=1e-12, epsrel=1e-12)
    return float(closed), float(brute)


def ring_information() -> Pair:
    r, s = 1.2, 0.3
    radius = np.linspace(0, 6, 12_001)

    def density(rho: np.ndarray) -> np.ndarray:
        bessel = scipy.special.ive(0, r * rho / s**2)
        return np.exp(-((rho - r) ** 2) / (2 * s**2)) * bessel / (2 * math.pi * s**2)

    p = density(radius)
    radial = -integral(2 * math.pi * radius * scipy.special.xlogy(p, p), radius)
    # by brute force: 720 posteriors round the circle, on a plane grid (both rules converge fast)
    side = np.linspace(-4, 4, 321)
    angles = 2 * math.pi * np.arange(720) / 720
    along = NORMAL.pdf(side[:, None], r * np.cos(angles), s)
    across = NORMAL.pdf(side[:, None], r * np.sin(angles), s)
    plane = along @ across.T / 720
    brute = -float(scipy.special.xlogy(plane, plane).sum()) * (side[1] - side[0]) ** 2
    return radial - width_entropy(s, 2), brute - width_entropy(s, 2)


def ring_rate() -> Pair:
    by_angle = [
        kl_by_quadrature(1.2 * math.cos(a), 0.3) + kl_by_quadrature(1.2 * math.sin(a), 0.3)
        for a in (0.3, 1.9)
    ]
    return kl(1.2, 0.09) + kl(0.0, 0.09), float(np.mean(by_angle))


def uniform_information() -> Pair:
    a, s = 1.7, 0.2
    density = (NORMAL.cdf((GRID + a) / s) - NORMAL.cdf((GRID - a) / s)) / (2 * a)
    nodes, weights = np.polynomial.legendre.leggauss(400)
    other = np.zeros(7_001)
    grid = np.linspace(-14, 14, 7_001)
    for node, weight in zip(nodes, weights, strict=True):
        other += 0.5 * weight * NORMAL.pdf(grid, a * node, s)
    return entropy(density) - width_entropy(s), entropy(other, grid) - width_entropy(s)


def uniform_rate() -> Pair:
    nodes, weights = np.polynomial.legendre.leggauss(60)
    brute = sum(0.5 * w * kl(1.7 * x, 0.04) for x, w in zip(nodes, weights, strict=True))
    return kl(1.7 / math.sqrt(3), 0.04), float(brute)


def one_of_three_information() -> Pair:
    # 0.25 of the first dimension's variance is width; the other two say nothing.
    aggregate = NORMAL.pdf(GRID, 0, math.sqrt(0.75 + 0.25))
    return math.log(2), entropy(aggregate) - width_entropy(0.5)


def one_of_three_rate() -> Pair:
    closed = math.log(2) + kl(0.0, 0.16) + kl(1.5, 1.0)
    spread = NORMAL.pdf(GRID, 0, math.sqrt(0.75))
    first = integral(spread * 0.5 * (GRID**2 + 0.25 - 1 - math.log(0.25)))
    return closed, first + kl_by_quadrature(0.0, 0.4) + kl_by_quadrature(1.5, 1.0)


CASES = {
    "four symbols": Case(models.four_symbols, symbols_information, symbols_rate),
    "a coin": Case(models.coin, coin_information, lambda: (0.5, kl_by_quadrature(1.0, 1.0))),
    "prior N(1, 4)": Case(models.off_unit, off_unit_both, off_unit_both, prior=(1.0, 2.0)),
    "Laplace": Case(models.laplace, laplace_information, laplace_rate),
    "equicorrelated": Case(models.equicorrelated, equicorrelated_information, equicorrelated_rate),
    "rotated": Case(models.rotated, equicorrelated_information, equicorrelated_rate),
    "half sharp": Case(models.half_sharp, half_sharp_both, half_sharp_both),
    "eight classes": Case(models.classes, classes_information, classes_rate),
    "twenty, repeated": Case(models.repeated, repeated_information, repeated_rate),
    "Student": Case(models.student, student_information, student_rate),
    "a ring": Case(models.ring, ring_information, ring_rate),
    "uniform": Case(models.uniform, uniform_information, uniform_rate),
    "one of three": Case(models.one_of_three, one_of_three_information, one_of_three_rate),
}


@pytest.fixture(scope="module")
def audits() -> dict[str, Audit]:
    found = {}
    for name, case in CASES.items():
        mean, scale = case.make(N)
        prior = None
        if case.prior is not None:
            prior = tuple(np.full(mean.shape[1], value) for value in case.prior)
        both = {"mean": mean, "scale": scale}
        found[name] = ck.audit(lambda x: (x["mean"], x["scale"]), both, prior=prior)
    return found


@pytest.mark.parametrize("name", CASES)
def test_both_ways_agree(name: str) -> None:
    for pair in (CASES[name].information(), CASES[name].rate()):
        assert pair[0] == pytest.approx(pair[1], abs=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_the_audit_finds_it(name: str, audits: dict[str, Audit]) -> None:
    information, rate = CASES[name].information()[0], CASES[name].rate()[0]
    number = audits[name].number("mutual_information")
    assert number.low - 1e-6 <= information <= number.high + 1e-6
    error = (number.high - number.low) / 4  # two standard errors on each side
    assert abs(number.value - information) <= 4 * error + 1e-4
    found = audits[name].number("rate")
    error = (found.high - found.low) / (2 * 1.959963984540054)
    assert abs(found.value - rate) <= 4 * error + 1e-8


def test_total_correlation_of_three(audits: dict[str, Audit]) -> None:
    aggregate = models.EQUICORRELATED + 0.2 * np.eye(3)  # unit variances
    closed = -0.5 * np.linalg.slogdet(aggregate)[1]
    eigenvalues = np.array([1 - 0.48, 1 - 0.48, 1 + 2 * 0.48])
    assert closed == pytest.approx(-0.5 * np.log(eigenvalues).sum(), abs=1e-12)
    number = audits["equicorrelated"].number("total_correlation")
    assert number.low <= closed <= number.high


def test_classes_share_their_code(audits: dict[str, Audit]) -> None:
    share = audits["eight classes"].samples["reidentification"]
    np.testing.assert_allclose(share, 8 / N, rtol=1e-3)
    share = audits["twenty, repeated"].samples["reidentification"]
    np.testing.assert_allclose(share, 20 / N, rtol=5e-3)


def test_a_ring_is_no_redundancy(audits: dict[str, Audit]) -> None:
    # One angle behind two dimensions, yet neither mean is a linear function of the other.
    assert audits["a ring"].number("redundant_dimensions").value == 0


def test_what_every_sample_pays_alike(audits: dict[str, Audit]) -> None:
    audit = audits["one of three"]
    assert audit.dimensions["shrunk"].tolist() == [False, True, True]
    finding = next(f for f in audit.findings if f.code == "CK610")
    assert finding.severity is ck.Severity.WARN
    assert finding.dimensions == (1, 2)
    spent = kl(0.0, 0.16) + kl(1.5, 1.0)
    assert f"spend {spent:.2f} nats" in finding.message
    assert audit.verdict.name == "partial"


def test_one_sample_does_not_count_passive_dimensions() -> None:
    audit = ck.audit(lambda x: (x, 0 * x + 0.1), np.zeros((1, 3)))
    number = audit.number("passive_dimensions")
    assert (number.low, number.high) == (0, 3)
