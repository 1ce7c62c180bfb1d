"""A measured number with its unit, its interval and the count behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from collapsekit.errors import InputError

#: Two-sided 95 % quantile of the standard normal.
Z95 = 1.959963984540054

#: Which way a headline is better.
Better = Literal["up", "down", "neither"]


@dataclass(frozen=True)
class Headline:
    """A number of the summary and how it is told; the probe that gives it declares it.

    Parameters
    ----------
    name : str
    title : str
        What a report calls it.
    better : {"up", "down", "neither"}
        Which way is better, by which two audits are compared. Neither where more of it is good for
        one purpose and bad for another (the rate), or where its units may be chosen at will.

    Raises
    ------
    InputError
        `better` is none of these.
    """

    name: str
    title: str
    better: Better

    def __post_init__(self) -> None:
        if self.better not in get_args(Better):
            raise InputError(
                f"the headline {self.name!r} does not say which way is better",
                got=repr(self.better)[:80],
                expected='"up", "down" or "neither"',
                remedy='declare one of them; "neither" where it depends on the purpose',
            )


@dataclass(frozen=True)
class Number:
    """One headline: value, interval, unit, n.

    Parameters
    ----------
    name : str
        The field's standard term; the glossary of the documentation lists all.
    value : float
        NaN where it could not be measured; a finding then says why.
    low, high : float
        Ends of the interval named in `note` (95 % unless it says otherwise); NaN without one.
    unit : str
        ``"nats"``, ``"dimensions"``, ``"share"``, ``"squared error"`` or ``"1"`` for a pure ratio.
    n : int
        Samples, or draws, that the value rests on.
    note : str
        What the interval is, and what a reader must know to quote the value.

    Examples
    --------
    >>> float(Number("rate", 2.5, 2.4, 2.6, "nats", 1000, "95 % interval, normal"))
    2.5
    """

    name: str
    value: float
    low: float
    high: float
    unit: str
    n: int
    note: str = ""

    def __post_init__(self) -> None:
        # A bound of 2 dimensions is 2.0 in a file, and has to be equal when it comes back.
        for name in ("value", "low", "high"):
            object.__setattr__(self, name, float(getattr(self, name)))

    def __float__(self) -> float:
        return float(self.value)

    @property
    def known(self) -> bool:
        """Whether there is a value at all."""
        return math.isfinite(self.value)

    @property
    def measured(self) -> bool:
        """Whether anything is known: the value, or an end of its interval."""
        return any(math.isfinite(part) for part in (self.value, self.low, self.high))

    def told(self) -> Number:
        """As it is told: an infinite part overflowed, and tells no more than one that is missing.

        Judgements are made before: an infinite upper end is above every threshold.
        """
        value, low, high = (
            math.nan if math.isinf(part) else part for part in (self.value, self.low, self.high)
        )
        return replace(self, value=value, low=low, high=high)

    def straddles(self, threshold: float) -> bool:
        """Whether the interval has `threshold` strictly inside, so that it decides nothing."""
        return self.low < threshold < self.high

    def __str__(self) -> str:
        if not self.known:
            return f"{self.name}: not measured"
        unit = "" if self.unit == "1" else f" {self.unit}"
        return f"{self.name} = {self.digits()}{unit}{self.interval()} (n = {self.n:,})"

    def interval(self) -> str:
        """`` [low, high]`` with no more digits than the interval supports, or nothing."""
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            return ""
        places = self._places()
        return f" [{self.low:.{places}f}, {self.high:.{places}f}]"

    def digits(self) -> str:
        """The value alone, rounded to what its interval supports."""
        return f"{self.value:.{self._places()}f}" if self.known else "NA"

    def _places(self) -> int:
        # Two significant digits of the interval's half-width: more would be noise.
        half = (self.high - self.low) / 2
        if not math.isfinite(half) or half <= 0:
            whole = self.unit == "dimensions" and float(self.value).is_integer()
            return 0 if whole else 3
        if self.unit == "dimensions" and all(
            float(end).is_integer() for end in (self.value, self.low, self.high)
        ):
            return 0
        return min(max(1 - math.floor(math.log10(half * (1 + 1e-9))), 0), 6)
