"""The command line: ``collapsekit demo | audit | compare | render | check | explain | ...``.

Results go to stdout, everything else to stderr, in plain text whatever the terminal. What a command
does not need is not imported: `render` and `check` run where there is no torch.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from collapsekit import logs
from collapsekit.cli import checks, config, gate, options, output
from collapsekit.cli import like as likeness
from collapsekit.cli.gate import Status
from collapsekit.errors import CollapsekitError, InputError
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
    return gate.judge(list(audits.values()), bar, allow_inconclusive=False)


@app.command()
@gate.command
def audit(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="package.module:factory, a function that returns the model with its weights; "
            "posteriors:FILE.npz, arrays mean and scale and, optionally, x and labels; or a "
            "library's KIND:PATH: pythae, diffusers, onnx, flax, lightning, keras, scvi, "
            "state_dict.",
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help=".npy, .npz, FILE.npz:NAME, .parquet, FILE.parquet:COLUMN,COLUMN, .pt, a folder "
            "of such files, a quoted pattern such as 'DIR/x-*.npy', or a folder of images.",
        ),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(metavar="FILE", help=".npy, or text with one label a line.")
    ] = None,
    likelihood: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="bernoulli (outputs are probabilities), bernoulli_logits, categorical or "
            "gaussian:SCALE; without it, errors are squared errors.",
        ),
    ] = None,
    parameterisation: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What the encoder returns beside the mean: scale, variance, logvar or log_scale.",
        ),
    ] = "scale",
    prior: Annotated[
        str | None, typer.Option(metavar="MEAN,SCALE", help="If it is not N(0, 1).")
    ] = None,
    beta: Annotated[
        float | None, typer.Option(help="The KL weight of the training, for the advice.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of every random draw.")] = 0,
    batch: Annotated[int | None, typer.Option(help="Samples a call.")] = None,
    population: Annotated[
        int | None, typer.Option(help="Samples among which pairwise measures are taken.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where the model runs: cpu, cuda, cuda:1, mps.")
    ] = None,
    on_bad_sample: Annotated[
        str,
        typer.Option(
            metavar="WORD",
            help="A sample that cannot be measured: finding, skip (listed) or raise.",
        ),
    ] = "finding",
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Keep finished shards here, and go on from those that are there."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes on this machine that share the work.")
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Scheduler of a dask cluster whose workers share it."),
    ] = None,
    out: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Also write FILE.html, .audit, .json, .md, .txt or .xml (JUnit); repeatable.",
        ),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", metavar="NAME", help="On stdout: text, json, md or junit.")
    ] = "text",
    fail_on: FailOn = None,
    allow_inconclusive: AllowInconclusive = False,
    trust_code: TrustCode = False,
    like: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            callback=likeness.recall,
            is_eager=True,
            help="Run an earlier audit again: MODEL and all options that are not typed are as they "
            "were, and what differs is told. Its model is run: only with files that you trust.",
        ),
    ] = None,
    log_json: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Log as lines of JSON; - is stderr."),
    ] = None,
) -> Status:
    """Audit a trained model on data.

    Exits 0 whatever it finds, unless --fail-on is given or the verdict is inconclusive.
    """
    # Whatever can be refused is refused before the work begins.
    bar = options.bar(fail_on)
    form = output.checked(form)
    targets = {path: output.target(path) for path in out or [] if path != output.STDOUT}
    given = {
        "--data": data,
        "--labels": labels,
        "--likelihood": likelihood,
        "--parameterisation": parameterisation,
        "--prior": prior,
        "--beta": beta,
        "--seed": seed,
        "--batch": batch,
        "--population": population,
        "--device": device,
        "--on-bad-sample": None if on_bad_sample == "finding" else on_bad_sample,
    }
    declared = options.likelihood(likelihood)
    believed = options.prior(prior)
    named = options.labels(labels)
    policy = options.policy(on_bad_sample)
    # stdout is the result's: what the model's own code prints goes to stderr.
    with contextlib.redirect_stdout(sys.stderr):
        adapter, brought = options.model(model, device, trust_code)
    if brought is not None and not (data is None and labels is None):
        raise InputError(
            f"{model} brings its own data",
            got=f"--data {data}" if data is not None else f"--labels {labels}",
            expected="neither --data nor --labels",
            remedy="leave it out; inputs and labels go into the file, as arrays x and labels",
        )
    if brought is None and data is None:
        raise InputError(
            "there are no data to audit on",
            got=f"{model} without --data",
            expected="--data FILE",
            remedy=f"collapsekit audit {model} --data test.npy",
        )

    from collapsekit import engine, probes

    then = None if like is None else load(like)
    if then is not None:
        likeness.refuse_unknown(then, prior)
    measures = None if then is None else likeness.probes(then, probes.REGISTERED)
    with (
        contextlib.redirect_stdout(sys.stderr),
        logs.json_lines(log_json),
        options.executor(workers, dask) as executor,
    ):
        result = engine.audit(
            adapter,
            data if brought is None else brought,
            labels=named,
            parameterisation=parameterisation,
            prior=believed,
            likelihood=declared,
            beta=beta,
            seed=seed,
            batch=batch,
            population=population,
            probes=measures,
            device=device,
            trust_code=trust_code,
            executor=executor,
            checkpoint=resume,
            on_bad_sample=policy,
            spec=model,
        )
    # What is needed to get this audit again; where it was written to is no part of that.
    words = [word for name, value in given.items() if value is not None for word in (name, value)]
    words += ["--trust-code"] if trust_code else []
    result.provenance["command"] = shlex.join(["collapsekit", "audit", model, *map(str, words)])
    if then is not None:
        gate.say(likeness.compared(then, result, str(like)))
    for path, kind in targets.items():
        output.write(result, path, kind)
    output.emit(output.rendered(result, form))
    return gate.judge([result], bar, allow_inconclusive)


@app.command()
@gate.command
def doctor(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As of audit.")],
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="As of audit; 64 samples are looked at.")
    ] = None,
    parameterisation: Annotated[
        str, typer.Option(metavar="NAME", help="scale, variance, logvar or log_scale.")
    ] = "scale",
    likelihood: Annotated[str | None, typer.Option(metavar="NAME", help="As of audit.")] = None,
    prior: Annotated[str | None, typer.Option(metavar="MEAN,SCALE", help="As of audit.")] = None,
    device: Annotated[str | None, typer.Option(help="Where the model runs.")] = None,
    trust_code: TrustCode = False,
) -> Status:
    """Say what an audit of a model could see, and what it would assume.

    Exits 1 where the model contradicts itself, so that an audit would be wrong.
    """
    declared = options.likelihood(likelihood)
    believed = options.prior(prior)
    with contextlib.redirect_stdout(sys.stderr):
        adapter, brought = options.model(model, device, trust_code)
        from collapsekit.doctor import inspect

        found = inspect(
            adapter,
            brought if data is None else data,
            parameterisation=parameterisation,
            likelihood=declared,
            prior=believed,
        )
    output.emit(str(found))
    return Status.FOUND if found.faults else Status.RAN


@app.command()
@gate.command
def compare(
    files: Annotated[
        list[str],
        typer.Argument(metavar="NAME=FILE...", help="Audits; without a name the file's stem."),
    ],
    out: Annotated[
        str, typer.Option(metavar="FILE", help="The page to write; - is stdout.")
    ] = "compare.html",
    force: Annotated[bool, typer.Option("--force", help="Although data or priors differ.")] = False,
) -> Status:
    """Set audits side by side: better, worse, or the same.

    Better and worse are told only where intervals do not overlap.
    """
    named = options.named(files)
    output.in_folder(out)
    audits = {name: load(path) for name, path in named.items()}
    from collapsekit.comparison import compare as side_by_side

    comparison = side_by_side(audits, force=force)
    if out == output.STDOUT:
        output.emit(comparison.to_html())
    else:
        comparison.to_html(out)
        gate.say(f"wrote {out}")
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
        str | None, typer.Argument(metavar="CODE", help="CK101, ...; without it, all are listed.")
    ] = None,
) -> Status:
    """Tell what a finding means and what to do about it."""
    from collapsekit import explain as texts

    output.emit(texts.listing() if code is None else texts.describe(texts.find(code)))
    return Status.RAN


__all__ = ["EXIT_CODES", "app", "main"]
