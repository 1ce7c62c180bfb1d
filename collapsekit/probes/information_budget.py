"""What the rate is spent on: information, overlap between dimensions, mismatch with the prior."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch

from collapsekit.errors import Unavailable
from collapsekit.findings import Code, Evidence, Severity
from collapsekit.intervals import half_width, jackknife_number
from collapsekit.kernels.marginals import ACCURACY
from collapsekit.number import Headline, Number
from collapsekit.observation import Observation, Source
from collapsekit.posteriors import DiagonalGaussian
from collapsekit.probe import States, measure
from collapsekit.probes._controlled import each, split, with_totals
from collapsekit.probes._marginal_ratios import ratios
from collapsekit.probes.mutual_information import bracket
from collapsekit.results import Result
from collapsekit.streaming import Array, Constant, Grouped, Moments, Rows, Skewed, keyed_groups

MISMATCH = Code(
    id="CK403",
    title="Aggregated posterior against prior",
    meaning="Generation draws codes from the prior; the decoder learnt from codes drawn from the "
    "posteriors of the data, whose average is the aggregated posterior. Where the two differ, "
    "prior samples land where the decoder never was. It is the opposite trouble of collapse, and "
    "can stand beside any verdict.",
    formula="dimensionwise_kl = sum_j KL(q^_j || p_j) in nats, q^_j the average of all "
    "posteriors in dimension j; where the densities are no products, aggregate_mismatch = "
    "KL(q^ || p) = rate - information, told and not judged. Bracket: without and with a sample's "
    "own posterior in the average, or by the codes' means and variances alone, less a jackknife's "
    "bias and error. A control variate, ln q/p less the KL, takes out what it can of the draws' "
    "noise. Warned about when its lower end exceeds 0.5 nat and 1 % of the rate.",
    remedy="Sample from the aggregated posterior (fit a density to the codes) instead of the "
    "prior, or raise beta.",
    source="Hoffman & Johnson 2016; Chen et al. 2018, arXiv 1802.04942, equation 2",
)


@dataclass(frozen=True)
class InformationBudget:
    """rate = information + total correlation + dimension-wise KL; `information` per dimension.

    Of categorical variables by exact sums over their classes. Where posterior or prior is no
    product, rate = information + KL(aggregate || prior) of whole codes.
    """

    limit: int | None = 5_000
    most_dimensions: int = 256  # beyond, the 32 of highest and the 32 of lowest KL
    mismatch: float = 0.5  # nats, and at least
    mismatch_share: float = 0.01  # of the rate
    saturation: float = 0.9  # of ln N

    name: ClassVar[str] = "information_budget"
    source: ClassVar[Source] = "population"
    codes: ClassVar[tuple[Code, ...]] = (MISMATCH,)
    headlines: ClassVar[tuple[Headline, ...]] = (
        Headline("dimensionwise_kl", "Mismatch of dimensions with the prior", "down"),
        Headline("aggregate_mismatch", "Mismatch of whole codes with the prior", "down"),
        Headline("total_correlation", "Overlap between dimensions", "neither"),
    )

    def observe(self, obs: Observation) -> States:
        """Both information bounds, and each dimension's marginal log-ratio where there is one."""
        population = obs.population
        if not obs.door.one_prior:
            raise Unavailable(
                "the rate splits into information and mismatch under one prior",
                got="a prior for each sample: its rate holds what the condition tells as well",
                expected="one prior for all samples",
                remedy="read the rate and mutual_information",
            )
        lower, upper, _ = obs.information
        states: States = {
            "bounds": Skewed.of(lower),
            "upper": Rows(obs.index, upper=upper),
        }
        found = ratios(obs, self.limit, self.most_dimensions)
        measured: tuple[int, ...] = ()
        if found is not None:
            measured = tuple(found.dims.tolist())
            # Rate, mismatch and information of one sample err together: their difference is kept.
            rest = found.each.sum(dim=1) - obs.kl_total
            totals = torch.stack([found.without.sum(dim=1), rest + upper, rest + lower], dim=1)
            states["split"] = split(found, obs.kl[:, found.dims], totals, obs.index)
        if isinstance(obs.posterior, DiagonalGaussian) and found is not None:
            codes = (obs.z - obs.prior.mean) / obs.prior.scale
            states["codes"] = Grouped.of(
                keyed_groups(obs.index), lambda rows: Moments.of(codes[rows.to(codes.device)])
            )
        rates = population.rate, population.most_information
        facts = population.distinct.size, obs.posterior.dims, measured, rates
        states["facts"] = Constant(facts)
        return states

    def conclude(self, state: States) -> Result:
        """The parts with their errors; the split of what is not identified stays a bracket."""
        k, dims, measured, ((rate, rate_error), most) = state["facts"].value
        everything = pd.RangeIndex(dims, name="dimension")
        codes: Grouped | None = state.get("codes")
        aggregate = pd.DataFrame(index=everything)
        if codes is not None:
            aggregate["aggregate_mean"] = codes.whole.mean
            aggregate["aggregate_variance"] = codes.whole.variance
        if k < 2:
            return Result(dimensions=aggregate)
        found = bracket(
            state["bounds"],
            state["upper"].column("upper"),
            k,
            most,
            self.saturation,
            "",
        )
        information, saturated = found.number, found.saturated
        if "split" not in state:
            return _whole(rate, rate_error, information, saturated)
        m = len(measured)
        parts = each(state["split"], m)
        told, mismatch = parts.mean[:m], parts.mean[m:]
        split_up = pd.DataFrame(
            {
                "aggregate_kl": mismatch,
                "aggregate_kl_se": parts.standard_error[m:],
                "information": told,
                "information_se": parts.standard_error[:m],
            },
            index=pd.Index(list(measured), name="dimension"),
        )
        n, whole = information.n, m == dims
        sums = with_totals(state["split"], m)
        least = 0.0 if codes is None else _by_moments(codes, list(measured))
        # The grid's own error counts where samples leave none: one posterior for all.
        grid = 0.0 if codes is None else m * ACCURACY
        mismatched = _between(sums, grid, least, n, m, dims)
        rest = rate - mismatched.value - information.value
        if saturated or not whole:
            rest = math.nan
        without = max(float(sums.whole.mean[1]), least, 0.0)
        overlap = _overlap(rest, sums, grid, mismatched.value - without, n, dims)
        budget = _table(
            rate,
            rate_error,
            information,
            {"total correlation": overlap, "dimension-wise KL": mismatched},
        )
        # The rate of the dimensions that were measured: beyond 256 they are not all.
        spent = float((told + mismatch).sum())
        bar = max(self.mismatch, self.mismatch_share * spent)
        severity = Severity.WARN if mismatched.low > bar else Severity.OK
        worst = np.argsort(-mismatch)[:10]
        of = "" if whole else f" of {dims}"
        message = (
            f"the aggregated posterior is {mismatched.digits()} nats{mismatched.interval()} away "
            f"from the prior, summed over {m}{of} dimensions"
        )
        capped = int((told > self.saturation * math.log(k)).sum())
        if capped:
            message += (
                f"; the information of {capped} of them is at its ceiling, ln {k:,} = "
                f"{math.log(k):.2f} nats, and may be more"
            )
        finding = MISMATCH.finding(
            severity,
            message
            + ("." if severity is Severity.OK else ": prior samples leave the data's codes."),
            evidence=[Evidence(mismatched, bar, "<")],
            dimensions=np.asarray(measured)[worst] if severity is Severity.WARN else (),
        )
        return Result(
            numbers=(mismatched, overlap) if whole else (mismatched,),
            dimensions=pd.concat([aggregate, split_up.reindex(everything)], axis=1),
            findings=(finding,),
            tables={"information_budget": budget},
        )


