"""Whether the decoder's variance, held against the data's, explains the unused dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from collapsekit.findings import Code, Evidence, Severity
from collapsekit.number import Headline
from collapsekit.probe import Tables
from collapsekit.results import Result

CAUSE = Code(
    id="CK406",
    title="Decoder variance against the data's",
    meaning="A linear decoder with noise of variance s^2, trained with KL weight beta, uses a "
    "latent dimension only for a principal direction of the data whose variance exceeds beta s^2; "
    "the rest collapse at the optimum of the objective, whatever the encoder or the training "
    "schedule. When a collapsed model uses at least as many dimensions as that, its decoder "
    "variance is explanation enough. Networks that are not linear may use more.",
    formula="linear_dimensions = number of principal variances lambda_j of the data with "
    "lambda_j > beta s^2, at most D; s and beta as declared (beta = s^2 counts once: it is the "
    "scale sqrt(beta) of 0.5 SSE + beta KL). Explains: a finding argues for total, partial or "
    "local collapse, and linear_dimensions <= active_units < D.",
    remedy="Lower the decoder's variance or beta, or learn the variance, until it is below the "
    "variances that the code should carry; a smaller code loses nothing. Annealing beta does not "
    "help where the optimum itself is collapsed.",
    source="Lucas, Tucker, Grosse, Norouzi 2019, arXiv 1911.02469, section 4; Tipping & Bishop "
    "1999",
)
_COLLAPSED = ("total", "local", "partial")


@dataclass(frozen=True)
class DecoderVariance:
    """Compares `linear_dimensions` with the active units where something has collapsed."""

    name: ClassVar[str] = "decoder_variance"
    codes: ClassVar[tuple[Code, ...]] = (CAUSE,)
    headlines: ClassVar[tuple[Headline, ...]] = ()

    def read(self, tables: Tables) -> Result:
        """Judge; silent where the likelihood is not Gaussian."""
        names = ("linear_dimensions", "decoder_variance", "active_units")
        linear, decoder, active = (tables.numbers.get(name) for name in names)
        if linear is None or decoder is None or active is None:
            return Result()
        dims = len(tables.dimensions)
        k, m, most = int(linear.value), int(active.value), int(linear.high)
        collapsed = any(
            f.verdict in _COLLAPSED and f.severity >= Severity.WARN for f in tables.findings
        )
        told = (
            f"{_count(k)} of the data's principal variances exceed{'s' if k == 1 else ''} the "
            f"decoder's, {decoder.value:.3g}, so a linear model would use {k} of {dims} "
            f"dimensions; this one uses {m}"
        )
        evidence = [Evidence(linear), Evidence(decoder), Evidence(active)]
        severity, message = Severity.OK, f"{told}."
        if collapsed and m < dims:  # where every unit is active, no idle one is left to explain
            severity, why = self._explained(k, most, m, dims, linear.n)
            message = f"{told}: {why}."
        return Result(findings=(CAUSE.finding(severity, message, evidence=evidence),))

    def _explained(self, k: int, most: int, m: int, dims: int, rows: int) -> tuple[Severity, str]:
        """Whether k to `most` linear dimensions explain that m of `dims` are active."""
        if k >= dims:
            return Severity.OK, "the collapse has another cause"
        if k > m:
            rest = "" if most == k else "at least "
            return Severity.OK, (
                f"that explains {'at most ' * (most > k)}{dims - k} of the {dims - m} idle "
                f"dimensions; {rest}{k - m} {'has' if k - m == 1 else 'have'} another cause"
            )
        if m < most and rows // 2 - 1 < dims:
            return Severity.INCONCLUSIVE, (
                f"whether that explains the collapse is not settled, for {rows:,} rows cannot show "
                f"{dims:,} directions (there may be {most:,})"
            )
        doubt = "" if m >= most else f", as far as {rows:,} rows tell (at most {most})"
        return Severity.WARN, f"that explains the collapse{doubt}"


def _count(k: int) -> str:
    return "none" if k == 0 else f"{k}"
