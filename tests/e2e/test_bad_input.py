"""User errors: the message, the exit code, and that no files are left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import sys

import numpy as np
import pytest
import torch

from latentforge.runs.checkpoint import CheckpointStore

SMALL = ("--set", "model.hidden=[16]", "--batch-size", 512, "--epochs", 1)


@pytest.fixture
def refused(cli, work):
    """Runs a command line that must be refused; returns its stderr.

    Checks that there is no traceback and no stdout, and that the working folder is unchanged.
    """

    def call(code: int, *arguments: object) -> str:
        before = {path: path.stat().st_mtime_ns for path in work.rglob("*")}
        answer = cli(*arguments)
        assert (answer.code, answer.out) == (code, "")
        assert "Traceback" not in answer.err
        assert "in LatentForge itself" not in answer.err
        assert {path: path.stat().st_mtime_ns for path in work.rglob("*")} == before
        return answer.err

    return call


# ---------------------------------------------------------------- requests

MISSPELT = [
    ("train cnn-clasifier", "cnn-classifier"),
    ("train --preset vanila-ae", "vanilla-ae"),
    ("-p no:autoencodr train ae", "autoencoder"),
    ("plugins show autoencodr", "autoencoder"),
    ("explore interpolat runs/ae", "interpolate"),
    ("explore interpolate runs/ae --set step=3", "steps"),
    ("explore interpolate runs/ae --set path=sperical", "spherical"),
    ("explore interpolate runs/ae --set split=validatoin", "validation"),
    ("evaluate runs/ae --measure mse_per_pixl", "mse_per_pixel"),
    ("evaluate runs/ae --measure fid --with clasifier=runs/cnn", "classifier"),
    ("evaluate runs/ae --split validatoin", "validation"),
    ("evaluate runs/ae --set recn.x=1", "recon"),
    ("show modle ae", "model"),
    ("show model cnn-clasifier", "cnn-classifier"),
    ("list modles", "models"),
    ("data show digit", "digits"),
    ("data fetch mnits", "mnist"),
    ("data show digits --set sise=3", "size"),
    ("data show digits --set validaton=0.5", "validation"),
    ("encode runs/ae --out c.npz --split tset", "test"),
    ("encode runs/ae --out c.npz --data digts", "digits"),
    ("export runs/ae --part encodr", "encoder"),
    ("export runs/ae --part encoder --format onx", "onnx"),
]
INVALID = [
    # unknown commands and options
    ("trian ae", "Did you mean 'train'?"),
    ("plugin list", "Did you mean 'plugins'?"),
    ("plugins lst", "Did you mean 'list'?"),
    ("train ae --epoch 3", "--epochs"),
    # unknown names: where the valid ones are listed
    ("train zzz", "latentforge list models"),
    ("train ae --data zzz", "latentforge list datasets"),
    ("train ae --callback zzz", "latentforge list callbacks"),
    ("train --preset zzz", "latentforge list presets"),
    ("explore zzz runs/ae", "latentforge list explorers"),
    ("evaluate runs/ae --measure zzz", "latentforge list measures"),
    ("plugins show zzz", "latentforge plugins list"),
    ("evaluate runs/ae --split zzz", "train, validation, test"),
    # training
    ("train --config none.toml", "no config file at none.toml"),
    ("train vae --data ./pics", "--data folder --set data.root=./pics"),
    ("train vae --data pics/", "--data folder --set data.root=pics/"),
    ("train vae --data grey.npz", "--data arrays --set data.path=grey.npz"),
    ("train ae --set train.schedule=cosine", "must be a table; write train.schedule.name=..."),
    *(
        (f"train ae --set train.optimizer_options={{{options}}}", "train.optimizer_options")
        for options in ("momentm=0.9", "betas=[0.9]", "eps=-1", "betas=[0.9,2.0]")
    ),
    ("train vae --set model.encoder=[0]", "model.encoder[0]"),
    ("train vae --set model.latent_dim=0", "model.latent_dim"),
    ("train conv-vae --set model.channels=[8]", "model.channels"),
    ("train mlp-classifier --set model.layers=-1", "model.layers"),
    ("train ae --set model.latent_activation=sigmoid", "model.latent_activation"),
    # roles
    ("explore manifold runs/ae --with classifier=runs/cnn", "role 'classifier'"),
    ("evaluate runs/ae --with classifier=runs/cnn", "role 'classifier'"),
    (
        "evaluate runs/ae --with classifier=runs/cnn --with classifier=runs/ae",
        "classifier is given twice",
    ),
    *(
        (f"evaluate runs/ae --with {role}", "write ROLE=RUN")
        for role in ("classifier", "=runs/cnn", "classifier=")
    ),
    # options of explorers
    ("explore corruption runs/ae --set images=[359]", "no image 359: this split has 359"),
    ("explore corruption runs/ae --set steps=1", "steps: must be greater than or equal to 2"),
    ("explore corruption runs/ae --set n=0", "n: must be greater than 0"),
    ("explore reconstruct runs/ae --set n=0", "n: must be greater than or equal to 1"),
    ("explore activations runs/cnn --set features=0", "features: must be"),
    *(
        (f"explore interpolate runs/ae --set {option}", said)
        for option, said in (
            ("images=[0,99999]", "no image 99999"),
            ("classes=[3,11]", "class 11"),
            ("images=[0]", "interpolate.images"),
            ("images=[-1,2]", "interpolate.images[0]: must be greater than or equal to 0"),
            ("steps=1", "interpolate.steps: must be greater than or equal to 2"),
            ("steps", "write key=VALUE"),
            ("steps.a=1", "interpolate.steps"),
        )
    ),
    # data, reports and plugins
    ("data fetch digits", "has no files to download"),
    ("data show digits --out digits.jpg", "only PNG is supported\n  try: --out digits.png"),
    ("report runs/ae runs/../runs/ae", "a run is given more than once"),
    ("plugins new Swirl", "lower-case letters"),
    ("plugins new ../swirl", "lower-case letters"),
    ("plugins new none", "the name 'none' is already used in the generated code"),
    ("plugins new vae", "there is a built-in model 'vae'"),
    ("plugins check", "only built-in plugins are installed\n  try: latentforge plugins check"),
    ("sweep ae --grid train.seed=[1] --retry", "--retry requires --resume"),
    ("plugins new swirl --kind modle", "did you mean 'model'"),
    # encode, decode and export
    ("encode runs/cnn --out c.npz", "encoding needs encode; model 'cnn-classifier' provides"),
    ("encode runs/ae --out c.csv", "c.csv must end in .parquet or .npz"),
    ("encode runs/ae --out codes.npz", "codes.npz already exists and will not be overwritten"),
    ("encode runs/ae --out c.npz --set size=8", "(1, 28, 28), this data has shape (1, 8, 8)"),
    ("encode runs/ae --out c.npz --data digits --set size", "write key=VALUE"),
    ("decode runs/cnn codes.npz --out out", "decoding needs decode"),
    ("decode runs/ae runs --out out", "runs must be an .npz or .parquet file"),
    ("decode runs/ae codes.npz --out runs", "runs is not empty and will not be overwritten"),
    ("decode runs/ae codes.npz --out codes.npz", "codes.npz is a file"),
    (
        "export runs/cnn --part encoder",
        "the encoder needs encode; model 'cnn-classifier' provides",
    ),
    ("export runs/cnn --part decoder", "the decoder needs decode"),
    ("export runs/ae --part classifier", "the classifier needs classify; model 'ae' provides"),
    (
        "export runs/ae --part encoder --format safetensors",
        "weights of the whole model\n  try: remove",
    ),
    ("export runs/ae --format torchscript", "choose from onnx, safetensors"),
    ("export runs/ae", "the part of the model is missing"),
    ("export runs/ae --part encoder --out runs/ae", "runs/ae is not empty"),
]


@pytest.mark.parametrize(
    ("line", "said"), [*((line, f"did you mean {meant!r}?") for line, meant in MISSPELT), *INVALID]
)
def test_invalid_request_is_refused_with_a_hint(refused, runs, work, line, said):
    np.savez(work / "codes.npz", z=np.zeros((6, 4), np.float32))
    assert said in refused(2, *line.split())


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("encode runs/ae --out c.npz --checkpoint none", 4, "no checkpoint"),
        ("encode runs/none --out c.npz", 4, "no run at runs/none"),
        ("encode runs/ae --out codes.npz/c.npz", 1, "cannot write to codes.npz/c.npz: "),
        ("decode runs/ae none.npz --out out", 4, "no codes at none.npz"),
        ("report runs/ae --out runs/ae/run.json/report.html", 1, "error: cannot"),
        ("explore interpolate runs/ae --out runs/ae/run.json/a", 1, "run.json is a file"),
        ("explore interpolate runs/ae --out runs/ae/run.json/a/b", 1, "run.json is a file"),
        *(
            (f"evaluate {path}", 4, f"no run at {path}")
            for path in ("nowhere", "nowhere/at/all", "runs", ".", "runs/ae/run.json")
        ),
    ],
)
def test_missing_or_unwritable_path_is_named(refused, runs, work, line, code, said):
    np.savez(work / "codes.npz", z=np.zeros((6, 4), np.float32))
    assert said in refused(code, *line.split())


# ---------------------------------------------------------------- values


DEVICE_COMMANDS = (
    *("train ae", "evaluate runs/ae", "explore interpolate runs/ae"),
    "encode runs/ae --out c.npz",
)


@pytest.mark.parametrize("command", DEVICE_COMMANDS)
@pytest.mark.parametrize("device", ["gpu", "CPU", "cuda:x", "meta", "cpu:0:0", ""])
def test_invalid_device_name_is_a_usage_error(refused, runs, command, device):
    text = refused(2, *command.split(), "--device", device)
    assert "auto, cpu, mps, cuda or cuda:N" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is available")
@pytest.mark.parametrize("command", DEVICE_COMMANDS)
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "cuda:999999999999"])
def test_unavailable_device_is_reported(refused, runs, command, device):
    text = refused(4, *command.split(), "--device", device)
    assert f"device {device} is not available" in text
    assert "try: --device auto" in text


@pytest.mark.parametrize("text", ["callbacks = 3", "callbacks = [3]", "[callbacks]\nname = 'x'"])
def test_callbacks_of_the_wrong_type_are_refused(refused, work, text):
    (work / "run.toml").write_text(f"{text}\n[model]\nname = 'ae'\n")
    for more in ((), ("--callback", "x"), ("--set", "callbacks.x.y=1")):
        assert "callbacks" in refused(2, "train", "--config", "run.toml", *more)


# ---------------------------------------------------------------- data


@pytest.mark.parametrize("command", ["train ae --data mnist", "data show mnist"])
def test_missing_data_message_names_the_searched_paths_and_the_fix(refused, work, command):
    text = refused(4, *command.split())
    folder = work.parent / "cache" / "latentforge" / "MNIST" / "raw"
    assert f"not in {folder}" in text
    assert f"looked for {folder / 'train-images-idx3-ubyte'}" in text
    assert "try: latentforge data fetch mnist" in text


# ---------------------------------------------------------------- runs


@pytest.mark.parametrize("command", ["evaluate", "explore interpolate", "report"])
def test_unknown_run_suggests_the_likely_one(refused, runs, command):
    text = refused(4, *command.split(), "runs/cnm")
    assert "no run at runs/cnm" in text
    assert "did you mean 'runs/cnn'?" in text
    assert "latentforge runs runs" in text


def test_damaged_checkpoint_message_names_the_file(refused, runs):
    name = (runs / "ae" / "checkpoints" / "LATEST").read_text().split()[0]
    for weights in (runs / "ae" / "checkpoints").glob("*/model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-1])
    text = refused(1, "evaluate", "runs/ae")
    assert f"checkpoint runs/ae/checkpoints/{name} is damaged: model.safetensors has" in text


def test_evaluate_falls_back_from_a_damaged_checkpoint_with_a_warning(cli, runs):
    latest = CheckpointStore(runs / "ae" / "checkpoints").save("step-2", {"model": {}}, {})
    (latest / "state.json").unlink()
    answer = cli("evaluate", "runs/ae", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["checkpoint"] == "step-00000033"
    assert "checkpoint runs/ae/checkpoints/step-2 is damaged: state.json is missing" in answer.err
    assert "using runs/ae/checkpoints/step-00000033 instead" in answer.err


def test_config_of_a_model_larger_than_its_weights_is_refused_before_the_build(refused, runs):
    path = runs / "ae" / "run.json"
    manifest = json.loads(path.read_text())
    manifest["config"]["model"]["latent_dim"] = 10**12
    path.write_text(json.dumps(manifest))
    text = refused(1, "evaluate", "runs/ae")
    assert "do not fit model 'ae'" in text
    assert "run.json describes" in text


def test_missing_plugin_message_names_the_plugin_and_the_fix(
    cli, refused, runs, work, linear_classifier
):
    text = refused(3, "-p", "no:autoencoder", "evaluate", "runs/ae")
    assert "runs/ae was trained with 'ae' of plugin autoencoder (latentforge 0.1.0)" in text
    assert "disabled by -p no:autoencoder" in text
    assert "pip install" not in text  # it is installed

    (work / "mine.py").write_text(PLUGIN + linear_classifier("trap"))
    assert cli("-p", "./mine.py", "train", "trap", *SMALL[2:], "--run", "r").code == 0
    text = refused(3, "evaluate", "r")
    assert "r was trained with 'mine/trap' of plugin mine" in text
    assert "-p ./mine.py" in text


def test_uninstalled_package_message_names_the_package(refused, runs):
    file = runs / "ae" / "run.json"
    manifest = json.loads(file.read_text())
    manifest["config"]["model"]["name"] = "latentforge-swirl/swirl"
    manifest["plugins"][0] |= {
        "name": "latentforge-swirl/swirl",
        "plugin": "swirl",
        "distribution": "latentforge-swirl",
        "version": "1.2",
    }
    file.write_text(json.dumps(manifest))
    text = refused(3, "evaluate", "runs/ae")
    assert "plugin swirl (latentforge-swirl 1.2)" in text
    assert "try: pip install latentforge-swirl==1.2" in text


# ---------------------------------------------------------------- incompatible choices


def test_explorer_refuses_a_model_without_the_capability(refused, runs):
    text = refused(2, "explore", "interpolate", "runs/cnn")
    assert "explorer 'interpolate' needs decode, encode" in text
    assert "model 'cnn-classifier' provides classify, layers" in text


# ---------------------------------------------------------------- folders


def test_existing_run_file_or_folder_is_not_overwritten(refused, runs, work):
    assert "already contains a run" in refused(2, "train", "ae", "--run", "runs/ae")
    (work / "notes.txt").write_text("mine")
    for taken in ("notes.txt", "runs", "."):
        text = refused(2, "train", "ae", "--run", taken)
        assert "will not be overwritten" in text
        assert "choose another folder" in text


@pytest.mark.skipif(sys.platform != "linux", reason="/proc exists on Linux only")
@pytest.mark.parametrize(
    "command",
    [
        "train ae --run /proc/latentforge",
        "explore interpolate runs/ae --out /proc/latentforge",
        "data show digits --out /proc/latentforge.png",
        "demo --out /proc/latentforge",
    ],
)
def test_unwritable_path_is_named(refused, runs, command):
    assert "cannot write to /proc/latentforge" in refused(1, *command.split())


def test_empty_folder_name_means_the_current_folder(refused, runs, work):
    text = refused(2, "explore", "interpolate", "runs/ae", "--out", "")
    assert f"{work} is not empty" in text


def test_option_of_another_objective_names_that_objective(refused, runs):
    options = ("--set", "objective=inpaint", "--set", "target=3", "--set", "steps=5")
    text = refused(2, "explore", "guided", "runs/ae", *options)
    assert "inpaint.target: is an option of objective 'class'" in text
    assert text.count("\n  - ") == 1


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(refused, work):
    (work / "locked").mkdir(mode=0o555)
    text = refused(1, "train", "ae", "--run", "locked/run")
    assert "cannot write to locked/run: Permission denied" in text


FILES_UP_TO = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))
"""
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX limits and signals")


