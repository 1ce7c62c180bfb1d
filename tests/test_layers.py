"""Imports point one way: asserted from the import statements, those inside functions included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "collapsekit"
ROOT = Path(__file__).resolve().parents[1] / PACKAGE

# Each part of the package and the parts just below it; what those may import, it may import too.
# A new top-level module gets its line here.
LAYERS: dict[str, tuple[str, ...]] = {
    "errors": (),
    "logs": ("errors",),
    "number": ("errors",),
    "findings": ("number",),
    "tables": ("number",),
    "heap": (),
    "sample_table": ("errors", "heap"),
    "archive": ("sample_table",),
    "head": ("findings", "tables", "archive"),
    "results": ("head",),
    "noise": ("errors",),
    "kernels": ("noise",),
    "posteriors": ("kernels",),
    "sources": ("errors",),
    "samples": ("sources",),
    "independent": ("errors",),
    "streaming": ("noise", "samples", "independent"),
    "likelihoods": ("posteriors",),
    "adapter": ("posteriors", "likelihoods", "samples"),
    "readers": ("posteriors",),
    "priors": ("readers",),
    "door": ("adapter", "findings", "priors"),
    "groups": ("door",),
    "joined": ("results", "troubles", "intervals"),
    "products": ("errors",),
    "copies": ("posteriors", "streaming"),
    "members": ("door", "copies", "products"),
    "population": ("members", "intervals"),
    "subset": ("population",),
    "coded": ("population",),
    "observation": ("subset", "coded"),
    "intervals": ("number", "streaming"),
    "claims": ("intervals",),
    "probe": ("observation", "results", "claims"),
    "pareto": ("errors",),
    "probes": ("probe", "pareto"),
    "readings": ("probes",),
    "adapters": ("groups",),
    "testing": ("adapters",),
    "doctor": ("adapters",),
    "troubles": ("findings",),
    "described": ("errors",),
    "provenance": (
        "described",
        "population",
    ),
    "shards": ("probe",),
    "rehearsal": ("shards", "troubles"),
    "spool": ("shards",),
    "checkpoint": ("spool",),
    "executors": ("shards",),
    "parcels": ("shards",),
    "jobs": ("shards", "adapters"),
    "pool": ("jobs", "parcels", "executors", "heap"),
    "task": ("rehearsal", "checkpoint", "pool", "provenance", "logs"),
    "engine": ("readings", "adapters", "task", "logs", "groups", "joined"),
    "monitors": ("engine",),
    "comparison": ("results",),
    # The report reads only the Audit: an old file renders again without model, data or torch.
    "rendering": ("comparison",),
    "gate": ("rendering",),
    "plotting": ("rendering",),
    "logged_loss": ("results",),
    # Training-time help and audits do not know each other; only the demo uses both.
    "remedies": ("errors",),
    "demo": ("remedies",),
    "explain": ("engine", "rendering"),  # codes, and a report's words for headlines
    "__main__": ("cli",),
    "cli": ("gate", "logged_loss", "engine", "monitors", "demo", "explain", "doctor"),
}
# What the package root defines itself, so that importing it from there drags in nothing.
FROM_ROOT = {"__version__"}


def below(part: str) -> set[str]:
    """Every part that `part` may import, itself included (a package's files import each other)."""
    found, todo = {part}, list(LAYERS[part])
    while todo:
        lower = todo.pop()
        if lower not in found:
            found.add(lower)
            todo.extend(LAYERS[lower])
    return found


def modules(root: Path) -> dict[str, Path]:
    """Dotted name (without the package's own) to its file; "" is the package root."""
    files: dict[str, Path] = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def _statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from _statements(ast.Module([other], []))
        else:
            yield from _statements(child)


def imported(source: str, name: str, is_package: bool, known: set[str]) -> set[str]:
    """The package's own modules that `source`, the text of module `name`, imports.

    ``from package.a import b`` is an import of ``a.b`` where that is a module, else of ``a``.
    """
    here = [PACKAGE, *filter(None, name.split("."))]
    found: set[str] = set()
    for statement in _statements(ast.parse(source)):
        if isinstance(statement, ast.Import):
            targets = [alias.name for alias in statement.names]
        else:
            base = (statement.module or "").split(".") if statement.module else []
            if statement.level:
                up = statement.level - (1 if is_package else 0)
                base = here[: len(here) - up] + base
            targets = [".".join([*base, alias.name]) for alias in statement.names]
        for target in targets:
            first, _, inner = target.partition(".")
            if first != PACKAGE or (inner in FROM_ROOT):
                continue
            while inner not in known and inner not in LAYERS and inner:
                inner = inner.rpartition(".")[0]
            found.add(inner)
    return found


def graph(root: Path) -> dict[str, set[str]]:
    files = modules(root)
    return {
        name: imported(path.read_text("utf-8"), name, path.name == "__init__.py", set(files))
        for name, path in files.items()
    }


GRAPH = graph(ROOT)


def test_every_part_has_its_place() -> None:
    parts = {name.partition(".")[0] for name in GRAPH} - {""}
    assert parts <= set(LAYERS), f"not in LAYERS: {sorted(parts - set(LAYERS))}"


def test_the_layers_have_no_cycle() -> None:
    order = tuple(TopologicalSorter(LAYERS).static_order())
    assert set(order) == set(LAYERS)


def test_the_root_imports_nothing_of_its_own() -> None:
    assert GRAPH[""] == set()


@pytest.mark.parametrize("name", sorted(set(GRAPH) - {""}))
def test_imports_point_one_way(name: str) -> None:
    allowed = below(name.partition(".")[0])
    for target in sorted(GRAPH[name]):
        assert target, f"{name} imports the package root; import the module that has the name"
        assert target.partition(".")[0] in allowed, (
            f"{name} imports {target}, which is not below it; it may import {sorted(allowed)}"
        )


def test_no_two_modules_import_each_other() -> None:
    # A module's own package is left out: a submodule cannot be reached without it.
    graph = {name: targets - {name} for name, targets in GRAPH.items()}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail("imports go in a circle: " + " <- ".join(error.args[1]))


# --- the reader of import statements itself -------------------------------------------------------

KNOWN = {"", "errors", "results", "probes", "probes.kl", "probes.activity"}


@pytest.mark.parametrize(
    "source, name, is_package, expected",
    [
        ("import torch, numpy.linalg", "results", False, set()),
        ("import collapsekit.probes.kl as kl", "results", False, {"probes.kl"}),
        ("from collapsekit.probes.kl import KL", "results", False, {"probes.kl"}),
        ("from collapsekit.probes import kl, register", "results", False, {"probes.kl", "probes"}),
        ("from collapsekit import errors", "results", False, {"errors"}),
        ("from collapsekit import Audit", "results", False, {""}),
        ("from collapsekit import __version__", "results", False, set()),
        ("import collapsekit as ck", "results", False, {""}),
        ("from . import errors", "results", False, {"errors"}),
        ("from .errors import InputError", "results", False, {"errors"}),
        ("from .kl import KL", "probes", True, {"probes.kl"}),
        ("from . import kl", "probes.activity", False, {"probes.kl"}),
        ("from ..errors import InputError", "probes.kl", False, {"errors"}),
        ("def f():\n    if 1:\n        from .kl import KL", "probes", True, {"probes.kl"}),
        ("if TYPE_CHECKING:\n    from .kl import KL", "probes", True, set()),
        ("if typing.TYPE_CHECKING:\n  from . import kl\nelse:\n  from . import activity", "probes",
         True, {"probes.activity"}),
        ("try:\n    import collapsekit.errors\nexcept ImportError:\n    pass", "results", False,
         {"errors"}),
    ],
)  # fmt: skip
def test_statements_are_read(source: str, name: str, is_package: bool, expected: set[str]) -> None:
    assert imported(source, name, is_package, KNOWN) == expected
