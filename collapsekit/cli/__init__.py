"""The command line: ``collapsekit demo | audit | compare | render | check | explain | ...``.

Results go to stdout, everything else to stderr, in plain text whatever the terminal. What a command
does not need is not imported: `render` and `check` run where there is no torch.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from collapsekit.cli import auditing, checks, config, gate, options, output
from collapsekit.cli.gate import Status
from collapsekit.cli.shared import AllowInconclusive, AuditFile, FailOn
from collapsekit.errors import CollapsekitError
from collapsekit.gate import rule
from collapsekit.results import load

EXIT_CODES = (
    "Exit codes: 0 it ran; 1 a finding at or above --fail-on; 2 usage error; 3 the audit could not "
    "run, or its verdict is inconclusive; 4 internal error; 130 interrupted."
)

app = typer.Typer(
    name="collapsekit",
    help="Audits trained VAEs for posterior collapse: where, how badly, how surely and why.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """The console script; raises SystemExit with the exit code."""
    try:
        found = config.defaults(Path.cwd(), os.environ, _commands())
    except CollapsekitError as error:
        raise SystemExit(int(gate.told(error))) from None
    try:
        app(prog_name="collapsekit", default_map=found)
    except KeyboardInterrupt:  # outside of a command: while options are read
        raise SystemExit(int(Status.INTERRUPTED)) from None


def _commands() -> dict[str, dict[str, config.Option]]:
    """Every command with the options that may be set without being typed."""
    group: Any = typer.main.get_command(app)
    return {
        name: {
            spelling.lstrip("-"): config.Option(parameter.name, parameter.multiple)
            for parameter in command.params
            if parameter.param_type_name == "option"
            for spelling in parameter.opts
            if spelling.startswith("--")
        }
        for name, command in group.commands.items()
    }


def _version(asked: bool) -> None:
    if asked:
        from collapsekit import __version__

        output.emit(f"collapsekit {__version__}")
        raise typer.Exit(int(Status.RAN))


@app.callback(epilog=EXIT_CODES)
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="The version.")
    ] = False,
) -> None:
    """Audits trained VAEs for posterior collapse: where, how badly, how surely and why."""


@app.command()
@gate.command
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the reports go.")] = Path(
        "demo-report"
    ),
    seed: Annotated[int, typer.Option(help="Of both trainings and both audits.")] = 0,
    fail_on: FailOn = None,
) -> Status:
    """Train a VAE that collapses and its repair; audit both.

    Takes less than a minute and downloads nothing: the data ship with scikit-learn.
    """
    bar = options.bar(fail_on)
    from collapsekit.cli import demo_report

    demo_report.prepare(out)
    audits = demo_report.audits(seed)
    demo_report.write(audits, out)
    output.emit(demo_report.text(audits, out))
    # It ran, whatever it found: what a handful of digits leaves open fails no demonstration.
    return gate.judge(list(audits.values()), bar, allow_inconclusive=True)


app.command()(gate.command(auditing.audit))
app.command()(gate.command(auditing.doctor))


@app.command()
@gate.command
def compare(
    files: Annotated[
        list[str],
        typer.Argument(metavar="NAME=FILE...", help="Audits; without a name the file's stem."),
    ],
    out: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="FILE.html, the page, or FILE.txt; repeatable; - is the page on stdout. Without "
            "it compare.html.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Although data or priors differ.")] = False,
) -> Status:
    """Set audits side by side: better, worse, or the same.

    Better and worse are told only where intervals do not overlap.
    """
    named = options.named(files)
    targets = out or ["compare.html"]
    for path in targets:
        output.comparison_target(path)
    audits = {name: load(path) for name, path in named.items()}
    from collapsekit.comparison import compare as side_by_side

    comparison = side_by_side(audits, force=force)
    for path in targets:
        output.write_comparison(comparison, path)
    if output.STDOUT not in targets:
        output.emit(str(comparison))
    return Status.RAN


@app.command()
@gate.command
def render(
    file: AuditFile,
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="text, html, md, json or junit."),
    ] = None,
    out: Annotated[str, typer.Option(metavar="PATH", help="- is stdout.")] = output.STDOUT,
) -> Status:
    """Report an audit again; it needs no model, no data.

    Without --format the suffix of --out decides; on stdout it is text.
    """
    if form is not None:
        kind = output.checked(form)
        output.in_folder(out)
    else:
        kind = "text" if out == output.STDOUT else output.target(out)
    output.write(load(file), out, kind)
    return Status.RAN


@app.command()
@gate.command
def check(
    file: AuditFile,
    fail_on: FailOn = "fail",
    checks_: Annotated[
        list[str] | None,
        typer.Option(
            "--check",
            metavar="CHECK",
            help="Such as 'active_fraction>=0.8'; the whole interval has to pass; repeatable.",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="An older audit on the same data; fail where a headline is worse beyond noise "
            "and a margin.",
        ),
    ] = None,
    allow_inconclusive: AllowInconclusive = False,
    form: Annotated[
        str, typer.Option("--format", metavar="NAME", help="text, md, json or junit.")
    ] = "text",
) -> Status:
    """Gate a pipeline on an audit.

    Exits 1 when a finding is at or above --fail-on, when a --check fails or when a headline is
    worse than the --baseline's; 3 when the verdict, or a check, is inconclusive.
    """
    bar = options.bar(fail_on)
    assert bar is not None
    form = output.checked(form, checks.FORMATS)
    checked = load(file)
    older = None if baseline is None else load(baseline)
    ruling = rule(checked, bar, checks_ or (), older)
    status = checks.status(ruling, allow_inconclusive)
    output.emit(checks.report(form, checked, file, ruling, status))
    return status


@app.command("explain-loss")
@gate.command
def explain_loss(
    file: AuditFile,
    logged_kl: Annotated[str, typer.Option(metavar="X", help="The KL, as the log prints it.")],
    kl_weight: Annotated[
        float | None, typer.Option(metavar="W", help="What the training multiplied it by.")
    ] = None,
    values: Annotated[
        int | None,
        typer.Option(metavar="P", help="Numbers in one input, if the audit kept no pictures."),
    ] = None,
) -> Status:
    """Tell which reduction a logged KL is, and the effective beta that follows."""
    from collapsekit.logged_loss import explain_loss as explained

    told = explained(load(file), logged_kl=logged_kl, kl_weight=kl_weight, values=values)
    output.emit(str(told))
    return Status.RAN


@app.command()
@gate.command
def explain(
    code: Annotated[
        str | None,
        typer.Argument(
            metavar="CODE",
            help="CK101, ..., or a headline, such as rate; without it, all codes are listed.",
        ),
    ] = None,
) -> Status:
    """Tell what a finding means and what to do about it, or what a headline measures."""
    from collapsekit import explain as texts

    output.emit(texts.listing() if code is None else texts.told(code))
    return Status.RAN


__all__ = ["EXIT_CODES", "app", "main"]
