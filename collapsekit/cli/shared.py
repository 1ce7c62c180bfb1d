"""Options and arguments that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

AuditFile = Annotated[str, typer.Argument(metavar="FILE", help="An audit: FILE.audit.")]
FailOn = Annotated[
    str | None,
    typer.Option(metavar="SEVERITY", help="Exit 1 from this on: inconclusive, warn or fail."),
]
TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code", help="Open model files that execute code when they are read; told."
    ),
]
AllowInconclusive = Annotated[
    bool, typer.Option("--allow-inconclusive", help="Exit 0 when the verdict is inconclusive.")
]
