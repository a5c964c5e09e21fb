"""Plugins that do worse than raise an Exception: they end the process, print, or have damaged
metadata. The other plugins still work, and the message names the plugin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from latentforge import Forge, MeasureSpec, hookimpl
from latentforge.cli.app import run as run_cli
from latentforge.errors import PluginError
from latentforge.plugins.attribution import call_component
from latentforge.plugins.loading import load_plugins

BAD = "plugin bad (latentforge-bad 0.3)"


# ---------------------------------------------------------------- loading


def test_entry_point_to_a_missing_module_is_reported(site):
    site.metadata("latentforge-bad", "bad = no_such_thing")
    [problem] = load_plugins().problems
    assert "No module named 'no_such_thing'" in problem.cause
    assert problem.remedy == "correct its entry point, no_such_thing, or reinstall it"


def test_strict_plugins_loads_a_plugin_once(work, capsys):
    Path("mine.py").write_text("print('loaded')\n" + MINE_WITH_LETTERS)
    assert run_cli(["--strict-plugins", "-p", "./mine.py", "list", "models"]) == 0
    assert capsys.readouterr().err.count("loaded") == 1


def test_usage_error_raised_in_a_config_stays_a_usage_error(work, cli):
    code = TYPES.replace("share: Fraction = None", REFUSES)
    Path("mine.py").write_text(code)
    answer = cli("-p", "./mine.py", "train", "mine", "--set", "model.every=0")
    assert answer.code == 2
    assert "every must be 1 or more" in answer.err


REFUSES = """every: int = 1

    def __post_init__(self):
        from latentforge.errors import UsageError
        if self.every < 1:
            raise UsageError("every must be 1 or more", remedy="every=1")
"""


@pytest.mark.parametrize("line", [["list", "models", "--json"], ["plugins", "list", "--json"]])
def test_output_of_a_plugin_goes_to_stderr(site, capsys, line):
    code = "print('hello')\n@hookimpl\ndef latentforge_models():\n    print('here')\n    return []"
    site.add("latentforge-bad", code, "bad")
    assert run_cli(line) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)
    assert "hello\nhere\n" in err


@pytest.mark.slow
def test_training_works_beside_a_damaged_package(work):
    """In a new process, because pydantic and torch also read the entry points of all packages, but
    only once."""
    info = work / "site/stranger-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "entry_points.txt").write_text("[console_scripts]\nno equals sign\n")
    path = os.pathsep.join(filter(None, [str(work / "site"), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-m", "latentforge", "train", "ae", "--epochs", "1", "--quiet"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "entry_points.txt cannot be read" in done.stderr
    assert "stranger-1.0.dist-info" in done.stderr  # pip knows no name for it
    assert "pip install" not in done.stderr


def test_metadata_that_hide_the_built_in_plugins_are_reported(site, capsys):
    (site.metadata("latentforge", "", "0.0.1") / "entry_points.txt").write_text("")
    assert run_cli(["list", "models"]) == 0
    err = capsys.readouterr().err
    assert "plugin latentforge (latentforge 0.0.1): discover: its metadata at" in err
    assert str(site.folder) in err


# ---------------------------------------------------------------- components


def raising(error):
    raise error


@pytest.mark.parametrize(
    "error", [SystemExit(0), SystemExit("so"), type("Odd", (BaseException,), {})()]
)
def test_component_that_exits_is_a_plugin_error(error):
    entry = load_plugins(only=["latentforge"]).get("models", "ae")
    with pytest.raises(PluginError, match="building it failed"):
        call_component("building it", [entry], raising, error)


class OneMeasure:
    """A plugin whose default measure raises in the method `where`. It sorts before `loss`."""

    def __init__(self, where):
        self.where = where

    @hookimpl
    def latentforge_measures(self):
        yield MeasureSpec(name="a-mine", summary="s", protocol="p", build=self.build)

    def build(self, config, context):
        self.fail_in("build")
        return self

    def update(self, seen):
        self.fail_in("update")

    def compute(self):
        self.fail_in("compute")
        return {"loss": 1.0} if self.where == "name" else {"mine": 1.0}

    def fail_in(self, where):
        if where == self.where:
            raise ZeroDivisionError(where)


@pytest.mark.parametrize("where", ["build", "update", "compute", "name"])
def test_failing_default_measure_is_skipped_and_the_run_completes(work, caplog, where):
    forge = Forge([OneMeasure(where)])
    run = forge.train("ae", train={"epochs": 2, "batch_size": 512}, quiet=True)
    assert run.status == "done"
    assert "mine" not in run.metrics["test"]
    assert run.metrics["test"]["loss"] > 2
    messages = [record.getMessage() for record in caplog.records]
    assert len([line for line in messages if "measure 'a-mine' failed" in line]) == 1
    assert "the measure is skipped" in messages[0]
    with pytest.raises(PluginError, match="measure 'a-mine' failed"):
        run.evaluate(measures=["loss", "a-mine"])


def test_working_default_measure_is_in_the_metrics(work):
    run = Forge([OneMeasure("")]).train("ae", train={"epochs": 1, "batch_size": 512}, quiet=True)
    assert run.metrics["test"]["mine"] == 1.0


TYPES = """
from __future__ import annotations
from dataclasses import dataclass
from typing import TYPE_CHECKING
from latentforge import ModelSpec, hookimpl
if TYPE_CHECKING:
    from fractions import Fraction

