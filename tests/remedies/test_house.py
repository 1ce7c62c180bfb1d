"""Rules of the remedies' house: small files, usable alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from collapsekit import remedies

FOLDER = Path(remedies.__file__).parent


def test_no_file_hides_behind_a_public_name() -> None:
    # `import collapsekit.remedies.free_bits` would replace a function of that name.
    assert not {path.stem for path in FOLDER.glob("*.py")} & set(remedies.__all__)


@pytest.mark.parametrize("name", remedies.__all__)
def test_every_public_name_is_told(name: str) -> None:
    assert getattr(remedies, name).__doc__
