"""What options mean: text from the command line made into what `collapsekit.audit` takes."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collapsekit.errors import CollapsekitError, FileError, InputError, ModelError
from collapsekit.findings import Severity

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from collapsekit.samples import Samples
    from collapsekit.shards import Policy

LIKELIHOODS = ("bernoulli", "bernoulli_logits", "categorical")
BARS = ("inconclusive", "warn", "fail")


def bar(word: str | None) -> Severity | None:
    """``--fail-on``.

    Raises
    ------
    InputError
        No severity has this name.
    """
    if word is None:
        return None
    if word not in BARS:
        raise InputError(
            "--fail-on takes a severity",
            got=word,
            expected=f"one of {', '.join(BARS)}",
            remedy="--fail-on warn makes warnings and failures count",
        )
    return Severity.of(word)


def likelihood(text: str | None) -> str | tuple[str, float] | None:
    """``--likelihood``: a name, or ``gaussian:SCALE``.

    Raises
    ------
    InputError
        Another name; a Gaussian without a scale that is a number.
    """
    name, _, scale = (text or "").partition(":")
    if text in (None, *LIKELIHOODS):
        return text
    if name != "gaussian":
        raise InputError(
            "no such likelihood",
            got=f"--likelihood {text}",
            expected=f"one of {', '.join(LIKELIHOODS)}, gaussian:SCALE",
            remedy="--likelihood gaussian:0.3162, or another of these; a likelihood of your own "
            "goes in from Python",
        )
    try:
        return name, float(scale)
    except ValueError:
        raise InputError(
            "a Gaussian likelihood needs its scale as a number",
            got=str(text),
            expected="gaussian:SCALE, such as gaussian:0.3162",
            remedy="for a model trained on 0.5 SSE + beta KL the scale is the root of beta",
        ) from None


def no_data(command: str, model: str) -> InputError:
    """What is said where neither --data nor the model brings any."""
    return InputError(
        f"there are no data for {command}",
        got=f"{model} without --data",
        expected="--data FILE",
        remedy=f"collapsekit {command} {model} --data test.npy",
    )


def prior(text: str | None) -> tuple[float, float] | None:
    """``--prior MEAN,SCALE``, the same for every dimension.

    Raises
    ------
    InputError
        Not two numbers.
    """
    if text is None:
        return None
    try:
        mean, scale = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            "the prior is not two numbers",
            got=text,
            expected="MEAN,SCALE, such as 0,1",
            remedy="a prior with one value a dimension goes in from Python: "
            "ck.audit(..., prior=(mean, scale))",
        ) from None
    return mean, scale


def labels(path: str | None) -> Any:
    """``--labels FILE``: an .npy array, or text with one label a line.

    Raises
    ------
    FileError
        The file cannot be read as labels.
    """
    if path is None:
        return None
    import numpy as np

    from collapsekit.sources import numpy_files

    try:
        if not Path(path).is_file():  # a pipe would be waited for
            raise FileNotFoundError(2, "no such file")
        if Path(path).suffix.lower() == ".npy":
            return numpy_files.npy(Path(path))
        return np.asarray(Path(path).read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FileError(
            f"{path} cannot be read as labels",
            got=f"{type(error).__name__}: {why}",
            expected="an .npy file of numbers or words, or a text file with one label a line",
            remedy="check the path; numpy.save(FILE, labels) writes such a file",
        ) from error


def model(spec: str, device: str | None, trust_code: bool = False) -> tuple[Any, Samples | None]:
    """MODEL: the adapter, and the data that came with it, if any.

    Raises
    ------
    InputError
        The spec cannot be read, or names nothing that is a model; the device cannot be used.
    ModelError
        The code that the spec names failed: it is the caller's, so any error may come out of it.
    """
    from collapsekit.adapters import as_adapter

    if device is not None:
        _tried(device)
    try:
        return as_adapter(spec, device=device, trust_code=trust_code)
    except CollapsekitError:
        raise
    except Exception as error:
        raise ModelError(
            f"the model {spec} could not be made",
            got=f"{type(error).__name__}: {error}",
            expected="a function that returns the model with its weights",
            remedy=f"run it by hand from {os.getcwd()}",
        ) from error


def policy(word: str) -> Policy:
    """--on-bad-sample: one of its words.

    Raises
    ------
    InputError
        Another word.
    """
    from collapsekit.shards import POLICIES

    for known in POLICIES:
        if word == known:
            return known
    raise InputError(
        "no such way to treat a bad sample",
        got=word,
        expected=f"one of {', '.join(POLICIES)}",
        remedy="pass one of these words to --on-bad-sample",
    )


@contextmanager
def executor(workers: int | None, dask: str | None) -> Iterator[Executor | None]:
    """--workers and --dask: where shards are computed; None for this process.

    Raises
    ------
    InputError
        Both, or no number of processes.
    """
    if workers is not None and dask is not None:
        raise InputError(
            "the work goes to local processes or to a cluster",
            got=f"--workers {workers} and --dask {dask}",
            expected="one of the two",
            remedy="leave --workers or --dask out",
        )
    if workers is not None and workers < 1:
        raise InputError(
            "there is no such number of processes",
            got=f"--workers {workers}",
            expected="1 or more",
            remedy="pass --workers 2, or leave it out for this process alone",
        )
    if workers is None and dask is None:
        yield None
        return
    from collapsekit import executors

    with executors.on_cluster(dask) if dask else executors.LocalProcesses(workers or 1) as found:
        yield found


def _tried(device: str) -> None:
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            "the device cannot be used",
            got=f"{device}: {str(error).splitlines()[0]}",
            expected="a device that this machine and its torch have",
            remedy="leave --device out to run where the model is",
        ) from error


def named(entries: list[str]) -> dict[str, Path]:
    """``NAME=FILE`` or ``FILE``, whose stem is then its name.

    Raises
    ------
    InputError
        Fewer than two, or two of one name.
    """
    files: dict[str, Path] = {}
    for entry in entries:
        name, equals, file = entry.partition("=")
        # A path may hold an equals sign itself.
        if not equals or not name or os.path.exists(entry):
            name, file = Path(entry).stem, entry
        if name in files:
            raise InputError(
                f"two audits are called {name!r}",
                got=f"{files[name]} and {file}",
                expected="a name of its own for each",
                remedy=f"collapsekit compare {name}={files[name]} OTHER={file}",
            )
        files[name] = Path(file)
    if len(files) < 2:
        raise InputError(
            "a comparison needs two audits or more",
            got=", ".join(entries) or "none",
            expected="NAME=FILE NAME=FILE ...",
            remedy="collapsekit render FILE shows one audit",
        )
    return files
