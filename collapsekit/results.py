"""What comes out: `Result` of one probe, `Audit` of all of them. Plain data; no torch, no model."""

from __future__ import annotations

import importlib
import io
import os
import stat
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from collapsekit import archive as entries
from collapsekit import head as heads
from collapsekit.archive import DAMAGE, SUBSET, dump_json, plain, write_text
from collapsekit.errors import CollapseError, FileError, InputError
from collapsekit.findings import Finding, Severity, Verdict
from collapsekit.number import Better, Number
from collapsekit.sample_table import Samples, SampleTable, as_field
from collapsekit.tables import as_number, summary_table

if TYPE_CHECKING:
    from collapsekit.plotting import Plots

SCHEMA = "collapsekit-audit/1"
#: The table of samples that were left out, with the reason.
QUARANTINED = "quarantined"

# Reports are built above this module, from the Audit alone; naming them here as text keeps the
# imports pointing one way while `audit.to_html` stays where people look for it.
_FORMATS = {
    "html": "collapsekit.rendering.page",
    "md": "collapsekit.rendering.markdown",
    "text": "collapsekit.rendering.text",
    "card": "collapsekit.rendering.card",
    "json": "collapsekit.rendering.data",
    "junit": "collapsekit.rendering.junit",
    "model_card": "collapsekit.rendering.model_card",
}
_GATE = "collapsekit.gate"
_PLOTS = "collapsekit.plotting"