@pytest.mark.slow
@posix
def test_disk_that_fills_up_fails_the_run_with_a_message(process, work):
    """Files may grow to 10,000 bytes: enough for run.json, too little for a checkpoint and for
    TensorBoard, which writes in a separate thread."""
    arguments = ("train", "ae", "--set", "model.hidden=[64]", "--batch-size", 512, "--epochs", 3)
    answer = process(*arguments, "--run", "r", "--json", before=FILES_UP_TO.format(10_000))
    assert answer.code == 1
    assert "Traceback" not in answer.err
    assert "in LatentForge itself" not in answer.err
    assert re.search(r"error: cannot write .*r/", answer.err)
    assert "File too large" in answer.err
    manifest = json.loads((work / "r" / "run.json").read_text())
    assert manifest["status"] == answer.json["status"] == "failed"
    assert "cannot write" in manifest["error"]


@pytest.mark.slow
@posix
def test_full_disk_leaves_no_empty_run_folder(process, work):
    arguments = ("train", "ae", *SMALL, "--run", "r", "--json")
    answer = process(*arguments, before=FILES_UP_TO.format(100))
    assert (answer.code, answer.json["status"]) == (1, "failed")
    assert "cannot write to r/run.json: File too large" in answer.err
    assert "Traceback" not in answer.err
    assert list(work.iterdir()) == []


