"""Searches in a shared storage: which sweeps share a study, and how passwords are protected."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import numpy as np
import pytest

from latentforge import Forge
from latentforge.config.request import draft_request
from latentforge.errors import RunFailed
from latentforge.io.redact import mask_passwords, remove_secrets
from latentforge.sweeps.optuna_study import Study, make_absolute
from latentforge.sweeps.search import describe_search
from latentforge.sweeps.search_space import read_space

from .stored import read, trials_of

WORDS = ["sweep", "ae", "--epochs=1", "--batch-size=512"]
WORDS += ["--space=train.lr=log(1e-4, 1e-1)", "--space=model.latent_dim=int(2, 6)"]


@pytest.mark.slow  # three processes and their imports
def test_two_sweeps_share_one_search_and_store_no_password(start, cli, work):
    """SQLite does not use the token in this URL, but it must be masked like any password."""
    url = "sqlite:///file:shared.db?uri=true&token=hunter2"
    words = [*WORDS, "--search=4", f"--storage={url}"]
    both = [start(*words, f"--out={name}", "--json") for name in ("one", "other")]
    for started in both:
        out, err = started.communicate(timeout=120)
        assert started.returncode == 0, err
        assert "hunter2" not in out + err
    records = [read(work / name / "sweep.json") for name in ("one", "other")]
    numbers = [member["trial"] for record in records for member in record["members"]]
    assert len(numbers) == len(set(numbers)) == 4
    name = records[0]["search"]["study"]
    assert name == records[1]["search"]["study"]
    trials = trials_of(url, name)
    assert [trial.state.name for trial in trials].count("COMPLETE") == 4
    for record in records:
        for member in record["members"]:
            loss = member["metrics"]["validation"]["loss"]
            assert trials[member["trial"]].value == loss
    for file in [*work.rglob("*.json"), *work.rglob("events.*"), *work.rglob("*.jsonl")]:
        assert b"hunter2" not in file.read_bytes(), file
    runs = [read(path) for path in work.glob("*/*/run.json")]
    masks = [f"--storage={mask_passwords(url)}" in run["environment"]["command"] for run in runs]
    assert masks == [True] * 4

    answer = cli("sweep", "--resume", "one")
    assert answer.code == 2
    assert "--storage URL" in answer.err
    assert cli("sweep", "--resume", "one", "--storage", url, "--quiet").code == 0
    late = cli(*words, "--out=late", "--json")  # no trials are left for it
    assert late.code == 0, late.err
    assert late.json["members"] == []


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("search.db", 2),
        ("redis://bob:hunter2@localhost", 2),
        ("postgresql://bob:hunter2@localhost:port/x", 2),
        ("postgresql+nothing://bob:hun@ter2@localhost/x", 2),
        ("sqlite:////nowhere/at/all.db?password=hunter2", 4),
        ("oracle://bob:hunter2@localhost/x", 4),  # its driver is not installed
    ],
)
def test_unusable_storage_error_does_not_show_the_password(cli, work, url, code):
    answer = cli(*WORDS, "--search=2", "--storage", url)
    assert answer.code == code, answer.err
    assert "the storage " in answer.err
    assert "Traceback" not in answer.err
    assert "ter2" not in answer.err
    assert not (work / "runs").exists()


def test_resume_hint_asks_for_a_storage_with_a_masked_password(tmp_path):
    url = f"sqlite:///file:{tmp_path}/shared.db?uri=true&token=hunter2"
    stored = {"study": "it", "space": {"train.lr": "log(1e-4, 1e-1)"}, "better": "lower"}
    search = {**stored, "trials": 2, "seed": 0, "folder": "f", "storage": mask_passwords(url)}
    with closing(Study(search, tmp_path, url, new=True)) as study:
        with closing(sqlite3.connect(tmp_path / "shared.db")) as database:
            database.execute("DROP TABLE trials")
        with pytest.raises(RunFailed) as caught:
            study.ask()
    assert caught.value.hint == f"latentforge sweep --resume {tmp_path} --storage URL"


def test_study_name_depends_on_data_and_training_not_on_execution(tmp_path):
    """Sweeps with the same study name share its trials."""
    x = np.random.default_rng(0).random((60, 6, 6), np.float32)
    for name, images in (("a", x), ("b", x), ("other", 1 - x)):
        np.save(tmp_path / f"{name}.npy", images)
    forge, space = Forge(), read_space({"train.lr": "log(1e-4, 1e-2)"})

    def name_of(file="a", train=None, **data):
        path = {"name": "arrays", "path": tmp_path / f"{file}.npy"}
        draft, _ = draft_request(forge.registry, "ae", data={**path, **data}, train=train)
        return describe_search(forge.registry, draft, space, None, None)[1]["study"]

    same = [
        name_of("b", stream="always", workers=1),
        name_of(train={"epochs": 10, "threads": 2, "device": "cpu", "log_every": 7}),
        name_of(validation=None, split_seed=0),
    ]
    assert same == [name_of()] * 3
    others = {name_of("other"), name_of(train={"epochs": 11}), name_of(split_seed=1)}
    assert len({name_of(), *others}) == 4


def test_passwords_are_masked_in_every_part_of_a_url():
    assert mask_passwords("--storage=mysql://me:a/b@c@host/x") == "--storage=mysql://me:***@host/x"
    assert mask_passwords("postgresql://me@host/x") == "postgresql://me@host/x"
    assert mask_passwords("a://h/x?user=me&Password=b&c=d") == "a://h/x?user=me&Password=***&c=d"
    assert mask_passwords("sqlite:///C:/folder/x.db") == "sqlite:///C:/folder/x.db"
    text = remove_secrets("no user 'p@ss' at a://u:p%40ss@h/x", "a://u:p%40ss@h/x")
    assert text == "no user '***' at a://u:***@h/x"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("sqlite:///study.db", "sqlite:///{here}/study.db"),
        ("sqlite:///./a/study.db?timeout=3", "sqlite:///{here}/a/study.db?timeout=3"),
        ("sqlite:////data/study.db", "sqlite:////data/study.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("postgresql://me@host/study", "postgresql://me@host/study"),
    ],
)
def test_sqlite_urls_are_made_absolute(given, kept, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert make_absolute(given) == kept.format(here=tmp_path)


def test_resume_with_a_missing_database_creates_no_file(tmp_path, cli, work):
    words = [*WORDS, "--search=1", "--storage=sqlite:///there.db", "--out", "one", "--quiet"]
    assert cli(*words).code == 0
    answer = cli("sweep", "--resume", "one", "--storage", "sqlite:///not-there.db")
    assert answer.code == 4
    assert f"is missing: {work / 'not-there.db'}" in answer.err
    assert not (work / "not-there.db").exists()
    again = cli(*words[:-3], "--out", "two")
    assert again.code == 0
    assert "the search has all its trials" in again.out
    assert "MEMBER" not in again.out


def test_search_resumes_in_a_folder_with_special_characters(cli, work):
    name = "ä #1%20"
    assert cli(*WORDS, "--search=1", "--out", name, "--quiet").code == 0
    answer = cli("sweep", "--resume", name, "--quiet")
    assert answer.code == 0, answer.err
