"""Mutation tests of the checks: with one of its requirements removed, a check lets a twin pass that
it should fail."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from latentforge import Forge, conformance
from latentforge.conformance import CHECKED, CheckFailed, checks_in, checks_of

from . import twins

pytestmark = pytest.mark.slow  # runs the twins for each requirement
FOLDER = Path(conformance.__file__).parent
MODULES = {
    kind: list(dict.fromkeys(check.__module__.rpartition(".")[2] for check in checks_in(kind)))
    for kind in CHECKED
}
KINDS = {module: kind for kind, modules in MODULES.items() for module in modules}
SHARED = {"models": ("model_fixtures",)}  # between the modules of a kind
USERS = {
    "assertions": ("models", "losses", "objectives", "explorers"),
    "global_state": ("models", "datasets"),
    "model_fixtures": ("models",),
}
REQUIRE_FUNCTIONS = ("require", "require_same", "require_tensor")


def requirements(module: str) -> Iterator[tuple[str, int]]:
    """(function, line) of each requirement in a module: a call of one of REQUIRE_FUNCTIONS."""
    for function in ast.parse((FOLDER / f"{module}.py").read_text("utf-8")).body:
        if isinstance(function, ast.FunctionDef) and function.name not in REQUIRE_FUNCTIONS:
            for node in ast.walk(function):
                if is_requirement(node):
                    yield function.name, node.lineno


def is_requirement(node: ast.AST) -> bool:
    call = getattr(node, "value", None) if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Call) and getattr(call.func, "id", "") in REQUIRE_FUNCTIONS


class Without(ast.NodeTransformer):
    """The module without the requirement on that line."""

    def __init__(self, line: int) -> None:
        self.line = line

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        gone = is_requirement(node) and node.lineno == self.line
        return ast.copy_location(ast.Pass(), node) if gone else node


def run_again(module: str, line: int = 0) -> None:
    """Run a module of checks again in its own namespace."""
    path = FOLDER / f"{module}.py"
    tree = ast.fix_missing_locations(Without(line).visit(ast.parse(path.read_text("utf-8"))))
    namespace = importlib.import_module(f"latentforge.conformance.{module}").__dict__
    exec(compile(tree, str(path), "exec"), namespace)


def passing(kind: str, function: str) -> list[str]:
    """The twins that pass the check that they should fail: those of one check if the function is a
    check, else of all."""
    names = [n for n in twins.TWINS[kind] if n.startswith(function.replace("_", " "))]
    found = []
    for name in names or twins.TWINS[kind]:
        for number, spec in enumerate(twins.TWINS[kind][name]):
            forge = Forge([twins.plugin(kind, spec)])
            [check] = [c for c in checks_of(kind, "twin/good", forge=forge) if c.name == name]
            try:
                check()
            except twins.RAISES.get((kind, name, number), CheckFailed):
                continue
            except Exception:  # without a hint
                pass
            found.append(f"{name} {number}")
    return found


@pytest.mark.parametrize(
    ("module", "function", "line"),
    [(module, *found) for module in (*KINDS, *USERS) for found in requirements(module)],
)
def test_without_a_requirement_a_twin_passes(module, function, line, work):
    kinds = USERS.get(module) or (KINDS[module],)
    users = [user for kind in kinds for user in (*SHARED.get(kind, ()), *MODULES[kind])]
    users = users[users.index(module) + 1 :] if module in users else users
    try:
        run_again(module, line)
        for user in users:  # they import its functions
            run_again(user)
        assert any(passing(kind, function) for kind in kinds)
    finally:
        for again in (module, *users):
            run_again(again)
