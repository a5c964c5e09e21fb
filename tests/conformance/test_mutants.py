"""What the checks demand is shown to be demanded: with one demand taken away, a check lets one of
its twins pass."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from latentforge import Forge, conformance
from latentforge.conformance import CHECKED, CheckFailed, checks_of

from . import twins

pytestmark = pytest.mark.slow  # the twins again for each demand
FOLDER = Path(conformance.__file__).parent
USERS = {
    "assertions": ("models", "losses", "objectives"),
    "global_state": ("models", "datasets"),
}
DEMANDS = ("require", "require_same", "require_tensor")


def demands(module: str) -> Iterator[tuple[str, int]]:
    """(function, line) of each demand in a module: a call of `require`, or a CheckFailed."""
    for function in ast.parse((FOLDER / f"{module}.py").read_text("utf-8")).body:
        if isinstance(function, ast.FunctionDef) and function.name not in DEMANDS:
            for node in ast.walk(function):
                if is_demand(node):
                    yield function.name, node.lineno


def is_demand(node: ast.AST) -> bool:
    call = getattr(node, "value", None) if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Call) and getattr(call.func, "id", "") in DEMANDS


class Without(ast.NodeTransformer):
    """The module without the demand on that line."""

    def __init__(self, line: int) -> None:
        self.line = line

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        gone = is_demand(node) and node.lineno == self.line
        return ast.copy_location(ast.Pass(), node) if gone else node


def run_anew(module: str, line: int = 0) -> None:
    """Run a module of checks again in its own namespace."""
    path = FOLDER / f"{module}.py"
    tree = ast.fix_missing_locations(Without(line).visit(ast.parse(path.read_text("utf-8"))))
    namespace = importlib.import_module(f"latentforge.conformance.{module}").__dict__
    exec(compile(tree, str(path), "exec"), namespace)


def passing(kind: str, function: str) -> list[str]:
    """The twins that do not fail the check which they should fail: those of one check where the
    function is one, else of all."""
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
            except Exception:  # which does not say what to mend
                pass
            found.append(f"{name} {number}")
    return found


@pytest.mark.parametrize(
    ("module", "function", "line"),
    [(module, *found) for module in (*CHECKED, *USERS) for found in demands(module)],
)
def test_without_a_demand_a_twin_passes(module, function, line, work):
    kinds = USERS.get(module, (module,))
    try:
        run_anew(module, line)
        for kind in kinds if module in USERS else ():  # which have its functions by name
            run_anew(kind)
        assert any(passing(kind, function) for kind in kinds)
    finally:
        for again in (module, *kinds):
            run_anew(again)
