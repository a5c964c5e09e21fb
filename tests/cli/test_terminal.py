"""What a terminal shows: text from files is harmless, and a stdout that fails is one error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from latentforge.runtime.stdout import escape_controls

CLEAR = "\x1b[2J\x1b]0;title\x07"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain Ä 猫 \xa0\u3000", "plain Ä 猫 \xa0\u3000"),
        (CLEAR, r"\x1b[2J\x1b]0;title\x07"),
        ("one\r\ntwo\tthree", "one\\r\ntwo\tthree"),
        ("a\u202eb\u2028c\x85d\x9be", r"a\u202eb\u2028c\x85d\x9be"),
        (os.fsdecode(b"run-\xff"), r"run-\udcff"),
    ],
)
def test_characters_that_a_terminal_interprets_are_escaped(text, shown):
    assert escape_controls(text) == shown


def controls(text):
    return [c for c in text if not c.isprintable() and c != "\n"]


def test_names_in_files_cannot_control_the_terminal(cli, runs):
    names = np.array([f"cat{CLEAR}", "dog\n  test   accuracy       0.999"])
    x = np.random.default_rng(0).random((40, 8, 8), dtype=np.float32)
    np.savez("own.npz", x=x, y=np.arange(40) % 2, classes=names)
    manifest = json.loads(Path("runs/ae/run.json").read_text())
    manifest["metrics"]["test"][f"loss{CLEAR}"] = 1.0
    manifest["model"] = manifest["config"]["model"]["name"] = f"ae{CLEAR}"
    Path("runs/ae/run.json").write_text(json.dumps(manifest))
    Path("runs/cnn").rename(f"runs/cnn{CLEAR}")
    for line in (
        ("data", "show", "arrays", "--set", "data.path=own.npz"),
        ("runs", "runs"),
        ("evaluate", "runs/ae"),
        ("evaluate", f"runs/cnn{CLEAR}"),
        ("doctor", f"runs/cnn{CLEAR}"),
        ("report", f"runs/cnn{CLEAR}"),
        ("train", "ae", "--data", "arrays", "--set", f"data.path=no{CLEAR}.npz"),
    ):
        answer = cli(*line)
        assert controls(answer.out + answer.err) == [], line
        assert not any(row.startswith("  test   acc") for row in answer.out.splitlines()), line


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["--help"]], ids=" ".join)
@pytest.mark.parametrize("to", ["/dev/full", "&-"])
def test_stdout_that_fails_is_one_error(work, arguments, to):
    command = [sys.executable, "-m", "latentforge", *arguments]
    shell = ["sh", "-c", f'"$@" >{to}', "sh", *command]
    done = subprocess.run(shell, capture_output=True, text=True, cwd=work)
    assert "Traceback" not in done.stderr
    assert "LatentForge itself" not in done.stderr
    if arguments == ["--help"] and to == "&-":  # nobody can read it
        assert done.returncode in (0, 1)
    else:
        assert done.returncode == 1
        assert "cannot be written to stdout" in done.stderr


def test_paths_that_are_not_utf_8_work(cli, runs):
    odd = os.fsdecode(b"runs/caf\xe9")
    Path("runs/ae").rename(odd)
    for line in (
        ("explore", "sample", odd, "--quiet"),
        ("report", odd),
        ("evaluate", odd, "--json"),
    ):
        answer = cli(*line)
        assert answer.code == 0, answer.err
    assert Path(odd, "report.html").exists()


def test_commands_work_in_the_c_locale(process, runs):
    os.replace("runs/ae", "runs/café 猫")
    answer = process("report", "runs/café 猫", env={"LC_ALL": "C", "PYTHONUTF8": "0"})
    assert (answer.code, answer.err) == (0, "")
    assert Path("runs/café 猫/report.html").exists()
