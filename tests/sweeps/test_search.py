"""A search: trials suggested by Optuna, reported values, failures and resume."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sqlite3
import sys
import time
from contextlib import closing

import pytest
import torch

from latentforge import Forge
from latentforge.errors import MissingError, RunFailed, UsageError
from latentforge.sweeps.optuna_study import Study

from .stored import read, trials_of

SPACE = {
    "train.lr": "log(1e-4, 1e-1)",
    "model.latent_dim": "int(2, 6)",
    "model.hidden": [[8], [16, 8]],
    "train.weight_decay": "uniform(0, 0.1)",
}
WORDS = ["sweep", "ae", "--epochs=1", "--batch-size=512"]
WORDS += ["--space=train.lr=log(1e-4, 1e-1)", "--space=model.latent_dim=int(2, 6)"]
WORDS += ["--space=model.hidden=[[8], [16, 8]]", "--space=train.weight_decay=uniform(0, 0.1)"]
ONCE = {"epochs": 1, "batch_size": 512}
TRIALS = 12  # Optuna's first ten trials are random


def own_trials(folder):
    return trials_of(
        f"sqlite:///{folder}/search.db", read(folder / "sweep.json")["search"]["study"]
    )


def states(trials):
    return [trial.state.name for trial in trials]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """An uninterrupted search of twelve trials; read only."""
    folder = tmp_path_factory.mktemp("searched") / "search"
    return Forge().sweep("ae", train=ONCE, search=TRIALS, space=SPACE, out=folder, quiet=True)


# ---------------------------------------------------------------- the request


def test_option_of_one_component_fails_only_trials_of_the_others(tmp_path):
    space = {"loss.name": ["elbo", "beta-elbo"], "loss.beta": "uniform(1, 4)"}
    model = {"encoder": [8], "decoder": [8], "latent_dim": 2}
    request = {"model": model, "train": ONCE, "space": space, "objective": "elbo", "quiet": True}
    made = Forge().sweep("vae", search=5, out=tmp_path / "s", **request)
    for member in made.members:
        fits = member["values"]["loss.name"] == "beta-elbo"
        assert member["status"] == ("done" if fits else "failed")
        assert fits or "loss.beta (from the search): no such option of loss" in member["error"]
    assert {member["status"] for member in made.members} == {"done", "failed"}
    assert [s == "COMPLETE" for s in states(own_trials(made.path))] == [
        member["status"] == "done" for member in made.members
    ]


def test_missing_optuna_error_names_the_extra_to_install(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    answer = cli(*WORDS, "--search=2")
    assert answer.code == 4
    assert "pip install 'latentforge[sweep]'" in answer.err
    assert "Traceback" not in answer.err


# ---------------------------------------------------------------- trials


def test_members_are_runs_with_values_from_the_space(searched):
    assert [member["trial"] for member in searched.members] == list(range(TRIALS))
    for member, run in zip(searched.members, searched.runs(), strict=True):
        assert run.name.startswith(f"{member['trial']}-lr=")
        assert 1e-4 <= run.config["train"]["lr"] <= 1e-1
        assert run.config["model"]["latent_dim"] in range(2, 7)
        assert run.config["model"]["hidden"] in SPACE["model.hidden"]
        assert run.config["train"]["lr"] == member["values"]["train.lr"]
        assert member["metrics"] == run.metrics
    assert len({member["values"]["train.lr"] for member in searched.members}) == TRIALS


def test_validation_metric_is_reported_to_optuna_and_ranks_members(searched):
    losses = {run.name: run.metrics["validation"]["loss"] for run in searched.runs()}
    trials = own_trials(searched.path)
    assert [trial.value for trial in trials] == list(losses.values())
    assert searched.best == min(losses, key=losses.get)
    assert [member["name"] for member in searched.ranked] == sorted(losses, key=losses.get)
    assert searched.summary()["best"] == searched.best
    assert (searched.path / "report.html").exists()


def test_table_is_sorted_by_the_objective(cli):
    words = [*WORDS, "--search=3", "--quiet", "--objective=validation/recon"]
    answer = cli(*words)
    assert answer.code == 0, answer.err
    head, *rows = answer.out.splitlines()[:4]
    place = head.split("  ")
    place = [column.strip() for column in place if column].index("recon")
    recons = [[cell for cell in row.split("  ") if cell][place].strip() for row in rows]
    values = [float(recon.rstrip("*")) for recon in recons]
    assert values == sorted(values)
    assert [recon.endswith("*") for recon in recons] == [True, False, False]
    best = rows[0].split()[0]
    assert f"best by validation/recon: runs/sweep-ae-digits-1/{best}" in answer.out


def test_metric_that_is_better_when_higher_is_maximized(tmp_path):
    made = Forge().sweep(
        "cnn-classifier",
        train={"epochs": 1, "batch_size": 512, "monitor": "accuracy"},
        search=2,
        space={"train.lr": [1e-9, 1e-2]},
        out=tmp_path / "s",
        quiet=True,
    )
    found = {run.name: run.metrics["validation"]["accuracy"] for run in made.runs()}
    assert made.search["objective"] == "validation/accuracy"
    assert found[made.best] == max(found.values())


def test_another_seed_gives_other_values(searched, tmp_path):
    request = {"search": 1, "space": SPACE, "quiet": True}
    other = Forge().sweep("ae", train={**ONCE, "seed": 1}, out=tmp_path / "s", **request)
    assert other.members[0]["values"] != searched.members[0]["values"]


def test_search_works_on_in_memory_data(tmp_path):
    x = torch.rand(80, 6, 6, generator=torch.Generator().manual_seed(0))
    request = {"train": ONCE, "search": 2, "space": SPACE, "quiet": True}
    made = Forge().sweep("ae", data=x, out=tmp_path / "s", **request)
    assert [run.status for run in made.runs()] == ["done", "done"]
    with pytest.raises(UsageError, match="data passed in Python"):
        Forge().resume_sweep(made.path)


@pytest.mark.slow  # two processes and their imports
def test_results_of_worker_processes_are_reported_to_optuna(cli, work):
    answer = cli(*WORDS, "--search=3", "--jobs=2", "--out=s", "--json")
    assert answer.code == 0, answer.err
    assert [member["status"] for member in answer.json["members"]] == ["done"] * 3
    values = {trial.number: trial.value for trial in own_trials(work / "s")}
    for member in answer.json["members"]:
        assert values[member["trial"]] == member["metrics"]["validation"]["loss"]


# ---------------------------------------------------------------- failures and resume

FRAGILE = """
from pathlib import Path