@pytest.mark.slow
@posix
def test_refused_resume_on_a_full_disk_leaves_no_file(process, cli, work):
    assert cli("train", "ae", *SMALL, "--run", "r").code == 0
    before = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
    arguments = ("train", "--resume", "r", "--epochs", "9", "--quiet")
    answer = process(*arguments, before=FILES_UP_TO.format(10))
    assert answer.code == 1
    assert "cannot write to r/events.out.tfevents" in answer.err
    assert {path: path.read_bytes() for path in work.rglob("*") if path.is_file()} == before
    assert cli(*arguments).code == 0


# ---------------------------------------------------------------- non-finite loss


def test_non_finite_loss_ends_the_run_at_its_step(cli, work):
    fast = ("--lr", "1e30", "--set", "train.optimizer=sgd")
    answer = cli("train", "ae", *SMALL, *fast, "--run", "r", "--json")
    assert answer.code == 1
    assert "at step 2" in answer.err  # the first step's loss is that of the initial weights
    assert "a smaller --lr" in answer.err
    assert "Traceback" not in answer.err
    assert (answer.json["status"], answer.json["run"]) == ("failed", "r")
    manifest = json.loads((work / "r" / "run.json").read_text())
    assert manifest["status"] == "failed"
    assert "at step 2" in manifest["error"]
    assert "no checkpoint" in cli("evaluate", "r").err


