"""What an audit of a model could see, what it would assume, and where the model contradicts itself.

`inspect` runs the model on a few samples only. It looks for the mistakes that make every number of
an audit wrong without any error: a log-variance read as a scale, a sampler that uses another width
than the one that the KL is computed from, an output that is no probability.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from collapsekit.adapter import offers, session
from collapsekit.adapters import as_adapter
from collapsekit.doctor import decoder, encoder, sampler
from collapsekit.doctor.case import Case, Line, noted
from collapsekit.door import Door
from collapsekit.errors import InputError
from collapsekit.groups import GroupDoor, is_grouped, names_of
from collapsekit.posteriors import Categorical, VonMisesFisher
from collapsekit.readers import Encoded
from collapsekit.samples import Inputs, as_samples, rows_of

_ROWS = 64


@dataclass(frozen=True)
class Diagnosis:
    """What `inspect` found.

    Parameters
    ----------
    model, data : str
        What was looked at.
    capabilities : tuple of Line
        Each piece that a model can offer; `otherwise` says what is lost without it.
    assumptions : tuple of Line
        What an audit would assume; `otherwise` says how to declare something else.
    readings : tuple of Line
        The second output under each parameterisation: how many rows are usable, and the KL.
    faults : tuple of str
        Contradictions: numbers of an audit would be wrong.
    """

    model: str
    data: str
    capabilities: tuple[Line, ...]
    assumptions: tuple[Line, ...]
    readings: tuple[Line, ...]
    faults: tuple[str, ...]

    def __str__(self) -> str:
        blocks = [f"model  {self.model}\ndata   {self.data}"]
        blocks.append(_block("What can be seen", self.capabilities, "without it: "))
        blocks.append(_block("What is assumed", self.assumptions, "otherwise: "))
        if self.readings:
            blocks.append(_block("The second output, read as", self.readings, ""))
        if self.faults:
            told = "\n".join(f"  - {text}" for text in self.faults)
            blocks.append(f"Contradictions ({len(self.faults)}): an audit would be wrong\n{told}")
        else:
            blocks.append("Contradictions: none found")
        return "\n\n".join(blocks)


def _block(title: str, lines: tuple[Line, ...], lead: str) -> str:
    width = max((len(line.piece) for line in lines), default=0)
    rows = [title]
    for line in lines:
        rows.append(f"  {line.piece:<{width}}  {line.found}")
        if line.otherwise:
            rows.append(f"  {'':<{width}}    {lead}{line.otherwise}")
    return "\n".join(rows)


def inspect(
    model: Any,
    data: Any = None,
    *,
    parameterisation: str = "scale",
    likelihood: Any = None,
    prior: Any = None,
    device: Any = None,
    trust_code: bool = False,
) -> Diagnosis:
    """Look at a model before it is audited, on at most 64 samples.

    Every family of posteriors that an audit takes is looked at; a hierarchical model group by
    group.

    Parameters
    ----------
    model, data, parameterisation, likelihood, prior, device
        As `collapsekit.audit`'s.
    trust_code : bool
        As `collapsekit.adapters.as_adapter`'s.

    Returns
    -------
    Diagnosis
        ``print`` it.

    Raises
    ------
    InputError
        There is no data, or this is no model.
    ModelError
        The model has no posterior that could be read, or several.
    """
    adapter, brought = as_adapter(model, device=device, trust_code=trust_code)
    source = brought if data is None else data
    if source is None:
        raise InputError(
            "there is no data to look at the model with",
            got="data=None",
            expected="a few samples",
            remedy="pass data=...",
        )
    samples = as_samples(source)
    first = next(samples.batches(_ROWS), None)
    if first is None:
        raise InputError(
            "the data hold no sample",
            got="N = 0",
            expected="at least one",
            remedy="hand in data with at least one sample; look for an empty file or filter",
        )
    x = first.whole().x
    state = torch.get_rng_state()
    try:
        with torch.no_grad(), session(adapter):
            cases = _cases(adapter, x, parameterisation, prior, likelihood)
            for case in cases:
                _look(case)
            notes = noted(getattr(adapter, "notes", ()), "model")
    finally:
        torch.set_rng_state(state)
    return Diagnosis(
        model=str(getattr(adapter, "description", type(adapter).__name__)),
        data=f"{samples.description}; looked at {rows_of(x)}",
        capabilities=tuple(line for case in cases for line in case.capabilities),
        assumptions=(
            *(line for case in cases for line in case.assumptions),
            *notes,
            *noted(samples.notes, "data"),
        ),
        readings=tuple(line for case in cases for line in case.readings),
        faults=tuple(text for case in cases for text in case.faults),
    )


def _cases(
    adapter: Any, x: Inputs, parameterisation: str, prior: Any, likelihood: Any
) -> list[Case]:
    if not is_grouped(adapter):
        return [Case(Door(adapter, parameterisation, prior, likelihood), x)]
    names = names_of(adapter, x, parameterisation)
    return [
        Case(
            GroupDoor(adapter, parameterisation, None, likelihood, group=name, names=names), x, name
        )
        for name in names
    ]


def _look(case: Case) -> None:
    encoded, declared = encoder.look(case)
    if not case.group:  # of groups the model alone draws, and encode is no answer to be read
        sampler.look(case, encoded, declared)
    decoder.look(case, encoded)
    _others(case)
    _prior(case, encoded)


def _others(case: Case) -> None:
    for piece, lost in (
        ("log_likelihood", "errors come from likelihood=, or are squared errors"),
        ("context", "decode is called with the code alone"),
    ):
        there = offers(case.door.adapter, piece)
        if piece == "context" and case.group:
            lost = "generate is called with the codes alone"
        case.can(piece, "there" if there else "none", "" if there else lost)


def _prior(case: Case, encoded: Encoded | None) -> None:
    if case.group:
        case.can("prior", "the model's own, given the groups above")
        return
    there = case.door.prior is not None
    usual = _usual(encoded)
    case.can("prior", "there" if there else "none", "" if there else f"{usual} is assumed")
    if not there:
        case.assume("prior", usual, "prior=(mean, scale), or a distribution")


def _usual(encoded: Encoded | None) -> str:
    """What an audit takes for the prior where none is declared."""
    if encoded is not None and isinstance(encoded.posterior, Categorical):
        return "uniform over the classes"
    if encoded is not None and isinstance(encoded.posterior, VonMisesFisher):
        return "uniform on the sphere"
    return "N(0, I)"


__all__ = ["Diagnosis", "Line", "inspect"]
