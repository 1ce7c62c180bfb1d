"""The page's script: it sorts, filters and copies, by mouse and by key, and does nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from collapsekit.rendering.page import script
from tests.rendering import browser as browsers
from tests.rendering.conftest import STRIKE

pytestmark = pytest.mark.skipif(browsers.find() is None, reason="no Chromium on PATH")

_COLUMN = """
(() => {
  const table = document.querySelector('#writes-reads table');
  return [...table.tBodies[0].rows].map(row => row.cells[%d].textContent.trim());
})()
"""


def _press(browser: browsers.Browser, key: str, code: int, text: str = "") -> None:
    sent: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": code}
    if text:
        sent["text"] = text
    browser.call("Input.dispatchKeyEvent", type="keyDown", **sent)
    browser.call("Input.dispatchKeyEvent", type="keyUp", **sent)


def test_the_script_is_small() -> None:
    assert len(script()[0].encode()) < 25_000


def test_columns_sort_by_number_and_by_name(
    browser: browsers.Browser, pages: dict[str, Path]
) -> None:
    seen = browser.open(pages["partial"])
    sort = "document.querySelectorAll('#writes-reads table th')[%d].querySelector('button').%s"
    before = browser.run(_COLUMN % 2)
    assert len(before) > 3
    browser.run(sort % (2, "focus()"))
    _press(browser, "Enter", 13, "\r")
    falling = [float(cell) for cell in browser.run(_COLUMN % 2)]
    assert falling == sorted(falling, reverse=True)
    _press(browser, "Enter", 13, "\r")
    assert [float(cell) for cell in browser.run(_COLUMN % 2)] == falling[::-1]
    assert sorted(browser.run(_COLUMN % 2)) == sorted(before)
    browser.run(sort % (1, "click()"))
    names = browser.run(_COLUMN % 1)
    assert names == sorted(names)
    states = browser.run(
        "[...document.querySelectorAll('#writes-reads th')].map(h => h.getAttribute('aria-sort'))"
    )
    assert states[1] == "ascending"
    assert states.count(None) == len(states) - 1
    assert seen.messages == []


def test_findings_filter_by_result_and_paper_shows_all(
    browser: browsers.Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["local"])
    shown = (
        "[...document.querySelectorAll('#findings > table.findings tbody tr')]"
        ".filter(r => r.getClientRects().length).map(r => r.cells[0].innerText.trim())"
    )
    everything = browser.run(shown)
    kinds = set(everything)
    assert len(kinds) >= 2
    browser.run("document.querySelectorAll('#findings .chip')[1].click()")
    some = browser.run(shown)
    assert 0 < len(some) < len(everything)
    assert len(set(some)) == 1
    pressed = "document.querySelectorAll('#findings .chip[aria-pressed=true]').length"
    assert browser.run(pressed) == 1
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.run(shown) == everything
    browser.call("Emulation.setEmulatedMedia", media="")
    browser.run("document.querySelector('#findings .chip').click()")
    assert browser.run(shown) == everything


def test_a_comparison_filters_by_what_changed(
    browser: browsers.Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["comparison"])
    words = browser.run("[...document.querySelectorAll('.chip')].map(c => c.value)")
    assert "better" in words
    browser.run("document.querySelector('.chip[value=better]').click()")
    tones = browser.run(
        "[...document.querySelectorAll('.compare tbody tr')].filter(r => !r.hidden)"
        ".map(r => r.querySelector('.change').classList.contains('better'))"
    )
    assert tones
    assert all(tones)


def test_a_long_table_is_searched(browser: browsers.Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["partial"])
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    browser.run(
        "(() => { const input = document.querySelector('#appendix .find');"
        " input.value = 'passive'; input.dispatchEvent(new Event('input')); })()"
    )
    rows = browser.run(
        "(() => { const find = document.querySelector('#appendix .find');"
        " const table = find.parentNode.previousElementSibling.querySelector('table');"
        " return [...table.tBodies[0].rows].map(r => [r.hidden, r.innerText]); })()"
    )
    assert any(not hidden for hidden, _ in rows)
    assert all(hidden != ("passive" in text) for hidden, text in rows)


def test_tables_and_commands_are_copied(browser: browsers.Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["partial"])
    # What is copied is caught on its way: a headless browser has no clipboard to look into.
    browser.run(
        "Object.defineProperty(navigator, 'clipboard', {configurable: true, value: {"
        "writeText: text => { window.copied = text; return Promise.resolve(); }}})"
    )
    browser.run("document.querySelector('#writes-reads .copy').click()")
    lines = browser.run("window.copied").splitlines()
    rows = browser.run("document.querySelector('#writes-reads table').tBodies[0].rows.length")
    assert len(lines) == rows + 1
    assert lines[0].startswith("Dimension,Role,Writes")
    assert len({line.count(",") for line in lines}) == 1
    told = "document.querySelector('[role=status]').textContent"
    assert browser.run(told) == "Copied"
    browser.run("document.querySelector('#remedy .copy').click()")
    assert "LatentReconstruction" in browser.run("window.copied")


@pytest.mark.parametrize("name", ["partial", "hostile"])
def test_the_browser_reads_the_downloads_as_they_were_written(
    browser: browsers.Browser, pages: dict[str, Path], name: str
) -> None:
    browser.open(pages[name])
    content = browser.run(
        "(() => { const a = document.querySelector('a[download=\"audit.json\"]');"
        " return JSON.parse(decodeURIComponent(a.href.slice(a.href.indexOf(',') + 1))); })()"
    )
    assert content["schema"].startswith("collapsekit-audit/")
    assert content["dimensions"]
    if name == "hostile":
        assert content["provenance"]["model"] == STRIKE


@pytest.mark.parametrize("name", ["hostile", "hostile comparison"])
def test_nothing_hostile_runs_or_makes_an_element(
    browser: browsers.Browser, pages: dict[str, Path], name: str
) -> None:
    seen = browser.open(pages[name])
    browser.run("document.querySelectorAll('button').forEach(b => b.click())")
    assert browser.run("window.struck === undefined")
    assert browser.run("document.querySelectorAll('script').length") == 1
    assert browser.run("document.querySelectorAll('img[src=x], svg[onload], iframe').length") == 0
    assert [m for m in seen.messages if "clipboard" not in m.lower()] == []
    assert [url for url in seen.requests if not url.startswith(("file:", "data:"))] == []
