"""Hints of the command line are followed literally, and lead to the right result."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest


def hint(answer) -> str:
    return answer.err.rpartition("try: ")[2].splitlines()[0]


def commands(text: str) -> list[list[str]]:
    """The commands in a hint, which stand in backquotes or fill the hint."""
    found = re.findall("`latentforge ([^`]*)`", text) or [text.removeprefix("latentforge ")]
    return [shlex.split(command) for command in found]


# ---------------------------------------------------------------- files and folders


@pytest.mark.parametrize("line", ["runs nope", "runs", "evaluate nope", "explore sample nope/ae"])
def test_without_any_run_the_hint_makes_one(cli, work, line):
    refused = cli(*line.split())
    assert refused.code == 4
    first, *others = commands(hint(refused))
    assert first == ["train", "ae"]
    assert others == ([["runs"]] if line.startswith("runs") else [])
    assert cli(*first, "--epochs", "1", "--quiet").code == 0
    assert "runs/ae-digits-1" in cli("runs").out


@pytest.mark.parametrize("folder", ["nope", "a/b", "runs/ae/run.json"])
def test_a_folder_that_does_not_exist_leads_to_the_list_of_runs(cli, runs, folder):
    refused = cli("runs", folder)
    assert refused.code == 4
    assert commands(hint(refused)) == [["runs"]]
    assert "runs/ae" in cli("runs").out


def test_a_misspelt_folder_of_runs_is_found(cli, runs):
    assert hint(cli("runs", "rusn")) == "did you mean 'runs'?"


@pytest.mark.parametrize("path", ["runs/aee", "ae", "nope/ae", "runs/ae/ae"])
def test_a_misspelt_run_is_found_with_its_path(cli, runs, path):
    refused = cli("evaluate", path)
    assert refused.code == 4
    assert "did you mean 'runs/ae'?" in refused.err
    assert "runs/ae" in cli(*commands(hint(refused))[0]).out


def test_a_folder_of_runs_names_one_of_them(cli, runs):
    refused = cli("evaluate", "runs")
    assert hint(refused).startswith("one of them, such as runs/ae; ")
    assert "runs/ae" in cli(*commands(hint(refused))[0]).out


def test_the_list_of_a_run_is_that_run(cli, runs):
    assert [run["run"] for run in cli("runs", "runs/ae", "--json").json["runs"]] == ["runs/ae"]


def test_runs_and_sweeps_are_told_apart_when_they_are_resumed(cli, runs):
    sweep = ["sweep", "ae", "--set", "model.hidden=[8]", "--epochs", "1", "--quiet", "--out", "s"]
    assert cli(*sweep, "--grid", "train.seed=[0, 1]").code == 0
    refused = cli("train", "--resume", "s")
    assert "s is a sweep, not a run" in refused.err
    assert cli(*commands(hint(refused))[0]).code == 0
    assert commands(hint(cli("sweep", "--resume", "runs/ae"))) == [["train", "--resume", "runs/ae"]]
    assert hint(cli("sweep", "--resume", "x")) == "one of the sweeps there: s"
    shutil.move("s", "seeds")
    assert hint(cli("sweep", "--resume", "sedes")) == "did you mean 'seeds'?"


def test_a_missing_config_file_is_left_out_or_corrected(cli, work):
    Path("mine.toml").write_text('[model]\nname = "ae"\n[train]\nepochs = 1\n', "utf-8")
    refused = cli("train", "ae", "--config", "mien.toml")
    assert hint(refused) == (
        "leave out --config mien.toml: there is no such file; did you mean 'mine.toml'?"
    )
    assert hint(cli("train", "--config", "mien.toml")) == "did you mean 'mine.toml'?"
    refused = cli("train", "vae", "--config", "mine.toml")
    option, value = re.search("(--config mine.toml); (--set [^ ]+)", hint(refused)).groups()
    trained = cli("train", *option.split(), *value.split(), "--quiet", "--json")
    assert trained.json["run"] == "runs/vae-digits-1"
    assert hint(cli("train", "--config", "vanilla-ae")) == "--preset vanilla-ae"
    assert hint(cli("train", "--config", "other.toml")).startswith("`latentforge list presets`")
    for command in ("train", "sweep"):
        assert commands(hint(cli(command))) == [["list", "models"]]


# ---------------------------------------------------------------- plugins


@pytest.mark.parametrize("command", ["show", "check"])
def test_a_new_package_that_is_not_installed_can_be_checked(cli, work, command):
    assert cli("plugins", "new", "swirl").code == 0
    refused = cli("plugins", command, "swirl")
    assert refused.code == 2
    assert hint(refused).startswith("pip install -e ./latentforge-swirl, or ")
    assert cli(*commands(hint(refused))[0]).code == 0
    os.chdir("latentforge-swirl")
    refused = cli("plugins", command, "swirl")
    assert hint(refused).startswith("pip install -e ., or ")
    assert cli(*commands(hint(refused))[0]).code == 0


def test_the_path_of_a_plugin_is_corrected(cli, work):
    assert cli("plugins", "new", "swirl").code == 0
    inside = cli("plugins", "check", "./latentforge-swirl/README.md")
    assert commands(hint(inside)) == [["plugins", "check", "./latentforge-swirl"]]
    assert cli(*commands(hint(inside))[0]).code == 0
    folder = Path("latentforge-swirl").absolute()
    for text in ("./latentforge-swirl", "latentforge-swirl"):
        refused = cli("-p", text, "list")
        assert hint(refused) == f"pip install -e {folder}, and leave out -p {text}"
    Path("mine.py").touch()
    assert hint(cli("-p", "./mien.py", "list")) == "did you mean 'mine.py'?"
    assert "are loaded without -p" in hint(cli("-p", "autoencoder", "list"))


def test_the_next_command_of_a_new_plugin_quotes_its_folder(cli, work):
    last = cli("plugins", "new", "swirl", "--out", "my plugins").out.splitlines()[-1]
    assert shlex.split(last)[:3] == ["next:", "cd", "my plugins/latentforge-swirl"]


# ---------------------------------------------------------------- what fits a model


def test_a_measure_that_does_not_fit_names_those_that_do(cli, runs):
    refused = cli("evaluate", "runs/ae", "--measure", "nll")
    assert refused.code == 2
    models, measures = re.fullmatch(
        "a run of (.*); measures that fit ae: (.*)", hint(refused)
    ).groups()
    assert models == "beta-vae, conv-vae, cvae, deconv-vae, signal-vae or vae"
    assert "nll" not in measures.split(", ")
    requested = [part for name in measures.split(", ") for part in ("--measure", name)]
    assert cli("evaluate", "runs/ae", *requested).code == 0


def test_an_explorer_that_does_not_fit_names_those_that_do(cli, runs):
    refused = cli("explore", "activations", "runs/ae")
    assert hint(refused).startswith("a run of cnn-classifier or mlp-classifier; explorers that fit")
    names = hint(refused).rpartition(": ")[2].split(", ")
    assert {"guided", "reconstruct"} <= {*names}
    for name in ("arithmetic", "reconstruct", "sample"):
        assert name in names
        assert cli("explore", name, "runs/ae", "--quiet").code == 0


@pytest.mark.parametrize(
    ("run", "parts"), [("ae", ["encoder", "decoder"]), ("cnn", ["classifier"])]
)
def test_only_parts_of_the_model_are_suggested_for_the_export(cli, runs, run, parts):
    text = hint(cli("export", f"runs/{run}"))
    assert re.findall(r"--part (\w+)", text) == parts
    assert cli("export", f"runs/{run}", "--format", "safetensors").code == 0
    other = "classifier" if run == "ae" else "encoder"
    text = hint(cli("export", f"runs/{run}", "--part", other))
    assert re.findall(r"--part (\w+)", text) == parts


def test_a_role_names_the_models_that_fit(cli, runs):
    wrong = cli("evaluate", "runs/ae", "--measure", "fid", "--with", "classifier=runs/ae")
    for refused in (wrong, cli("evaluate", "runs/ae", "--measure", "fid")):
        assert hint(refused) == (
            "--with classifier=RUN, where RUN is a run of cnn-classifier or mlp-classifier"
        )


def test_a_loss_that_does_not_fit_names_models_that_do(cli):
    refused = cli("train", "ae", "--loss", "elbo")
    assert "leave the loss out for 'reconstruction', or beta-vae, conv-vae, " in refused.err
    quick = ("--epochs", "1", "--quiet")
    assert (
        cli("train", "ae", *quick).code == cli("train", "vae", "--loss", "elbo", *quick).code == 0
    )


def test_an_option_of_another_loss_names_the_loss(cli):
    for given in (["--beta", "2"], ["--set", "beta=2"]):
        refused = cli("train", "vae", *given)
        option = re.search("--loss beta-elbo --set loss.beta=2", refused.err)[0]
        assert cli("train", "vae", *option.split(), "--epochs", "1", "--quiet").code == 0
    refused = cli("train", "vae", "--set", "loss.beta=2")
    assert "no such option of loss 'elbo', but of losses beta-elbo, beta-tc" in refused.err


def test_an_objective_that_the_model_lacks_is_not_suggested(cli):
    pytest.importorskip("optuna")
    search = ("sweep", "ae", "--search", "1", "--space", "train.lr=log(1e-4, 1e-2)")
    refused = cli(*search, "--objective", "elbo")
    assert "measure 'elbo' needs variational; model 'ae' provides" in refused.err
    assert "train.monitor" not in refused.err
    assert hint(cli(*search, "--objective", "psnr")) == "--set train.monitor=psnr"


# ---------------------------------------------------------------- options


def test_the_grid_that_is_suggested_can_be_trained(cli):
    refused = cli("sweep", "ae")
    small = ("--set", "model.hidden=[8]", "--epochs", "1", "--quiet")
    assert cli("sweep", "ae", *shlex.split(hint(refused)), *small).code == 0
    assert "write train.lr" in cli("sweep", "ae", "--grid", "lr=[0.1, 0.2]").err
    refused = cli("sweep", "ae", "--search", "2", "--grid", "train.lr=[0.1, 0.2]")
    assert hint(refused) == "for a search, --space 'train.lr=[0.1, 0.2]' instead of --grid"


def test_arguments_of_explore_that_are_missing(cli, runs):
    refused = cli("explore", "runs/ae")
    assert commands(hint(refused)) == [["explore", "NAME", "runs/ae"], ["list", "explorers"]]
    refused = cli("explore", "reconstruct")
    assert commands(hint(refused)) == [["explore", "reconstruct", "RUN"], ["runs"]]


def test_options_of_measures(cli, runs):
    refused = cli("evaluate", "runs/ae", "--measure", "recon,loss")
    assert cli("evaluate", "runs/ae", *hint(refused).split()).code == 0
    refused = cli("evaluate", "runs/ae", "--set", "knn_accuracy.k=3")
    assert "request it with --measure knn_accuracy" in refused.err
    refused = cli("evaluate", "runs/ae", "--measure", "knn_accuracy", "--set", "k=3")
    assert "--set knn_accuracy.k=3" in refused.err
    line = ("evaluate", "runs/ae", "--measure", "knn_accuracy", "--set", "knn_accuracy.k=3")
    assert cli(*line).code == 0
    assert hint(cli("evaluate", "runs/ae", "--protocol", "3")) == "--protocol 2"


def test_codes_that_do_not_exist_are_written_by_the_suggested_command(cli, runs):
    decode = ("decode", "runs/ae", "codes.npz", "--out", "decoded")
    assert cli(*commands(hint(cli(*decode)))[0]).code == 0
    assert cli(*decode).code == 0
    refused = cli("encode", "runs/ae", "--out", "codes.csv")
    assert hint(refused) == "--out codes.npz"


def test_data_commands_suggest_commands_without_the_option_data(cli, runs):
    np.savez("mine.npz", x=np.zeros((30, 8, 8), np.uint8))
    for line in ("data show mine.npz", "data show ./mine.npz"):
        refused = cli(*line.split())
        command = re.search("latentforge (data show arrays .*)", refused.err)[1]
        assert cli(*shlex.split(command)).code == 0
    refused = cli("data", "fetch", "./pictures")
    assert "latentforge data show folder --set data.root=./pictures" in refused.err
    assert commands(hint(cli("data", "show", "runs/ae"))) == [["data", "show", "digits"]]
    assert hint(cli("data", "show", "arrays", "--set", "path=mien.npz")).endswith("mine.npz'?")
    missing = hint(cli("data", "show", "pictures/x"))
    assert missing.startswith("a path that exists, or pip install pictures")


def test_hints_about_the_data_name_it(cli, work):
    x = np.zeros((60, 8, 8), np.uint8)
    np.savez("dark.npz", x_train=x, y_train=np.arange(60) % 2, x_test=x, y_test=np.zeros(60, int))
    options = ("--data", "arrays", "--set", "data.path=dark.npz", "--run", "run", "--quiet")
    assert cli("train", "mlp-classifier", *options, "--epochs", "1").code == 0
    text = cli("doctor", "run").out
    found = re.findall("`latentforge (data show[^`]*)`", text)
    assert found
    for command in dict.fromkeys(found):
        assert "dark.npz" in command
        assert cli(*shlex.split(command)).code == 0


def test_a_report_is_an_html_page(cli, runs):
    refused = cli("report", "runs/ae", "--out", "page.pdf")
    assert hint(refused) == "--out page.html"
    assert not Path("page.pdf").exists()
    assert cli("report", "runs/ae", *hint(refused).split()).code == 0


def test_a_misspelt_checkpoint_is_found(cli, runs):
    assert hint(cli("evaluate", "runs/ae", "--checkpoint", "bst")) == "did you mean 'best'?"