def test_non_finite_weights_after_the_last_step_fail_the_run(cli, work):
    """One step: its loss is finite, but every metric of the updated weights is NaN."""
    answer = cli(
        *("train", "ae", "--set", "model.hidden=[16]", "--batch-size", 9999, "--epochs", 1),
        *("--run", "r", "--json", "--lr", "1e30", "--set", "train.optimizer=sgd"),
    )
    assert answer.code == 1
    assert "step 1" in answer.err
    assert "nan" in answer.err
    assert "not JSON" not in answer.err
    assert answer.json["status"] == "failed"  # NaN would make it invalid JSON
    text = (work / "r" / "run.json").read_text()
    assert json.loads(text)["status"] == "failed"
    assert "NaN" not in text
    assert not list((work / "r" / "checkpoints").glob("step-*"))


# ---------------------------------------------------------------- plugin faults

PLUGIN = """
import signal
from dataclasses import dataclass

from latentforge import CallbackSpec, ModelSpec, Size, hookimpl


@dataclass(frozen=True)
class TrapConfig:
    step: Size = 4
    do: str = "nothing"


class Trap:
    def __init__(self, config):
        self.config = config

    def attach(self, engines):
        if self.config.do == "break attach":
            raise RuntimeError("cannot attach")
        from ignite.engine import Events

        event = Events.ITERATION_COMPLETED(once=self.config.step)
        engines.trainer.add_event_handler(event, getattr(self, self.config.do))

    def nothing(self, engine):
        pass

    def fail(self, engine):
        raise ZeroDivisionError("a trap")

    def interrupt(self, engine):
        signal.raise_signal(signal.SIGINT)

    def interrupt_twice(self, engine):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


@hookimpl
def latentforge_callbacks():
    yield CallbackSpec(name="trap", summary="", build=Trap, config=TrapConfig)
"""


