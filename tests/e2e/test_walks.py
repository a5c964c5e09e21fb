"""Two walkthroughs for a new user: on the command line and in Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run_walkthrough(command: list[str], folder: Path) -> str:
    bin_first = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env={**os.environ, "PATH": bin_first}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.slow  # 30 s of commands
@pytest.mark.skipif(sys.platform == "win32", reason="needs bash")
def test_command_line_walkthrough(tmp_path):
    out = run_walkthrough(["bash", str(HERE / "walk_cli.sh")], tmp_path)
    assert out.endswith("the walk is done\n")


@pytest.mark.slow  # 20 s
def test_python_walkthrough(tmp_path):
    out = run_walkthrough([sys.executable, str(HERE / "walk_python.py")], tmp_path)
    assert out.endswith("the walk is done\n")
