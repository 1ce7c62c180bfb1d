"""What the engine itself has to tell: samples left out, probes skipped or broken, conversions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from collapsekit.findings import Code, Finding, Severity

LOST = Code(
    id="CK001",
    title="Samples that could not be measured",
    meaning="For some samples the encoder returned something that is no posterior, or failed. "
    "They are left out of every number; their cells in the table are <NA>.",
    formula="mean and scale finite, scale above 0",
    remedy="Look at these inputs: NaN, infinities, values far outside the training range.",
    source="collapsekit",
)
SKIPPED = Code(
    id="CK002",
    title="Not measured",
    meaning="Some measurements need what this model or these data do not offer (a decoder, "
    "inputs, a likelihood). The audit goes as far as it can and says where it stopped.",
    formula="a rehearsal of every probe on two samples before the pass",
    remedy="audit.skipped holds the reason for each; widen the adapter where it matters.",
    source="collapsekit",
)
BROKEN = Code(
    id="CK003",
    title="A measurement broke off",
    meaning="A probe failed on some batch. What it had seen until then was kept and is reported "
    "with the number of samples it rests on.",
    formula="n in the summary against the number of samples",
    remedy="The message holds the error; most often the decoder fails on some codes.",
    source="collapsekit",
)
CONVERTED = Code(
    id="CK004",
    title="Inputs were converted",
    meaning="The data or the model were not used exactly as handed in.",
    formula="",
    remedy="Hand in what the model was trained on if this is not it.",
    source="collapsekit",
)
RANDOM = Code(
    id="CK005",
    title="The encoder is random",
    meaning="The same input gave two different posteriors: dropout or batch statistics are still "
    "on, or the encoder draws noise. Noise in the means turns dead units active.",
    formula="two calls of encode on the same samples differ",
    remedy="Put the model in evaluation mode and take the noise out of encode.",
    source="collapsekit",
)
RANDOM_DECODER = Code(
    id="CK017",
    title="The decoder is random",
    meaning="The same code gave two different outputs: dropout or batch statistics are still on, "
    "or the decoder draws noise. Errors grow by the noise, and a measure that compares two "
    "outputs would see a difference where the code makes none: usage, Jacobian, folds, outputs at "
    "the means and the model's information are withheld, and no audit is healthy.",
    formula="two calls of decode on the same codes differ",
    remedy="Put the model in evaluation mode, and let decode return the mean of p(x | z).",
    source="collapsekit",
)
SILENT = Code(
    id="CK018",
    title="The decoder failed on every call",
    meaning="The model has a decoder, and it raised an error whenever it was called. Nothing that "
    "needs an output was measured: whether the decoder reads the code is not known, and a verdict "
    "rests on the encoder alone. Nothing is called healthy then.",
    formula="decode raises in the rehearsal and not one call of it succeeds",
    remedy="Call decode on a batch of codes by hand. Where it takes a condition, hand in data with "
    "both parts; where it is fed the input itself, give the model log_likelihood(x, z).",
    source="collapsekit",
)
BATCHWISE = Code(
    id="CK008",
    title="The encoder depends on the batch",
    meaning="A sample's posterior changes with the samples beside it: batch norm or another "
    "batch statistic is on. Every number then depends on how the data were cut.",
    formula="encode of one sample alone against the same sample in a batch, beyond rounding",
    remedy="Put the model in evaluation mode.",
    source="collapsekit",
)
FEW = Code(
    id="CK006",
    title="Too few samples",
    meaning="Variances, information and collisions compare samples with each other; a handful of "
    "samples decides nothing, and one sample has nobody to be compared with.",
    formula="N below 10",
    remedy="Audit at least a few hundred samples.",
    source="collapsekit",
)
SUBSET = Code(
    id="CK007",
    title="Measured on a subset",
    meaning="Costly measures are taken on a uniform subset of the samples; the other samples' "
    "cells are <NA>. Intervals account for the subset's size.",
    formula="the samples of smallest keyed hash",
    remedy="Raise population=, or a probe's limit, to measure more.",
    source="collapsekit",
)
GROUPS = Code(
    id="CK620",
    title="Groups of latents",
    meaning="A hierarchical model has several groups of latents, each with a posterior and a prior "
    "given the groups above it. A group can collapse while the others work, so each is audited "
    "by itself: the codes of the groups above it, and the noise of those below, are held at the "
    "sample's own draws.",
    formula="rate = sum over groups of KL(q(z_g | x, z_above) || p(z_g | z_above)), one draw "
    "of the groups above a sample; the verdict is the worst of the groups'.",
    remedy="Open the group's own audit: audit.groups[name].",
    source="collapsekit; Sonderby et al. 2016, arXiv 1602.02282, for collapse of upper groups",
)
SHARDS = Code(
    id="CK010",
    title="A stretch of the data was lost",
    meaning="A worker failed twice on a shard, a stretch of samples or of rows, and what it would "
    "have measured is missing. Everything else is kept; the missing samples' cells are <NA>.",
    formula="a shard whose second attempt failed",
    remedy="See the error for why. With checkpoint=DIR (--resume DIR) the same audit run again "
    "computes the missing shards alone.",
    source="collapsekit",
)
QUARANTINED = Code(
    id="CK011",
    title="Samples in quarantine",
    meaning="Samples that the model or a measure could not bear were set aside, as asked for. "
    "They are left out of every number; their cells are <NA>, and the table quarantined lists "
    "them with the reason.",
    formula='on_bad_sample="skip": the posterior and every measure of the sample finite, and no '
    "error raised for it alone",
    remedy="Look at these inputs: NaN, infinities, values far outside the training range.",
    source="collapsekit",
)
NOT_FINITE = Code(
    id="CK012",
    title="Measures that are no numbers",
    meaning="For some samples a measure came out NaN or infinite though their posterior is fine: "
    "most often the decoder overflows, or the likelihood does not allow what it returns. These "
    "cells are empty and are left out of that measure's mean.",
    formula="a per-sample value that is NaN or infinite",
    remedy='Try decode on these samples by hand; on_bad_sample="skip" leaves them out of every '
    "number.",
    source="collapsekit",
)
RECOMPUTED = Code(
    id="CK013",
    title="Damaged shards were computed again",
    meaning="Files of the checkpoint did not have the checksum they were written with: cut short, "
    "or changed. Their shards were computed again, so the results are whole.",
    formula="SHA-256 of the file against the one recorded in it",
    remedy="Nothing has to be done; look after the disk if it happens again.",
    source="collapsekit",
)
COPIES = Code(
    id="CK014",
    title="Copies among the samples",
    meaning="Some samples have the very input of another, by oversampling or by a file that was "
    "read twice. They tell nothing new: no more information can be shown than the distinct inputs "
    "have, and every interval over samples is that of fewer of them. It supposes that how often a "
    "sample is there has nothing to do with what is measured: where one rare kind alone was "
    "multiplied, intervals of what is peculiar to it are still too narrow. Data of few values, "
    "each more than 30 times on average, are not told: there repetition is the law of the data. So "
    "it is for one input, a blank image say, that makes up more than 2 % of the samples and comes "
    "more than 5 times as often as inputs do on average: it is told, and is no copy. "
    "Where inputs could not be compared, that is told.",
    formula="inputs equal bit for bit (and posteriors to 1e-5 of their spread), m_c of each "
    "distinct one, in the population of n samples; n_eff = n^2 / sum m_c^2. A measure of r samples "
    "has standard errors, jackknives, Wilson's limits and order statistics of r / a independent "
    "ones, a = 1 + (n / n_eff - 1) (r - 1) / (n - 1). Draws from the prior are independent.",
    remedy="Audit distinct samples; sample weights belong into training.",
    source="Kish 1965, Survey Sampling (effective sample size)",
)
SPACE = Code(
    id="CK016",
    title="The prior lives on another space",
    meaning="The prior puts codes where the posteriors never do: N(0, I) for codes that are "
    "angles, shares or positive. The rate then holds a cost that no encoder can avoid, and codes "
    "drawn from the prior are none that the decoder knows.",
    formula="support of the posterior's family against that of the prior's",
    remedy="Pass the prior of the training, prior=..., over the same space: uniform angles, a "
    "Beta, a Gamma or a Dirichlet distribution.",
    source="collapsekit",
)
CODES = (
    COPIES,
    SPACE,
    LOST,
    SKIPPED,
    BROKEN,
    CONVERTED,
    RANDOM,
    RANDOM_DECODER,
    SILENT,
    BATCHWISE,
    FEW,
    SUBSET,
    GROUPS,
    SHARDS,
    QUARANTINED,
    NOT_FINITE,
    RECOMPUTED,
)


MANY_LOST = 0.05  # of the samples


def lost(
    counts: Mapping[str, int], first: Mapping[str, Sequence[int]], count: int, *, skipped: bool
) -> list[Finding]:
    """Samples that were left out, by reason.

    Parameters
    ----------
    counts, first : mapping
        How many for each reason, and the numbers of the first of them, ascending.
    count : int
        Samples in all.
    skipped : bool
        Whether that was asked for.
    """
    found = []
    for why, number in counts.items():
        many = number > MANY_LOST * count
        code = QUARANTINED if skipped else LOST
        found.append(
            code.finding(
                Severity.WARN if many or not skipped else Severity.OK,
                f"{number:,} of {count:,} samples were left out ({why}): "
                f"{_some(first[why], number)}.",
                samples=first[why],
                advice=code.remedy,
                # What was left may not stand for the rest: then nothing is called healthy.
                verdict="inconclusive" if many else None,
            )
        )
    return found


def not_finite(
    counts: Mapping[str, int], first: Mapping[str, Sequence[int]], count: int
) -> list[Finding]:
    """Measures that are no numbers for some samples, by column."""
    return [
        NOT_FINITE.finding(
            Severity.WARN,
            f"{why} for {number:,} of {count:,} samples: {_some(first[why], number)}.",
            samples=first[why],
            verdict="inconclusive" if number > MANY_LOST * count else None,
        )
        for why, number in counts.items()
    ]


def not_finite_dimensions(columns: Mapping[str, Sequence[int]], count: int) -> list[Finding]:
    """Measures that are no numbers for some dimensions, by column."""
    return [
        NOT_FINITE.finding(
            Severity.WARN,
            f"{name} is not finite for {len(which):,} of {count:,} dimensions: "
            f"{_some(which, len(which))}.",
            dimensions=which,
            advice="Look at the scale of these dimensions' codes, and at the prior's.",
        )
        for name, which in columns.items()
    ]


def _some(first: Sequence[int], number: int) -> str:
    shown = ", ".join(str(int(i)) for i in first[:10])
    return shown + (f" and {number - 10:,} more" if number > 10 else "")


def lost_shards(shards: Sequence[tuple[str, int, int, str]], count: int) -> list[Finding]:
    """Stretches that no worker could compute: stream, first, end and reason of each."""
    found = []
    for stream in dict.fromkeys(shard[0] for shard in shards):
        some = [shard for shard in shards if shard[0] == stream]
        what = "samples" if stream == "data" else f"rows of the {stream} stream"
        missing = sum(stop - start for _, start, stop, _ in some)
        told = "; ".join(f"{start:,} to {stop - 1:,} ({why})" for _, start, stop, why in some[:5])
        more = f" and {len(some) - 5} more stretches" if len(some) > 5 else ""
        many = stream == "data" and missing > MANY_LOST * count
        found.append(
            SHARDS.finding(
                Severity.WARN,
                f"{missing:,} {what} were lost, each after a second attempt: {told}{more}.",
                verdict="inconclusive" if many else None,
            )
        )
    return found


def recomputed(damaged: Sequence[str]) -> list[Finding]:
    """Files of a checkpoint that were not as they had been written."""
    if not damaged:
        return []
    told = "; ".join(damaged[:5]) + (f" and {len(damaged) - 5} more" if len(damaged) > 5 else "")
    return [
        RECOMPUTED.finding(
            Severity.OK,
            f"{len(damaged)} damaged shards of the checkpoint were computed again: {told}.",
            advice=RECOMPUTED.remedy,
        )
    ]


def broken(probes: Mapping[str, str]) -> list[Finding]:
    """Probes that broke off, with the error."""
    return [
        BROKEN.finding(Severity.WARN, f"the probe {name} broke off: {why}.")
        for name, why in probes.items()
    ]


def silent(why: str, word: str) -> Finding:
    """A decoder that failed on every call; `word` is the verdict without this finding."""
    rest = "" if word in ("healthy", "inconclusive") else f"; {word} is said of the encoder alone"
    return SILENT.finding(
        Severity.WARN,
        f"the decoder failed on every call ({why}){rest}.",
        verdict=None if rest else "inconclusive",
    )


def other_space(spaces: tuple[str, str] | None) -> list[Finding]:
    """Posteriors on one space against a prior on another."""
    if spaces is None:
        return []
    told = f"posteriors are on {spaces[0]}, the prior is on {spaces[1]}: KL holds the difference."
    return [SPACE.finding(Severity.WARN, told)]


def converted(notes: Iterable[str]) -> list[Finding]:
    """What was not used exactly as it was handed in."""
    return [CONVERTED.finding(Severity.OK, f"{note}.", advice=CONVERTED.remedy) for note in notes]


def copies(
    count: int, distinct: int, effective: float, common: int = 0, most: int = 1
) -> list[Finding]:
    """Samples that are there more than once, one of them `most` times; `common` of them by the law
    of the data."""
    told = []
    if common:
        told.append(
            COPIES.finding(
                Severity.OK,
                f"{common:,} of {count:,} samples have an input that stands out by its number: "
                "they are taken for a value that the data have, not for copies. Should they be "
                "copies, intervals are too short.",
            )
        )
    if distinct == count:
        return told
    message = (
        f"{count - distinct:,} of {count:,} samples are copies of another: they count as "
        f"{effective:,.0f} independent ones, and intervals over all of them are "
        f"{(count / effective) ** 0.5:.2f} times as long for it."
    )
    # A mean that the samples there `most` times alone decide varies as that of n / most.
    short = (most * effective / count) ** 0.5
    if short > 1.1:
        message += (
            f" Of what is peculiar to the samples that are there {most} times they may still be "
            f"{short:.2f} times too short."
        )
    return [*told, COPIES.finding(Severity.WARN, message)]


def unlike(why: str) -> list[Finding]:
    """Copies that could not be looked for, with the error."""
    if not why:
        return []
    return [
        COPIES.finding(
            Severity.WARN,
            f"copies were not looked for ({why}): every sample counts as an independent one, and "
            "should there be copies, intervals are too short.",
            advice="Read these inputs again by hand, and call the adapter's identity on them where "
            "it has one.",
        )
    ]


FEWEST = 10


def few(count: int) -> Finding:
    """So few samples that no word can be decided."""
    told = "there is one sample" if count == 1 else f"there are {count} samples"
    rest = ": variances, information and collisions are not defined." if count == 1 else "."
    return FEW.finding(
        Severity.INCONCLUSIVE, f"{told}, too few for a verdict{rest}", verdict="inconclusive"
    )


def undecided(findings: Iterable[Finding]) -> list[Finding]:
    """The same findings without a say: with a handful of samples none may fail an audit."""
    return [
        replace(f, verdict=None, severity=min(f.severity, Severity.INCONCLUSIVE)) for f in findings
    ]


def subset(rows: Mapping[str, int], count: int) -> Finding:
    """Probes that measured fewer rows than there are samples."""
    told = ", ".join(f"{name} {n:,}" for name, n in rows.items())
    return SUBSET.finding(
        Severity.OK,
        f"of {count:,} samples these measures used a uniform subset, drawn by hash: {told}; the "
        "other samples' cells are <NA>.",
        advice=SUBSET.remedy,
    )


def skipped(probes: Mapping[str, str]) -> list[Finding]:
    """Probes that could not be measured, grouped by reason."""
    if not probes:
        return []
    reasons: dict[str, list[str]] = {}
    for name, why in probes.items():
        reasons.setdefault(why, []).append(name)
    told = "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items())
    return [
        SKIPPED.finding(Severity.INCONCLUSIVE, f"{len(probes)} measures were skipped ({told}).")
    ]