@pytest.fixture
def trap(work, linear_classifier):
    """Builds a training command line whose callback acts at a given step."""
    (work / "trap.py").write_text(PLUGIN + linear_classifier("trap"))

    def line(do: str, *more: object, step: int = 4) -> tuple[object, ...]:
        return (
            *("-p", "./trap.py", "train", "ae", "--set", "model.hidden=[16]", "--batch-size", 128),
            *("--set", f"callbacks.trap.do={do}", "--set", f"callbacks.trap.step={step}"),
            *("--run", "r", *more),
        )

    return line


def test_exception_in_a_callback_fails_the_run(cli, trap, work):
    answer = cli(*trap("fail", "--epochs", 1, "--json"))
    assert answer.code != 0
    assert answer.json["status"] == "failed"
    assert "ZeroDivisionError: a trap" in answer.err
    assert "callback 'trap' of plugin trap" in answer.err
    assert "Traceback" not in answer.err
    manifest = json.loads((work / "r" / "run.json").read_text())
    assert (manifest["status"], manifest["steps"]) == ("failed", 4)
    assert "a trap" in manifest["error"]


def test_callback_that_cannot_attach_leaves_no_running_status(cli, trap, work):
    answer = cli(*trap("break attach", "--epochs", 1))
    assert answer.code == 3
    assert "RuntimeError: cannot attach" in answer.err
    assert "callback 'trap' of plugin trap" in answer.err
    manifest = work / "r" / "run.json"
    assert not manifest.exists() or json.loads(manifest.read_text())["status"] == "failed"