@dataclass(frozen=True)
class Config:
    share: Fraction = None

@hookimpl
def latentforge_models():
    yield ModelSpec(name="mine", summary="s", build=print, config=Config, provides={"encode"},
                    default_loss="reconstruction")
"""


def test_unresolvable_config_types_are_a_plugin_error(cli, work):
    Path("mine.py").write_text(TYPES)
    for line in (["show", "model", "mine"], ["train", "mine"]):
        answer = cli("-p", "./mine.py", *line)
        assert answer.code == 3
        assert "the types of config Config cannot be read: NameError" in answer.err


@pytest.mark.parametrize("roles", [["judge"], 5, {"judge": None}])
def test_invalid_roles_are_a_problem_of_the_spec(site, roles):
    code = (
        "from latentforge import ExplorerSpec\n@hookimpl\ndef latentforge_explorers():\n"
        f"    yield ExplorerSpec(name='e', summary='s', explore=build, roles={roles!r})"
    )
    site.add("latentforge-bad", code, "bad")
    [problem] = load_plugins().problems
    assert "explorer 'e': roles must map names of roles to sets of capabilities" in problem.cause


# ---------------------------------------------------------------- commands


def test_exit_message_of_a_command_is_printed(site, capsys):
    site.command("import sys\ndef aim():\n    sys.exit('no target was given')\n")
    assert run_cli(["aim"]) == 1
    assert capsys.readouterr().err == "no target was given\n"


CLICK = """
import click

@click.group()
def aim(): "Aims."

@aim.command()
@click.option("--far", type=int, default=3)
@click.argument("place")
def at(far, place):
    if far > 10:
        raise click.ClickException("too far")
    click.echo(f"aimed {place} {far}")
    if far == 7:
        click.get_current_context().exit(4)
"""


@pytest.mark.parametrize(
    ("line", "code", "out", "err"),
    [
        ("at there --far 5", 0, "aimed there 5", ""),
        ("at there --far 7", 4, "aimed there 7", ""),
        ("at there --far 11", 1, "", "too far"),
        ("at there --far x", 2, "", "'x' is not a valid integer"),
        ("at --help", 0, "Usage: latentforge aim at", ""),
        ("--help", 0, "Aims.", ""),
        ("nothing", 2, "", "No such command 'nothing'"),
    ],
)
def test_click_group_works_as_a_command(site, capsys, monkeypatch, line, code, out, err):
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(click.__file__).parents[1])])
    site.command(CLICK)
    assert run_cli(["aim", *line.split()]) == code
    captured = capsys.readouterr()
    assert out in captured.out
    assert err in captured.err
    assert "error in LatentForge" not in captured.err


ANSWERS = """
import json
from typing import Annotated
import typer

