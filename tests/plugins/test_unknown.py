"""Names that no loaded plugin offers: what was meant, and commands that work."""

from __future__ import annotations

import re
import shlex

import pytest

RUNNABLE = (
    *("latentforge train ae --data digits", "latentforge train vae"),
    "latentforge explore sample RUN",
)
"""The commands that work with MNIST missing, on a run of `ae`."""


def hint(answer) -> list[str]:
    return shlex.split(answer.err.partition("try: ")[2].splitlines()[0])


def test_a_component_is_no_plugin_to_disable(cli):
    refused = cli("-p", "no:ae", "train", "ae")
    assert refused.code == 2
    assert "no plugin 'ae'; model 'ae' belongs to plugin 'autoencoder'" in refused.err
    assert "vae" not in refused.err
    disabled = cli(*hint(refused), "plugins", "list", "--json").json["plugins"]
    assert [p["name"] for p in disabled if p["status"] == "disabled"] == ["autoencoder"]


@pytest.mark.parametrize(
    "line", ["train ae", "train latentforge/ae", "show model ae", "train vae --loss elbo"]
)
def test_a_component_of_a_disabled_plugin_names_what_disables_it(cli, line):
    plugin = "elbo" if "elbo" in line else "autoencoder"
    refused = cli("-p", f"no:{plugin}", *line.split())
    assert refused.code == 3
    assert f"disabled by -p no:{plugin}" in refused.err
    assert "did you mean" not in refused.err
    assert hint(refused) == ["leave", "out", "-p", f"no:{plugin}"]


def test_the_list_of_the_environment_is_completed(cli, monkeypatch):
    monkeypatch.setenv("LATENTFORGE_PLUGINS", "ae,digits")
    refused = cli("list")
    assert "there is no plugin 'ae'; model 'ae' belongs to plugin 'autoencoder'" in refused.err
    variable, _, value = hint(refused)[0].partition("=")
    monkeypatch.setenv(variable, value)
    assert cli("show", "ae").code == 0
    monkeypatch.setenv(variable, "digits")
    refused = cli("train", "ae")
    assert hint(refused) == ["add", "autoencoder", "to", "LATENTFORGE_PLUGINS"]


def test_an_unknown_name_in_the_environment_has_a_hint_that_works(process):
    refused = process("train", "ae", env={"LATENTFORGE_PLUGINS": "nope"})
    assert refused.code == 2
    assert hint(refused) == ["env", "-u", "LATENTFORGE_PLUGINS", "latentforge", "plugins", "list"]
    assert process("plugins", "list", env={"LATENTFORGE_PLUGINS": "nope"}).code == 2


@pytest.mark.parametrize(
    ("line", "what", "command"),
    [
        ("train digits", "a dataset", "latentforge train ae --data digits"),
        ("train ae --data vae", "a model", "latentforge train vae"),
        ("explore nll runs/ae", "a measure", "latentforge evaluate RUN --measure nll"),
        ("evaluate runs/ae --measure sample", "an explorer", "latentforge explore sample RUN"),
        ("train inpaint", "an objective", "latentforge explore guided RUN --set objective=inpaint"),
        ("train vanilla-ae", "a preset", "latentforge train --preset vanilla-ae"),
    ],
)
def test_the_name_of_another_kind_is_answered_with_its_command(cli, runs, line, what, command):
    refused = cli(*line.split())
    assert refused.code == 2
    assert f"it is {what}" in refused.err
    assert re.search(f"try:? {re.escape(command)}$", refused.err, re.MULTILINE)
    words = command.replace("RUN", "runs/ae").split()[1:]
    if command in RUNNABLE:
        assert cli(*words, *(["--epochs", "1", "--quiet"] * ("train" in words))).code == 0


def test_a_similar_name_of_the_kind_comes_before_other_kinds(cli):
    refused = cli("train", "ae", "--loss", "recon")  # also a measure
    assert "unknown loss 'recon', did you mean 'reconstruction'?" in refused.err
