"""docs/errors.md lists every id of an error or of a plugin's fault, and no others."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import latentforge
from latentforge.errors import LatentForgeError

ROOT = Path(__file__).parents[2]
ERRORS, FAULTS = (ROOT / "docs" / "errors.md").read_text("utf-8").split("## Faults of plugins")


def rows(text):
    """The cells of each row of a table, without the backticks."""
    lines = re.findall(r"^\| (`.*) \|$", text, re.MULTILINE)
    return [line.replace("`", "").split(" | ") for line in lines]


def classes(base=LatentForgeError):
    for cls in base.__subclasses__():
        yield cls
        yield from classes(cls)


def test_every_class_of_errors_has_its_row():
    for module in pkgutil.walk_packages(latentforge.__path__, "latentforge."):
        if module.name.split(".")[-1] not in ("__main__", "testing", "measuring"):
            importlib.import_module(module.name)
    known = {
        (cls.id, str(cls.exit_code), cls.__name__)
        for cls in classes()
        if cls.__module__ == "latentforge.errors"
    }
    listed = [tuple(row[:3]) for row in rows(ERRORS)]
    assert len({identity for identity, *_ in listed}) == len(listed)
    assert set(listed) == known
    within = {(cls.id, str(cls.exit_code)) for cls in classes()}  # also classes of other modules
    assert within == {(identity, code) for identity, code, _ in known}
    for row in rows(ERRORS):
        assert len(row) == 5
        assert all(row)  # the cause and the hint


def test_every_stage_of_a_fault_has_its_row():
    stages = set()
    for name in ("loading", "discovery"):
        tree = ast.parse((ROOT / "latentforge/plugins" / f"{name}.py").read_text("utf-8"))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        stages |= {
            call.args[0].value
            for call in calls
            if getattr(call.func, "attr", "") in ("add_fault", "capture_faults")
            and isinstance(call.args[0], ast.Constant)
        }
    assert len(stages) >= 5
    assert {(row[0], row[1]) for row in rows(FAULTS)} == {(f"plugin-{s}", s) for s in stages}