def _table(
    rate: float, rate_error: float, information: Number, parts: Mapping[str, Number]
) -> pd.DataFrame:
    told = {"information": information.told(), **parts}
    rows = [(name, part.value, part.low, part.high) for name, part in told.items()]
    rows.append(("rate", rate, rate - 2 * rate_error, rate + 2 * rate_error))
    return pd.DataFrame(rows, columns=["part", "value", "low", "high"])


def _whole(rate: float, rate_error: float, information: Number, saturated: bool) -> Result:
    """rate = information + KL(q^ || p): what holds for every family under one prior.

    The split of the KL over dimensions needs densities that are products.
    """
    low = max(rate - 2 * rate_error - information.high, 0.0)
    high = max(rate - information.low, 0.0)
    note = "KL(aggregate || prior) of whole codes: rate - information, with information's bracket"
    if saturated:
        note += "; no value: information is saturated (CK402)"
    value = math.nan if saturated else min(max(rate - information.value, low), high)
    high += 2 * rate_error
    number = Number("aggregate_mismatch", value, low, high, "nats", information.n, note)
    told = number.digits() if number.known else f"between {low:.3g} and {high:.3g}"
    finding = MISMATCH.finding(
        Severity.OK,
        f"the aggregated posterior is {told} nats away from the prior, over whole codes; the split "
        "over dimensions needs a posterior and a prior that are products of Gaussians, or of "
        "categorical variables.",
        evidence=[Evidence(number)],
    )
    budget = _table(rate, rate_error, information, {"KL(aggregate || prior)": number})
    return Result(numbers=(number,), findings=(finding,), tables={"information_budget": budget})


