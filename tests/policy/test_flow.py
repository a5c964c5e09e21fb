"""Counts the functions from the command `train --resume` to the first optimizer step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from latentforge import Forge

FLOW = ("cli", "forge", "workflows", "engine")
"""The packages that are traced. The layers below (runs, data, config, plugins, io, runtime) are
storage and services, whose functions have descriptive names."""
TRACE = """
import json, sys
import latentforge
import latentforge.rendering.write, latentforge.workflows.resume  # before the trace
from latentforge.cli.app import run
from latentforge.engine import optimizer

ROOT = latentforge.__file__.removesuffix("__init__.py")
visited = []

def watch(frame, event, _):
    name, path = frame.f_code.co_qualname, frame.f_code.co_filename
    function = frame.f_code.co_flags & 0x2  # neither a module nor a class
    if event == "call" and path.startswith(ROOT) and function:
        module = path[len(ROOT):-3].replace("/", ".")
        if module.split(".")[0] in sys.argv[2].split(",") and "<" not in name.split(".")[-1]:
            visited.append([module, name])

def first_step(*_):
    sys.setprofile(None)
    print(json.dumps(visited))
    sys.exit()

optimizer.direct_step = lambda _: first_step  # the end of the trace
import latentforge.engine.step
latentforge.engine.step.direct_step = optimizer.direct_step
sys.setprofile(watch)
run(["train", "--resume", sys.argv[1], "--epochs", "2", "--quiet"])
"""


@pytest.mark.slow
def test_resume_calls_few_functions_before_the_first_step(tmp_path: Path):
    small = {"encoder": [8], "decoder": [8]}
    run = Forge().train("vae", model=small, train={"epochs": 1}, run=tmp_path / "run", quiet=True)
    command = [sys.executable, "-c", TRACE, str(run.path), ",".join(FLOW)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    visited = [tuple(pair) for pair in json.loads(done.stdout.splitlines()[0])]
    path = visited[visited.index(("cli.train", "train")) :]
    functions = list(dict.fromkeys(path))
    print("\n".join(map(" ".join, functions)))  # shown if the test fails
    assert ("engine.step", "train_step") in functions
    assert ("workflows.resume", "resume") in functions
    assert len(functions) <= 60
    assert len({module for module, _ in functions}) <= 18
