"""Every command as a user types it: its output, its files and its exit code."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from latentforge.cli.app import run
from latentforge.engine.progress import Progress
from latentforge.specs import KINDS

QUICK = ("--epochs", 1, "--batch-size", 512, "--set", "model.hidden=[16]")
QUICK_CNN = ("--epochs", 1, "--batch-size", 512)
PNG = b"\x89PNG\r\n\x1a\n"

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


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def is_png(path: str | Path) -> bool:
    return Path(path).read_bytes().startswith(PNG)


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


# ---------------------------------------------------------------- train


def test_train_prints_a_summary(cli):
    answer = cli("train", "ae", *QUICK)
    assert answer.code == 0
    first, header, *rows = answer.out.splitlines()
    number = r"[\d,.]+"
    assert re.fullmatch(
        rf"runs/ae-digits-1: done, 3 steps in {number} s \({number} images/s, without start-up and "
        rf"evaluation\); the command took {number} s",
        first,
    )
    assert header.split() == ["train", "validation", "test"]
    metrics = {row.split()[0]: row.split()[1:] for row in rows[:-4]}
    assert (len(metrics["recon"]), len(metrics["mse_per_pixel"])) == (3, 2)
    assert rows[-4:] == [
        "explore: latentforge explore reconstruct runs/ae-digits-1",
        "check: latentforge doctor runs/ae-digits-1",
        "report: latentforge report runs/ae-digits-1",
        "watch: tensorboard --logdir runs/ae-digits-1",
    ]
    for line in rows[-4:-1]:
        assert cli(*line.split()[2:], *(["--quiet"] if "explore" in line else [])).code == 0
    assert "epoch 1/1  train recon" in answer.err


def test_train_json_goes_to_stdout_and_progress_to_stderr(cli):
    answer = cli("train", "ae", *QUICK, "--json")
    assert answer.code == 0
    said = answer.json
    assert list(said) == [
        "run",
        "status",
        "epochs",
        "steps",
        "seconds",
        "images_per_second",
        "metrics",
    ]
    assert (said["run"], said["status"]) == ("runs/ae-digits-1", "done")
    assert (said["epochs"], said["steps"]) == (1, 3)
    # seconds are rounded to a millisecond, and three steps may take ten
    slowest, fastest = (1294 / (said["seconds"] + d) for d in (0.0006, -0.0006))
    assert slowest <= said["images_per_second"] <= fastest
    assert set(said["metrics"]) == {"train", "validation", "test"}
    assert set(said["metrics"]["test"]) == {"bce_per_pixel", "loss", "mse_per_pixel", "recon"}
    assert "epoch 1/1" in answer.err


def test_quiet_training_prints_no_progress(cli):
    assert cli("train", "ae", *QUICK, "--quiet").err == ""


def test_training_writes_a_run_folder(cli, work):
    cli("train", "ae", *QUICK, "--run", "here")
    left = files_in(work / "here")
    assert {"run.json", "metrics.jsonl", "checkpoints/LATEST", "checkpoints/BEST"} <= left
    assert any(name.startswith("events.out.tfevents.") for name in left)
    assert (work / "here" / "checkpoints" / "LATEST").read_text().split()[0] == "step-00000003"
    manifest = json.loads((work / "here" / "run.json").read_text())
    assert (manifest["status"], manifest["epochs"], manifest["error"]) == ("done", 1, "")


def test_options_are_stored_in_the_run(cli):
    cli(
        *("train", "ae", "--run", "r", "--data", "digits", "--loss", "reconstruction", "--lr"),
        *("1e-2", "--seed", 5, "--device", "cpu", "--set", "model.hidden=[8]", "--epochs", 2),
        *("--batch-size", 600, "--set", "loss.likelihood=gaussian", "--set", "data.size=12"),
        *("--set", "train.evaluate_every=1", "--set", "train.optimizer=sgd"),
    )
    manifest = json.loads(Path("r/run.json").read_text())
    config = manifest["config"]
    assert config["model"]["hidden"] == [8]
    loss = {"name": "reconstruction", "likelihood": "gaussian", "sigma": 1.0, "learn_sigma": False}
    dispersion = {"dispersion": 1.0, "learn_dispersion": True, "dispersion_of": "all"}
    assert config["loss"] == {**loss, **dispersion}
    assert (config["data"]["size"], manifest["data"]["shape"]) == (12, [1, 12, 12])
    train = config["train"]
    assert (train["lr"], train["seed"], train["optimizer"]) == (0.01, 5, "sgd")
    assert (train["epochs"], train["batch_size"], train["device"]) == (2, 600, "cpu")
    lines = [json.loads(line) for line in Path("r/metrics.jsonl").read_text().splitlines()]
    assert ["test" in line for line in lines] == [True, True]


def test_without_a_validation_split_there_is_no_best_checkpoint(cli):
    said = cli("train", "ae", *QUICK, "--set", "data.validation=0", "--run", "r", "--json").json
    assert set(said["metrics"]) == {"train", "test"}
    assert not Path("r/checkpoints/BEST").exists()
    refused = cli("evaluate", "r", "--checkpoint", "best", "--json")
    assert (refused.code, refused.json["exit_code"]) == (4, 4)
    assert (
        "it exists only with a validation split and after the first epoch"
        in refused.json["details"]
    )


def test_options_override_the_config_file(cli, work):
    (work / "run.toml").write_text(
        '[model]\nname = "ae"\nhidden = [8]\n[train]\nepochs = 9\nbatch_size = 999\n'
    )
    answer = cli("train", "--config", "run.toml", "--epochs", 1, "--run", "r", "--json", "--quiet")
    assert answer.json["epochs"] == 1
    config = json.loads(Path("r/run.json").read_text())["config"]
    assert (config["model"]["hidden"], config["train"]["batch_size"]) == ([8], 999)


def test_findings_record_the_checkpoint_of_the_other_run(cli, runs):
    shutil.copytree("runs/ae", "runs/second")
    answer = cli("explore", "traverse", "runs/ae", "--with", "other=runs/second", "--json")
    about = json.loads((Path(answer.json["out"]) / "findings.json").read_text())
    assert about["roles"] == {"other": "runs/second"}
    latest, *_ = Path("runs/second/checkpoints/LATEST").read_text().splitlines()
    assert about["role_checkpoints"] == {"other": latest}


def test_train_refuses_an_explorer_preset_and_names_its_command(cli, runs):
    refused = cli("train", "--preset", "inpaint-lower-half")
    assert refused.code == 2
    said, remedy = refused.err.splitlines()
    assert said.startswith("error: preset 'inpaint-lower-half' contains options of an explorer")
    assert remedy == "  try: latentforge explore guided RUN --preset inpaint-lower-half"
    words = remedy.split("latentforge ")[1].replace("RUN", "runs/ae").split()
    assert cli(*words, "--set", "n=1", "--set", "steps=1", "--quiet").code == 0
    Path("mine.toml").write_text('[explore]\nname = "sample"\n')
    for line in ("train --config mine.toml --set model.name=ae", "config check mine.toml"):
        refused = cli(*line.split())
        assert refused.code == 2
        assert "mine.toml contains options of an explorer" in refused.err
        assert "try: latentforge explore sample RUN --set" in refused.err


EXPLORE_PRESET = """
from pathlib import Path
from latentforge import PresetSpec, hookimpl

