"""Audits of several groups of latents as one: each group's tables side by side, its name on all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from collapsekit.findings import Evidence, Finding, Severity, Verdict, fold
from collapsekit.independent import rows_alike
from collapsekit.intervals import mean_number
from collapsekit.number import Number
from collapsekit.results import Audit
from collapsekit.streaming import Skewed
from collapsekit.tables import as_number, summary_table
from collapsekit.troubles import GROUPS


def joined_groups(audits: Mapping[str, Audit]) -> Audit:
    """One audit of all groups; `groups` holds each group's own.

    Headlines are called ``group/name``, columns of the samples as well; dimensions are numbered
    through, with columns `group` and `in_group`. `rate` is the sum over groups.
    """
    numbers = _whole(audits)
    findings: list[Finding] = [_told(audits, numbers[:1])]
    dimensions: list[pd.DataFrame] = []
    samples: list[pd.DataFrame] = []
    start = 0
    for name, audit in audits.items():
        for headline, row in audit.summary.iterrows():
            values = {str(key): row[key] for key in audit.summary.columns}
            numbers.append(as_number({"name": f"{name}/{headline}", **values}))
        findings += [
            replace(
                f,
                message=f"group {name}: {f.message}",
                dimensions=tuple(start + j for j in f.dimensions),
            )
            for f in audit.findings
        ]
        part = audit.dimensions.copy()
        part.insert(0, "group", name)
        part.insert(1, "in_group", np.arange(len(part)))
        part.index = pd.RangeIndex(start, start + len(part), name="dimension")
        dimensions.append(part)
        start += len(part)
        own = [column for column in audit.samples if column != "label" or not samples]
        named = {c: c if c == "label" else f"{name}/{c}" for c in own}
        samples.append(audit.samples[own].rename(columns=named))
    first = next(iter(audits.values()))
    ordered = tuple(sorted(findings, key=lambda f: (-f.severity, f.code)))
    return Audit(
        verdict=_verdict(audits, ordered),
        findings=ordered,
        summary=summary_table(numbers),
        samples=pd.concat(samples, axis=1),
        dimensions=pd.concat(dimensions),
        skipped={
            f"{g}/{k}": why for g, audit in audits.items() for k, why in audit.skipped.items()
        },
        settings={f"{g}/{k}": s for g, audit in audits.items() for k, s in audit.settings.items()},
        provenance=_provenance(audits),
        run=first.run,
        titles={k: v for audit in audits.values() for k, v in audit.titles.items()},
        better={k: v for audit in audits.values() for k, v in audit.better.items()},
        groups=dict(audits),
    )


def _verdict(audits: Mapping[str, Audit], findings: tuple[Finding, ...]) -> Verdict:
    word = fold(findings)
    if all(audit.verdict.name == "healthy" for audit in audits.values()):
        return replace(word, sentence=f"Healthy: every group is. {_each(audits)}")
    group = next((n for n, audit in audits.items() if audit.verdict.name == word.name), None)
    if group is None:  # some groups could not decide what together they do
        return word
    own = audits[group].verdict
    others = [f"{n} is {a.verdict.name}" for n, a in audits.items() if n != group]
    rest = f" Of the other groups, {', '.join(others)}." if others else ""
    return replace(own, sentence=f"Group {group}. {own.sentence}{rest}")


def _each(audits: Mapping[str, Audit]) -> str:
    sentences = (audit.verdict.sentence.removeprefix("Healthy: ") for audit in audits.values())
    return " ".join(f"Group {name}: {s}" for name, s in zip(audits, sentences, strict=True))


def _told(audits: Mapping[str, Audit], total: list[Number]) -> Finding:
    words = ", ".join(f"{name} {audit.verdict.name}" for name, audit in audits.items())
    return GROUPS.finding(
        Severity.OK,
        f"{len(audits)} groups of latents, from the top down: {words}.",
        evidence=map(Evidence, total),
        advice=GROUPS.remedy,
    )


def _whole(audits: Mapping[str, Audit]) -> list[Number]:
    """Rate and evidence lower bound of the whole model: KL summed over groups."""
    found = [audit.columns_of_samples("kl_total") for audit in audits.values()]
    each = [columns["kl_total"].astype(float) for columns in found if columns is not None]
    if len(each) < len(found):
        return []
    alike = float(next(iter(audits.values())).provenance["rows_alike"])
    numbers = [_mean("rate", sum(each[1:], each[0]), alike)]
    last = list(audits.values())[-1].columns_of_samples("elbo")
    if last is not None:  # of the lowest group: its own KL is in it
        own = last["elbo"].astype(float) - sum(each[:-1], 0.0 * each[-1])
        numbers.append(_mean("elbo", own, alike))
    return numbers


def _mean(name: str, column: pd.Series, alike: float) -> Number:
    note = "all groups together, one draw of the groups above a sample"
    least = 0.0 if name == "rate" else -math.inf
    moments = Skewed.of(column.dropna().to_numpy())
    with rows_alike(alike):
        return mean_number(name, moments, "nats", note, least=least)


def _provenance(audits: Mapping[str, Audit]) -> dict[str, object]:
    first = next(iter(audits.values())).provenance
    passes: dict[str, int] = {}
    for audit in audits.values():
        for stream, count in audit.provenance["passes"].items():
            passes[stream] = passes.get(stream, 0) + count
    dims = {name: audit.provenance["dimensions"] for name, audit in audits.items()}
    return {
        **first,
        "dimensions": sum(dims.values()),
        "latent_shape": [sum(dims.values())],
        "groups": dims,
        "prior": {name: audit.provenance["prior"] for name, audit in audits.items()},
        "passes": passes,
    }
