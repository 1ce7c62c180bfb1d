"""The commands that open a model: ``audit`` and ``doctor``."""

from __future__ import annotations

import contextlib
import shlex
import sys
from typing import Annotated

import typer

from collapsekit import logs
from collapsekit.cli import gate, options, output
from collapsekit.cli import like as likeness
from collapsekit.cli.gate import Status
from collapsekit.cli.shared import AllowInconclusive, FailOn, TrustCode
from collapsekit.errors import InputError
from collapsekit.results import load


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
            help=".npy, .npz, FILE.npz:NAME or, input and condition, FILE.npz:x,c; .parquet, "
            "FILE.parquet:COLUMN,COLUMN, .pt, a folder of such files, a quoted pattern such as "
            "'DIR/x-*.npy', or a folder of images.",
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
        raise options.no_data("audit", model)

    from collapsekit import adapters, engine, probes

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
            adapters.Opened(model, adapter, brought),
            data,
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
        if brought is None and data is None:
            raise options.no_data("doctor", model)
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