def _by_moments(codes: Grouped, dims: Sequence[int]) -> float:
    """Lower limit of the mismatch from the codes' means and variances alone.

    Of all densities with these moments the Gaussian is nearest to the prior, so sum_j
    (m^2 + v - 1 - ln v) / 2 is a lower bound. It needs no density estimate, which is blind where
    posteriors are so narrow that each code has only its own one near it. Less its bias and a
    one-sided 97.5 % error, both by the jackknife over samples: dimensions that move together err
    together, and their errors add up.
    """

    def bound(codes: Moments) -> Array:
        mean, variance = codes.mean[dims], codes.variance[dims]
        return np.asarray(0.5 * (mean**2 + variance - 1.0 - np.log(variance)).sum())

    return float(np.nan_to_num(jackknife_number("", codes.jackknife(bound), "nats", 0).low))


def _between(sums: Grouped, grid: float, least: float, n: int, measured: int, dims: int) -> Number:
    """The mismatch of the audited samples, in the bracket of their population."""
    found = sums.jackknife(lambda part: part.mean[:2])
    with_own, without = (float(v) for v in found.value)
    wide = np.nan_to_num(half_width(found)) + grid
    value = max(with_own, 0.0)
    return Number(
        "dimensionwise_kl",
        value,
        min(max(without - float(wide[1]), least, 0.0), value),
        max(with_own + float(wide[0]), value),
        "nats",
        n,
        f"sum over {measured} of {dims} dimensions of KL(aggregate || prior); bracket without and "
        "with a sample's own posterior in the aggregate (or by the codes' moments), widened by a "
        "jackknife's 95 %",
    )


def _overlap(rest: float, sums: Grouped, grid: float, biased: float, n: int, dims: int) -> Number:
    """Total correlation by difference, with information's bracket (METRICS section 4).

    Parameters
    ----------
    rest : float
        The difference of the three values; NaN where the information is saturated.
    sums : Grouped
        Each sample's mismatch + information - rate, by the upper and by the lower bound.
    grid : float
        Largest error of the mismatch's numerics.
    biased : float
        How far the mismatch lies above its own lower end, which the upper end gains.
    n, dims : int
    """
    if dims == 1:
        return Number("total_correlation", 0.0, 0.0, 0.0, "nats", n, "one dimension")
    note = (
        "rate - dimension-wise KL - information, with information's bracket, widened by a "
        "jackknife's 95 % of the samples' differences"
    )
    found = sums.jackknife(lambda part: -part.mean[2:])
    wide = np.nan_to_num(half_width(found)) + grid
    # An upper bound that some sample does not have (left-out densities of nothing) says nothing.
    low = float(found.value[0] - wide[0]) if sums.whole.n[2] == n else 0.0
    low = max(low, 0.0)
    high = max(float(found.value[1] + wide[1]) + max(biased, 0.0), low)
    if math.isnan(rest):
        note += "; no value: information is saturated (CK402)"
    value = rest if math.isnan(rest) else min(max(rest, low), high)
    return Number("total_correlation", value, low, high, "nats", n, note)


def information_budget(mean: Any, scale: Any, *, prior: Any = None, seed: int = 0) -> pd.DataFrame:
    """What the rate of given posteriors is spent on.

    Parameters
    ----------
    mean, scale : array [N, D]
    prior : optional
    seed : int
        Of the one draw a sample.

    Returns
    -------
    DataFrame
        Rows information, total correlation, dimension-wise KL and rate; value, low, high in nats.
        The total correlation has no value where information is saturated.
    """
    obs = Observation.of_arrays(mean, scale, prior=prior, seed=seed)
    probe = InformationBudget(limit=None, most_dimensions=obs.posterior.dims)
    return measure(probe, obs).tables["information_budget"].set_index("part")