@dataclass(frozen=True)
class Result:
    """What one probe concludes.

    Parameters
    ----------
    numbers : tuple of Number
        Headlines; they become rows of `Audit.summary`.
    samples : DataFrame or None
        Columns per sample, indexed by sample number; samples that were not evaluated are absent.
        Of a probe of the data stream in a large audit, what ``Rows.table`` gives: the columns
        where they lie on disk.
    dimensions : DataFrame or None
        Columns per latent dimension, indexed by dimension number.
    findings : tuple of Finding
    tables : mapping of name to DataFrame
        Whatever a figure needs: curves, pairs, maps.
    arrays : mapping of name to ndarray
        Pictures and the like.
    """

    numbers: tuple[Number, ...] = ()
    samples: pd.DataFrame | None = None
    dimensions: pd.DataFrame | None = None
    findings: tuple[Finding, ...] = ()
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Audit:
    """An audit as plain data: judgement, evidence and tables, independent of model and torch.

    Attributes
    ----------
    verdict : Verdict
        ``verdict.name`` is one of seven lower-case words, ``verdict.sentence`` says how much, how
        sure and what to do.
    findings : tuple of Finding
        Most severe first.
    summary : DataFrame
        A row per headline number: value, low, high, unit, n, note.
    samples, dimensions : DataFrame
        A row per sample (index: its number in the data) and per latent dimension. Beyond 100,000
        samples they lie in a file, which every ``audit.samples`` reads whole; `some_samples` is a
        uniform subset that is always at hand.
    tables, arrays : dict
        What the report's figures are drawn from.
    skipped : dict
        Probe name to the reason why it was not measured.
    settings : dict
        Probe name to its fields: the thresholds that were in force.
    provenance : dict
        Model, data, seed, prior, likelihood, versions.
    run : dict
        Times and host: the only part that differs between two equal runs.
    titles : dict
        Headline to what a report calls it: of every registered probe and of this audit's own,
        measured here or not.
    better : dict
        Headline to which way is better: "up", "down" or "neither".
    groups : dict
        Of a hierarchical model, each group of latents' own audit by its name; else empty.
    """

    verdict: Verdict
    findings: tuple[Finding, ...]
    summary: pd.DataFrame
    samples: pd.DataFrame
    dimensions: pd.DataFrame
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    better: dict[str, Better] = field(default_factory=dict)
    groups: dict[str, Audit] = field(default_factory=dict)

    def number(self, name: str) -> Number:
        """The headline `name` as a `Number`.

        Raises
        ------
        InputError
            The audit has no such headline.
        """
        if name not in self.summary.index:
            raise InputError(
                f"no headline called {name!r}",
                got=name,
                expected=", ".join(map(str, self.summary.index))
                or "a headline; this audit has none",
                remedy=self.skipped.get(name, "see audit.summary and audit.skipped"),
            )
        row = self.summary.loc[name]
        return as_number({"name": name, **{str(key): row[key] for key in self.summary.columns}})

    @property
    def sample_count(self) -> int:
        """Rows of `samples`, without reading them."""
        return len(held_samples(self))

    @property
    def some_samples(self) -> pd.DataFrame:
        """Rows of `samples` for a figure: all of them, or the population's where they are many."""
        if isinstance(held_samples(self), SampleTable) and SUBSET in self.tables:
            return self.tables[SUBSET]
        return self.samples

    def columns_of_samples(self, *names: str) -> pd.DataFrame | None:
        """These columns of `samples`, reading no other; None where one of them is lacking."""
        held = held_samples(self)
        there = held.names if isinstance(held, SampleTable) else held.columns
        if not set(names) <= set(there):
            return None
        return held.frame(*names) if isinstance(held, SampleTable) else held[list(names)]

    def worst(self) -> Severity:
        """The highest severity among the findings."""
        return max((f.severity for f in self.findings), default=Severity.OK)

    def assert_ok(
        self,
        fail_on: str = "fail",
        *,
        checks: Iterable[str] = (),
        baseline: Audit | None = None,
    ) -> None:
        """Raise `CollapseError` when a finding is at or above `fail_on`: one line in a test suite.

        Parameters
        ----------
        fail_on : {"inconclusive", "warn", "fail"}
        checks : iterable of str
            Headlines and what they have to be, such as ``"active_fraction>=0.8"``. The whole
            interval has to pass: a check that stays inconclusive raises as well.
        baseline : Audit, optional
            An older audit on the same data; raises where a headline is worse by more than noise.

        Raises
        ------
        CollapseError
            Something does not pass.
        InputError
            A severity, a check or a baseline that cannot be used.
        """
        bar = _severity(fail_on)
        bad = [f for f in self.findings if f.severity >= bar]
        missed: list[Any] = []
        if checks or baseline is not None:
            ruling = importlib.import_module(_GATE).rule(self, bar, checks, baseline)
            missed = [judged for judged in ruling.judged if judged.outcome != "pass"]
        if bad or missed:
            told = [f"{f.code} {f.severity.word}: {f.message}" for f in bad[:5]]
            told += [f"{judged.outcome}: {judged.message}" for judged in missed[:5]]
            counts = [f"{len(bad)} of {len(self.findings)} findings at or above {fail_on}"]
            counts += [f"{len(missed)} checks not passed"] if missed else []
            wanted = [f"every finding below {fail_on}"] if bad else []
            wanted += ["; ".join(judged.name for judged in missed[:5])] if missed else []
            advice = (bad[0].advice or f"collapsekit explain {bad[0].code}") if bad else ""
            raise CollapseError(
                f"verdict {self.verdict.name}: {', '.join(counts)}",
                got="; ".join(told),
                expected="; ".join(wanted),
                remedy=advice or "audit.to_html shows the evidence",
            )

    @property
    def plot(self) -> Plots:
        """Figures for papers as matplotlib axes: ``audit.plot.kl()``; see `plotting.Plots`."""
        plots: Plots = importlib.import_module(_PLOTS).Plots(self)
        return plots

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """The report: one self-contained page. Written to `path` where given; returned always."""
        return self._render("html", path)

    def to_markdown(self, path: str | os.PathLike[str] | None = None) -> str:
        """Verdict, findings and summary as Markdown."""
        return self._render("md", path)

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Everything but the per-sample rows as JSON with a versioned schema."""
        return self._render("json", path)

    def to_model_card(self, path: str | os.PathLike[str] | None = None) -> str:
        """A section for a model card, with ``model-index`` front matter as the hub reads it."""
        return self._render("model_card", path)

    def __repr__(self) -> str:
        counts = {
            "sample": self.sample_count,
            "dimension": len(self.dimensions),
            "finding": len(self.findings),
        }
        told = ", ".join(f"{n:,} {noun}{'' if n == 1 else 's'}" for noun, n in counts.items())
        return f"<Audit: {self.verdict.name}; {told}>"

    def __str__(self) -> str:
        return self._render("text", None)

    def _repr_html_(self) -> str:
        return self._render("card", None)

    def _render(self, kind: str, path: str | os.PathLike[str] | None) -> str:
        text: str = importlib.import_module(_FORMATS[kind]).render(self)
        if path is not None:
            write_text(path, text)
        return text

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the audit to one file: a zip of JSON, parquet and npy; never a pickle.

        Raises
        ------
        FileError
            The file cannot be written; an older file of that name is left as it was.
        """
        target = Path(path)
        partial = target.with_name(target.name + ".partial")
        try:
            self._pack(partial)
            partial.replace(target)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise FileError(
                "the audit could not be saved",
                got=f"{type(error).__name__} for {target}: {error.strerror}",
                expected="a folder that exists, is writable and has room",
                remedy="choose another path; the audit itself is still in memory",
            ) from error
        return target

    def _pack(self, file: Path | io.BytesIO) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            entries.put(archive, "audit.json", dump_json(self.head()).encode())
            entries.put_samples(archive, held_samples(self))
            entries.put(archive, "dimensions.parquet", entries.parquet(self.dimensions))
            for name, table in sorted(self.tables.items()):
                entries.put(archive, f"tables/{name}.parquet", entries.parquet(table))
            for name, array in sorted(self.arrays.items()):
                entries.put(archive, f"arrays/{name}.npy", entries.npy(array))
            for place, audit in enumerate(self.groups.values()):  # names may be no file names
                inner = io.BytesIO()
                audit._pack(inner)
                entries.put(archive, f"groups/{place}.audit", inner.getvalue())

    def head(self) -> dict[str, Any]:
        """Everything that is not a table, as JSON-ready data."""
        return {
            "schema": SCHEMA,
            "verdict": {**asdict(self.verdict), "severity": self.verdict.severity.word},
            "findings": [heads.finding_data(f) for f in self.findings],
            "summary": [
                {"name": name, **{key: plain(row[key]) for key in self.summary.columns}}
                for name, row in self.summary.iterrows()
            ],
            "skipped": self.skipped,
            "settings": self.settings,
            "provenance": self.provenance,
            "run": self.run,
            "titles": self.titles,
            "better": self.better,
            **({"groups": list(self.groups)} if self.groups else {}),
        }


