"""What an audit of any model must satisfy: named errors, or numbers that hold together."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import torch
from torch import nn

import collapsekit as ck
from collapsekit.findings import VERDICTS, Severity
from collapsekit.rendering import junit
from collapsekit.results import Audit
from tests.fuzz.cases import Case, arguments, data_of, model_of
from tests.fuzz.harness import explained, named_errors

#: What no model of a case raises by itself: a skipped or broken probe that says so is our fault.
FAULTS = re.compile(
    r"\b(IndexError|KeyError|AttributeError|TypeError|AssertionError|RuntimeWarning|UserWarning|"
    r"FutureWarning|LinAlgError|OverflowError|FloatingPointError|UnboundLocalError|_LinAlgError)\b"
)
#: Families whose KL is in closed form, and so never below 0, not by rounding nor by noise.
CLOSED = {
    "pair", "list", "named tuple", "object", "Normal", "Independent", "NumPy", "full",
    "full of factor", "LowRank", "spatial", "three axes", "one axis", "module", "trained module",
    "chunk module", "mixed dtypes", "Categorical", "OneHot", "Bernoulli", "RelaxedOneHot",
    "RelaxedBernoulli",
}  # fmt: skip
GAUSSIAN_PRIORS = {
    "none", "standard", "learned", "wide", "narrow", "far", "Normal", "MVN", "1e-30", "1e30",
    "1e300", "by row",
}  # fmt: skip


def check(case: Case, path: Path | None = None, html: bool = False) -> str:
    """Audit a case and hold every part of the answer against what must be true of it.

    With a path the audit is saved there, loaded, and put into every format but the page.
    Returns the verdict, or the name of the error.
    """
    torch.manual_seed(11)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    model, x = model_of(case), data_of(case)
    training = model.training if isinstance(model, nn.Module) else None
    given, kept = arguments(case), x.copy()
    audit: Audit | None = None
    with named_errors() as errors:
        audit = ck.audit(model, x, **given)
    assert torch.equal(torch.get_rng_state(), before), "torch's random state was moved"
    assert np.array_equal(np.random.get_state()[1], numpy_before), "NumPy's was"  # type: ignore[index]
    assert torch.is_grad_enabled()
    assert np.array_equal(x, kept, equal_nan=True), "the data were written to"
    if isinstance(model, nn.Module):
        assert model.training == training
    if audit is None:
        return type(errors[0]).__name__
    holds(audit, case)
    if path is not None:
        comes_back(audit, path, html)
    return audit.verdict.name


def holds(audit: Audit, case: Case) -> None:
    """The parts of an audit agree with each other and with what is known of the case."""
    for one in (audit, *audit.groups.values()):
        explained(one)
        assert len(one.samples) == case.n
        numbers(one, case)
        tables(one)
        findings(one, case)
    word = audit.verdict.name
    assert word in VERDICTS
    assert audit.verdict.sentence
    told = {f.code for f in audit.findings}
    if case.n < 10:
        assert word == "inconclusive", word
    if word == "healthy" and case.probes < 0:
        assert nothing_to_praise(case) == "", nothing_to_praise(case)
    if case.encoder == "random" and case.family not in ("groups",):
        assert "CK005" in told, told
    if case.family in CLOSED and case.prior in GAUSSIAN_PRIORS and "kl_total" in audit.samples:
        kl = audit.samples["kl_total"].dropna().to_numpy(dtype=np.float64)
        assert (kl >= 0).all(), f"a KL of {kl.min()}"


def nothing_to_praise(case: Case) -> str:
    """Why no audit of this case may be called healthy; empty where it might be."""
    silent = case.mean in ("zero", "two") and case.scale in ("half", "one", "near one", "tiny")
    if silent and case.family in ("pair", "list", "named tuple", "object", "Normal", "NumPy"):
        return "the posterior is the same for every sample"
    if case.data == "constant":
        return "all samples are one"
    if case.likelihood.startswith("own"):
        return ""
    if case.decoder in ("constant", "own noise"):
        return "the decoder ignores the code"
    if case.decoder in ("raises", "NaN always", "random"):
        return "no output is worth anything"
    return ""


def numbers(audit: Audit, case: Case) -> None:
    """Every headline lies in its interval, and where its unit says it must."""
    for name in audit.summary.index:
        number = audit.number(name)
        told = f"{number.name}: {number.value} [{number.low}, {number.high}] {number.unit}"
        assert not any(map(math.isinf, (number.value, number.low, number.high))), told
        assert number.unit, told
        assert number.n >= 0, told
        if math.isnan(number.low) or math.isnan(number.high):
            assert number.note, f"{told}: no interval, no reason"
        if math.isnan(number.value):
            continue
        slack = 1e-9 * max(1.0, abs(number.value))
        assert not number.low > number.value + slack, told
        assert not number.high < number.value - slack, told
        ends = [v for v in (number.value, number.low, number.high) if not math.isnan(v)]
        if number.unit == "share":
            assert -slack <= min(ends), told
            assert max(ends) <= 1 + slack, told
        if number.unit == "dimensions":
            assert min(ends) >= -slack, told
            most = case.p * 2 if name.endswith("tangent_rank") else len(audit.dimensions)
            assert max(ends) <= most + slack, told


def tables(audit: Audit) -> None:
    """Cells are finite or <NA>."""
    for place, table in (("samples", audit.samples), ("dimensions", audit.dimensions)):
        for name in table.select_dtypes(include=["number"]).columns:
            values = table[name].dropna().to_numpy(dtype=np.float64, na_value=np.nan)
            assert not np.isinf(values).any(), f"{place}: {name} is infinite"
    for name, array in audit.arrays.items():
        assert array.dtype.kind in "fiub", name


def findings(audit: Audit, case: Case) -> None:
    for finding in audit.findings:
        assert all(0 <= i < case.n for i in finding.samples), finding
        assert all(0 <= j < len(audit.dimensions) for j in finding.dimensions), finding
        assert "nan" not in finding.message.split(), finding.message
        assert "inf" not in finding.message.split(), finding.message
        assert finding.advice or finding.severity is Severity.OK, finding
        if finding.severity is Severity.OK:
            assert not re.search(r"(?<!<)\bNA\b", finding.message), finding.message
        if finding.code in ("CK002", "CK003"):
            assert not FAULTS.search(finding.message), finding.message


def comes_back(audit: Audit, path: Path, html: bool) -> None:
    """Saved and loaded it is the same; every format can be made of it."""
    again = ck.load(audit.save(path))
    assert again.to_json() == audit.to_json()
    for name in ("summary", "samples", "dimensions"):
        left, right = getattr(audit, name), getattr(again, name)
        assert left.equals(right), (name, left, right)
    assert again.findings == audit.findings or str(again.findings) == str(audit.findings)
    assert str(audit)
    assert audit.to_markdown()
    assert audit.to_model_card()
    assert audit._repr_html_()
    assert junit.render(audit)
    if html:
        first, second = audit.to_html(), again.to_html()
        at = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), 0)
        assert first == second, (first[at - 80 : at + 80], second[at - 80 : at + 80])