def aim(as_json: Annotated[bool, typer.Option("--json")] = False):
    print(json.dumps({"met": True}))
"""


def test_json_output_of_a_command_is_unchanged(site, capsys):
    site.command(ANSWERS)
    assert run_cli(["aim", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"met": True}


def test_help_omits_commands_of_disabled_plugins(site, capsys):
    site.command("def aim(): pass\n")
    assert run_cli(["-p", "no:latentforge-aim", "--help"]) == 0
    assert "latentforge-aim" not in capsys.readouterr().out


def test_strict_plugins_applies_to_every_command(site, work, capsys):
    site.add("latentforge-bad", "1 / 0", "bad", version="0.3")
    site.command("def aim(): pass\n")
    (work / "runs").mkdir()
    for line in (["runs"], ["aim"], ["list"]):
        assert run_cli(line) == 0
        assert run_cli(["--strict-plugins", *line]) == 3
        assert BAD in capsys.readouterr().err
    assert run_cli(["--strict-plugins", "plugins", "list"]) == 0


# ---------------------------------------------------------------- messages


def test_conflicts_name_the_other_distribution(site, capsys):
    site.add("latentforge-one", site.offering("twin"), "same")
    site.add("latentforge-two", site.offering("twin"), "same")
    assert run_cli(["plugins", "show", "latentforge-one/same"]) == 0
    out = capsys.readouterr().out
    assert (
        "conflict: plugin 'same' is also provided by latentforge-two;"
        " use this one as latentforge-one/same" in out
    )
    assert (
        "model 'twin' is also provided by latentforge-two; use this one as latentforge-one/twin"
        in out
    )


@pytest.mark.parametrize(
    ("need", "hint"),
    [
        ("nope @ https://x/y'$(touch${IFS}PWNED)'", "pip install nope\n"),
        ("nope[a,b]>=1; os_name != \"a'$(id)'\"", "pip install 'nope[a,b]>=1'\n"),
    ],
)
def test_pip_hint_contains_no_shell_code_from_a_config(work, capsys, need, hint):
    Path("c.toml").write_text(f"requires_plugins = [{json.dumps(need)}]\n")
    assert run_cli(["train", "--config", "c.toml"]) == 3
    assert capsys.readouterr().err.endswith(hint)


def test_long_message_is_cut_and_has_no_escape_codes(site):
    code = "raise ValueError('\\x1b[31mred ' + 20000 * 'x')"
    site.add("latentforge-bad", code, "bad")
    [problem] = load_plugins().problems
    assert "\x1b" not in problem.cause
    assert len(problem.cause) < 1200


def test_requirements_list_only_what_pip_accepts(site, capsys):
    for name, version in (("one", "not a version!"), ("two", ""), ("three", "1.0")):
        site.add(f"latentforge-{name}", site.offering(name), name, version=version or "0")
        [file] = site.folder.glob(f"latentforge_{name}-*.dist-info/METADATA")
        file.write_text(f"Metadata-Version: 2.1\nName: latentforge-{name}\n")
        if version:
            file.write_text(file.read_text() + f"Version: {version}\n")
    assert run_cli(["plugins", "list", "--requirements"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith("# ")] == ["latentforge-three==1.0"]
    assert len(lines) == 3


def test_letters_outside_the_terminal_encoding_are_escaped(work):
    (work / "mine.py").write_text(MINE_WITH_LETTERS, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "latentforge", "-p", "./mine.py", "list", "models"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert b"\\u03b2-VAE" in done.stdout


MINE_WITH_LETTERS = """
from latentforge import ModelSpec, hookimpl

@hookimpl
def latentforge_models():
    yield ModelSpec(name="mine", summary="A β-VAE", build=print, provides={"encode"},
                    default_loss="reconstruction")
"""
