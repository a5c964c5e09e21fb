"""The layers, checked by a scan of the sources that is independent of import-linter."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"latentforge": ROOT, "latentforge_plugins": ROOT / "plugins"}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
CONTRACTS = {c["type"]: c for c in PYPROJECT["tool"]["importlinter"]["contracts"]}
LAYERS = [row.split(" : ") for row in CONTRACTS["layers"]["layers"]]
RANK = {name: rank for rank, row in enumerate(LAYERS) for name in row}


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(path, root): path
    for package, root in PACKAGES.items()
    for path in (root / package).rglob("*.py")
    if "templates" not in path.parts
}


@cache
def imported(name: str, path: Path) -> frozenset[str]:
    """Every module of the project that a module imports, also lazily or for type checkers."""
    return frozenset(imports_of(name, path))


def imports_of(name: str, path: Path) -> Iterator[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in MODULES else base


def graph_of(modules: dict[str, Path]) -> dict[str, set[str]]:
    return {
        name: {other for other in imported(name, path) if other in modules and other != name}
        for name, path in modules.items()
    }


def cycles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The modules that remain after removing, repeatedly, those without imports or importers."""
    left = {name: set(others) for name, others in graph.items()}
    while True:
        wanted = set().union(*left.values()) if left else set()
        ends = {name for name, others in left.items() if not others or name not in wanted}
        if not ends:
            return [set(left)] if left else []
        left = {n: others - ends for n, others in left.items() if n not in ends}


def upwards(graph: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Imports within the core that lead to a layer above, or to the package itself."""

    def rank(name: str) -> int:
        parts = name.split(".")
        return RANK[parts[1]] if len(parts) > 1 else -1

    return [
        (name, other)
        for name, others in graph.items()
        for other in others
        if name.startswith("latentforge.") and not name.startswith("latentforge_plugins")
        if other.startswith("latentforge_plugins") or rank(other) < rank(name)
    ]


def test_the_scan_sees_lazy_imports_and_those_for_type_checkers():
    graph = graph_of(MODULES)
    assert "latentforge.engine.checkpoint_state" in graph["latentforge.engine.trainer"]
    assert "latentforge.runtime.process_group" in graph["latentforge.engine.trainer"]  # for types
    assert "latentforge.cli.app" in graph["latentforge.__main__"]  # inside a function
    assert "latentforge_plugins.vae.model" in graph["latentforge_plugins.vae"]  # relative
    assert len(MODULES) > 250


def test_no_module_imports_a_layer_above_its_own():
    assert upwards(graph_of(MODULES)) == []


def test_no_import_is_part_of_a_cycle():
    assert cycles(graph_of(MODULES)) == []


@pytest.mark.parametrize(
    ("importer", "line", "found"),
    [
        ("latentforge.runs.folder", "from latentforge.forge import Forge", upwards),
        ("latentforge.io.atomic", "import latentforge.engine.trainer", upwards),
        ("latentforge.errors", "from latentforge import Run", upwards),
        ("latentforge.data.splits", "from latentforge.data.preparation import prepare", cycles),
        ("latentforge_plugins.vae.config", "from . import build", cycles),
    ],
)
def test_added_violation_is_found(importer, line, found, tmp_path):
    path = MODULES[importer]
    worse = tmp_path / path.name
    worse.write_text(f"{path.read_text('utf-8')}\n\ndef later():\n    {line}\n")
    graph = graph_of({**MODULES, importer: worse})
    assert found(graph)


def test_no_import_is_hidden_in_a_string():
    """Only lazily loaded names, plugins and torchvision are imported by name."""
    users = {
        name
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Name | ast.Attribute)
        and ast.unparse(node).split(".")[-1] in ("import_module", "__import__")
    }
    assert users == {
        "latentforge",
        "latentforge.plugins.loading",
        "latentforge_plugins.torchvision_import",
    }


def test_few_modules_are_at_the_top_level():
    assert len(list((ROOT / "latentforge").glob("*.py"))) <= 16


# ---------------------------------------------------------------- the boundary to components

SPEC_FUNCTIONS = {"build", "load", "explore", "fetch"}  # the functions of a component's spec


def test_one_function_attributes_errors_to_components():
    """Only this function raises PluginErrors with a component's name."""
    callers = [
        (name, function.name)
        for name, path in MODULES.items()
        for function in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "component_error"
    ]
    assert callers == [("latentforge.plugins.attribution", "call_component")]


def test_components_are_called_only_through_the_boundary():
    """Each direct call of a spec's function is in a function that the boundary calls."""
    behind = {
        ("latentforge.engine.build", "build_module"),
        ("latentforge.engine.evaluator", "build_measure"),
        ("latentforge.engine.trainer", "attach"),
        ("latentforge.engine.vectorized.ensemble", "_with_options"),  # inside a step of all members
        ("latentforge.workflows.explore", "run_explorer"),
    }
    direct = {
        (name, function.name)
        for name, path in MODULES.items()
        if name.startswith("latentforge.") and ".conformance." not in name
        for function in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in SPEC_FUNCTIONS
        and ast.unparse(node.func.value).endswith("spec")
    }
    inner = {
        found for found in direct if found not in {("latentforge.engine.trainer", "_build_engine")}
    }
    assert inner == behind
    for name, function in behind - {("latentforge.engine.vectorized.ensemble", "_with_options")}:
        text = MODULES[name].read_text("utf-8")
        assert any(
            isinstance(node, ast.Call)
            and ast.unparse(node.func).split(".")[-1] in ("call", "_call", "call_component")
            and any(ast.unparse(argument) == function for argument in node.args)
            for node in ast.walk(ast.parse(text))
        ), (name, function)
