"""Pages in a real browser: no request, no overlap, everything prints, keys reach everything."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.rendering import browser as browsers

_PATH = browsers.find()
pytestmark = pytest.mark.skipif(_PATH is None, reason="no Chromium on PATH")

#: Where the accessibility checks' script may lie: named by a variable, or installed by npm.
_AXE = [
    Path(os.environ.get("COLLAPSEKIT_AXE", "")),
    Path("build/npm/node_modules/axe-core/axe.min.js"),
    Path("node_modules/axe-core/axe.min.js"),
    Path("/usr/share/javascript/axe-core/axe.min.js"),
    Path("/usr/lib/node_modules/axe-core/axe.min.js"),
    Path("/usr/local/lib/node_modules/axe-core/axe.min.js"),
]

_OVERLAPS = """
(() => {
  const found = [];
  for (const svg of document.querySelectorAll('figure svg')) {
    if (!svg.getClientRects().length) continue;
    const box = svg.getBoundingClientRect();
    const title = svg.querySelector('title').textContent.slice(0, 40);
    const texts = [...svg.querySelectorAll('text')]
      .map(t => [t.textContent, t.getBoundingClientRect()]);
    texts.forEach(([one, a], i) => {
      if (a.left < box.left - 2 || a.right > box.right + 2
          || a.top < box.top - 3 || a.bottom > box.bottom + 3)
        found.push(['outside', title, one]);
      for (const [other, b] of texts.slice(i + 1)) {
        const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (wide > 1 && high > 3) found.push(['overlap', title, one, other]);
      }
    });
  }
  return found;
})()
"""


NAMES = (
    "partial",
    "local",
    "healthy",
    "one dimension",
    "many dimensions",
    "latent image",
    "long labels",
    "directions",
    "measured",
    "groups",
    "nothing measured",
    "comparison",
    "seven audits",
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_requested_overlaps_or_overflows(
    browser: browsers.Browser, pages: dict[str, Path], name: str, width: int
) -> None:
    seen = browser.open(pages[name], width=width)
    outside = [url for url in seen.requests if not url.startswith(("file:", "data:"))]
    assert outside == []
    assert len([url for url in seen.requests if url.startswith("file:")]) == 1
    assert seen.messages == []
    assert browser.run(_OVERLAPS) == []
    assert browser.run("document.scrollingElement.scrollWidth") <= width


def test_pictures_are_decoded(browser: browsers.Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["local"])
    broken = browser.run(
        "[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.alt)"
    )
    assert broken == []
    assert browser.run("document.images.length") >= 24


def test_without_javascript_nothing_is_missing(
    browser: browsers.Browser, pages: dict[str, Path]
) -> None:
    def words() -> Any:
        return browser.call("DOMSnapshot.captureSnapshot", computedStyles=[])["strings"]

    browser.open(pages["partial"], scripts=False)
    without = set(words())
    assert "Copy as CSV" not in without
    browser.open(pages["partial"], scripts=True)
    added = set(words()) - without
    # What the script adds is controls, and their classes; no sentence of the report.
    allowed = ("button", "tools", "copy", "sort", "find", "chip", "div", "input", "aria-", "role")
    told = [w for w in added if len(w) > 24 and not w.lower().startswith(allowed)]
    assert [w for w in told if "filter" not in w.lower() and "{" not in w] == []


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_follows_the_colour_scheme(
    browser: browsers.Browser, pages: dict[str, Path], dark: bool
) -> None:
    browser.open(pages["partial"], dark=dark)
    background = browser.run("getComputedStyle(document.body).backgroundColor")
    inks = browser.run(
        "[...document.querySelectorAll('figure text')].map(t => getComputedStyle(t).fill)"
    )
    assert background == ("rgb(20, 22, 24)" if dark else "rgb(253, 253, 252)")
    light = {"rgb(27, 29, 32)", "rgb(93, 99, 107)"}
    night = {"rgb(233, 233, 230)", "rgb(162, 168, 175)"}
    assert set(inks) >= (night if dark else light)
    assert not set(inks) & (light if dark else night)
    # Paper is white whatever the screen prefers.
    browser.open(pages["partial"], dark=dark, media="print")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_a_phone_gets_the_narrow_figures_and_paper_the_wide_ones(
    browser: browsers.Browser, pages: dict[str, Path]
) -> None:
    shown = (
        "[...document.querySelectorAll('figure svg')]"
        ".filter(s => s.getClientRects().length).map(s => s.getAttribute('class'))"
    )
    browser.open(pages["partial"], width=390)
    assert set(browser.run(shown)) == {"narrow"}
    browser.open(pages["partial"], width=680, media="print")
    assert set(browser.run(shown)) == {"wide"}


def test_every_fold_is_open_in_print(browser: browsers.Browser, pages: dict[str, Path]) -> None:
    heights = (
        "[...document.querySelectorAll('details table')].map(t => t.getBoundingClientRect().height)"
    )
    browser.open(pages["partial"], media="print")
    printed = browser.run(heights)
    assert len(printed) >= 8
    # Nothing is wider than a sheet of A4: the browser would print the whole page smaller.
    browser.open(pages["partial"], media="print", width=680)
    assert browser.run("document.scrollingElement.scrollWidth") <= 680
    assert all(height > 20 for height in printed)


def test_the_keyboard_reaches_contents_tiles_and_folds(
    browser: browsers.Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["partial"])
    reached = []
    for _ in range(60):
        for kind in ("keyDown", "keyUp"):
            browser.call(
                "Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9
            )
        reached.append(
            browser.run("document.activeElement.tagName + ' ' + document.activeElement.className")
        )
    assert reached[0] == "A skip"
    tags = [name.split()[0] for name in reached]
    assert tags.count("A") > 18
    assert "SUMMARY" in tags
    assert "DIV scroll" in reached


@pytest.mark.parametrize("name", ["partial", "local", "measured", "comparison", "nothing measured"])
def test_accessibility(browser: browsers.Browser, pages: dict[str, Path], name: str) -> None:
    script = next((path for path in _AXE if path.is_file()), None)
    if script is None:
        pytest.skip("axe-core is not installed: `make axe`, or COLLAPSEKIT_AXE=axe.min.js")
    for mode in ({}, {"dark": True}, {"width": 390}, {"media": "print"}):
        browser.open(pages[name], **mode)  # type: ignore[arg-type]
        browser.run(f"{script.read_text(encoding='utf-8')};0")
        found = json.loads(
            browser.run(
                "axe.run(document).then(r => JSON.stringify(r.violations.map("
                "v => [v.id, v.impact, v.nodes[0].html.slice(0, 120)])))"
            )
        )
        assert found == [], mode


def test_it_prints(browser: browsers.Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    browser.open(pages["partial"], media="")
    browser.pdf(tmp_path / "report.pdf")
    content = (tmp_path / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert 20_000 < len(content) < 3_000_000
