"""Any model at all: a named error, or an audit whose parts hold together; see `cases`."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import example, given

from tests.fuzz.cases import ALL, CHOICES, PLAIN, SOME, Case, cases
from tests.fuzz.harness import fuzz
from tests.fuzz.model_oracle import check

#: Scales of 1e300 overflow in sums of squares: numpy says so, and the audit says what it lost.
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide):RuntimeWarning")

#: Cases that once broke something, made as simple as they go.
FOUND = (
    Case(n=4, mean="offset"),  # effective_rank's interval lay beyond its value
    Case(n=5),  # encoder_rank's reached 4 of 2 dimensions
    Case(n=2, probes=0),  # an interval's end came back from a file as another type
    Case(probes=3, beta=4.0),  # a table without columns lost its rows in a file
    Case(mean="1e300", probes=0),  # infinite KL in the table; a rate without a value was healthy
    Case(prior="1e-30"),  # KL beyond single precision
    Case(n=31, data="image", scale="1e-300", decoder="writes"),  # IndexError in the marginals
    Case(scale="denormal", population=20),  # encoder_rank broke off
    Case(data="huge", probes=0),  # an interval from -inf to inf
    Case(decoder="bool"),  # decoder_folds wanted a floating output
    Case(decoder="complex"),  # complex pictures in the gallery
    Case(likelihood="gaussian 1e200"),  # OverflowError
    Case(likelihood="gaussian 1e-160"),
    Case(prior="zero scale"),  # an error that did not say what to do
    Case(prior="NaN mean"),
    Case(family="Categorical", prior="Normal"),  # TypeError of a declared prior
    Case(family="Categorical", prior="word"),
    Case(encoder="all but two NaN", parameterisation="log_scale"),  # "ratio nan to nan"
    Case(decoder="NaN always"),  # "NA nats", and in order
    Case(family="flow", prior="object", probes=0),  # Unavailable ended the audit
    Case(family="Laplace", scale="1e30", prior="object", probes=1),
    Case(data="constant", prior="by row"),  # "between 0.00 and nan nats"
    Case(mean="1e300", prior="1e-30", p=1, probes=2),  # no plane, no neighbours
    Case(data="some NaN", mean="signs", scale="by dimension", probes=1),  # SVD of missing data
    Case(n=5, p=1, probes=3),  # tangent_rank's interval reached 4 of 1 direction
    Case(encoder="by batch", decoder="1e300", population=20, probes=2),
    # Outputs that a decoder gives late, and that are no logits: IndexError, twice.
    Case(d=4, decoder="raises on some", likelihood="categorical", population=2, seed=2, probes=1),
    Case(n=2, p=1, decoder="wrong shape late", likelihood="categorical", probes=3),
    Case(family="LowRank", scale="1e-30"),  # torch could not factor the covariance
)


def test_the_cases_of_this_file_are_what_they_say() -> None:
    """Every word of `CHOICES` is one that a case can have, and none is the plain one twice."""
    for name, values in CHOICES.items():
        plain = getattr(PLAIN, name)
        assert all(value != plain for value in values), name
    assert {probe.name for some in SOME for probe in some} == {probe.name for probe in ALL}


def test_the_plain_case_is_undecided_or_what_many_samples_say(tmp_path: Path) -> None:
    # Its decoder is a random map: of 2,000 samples the slope on the outputs is -0.29, not 1.
    assert check(PLAIN, tmp_path / "a.audit") in ("contradictory", "inconclusive")


@pytest.mark.parametrize("case", FOUND, ids=repr)
def test_what_was_found(tmp_path: Path, case: Case) -> None:
    check(case, tmp_path / "a.audit", html=case.mean == "1e300")


@given(case=cases())
@example(PLAIN)
@fuzz(40)
def test_any_model(tmp_path_factory: pytest.TempPathFactory, case: Case) -> None:
    """One audit in eight is saved, loaded, and put into every format."""
    kept = crc32(repr(case).encode()) % 8 == 0
    check(case, tmp_path_factory.getbasetemp() / "any.audit" if kept else None)