def test_debug_shows_the_traceback_and_the_message(cli, monkeypatch, work):
    monkeypatch.setenv("LATENTFORGE_DEBUG", "1")
    answer = cli("evaluate", "nowhere")
    assert answer.code == 4
    assert "Traceback (most recent call last)" in answer.err
    assert answer.err.splitlines()[-2] == "error: no run at nowhere"


# ---------------------------------------------------------------- Ctrl-C


@posix
def test_interrupt_finishes_the_step_and_saves_a_checkpoint(cli, trap, work):
    before = signal.getsignal(signal.SIGINT)
    answer = cli(*trap("interrupt", "--epochs", 9, "--json", step=15))
    assert signal.getsignal(signal.SIGINT) is before
    assert answer.code == 130
    said = answer.json
    assert (said["status"], said["run"], said["epochs"]) == ("interrupted", "r", 1)
    assert said["exit_code"] == 130
    assert "error: interrupted at step 15; the last checkpoint is in r\n" in answer.err
    manifest = json.loads((work / "r" / "run.json").read_text())
    assert manifest["status"] == "interrupted"
    assert manifest["steps"] == 15  # the step of the interrupt
    latest = (work / "r" / "checkpoints" / "LATEST").read_text().split()[0]
    assert latest == f"step-{manifest['steps']:08d}"
    assert cli("-p", "./trap.py", "evaluate", "r", "--json").json["checkpoint"] == latest


@posix
@pytest.mark.parametrize("step", [11, 22], ids=["end of first epoch", "end of training"])
def test_interrupt_at_the_end_of_an_epoch_saves_that_step(cli, trap, work, step):
    answer = cli(*trap("interrupt", "--epochs", 2, step=step))
    assert answer.code == 130
    manifest = json.loads((work / "r" / "run.json").read_text())
    assert (manifest["status"], manifest["steps"]) == ("interrupted", step)
    assert (work / "r" / "checkpoints" / "LATEST").read_text().split()[0] == f"step-{step:08d}"


@posix
def test_interrupt_before_the_first_checkpoint_mentions_no_checkpoint(cli, trap, work):
    answer = cli(*trap("interrupt_twice", "--epochs", 2, "--json", step=3))
    assert answer.code == 130
    assert answer.err == "error: interrupted at step 3\n"
    assert answer.json["status"] == "interrupted"
    manifest = json.loads((work / "r" / "run.json").read_text())
    assert (manifest["status"], manifest["steps"]) == ("interrupted", 3)
    assert "no checkpoint" in cli("-p", "./trap.py", "evaluate", "r").err


SIGNAL_AT_IMPORT = """
import importlib.abc
class Interrupt(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {!r}:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
"""


@posix
def test_ctrl_c_while_the_program_is_loading_shows_no_traceback(process):
    """The signal is received while Typer is imported, before any command starts."""
    answer = process("list", before=SIGNAL_AT_IMPORT.format("latentforge.cli.train"))
    assert answer.code == 130
    assert "Traceback" not in answer.err


@pytest.mark.slow
@posix
@pytest.mark.parametrize("module", ["numpy.linalg", "torch.autograd", "ignite.engine"])
def test_ctrl_c_during_a_third_party_import_ends_the_process(process, work, module):
    """An exception there would be swallowed or leave a half-imported package."""
    before = SIGNAL_AT_IMPORT.format(module)
    answer = process("train", "ae", "--run", "r", "--epochs", 1, before=before)
    assert answer.code == 130
    assert answer.err == "error: interrupted\n"
    assert not (work / "r").exists()


@pytest.mark.slow
@posix
def test_ctrl_c_while_the_process_ends_keeps_the_exit_code(start, trap, work):
    """Process exit takes 0.2 s; a second Ctrl-C in that time must not change the exit code."""
    process = start(*trap("interrupt", "--epochs", 9, "--json", step=3), before="pass")
    answer = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert json.loads(answer)["exit_code"] == 130
    assert process.returncode == 130
