"""What every page of this project must satisfy, whatever it shows."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img", "input"}
ALLOWED = {
    *("html", "head", "meta", "title", "link", "style", "body", "a", "div", "nav", "p", "ul", "ol"),
    *(
        "li",
        "main",
        "dl",
        "dt",
        "dd",
        "section",
        "h1",
        "h2",
        "h3",
        "span",
        "small",
        "b",
        "i",
        "img",
    ),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "details"),
    *("summary", "pre", "code", "footer"),
    *("svg", "defs", "symbol", "g", "path", "rect", "circle", "use", "text", "image", "pattern"),
    *("clippath", "tspan", "script"),
    *("math", "mi", "mo", "mn", "mfrac", "msup", "msub", "mover", "mrow"),
}


class Page(HTMLParser):
    """A page taken apart: its elements, ids and addresses; unbalanced tags are an error."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[tuple[str, str]] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.append((tag, name, value or ""))
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
                self.addresses.append((tag, value or ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)


def check(text: str) -> Page:
    """Well-formed, self-contained, one known script, with unique ids that links find."""
    page = Page(text)
    unknown = set(page.tags) - ALLOWED
    assert not unknown, f"elements that no template writes: {unknown}"
    handlers = [a for a in page.attributes if a[1].startswith("on")]
    assert not handlers, f"inline handlers: {handlers}"
    for tag, address in page.addresses:
        inside = address.startswith("#")
        image = tag in ("img", "image") and address.startswith("data:image/")
        file = tag == "a" and address.startswith(("data:application/json;", "data:text/csv;"))
        icon = tag == "link" and address == "data:,"
        assert inside or image or file or icon, f"<{tag}> points outside: {address[:80]}"
        if inside:
            assert address[1:] in page.ids, f"{address} leads nowhere"
    assert len(page.ids) == len(set(page.ids)), "an id is used twice"
    for _, name, value in page.attributes:
        for reference in re.findall(r"url\(#([^)]+)\)", value) if name != "href" else ():
            assert reference in page.ids, f"url(#{reference}) leads nowhere"
    styles = "".join(page.texts.get("style", []))
    assert "@import" not in styles
    assert not re.search(r"url\((?!#)", styles)
    policy = [v for _, name, v in page.attributes if name == "content" and "default-src" in v]
    assert len(policy) == 1
    assert "default-src 'none'" in policy[0]
    # One script, which is the one that the policy allows: nothing of an audit is in it.
    assert page.tags.count("script") == 1
    assert [a for a in page.attributes if a[0] == "script"] == []
    (script,) = page.texts["script"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy[0]
    assert "unsafe" not in policy[0].replace("style-src 'unsafe-inline'", "")
    assert page.tags.count("h1") == 1
    assert page.tags.count("main") == 1
    # No number that is none, and no object that was meant to be a word.
    words = " ".join(
        t for tag, parts in page.texts.items() if tag not in ("style", "script") for t in parts
    )
    for bad in (r"\bnan\b", r"\binf\b", r"<NA>", r"\bNone\b(?! of)", r"\bTrue\b", r"\bFalse\b"):
        found = re.search(bad, words)
        assert found is None, f"{bad} in: {words[max(found.start() - 60, 0) : found.end() + 30]}"
    return page
