"""Which KL a training log shows, and which beta the training therefore had.

A logged KL is a rate after whatever the loss did to it: a mean over dimensions instead of their
sum, a mean over pixels, a missing one half, bits. Each multiplies by a number that is known, so the
log tells which it was.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from decimal import Decimal, InvalidOperation

import pandas as pd

from collapsekit.errors import InputError
from collapsekit.number import Number
from collapsekit.results import Audit

RIGHT = "sum over dimensions, mean over samples"
_NO_HALF = ", without the 1/2"
_WIDTH = 88


@dataclass(frozen=True)
class Reduction:
    """One way to log a KL, and what follows from it.

    Attributes
    ----------
    name : str
        In words; `RIGHT` is the KL term of the ELBO.
    factor : float
        Logged KL over rate.
    expected, low, high : float
        What the log would show for this audit's rate and its interval.
    agrees : bool
        Whether the logged number, as rounded, lies in that interval.
    steps : int
        Departures from `RIGHT` that it takes; fewer are likelier.
    beta : float
        The weight in nats that the training gave the KL, beside a reconstruction term that is
        summed over the values of an input as the ELBO has it; NaN without a `kl_weight`.
    beta_if_mean : float
        The same where the reconstruction term is a mean over these values; NaN where their number
        is unknown.
    """

    name: str
    factor: float
    expected: float
    low: float
    high: float
    agrees: bool
    steps: int
    beta: float
    beta_if_mean: float


@dataclass(frozen=True)
class LoggedLoss:
    """What `explain_loss` found; text when printed.

    Attributes
    ----------
    logged_kl : float
    kl_weight : float or None
    rate : Number
        The audit's, in nats.
    declared : float or None
        The beta that the audit was told.
    dimensions : int
    values : int or None
        Numbers in one input.
    candidates : tuple of Reduction
        Everything that was tried, those that agree first, then by distance.
    """

    logged_kl: float
    kl_weight: float | None
    rate: Number
    declared: float | None
    dimensions: int
    values: int | None
    candidates: tuple[Reduction, ...]

    @property
    def matches(self) -> tuple[Reduction, ...]:
        """Those that agree; several where the numbers cannot tell them apart."""
        return tuple(candidate for candidate in self.candidates if candidate.agrees)

    @property
    def table(self) -> pd.DataFrame:
        """A row per candidate, indexed by its name."""
        return pd.DataFrame([asdict(c) for c in self.candidates]).set_index("name")

    def __str__(self) -> str:
        return "\n".join(
            textwrap.fill(line, _WIDTH, subsequent_indent="  ") for line in self._lines()
        )

    __repr__ = __str__

    def _lines(self) -> Iterator[str]:
        matches = self.matches
        yield (
            f"Logged KL {self.logged_kl:g}; the audit's rate is {self.rate.digits()} nats"
            f"{self.rate.interval()} a sample, summed over {self.dimensions:,} dimensions."
        )
        if not matches:
            near = self.candidates[0]
            yield (
                "No known reduction matches. Nearest: "
                f"{near.name}, which would show {_short(near.expected)}."
            )
            if self.rate.value > 0:
                yield f"The log shows {_short(self.logged_kl / self.rate.value)} times the rate."
            yield (
                "A sum over a batch shows the batch "
                "size times; a log of other data, of an earlier step or of a moving average, of "
                "free bits, or a KL to another prior show anything."
            )
        elif len(matches) == 1:
            yield f"It is: {matches[0].name} (would show {_short(matches[0].expected)})."
        else:
            yield "The numbers cannot tell these apart:"
            for match in matches:
                yield f"  {match.name} (would show {_short(match.expected)})"
        yield from (line for match in matches for line in self._beta(match, len(matches) > 1))
        declared = None if self.kl_weight is None or not matches else self.declared
        if declared is not None and not any(_near(match.beta, declared) for match in matches):
            yield f"The audit was told beta {declared:g}."
        if self.values is None:
            yield "Means over an input's values were not tried: pass values, their number."

    def _beta(self, match: Reduction, several: bool) -> Iterator[str]:
        if self.kl_weight is None:
            return
        lead = f"If {match.name}: effective" if several else "Effective"
        yield (
            f"{lead} beta {_short(match.beta)} (KL weight {self.kl_weight:g} times "
            f"{_short(match.factor)}) with a reconstruction term summed over an input's values"
            + (
                f"; {_short(match.beta_if_mean)} with one averaged over its {self.values:,}."
                if self.values
                else "; that many times the number of values with one averaged over them."
            )
        )
        if _NO_HALF in match.name:
            yield "Half of that where a squared error beside it lacks its 1/2 as well."


def explain_loss(
    audit: Audit,
    *,
    logged_kl: float | str,
    kl_weight: float | None = None,
    values: int | None = None,
) -> LoggedLoss:
    """Tell which reduction a logged KL matches, and the effective beta that follows.

    Parameters
    ----------
    audit : Audit
        Of the model that was logged, on the data that were logged (or like them).
    logged_kl : float or str
        As the log prints it: it counts as rounded at its last digit, so that 0.33 is anything from
        0.325 to 0.335. Text keeps a trailing zero: ``"0.330"``.
    kl_weight : float, optional
        What the training multiplied its KL by, at that step.
    values : int, optional
        Numbers in one input (784 for a 28 x 28 image), for means over pixels; read off the audit's
        gallery where it has one.

    Returns
    -------
    LoggedLoss
        Every reduction that agrees with the rate within its interval: sum over dimensions (the
        KL of the ELBO), mean over dimensions, over an input's values, over both; each also
        without the one half of the Gaussian KL, in bits, and already multiplied by `kl_weight`.

    Raises
    ------
    InputError
        The audit has no rate, or an argument is no number.

    Notes
    -----
    With a reconstruction term summed over an input's P values, a KL that is f times the rate and
    has the weight w trains the objective of beta = w f; with a mean over the values, of w f P. A
    training that logs 0.5 for a true 16 nats over 32 dimensions at weight 1 runs at beta = 1/32.
    """
    shown, rounding = _read(logged_kl, "the logged KL")
    weight = None if kl_weight is None else _read(kl_weight, "the KL weight")[0]
    rate = audit.number("rate")
    if not rate.known:
        raise InputError(
            "this audit has no rate to hold the log against",
            got="rate: not measured",
            expected="an audit whose posteriors have a mean and a scale",
            remedy=audit.skipped.get("kl", "see audit.findings"),
        )
    size = _values(audit) if values is None else _counted(values)
    dimensions = len(audit.dimensions)
    bounded = math.isfinite(rate.low) and math.isfinite(rate.high)
    low, high = (rate.low, rate.high) if bounded else (rate.value, rate.value)
    candidates = []
    for name, factor, steps in _factors(dimensions, size, weight):
        candidate = Reduction(
            name=name,
            factor=factor,
            expected=factor * rate.value,
            low=factor * low,
            high=factor * high,
            agrees=factor * low <= shown + rounding and shown - rounding <= factor * high,
            steps=steps,
            beta=math.nan if weight is None else weight * _unweighted(name, factor, weight),
            beta_if_mean=math.nan
            if weight is None or size is None
            else weight * _unweighted(name, factor, weight) * size,
        )
        candidates.append(candidate)
    candidates.sort(key=lambda c: (not c.agrees, c.steps if c.agrees else _distance(c, shown)))
    declared = audit.provenance.get("beta")
    return LoggedLoss(
        logged_kl=shown,
        kl_weight=weight,
        rate=rate,
        declared=float(declared) if isinstance(declared, int | float) else None,
        dimensions=dimensions,
        values=size,
        candidates=tuple(candidates),
    )


_WEIGHTED = ", already times the KL weight"


def _factors(
    dimensions: int, values: int | None, weight: float | None
) -> Iterator[tuple[str, float, int]]:
    """Names of the reductions, what they multiply a rate by, and how many slips they take."""
    reductions = [(RIGHT, 1.0, 0), ("mean over dimensions and samples", 1 / dimensions, 1)]
    if values is not None:
        reductions += [
            ("mean over the input's values and samples", 1 / values, 1),
            ("mean over dimensions, the input's values and samples", 1 / (dimensions * values), 2),
        ]
    formulae = [("", 1.0, 0), (_NO_HALF, 2.0, 1), (", in bits", 1 / math.log(2), 1)]
    weights = [("", 1.0, 0)]
    if weight is not None and weight not in (0.0, 1.0):
        weights.append((_WEIGHTED, weight, 1))
    for reduction, by, first in reductions:
        for formula, times, second in formulae:
            for weighted, again, third in weights:
                yield f"{reduction}{formula}{weighted}", by * times * again, first + second + third


def _unweighted(name: str, factor: float, weight: float) -> float:
    # The weight is in the logged number already; the objective multiplies by it once.
    return factor / weight if name.endswith(_WEIGHTED) else factor


def _distance(candidate: Reduction, shown: float) -> float:
    if candidate.expected <= 0 or shown <= 0:
        return abs(candidate.expected - shown)
    return abs(math.log(shown / candidate.expected))


def _read(number: float | str, what: str) -> tuple[float, float]:
    """A number and half a unit of its last printed digit."""
    try:
        exact = Decimal(str(number).strip())
    except InvalidOperation:
        exact = Decimal("nan")
    exponent = exact.as_tuple().exponent
    if not exact.is_finite() or not isinstance(exponent, int):
        raise InputError(
            f"{what} is not a number",
            got=repr(number),
            expected="a finite number, such as 0.33",
            remedy="copy it from the log as it is printed there",
        )
    return float(exact), 0.5 * 10.0**exponent


def _counted(values: int) -> int:
    if isinstance(values, bool) or not isinstance(values, int) or values < 1:
        raise InputError(
            "the number of values in an input is not a count",
            got=repr(values),
            expected="a whole number above 0, such as 784 for a 28 x 28 image",
            remedy="x[0].size",
        )
    return values


def _values(audit: Audit) -> int | None:
    """Numbers in one input, from the pictures that an audit keeps."""
    for name, lead in (("gallery_inputs", 1), ("collision_inputs", 2)):
        array = audit.arrays.get(name)
        if array is not None and array.ndim > lead and array.size:
            return math.prod(array.shape[lead:])
    return None


def _near(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=0.02)


def _short(number: float) -> str:
    return f"{number:.4g}"
