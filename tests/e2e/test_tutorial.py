"""The tutorial of docs/plugins.md, executed in a virtual environment."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"


def tutorial():
    """(language, code) of each code block of the tutorial, in order."""
    text = PAGE.read_text("utf-8").partition("## Ten minutes\n")[2].partition("## Reference\n")[0]
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_tutorial_commands_give_the_documented_results(venv):
    assert [language for language, _ in tutorial()] == [
        *("bash", "bash", "python", "python", "bash", "bash")
    ]
    ran = []
    for language, code in tutorial():
        if language == "python":  # its first line names the file
            name = re.match(r"# (\S+\.py)\n", code)[1]
            file = venv.work / name
            assert file.exists()
            file.write_text(code)
            continue
        for line in code.splitlines():
            words = shlex.split(line)
            if words[0] == "cd":
                venv.work = venv.work / words[1]
                continue
            ran.append((line, venv.run(*words)))
    said = dict(ran)
    assert " passed" in said["pytest"]
    assert "0 failed" in said["latentforge plugins check swirl --deep"]
    second = json.loads((venv.work / "runs/second/run.json").read_text())
    assert second["status"] == "done"
    assert second["metrics"]["test"]["kl"] > 0
    assert (venv.work / "runs/second/explore/sample").is_dir()
    assert "swirl" not in venv.run("latentforge", "plugins", "list")
