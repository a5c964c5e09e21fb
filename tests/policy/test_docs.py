"""Every code block of the docs is run by a test, or parsed if running it takes an hour.

The tests of a page read its blocks; the tests here find blocks that no test reads."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command

from latentforge.cli.app import app
from latentforge.cli.app import run as run_cli

ROOT = Path(__file__).resolve().parents[2]
HERE = "tests/policy/test_docs.py"
CONTRACTS = "tests/docs/test_contracts_page.py"
README = "tests/docs/test_readme.py"
TESTED = {  # page and language of the blocks, and the tests that read them
    ("README.md", "bash"): [README],
    ("README.md", "python"): [README],
    ("README.md", "toml"): [README],
    ("docs/contracts.md", "python"): [CONTRACTS],
    ("docs/contracts.md", "toml"): [CONTRACTS],
    ("docs/gallery.md", "bash"): ["tests/docs/test_gallery.py"],
    ("docs/plugins.md", "bash"): ["tests/e2e/test_tutorial.py", "tests/docs/test_plugins_page.py"],
    ("docs/plugins.md", "python"): [
        "tests/e2e/test_tutorial.py",
        "tests/docs/test_plugins_page.py",
    ],
    ("docs/plugins.md", "toml"): ["tests/docs/test_plugins_page.py"],
    ("docs/reliability.md", "bash"): ["tests/docs/test_reliability_page.py"],
    ("docs/reliability.md", "python"): ["tests/docs/test_reliability_page.py"],
    ("docs/sweeps.md", "bash"): [HERE],
    ("docs/sweeps.md", "python"): [HERE],
    ("docs/streaming.md", "bash"): [HERE],
    ("docs/distributed.md", "bash"): [HERE],
}


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DRAWN = {"docs/architecture.md": 1, "docs/reliability.md": 1}  # blocks without a language


class Block(NamedTuple):
    """A fenced block; `indent` is the white space before it, inside a list."""

    page: str
    indent: str
    language: str
    code: str


def fenced(page: Path) -> Iterator[Block]:
    """Every block of a page. It is parsed line by line, so that no notation is missed."""
    name, inside, lines = page.relative_to(ROOT).as_posix(), None, []
    for line in page.read_text("utf-8").splitlines():
        fence = re.match(r"(\s*)(```+|~~~+)(.*)", line)
        if fence and inside is None:
            assert fence[2] == "```", f"{name}: {line}"
            inside, lines = (fence[1], fence[3].strip()), []
        elif fence:
            assert not fence[3].strip(), f"{name}: {line} opens a block in a block"
            yield Block(name, *inside, "".join(f"{line}\n" for line in lines))
            inside = None
        else:
            lines.append(line)
    assert inside is None, f"{name}: a block has no end"


BLOCKS = [block for page in PAGES for block in fenced(page)]


def blocks(page: str, language: str) -> list[str]:
    return [b.code for b in BLOCKS if (b.page, b.indent, b.language) == (page, "", language)]


def parse(words: list[str]) -> None:
    """Raises if a command line of LatentForge does not parse."""
    name, *rest = words
    get_command(app).commands[name].make_context(name, rest)


def test_every_page_with_code_has_a_test_that_reads_it():
    assert {(block.page, block.language) for block in BLOCKS if block.language} == set(TESTED)
    for (page, language), tests in TESTED.items():
        for test in tests:
            code = (ROOT / test).read_text("utf-8")
            if test == HERE:
                assert f'blocks("{page}", "{language}")' in code
            else:
                assert Path(page).name in code, test


def test_only_diagrams_are_blocks_without_a_language():
    assert Counter(block.page for block in BLOCKS if not block.language) == DRAWN


def test_the_block_in_a_list_is_the_entry_point_of_a_plugin():
    """The tests of the pages skip indented blocks; this is the only one."""
    [block] = [block for block in BLOCKS if block.indent]
    assert (block.page, block.language) == ("docs/contracts.md", "toml")
    assert tomllib.loads(textwrap.dedent(block.code)) == {
        "project": {"entry-points": {"latentforge": {"swirl": "swirl_plugin"}}}
    }


@pytest.mark.parametrize("page", ["docs/gallery.md", "docs/reliability.md"])
def test_parsed_bash_blocks_contain_only_latentforge_commands(page):
    """The tests of these pages read only lines that begin with `latentforge`."""
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    assert lines
    assert [line for line in lines if not re.match(r"latentforge \w", line)] == []


def shortened(line: str) -> list[str]:
    """A command line with one epoch, and few trials."""
    line = re.sub(r"--epochs \d+", "", line)
    line = re.sub(r"--search \d+", "--search 3", line)
    return [*shlex.split(line)[1:], "--epochs", "1", "--quiet"]


@pytest.mark.slow  # nine training runs and three
@pytest.mark.parametrize("line", [b.strip() for b in blocks("docs/sweeps.md", "bash")])
def test_commands_of_sweeps_run(line, work):
    assert run_cli(shortened(line)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("code", blocks("docs/sweeps.md", "python"))
def test_python_of_sweeps_runs(code, work):
    exec(compile(code, "sweeps.md", "exec"), {})


@pytest.mark.slow  # convolutions
def test_commands_of_streaming_run(work):
    draw = np.random.default_rng(0)
    np.save("x.npy", draw.integers(0, 256, (40, 12, 12), np.uint8))
    np.save("y.npy", np.arange(40) % 2)
    for i in range(20):
        place = work / "photos" / f"class-{i % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (70, 90, 3), np.uint8)).save(place / f"{i}.png")
    [block] = blocks("docs/streaming.md", "bash")
    lines = block.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert run_cli(shortened(line)) == 0


def test_distributed_scripts_are_bash_and_their_commands_parse(tmp_path):
    scripts = blocks("docs/distributed.md", "bash")
    assert len(scripts) == 3
    for text in scripts:
        file = tmp_path / "script.sh"
        file.write_text(text)
        if shutil.which("bash"):
            subprocess.run(["bash", "-n", file], check=True)
        commands = re.findall(r"-m -- latentforge (.+)", text.replace("\\\n", " "))
        assert commands
        for command in commands:
            parse(shlex.split(command))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="torchrun with gloo")
def test_two_processes_train_and_resume_as_documented(work):
    """On digits: one epoch, then a second one."""
    first, second = blocks("docs/distributed.md", "bash")[0].splitlines()
    launcher = [sys.executable, "-m", "torch.distributed.run"]
    for line in (
        first.replace("mnist", "digits").replace("512", "128 --epochs 1"),
        second.replace("mnist", "digits") + " --epochs 2",
    ):
        words = [*launcher, *shlex.split(line)[1:]]
        done = subprocess.run(words, capture_output=True, text=True, cwd=work)
        assert done.returncode == 0, done.stderr
    assert len((work / "runs/vae-digits-1/metrics.jsonl").read_text().splitlines()) == 2
