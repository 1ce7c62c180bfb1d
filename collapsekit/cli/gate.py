"""How a command ends: its exit code, and the errors that a user is shown."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import ParamSpec

import typer

from collapsekit.errors import CollapseError, CollapsekitError, ModelError, Unavailable
from collapsekit.findings import Finding, Severity
from collapsekit.results import Audit

P = ParamSpec("P")


class Status(IntEnum):
    """The exit codes, which scripts rely on."""

    RAN = 0
    FOUND = 1  # a finding at or above --fail-on
    USAGE = 2
    UNDECIDED = 3  # the audit could not run, or its verdict is inconclusive
    INTERNAL = 4
    INTERRUPTED = 130


def at_or_above(audit: Audit, bar: Severity) -> list[Finding]:
    """The findings that make a gate with this bar fail."""
    return [finding for finding in audit.findings if finding.severity >= bar]


def judge(audits: Sequence[Audit], bar: Severity | None, allow_inconclusive: bool) -> Status:
    """The exit code of a command that has these audits to show.

    A finding at or above the bar is the stronger statement, so it wins over a verdict that could
    not be reached. An inconclusive finding alone sets nothing.
    """
    if bar is not None and any(at_or_above(audit, bar) for audit in audits):
        return Status.FOUND
    if not allow_inconclusive and any(audit.verdict.name == "inconclusive" for audit in audits):
        return Status.UNDECIDED
    return Status.RAN


def command(body: Callable[P, Status]) -> Callable[P, None]:
    """Wrap a command: its status becomes the exit code, whatever it raises a message and a code.

    Tracebacks are shown with ``COLLAPSEKIT_DEBUG=1`` only.
    """

    @functools.wraps(body)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            status = body(*args, **kwargs)
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt as stop:
            status = Status.INTERRUPTED
            say("\n".join(getattr(stop, "__notes__", [])) or "interrupted")
        except SystemExit as error:
            # Ours are typer's; this one comes from the model's code, an argparse of its own say.
            status = told(
                ModelError(
                    "the model's code ended the program",
                    got=f"sys.exit({error.code!r})",
                    expected="code that can be imported and called",
                    remedy="keep what is meant for the command line out of it",
                )
            )
        except Exception as error:
            status = told(error)
        raise typer.Exit(int(status))

    return run


def told(error: Exception) -> Status:
    """Show an error to the user; the exit code that goes with it."""
    if os.environ.get("COLLAPSEKIT_DEBUG", "0") not in ("", "0"):
        say("".join(traceback.format_exception(error)).rstrip())
    if isinstance(error, CollapsekitError):
        say(f"error: {error}")
        if isinstance(error, CollapseError):
            return Status.FOUND
        # The model's fault, not the command line's: the audit could not run.
        stopped = isinstance(error, ModelError | Unavailable)
        return Status.UNDECIDED if stopped else Status.USAGE
    say(
        f"internal error: {type(error).__name__}: {error}\n"
        "  do:       run again with COLLAPSEKIT_DEBUG=1 for the traceback, and report it"
    )
    return Status.INTERNAL


def say(text: str) -> None:
    """A line for the person at the terminal; never part of the result."""
    print(text, file=sys.stderr, flush=True)
