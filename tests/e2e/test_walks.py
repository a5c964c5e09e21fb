"""Two walkthroughs for a new user: on the command line and in Python. tests/e2e/test_tutorial.py
runs each command in its own process."""

from __future__ import annotations

import runpy
import shlex
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CONFIG = """
[model]
name = "ae"
hidden = [128]

[train]
epochs = 3
"""
PLUGIN = """
from latentforge import PresetSpec, hookimpl
from pathlib import Path

@hookimpl
def latentforge_presets():
    file = Path(__file__).with_name("first.toml")
    yield PresetSpec(name="first", summary="My first config", path=file)
"""


@pytest.mark.slow  # 10 s
def test_command_line_walkthrough(cli, work):
    def run(line):
        answer = cli(*shlex.split(line))
        assert answer.code == 0, answer.err
        assert "Traceback" not in answer.err
        return answer

    for line in ("--version", "list models", "show model ae", "data show digits"):
        assert run(line).out
    Path("first.toml").write_text(CONFIG, "utf-8")
    run("config check first.toml")
    run("train --config first.toml --set model.latent_dim=8 --run runs/first")
    run("train mlp-classifier --epochs 8 --batch-size 32 --lr 3e-3 --quiet")
    assert "mlp-classifier-digits-1" in run("runs").out
    run("evaluate runs/first --split validation --checkpoint best")
    measured = run("evaluate runs/mlp-classifier-digits-1 --measure accuracy --json").json
    assert measured["metrics"]["accuracy"] > 0.9
    run("explore interpolate runs/first --set 'classes=[3, 8]' --set path=linear")
    assert Path("runs/first/explore/interpolate/interpolation.png").stat().st_size > 0

    # a custom plugin in a single file, without packaging
    Path("narrow.py").write_text(PLUGIN, "utf-8")
    assert "narrow" in run("-p ./narrow.py plugins list").out
    trained = run("-p ./narrow.py train --preset first --epochs 1 --json").json
    assert trained["status"] == "done"

    misspelt = cli("train", "aee")
    assert misspelt.code == 2
    assert "Traceback" not in misspelt.err
    assert "did you mean 'ae'" in misspelt.err


@pytest.mark.slow  # 20 s
def test_python_walkthrough(work, capsys):
    runpy.run_path(str(HERE / "walk_python.py"), run_name="__main__")
    printed = capsys.readouterr()
    assert printed.out.endswith("the walk is done\n")
    assert "Traceback" not in printed.err
