"""The command itself, plugins on the command line, and how a command ends."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from latentforge.cli.app import run

QUICK = ("--epochs", 1, "--batch-size", 512, "--set", "model.hidden=[16]")

QUICK_CNN = ("--epochs", 1, "--batch-size", 512)

LINEAR = """
from dataclasses import dataclass

from latentforge import CallbackSpec, ModelSpec, Size, hookimpl


@dataclass(frozen=True)
class NoteConfig:
    every: Size = 1


class Note:
    def __init__(self, config):
        self.every = config.every

    def attach(self, engines):
        from ignite.engine import Events

        event = Events.ITERATION_COMPLETED(every=self.every)
        engines.trainer.add_event_handler(event, lambda engine: engines.log("note", 1.0))


@hookimpl
def latentforge_callbacks():
    yield CallbackSpec(name="note", summary="Notes steps", build=Note, config=NoteConfig)
"""


@pytest.fixture
def plugin(work, linear_classifier):
    (work / "mine.py").write_text(LINEAR + linear_classifier("linear"))
    yield "./mine.py"
    sys.modules.pop("mine", None)


# ---------------------------------------------------------------- the command itself


def test_no_command_shows_the_help(cli):
    answer = cli()
    assert answer.code == 2
    assert "Usage: latentforge" in answer.err
    for command in ("train", "evaluate", "explore", "plugins", "data", "demo"):
        assert f"\n  {command} " in answer.err


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_exits_with_zero(cli, flag):
    assert cli(flag).code == 0
    assert cli("train", flag).code == 0
    assert cli("plugins", "list", flag).code == 0


def test_version_is_the_package_version(cli, process):
    import latentforge

    said = f"latentforge {latentforge.__version__}\n"
    assert cli("--version").out == said
    assert process("--version").out == said
    assert process("-p", "no:mnist", "--version").out == said


@pytest.mark.parametrize(
    "line", ["train ae --epoch 3", "evaluate", "train ae cnn", "trian", "plugins lst"]
)
def test_refused_command_line_prints_json_with_the_json_option(cli, line):
    answer = cli(*line.split(), "--json")
    assert answer.code == answer.json["exit_code"] == 2
    assert answer.json["status"] == "failed"
    assert answer.err


# ---------------------------------------------------------------- plugins on the command line


def test_plugin_file_is_loaded_for_every_command(cli, plugin):
    listed = cli("-p", plugin, "list", "models", "--json").json["models"]
    mine = {c["name"]: c["plugin"] for c in listed}
    assert mine["linear"] == "mine"
    assert "(mine/linear)" in cli("-p", plugin, "list").out
    said = cli("-p", plugin, "train", "linear", *QUICK_CNN, "--json").json
    assert said["run"] == "runs/linear-digits-1"
    again = cli("-p", plugin, "evaluate", said["run"], "--measure", "accuracy", "--json").json
    assert again["metrics"]["accuracy"] == pytest.approx(said["metrics"]["test"]["accuracy"])


def test_module_can_be_a_plugin(cli, plugin):
    assert "linear" in cli("-p", "mine", "list", "models").out


def test_callback_is_enabled_by_name(cli, plugin):
    answer = cli(
        *("-p", plugin, "train", "linear", *QUICK_CNN, "--callback", "note", "--run", "r"),
        *("--set", "callbacks.note.every=2"),
    )
    assert answer.code == 0
    config = json.loads(Path("r/run.json").read_text())["config"]
    assert config["callbacks"] == [{"name": "mine/note", "every": 2}]


def test_evaluate_needs_no_callbacks_of_the_training(cli, plugin):
    cli("-p", plugin, "train", "ae", *QUICK, "--callback", "note", "--run", "r")
    answer = cli("evaluate", "r", "--json")
    assert answer.code == 0
    assert answer.json["metrics"]["recon"] > 0


def test_disabled_plugin_offers_no_components(cli):
    listed = cli("-p", "no:autoencoder", "list", "models", "--json").json["models"]
    names = {c["name"] for c in listed}
    assert "ae" not in names
    assert "cnn-classifier" in names
    plugins = cli("-p", "no:autoencoder", "plugins", "list", "--json").json["plugins"]
    status = {plugin["name"]: plugin["status"] for plugin in plugins}
    assert status["autoencoder"] == "disabled"
    refused = cli("-p", "no:autoencoder", "train", "ae")
    assert refused.code == 3
    assert "did you mean" not in refused.err  # vae is similar, but is not what was meant
    assert "disabled by -p no:autoencoder" in refused.err
    refused = cli("-p", "no:reconstruction", "train", "ae")
    assert refused.code == 3
    assert "disabled by -p no:reconstruction" in refused.err


def test_environment_variable_limits_the_loaded_plugins(cli, monkeypatch):
    monkeypatch.setenv("LATENTFORGE_PLUGINS", "digits, autoencoder")
    said = cli("list", "--json").json
    assert [c["name"] for c in said["models"]] == ["ae"]
    assert said["losses"] == []
    refused = cli("train", "cnn-classifier")
    assert refused.code == 3
    assert "LATENTFORGE_PLUGINS" in refused.err


def test_broken_plugin_gives_one_warning_and_other_components_work(cli, work, linear_classifier):
    typo = "\n@hookimpl\ndef latentforge_modles():\n    return []\n"
    (work / "half.py").write_text(LINEAR + linear_classifier("linear") + typo)
    answer = cli("-p", "./half.py", "list", "models", "--json")
    assert answer.code == 0
    assert "linear" in {c["name"] for c in answer.json["models"]}
    (line,) = answer.err.splitlines()
    assert line.startswith("warning: plugin half: ")
    assert "latentforge_modles" in line
    assert "latentforge_models" in line


# ---------------------------------------------------------------- how a command ends


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX pipes")
def test_reader_that_closes_the_pipe_ends_the_command_quietly(cli, work, monkeypatch, capsys):
    """As in `latentforge list models | head -0`."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert run(["list", "models"]) == 1
    assert capsys.readouterr().err == ""


def test_ctrl_c_in_a_command_is_reported_with_exit_code_130(cli, work):
    (work / "slow.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    answer = cli("-p", "./slow.py", "list", "models", "--json")
    assert (answer.code, answer.err) == (130, "error: interrupted\n")
    assert answer.json["exit_code"] == 130


def test_unexpected_error_is_reported_as_an_error_in_latentforge(cli, runs, monkeypatch):
    def fail(path, pattern):
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(Path, "glob", fail)
    answer = cli("runs", "runs", "--json")
    assert answer.code == answer.json["exit_code"] == 1
    assert "an error in LatentForge itself: ZeroDivisionError: a fault" in answer.err
    assert "try: LATENTFORGE_DEBUG=1 shows the traceback; please report it" in answer.err