@hookimpl
def latentforge_presets():
    yield PresetSpec(name="draw", summary="s", path=Path(__file__).parent / "draw.toml")
"""


def test_explorer_preset_checks_its_required_plugins(cli, runs, monkeypatch):
    monkeypatch.syspath_prepend(Path.cwd())
    Path("mine.py").write_text(EXPLORE_PRESET)
    wanted = 'requires_plugins = ["latentforge-swirl>=0.2"]\n'
    Path("draw.toml").write_text(wanted + '[explore]\nname = "sample"\nn = 3\n')
    words = ["-p", "./mine.py", "explore", "sample", "runs/ae", "--preset", "draw", "--quiet"]
    refused = cli(*words)
    assert refused.code == 3
    assert "latentforge-swirl>=0.2: not installed" in refused.err
    Path("odd-1.dist-info").mkdir()
    Path("odd-1.dist-info/METADATA").write_bytes(b"\xff")
    Path("draw.toml").write_text('requires_plugins = ["odd"]\n[explore]\nname = "sample"\n')
    assert "odd: its version cannot be read" in cli(*words).err
    wanted = """requires_plugins = ["latentforge", "none; python_version < '3'"]\n"""
    Path("draw.toml").write_text(wanted + '[explore]\nname = "sample"\n')
    assert cli(*words).code == 0


def test_data_option_overrides_the_dataset_of_a_preset(cli):
    answer = cli("train", "--preset", "vanilla-ae", "--data", "digits", "--epochs", 1, "--json")
    assert answer.json["run"] == "runs/ae-digits-1"
    config = json.loads(Path("runs/ae-digits-1/run.json").read_text())["config"]
    assert (config["model"]["hidden"], config["model"]["latent_dim"]) == ([128], 16)


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("train", "none"),
        ("train ae --preset vanilla-ae", "ae, vanilla-ae"),
        ("train ae --config x.toml", "ae, x.toml"),
        ("train ae --config x.toml --preset vanilla-ae", "ae, x.toml, vanilla-ae"),
    ],
)
def test_train_needs_exactly_one_of_model_config_and_preset(cli, work, line, given):
    answer = cli(*line.split())
    assert answer.code == 2
    assert "exactly one of" in answer.err
    assert f"given: {given}\n" in answer.err
    assert list(work.iterdir()) == []


def test_progress_shows_no_loss_before_one_is_known():
    """Before the first line no loss has been read from the device; `loss nan` would mislead."""
    stream = io.StringIO()
    progress = Progress(stream, epochs=3, steps=20, batch_size=64)
    progress.last_shown -= 60
    progress.started -= 60
    progress.tick(1)
    assert "images/s" in stream.getvalue()
    assert "nan" not in stream.getvalue()
    progress.loss = 2.5
    progress.last_shown -= 60
    progress.tick(2)
    assert "loss 2.5" in stream.getvalue()


# ---------------------------------------------------------------- evaluate


def test_evaluate_prints_metrics_with_the_protocol(cli, runs):
    answer = cli("evaluate", "runs/ae")
    assert answer.code == 0
    first, *rows = answer.out.splitlines()
    assert first == "runs/ae, test split, checkpoint step-00000033"
    assert [row.split()[0] for row in rows[:4]] == [
        "bce_per_pixel",
        "loss",
        "mse_per_pixel",
        "recon",
    ]
    assert "nats per image, summed over pixels" in answer.out
    assert answer.err == ""


def test_evaluate_json_has_the_test_metrics_of_the_training(cli, runs):
    said = cli("evaluate", "runs/ae", "--json").json
    assert {"run", "split", "checkpoint", "metrics"} <= set(said)
    assert (said["run"], said["split"], said["checkpoint"]) == ("runs/ae", "test", "step-00000033")
    trained = json.loads((runs / "ae" / "run.json").read_text())["metrics"]["test"]
    assert said["metrics"] == pytest.approx(trained, rel=1e-5)
    assert set(said["protocol"]) == set(said["metrics"])


def test_evaluate_selects_split_checkpoint_and_metrics(cli, runs):
    said = cli(
        *("evaluate", "runs/ae", "--split", "validation", "--checkpoint", "best"),
        *("--measure", "recon", "--measure", "mse_per_pixel", "--json"),
    ).json
    assert said["split"] == "validation"
    assert list(said["metrics"]) == ["recon", "mse_per_pixel"]
    best = (runs / "ae" / "checkpoints" / "BEST").read_text().split()[0]
    assert said["checkpoint"] == best
    lines = [json.loads(s) for s in (runs / "ae" / "metrics.jsonl").read_text().splitlines()]
    least = min(line["validation"]["loss"] for line in lines)
    assert said["metrics"]["recon"] == pytest.approx(least, rel=1e-5)


def test_evaluate_warns_if_the_metrics_cannot_be_saved(cli, runs):
    (runs / "ae" / "evaluations.jsonl").mkdir()  # not writable as a file, even by root
    answer = cli("evaluate", "runs/ae", "--json")
    assert answer.code == 0
    assert answer.json["metrics"]["recon"] > 0
    assert "warning: the metrics cannot be saved: cannot write to" in answer.err


# ---------------------------------------------------------------- explore


def test_explore_writes_an_image_and_lists_it_in_json(cli, runs):
    answer = cli("explore", "interpolate", "runs/ae", "--set", "classes=[3, 8]", "--json")
    assert answer.code == 0
    said = answer.json
    assert set(said) == {"explorer", "weights", "out", "files", "metrics", "protocol", "notes"}
    assert (said["explorer"], said["out"]) == ("interpolate", "runs/ae/explore/interpolate")
    there = {name for name in files_in(Path(said["out"])) if not name.startswith("events.out.")}
    assert {Path(file).name for file in said["files"]} == there
    (picture,) = (file for file in said["files"] if file.endswith(".png"))
    assert is_png(picture)
    findings = json.loads(Path(said["out"], "findings.json").read_text())
    assert findings["options"]["classes"] == [3, 8]
    assert findings["metrics"] == said["metrics"]
    with np.load(Path(said["out"], "codes.npz")) as codes:
        assert codes["z_linear"].shape == (10, 4)
        assert codes["x_spherical"].shape == (10, 1, 28, 28)


def test_explore_prints_the_files(cli, runs):
    answer = cli("explore", "interpolate", "runs/ae", "--set", "steps=3", "--set", "path=linear")
    assert answer.code == 0
    listed = [line for line in answer.out.splitlines() if line.startswith("runs/ae/explore/")]
    assert len(listed) == 3
    assert all(Path(line).is_file() for line in listed)


def test_second_explore_overwrites_nothing(cli, runs):
    first = cli("explore", "interpolate", "runs/ae", "--json").json
    before = {file: Path(file).read_bytes() for file in first["files"]}
    second = cli("explore", "interpolate", "runs/ae", "--json").json
    assert second["out"] == "runs/ae/explore/interpolate-2"
    assert {file: Path(file).read_bytes() for file in first["files"]} == before


def test_out_must_be_a_new_or_empty_folder(cli, runs):
    assert cli("explore", "interpolate", "runs/ae", "--out", "new/one").code == 0
    assert "interpolation.png" in files_in(Path("new/one"))
    Path("notes.txt").write_text("mine")
    for taken in ("new/one", "notes.txt"):
        answer = cli("explore", "interpolate", "runs/ae", "--out", taken)
        assert answer.code == 2
        assert f"{taken} is " in answer.err
        assert "choose another folder" in answer.err
    assert Path("notes.txt").read_text() == "mine"


def test_explore_twice_the_same_class_uses_two_images(cli, runs):
    out = cli("explore", "interpolate", "runs/ae", "--set", "classes=[7, 7]", "--json").json["out"]
    with np.load(Path(out, "codes.npz")) as codes:
        first, second = codes["index"]
    assert first != second  # two images of one class, not one image twice


# ---------------------------------------------------------------- lists


def test_runs_are_listed_with_status_and_metrics(cli, runs):
    answer = cli("runs")
    header, *rows = answer.out.splitlines()
    assert header.split() == ["RUN", "STATUS", "MODEL", "DATA", "EPOCHS", "METRICS"]
    assert [row.split()[:6] for row in rows] == [
        ["runs/ae", "done", "ae", "digits", "3", "test"],
        ["runs/cnn", "done", "cnn-classifier", "digits", "1", "test"],
    ]
    said = cli("runs", "runs", "--json").json["runs"]
    assert [run["run"] for run in said] == ["runs/ae", "runs/cnn"]
    assert said[0]["model"] == "ae"
    assert "recon" in said[0]["metrics"]["test"]


def test_broken_run_is_listed_and_hides_no_other_run(cli, runs):
    for name, content in (("a", "{"), ("b", '{"x": 1}'), ("c", None), ("z", None)):
        shutil.copytree(runs / "ae", runs / name)
        if content:
            (runs / name / "run.json").write_text(content)
    manifest = json.loads((runs / "c" / "run.json").read_text())
    (runs / "c" / "run.json").write_text(json.dumps({**manifest, "metrics": 3, "config": []}))
    said = cli("runs", "--json").json["runs"]
    status = {Path(run["run"]).name: run["status"] for run in said}
    assert (status["ae"], status["cnn"], status["z"]) == ("done", "done", "done")
    assert all(status[name].startswith("unreadable: ") for name in "abc")
    assert cli("runs").code == 0


def test_folder_without_runs_is_reported(cli, work):
    (work / "empty").mkdir()
    assert cli("runs", "empty").out == "no runs in empty\n"
    assert cli("runs", "empty", "--json").json == {"runs": []}
    missing = cli("runs", "nowhere")
    assert missing.code == 4
    assert "no folder nowhere" in missing.err


def test_components_are_listed_by_kind(cli):
    said = cli("list", "--json").json
    assert list(said) == list(KINDS)
    assert {"ae", "cnn-classifier"} <= {c["name"] for c in said["models"]}
    assert {"digits", "mnist"} <= {c["name"] for c in said["datasets"]}
    first = said["models"][0]
    assert set(first) == {"kind", "name", "summary", "plugin", "distribution", "version"}
    text = cli("list").out
    assert all(f"{kind}\n" in text for kind in KINDS)
    assert "(none)" in text


@pytest.mark.parametrize("word", ["models", "model"])
def test_kind_can_be_plural_or_singular(cli, word):
    assert list(cli("list", word, "--json").json) == ["models"]
    assert "cnn-classifier" in cli("list", word).out


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.singular)
def test_show_describes_every_component(cli, kind):
    for component in cli("list", kind.plural, "--json").json[kind.plural]:
        said = cli("show", kind.singular, component["name"], "--json").json
        assert said["summary"] == component["summary"]
        assert isinstance(said["options"], list)
        text = cli("show", kind.plural, component["name"])
        assert text.code == 0
        assert text.out.startswith(f"{kind.singular} {component['name']}: {component['summary']}")
        for option in said["options"]:
            assert option["name"] in text.out
            assert option["type"] in text.out


def test_show_model_lists_options_with_types_and_defaults(cli):
    lines = cli("show", "model", "ae").out.splitlines()
    assert lines[-5].split() == ["hidden", "list", "of", "int", ">", "0", "[512,", "128]"]
    assert lines[-4].split() == ["latent_dim", "int", ">", "0", "16"]
    assert "provides:" in "".join(lines)


def test_show_lists_the_roles_of_a_component_as_with_options(cli):
    one = "--with other=RUN (optional; needs decode, encode)"
    other = "--with classifier=RUN (optional; needs classify)"
    said = cli("show", "explorer", "interpolate", "--json").json
    assert (said["takes"], said["labels"]) == (f"{one}, {other}", False)
    text = cli("show", "explorer", "interpolate").out
    assert f"takes:      {one}, {other}\n" in text
    assert "labels:     no\n" in text
    assert cli("show", "explorer", "arithmetic", "--json").json["labels"] is True
    assert cli("show", "objective", "class", "--json").json["takes"] == (
        "--with classifier=RUN (needs classify)"
    )
    assert "takes" not in cli("show", "explorer", "manifold", "--json").json


def test_show_explorer_names_the_default_objective(cli):
    said = cli("show", "explorer", "guided", "--json").json["objective"]
    assert said.startswith("class unless --set objective=NAME")
    assert said.endswith("(latentforge show objective class)")
    assert said in cli("show", "explorer", "guided").out
    assert "objective" not in cli("show", "explorer", "sample", "--json").json


def test_plugins_are_listed_with_their_components(cli):
    said = cli("plugins", "list", "--json").json["plugins"]
    found = {plugin["name"]: plugin for plugin in said}
    assert found["autoencoder"]["offers"] == {"models": ["ae"]}
    assert {plugin["status"] for plugin in said if plugin["distribution"] == "latentforge"} == {
        "ok"
    }
    header, *rows = cli("plugins", "list").out.splitlines()
    assert header.split() == ["NAME", "DISTRIBUTION", "VERSION", "STATUS", "IMPORT", "OFFERS"]
    assert len(rows) == len(said)


def test_plugins_show_describes_one_plugin(cli):
    said = cli("plugins", "show", "mnist", "--json").json
    assert (said["name"], said["status"], said["problems"]) == ("mnist", "ok", [])
    text = cli("plugins", "show", "mnist").out
    assert "latentforge_plugins.mnist" in text
    assert "datasets mnist" in text
    columns = {line.index(line.split(None, 1)[1]) for line in text.splitlines()}
    assert len(columns) == 1  # one table, not two of different widths


# ---------------------------------------------------------------- config and data


def test_config_check_prints_a_complete_valid_config(cli, work):
    (work / "a.toml").write_text('[model]\nname = "ae"\n[train]\nlr = 0.01\n')
    answer = cli("config", "check", "a.toml")
    assert answer.code == 0
    assert answer.out.startswith("# a.toml is valid\n")
    (work / "b.toml").write_text(answer.out)
    first, again = (cli("config", "check", f, "--json").json for f in ("a.toml", "b.toml"))
    assert first["config"] == again["config"]
    assert first["file"] == "a.toml"
    written = tomllib.loads(answer.out)
    assert written["train"]["lr"] == 0.01
    assert written["data"]["name"] == "digits"


def test_data_show_json_has_counts_shape_range_and_an_image(cli):
    said = cli("data", "show", "digits", "--json").json
    assert said["images"] == {"train": 1294, "validation": 144, "test": 359}
    assert (said["shape"], said["classes"]) == ([1, 28, 28], list("0123456789"))
    assert said["range"] == [0.0, 255.0]
    assert said["picture"] == "data-digits-1.png"
    assert is_png("data-digits-1.png")


def test_data_show_prints_the_shape_and_overwrites_no_image(cli):
    assert cli("data", "show", "digits", "--out", "mine.png").code == 0
    before = Path("mine.png").read_bytes()
    refused = cli("data", "show", "digits", "--out", "mine.png")
    assert refused.code == 2
    assert "will not be overwritten" in refused.err
    assert Path("mine.png").read_bytes() == before
    answer = cli("data", "show", "digits", "--set", "size=16")
    assert "1, 16, 16" in answer.out
    assert "data-digits-1.png" in answer.out
    assert is_png("data-digits-1.png")


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


def test_data_show_accepts_keys_with_or_without_the_section(cli):
    plain = cli("data", "show", "digits", "--set", "size=12", "--json").json
    full = cli("data", "show", "digits", "--set", "data.size=12", "--json").json
    assert plain["shape"] == full["shape"] == [1, 12, 12]


def test_train_reports_if_the_last_epoch_is_not_the_best(cli, work):
    line = ("train", "ae", "--epochs", 40, "--lr", 0.02, "--set", "train.patience=1", "--quiet")
    answer = cli(*line, "--set", "model.hidden=[64]", "--run", "a")
    best = json.loads(Path("a/run.json").read_text())["best"]["epoch"]
    assert (
        f"these metrics are from the last epoch; --checkpoint best uses epoch {best}" in answer.out
    )


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
