"""Likely mistakes on the command line are answered with what to write, which works."""

from __future__ import annotations

import shlex

import pytest


def suggestion(answer) -> list[str]:
    assert answer.code == 2
    return shlex.split(answer.err.partition("try: ")[2].splitlines()[0])


@pytest.mark.parametrize(
    ("mistake", "written"),
    [
        (["--latent-dim", "4"], ["--set", "model.latent_dim=4"]),
        (["--latent-dim=4"], ["--set", "model.latent_dim=4"]),
        (["--hidden", "[8]"], ["--set", "model.hidden=[8]"]),
        (["--hidden", "8"], ["--set", "model.hidden=[8]"]),
        (["--hidden=8,4"], ["--set", "model.hidden=[8,4]"]),
        (["--likelihood", "gaussian"], ["--set", "loss.likelihood=gaussian"]),
        (["--checkpoint-every", "3"], ["--set", "train.checkpoint_every=3"]),
        (["--binarize", "fixed"], ["--set", "data.binarize=fixed"]),
    ],
)
def test_an_option_of_a_component_as_a_flag(cli, mistake, written):
    refused = cli("train", "ae", *mistake)
    assert suggestion(refused) == written
    assert cli("train", "ae", *written, "--epochs", "1", "--quiet").code == 0


@pytest.mark.parametrize(
    ("explorer", "mistake", "written"),
    [
        ("interpolate", ["--steps", "4"], ["--set", "steps=4"]),
        ("interpolate", ["--classes=3,8"], ["--set", "classes=[3,8]"]),
        ("reconstruct", ["--n", "4"], ["--set", "n=4"]),
    ],
)
def test_an_option_of_an_explorer_as_a_flag(cli, runs, explorer, mistake, written):
    refused = cli("explore", explorer, "runs/ae", *mistake)
    assert suggestion(refused) == written
    assert cli("explore", explorer, "runs/ae", *written, "--quiet").code == 0


def test_an_option_of_an_objective_as_a_flag(cli, runs):
    guided = ("explore", "guided", "runs/ae")
    assert suggestion(cli(*guided, "--threshold", "0.8")) == ["--set", "threshold=0.8"]
    objective = ("--set", "objective=inpaint")
    assert suggestion(cli(*guided, *objective, "--mask", "left")) == ["--set", "mask=left"]
    assert "No such option: --mask" in cli(*guided, "--mask", "left").err


def test_the_option_of_a_loss_is_suggested_only_for_models_that_the_loss_suits(cli):
    assert suggestion(cli("train", "vae", "--beta", "4"))[:2] == ["--loss", "beta-elbo"]
    refused = cli("train", "ae", "--beta", "4")  # ae has no KL divergence
    assert refused.code == 2
    assert "beta-elbo" not in refused.err
    assert "--set beta=4: write section.key" in (err := cli("train", "ae", "--set", "beta=4").err)
    assert "beta-elbo" not in err


def test_a_run_without_its_role(cli, runs):
    answer = cli("evaluate", "runs/vae", "--measure", "fid", "--with", "runs/cnn")
    assert answer.code == 2
    assert "--with runs/cnn: write ROLE=RUN, as in --with classifier=runs/cnn" in answer.err


def test_unknown_flags_are_refused_as_usual(cli):
    answer = cli("train", "ae", "--foo", "3")
    assert answer.code == 2
    assert "No such option: --foo" in answer.err


@pytest.mark.parametrize(
    ("given", "section"),
    [("latent_dim=4", "model"), ("epochs=1", "train"), ("validation=0.2", "data")],
)
def test_an_assignment_without_its_section(cli, given, section):
    answer = cli("train", "ae", "--set", given)
    assert answer.code == 2
    assert f"--set {given}: write section.key=VALUE, --set {section}.{given}" in answer.err
    line = ["--set", f"{section}.{given}", "--set", "train.epochs=1", "--quiet"]
    assert cli("train", "ae", *line).code == 0


def test_an_assignment_of_nothing_known(cli):
    answer = cli("train", "ae", "--set", "colour=red")
    assert "write section.key=VALUE, as in train.epochs=20" in answer.err


def test_arguments_in_the_wrong_order(cli, runs):
    refused = cli("explore", "runs/ae", "reconstruct")
    words = suggestion(refused)
    assert words == ["latentforge", "explore", "reconstruct", "runs/ae"]
    assert cli(*words[1:], "--quiet").code == 0


def test_a_component_is_shown_without_its_kind(cli):
    assert cli("show", "vae").out == cli("show", "model", "vae").out
    assert cli("show", "latent-map").out.startswith("explorer latent-map: ")
    assert "did you mean 'vae'?" in cli("show", "vea").err
    assert suggestion(cli("show", "model")) == ["latentforge", "list", "models"]


def test_a_measure_with_the_name_of_a_kind_is_shown(cli):
    assert cli("show", "loss").out.startswith("measure loss: ")


@pytest.mark.parametrize("path", [(), ("plugins",), ("data",), ("config",)], ids=" ".join)
def test_summaries_in_the_help_are_complete(cli, path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = cli(*path, "--help").out.splitlines()
    assert not [line for line in lines[1:] if line.endswith("...")]
    assert max(map(len, lines)) <= 80


def test_completion_can_be_installed(cli):
    assert "--install-completion" in cli("--help").out
