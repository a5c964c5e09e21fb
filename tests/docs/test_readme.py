"""Every code block of the README runs."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from latentforge import Forge
from latentforge.cli.app import run as run_cli
from latentforge.config.request import Draft
from latentforge.config.resolve import resolve

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


def test_blocks_are_in_the_languages_that_are_tested():
    assert {kind for kind, _ in BLOCKS} == {"bash", "python", "toml"}
    assert [len(blocks(kind)) for kind in ("bash", "python", "toml")] == [3, 3, 1]


@pytest.mark.skipif(sys.platform == "win32", reason="make: not on Windows")
def test_make_commands_are_targets():
    for line in blocks("bash")[0].splitlines():
        done = subprocess.run(
            [*shlex.split(line), "--dry-run"], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert ".venv/bin/" in done.stdout


@pytest.mark.slow
def test_shell_commands_run_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for line in [*blocks("bash")[1].splitlines(), *blocks("bash")[2].splitlines()]:
        program, *arguments = shlex.split(line)
        assert program == "latentforge"
        assert run_cli(arguments) == 0, capsys.readouterr().err
    assert list(Path("runs/ae/explore/interpolate").glob("*.png"))
    found = json.loads(Path("runs/vae/explore/guided/findings.json").read_text("utf-8"))
    assert found["metrics"]["success_share"] > 0.95
    assert found["metrics"]["judge_agreement"] > 0.9
    assert "--with judge=runs/judge" in Path("runs/vae/report.html").read_text("utf-8")


def test_config_file_is_valid(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text(blocks("toml")[0], "utf-8")
    draft = Draft()
    draft.read_file(file)
    config = resolve(draft, Forge().registry)
    assert (config.model.options.hidden, config.train.epochs) == ((128,), 10)


def run_program(text: str) -> None:
    exec(compile(text, "README.md", "exec"), {"__name__": "__main__"})


def test_a_search_without_a_run_takes_eight_lines_and_meets_its_objective(capsys):
    text = blocks("python")[0]
    assert len(text.splitlines()) == 8
    torch.manual_seed(0)
    run_program(text)
    assert "tensor([True])" in capsys.readouterr().out


def test_every_explorer_is_in_the_table():
    rows = re.findall(r"^\| `([\w-]+)` \|", (ROOT / "README.md").read_text("utf-8"), re.M)
    known = {entry.name for entry in Forge().registry.entries("explorers")}
    assert known == set(rows)


def test_python_program_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_program(blocks("python")[1])
    out = capsys.readouterr().out
    assert "nats per image" in out
    assert "interpolation.png" in out


def test_plugin_has_at_most_25_lines_and_trains_evaluates_and_interpolates(tmp_path, monkeypatch):
    text = blocks("python")[2]
    assert len(text.splitlines()) <= 25
    monkeypatch.chdir(tmp_path)
    Path("deep_linear.py").write_text(text, "utf-8")
    assert run_cli(["-p", "./deep_linear.py", "train", "deep-linear", "--epochs", "1"]) == 0
    run = Forge(["./deep_linear.py"]).open_run("runs/deep-linear-digits-1")
    assert run.evaluate()["recon"] == pytest.approx(run.metrics["test"]["recon"])
    assert run.explore("interpolate", steps=3)["files"]
