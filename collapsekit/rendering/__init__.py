"""What people look at: every format is a function ``render(audit) -> str`` in a module of its own.

The input is an `Audit` and nothing else, so that an old file renders again without model, data or
torch. The way through the package, each module importing only from those left of it::

    wording <- facts <- blocks <- sections/* <- page, markdown
               theme <- canvas <- figures <--'
                        rasters <- sections/*

A new section of the page is one file in ``sections`` and one line in ``sections/__init__.py``.
Only `figures` and `canvas` import matplotlib (so `page`, `comparison_page`, and `plots` once it
draws); a terminal, a notebook and a pipeline get their formats without it.
"""

from __future__ import annotations
