"""The section on directions: there where their tables are, and reading them out."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from collapsekit.rendering.blocks import Figure, Fold, Paragraph, Section, Table
from collapsekit.rendering.facts import Facts
from collapsekit.rendering.sections import build_all, directions
from collapsekit.rendering.wording import NBSP
from collapsekit.results import Audit
from tests import audits
from tests.test_rotation import DIMS, USED, bent


def section(audit: Audit) -> Section:
    found = directions.build(Facts(audit))
    assert found is not None
    return found


def told(text: str) -> str:
    return text.replace(NBSP, " ")


def tables(found: Section) -> dict[str, Table]:
    folds = [block for block in found.blocks if isinstance(block, Fold)]
    return {b.caption: b for fold in folds for b in fold.blocks if isinstance(b, Table)}


def test_codes_with_axes_have_no_such_section() -> None:
    assert directions.build(Facts(audits.made_up())) is None
    assert directions.build(Facts(audits.bare())) is None


@pytest.mark.parametrize(
    ("idle", "unread", "said"),
    [
        (0, 0, "None of the 32 directions equals the prior; the decoder reads all 32."),
        (1, 0, "1 of 32 directions equals the prior; the decoder reads all 32."),
        (9, 10, "9 of 32 directions equal the prior; the decoder reads 22."),
        (32, 32, "All 32 directions equal the prior; the decoder reads none."),
    ],
)
def test_headlines(idle: int, unread: int, said: str) -> None:
    assert told(section(audits.turning(audits.made_up(), idle, 0, unread)).headline) == said


@pytest.mark.parametrize(
    ("idle", "said"),
    [
        (0, "The one direction is in use; the decoder reads it."),
        (1, "The only direction equals the prior; the decoder reads it."),
    ],
)
def test_one_direction(idle: int, said: str) -> None:
    assert told(section(audits.turning(audits.made_up(d=1), idle)).headline) == said


def test_more_directions_than_are_measured_or_listed() -> None:
    found = section(audits.turning(audits.made_up(d=300), idle=100, unread=20))
    assert told(found.headline).endswith("the decoder reads 44 of the 64 measured.")
    written, read = tables(found).values()
    assert len(written.rows) == len(read.rows) == 64
    assert written.note == "Showing 64 of 300 directions: the first 32 and the last."
    assert read.note == ""
    (kl, usage) = [b for b in found.blocks if isinstance(b, Figure)]
    assert (kl.caption.split(":")[0], usage.caption.split(":")[0]) == ("Band", "Stroke")
    assert "64 of 300 directions: the steepest and the flattest." in usage.caption


def test_captions_read_the_tables_out() -> None:
    audit = bent(10)
    found = section(audit)
    written, read = audit.tables["directions"], audit.tables["read_directions"]
    first, second = (told(b.result) for b in found.blocks if isinstance(b, Figure))
    kl = written.iloc[0]
    assert f"the first {kl['kl']:.3g} ({kl['kl_low']:.3g} to {kl['kl_high']:.3g}; " in first
    assert first.endswith("n = 240 samples).")
    usage, half = read["usage"].iloc[0], 1.959964 * read["usage_se"].iloc[0]
    assert second.startswith(f"{USED} of {DIMS} directions are read; the strongest makes")
    assert f"{usage:.0%}".replace("%", " %") in second
    ends = f"({usage - half:.0%} to {usage + half:.0%}; n = 512 draws)".replace("%", " %")
    assert ends in second


def test_numbers_are_those_of_the_table_and_dust_is_no_number() -> None:
    found = tables(section(audits.turning(audits.made_up(d=4), idle=2)))
    rows = [[told(str(cell)) for cell in row] for row in found["KL by direction, nats"].rows]
    assert rows[0][:5] == ["0", "active", "2", "1.80 to 2.20", "0 %"]
    assert rows[3][:5] == ["3", "passive", "0", "0 to 0", "100 %"]


def test_local_directions_are_told() -> None:
    paragraph = section(
        audits.turning(audits.made_up(d=8, pictures="none"), idle=2, mixed=1)
    ).blocks[0]
    assert isinstance(paragraph, Paragraph)
    text = told(paragraph.text)
    assert "Of eight directions, five are active for nearly every sample, one is mixed" in text
    assert "Of the mixed, one is local: wide for some" in text
    assert "Passive ones: 2 to 3 at 95 %." in text


@pytest.mark.parametrize("name", ["directions", "read_directions"])
def test_either_table_alone_is_shown(name: str) -> None:
    audit = audits.without(audits.turning(audits.made_up(d=6), idle=2, unread=2), name)
    assert len([b for b in section(audit).blocks if isinstance(b, Figure)]) == 1


def test_unknown_intervals_are_left_out() -> None:
    found = tables(section(audits.turning(audits.made_up(n=1), idle=3)))
    assert {row[3] for row in found["KL by direction, nats"].rows} == {"–"}


def test_other_sections_speak_of_directions_too() -> None:
    audit = bent(10)
    heads = {s.id: told(s.headline) for s in build_all(Facts(audit))}
    assert heads["verdict"].startswith(f"{DIMS - USED} of {DIMS} directions equal the prior.")
    assert heads["active-units"].startswith(f"{USED} of {DIMS} units are active")
    assert "dimensions" not in heads  # their KL does not split


def test_strings_of_an_audit_are_cut() -> None:
    audit = audits.turning(audits.made_up(d=3))
    table = audit.tables["directions"].assign(state=pd.Series(["x" * 500] * 3))
    audit = replace(audit, tables={**audit.tables, "directions": table})
    assert max(len(row[1]) for row in tables(section(audit))["KL by direction, nats"].rows) == 12
