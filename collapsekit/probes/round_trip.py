"""Round trip: decode a code, encode the result, and see whether the code comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from collapsekit.errors import Unavailable
from collapsekit.findings import Code, Evidence, Finding, Severity
from collapsekit.intervals import jackknife_number
from collapsekit.number import Headline, Number
from collapsekit.observation import Observation, Source
from collapsekit.population import Population
from collapsekit.probe import States
from collapsekit.results import Result
from collapsekit.streaming import Array, Constant, Grouped, Paired, keyed_groups, to_numpy

SHARED = 10  # samples from which on the mean code under their condition stands for it

ROUND_TRIP = Code(
    id="CK502",
    title="Codes that survive the round trip",
    meaning="If encoding undoes decoding, the decoder is injective: different codes give "
    "different outputs, and a code is identifiable from what it generates. Dimensions that do "
    "not come back are ignored, drowned or folded by the decoder.",
    formula="round_trip_r2[j] = 1 - E(z^_j - z_j)^2 / Var(z_j), z^ = E(D(z)), z drawn from the "
    "posteriors (or from the prior: round_trip_r2_prior). What a condition tells of the code comes "
    "back without the decoder, so Var is that under one condition: codes are read in widths from "
    "their row's prior where priors differ, else from the mean code of the row's condition, where "
    "10 samples or more share it. Headline: mean over dimensions, "
    "clipped at 0. Interval: delete-a-group jackknife, in which a dimension "
    "counts as 0 only where it lies more than 2 standard errors below; that of the robust value is "
    "for rounding and noise as these samples' range sets them, and leaves the range's own error "
    "out. Warned about where the robust headline is below 0.5 with its interval.",
    remedy="The latent reconstruction loss trains exactly this; check that the robust value "
    "rises with the clean one.",
    source="Song, Kim, Lee 2025, arXiv 2508.12530; Wang, Blei, Cunningham 2021, arXiv 2301.00537",
)
HIDDEN = Code(
    id="CK503",
    title="Code hidden in imperceptible changes",
    meaning="A decoder can pass the code on in changes too small to see, which an encoder "
    "trained beside it reads back: the clean round trip is good and nothing was gained. Rounding "
    "the output to 8 bits, or adding a little noise, destroys such a code and leaves an honest "
    "one.",
    formula="images only ([C, H, W], or [H, W] with values in [0, 1]): the mean over dimensions "
    "of the clean r2 exceeds that of the robust r2 "
    "(the lower of 8-bit rounding and noise with a tenth of the data's range, 0.5 % to 99.5 % "
    "quantiles) by more than 0.25, intervals included.",
    remedy="Do not detach the code in the latent reconstruction loss; add noise to the output "
    "before encoding it again.",
    source="collapsekit; Chu, Zhmoginov, Sandler 2017, CycleGAN, a Master of Steganography",
)
BIASED = Code(
    id="CK504",
    title="Codes come back scaled or shifted",
    meaning="The encoder recovers the code up to a gain or an offset: the squared correlation is "
    "high while r2 is low. The information is there; the encoder is biased, typically because "
    "its posterior means shrink towards the prior.",
    formula="round_trip_corr2[j] >= 0.5 and round_trip_r2[j] < round_trip_corr2[j] - 0.25",
    remedy="No repair is needed for information; recalibrate if codes are read off as values.",
    source="collapsekit",
)


@dataclass(frozen=True)
class RoundTrip:
    """`round_trip_r2` and its relatives per dimension, from posterior or from prior draws."""

    source: Source = "population"
    limit: int | None = 4096
    noise: float = 0.1  # of the data's range
    hidden: float = 0.25  # clean minus robust r2
    good: float = 0.5
    gap: float = 0.25  # squared correlation minus r2

    codes: ClassVar[tuple[Code, ...]] = (ROUND_TRIP, HIDDEN, BIASED)

    @property
    def name(self) -> str:
        """One probe for each stream."""
        return "round_trip" if self.source == "population" else f"round_trip_{self.source}"

    @property
    def headlines(self) -> tuple[Headline, ...]:
        """Of its stream."""
        if self.source == "prior":
            return (Headline("round_trip_r2_prior", "Round trip, draws of the prior", "up"),)
        return (
            Headline("round_trip_r2", "Round trip, codes of the data", "up"),
            Headline("robust_round_trip_r2", "Round trip after rounding and noise", "up"),
            Headline("lr_residual", "Latent reconstruction residual", "neither"),
        )

    def observe(self, obs: Observation) -> States:
        """One decode and one encode a row; two encodes more for the robust values."""
        zero = _zero(obs)
        states: States = {
            "clean": _paired(obs, zero, obs.z_recoded),
            "told": Constant(zero is None and obs.door.conditional and obs.source != "prior"),
        }
        if self.source == "population":
            states["rounded"] = _paired(obs, zero, obs.z_recoded_rounded)
            states["noisy"] = _paired(obs, zero, obs.z_recoded_noisy(self.noise))
            states["image"] = Constant(obs.population.images)
            if zero is not None:  # the residual is one of codes as they are
                states["as_they_are"] = _paired(obs, None, obs.z_recoded)
        return states

    def conclude(self, state: States) -> Result:
        """r2 per dimension and over all of them."""
        suffix = "" if self.source == "population" else f"_{self.source}"
        clean: Grouped = state["clean"]
        whole: Paired = clean.whole
        told = state.get("told", Constant(False)).value
        more = "; what the condition alone tells of a code counts as come back" if told else ""
        headline = _mean_r2(f"round_trip_r2{suffix}", clean, lambda s: s.r2, more)
        columns = {
            f"round_trip_r2{suffix}": whole.r2,
            f"round_trip_corr2{suffix}": whole.correlation2,
        }
        numbers, findings = [headline], []
        if self.source == "population":
            columns["robust_round_trip_r2"] = np.minimum(
                state["rounded"].whole.r2, state["noisy"].whole.r2
            )
            robust = self._robust(state, more)
            residual = jackknife_number(
                "lr_residual",
                state.get("as_they_are", clean).jackknife(lambda s: s.residual.sum()),
                "squared code units",
                int(state.get("as_they_are", clean).whole.n.max(initial=0)),
                "summed over dimensions",
                least=0.0,
            )
            numbers += [robust, residual]
            findings = self._judge(headline, robust, columns, state["image"].value)
        dimensions = pd.DataFrame(columns, index=pd.RangeIndex(len(whole.n), name="dimension"))
        return Result(numbers=tuple(numbers), dimensions=dimensions, findings=tuple(findings))

    def _robust(self, state: States, more: str) -> Number:
        # The lower of two per dimension is taken inside the jackknife, group by group.
        both = Grouped(
            tuple(
                None if a is None or b is None else _Two(a, b)
                for a, b in zip(state["rounded"].parts, state["noisy"].parts, strict=True)
            )
        )
        # Other samples would have another range, so a little more or less noise. That moves what is
        # measured, not how well: the interval is told to be for the noise that was applied.
        return _mean_r2(
            "robust_round_trip_r2",
            both,
            lambda s: np.minimum(s.first.r2, s.second.r2),
            "; rounding and noise as these samples' range sets them, taken as given" + more,
        )

    def _judge(
        self, headline: Number, robust: Number, columns: dict[str, Array], image: bool
    ) -> list[Finding]:
        r2, corr2 = columns["round_trip_r2"], columns["round_trip_corr2"]
        survivors = int((columns["robust_round_trip_r2"] >= self.good).sum())
        dims = len(r2)
        severity = Severity.WARN if robust.high < self.good else Severity.OK
        if robust.straddles(self.good):
            severity = Severity.INCONCLUSIVE
        findings = [
            ROUND_TRIP.finding(
                severity,
                f"{survivors} of {dims} dimensions survive decoding and encoding, even after "
                f"rounding and noise (mean r2 {robust.digits()}, clean {headline.digits()}).",
                evidence=[Evidence(headline), Evidence(robust, self.good, ">=")],
                dimensions=np.flatnonzero(~(columns["robust_round_trip_r2"] >= self.good)),
            )
        ]
        # "Imperceptible" is said of images; noise on a vector's features is no small thing.
        if image and headline.low - robust.high > self.hidden:
            findings.append(
                HIDDEN.finding(
                    Severity.WARN,
                    f"the clean round trip ({headline.digits()}) falls to {robust.digits()} after "
                    "8-bit rounding and a little noise: codes are hidden in small changes.",
                    evidence=[Evidence(headline), Evidence(robust)],
                )
            )
        biased = np.flatnonzero((corr2 >= self.good) & (r2 < corr2 - self.gap))
        if len(biased):
            findings.append(
                BIASED.finding(
                    Severity.OK,
                    f"{len(biased)} of {dims} dimensions come back with a gain or an offset.",
                    dimensions=biased,
                    advice=BIASED.remedy,
                )
            )
        return findings


@dataclass(frozen=True)
class _Two:
    first: Paired
    second: Paired

    def __add__(self, other: _Two) -> _Two:
        return _Two(self.first + other.first, self.second + other.second)


def _zero(obs: Observation) -> tuple[Tensor, Tensor] | None:
    """From where, and in which units, codes are read: [B, D] each; None for codes as they are.

    A condition that encoder and prior are told comes back whatever the decoder does: the variance
    of codes between conditions would count as recovered.
    """
    if not obs.door.one_prior:
        try:
            return obs.prior.mean, obs.prior.scale
        except Unavailable:  # no moments: the codes as they are
            return None
    if obs.door.conditional and obs.source == "population":
        centre = _centres(obs.population)
        if bool(centre.isfinite().any()):
            centre = centre[torch.as_tensor(obs.rows, device=centre.device)]
            return centre, torch.ones_like(centre)
    return None


def _centres(population: Population) -> Tensor:
    """Mean code under each row's condition [k, D]; NaN where fewer than 10 samples share it."""
    mean, classes = population.posterior.mean, population.classes
    size = np.array([len(rows) for rows in classes])
    sums = np.add.reduceat(to_numpy(mean)[np.concatenate(classes)], np.cumsum(size) - size, axis=0)
    centre = np.where(size[:, None] < SHARED, np.nan, sums / size[:, None])
    return torch.from_numpy(np.repeat(centre, size, axis=0)[population.place]).to(mean.device)