from latentforge import ModelSpec, hookimpl
from latentforge_plugins.autoencoder import AutoencoderConfig, build as build_ae

def build(config, data):
    if Path({path!r}).exists() and config.latent_dim < 4:
        raise RuntimeError("not today")
    return build_ae(config, data)

@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="fragile",
        summary="-",
        build=build,
        config=AutoencoderConfig,
        provides={{"encode", "decode", "decode_logits"}},
        default_loss="reconstruction",
    )
"""


@pytest.mark.slow
def test_failing_trial_stops_no_other_and_a_retry_is_reported(tmp_path):
    plugin, broken = tmp_path / "fragile.py", tmp_path / "broken"
    plugin.write_text(FRAGILE.format(path=str(broken)), "utf-8")
    broken.touch()
    forge, path = Forge([str(plugin)]), tmp_path / "s"
    made = forge.sweep("fragile", train=ONCE, search=6, space=SPACE, out=path, quiet=True)
    fails = [member["values"]["model.latent_dim"] < 4 for member in made.members]
    assert set(fails) == {True, False}
    assert ["not today" in member["error"] for member in made.members] == fails
    assert [state == "FAIL" for state in states(own_trials(path))] == fails
    broken.unlink()
    assert len(forge.resume_sweep(path, quiet=True).failed) == sum(fails)
    assert forge.resume_sweep(path, retry=True, quiet=True).status == "done"
    forge.resume_sweep(path, retry=True, quiet=True)  # has nothing more to report
    trials = own_trials(path)
    assert len(trials) == 6 + sum(fails)
    again = {trial.user_attrs["latentforge:again"]: trial.value for trial in trials[6:]}
    assert again == {
        member["trial"]: member["metrics"]["validation"]["loss"]
        for member, failed in zip(forge.resume_sweep(path).members, fails, strict=True)
        if failed
    }


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_interrupted_search_resumes_to_the_same_trials(start, work, searched, number):
    started = start(*WORDS, f"--search={TRIALS}", "--out=stopped")
    for _ in range(1200):
        if list(work.glob("stopped/10-*/run.json")) or started.poll() is not None:
            break
        time.sleep(0.02)
    started.send_signal(number)
    _, err = started.communicate(timeout=60)
    assert started.returncode == (130 if number == signal.SIGINT else -number), err
    assert len(read(work / "stopped/sweep.json")["members"]) < TRIALS
    made = Forge().resume_sweep(work / "stopped", quiet=True)
    assert made.status == "done"
    for one, other in zip(made.members, searched.members, strict=True):
        assert (one["name"], one["values"]) == (other["name"], other["values"])
        assert one["metrics"] == other["metrics"]
    assert states(own_trials(made.path)) == ["COMPLETE"] * TRIALS


def test_unrecorded_trials_are_adopted_or_marked_as_failed(searched, tmp_path):
    path = shutil.copytree(searched.path, tmp_path / "copy")
    record = read(path / "sweep.json")
    record["search"]["trials"] += 2
    (path / "sweep.json").write_text(json.dumps(record), "utf-8")
    with closing(Study(record["search"], path, None, new=False)) as study:
        asked = study.ask()  # as if killed before the trials were recorded
        study.study.ask()
    made = Forge().resume_sweep(path, quiet=True)
    assert (made.members[12]["trial"], made.members[12]["values"]) == asked
    assert [member["trial"] for member in made.members] == [*range(13), 14]
    assert states(own_trials(path)) == [*["COMPLETE"] * 13, "FAIL", "COMPLETE"]


@pytest.mark.slow
def test_resume_reports_finished_trials_missing_in_optuna(searched, tmp_path):
    path = shutil.copytree(searched.path, tmp_path / "copy")
    record = read(path / "sweep.json")
    (path / "search.db").unlink()
    with closing(Study(record["search"], path, None, new=True)) as study:
        for _ in range(TRIALS):
            study.ask()
    Forge().resume_sweep(path, quiet=True)
    losses = [member["metrics"]["validation"]["loss"] for member in record["members"]]
    assert [trial.value for trial in own_trials(path)] == losses


def test_missing_database_and_unneeded_storage_option_are_refused(searched, tmp_path):
    shutil.copy(searched.path / "sweep.json", tmp_path)
    with pytest.raises(MissingError, match=r"is missing: .*search\.db"):
        Forge().resume_sweep(tmp_path)
    with pytest.raises(UsageError, match="; storage is not allowed"):
        Forge().resume_sweep(searched.path, storage="sqlite:///x.db")


def test_database_without_the_search_or_its_trials_is_refused(searched, tmp_path):
    shutil.copy(searched.path / "sweep.json", tmp_path)
    (tmp_path / "search.db").touch()
    with pytest.raises(MissingError, match="contains no search") as caught:
        Forge().resume_sweep(tmp_path)
    assert caught.value.hint == ""  # --storage is refused for a database of its own
    with closing(Study(searched.search, tmp_path, None, new=True)) as study:
        assert study.best() == {}
    with pytest.raises(MissingError, match="has no trial 0"):
        Forge().resume_sweep(tmp_path, quiet=True)


def test_storage_failure_error_names_the_resume_command(searched, tmp_path):
    path = shutil.copytree(searched.path, tmp_path / "copy")
    search = {**searched.search, "trials": TRIALS + 1}
    with closing(Study(search, path, None, new=False)) as study:
        with closing(sqlite3.connect(path / "search.db")) as database:
            database.execute("DROP TABLE trials")
        with pytest.raises(RunFailed, match="cannot be used") as caught:
            study.ask()
        with pytest.raises(RunFailed, match="cannot be used"):
            study.count_remaining()  # used in the line printed at the start of a trial
    assert caught.value.hint == f"latentforge sweep --resume {path}"


def test_non_finite_values_are_never_the_best(searched, tmp_path):
    path = shutil.copytree(searched.path, tmp_path / "copy")
    record = read(path / "sweep.json")
    place = next(i for i, m in enumerate(record["members"]) if m["name"] == searched.best)
    record["members"][place]["metrics"]["validation"]["loss"] = None  # NaN is null in JSON
    (path / "sweep.json").write_text(json.dumps(record), "utf-8")
    from latentforge.sweeps.folder import open_sweep

    made = open_sweep(Forge(), path)
    assert made.best == searched.ranked[1]["name"]
    assert made.ranked[-1]["name"] == searched.best
    assert math.isfinite(searched.ranked[0]["metrics"]["validation"]["loss"])
