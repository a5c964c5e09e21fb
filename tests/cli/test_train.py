"""`latentforge train`: its output, its files and its refusals."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import pytest

from latentforge.engine.progress import Progress

from .files import files_in

QUICK = ("--epochs", 1, "--batch-size", 512, "--set", "model.hidden=[16]")


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


def test_train_reports_if_the_last_epoch_is_not_the_best(cli, work):
    line = ("train", "ae", "--epochs", 40, "--lr", 0.02, "--set", "train.patience=1", "--quiet")
    answer = cli(*line, "--set", "model.hidden=[64]", "--run", "a")
    best = json.loads(Path("a/run.json").read_text())["best"]["epoch"]
    assert (
        f"these metrics are from the last epoch; --checkpoint best uses epoch {best}" in answer.out
    )
