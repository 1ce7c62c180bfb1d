"""One browser and one set of pages for all tests that look at them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import collapsekit as ck
from collapsekit.comparison import compare
from collapsekit.demo import DigitsVAE, digits
from collapsekit.results import Audit
from tests import audits
from tests.rendering import browser as browsers
from tests.test_groups import Ladder

#: Would set window.struck, were it ever markup, script or an attribute.
STRIKE = "\"'></script></style><img src=x onerror=window.struck=1><svg onload=window.struck=1>"


@pytest.fixture(scope="session")
def browser() -> Iterator[browsers.Browser]:
    path = browsers.find()
    if path is None:
        pytest.skip("no Chromium on PATH")
    with browsers.browser(path) as opened:
        yield opened


def _ladder() -> Audit:
    """A hierarchical model whose top group says nothing."""
    model = Ladder(a=(0.0, 0.0))
    return ck.audit(model, model.sample(120), seed=1)


def _measured() -> Audit:
    """A real audit, small: whatever section a probe has, it is in the page."""
    images, labels, _, _ = digits()
    model = DigitsVAE(6).eval()
    return ck.audit(
        model, images[:90], labels=labels[:90], likelihood=("gaussian", 0.3), beta=0.1, batch=45
    )


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    partial = audits.made_up("partial", n=200)
    made = {
        "partial": partial.to_html(),
        "local": audits.made_up("local", n=200, pictures="colour", side=48).to_html(),
        "healthy": audits.made_up("healthy", n=200, pictures="vector", labels=()).to_html(),
        "one dimension": audits.made_up("healthy", n=200, d=1).to_html(),
        "many dimensions": audits.made_up("partial", n=100, d=100).to_html(),
        "latent image": audits.made_up(
            "near-deterministic", n=40, d=4 * 16 * 16, latent_shape=(4, 16, 16)
        ).to_html(),
        "long labels": audits.made_up(
            "local", n=600, labels=tuple(f"A rather long label {k}" for k in range(30))
        ).to_html(),
        "directions": audits.turning(partial, idle=9, mixed=4, unread=9).to_html(),
        "measured": _measured().to_html(),
        "groups": _ladder().to_html(),
        "nothing measured": audits.bare().to_html(),
        "comparison": compare(
            {"vanilla": partial, "repaired": audits.made_up("healthy", n=200)}
        ).to_html(),
        "seven audits": compare(
            {kind: audits.made_up(kind, n=60) for kind in audits.KINDS}
        ).to_html(),
        "hostile": audits.hostile(audits.made_up("local", n=60, d=8), STRIKE).to_html(),
        "hostile comparison": compare(
            {STRIKE: audits.hostile(partial, STRIKE), f"{STRIKE} again": partial}, force=True
        ).to_html(),
    }
    files = {}
    for name, text in made.items():
        files[name] = folder / f"{name.replace(' ', '-')}.html"
        files[name].write_text(text, encoding="utf-8")
    return files