# Set from outside: as a default of its field it would have to be the last, and be told as one.
type.__setattr__(Audit, "samples", Samples())


def load(path: str | os.PathLike[str] | io.BytesIO) -> Audit:
    """Read an audit that `Audit.save` wrote; needs neither the model, nor the data, nor torch.

    Raises
    ------
    FileError
        The file is missing, is no audit, or was written by a schema this version does not know.
    """
    try:
        name = "a group's audit" if isinstance(path, io.BytesIO) else path
        if not isinstance(path, io.BytesIO) and not stat.S_ISREG(os.stat(path).st_mode):
            # A pipe would be waited for.
            raise OSError("neither a file nor a link to one")
        with zipfile.ZipFile(path) as archive:
            entries.refuse_bombs(name, archive.infolist())
            head = heads.parse(archive.read("audit.json"))
            if head.get("schema") != SCHEMA:
                raise FileError(
                    f"{path} has another schema",
                    got=repr(head.get("schema"))[:80],
                    expected=SCHEMA,
                    remedy="read it with the version of collapsekit that wrote it",
                )
            tables, arrays = {}, {}
            for entry in archive.namelist():
                folder, _, rest = entry.partition("/")
                if folder == "tables" and rest.endswith(".parquet"):
                    tables[rest.removesuffix(".parquet")] = entries.frame(archive.read(entry))
                elif folder == "arrays" and rest.endswith(".npy"):
                    arrays[rest.removesuffix(".npy")] = np.load(
                        io.BytesIO(archive.read(entry)), allow_pickle=False
                    )
            return Audit(
                **heads.parts(head),
                summary=summary_table(heads.numbers(head)),
                samples=as_field(entries.read_samples(archive, path)),
                dimensions=entries.frame(archive.read("dimensions.parquet")),
                tables=tables,
                arrays=arrays,
                groups={
                    name: load(io.BytesIO(archive.read(f"groups/{place}.audit")))
                    for place, name in enumerate(heads.group_names(head))
                },
            )
    except FileError:
        raise
    except FileNotFoundError as error:
        raise FileError(
            "no such audit file",
            got=str(path),
            expected="a file that audit.save, or collapsekit audit --out FILE.audit, wrote",
            remedy="check the path",
        ) from error
    except DAMAGE as error:
        raise FileError(
            f"{path} is not a readable audit",
            got="another kind of file, or the beginning of one"
            if isinstance(error, zipfile.BadZipFile)
            else f"{type(error).__name__}: {error}",
            expected="a file that audit.save, or collapsekit audit --out FILE.audit, wrote, whole",
            remedy="run the audit again, or fetch the file again; a report (.html, .json, ...) "
            "cannot be read back",
        ) from error


def _severity(word: str) -> Severity:
    try:
        return Severity.of(word)
    except KeyError:
        raise InputError(
            "no such severity",
            got=repr(word),
            expected="one of inconclusive, warn, fail",
            remedy="pass one of these words",
        ) from None


def held_samples(audit: Audit) -> pd.DataFrame | SampleTable:
    """What an audit holds of its samples: the table itself, or where it lies."""
    held: pd.DataFrame | SampleTable = audit.__dict__["_samples"]
    return held
