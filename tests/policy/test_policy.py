"""Rules of the code base, checked on its sources and its command line."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from itertools import pairwise
from pathlib import Path

import pytest
import typer.main

import latentforge
from latentforge.cli.app import app
from latentforge.config.schema import TrainConfig

ROOT = Path(__file__).resolve().parents[2]
CORE = sorted((ROOT / "latentforge").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins" / "latentforge_plugins").rglob("*.py"))
BUILT_INS = [
    p.value for p in entry_points(group="latentforge") if p.dist and p.dist.name == "latentforge"
]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def imports(node: ast.AST, for_types: bool) -> Iterator[str]:
    """Every module that code imports anywhere, also inside functions."""
    if isinstance(node, ast.If) and dotted(node.test) == "TYPE_CHECKING" and not for_types:
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and not node.level:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from imports(child, for_types)


def importers(files: list[Path], package: str, for_types: bool = True) -> set[str]:
    return {
        name_of(path)
        for path in files
        for module in imports(tree(path), for_types)
        if module.split(".")[0] == package
    }


def dotted(node: ast.AST) -> str:
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def test_the_scan_sees_the_whole_package():
    assert {"latentforge/engine/trainer.py", "latentforge/cli/train.py"} <= set(map(name_of, CORE))
    assert len(BUILT_INS) >= 9
    assert len(PLUGINS) > len(BUILT_INS)


# ---------------------------------------------------------------- imports


def test_only_the_engine_imports_ignite():
    users = importers(CORE, "ignite", for_types=False)
    assert "latentforge/engine/trainer.py" in users
    assert {user for user in users if not user.startswith("latentforge/engine/")} == set()


def test_the_core_imports_no_plugin():
    assert importers(CORE, "latentforge_plugins") == set()


def test_the_core_defines_no_network():
    derived = {
        name_of(path)
        for path in CORE
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef)
        for base in node.bases
        if dotted(base).split(".")[-1] in ("Module", "Sequential")
    }
    assert derived == {"latentforge/engine/step.py"}  # Trainee: model and loss as one module


def test_nothing_is_pickled():
    assert importers([*CORE, *PLUGINS], "pickle") == set()
    used = {
        (name_of(path), dotted(node))
        for path in [*CORE, *PLUGINS]
        for node in ast.walk(tree(path))
        if dotted(node) in ("torch.load", "torch.save", "np.load", "numpy.load")
    }
    assert used == set()


def test_only_the_command_line_prints():
    printing = {
        name_of(path)
        for path in [*CORE, *PLUGINS]
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and dotted(node.func) == "print"
    }
    assert "latentforge/cli/output.py" in printing
    assert {user for user in printing if not user.startswith("latentforge/cli/")} == set()


def test_the_hook_modules_of_the_built_in_plugins_import_nothing_heavy():
    code = (
        "import importlib, json, sys\n"
        "for name in json.loads(sys.argv[1]): importlib.import_module(name)\n"
        "print(json.dumps(sorted(m for m in sys.modules if '.' not in m)))"
    )
    command = [sys.executable, "-c", code, json.dumps(BUILT_INS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert "latentforge_plugins" in loaded
    assert not loaded & {"torch", "torchvision", "numpy", "ignite", "pydantic", "matplotlib"}


# ---------------------------------------------------------------- modules


@pytest.mark.parametrize("path", [*CORE, *PLUGINS], ids=name_of)
def test_module_is_short_and_has_a_short_docstring(path: Path):
    assert len(path.read_text("utf-8").splitlines()) <= 400
    docstring = ast.get_docstring(tree(path))
    assert docstring
    assert len(docstring.splitlines()) <= 5


def described_by_a_string_below(path: Path) -> set[str]:
    """The names at the top level of a file whose assignment is followed by a string."""
    body = tree(path).body
    return {
        dotted(target)
        for node, after in pairwise(body)
        if isinstance(node, ast.Assign) and isinstance(after, ast.Expr)
        if isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
        for target in node.targets
    }


def test_every_public_name_has_a_docstring():
    aliases = described_by_a_string_below(ROOT / "latentforge" / "options.py")
    undocumented = []
    for name in sorted(set(latentforge.__all__) - {"__version__"}):
        value = getattr(latentforge, name)
        if not inspect.isroutine(value) and not inspect.isclass(value):
            described = name in aliases or name == "hookimpl"  # hookimpl is an object of pluggy
        else:
            described = bool(value.__doc__) and not value.__doc__.startswith(f"{name}(")
        undocumented += [] if described else [name]
    assert undocumented == []


@pytest.mark.parametrize("owner", [latentforge.Forge, latentforge.Run], ids=lambda c: c.__name__)
def test_every_public_method_of_several_lines_has_a_docstring(owner: type):
    methods = {
        name: value
        for name, value in inspect.getmembers(owner, inspect.isfunction)
        if not name.startswith("_")
    }
    assert len(methods) >= 5
    one_liners = {n for n, m in methods.items() if len(inspect.getsource(m).splitlines()) <= 2}
    assert {n for n, m in methods.items() if not m.__doc__} - one_liners == set()


# ---------------------------------------------------------------- help texts


def leaves(group, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(leaves(typer.main.get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_help_of_a_command_has_an_example_that_parses(path):
    example = re.search(r"Example: (latentforge .+)", COMMANDS[path].help or "")
    assert example
    words = shlex.split(example[1])
    assert tuple(words[1 : 1 + len(path)]) == path
    COMMANDS[path].make_context(path[-1], words[1 + len(path) :])  # raises if it does not parse


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_command_help_explains_arguments_and_shows_defaults(path):
    command = COMMANDS[path]
    context = command.make_context(path[-1], [], resilient_parsing=True)
    text = " ".join(command.get_help(context).split())
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            assert parameter.help, parameter.name
        if parameter.default not in (None, False, (), []):
            assert f"[default: {parameter.default}]" in text, parameter.name


def test_the_defaults_in_the_help_of_train_are_those_of_the_config():
    shown = {
        parameter.name: re.search(r"\[default: (.+)\]", parameter.help)[1]
        for parameter in COMMANDS["train",].params
        if parameter.name in ("epochs", "batch_size", "lr", "seed", "device")
    }
    assert shown == {name: str(getattr(TrainConfig(), name)) for name in shown}
    assert len(shown) == 5


def test_options_of_the_same_name_have_the_same_type():
    """--json, --set, --device, --checkpoint, --with, --out, --run: one type and one metavar each,
    except --set of evaluate, whose keys begin with a measure."""
    seen: dict[str, set[tuple[str, bool]]] = {}
    for path, command in COMMANDS.items():
        for parameter in command.params:
            if parameter.param_type_name == "option" and path != ("evaluate",):
                for flag in parameter.opts:
                    seen.setdefault(flag, set()).add((str(parameter.metavar), parameter.multiple))
    assert seen["--json"]
    varied = {flag: kinds for flag, kinds in seen.items() if len(kinds) > 1}
    assert set(varied) <= {"--out"}  # a folder, or the image file of `data show`


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_a_json_option(path):
    assert any("--json" in parameter.opts for parameter in COMMANDS[path].params)
