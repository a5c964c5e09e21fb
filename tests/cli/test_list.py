"""The commands that list and show runs, components, plugins, data and configurations."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import pytest

from latentforge.specs import KINDS

from .files import is_png

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


def test_data_show_accepts_keys_with_or_without_the_section(cli):
    plain = cli("data", "show", "digits", "--set", "size=12", "--json").json
    full = cli("data", "show", "digits", "--set", "data.size=12", "--json").json
    assert plain["shape"] == full["shape"] == [1, 12, 12]