def _paired(obs: Observation, zero: tuple[Tensor, Tensor] | None, back: Tensor) -> Grouped:
    z, back = obs.z, back.to(obs.z.device)
    if zero is not None:
        z, back = ((code - zero[0]) / zero[1] for code in (z, back))
    return Grouped.of(keyed_groups(obs.index), lambda rows: Paired.of(z[rows], back[rows]))


def _mean(r2: Array) -> Array:
    return np.array(np.nanmean(r2) if np.isfinite(r2).any() else np.nan)


def _mean_r2(name: str, groups: Grouped, r2: Callable[[Any], Array], more: str = "") -> Number:
    """The mean over dimensions of r2 clipped at 0.

    Idle dimensions lie at the clip, within their own noise, and read 1 / n too low (the variance
    is that about the samples' own mean). Where the clip holds, a jackknife of the clipped mean sees
    neither. So in the interval only those dimensions count as 0 that are surely below it.
    """
    each = groups.jackknife(r2)
    below = each.value < -2 * each.error
    found = groups.jackknife(lambda state: _mean(np.where(below, 0.0, r2(state))))
    value = _mean(np.clip(each.value, 0.0, None))
    found = replace(found, value=value, bias=value - (found.value - found.bias))
    whole = groups.whole
    n = int((whole.first if isinstance(whole, _Two) else whole).n.max(initial=0))
    note = "mean over dimensions, clipped at 0" + more
    return jackknife_number(name, found, "1", n, note, least=0.0, most=1.0)


def round_trip(z: Any, z_hat: Any) -> Array:
    """How well codes come back from decoding and encoding, per dimension.

    Parameters
    ----------
    z, z_hat : array [N, D]
        Codes, and the posterior means of their decodings.

    Returns
    -------
    ndarray, float64 [D]
        1 - E(z^ - z)^2 / Var(z): 1 recovered, 0 or less ignored.
    """
    return Paired.of(torch.as_tensor(np.asarray(z)), torch.as_tensor(np.asarray(z_hat))).r2
