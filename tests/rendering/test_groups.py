"""The section on groups of latents, and what every other format tells of them."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest

import collapsekit as ck
from collapsekit.joined import joined_groups
from collapsekit.rendering import card, data, junit, markdown, page, text
from collapsekit.rendering.blocks import Figure, Section, Table, Tiles
from collapsekit.rendering.facts import Facts
from collapsekit.rendering.sections import groups, prior_match, verdict
from collapsekit.results import Audit
from tests import audits
from tests.rendering.conftest import STRIKE
from tests.rendering.pages import check
from tests.test_groups import Ladder


@pytest.fixture(scope="module")
def ladder() -> Audit:
    """Its top group says nothing: z1 does not move z2."""
    model = Ladder(a=(0.0, 0.0))
    return ck.audit(model, model.sample(300), seed=1)


def joined(**kinds: audits.Kind) -> Audit:
    return joined_groups(
        {
            name: audits.made_up(kind, n=40, d=8, seed=at)
            for at, (name, kind) in enumerate(kinds.items())
        }
    )


def section(audit: Audit) -> Section:
    found = groups.build(Facts(audit))
    assert found is not None
    return found


def test_one_row_a_group_from_its_own_audit(ladder: Audit) -> None:
    (table,) = [block for block in section(ladder).blocks if isinstance(block, Table)]
    assert [column.name for column in table.columns] == list(groups.COLUMNS)
    top, low = (tuple(map(str, row)) for row in table.rows)
    assert top[:5] == ("z1", "Total collapse", "2", "0", "0")
    assert low[:5] == ("z2", "Healthy", "2", "2", "2")
    rate = ladder.groups["z2"].number("rate")
    assert low[5].startswith(f"{rate.value:.2f} (")
    assert top[6] == "0"
    assert top[7].startswith("Fail: CK101")
    assert section(ladder).headline == "1\u00a0of\u00a02 groups: total collapse, z1."
    (figure,) = [block for block in section(ladder).blocks if isinstance(block, Figure)]
    assert figure.result.startswith("z2 spends most")
    assert figure.result.replace("\u00a0", " ").endswith("z1 least, 0 nats.")


def test_the_prior_is_matched_in_the_dimensions_where_that_is_known(ladder: Audit) -> None:
    # The lower group's prior is another for each sample: its aggregate has no prior to match.
    found = prior_match.build(Facts(ladder))
    assert found is not None
    told = found.headline.replace("\u00a0", " ")
    assert told == "In 2 of 4 dimensions the codes match the prior."


def test_an_audit_without_groups_has_no_such_section() -> None:
    assert groups.build(Facts(audits.made_up(n=40, d=4))) is None


def test_the_verdict_speaks_of_the_group_that_decides(ladder: Audit) -> None:
    facts = Facts(ladder)
    # The joined rate is the whole model's; the sentence must not hang it on the collapsed group.
    assert verdict.headline(facts).replace("\u00a0", " ") == (
        "Group z1: the code says nothing about the input. Its KL is only 0 nats per sample."
    )
    (tiles,) = [b for b in verdict.build(facts).blocks if isinstance(b, Tiles)]
    assert tiles.note.startswith("The numbers are those of group z1.")
    assert len(tiles.tiles) == 6
    assert {tile.href for tile in tiles.tiles} == {"#groups"}


def test_of_healthy_groups_only_the_whole_is_told() -> None:
    audit = joined(top="healthy", low="healthy")
    assert audit.verdict.name == "healthy"
    assert audit.verdict.sentence.startswith("Healthy: every group is. Group top: ")
    assert verdict.headline(Facts(audit)) == "Both groups are healthy."
    (tiles,) = [b for b in verdict.build(Facts(audit)).blocks if isinstance(b, Tiles)]
    assert tiles.note.startswith("The numbers are the whole model’s.")
    assert [tile.label for tile in tiles.tiles] == ["Rate: KL per sample"]


@pytest.mark.parametrize(
    ("kinds", "told"),
    [
        (("partial", "total"), "Both groups have a problem: g0 partial and g1 total."),
        (("total", "total", "healthy"), "2 of 3 groups: total collapse, g0 and g1."),
        (
            ("total", "inconclusive", "healthy"),
            "1 of 3 groups: total collapse, g0. g1 is not decided.",
        ),
        (
            ("healthy", "inconclusive"),
            "No group is known to be collapsed; g1 is not decided.",
        ),
    ],
)
def test_headlines(kinds: tuple[audits.Kind, ...], told: str) -> None:
    audit = joined(**{f"g{at}": kind for at, kind in enumerate(kinds)})
    assert groups.headline(Facts(audit)).replace("\u00a0", " ") == told


def test_many_groups_are_shown_by_their_verdicts_in_their_order() -> None:
    one, bad = (audits.made_up(kind, n=20, d=2) for kind in ("healthy", "total"))
    audit = joined_groups({f"g{at:02}": bad if at in (3, 50) else one for at in range(52)})
    shown, note = groups.shown(Facts(audit))
    assert note == "Showing 40 of 52 groups. Those with the worst verdicts."
    names = [group.name for group in shown]
    assert names == sorted(names)
    assert {"g03", "g50"} <= set(names)


def test_every_format_tells_each_groups_verdict(ladder: Audit) -> None:
    terminal = text.render(ladder).splitlines()
    at = terminal.index("1 of 2 groups: total collapse, z1.")
    assert terminal[at + 2].split()[:4] == ["z1", "Total", "collapse", "0"]
    assert terminal[at + 3].split()[:3] == ["z2", "Healthy", "2"]
    assert max(map(len, terminal)) <= 96
    assert "| z2 | Healthy | 2 | 2 | 2 |" in markdown.render(ladder)
    told = json.loads(data.render(ladder))
    assert told["groups"] == ["z1", "z2"]
    assert [told["group_verdicts"][name]["name"] for name in told["groups"]] == ["total", "healthy"]
    suite = ElementTree.fromstring(junit.render(ladder))
    properties = {p.get("name"): p.get("value") for p in suite.iter("property")}
    assert properties["verdict of group z1"] == "total"
    assert "Group z1" in card.render(ladder)


def test_names_are_told_as_they_are_written(ladder: Audit) -> None:
    # A name is no sentence: z1 must not come out as Z1.
    assert "Z1" not in page.render(ladder)


def test_a_hostile_name_is_only_a_name() -> None:
    part = audits.made_up("local", n=40, d=4)
    audit = joined_groups({STRIKE: part, f"{STRIKE}|\n`x`": replace(part, findings=())})
    check(page.render(audit))
    for written in (markdown.render(audit), card.render(audit)):
        assert "<img" not in written
        assert "<svg onload" not in written
    rows = [line for line in markdown.render(audit).splitlines() if "Local collapse | 4" in line]
    assert len(rows) == 2
